"""Pictures as visual words at their interest points: SIFT, each descriptor named by its nearest centre."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.dense_sift import gray_of
from bestiary.features.keypoints import Keypoints
from bestiary.features.kmeans import kmeans, nearest_centres
from bestiary.features.sift import SiftSettings, detect_and_describe
from bestiary.layers.learned import Learned

DESCRIPTORS_A_WORD = 25
"""So many descriptors are drawn for each word to learn the vocabulary from, at least `LEAST_DESCRIPTORS`."""

LEAST_DESCRIPTORS = 100_000
ITERATIONS = 10
"""Of k-means: with thousands of words later ones change which pictures are found very little."""


class KeypointWords(Learned):
    """A vocabulary of SIFT descriptors, and how points are looked for.

    Args:
        count: words of the vocabulary.
        settings: what points are found and how they are described.
        shortest: smaller pictures are enlarged until their shorter side has so many pixels.
        longest: larger pictures are shrunk until their longer side has so many.

    Attributes:
        centres: [count, 128].

    Raises:
        UsageError: a number below 1.
    """

    centres: Tensor

    def __init__(self, count: int, settings: SiftSettings, shortest: int = 128, longest: int = 640) -> None:
        super().__init__()
        for name, value in (("words", count), ("shortest", shortest), ("longest", longest)):
            if value < 1:
                raise UsageError(f"got {value}, wanted 1 or more", where=name)
        self.count, self.settings = count, settings
        self.shortest, self.longest = shortest, longest
        self.declare("centres")

    def points_of(self, image: Shaped[Tensor, "C H W"]) -> tuple[Keypoints, UInt8[Tensor, "N 128"]]:
        """Points at the working size, and their descriptors times 512, rounded, at most 255."""
        points, descriptors = detect_and_describe(
            gray_of(image, self.shortest, self.longest).clamp(0, 1), self.settings
        )
        return points, (512 * descriptors).round().clamp(max=255).to(torch.uint8)

    def fit(
        self, descriptors: Sequence[UInt8[Tensor, "_n 128"]], seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Learn the centres from descriptors drawn at random from those of all pictures.

        Raises:
            UsageError: fewer descriptors than words.
        """
        rows = torch.cat(list(descriptors))
        generator = torch.Generator().manual_seed(seed)
        wanted = max(LEAST_DESCRIPTORS, DESCRIPTORS_A_WORD * self.count)
        points = rows[torch.randperm(len(rows), generator=generator)[:wanted]].float()
        say(f"learning {self.count:,} visual words from {len(points):,} of {len(rows):,} descriptors")
        self.learn("centres", kmeans(points, self.count, seed, ITERATIONS).centres)

    def words_of(self, descriptors: UInt8[Tensor, "N 128"]) -> Int64[Tensor, " N"]:
        """The nearest centre of each descriptor."""
        return nearest_centres(descriptors.float(), self.centres)[0]
