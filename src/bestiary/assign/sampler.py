"""Which of the assigned anchors a step learns from."""

import torch
from jaxtyping import Int64
from torch import Tensor

from bestiary.assign.matcher import NEGATIVE, POSITIVE, Assignment
from bestiary.records import require


def sample_balanced(
    assignment: Assignment, count: int, positive_fraction: int | float, generator: torch.Generator | None = None
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " M"]]:
    """Draw at most `count` anchors, at most `positive_fraction` of them positive (Faster R-CNN, section 3.1.3).

    Missing positives are made up with negatives; missing negatives are not made up.

    Args:
        assignment: kind of each anchor.
        count: anchors wanted (256 in the proposal network, 512 in the region head).
        positive_fraction: 0..1 (0.5 and 0.25).
        generator: source of chance, on the assignment's device; torch's own if None.

    Returns:
        indices of the drawn positives and of the drawn negatives, each ascending.
    """
    require(count >= 0, "sample_balanced(count)", count, "0 or more")
    require(0 <= positive_fraction <= 1, "sample_balanced(positive_fraction)", positive_fraction, "0 to 1")
    positive = (assignment.kind == POSITIVE).nonzero()[:, 0]
    negative = (assignment.kind == NEGATIVE).nonzero()[:, 0]
    most = int(count * positive_fraction)
    chosen = _draw(positive, most, generator)
    return chosen, _draw(negative, count - len(chosen), generator)


def _draw(indices: Int64[Tensor, " N"], most: int, generator: torch.Generator | None) -> Int64[Tensor, " K"]:
    if len(indices) <= most:
        return indices
    order = torch.randperm(len(indices), generator=generator, device=indices.device)
    return indices[order[:most]].sort().values
