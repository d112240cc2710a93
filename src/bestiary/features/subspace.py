"""Principal components: Pearson, On Lines and Planes of Closest Fit to Systems of Points in Space, 1901."""

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.layers.learned import Learned
from bestiary.records import require

RANK = 1e-10
"""Eigenvalues below this share of the greatest are rounding, not directions of the data."""


class PrincipalSubspace(Learned):
    """Mean, orthonormal components (greatest variance first) and their variances.

    Each component's sign is chosen so that its greatest element by magnitude is positive: the same everywhere.

    Args:
        components: how many (at most the rank of the data are kept); or, below 1, the share of the variance that they
            must hold at least.

    Raises:
        UsageError: not above 0, or a number above 1 that is not whole.
    """

    mean: Tensor
    """[D], float32."""
    components: Tensor
    """[K, D], float32."""
    variances: Tensor
    """[K], float32: of the coefficients over the training rows (divided by N)."""

    def __init__(self, components: int | float) -> None:
        super().__init__()
        if components <= 0 or (components >= 1 and components != int(components)):
            mend = "A whole number says how many, a number below 1 which share of the variance"
            raise UsageError(f"got {components}, wanted a number above 0", where="components", mend=mend)
        self.wanted = components
        self.declare("mean", "components", "variances")

    def fit(self, rows: Float[Tensor, "N D"]) -> None:
        """Learn from the rows; computed in float64.

        Where N < D the eigenvectors come from the N x N matrix of inner products (Turk, Pentland, Eigenfaces for
        Recognition, 1991, page 74), else from the D x D covariance.

        Raises:
            RecordError: no row, or a value that is not finite.
        """
        require(rows.ndim == 2 and len(rows) > 0, "PrincipalSubspace.fit(rows)", f"shape {tuple(rows.shape)}", "(N, D)")
        wide = rows.double()
        require(bool(torch.isfinite(wide).all()), "PrincipalSubspace.fit(rows)", "a value that is not finite", "finite")
        mean = wide.mean(0)
        centred = wide - mean
        variances, components = _principal(centred)
        keep = variances > RANK * variances[0].clamp(min=torch.finfo(torch.float64).tiny)
        keep &= torch.arange(len(variances)) < self._count(variances)
        self.learn("mean", mean.float())
        self.learn("components", components[keep].float())
        self.learn("variances", variances[keep].float())

    def _count(self, variances: Float64[Tensor, " R"]) -> int:
        if self.wanted >= 1:
            return int(self.wanted)
        held = variances.cumsum(0) / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return int((held < self.wanted - 1e-12).sum()) + 1

    def project(self, rows: Float[Tensor, "*N D"]) -> Float32[Tensor, "*N K"]:
        """Coefficients of the rows."""
        return (rows.float() - self.mean) @ self.components.T

    def reconstruct(self, coefficients: Float[Tensor, "*N K"]) -> Float32[Tensor, "*N D"]:
        """The rows that coefficients stand for."""
        return coefficients.float() @ self.components + self.mean

    def distance(self, rows: Float[Tensor, "*N D"]) -> Float32[Tensor, "*N"]:
        """Distance of each row from the subspace."""
        return (rows.float() - self.reconstruct(self.project(rows))).norm(dim=-1)


def _principal(centred: Float64[Tensor, "N D"]) -> tuple[Float64[Tensor, " R"], Float64[Tensor, "R D"]]:
    """Variances and unit components, greatest first."""
    count, size = centred.shape
    if count < size:
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        # The last of N centred rows follows from the others: one eigenvalue is rounding.
        order = values.argsort(descending=True)[: max(1, count - 1)]
        components = vectors[:, order].T @ centred
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        order = values.argsort(descending=True)
        components = vectors[:, order].T
    lengths = components.norm(dim=1, keepdim=True)
    components = components / lengths.clamp(min=torch.finfo(torch.float64).tiny)
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return values[order].clamp(min=0) / count, torch.where(largest < 0, -components, components)
