"""Image search with spatial verification: Philbin, Chum, Isard, Sivic, Zisserman, Object Retrieval with Large
Vocabularies and Fast Spatial Matching, CVPR 2007.

Pictures are ranked by the cosine of their tf-idf vectors through an inverted file; the best are then asked how many of
the words that they share with the query lie as one affine view of it would have them, and ranked anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.inverted_file import InvertedFile, inverse_document_frequency, tf_idf
from bestiary.features.keypoint_words import KeypointWords
from bestiary.features.keypoints import Keypoints
from bestiary.features.sift import SiftSettings
from bestiary.features.sparse_rows import SparseRows
from bestiary.features.thumbnails import Thumbnails, compress
from bestiary.features.verification import Verified, verify
from bestiary.heads.fitted_classification import FittedClassifier, describe_all
from bestiary.heads.published import imagenet_categories
from bestiary.records import Sample

LEAST_INLIERS = 4
"""Fewer words in place are chance: such pictures are ranked by their words alone."""

MOST_PAIRS = 1000
"""Pairs of points with one word that are looked at; where there are more, those of the words with fewest pairs."""


@dataclass(frozen=True, eq=False)
class Found:
    """A stored picture that answers a query.

    Attributes:
        index: its number in the order of `fit`.
        name: its name in the data set.
        label: its category.
        score: cosine of the tf-idf vectors.
        inliers: shared words that one affine map explains; 0 where it was not on the shortlist.
        matrix: that map, from the query's pixels to the stored picture's, both at working size.
    """

    index: int
    name: str
    label: int
    score: float
    inliers: int
    matrix: Float64[Tensor, "2 3"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"name": self.name, "score": round(self.score, 6), "inliers": self.inliers}


class ImageSearch(FittedClassifier):
    """The pictures of a data set, found again by what they share with a query.

    As a classifier it lets the best answers vote for their categories, each with its cosine times one more than its
    inliers.

    Args:
        categories: K names.
        words: the vocabulary, to be fitted.
        shortlist: how many of the best are verified.
        tolerance: pixels, at working size, between where the map puts a word and where it is.
        neighbours: how many answers vote.

    Raises:
        UsageError: a number out of range.
    """

    idf: Tensor
    """[words], log(N / n_i)."""
    labels: Tensor
    """[N]."""
    ends: Tensor
    """[N], where each picture's points end in the next four."""
    word: Tensor
    """[P], int32."""
    xy: Tensor
    """[P, 2], float32."""
    scale: Tensor
    angle: Tensor
    names: Tensor
    """The pictures' names in UTF-8, each ended by a zero."""

    def __init__(
        self,
        categories: Sequence[str],
        words: KeypointWords,
        shortlist: int = 50,
        tolerance: float | int = 8.0,
        neighbours: int = 5,
    ) -> None:
        super().__init__(categories)
        if shortlist < 0 or neighbours < 1 or not tolerance > 0:
            got = f"shortlist={shortlist}, neighbours={neighbours}, tolerance={tolerance}"
            raise UsageError(f"got {got}, wanted shortlist >= 0, neighbours >= 1, tolerance > 0")
        self.words, self.shortlist, self.neighbours = words, shortlist, neighbours
        self.tolerance = float(tolerance)
        self.pictures, self.thumbnails = InvertedFile(), Thumbnails()
        self.declare("idf", "labels", "ends", "word", "xy", "scale", "angle", "names")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn the vocabulary, and store every picture's words and where they stand."""
        named = _Named(samples)
        described, labels = describe_all(
            named, lambda image: (*self.words.points_of(image), compress(image)), len(self.categories), say
        )
        points, descriptors, thumbnails = zip(*described, strict=True)
        self.words.fit(descriptors, seed, say)
        words = [self.words.words_of(rows) for rows in descriptors]
        self.store(list(points), words, labels, [named.names[i] for i in range(len(samples))])
        self.thumbnails.fit(thumbnails)
        say(f"{len(self.word):,} words of {len(samples):,} pictures stored")

    def store(
        self,
        points: Sequence[Keypoints],
        words: Sequence[Int64[Tensor, " _n"]],
        labels: Int64[Tensor, " N"],
        names: Sequence[str],
    ) -> None:
        """Index pictures whose points are already words."""
        counts = SparseRows.counted(words, self.words.count)
        self.learn("idf", inverse_document_frequency(counts))
        self.pictures.fit(tf_idf(counts, self.idf))
        self.learn("labels", labels)
        self.learn("ends", torch.tensor([len(row) for row in words]).cumsum(0))
        self.learn("word", torch.cat(list(words)).to(torch.int32))
        for name in ("xy", "scale", "angle"):
            self.learn(name, torch.cat([getattr(p, name) for p in points]))
        self.learn("names", torch.frombuffer(bytearray("".join(n + "\0" for n in names).encode()), dtype=torch.uint8))

    def search(self, images: Sequence[Shaped[Tensor, "C _h _w"]], top: int = 10) -> list[list[Found]]:
        """The best answers to each picture, best first; none that shares no word with it."""
        self.require_fitted()
        answers = []
        for image in images:
            points, descriptors = self.words.points_of(image)
            answers.append(self.search_words(points, self.words.words_of(descriptors), top))
        return answers

    def search_words(self, points: Keypoints, words: Int64[Tensor, " n"], top: int = 10) -> list[Found]:
        """As `search`, of one picture's words."""
        counts = SparseRows.counted([words], self.words.count)
        cosines = self.pictures.compare(tf_idf(counts, self.idf))[0]
        best = torch.sort(cosines, descending=True, stable=True)
        names = bytes(self.names.numpy().tobytes()).decode().split("\0")
        found = []
        for place, (score, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            if score <= 0 or place >= max(top, self.shortlist):
                break
            checked = self.verify(points, words, index) if place < self.shortlist else None
            inliers = 0 if checked is None else int(checked.inliers.sum())
            matrix = torch.eye(2, 3, dtype=torch.float64) if checked is None else checked.matrix
            found.append(Found(index, names[index], int(self.labels[index]), score, inliers, matrix))
        found.sort(key=lambda f: (-(f.inliers if f.inliers >= LEAST_INLIERS else 0), -f.score))
        return found[:top]

    def verify(self, points: Keypoints, words: Int64[Tensor, " n"], index: int) -> Verified:
        """The affine map that most shared words of a query and a stored picture agree with.

        Each single pair of points with one word proposes a map: its shift, its change of scale, and its turn (four
        degrees of freedom; three where points are upright, and so never turn). The map is then fitted to all that
        agree.
        """
        part = slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))
        stored = Keypoints(self.xy[part], self.scale[part], self.angle[part])
        theirs = self.word[part].long()
        first, second = (words[:, None] == theirs).nonzero().T
        if len(first) > MOST_PAIRS:
            pairs = torch.bincount(words[first], minlength=self.words.count)[words[first]]
            kept = torch.sort(pairs, stable=True).indices[:MOST_PAIRS]
            first, second = first[kept], second[kept]
        return verify(points[first], stored[second], self.tolerance)

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """The votes of the best answers; equal for all categories where there is none."""
        votes = torch.zeros(len(images), len(self.categories), dtype=torch.float64)
        for row, answers in zip(votes, self.search(images, self.neighbours), strict=True):
            for found in answers:
                row[found.label] += found.score * (1 + found.inliers)
        total = votes.sum(1, keepdim=True)
        return torch.where(total > 0, votes / total, 1 / len(self.categories)).float()


class _Named(Sequence[Sample]):
    """Samples that are remembered by name as they are decoded."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        sample = self.samples[index]
        self.names[index] = sample.name
        return sample


def image_search(
    categories: Sequence[str] | None = None,
    *,
    words: int = 2000,
    points: int = 500,
    contrast: float = 0.04,
    upright: bool = False,
    shortest: int = 128,
    longest: int = 640,
    shortlist: int = 50,
    tolerance: float = 8.0,
    neighbours: int = 5,
) -> ImageSearch:
    """Search by visual words with spatial verification; as a classifier, votes of the best answers.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        words: of the vocabulary.
        points: strongest points kept of a picture.
        contrast: least contrast of a point; lower finds more.
        upright: pictures are never turned; a pair of points then proposes a shift and a scale only.
        shortest: smaller pictures are enlarged until their shorter side has so many pixels.
        longest: larger pictures are shrunk until their longer side has so many.
        shortlist: how many of the best answers are verified.
        tolerance: pixels, at working size, between where the map puts a word and where it is.
        neighbours: how many answers vote for the category.
    """
    settings = SiftSettings(contrast=contrast, most=points, upright=upright)
    vocabulary = KeypointWords(words, settings, shortest, longest)
    names = imagenet_categories() if categories is None else categories
    return ImageSearch(names, vocabulary, shortlist, tolerance, neighbours)
