"""What a corner detector learns from the boxes of its pictures (Law, Deng: CornerNet, ECCV 2018, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bestiary.heads.corners import CornerMaps
from bestiary.heads.truth import Truth
from bestiary.losses.corners import corner_focal_loss, pull_loss, push_loss
from bestiary.losses.regression import smooth_l1_loss

MIN_IOU = 0.3
"""A pair of corners this near to an object's makes a box that overlaps it by at least so much."""

AT_ONCE = 256
"""Objects whose bumps are drawn together, so that memory stays bounded."""


class CornerTargets(NamedTuple):
    """The truth of one corner of the N objects of one picture.

    Attributes:
        heat: 1 at the corners, falling off around them, `[K, h, w]`.
        counts: where not being a corner is learned: not within crowds, `[h, w]`.
        cells: flat index of each object's cell, `[N]`.
        offsets: x and y of the corner within its cell, in cells, `[N, 2]`.
    """

    heat: Tensor
    counts: Tensor
    cells: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class CornerWeights:
    """What the terms of the loss count (equation 6).

    Attributes:
        pull: alpha.
        push: beta.
        offset: gamma.
    """

    pull: int | float = 0.1
    push: int | float = 0.1
    offset: int | float = 1.0


def gaussian_radius(sizes_hw: Float[Tensor, "N 2"], min_iou: int | float = MIN_IOU) -> Float[Tensor, " N"]:
    """How far, along each axis, both corners of a box may move so that it still overlaps the old one by `min_iou`.

    The least over three cases: both corners move inwards, both outwards, or both the same way. A box of h and w is then
    (h - 2r)(w - 2r), (h + 2r)(w + 2r), or the two share (h - r)(w - r); each is a quadratic equation in r.
    """
    height, width = sizes_hw.unbind(-1)
    total, area = height + width, height * width
    shifted = (total - (total.square() - 4 * area * (1 - min_iou) / (1 + min_iou)).clamp(min=0).sqrt()) / 2
    shrunk = (total - (total.square() - 4 * area * (1 - min_iou)).clamp(min=0).sqrt()) / 4
    grown = ((total.square() + 4 * area * (1 - min_iou) / min_iou).sqrt() - total) / 4
    return torch.minimum(torch.minimum(shifted, shrunk), grown)


def bumps(
    cells_xy: Int64[Tensor, "N 2"], radii: Int64[Tensor, " N"], map_hw: tuple[int, int]
) -> Float[Tensor, "N H W"]:
    """exp(-(dx^2 + dy^2) / 2 sigma^2) within `radii` cells along each axis, sigma a sixth of the diameter 2r + 1."""
    sides = []
    for cells, length in ((cells_xy[:, 1], map_hw[0]), (cells_xy[:, 0], map_hw[1])):
        far = torch.arange(length, device=cells.device) - cells[:, None]
        sigma = (2 * radii[:, None] + 1) / 6
        sides.append(torch.exp(-far.square() / (2 * sigma.square())) * (far.abs() <= radii[:, None]))
    return sides[0][:, :, None] * sides[1][:, None]


def corner_targets(
    truth: Truth, map_hw: tuple[int, int], pixels_hw: tuple[int, int], num_categories: int
) -> tuple[CornerTargets, CornerTargets]:
    """The truth of the top-left and of the bottom-right corners.

    Args:
        truth: in pixels of the network's input.
        map_hw: cells of the maps.
        pixels_hw: size of the network's input.
        num_categories: K.
    """
    cell = truth.boxes_xyxy.new_tensor([map_hw[1] / pixels_hw[1], map_hw[0] / pixels_hw[0]])
    boxes = truth.boxes_xyxy.view(-1, 2, 2) * cell
    # sizes in whole cells, as in the authors' code, so that even the smallest object has some
    radii = gaussian_radius((boxes[:, 1] - boxes[:, 0]).ceil().flip(-1)).floor().long()
    counts = ~_inside(truth.crowds_xyxy.view(-1, 2, 2) * cell, map_hw)
    parts = []
    for corner in boxes.unbind(1):
        # a corner on the far border of the picture belongs to the last cell
        last = torch.tensor([map_hw[1] - 1, map_hw[0] - 1], device=boxes.device)
        cells_xy = corner.floor().long().clamp(min=0).minimum(last)
        heat = _heat(cells_xy, radii, truth.labels, map_hw, num_categories)
        parts.append(CornerTargets(heat, counts, cells_xy[:, 1] * map_hw[1] + cells_xy[:, 0], corner - cells_xy))
    return parts[0], parts[1]


def _heat(
    cells_xy: Int64[Tensor, "N 2"],
    radii: Int64[Tensor, " N"],
    labels: Int64[Tensor, " N"],
    map_hw: tuple[int, int],
    num_categories: int,
) -> Float[Tensor, "K H W"]:
    """The greatest bump of each category at each cell: where two meet they are not added."""
    heat = torch.zeros(num_categories, *map_hw, device=cells_xy.device)
    for label in labels.unique():
        own = labels == label
        for cells, reach in zip(cells_xy[own].split(AT_ONCE), radii[own].split(AT_ONCE), strict=True):
            heat[label] = torch.maximum(heat[label], bumps(cells, reach, map_hw).amax(0))
    return heat


def _inside(boxes: Float[Tensor, "M 2 2"], map_hw: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """Cells whose centres lie in any of the boxes."""
    inside = torch.zeros(map_hw, dtype=torch.bool, device=boxes.device)
    ys, xs = (torch.arange(n, device=boxes.device) + 0.5 for n in map_hw)
    for (x1, y1), (x2, y2) in boxes:
        inside |= ((ys >= y1) & (ys < y2))[:, None] & ((xs >= x1) & (xs < x2))[None]
    return inside


def heat_loss(
    logits: Float[Tensor, "B K H W"],
    targets: Sequence[CornerTargets],
    class_weights: Float[Tensor, " K"] | None = None,
) -> Float[Tensor, ""]:
    """Equation 1 over all pictures together, divided by their corners; by 1 where there is none."""
    heat = torch.stack([target.heat for target in targets])
    counts = torch.stack([target.counts for target in targets])[:, None] | (heat == 1)
    losses = corner_focal_loss(logits.float(), heat) * counts
    if class_weights is not None:
        losses = losses * class_weights[:, None, None]
    return losses.sum() / (heat == 1).sum().clamp(min=1)


def offset_loss(offsets: Float[Tensor, "B 2 H W"], targets: Sequence[CornerTargets]) -> Float[Tensor, ""]:
    """Equation 3: smooth L1 of both coordinates, divided by the objects of all pictures together."""
    found = torch.cat([_read(maps, target) for maps, target in zip(offsets, targets, strict=True)])
    wanted = torch.cat([target.offsets for target in targets])
    return smooth_l1_loss(found, wanted).sum() / max(1, len(wanted))


def tag_losses(
    first: Float[Tensor, "B 1 H W"],
    second: Float[Tensor, "B 1 H W"],
    targets: Sequence[tuple[CornerTargets, CornerTargets]],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Equations 4 and 5 of each picture, and their means over the pictures."""
    pulls, pushes = [], []
    for one, other, (top_left, bottom_right) in zip(first, second, targets, strict=True):
        tags = _read(one, top_left)[:, 0], _read(other, bottom_right)[:, 0]
        count = len(tags[0])
        pulls.append(pull_loss(*tags).sum() / max(1, count))
        pushes.append(push_loss(*tags).sum() / max(1, count * (count - 1)))
    return torch.stack(pulls).mean(), torch.stack(pushes).mean()


def _read(maps: Float[Tensor, "C H W"], target: CornerTargets) -> Float[Tensor, "N C"]:
    """What stands at the objects' own corners."""
    return maps.float().flatten(1)[:, target.cells].T


def corner_losses(
    maps: tuple[CornerMaps, CornerMaps],
    targets: Sequence[tuple[CornerTargets, CornerTargets]],
    weights: CornerWeights,
    class_weights: Float[Tensor, " K"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms "corners", "pull", "push" and "offsets" of one hourglass; both corners count together."""
    both = list(zip(maps, zip(*targets, strict=True), strict=True))
    pull, push = tag_losses(maps[0].tag, maps[1].tag, targets)
    return {
        "corners": torch.stack([heat_loss(part.heat, wanted, class_weights) for part, wanted in both]).sum(),
        "pull": weights.pull * pull,
        "push": weights.push * push,
        "offsets": weights.offset * torch.stack([offset_loss(part.offset, wanted) for part, wanted in both]).sum(),
    }
