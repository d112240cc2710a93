"""Sizes that a data set's boxes have, by k-means with the distance 1 - IoU (Redmon, Farhadi, CVPR 2017, section 2,
"dimension clusters").

Squared distance would make large boxes count for more than small ones; overlap does not. Boxes are compared as if they
shared their centre. A centre becomes the mean size of its boxes, which need not lower the objective: the best centres
of all rounds are kept.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from bestiary.errors import UsageError

STARTS = 8
"""Alternations from different random centres, the best of which counts."""

ROUNDS = 100
MOST_BOXES = 20_000
"""Of more boxes a random part is looked at."""


@dataclass(frozen=True, eq=False)
class BoxPriors:
    """Sizes, smallest area first.

    Attributes:
        sizes_wh: in the units of the boxes.
        mean_iou: of the boxes with the nearest of them.
    """

    sizes_wh: Float32[Tensor, "A 2"]
    mean_iou: float


def size_iou(sizes1_wh: Float[Tensor, "*#P 2"], sizes2_wh: Float[Tensor, "*#P 2"]) -> Float[Tensor, "*P"]:
    """IoU of boxes that share their centre."""
    common = torch.minimum(sizes1_wh, sizes2_wh).prod(-1)
    return common / (sizes1_wh.prod(-1) + sizes2_wh.prod(-1) - common)


def mean_best_iou(boxes_wh: Float[Tensor, "N 2"], priors_wh: Float[Tensor, "A 2"]) -> float:
    """Mean over the boxes of the overlap with the prior that fits best: the paper's measure (table 1)."""
    return float(size_iou(boxes_wh[:, None], priors_wh).amax(1).mean())


def box_priors(boxes_wh: Float32[Tensor, "N 2"], count: int, seed: int = 0) -> BoxPriors:
    """`count` sizes such that boxes overlap the nearest as much as possible on average.

    Args:
        boxes_wh: sizes with positive sides. Where there are fewer different ones than `count`, some priors are equal.
        count: A.
        seed: of the starts.

    Raises:
        UsageError: no box, or no prior asked for.
    """
    if not len(boxes_wh) or count < 1:
        raise UsageError(f"got {len(boxes_wh)} boxes for {count} priors, wanted at least 1 of both", where="box_priors")
    generator = torch.Generator().manual_seed(seed)
    boxes = boxes_wh[torch.randperm(len(boxes_wh), generator=generator)[:MOST_BOXES]]
    best, highest = boxes[:1].repeat(count, 1), -1.0
    for _ in range(STARTS):
        centres, overlap = _alternate(boxes, _spread(boxes, count, generator))
        if overlap > highest:
            best, highest = centres, overlap
    order = torch.sort(best.prod(1), stable=True).indices
    return BoxPriors(best[order], mean_best_iou(boxes_wh, best))


def _spread(boxes_wh: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Boxes drawn one after the other, the likelier the less they overlap those drawn before."""
    chosen = [int(torch.randint(len(boxes_wh), (1,), generator=generator))]
    distance = torch.ones(len(boxes_wh))
    for _ in range(count - 1):
        distance = torch.minimum(distance, 1 - size_iou(boxes_wh, boxes_wh[chosen[-1]]))
        weights = distance.clamp(min=0) + 1e-12
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return boxes_wh[chosen]


def _alternate(boxes_wh: Tensor, centres_wh: Tensor) -> tuple[Tensor, float]:
    best, highest = centres_wh, -1.0
    nearest_before = torch.full((len(boxes_wh),), -1)
    for _ in range(ROUNDS):
        overlap, nearest = size_iou(boxes_wh[:, None], centres_wh).max(1)
        if float(overlap.mean()) > highest:
            best, highest = centres_wh, float(overlap.mean())
        if torch.equal(nearest, nearest_before):
            break
        nearest_before = nearest
        sums = torch.zeros_like(centres_wh).index_add_(0, nearest, boxes_wh)
        sizes = torch.bincount(nearest, minlength=len(centres_wh))[:, None]
        centres_wh = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres_wh)
    return best, highest
