"""A fully connected layer as two thin ones, by truncated SVD (Girshick: Fast R-CNN, ICCV 2015, section 3.1).

W, with u rows and v columns, becomes U_t (S_t V_t^T): t (u + v) products in place of u v.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.errors import UsageError


class FactoredLinear(nn.Module):
    """`outputs(inputs(x))`: the first layer has no bias, the second has the original one.

    Args:
        in_features: v.
        out_features: u.
        rank: t.

    Raises:
        UsageError: a rank outside 1 .. min(u, v).
    """

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        require_rank(rank, in_features, out_features)
        self.inputs = nn.Linear(in_features, rank, bias=False)
        self.outputs = nn.Linear(rank, out_features)

    @property
    def in_features(self) -> int:
        """v."""
        return self.inputs.in_features

    @property
    def out_features(self) -> int:
        """u."""
        return self.outputs.out_features

    @property
    def rank(self) -> int:
        """t."""
        return self.inputs.out_features

    def forward(self, vectors: Float[Tensor, "*R v"]) -> Float[Tensor, "*R u"]:
        """As the linear layer that it stands for, but for what the rank leaves out."""
        return self.outputs(self.inputs(vectors))


def require_rank(rank: int, in_features: int, out_features: int) -> None:
    """Raise `UsageError` unless a matrix of that shape can have that rank."""
    most = min(in_features, out_features)
    if not 1 <= rank <= most:
        raise UsageError(f"got {rank}, wanted 1 to {most}", where=f"rank of {out_features} x {in_features}")


def factor_matrix(weight: Float[Tensor, "u v"], rank: int) -> tuple[Float[Tensor, "t v"], Float[Tensor, "u t"]]:
    """S_t V_t^T and U_t: of all pairs of that rank the one whose product is nearest to the matrix.

    By the eigenvectors of the smaller Gram matrix, in float64: for 4,096 x 25,088 a small part of the time and memory
    of a full decomposition. The factor made of them is orthonormal to rounding, so that at full rank the product is the
    matrix.

    Raises:
        UsageError: a rank that the matrix cannot have.
    """
    require_rank(rank, weight.shape[1], weight.shape[0])
    matrix = weight.detach().double()
    if matrix.shape[0] > matrix.shape[1]:
        right = _leading(matrix.T @ matrix, rank)
        # The singular values go to the first layer whichever side they were found from.
        left = matrix @ right
        sizes = left.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
        return (right.T * sizes[:, None]).to(weight.dtype), (left / sizes).to(weight.dtype)
    left = _leading(matrix @ matrix.T, rank)
    return (left.T @ matrix).to(weight.dtype), left.to(weight.dtype)


def _leading(gram: Float[Tensor, "n n"], rank: int) -> Float[Tensor, "n t"]:
    """Eigenvectors of the largest eigenvalues, largest first."""
    return torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1)


def factor_state(state: Mapping[str, Tensor], prefix: str, rank: int) -> dict[str, Tensor]:
    """What stands in a state for the linear layer `prefix`, as the state of its `FactoredLinear`."""
    first, second = factor_matrix(state[f"{prefix}.weight"], rank)
    return {
        f"{prefix}.inputs.weight": first,
        f"{prefix}.outputs.weight": second,
        f"{prefix}.outputs.bias": state[f"{prefix}.bias"],
    }
