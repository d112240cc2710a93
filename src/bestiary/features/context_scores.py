"""Detections judged anew by what else a picture holds (Felzenszwalb et al., TPAMI 2010, section 7.3).

A detection is described by its score, its place, and the best score of every category in the picture; an SVM with a
quadratic kernel for each category says from that whether it is right. The kernel is written out: products of all pairs.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from bestiary.layers.learned import Learned

STEEPNESS = 2.0
"""Of the sigmoid 1 / (1 + exp(-2 x)) that scores go through."""

FEWEST = 3
"""Right detections, and wrong ones, without which a category's scores stay as they are."""


class ContextScores(Learned):
    """One quadratic SVM a category.

    Args:
        num_categories: K.
        cost: C of the SVMs; right and wrong detections weigh the same together.

    Attributes:
        weight: [K, D], of the numbers of a detection and their products.
        bias: [K].
        known: [K], whether there was enough to learn from.
    """

    weight: Tensor
    bias: Tensor
    known: Tensor

    def __init__(self, num_categories: int, cost: float | int = 1.0) -> None:
        super().__init__()
        self.num_categories, self.cost = num_categories, float(cost)
        self.declare("weight", "bias", "known")

    def forget(self) -> None:
        """As it was before `fit`."""
        for name in self.declared:
            self.learn(name, torch.zeros(0))

    def vectors(
        self,
        boxes_xyxy: Float32[Tensor, "N 4"],
        labels: Int64[Tensor, " N"],
        margins: Float32[Tensor, " N"],
        size_hw: tuple[int, int],
    ) -> Float64[Tensor, "N D"]:
        """What the SVMs see of all detections of one picture: 5 + K numbers and all products of two of them."""
        scores = (STEEPNESS * margins.double()).sigmoid()
        best = torch.zeros(self.num_categories, dtype=torch.float64)
        best.scatter_reduce_(0, labels, scores, "amax")
        places = boxes_xyxy.double() / torch.tensor([size_hw[1], size_hw[0]] * 2)
        plain = torch.cat([scores[:, None], places, best.expand(len(scores), -1)], 1)
        rows, columns = torch.triu_indices(plain.shape[1], plain.shape[1])
        return torch.cat([plain, plain[:, rows] * plain[:, columns]], 1)

    def fit(
        self, vectors: Float64[Tensor, "N D"], labels: Int64[Tensor, " N"], right: Bool[Tensor, " N"], seed: int = 0
    ) -> None:
        """Learn from detections of which it is known whether they are right."""
        from sklearn.svm import LinearSVC

        width = 5 + self.num_categories
        size = width + width * (width + 1) // 2
        weight, bias = torch.zeros(self.num_categories, size), torch.zeros(self.num_categories)
        known = torch.zeros(self.num_categories, dtype=torch.bool)
        for label in range(self.num_categories):
            mine = labels == label
            truth = right[mine]
            if min(int(truth.sum()), int((~truth).sum())) < FEWEST:
                continue
            svm: Any = LinearSVC(C=self.cost, class_weight="balanced", random_state=seed, max_iter=20_000)
            svm.fit(vectors[mine].numpy(), truth.numpy())
            weight[label], bias[label] = torch.from_numpy(svm.coef_[0]).float(), float(svm.intercept_[0])
            known[label] = True
        self.learn("weight", weight)
        self.learn("bias", bias)
        self.learn("known", known)

    def forward(
        self,
        boxes_xyxy: Float32[Tensor, "N 4"],
        labels: Int64[Tensor, " N"],
        margins: Float32[Tensor, " N"],
        size_hw: tuple[int, int],
    ) -> Float32[Tensor, " N"]:
        """New margins of all detections of one picture."""
        vectors = self.vectors(boxes_xyxy, labels, margins, size_hw).float()
        judged = (vectors * self.weight[labels]).sum(1) + self.bias[labels]
        return torch.where(self.known[labels], judged, margins)
