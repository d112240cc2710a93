"""Boxes said from where a root and its parts are (Felzenszwalb et al., TPAMI 2010, section 7.2).

The paper regresses the four sides on the root's width and the corners of all filters; here both are measured from the
root's corner in units of its sides, which is the same function of a root of fixed aspect, but moves and grows with it
by construction. Components and their mirror images share one regression.
"""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.features.part_models import Hits

PENALTY = 0.1
"""Of squared coefficients, the constant's aside: few placements must not lead far from the root."""


def fit_boxes(hits: Hits, truth_xyxy: Float32[Tensor, "N 4"], components: int) -> Float32[Tensor, "M F 4"]:
    """Least squares from placements to the boxes they should have said; F = 2 parts + 1.

    Args:
        hits: placements.
        truth_xyxy: the box of each.
        components: M; one without a placement says the root's box.
    """
    inputs, sides = _measured(hits)
    wanted = (_faced(truth_xyxy, hits.templates) - _faced(hits.boxes_xyxy, hits.templates)).double() / sides
    found = torch.zeros(components, inputs.shape[1], 4)
    penalty = torch.full((inputs.shape[1],), PENALTY, dtype=torch.float64)
    penalty[-1] = 1e-6
    for component in range(components):
        mine = hits.templates // 2 == component
        if mine.any():
            rows, goals = inputs[mine], wanted[mine]
            # Parts are measured from where they are on the average: the penalty then holds them to it.
            mean = rows.mean(0) * (torch.arange(rows.shape[1]) < rows.shape[1] - 1)
            centred = rows - mean
            solved = torch.linalg.solve(centred.T @ centred + penalty.diag(), centred.T @ goals)
            solved[-1] -= mean @ solved
            found[component] = solved.float()
    return found


def said_boxes(hits: Hits, weights: Float32[Tensor, "M F 4"]) -> Float32[Tensor, "N 4"]:
    """The boxes of placements; never of negative sides."""
    inputs, sides = _measured(hits)
    moved = torch.einsum("nf,nfk->nk", inputs, weights[hits.templates // 2].double()) * sides
    said = _faced((_faced(hits.boxes_xyxy, hits.templates) + moved).float(), hits.templates)
    return torch.cat([said[:, :2], torch.maximum(said[:, :2], said[:, 2:])], 1)


def _measured(hits: Hits) -> tuple[Tensor, Tensor]:
    """Corners of the parts from the root's in units of its sides, and 1; its sides, twice."""
    roots = _faced(hits.boxes_xyxy, hits.templates).double()
    count = hits.parts_xyxy.shape[1]
    parts = _faced(hits.parts_xyxy.flatten(0, 1), hits.templates.repeat_interleave(count)).double()
    corner, sides = roots[:, :2], roots[:, 2:] - roots[:, :2]
    relative = (parts.view(len(hits), count, 4)[..., :2] - corner[:, None]) / sides[:, None]
    ones = relative.new_ones(len(hits), 1)
    return torch.cat([relative.flatten(1), ones], 1), sides.repeat(1, 2)


def _faced(boxes_xyxy: Float32[Tensor, "N 4"], templates: Int64[Tensor, " N"]) -> Float32[Tensor, "N 4"]:
    """Boxes of mirror images as the mirror shows them; the same again undoes it."""
    turned = boxes_xyxy[:, [2, 1, 0, 3]] * boxes_xyxy.new_tensor([-1, 1, -1, 1])
    return torch.where((templates % 2 == 1)[:, None], turned, boxes_xyxy)
