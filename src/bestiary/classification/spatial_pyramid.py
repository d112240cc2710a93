"""Spatial pyramid matching: Lazebnik, Schmid, Ponce, Beyond Bags of Features, CVPR 2006.

A picture is cut into 1, 2 x 2, 4 x 4 ... cells; visual words match where they stand in the same cell, and count more in
a smaller one.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.histogram_svm import HistogramSVM
from bestiary.features.pyramid import pyramid_columns, pyramid_width, weigh_pyramid
from bestiary.features.sparse_rows import SparseRows
from bestiary.features.visual_words import VisualWords
from bestiary.heads.fitted_classification import FittedClassifier, describe_all
from bestiary.heads.published import imagenet_categories
from bestiary.records import Sample


class SpatialPyramid(FittedClassifier):
    """SVMs over weighted pyramids of visual words.

    Args:
        categories: K names.
        words: the vocabulary, to be fitted.
        svm: over weighted pyramids, each of which sums to 1.
        levels: L; the finest grid has 2^L x 2^L cells.

    Raises:
        UsageError: levels out of 0..6.
    """

    def __init__(self, categories: Sequence[str], words: VisualWords, svm: HistogramSVM, levels: int = 2) -> None:
        super().__init__(categories)
        if not 0 <= levels <= 6:
            raise UsageError(f"got {levels}, wanted 0 to 6", where="levels")
        self.words, self.svm, self.levels = words, svm, levels

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn the vocabulary, then one classifier a class."""
        self.words.fit(samples, seed, say)
        found, labels = describe_all(samples, self._columns_of, len(self.categories), say)
        say(f"fitting {len(self.categories)} classifiers to {len(found):,} pictures")
        self.svm.fit(self._weighted(found), labels, len(self.categories), seed)

    def pyramids_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> SparseRows:
        """Weighted pyramids: their histogram intersection is the pyramid match kernel."""
        return self._weighted([self._columns_of(image) for image in images])

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """Softmax of the margins, at a slope found with pictures held out."""
        return self.svm.probs(self.pyramids_of(images))

    def _columns_of(self, image: Shaped[Tensor, "C H W"]) -> Int64[Tensor, " T"]:
        words = self.words.words_of(image)
        return pyramid_columns(words.index, words.xy, words.size_hw, self.words.count, self.levels)

    def _weighted(self, columns: Sequence[Int64[Tensor, " _t"]]) -> SparseRows:
        counts = SparseRows.counted(columns, pyramid_width(self.words.count, self.levels))
        return weigh_pyramid(counts, self.words.count, self.levels)


def spatial_pyramid(
    categories: Sequence[str] | None = None,
    *,
    words: int = 200,
    levels: int = 2,
    cost: float = 10.0,
    sides: Sequence[int] = (16,),
    step: int = 8,
    shortest: int = 64,
    longest: int = 512,
) -> SpatialPyramid:
    """The paper's classifier: the exact pyramid match kernel.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        words: of the vocabulary.
        levels: L; the finest grid has 2^L x 2^L cells.
        cost: C of the SVMs.
        sides: of the patches, in pixels, multiples of 4.
        step: from patch to patch, in pixels.
        shortest: smaller pictures are enlarged until their shorter side has so many pixels.
        longest: larger pictures are shrunk until their longer side has so many.
    """
    vocabulary = VisualWords(words, sides, step, shortest, longest)
    names = imagenet_categories() if categories is None else categories
    return SpatialPyramid(names, vocabulary, HistogramSVM("intersection", cost), levels)


def spatial_pyramid_linear(
    categories: Sequence[str] | None = None,
    *,
    words: int = 400,
    levels: int = 2,
    cost: float = 10.0,
    sides: Sequence[int] = (16, 24, 32),
    step: int = 4,
    shortest: int = 64,
    longest: int = 512,
) -> SpatialPyramid:
    """Denser patches of three sizes, and linear classifiers over features whose product is nearly the kernel: for many
    pictures. Arguments as `spatial_pyramid`.
    """
    vocabulary = VisualWords(words, sides, step, shortest, longest)
    names = imagenet_categories() if categories is None else categories
    return SpatialPyramid(names, vocabulary, HistogramSVM("mapped", cost), levels)
