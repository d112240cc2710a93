"""From margins of SVMs to probabilities."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

SLOPES = (0.05, 100.0)
"""Smallest and largest slope that is looked for."""


def softmax_slope(margins: Float[Tensor, "N K"], labels: Int64[Tensor, " N"]) -> float:
    """The factor s for which softmax(s * margins) makes the labels likeliest: one number, so the best class stays best.

    Args:
        margins: of pictures that the classifier was not fitted to; its own are too sure.
        labels: their classes.
    """
    from scipy.optimize import minimize_scalar

    exact = margins.double()
    low, high = (torch.tensor(SLOPES).log()).tolist()

    def misfit(log_slope: float) -> float:
        return float(F.cross_entropy(exact * torch.tensor(log_slope).exp(), labels))

    found = minimize_scalar(misfit, bounds=(low, high), method="bounded")
    return float(torch.tensor(float(found.x)).exp())  # type: ignore[attr-defined]


def platt_scaling(margins: Float[Tensor, " N"], positive: Bool[Tensor, " N"]) -> tuple[float, float]:
    """Slope and offset for which sigmoid(slope * margin + offset) is the probability of a positive (Platt, 1999).

    The targets are Platt's, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so that separable margins give a finite slope; found
    by Newton's method with halved steps (Lin, Lin, Weng, 2007).
    """
    x, is_positive = margins.double(), positive.double()
    many, few = float(is_positive.sum()), float((1 - is_positive).sum())
    target = torch.where(positive, (many + 1) / (many + 2), 1 / (few + 2)).double()
    rows = torch.stack([x, torch.ones_like(x)], dim=1)
    solution = torch.tensor([0.0, torch.tensor((many + 1) / (few + 1)).log().item()], dtype=torch.float64)

    def misfit(at: Tensor) -> float:
        return float(F.binary_cross_entropy_with_logits(rows @ at, target, reduction="sum"))

    now = misfit(solution)
    for _ in range(100):
        probs = (rows @ solution).sigmoid()
        gradient = rows.T @ (probs - target)
        hessian = (rows * (probs * (1 - probs))[:, None]).T @ rows + 1e-12 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(hessian, gradient)
        if float(gradient.abs().max()) < 1e-9 * max(1.0, float(x.abs().max())) * len(x):
            break
        size = 1.0
        while size > 1e-10 and misfit(solution - size * step) > now:
            size /= 2
        solution = solution - size * step
        now = misfit(solution)
    return float(solution[0]), float(solution[1])
