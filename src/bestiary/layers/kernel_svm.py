"""Support vector machines over a kernel that the caller computes, one against the rest."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.layers.learned import Learned
from bestiary.layers.linear_svm import held_out_slope
from bestiary.records import require


class KernelSVM(Learned):
    """K classifiers `sum_i dual_ki K(x, x_i) + b_k`, each for one class against all others, by libsvm.

    Args:
        cost: C, what a violated margin costs.

    Attributes:
        support: [S], which of the training pictures any classifier leans on; only these need be kept.
        dual: [K, S].
        bias: [K].
        slope: [], of the probabilities softmax(slope * margins); found with pictures held out.

    Raises:
        UsageError: cost is not above 0.
    """

    support: Tensor
    dual: Tensor
    bias: Tensor
    slope: Tensor

    def __init__(self, cost: float | int = 1.0) -> None:
        super().__init__()
        if not cost > 0:
            raise UsageError(f"got {cost}, wanted more than 0", where="cost")
        self.cost = float(cost)
        self.declare("support", "dual", "bias", "slope")

    def fit(self, gram: Float64[Tensor, "N N"], labels: Int64[Tensor, " N"], num_classes: int, seed: int = 0) -> None:
        """Learn K classifiers.

        Args:
            gram: kernel of each pair of training pictures: symmetric, without negative eigenvalues.
            labels: 0 .. K - 1. A class without a picture gets the margin -1 everywhere, and one that all pictures have
                +1.
            num_classes: K.
            seed: of the folds.
        """
        square = gram.shape == (len(labels), len(labels))
        require(square, "KernelSVM.fit(gram)", f"shape {tuple(gram.shape)}", f"({len(labels)}, {len(labels)})")
        matrix = gram.numpy()

        def margins_of(kept: Tensor, left: Tensor) -> Tensor:
            dual, bias = self._solve(matrix[np.ix_(kept.numpy(), kept.numpy())], labels[kept], num_classes)
            return (gram[left][:, kept] @ dual.T + bias).float()

        slope = held_out_slope(labels, num_classes, seed, margins_of)
        dual, bias = self._solve(matrix, labels, num_classes)
        support = (dual != 0).any(0).nonzero()[:, 0]
        self.learn("support", support)
        self.learn("dual", dual[:, support].float())
        self.learn("bias", bias.float())
        self.learn("slope", torch.tensor(slope))

    def forward(self, kernel: Float[Tensor, "B S"]) -> Float[Tensor, "B K"]:
        """Margins from the kernel of B pictures with the support vectors: above 0 inside the class."""
        return kernel @ self.dual.T.to(kernel.dtype) + self.bias.to(kernel.dtype)

    def probs(self, margins: Float[Tensor, "B K"]) -> Float32[Tensor, "B K"]:
        """Probabilities of the K classes."""
        return (margins * self.slope).float().softmax(1)

    def _solve(
        self, matrix: Float64[np.ndarray, "N N"], labels: Tensor, num_classes: int
    ) -> tuple[Float64[Tensor, "K N"], Float64[Tensor, " K"]]:
        from bestiary.ops._kernels.threads import in_threads

        dual = torch.zeros(num_classes, len(labels), dtype=torch.float64)
        bias = torch.zeros(num_classes, dtype=torch.float64)

        def solve(start: int, stop: int) -> None:
            from sklearn.svm import SVC

            for label in range(start, stop):
                positive = (labels == label).numpy()
                if positive.all() or not positive.any():
                    bias[label] = 1.0 if positive.all() else -1.0
                    continue
                solver = SVC(C=self.cost, kernel="precomputed", cache_size=100).fit(matrix, positive)
                dual[label, torch.from_numpy(solver.support_).long()] = torch.from_numpy(solver.dual_coef_[0])
                bias[label] = float(solver.intercept_[0])

        in_threads(solve, num_classes, torch.get_num_threads())
        return dual, bias
