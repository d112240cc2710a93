"""Darknet's region layer: boxes on the cells of one map, from priors (Redmon, Farhadi, CVPR 2017, section 2).

Each cell has A priors, sizes in cells, and each prior 5 + M numbers: tx, ty, tw, th, objectness, and M of the classes.
Everything is measured in cells: a cell is one stride of the network, whatever the picture's size.

    centre   x = cx + sigmoid(tx), within the cell        ("direct location"), or
             x = cx + 0.5 + tx * pw, anywhere             (anchors as in Faster R-CNN)
    size     w = pw * exp(tw)

The gradient of every term below is what Darknet writes into its `delta`. Places are numbered cell by cell, row by row,
the priors of a cell side by side: `place = (row * W + column) * A + prior`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.assign.box_priors import size_iou
from bestiary.geometry.boxes import box_area, box_overlap_ratio, cxcywh_to_xyxy, pairwise_intersection, xyxy_to_cxcywh
from bestiary.heads.truth import CROWD_SHARE, Truth
from bestiary.ops import box_iou

LONGEST_LOG = 8.0
"""Largest tw that is decoded, so that no box is infinite: 2,981 times its prior."""


class RegionRaw(NamedTuple):
    """The network's numbers, one row a place.

    Attributes:
        offsets: tx, ty, tw, th; `[B, N, 4]`.
        objectness: logits, `[B, N]`.
        classes: logits, `[B, N, M]`.
    """

    offsets: Tensor
    objectness: Tensor
    classes: Tensor


@dataclass(frozen=True)
class RegionRule:
    """What is learned, and how much it counts.

    Attributes:
        no_object: weight of objectness where there is none.
        object: weight of objectness at an object.
        box: weight of the four offsets, times 2 - the share of the picture that the object covers.
        classes: weight of the class loss.
        ignore_iou: a place whose box overlaps some object by more than this is not told that there is none.
        pull: weight of the pull of all boxes towards their priors, ...
        pull_pictures: ... for so many pictures from the beginning.
        cross_entropy: objectness learns by cross entropy, as in later versions of Darknet, instead of squares.
    """

    no_object: int | float = 1.0
    object: int | float = 5.0
    box: int | float = 1.0
    classes: int | float = 1.0
    ignore_iou: int | float = 0.6
    pull: int | float = 0.01
    pull_pictures: int = 12_800
    cross_entropy: bool = False


class Layout(NamedTuple):
    """Where the places are.

    Attributes:
        priors_wh: sizes of the A priors in cells, `[A, 2]`.
        grid_hw: cells.
        direct_location: centres stay in their cells.
    """

    priors_wh: Tensor
    grid_hw: tuple[int, int]
    direct_location: bool = True

    def corners(self) -> Float[Tensor, "N 2"]:
        """cx, cy of the cell of each place."""
        rows, columns = (torch.arange(n, dtype=torch.float32, device=self.priors_wh.device) for n in self.grid_hw)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], 1).repeat_interleave(len(self.priors_wh), 0)

    def sizes(self) -> Float[Tensor, "N 2"]:
        """The prior of each place."""
        return self.priors_wh.repeat(self.grid_hw[0] * self.grid_hw[1], 1)


class RegionTargets(NamedTuple):
    """What the places that answer for an object of one picture learn; T of them.

    Attributes:
        places: indices into N, each once.
        boxes_xyxy: the object's, in cells.
        labels: its category.
        area_shares: share of the picture that it covers.
    """

    places: Tensor
    boxes_xyxy: Tensor
    labels: Tensor
    area_shares: Tensor


def split_raw(maps: Float[Tensor, "B D H W"], priors: int) -> RegionRaw:
    """Darknet's channels, prior by prior tx, ty, tw, th, objectness, classes, as rows; float32."""
    batch, channels, height, width = maps.shape
    rows = maps.float().reshape(batch, priors, channels // priors, height, width).permute(0, 3, 4, 1, 2)
    rows = rows.reshape(batch, height * width * priors, channels // priors)
    return RegionRaw(rows[..., :4], rows[..., 4], rows[..., 5:])


def decode_places(offsets: Float[Tensor, "*B N 4"], layout: Layout) -> Float[Tensor, "*B N 4"]:
    """Boxes `xyxy` in cells, not clipped."""
    priors = layout.sizes()
    moved = offsets[..., :2].sigmoid() if layout.direct_location else 0.5 + offsets[..., :2] * priors
    sizes = priors * offsets[..., 2:].clamp(max=LONGEST_LOG).exp()
    return cxcywh_to_xyxy(torch.cat([layout.corners() + moved, sizes], -1))


@torch.no_grad()
def assign_places(truth: Truth, layout: Layout) -> RegionTargets:
    """One place for each object: the cell that its centre lies in, and the prior whose size fits best (the first of
    equally good ones). Of two objects with one place the later has it, as in Darknet. The truth is in cells, too.
    """
    (height, width), priors_wh = layout.grid_hw, layout.priors_wh
    boxes = xyxy_to_cxcywh(truth.boxes_xyxy)
    column, row = boxes[:, 0].long().clamp(0, width - 1), boxes[:, 1].long().clamp(0, height - 1)
    prior = size_iou(boxes[:, None, 2:], priors_wh).argmax(1) if len(boxes) else column
    places = (row * width + column) * len(priors_wh) + prior
    latest = _latest_of_each(places)
    share = box_area(truth.boxes_xyxy) / (height * width)
    return RegionTargets(places[latest], truth.boxes_xyxy[latest], truth.labels[latest], share[latest])


def _latest_of_each(places: Int64[Tensor, " T"]) -> Int64[Tensor, " U"]:
    """Index of the last element of each value, rising."""
    shares = places[:, None] == places
    later = torch.triu(shares, diagonal=1).any(1)
    return (~later).nonzero()[:, 0]


@torch.no_grad()
def holds_nothing(boxes_xyxy: Float[Tensor, "N 4"], truth: Truth, ignore_iou: int | float) -> Bool[Tensor, " N"]:
    """Predicted boxes that overlap no object by more than `ignore_iou`, nor lie mostly on a crowd; all in cells."""
    empty = torch.ones(len(boxes_xyxy), dtype=torch.bool, device=boxes_xyxy.device)
    if len(truth.boxes_xyxy):
        empty &= box_iou(boxes_xyxy, truth.boxes_xyxy).amax(1) <= ignore_iou
    if len(truth.crowds_xyxy):
        covered = pairwise_intersection(boxes_xyxy, truth.crowds_xyxy).amax(1)
        empty &= covered <= CROWD_SHARE * box_area(boxes_xyxy)
    return empty


def offset_losses(offsets: Float[Tensor, "T 4"], targets: RegionTargets, layout: Layout) -> Float[Tensor, " T"]:
    """Half the squared errors of the four offsets of the places that answer for an object, summed; of direct locations
    after the sigmoid.
    """
    corners, priors = layout.corners()[targets.places], layout.sizes()[targets.places]
    wanted = xyxy_to_cxcywh(targets.boxes_xyxy)
    sizes = (wanted[:, 2:] / priors).log()
    if layout.direct_location:
        centres, given = wanted[:, :2] - corners, offsets[:, :2].sigmoid()
    else:
        centres, given = (wanted[:, :2] - corners - 0.5) / priors, offsets[:, :2]
    return 0.5 * ((given - centres).square().sum(1) + (offsets[:, 2:] - sizes).square().sum(1))


def pull_losses(offsets: Float[Tensor, "*N 4"], direct_location: bool = True) -> Float[Tensor, "*N"]:
    """The same towards the prior in the middle of its cell."""
    middle = offsets[..., :2].sigmoid() - 0.5 if direct_location else offsets[..., :2]
    return 0.5 * (middle.square().sum(-1) + offsets[..., 2:].square().sum(-1))


def objectness_losses(
    logits: Float[Tensor, "*N"], wanted: Float[Tensor, "*N"], cross_entropy: bool = False
) -> Float[Tensor, "*N"]:
    """Half the squared error of the probability, or cross entropy."""
    if cross_entropy:
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return 0.5 * (logits.sigmoid() - wanted).square()


ClassLosses = Callable[[Float[Tensor, "T M"], Int64[Tensor, " T"]], Float[Tensor, " T"]]


def region_losses(
    raw: RegionRaw,
    truths: Sequence[Truth],
    layout: Layout,
    class_losses: ClassLosses,
    rule: RegionRule,
    is_pulled: bool = False,
) -> dict[str, Float[Tensor, ""]]:
    """The terms "object", "no_object", "box", "class" and "pull", sums over places, means over pictures.

    Objectness at an object is told how well the box of its place fits by now (IoU), without gradient.

    Args:
        raw: of a batch.
        truths: objects of each picture, in cells.
        layout: where the places are.
        class_losses: of the class logits and labels of the places that answer for an object.
        rule: weights.
        is_pulled: whether places without object are drawn to their priors.
    """
    batch = len(truths)
    boxes = decode_places(raw.offsets.detach(), layout)
    empty = torch.stack([holds_nothing(b, t, rule.ignore_iou) for b, t in zip(boxes, truths, strict=True)])
    each = [assign_places(truth, layout) for truth in truths]
    targets = RegionTargets(*(torch.cat(parts) for parts in zip(*each, strict=True)))
    picture = torch.cat([torch.full_like(t.places, i) for i, t in enumerate(each)])
    rows = picture, targets.places
    free = torch.ones_like(empty)
    free[rows] = False
    none = objectness_losses(raw.objectness, torch.zeros_like(raw.objectness), rule.cross_entropy)
    fit = box_overlap_ratio(boxes[rows], targets.boxes_xyxy)
    some = objectness_losses(raw.objectness[rows], fit, rule.cross_entropy)
    box = offset_losses(raw.offsets[rows], targets, layout) * (2 - targets.area_shares)
    pull = pull_losses(raw.offsets, layout.direct_location) * free
    return {
        "object": rule.object * some.sum() / batch,
        "no_object": rule.no_object * (none * (empty & free)).sum() / batch,
        "box": rule.box * box.sum() / batch,
        "class": rule.classes * class_losses(raw.classes[rows], targets.labels).sum() / batch,
        "pull": (rule.pull if is_pulled else 0.0) * pull.sum() / batch,
    }
