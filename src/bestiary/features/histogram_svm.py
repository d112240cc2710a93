"""SVMs that compare histograms of visual words."""

from typing import Literal

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.inverted_file import InvertedFile
from bestiary.features.pyramid import intersection_features
from bestiary.features.sparse_rows import SparseRows
from bestiary.layers.kernel_svm import KernelSVM
from bestiary.layers.learned import Learned
from bestiary.layers.linear_svm import LinearSVM

HistogramKernel = Literal["intersection", "mapped", "linear"]

MOST_PICTURES = 20_000
"""The kernel of more pairs than 20,000 squared (3 GB) is not computed."""


class HistogramSVM(Learned):
    """One classifier against the rest for each class, over histograms.

    Args:
        kernel: "intersection", the sum of the smaller numbers, exactly, which keeps the support vectors as an inverted
            file; "mapped", the same kernel nearly, by features of three times as many numbers and linear classifiers,
            whose cost does not depend on the number of training pictures; "linear", the scalar product.
        cost: C of the SVM.

    Raises:
        UsageError: cost is not above 0.
    """

    def __init__(self, kernel: HistogramKernel = "intersection", cost: float | int = 10.0) -> None:
        super().__init__()
        self.kernel: HistogramKernel = kernel
        self.svm = KernelSVM(cost) if kernel == "intersection" else LinearSVM(cost)
        self.vectors = InvertedFile()

    def fit(self, histograms: SparseRows, labels: Int64[Tensor, " N"], num_classes: int, seed: int = 0) -> None:
        """Learn from N histograms, whose kernel with themselves should be about 1.

        Raises:
            UsageError: too many pictures for the exact kernel.
        """
        if isinstance(self.svm, LinearSVM):
            self.svm.fit(self._features(histograms).to_scipy(), labels, num_classes, seed)
            return
        if len(histograms) > MOST_PICTURES:
            mend = "Use the linear form of the model, which needs no kernel of all pairs"
            raise UsageError(f"got {len(histograms):,} pictures, wanted at most {MOST_PICTURES:,}", mend=mend)
        self.vectors.fit(histograms)
        self.svm.fit(self.vectors.compare(histograms, "intersection"), labels, num_classes, seed)
        self.vectors.fit(histograms.take(self.svm.support))

    def forward(self, histograms: SparseRows) -> Float64[Tensor, "B K"]:
        """Margins of each class."""
        if isinstance(self.svm, LinearSVM):
            rows, weight = self._features(histograms).to_scipy(), self.svm.weight.T.double().numpy()
            return torch.from_numpy(rows @ weight) + self.svm.bias.double()
        return self.svm(self.vectors.compare(histograms, "intersection"))

    def probs(self, histograms: SparseRows) -> Float32[Tensor, "B K"]:
        """Probabilities: softmax of the margins, at a slope found with pictures held out."""
        return self.svm.probs(self(histograms))

    def _features(self, histograms: SparseRows) -> SparseRows:
        return intersection_features(histograms) if self.kernel == "mapped" else histograms
