"""Bag of visual words: Sivic, Zisserman, Video Google, ICCV 2003; with SVMs as Csurka, Dance, Fan, Willamowski, Bray,
Visual Categorization with Bags of Keypoints, ECCV workshop 2004.

A picture is the histogram of its visual words; where they stand is forgotten.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.histogram_svm import HistogramKernel, HistogramSVM
from bestiary.features.inverted_file import InvertedFile, inverse_document_frequency, tf_idf
from bestiary.features.sparse_rows import SparseRows
from bestiary.features.visual_words import VisualWords
from bestiary.heads.fitted_classification import FittedClassifier, describe_all
from bestiary.heads.published import imagenet_categories
from bestiary.records import Sample


class BagOfWordsNeighbours(FittedClassifier):
    """Votes of the pictures whose tf-idf vectors make the smallest angle with the query's.

    Args:
        categories: K names.
        words: the vocabulary, to be fitted.
        neighbours: how many pictures vote, each with its cosine.

    Raises:
        UsageError: no neighbour asked for.
    """

    idf: Tensor
    """[words], log(N / n_i)."""
    labels: Tensor
    """[N]."""

    def __init__(self, categories: Sequence[str], words: VisualWords, neighbours: int = 9) -> None:
        super().__init__(categories)
        if neighbours < 1:
            raise UsageError(f"got {neighbours}, wanted 1 or more", where="neighbours")
        self.words, self.neighbours = words, neighbours
        self.pictures = InvertedFile()
        self.declare("idf", "labels")

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn the vocabulary, and keep every picture's words in an inverted file."""
        self.words.fit(samples, seed, say)
        found, labels = describe_all(samples, lambda i: self.words.words_of(i).index, len(self.categories), say)
        counts = SparseRows.counted(found, self.words.count)
        self.learn("idf", inverse_document_frequency(counts))
        self.learn("labels", labels)
        self.pictures.fit(tf_idf(counts, self.idf))

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """The neighbours' votes; equal for all classes where a picture shares no word with any."""
        counts = SparseRows.counted([self.words.words_of(i).index for i in images], self.words.count)
        cosines = self.pictures.compare(tf_idf(counts, self.idf))
        best = torch.sort(cosines, dim=1, descending=True, stable=True)
        values, rows = (part[:, : self.neighbours] for part in best)
        votes = torch.zeros(len(images), len(self.categories), dtype=torch.float64)
        votes.scatter_add_(1, self.labels[rows], values)
        total = votes.sum(1, keepdim=True)
        return torch.where(total > 0, votes / total, 1 / len(self.categories)).float()


class BagOfWordsSVM(FittedClassifier):
    """SVMs over the shares of the words.

    Args:
        categories: K names.
        words: the vocabulary, to be fitted.
        svm: over histograms that sum to 1.
    """

    def __init__(self, categories: Sequence[str], words: VisualWords, svm: HistogramSVM) -> None:
        super().__init__(categories)
        self.words, self.svm = words, svm

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn the vocabulary, then one classifier a class."""
        self.words.fit(samples, seed, say)
        found, labels = describe_all(samples, lambda i: self.words.words_of(i).index, len(self.categories), say)
        say(f"fitting {len(self.categories)} classifiers to {len(found):,} pictures")
        self.svm.fit(SparseRows.counted(found, self.words.count).of_unit_sum(), labels, len(self.categories), seed)

    def probs_of(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float32[Tensor, "B K"]:
        """Softmax of the margins, at a slope found with pictures held out."""
        counts = SparseRows.counted([self.words.words_of(i).index for i in images], self.words.count)
        return self.svm.probs(counts.of_unit_sum())


def bag_of_words_tfidf(
    categories: Sequence[str] | None = None,
    *,
    words: int = 1000,
    neighbours: int = 9,
    sides: Sequence[int] = (16, 24),
    step: int = 8,
    shortest: int = 64,
    longest: int = 512,
) -> BagOfWordsNeighbours:
    """Bag of words with tf-idf weights and nearest neighbours by cosine.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        words: of the vocabulary.
        neighbours: how many pictures vote.
        sides: of the patches, in pixels, multiples of 4.
        step: from patch to patch, in pixels.
        shortest: smaller pictures are enlarged until their shorter side has so many pixels.
        longest: larger pictures are shrunk until their longer side has so many.
    """
    vocabulary = VisualWords(words, sides, step, shortest, longest)
    return BagOfWordsNeighbours(imagenet_categories() if categories is None else categories, vocabulary, neighbours)


def bag_of_words_svm(
    categories: Sequence[str] | None = None,
    *,
    words: int = 1000,
    kernel: HistogramKernel = "intersection",
    cost: float = 10.0,
    sides: Sequence[int] = (16, 24),
    step: int = 8,
    shortest: int = 64,
    longest: int = 512,
) -> BagOfWordsSVM:
    """Bag of words with one SVM a class.

    Args:
        categories: the user's; None for ImageNet's 1,000.
        words: of the vocabulary.
        kernel: of histograms; the exact intersection, mapped (nearly that, linear in time), or linear.
        cost: C of the SVMs.
        sides: of the patches, in pixels, multiples of 4.
        step: from patch to patch, in pixels.
        shortest: smaller pictures are enlarged until their shorter side has so many pixels.
        longest: larger pictures are shrunk until their longer side has so many.
    """
    vocabulary = VisualWords(words, sides, step, shortest, longest)
    names = imagenet_categories() if categories is None else categories
    return BagOfWordsSVM(names, vocabulary, HistogramSVM(kernel, cost))
