"""Pictures as visual words: dense SIFT, each descriptor named by its nearest centre of a vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.dense_sift import DensePatches, dense_sift, gray_of
from bestiary.features.kmeans import kmeans, nearest_centres
from bestiary.layers.learned import Learned
from bestiary.records import Record, Sample

DESCRIPTORS_A_WORD = 100
"""So many descriptors are drawn for each word to learn the vocabulary from, at least `LEAST_DESCRIPTORS`."""

LEAST_DESCRIPTORS = 100_000
MOST_PICTURES = 3000
"""The vocabulary is learned from so many pictures at most."""


@dataclass(frozen=True, eq=False)
class Words(Record):
    """The N visual words of one picture.

    Attributes:
        index: into the vocabulary.
        xy: where, in pixels of the working size.
        size_hw: the working size.
    """

    index: Int64[Tensor, " N"]
    xy: Float32[Tensor, "N 2"]
    size_hw: tuple[int, int]


class VisualWords(Learned):
    """A vocabulary of dense SIFT descriptors, and how pictures are cut into patches.

    Args:
        count: words of the vocabulary.
        sides: of the patches, in pixels, multiples of 4.
        step: from patch to patch.
        shortest: smaller pictures are enlarged until their shorter side has so many pixels.
        longest: larger pictures are shrunk until their longer side has so many.

    Attributes:
        centres: [count, 128].

    Raises:
        UsageError: a number out of range.
    """

    centres: Tensor

    def __init__(
        self, count: int, sides: Sequence[int] = (16,), step: int = 8, shortest: int = 64, longest: int = 512
    ) -> None:
        super().__init__()
        for name, value in (("words", count), ("step", step), ("shortest", shortest), ("longest", longest)):
            if value < 1:
                raise UsageError(f"got {value}, wanted 1 or more", where=name)
        if not sides or any(side < 4 or side % 4 for side in sides):
            raise UsageError(f"got {tuple(sides)}, wanted multiples of 4", where="sides")
        self.count, self.sides, self.step = count, tuple(sides), step
        self.shortest, self.longest = shortest, longest
        self.declare("centres")

    def patches_of(self, image: Shaped[Tensor, "C H W"]) -> tuple[DensePatches, tuple[int, int]]:
        """Descriptors of a picture, and the size it was brought to."""
        gray = gray_of(image, self.shortest, self.longest)
        return dense_sift(gray, self.sides, self.step), (int(gray.shape[0]), int(gray.shape[1]))

    def words_of(self, image: Shaped[Tensor, "C H W"]) -> Words:
        """The nearest centre of each descriptor; no words of a picture that is thinner than a patch."""
        patches, size_hw = self.patches_of(image)
        return Words(nearest_centres(patches.descriptors, self.centres)[0], patches.xy, size_hw)

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn the centres from descriptors drawn at random from randomly chosen pictures.

        Raises:
            UsageError: no picture, or fewer descriptors than words.
        """
        if not len(samples):
            raise UsageError("got no picture, wanted at least one", where="fit(samples)")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(samples), generator=generator)[:MOST_PICTURES].tolist()
        wanted = max(LEAST_DESCRIPTORS, DESCRIPTORS_A_WORD * self.count)
        share = -(-wanted // max(1, len(chosen)))
        drawn = []
        for i in chosen:
            found = self.patches_of(samples[i].image)[0].descriptors
            drawn.append(found[torch.randperm(len(found), generator=generator)[:share]])
        points = torch.cat(drawn)
        say(f"learning {self.count:,} visual words from {len(points):,} descriptors of {len(chosen):,} pictures")
        self.learn("centres", kmeans(points, self.count, seed).centres)
