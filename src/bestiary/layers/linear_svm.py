"""Linear support vector machines, one against the rest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.layers.calibration import softmax_slope
from bestiary.layers.learned import Learned
from bestiary.records import require

FOLDS = 3
"""Parts of the pictures that each stand aside once, while the slope of the probabilities is found."""

MANY = 3000
"""Of more pictures only one part stands aside."""


class LinearSVM(Learned):
    """K linear classifiers `w x + b`, each for one class against all others (Crammer and Singer's joint form is not
    used: detectors and the papers of this lineage fit one against the rest).

    Fitted by liblinear's dual coordinate descent: 1/2 (|w|^2 + (b / bias_scale)^2) + cost * sum of losses.

    Args:
        cost: C, what a violated margin costs.
        bias_scale: the constant feature that carries the bias; the larger, the less the bias is held down.
        balanced: weigh a class's pictures by N / (2 N_class), so that few positives count as much as many negatives.
        squared: squared hinge; False for the plain hinge.

    Attributes:
        weight: [K, D].
        bias: [K].
        slope: [], of the probabilities softmax(slope * margins); found with pictures held out.

    Raises:
        UsageError: cost or bias_scale is not above 0.
    """

    weight: Tensor
    bias: Tensor
    slope: Tensor

    def __init__(
        self, cost: float | int = 1.0, bias_scale: float | int = 1.0, balanced: bool = False, squared: bool = True
    ) -> None:
        super().__init__()
        for name, value in (("cost", cost), ("bias_scale", bias_scale)):
            if not value > 0:
                raise UsageError(f"got {value}, wanted more than 0", where=name)
        self.cost, self.bias_scale, self.balanced, self.squared = float(cost), float(bias_scale), balanced, squared
        self.declare("weight", "bias", "slope")

    def fit(self, features: Any, labels: Int64[Tensor, " N"], num_classes: int, seed: int = 0) -> None:
        """Learn K classifiers.

        Args:
            features: [N, D], a tensor, or a scipy CSR matrix for sparse rows.
            labels: 0 .. K - 1. A class without a picture gets the margin -1 everywhere, and one that all pictures have
                +1.
            num_classes: K.
            seed: of the order in which examples are visited.
        """
        rows = _as_rows(features)
        require(rows.shape[0] == len(labels), "LinearSVM.fit(labels)", len(labels), f"{rows.shape[0]}, one a row")
        slope = held_out_slope(
            labels, num_classes, seed, lambda kept, left: self._margins(rows, labels, kept, left, num_classes, seed)
        )
        weight, bias = self._solve(rows, labels, num_classes, seed)
        self.learn("weight", weight)
        self.learn("bias", bias)
        self.learn("slope", torch.tensor(slope))

    def forward(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Margins: above 0 inside the class."""
        return features @ self.weight.T.to(features.dtype) + self.bias.to(features.dtype)

    def probs(self, margins: Float[Tensor, "N K"]) -> Float32[Tensor, "N K"]:
        """Probabilities of the K classes."""
        return (margins * self.slope).float().softmax(1)

    def _margins(
        self, rows: Any, labels: Tensor, kept: Tensor, left: Tensor, num_classes: int, seed: int
    ) -> Float32[Tensor, "M K"]:
        weight, bias = self._solve(rows[kept.numpy()], labels[kept], num_classes, seed)
        return torch.from_numpy(np.asarray(rows[left.numpy()] @ weight.T.numpy(), np.float32)) + bias

    def _solve(
        self, rows: Any, labels: Tensor, num_classes: int, seed: int
    ) -> tuple[Float32[Tensor, "K D"], Float32[Tensor, " K"]]:
        from sklearn.svm import LinearSVC

        weight, bias = torch.zeros(num_classes, rows.shape[1]), torch.zeros(num_classes)
        for label in range(num_classes):
            positive = (labels == label).numpy()
            if positive.all() or not positive.any():
                bias[label] = 1.0 if positive.all() else -1.0
                continue
            solver: Any = LinearSVC(
                C=self.cost,
                loss="squared_hinge" if self.squared else "hinge",
                dual=True,  # type: ignore[arg-type]
                class_weight="balanced" if self.balanced else None,
                intercept_scaling=self.bias_scale,  # type: ignore[arg-type]
                random_state=seed,
                max_iter=5000,
            )
            solver.fit(rows, positive)
            weight[label] = torch.from_numpy(solver.coef_[0]).float()
            bias[label] = float(solver.intercept_[0])
        return weight, bias


def _as_rows(features: Any) -> Any:
    """What liblinear takes: float64, dense or CSR with 32-bit indices."""
    if isinstance(features, Tensor):
        return features.detach().cpu().double().numpy()
    from scipy.sparse import csr_matrix

    rows = csr_matrix(features, dtype=np.float64)
    rows.indices, rows.indptr = rows.indices.astype(np.int32), rows.indptr.astype(np.int32)
    return rows


def held_out_slope(
    labels: Int64[Tensor, " N"],
    num_classes: int,
    seed: int,
    margins_of: Callable[[Int64[Tensor, " A"], Int64[Tensor, " B"]], Float32[Tensor, "B K"]],
) -> float:
    """The slope of the probabilities, from margins of pictures by classifiers that were fitted without them.

    Every picture stands aside once; of more than `MANY` only one part does, which is enough for one number and spares
    fits. 1 where a class has fewer pictures than there are parts.

    Args:
        labels: of the pictures; each class is spread evenly over the parts.
        num_classes: K.
        seed: of the parts.
        margins_of: fits to the pictures of the first indices and judges those of the second.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    if int(counts[counts > 0].min()) < FOLDS or int((counts > 0).sum()) < 2:
        return 1.0
    fold, margins, aside = folds(labels, seed), [], []
    for part in range(FOLDS if len(labels) <= MANY else 1):
        aside.append((fold == part).nonzero()[:, 0])
        margins.append(margins_of((fold != part).nonzero()[:, 0], aside[-1]))
    return softmax_slope(torch.cat(margins), labels[torch.cat(aside)])


def folds(labels: Int64[Tensor, " N"], seed: int, count: int = FOLDS) -> Int64[Tensor, " N"]:
    """A part 0 .. count - 1 for each picture, drawn so that every class is spread evenly."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.sort(labels[shuffled], stable=True).indices]
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels)) % count
    return fold
