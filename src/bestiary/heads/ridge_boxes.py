"""Box regression by ridge regression, one for each category (Girshick et al., CVPR 2014, appendix C).

From features of a region to the four offsets (`BoxCodec`) of the object under it. As in the authors' code, features are
scaled to a mean length of 20 and a constant feature, penalised like the others, carries the bias; offsets are centred.
The authors also decorrelate the offsets before the regression and undo it behind. With one penalty for all four that
changes nothing, (A^-1 X'Y T) T^-1 = A^-1 X'Y, so it is left out.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.layers.learned import Learned

AT_ONCE = 2048
"""Rows or columns of examples that are held in double precision at once."""


class RidgeBoxes(Learned):
    """The regressors of K categories.

    Args:
        num_categories: K.
        penalty: lambda, on the squared weights of the scaled features.
        target_norm: mean length that features are scaled to.
        most: examples of a category, evenly spread over those there are; None for all.

    Attributes:
        weight: [K, 4, D], with the scale of the features inside.
        bias: [K, 4].

    Raises:
        UsageError: a penalty, length or number that is not above 0.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        num_categories: int,
        penalty: int | float = 1000.0,
        target_norm: int | float = 20.0,
        most: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("penalty", penalty), ("target_norm", target_norm), ("most", most)):
            if value is not None and not value > 0:
                raise UsageError(f"got {value}, wanted more than 0", where=name)
        self.most = most
        self.num_categories, self.penalty, self.target_norm = num_categories, float(penalty), float(target_norm)
        self.declare("weight", "bias")

    def fit(self, features: Float[Tensor, "N D"], offsets: Float[Tensor, "N 4"], labels: Int64[Tensor, " N"]) -> None:
        """Learn from regions and the offsets to their objects.

        Args:
            features: of the regions; may lie in a file mapped to memory, of which a category at a time is read.
            offsets: what is wanted of each.
            labels: category of each one's object. One without examples leaves boxes as they are.
        """
        count, width = features.shape
        length = sum(float(part.norm(dim=1).sum()) for part in features.split(AT_ONCE)) if count else 0.0
        scale = self.target_norm * count / length if length > 0 else 1.0
        weight, bias = torch.zeros(self.num_categories, 4, width), torch.zeros(self.num_categories, 4)
        for label in range(self.num_categories):
            rows = (labels == label).nonzero()[:, 0]
            rows = rows[:: -(-len(rows) // self.most)] if self.most is not None and len(rows) else rows
            if len(rows):
                solution = ridge(features[rows], offsets[rows], scale, self.penalty)
                weight[label] = (solution[:-1].T * scale).float()
                bias[label] = (solution[-1] + offsets[rows].double().mean(0)).float()
        self.learn("weight", weight)
        self.learn("bias", bias)

    def forget(self) -> None:
        """As it was before `fit`."""
        for name in self.declared:
            self.learn(name, torch.zeros(0))

    def forward(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R K 4"]:
        """Offsets of each region, if it is of each category."""
        flat = features.float() @ self.weight.flatten(0, 1).T + self.bias.flatten()
        return flat.unflatten(1, (self.num_categories, 4))


def ridge(
    features: Float[Tensor, "M D"], offsets: Float[Tensor, "M 4"], scale: int | float, penalty: int | float
) -> Float[Tensor, "D1 4"]:
    """The w that makes |X w - (Y - mean Y)|^2 + penalty |w|^2 least, the constant feature's row last, in double
    precision.

    By the normal equations of features or of examples, whichever are fewer: (X'X + p)^-1 X' = X'(XX' + p)^-1.

    Args:
        features: X before the scale and the constant feature.
        offsets: Y.
        scale: factor on the features.
        penalty: p.
    """
    wanted = offsets.double() - offsets.double().mean(0)
    count, width = features.shape
    if count <= width:
        gram = torch.full((count, count), 1.0, dtype=torch.float64)  # the constant feature's share
        for columns in torch.arange(width).split(AT_ONCE):
            part = features[:, columns].double() * scale
            gram.addmm_(part, part.T)
        shares = _solve(gram, wanted, penalty)
        parts = [features[:, columns].double().T @ shares for columns in torch.arange(width).split(AT_ONCE)]
        return torch.cat([torch.cat(parts) * scale, shares.sum(0, keepdim=True)])
    gram = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    product = torch.zeros(width + 1, 4, dtype=torch.float64)
    for part, targets in zip(features.split(AT_ONCE), wanted.split(AT_ONCE), strict=True):
        examples = torch.cat([part.double() * scale, torch.ones(len(part), 1, dtype=torch.float64)], dim=1)
        gram.addmm_(examples.T, examples)
        product.addmm_(examples.T, targets)
    return _solve(gram, product, penalty)


def _solve(gram: Float[Tensor, "M M"], product: Float[Tensor, "M 4"], penalty: int | float) -> Float[Tensor, "M 4"]:
    """In place: the matrix may fill most of the memory."""
    gram.diagonal().add_(penalty)
    return torch.cholesky_solve(product, torch.linalg.cholesky(gram, out=gram))
