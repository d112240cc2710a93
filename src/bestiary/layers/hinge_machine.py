"""One linear SVM of two classes, solved in single precision: windows are many and their features long."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from bestiary.records import require

_ORDERS = 8
"""Orders in which examples are visited; more would only need memory."""


class Hyperplane(NamedTuple):
    """What an SVM of two classes is.

    Attributes:
        weight: w, and
        bias: b, of the margin w x + b.
        alphas: of the examples, for a start at a similar problem.
    """

    weight: Float32[Tensor, " D"]
    bias: float
    alphas: Float32[Tensor, " N"]


def separate(
    rows: Float32[Tensor, "N D"],
    positives: int,
    *,
    cost: float | int,
    bias_scale: float | int = 1.0,
    positive_weight: float | int = 1.0,
    seed: int = 0,
    tolerance: float = 0.01,
    most_passes: int = 1000,
) -> Hyperplane:
    """The least 1/2 (|w|^2 + (b / bias_scale)^2) + cost * (positive_weight * hinges of positives + the others).

    Args:
        rows: examples, the positives first. Where one class is missing, the answer is its opposite's margin.
        positives: how many.
        cost: C.
        bias_scale: the constant feature that carries the bias; the larger, the less the bias is held down.
        positive_weight: how much more a positive's violated margin costs.
        seed: of the order in which examples are visited.
        tolerance: largest spread of the projected gradients at which the descent ends; margins are then right to about
            as much.
        most_passes: over the examples.

    Raises:
        RecordError: a count of positives that cannot be, or a number that is not above 0.
    """
    require(0 <= positives <= len(rows), "separate(positives)", positives, f"0 to {len(rows)}")
    for name, value in (("cost", cost), ("bias_scale", bias_scale), ("positive_weight", positive_weight)):
        require(value > 0, f"separate({name})", value, "more than 0")
    from bestiary.layers._kernels.hinge import descend

    count, width = rows.shape
    if positives in (0, count):
        return Hyperplane(torch.zeros(width), 1.0 if positives else -1.0, torch.zeros(count))
    table = np.empty((count, width + 1), np.float32)
    table[:, :width], table[:, width] = rows.detach().cpu().numpy(), bias_scale
    signs, costs = np.full(count, -1, np.float32), np.full(count, cost, np.float32)
    signs[:positives], costs[:positives] = 1, cost * positive_weight
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(count) for _ in range(_ORDERS)])
    alphas, weight = np.zeros(count, np.float32), np.zeros(width + 1, np.float32)
    squares = np.einsum("nd,nd->n", table, table)
    descend(table, signs, costs, squares, orders, alphas, weight, tolerance, most_passes)
    exact: Float64[np.ndarray, " D1"] = _combined(table, alphas * signs)
    plane = torch.from_numpy(exact[:width].astype(np.float32))
    return Hyperplane(plane, float(exact[width] * bias_scale), torch.from_numpy(alphas))


def _combined(table: Float32[np.ndarray, "N D"], shares: Float32[np.ndarray, " N"]) -> Float64[np.ndarray, " D"]:
    """The weights anew from the examples, in double precision: thousands of small steps in single precision drift."""
    used = np.flatnonzero(shares)
    total = np.zeros(table.shape[1])
    for start in range(0, len(used), 1024):
        part = used[start : start + 1024]
        total += shares[part].astype(np.float64) @ table[part].astype(np.float64)
    return total
