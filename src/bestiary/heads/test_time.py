"""Looking at a picture more than once when predicting: mirrored, at several scales, and the answers made one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.suppression import Suppression, SuppressionKind
from bestiary.predictions import Detections

Merge = Literal[SuppressionKind, "weighted"]


def require_scales(scales: Sequence[int | float]) -> None:
    """Raise `UsageError` unless these are different factors on the size that a system works at."""
    if any(not 0 < scale <= 16 for scale in scales):
        raise UsageError(f"got {tuple(scales)}, wanted factors above 0 and up to 16", where="test_scales")
    if len(set(scales)) < len(scales):
        raise UsageError(f"got {tuple(scales)}, wanted each only once", where="test_scales")


def each_view(scales: Sequence[int | float], flip: bool) -> tuple[tuple[float, bool], ...]:
    """Scale, and whether mirrored, of each view; scale 1 alone where none is given."""
    flips = (False, True) if flip else (False,)
    return tuple((float(scale), mirrored) for scale in scales or (1.0,) for mirrored in flips)


@dataclass(frozen=True)
class DetectionViews:
    """What a detector looks at, and how what it finds in the views becomes one answer.

    Attributes:
        scales: factors on the size that the system works at; none for 1 alone.
        flip: also the mirror image of each view.
        merge: a kind of `Suppression` over the boxes of all views, or weighted: `weighted_boxes`.
        iou: overlap from which boxes of two views are one object.
    """

    scales: tuple[int | float, ...] = ()
    flip: bool = False
    merge: Merge = "nms"
    iou: int | float = 0.5

    def __post_init__(self) -> None:
        require_scales(self.scales)
        if self.merge not in get_args(Merge):
            raise UsageError(f"got {self.merge!r}, wanted one of {', '.join(get_args(Merge))}", where="merge")
        if not 0 <= self.iou <= 1:
            raise UsageError(f"got {self.iou}, wanted 0 to 1", where="merge_iou")

    @property
    def each(self) -> tuple[tuple[float, bool], ...]:
        """Scale, and whether mirrored, of each view."""
        return each_view(self.scales, self.flip)

    def merged(self, views: list[Detections]) -> Detections:
        """One answer from those of all views, all in pixels of the picture; a single view's as it is."""
        if len(views) == 1:
            return views[0]
        found = joined(views)
        if self.merge == "weighted":
            boxes, scores, labels = weighted_boxes(
                found.boxes_xyxy, found.scores, found.labels, len(views), float(self.iou)
            )
            return replace(found, boxes_xyxy=boxes, labels=labels, scores=scores)
        rule = Suppression(self.merge, self.iou)
        kept, scores = rule(found.boxes_xyxy, found.scores, found.labels)
        return replace(found, boxes_xyxy=found.boxes_xyxy[kept], labels=found.labels[kept], scores=scores)


ONE_VIEW = DetectionViews()
"""The picture as it is, once."""


def joined(parts: list[Detections]) -> Detections:
    """All boxes of some detections of one picture, part after part.

    Raises:
        UsageError: they carry masks or joints, which are not merged.
    """
    if any(part.masks is not None or part.keypoints is not None for part in parts):
        raise UsageError("got masks or keypoints, wanted boxes alone", where="tiles and test-time views")
    boxes = torch.cat([part.boxes_xyxy for part in parts])
    labels, scores = torch.cat([part.labels for part in parts]), torch.cat([part.scores for part in parts])
    return replace(parts[0], boxes_xyxy=boxes, labels=labels, scores=scores)


def best_first(found: Detections, most: int) -> Detections:
    """The `most` best, in the order of their scores; equal ones stay in theirs."""
    return found[torch.sort(found.scores, descending=True, stable=True).indices[:most]]


def mirrored(found: Detections) -> Detections:
    """Boxes found in the mirror image, in the picture itself."""
    x1, y1, x2, y2 = found.boxes_xyxy.unbind(1)
    width = found.size_hw[1]
    return replace(found, boxes_xyxy=torch.stack([width - x2, y1, width - x1, y2], 1))


def weighted_boxes(
    boxes_xyxy: Float32[Tensor, "N 4"],
    scores: Float32[Tensor, " N"],
    labels: Int64[Tensor, " N"],
    views: int,
    iou: float,
) -> tuple[Float32[Tensor, "M 4"], Float32[Tensor, " M"], Int64[Tensor, " M"]]:
    """Weighted boxes fusion (Solovyev, Wang, Gabruseva, Image and Vision Computing 2021, section 3): boxes, scores and
    labels, best first.

    Best first, a box joins the fused box of its category that it overlaps most, if by more than `iou`; else it starts
    one. A fused box is the mean of its members weighted by their scores; its score is their mean, times
    min(members, views) / views: what few views saw counts for less.
    """
    device = boxes_xyxy.device
    order = torch.sort(scores, descending=True, stable=True).indices.cpu()
    rows = (
        torch.cat([boxes_xyxy.cpu(), scores.cpu()[:, None], labels.cpu()[:, None].float()], 1)[order].double().numpy()
    )
    sums, weights, counts, kinds = (
        np.zeros((len(rows), 4)),
        np.zeros(len(rows)),
        np.zeros(len(rows)),
        np.zeros(len(rows)),
    )
    made = 0
    for row in rows:
        box, score, label = row[:4], row[4], row[5]
        mine = np.flatnonzero(kinds[:made] == label)
        place = made
        if len(mine):
            fused = torch.from_numpy(sums[mine] / weights[mine, None])
            overlaps = pairwise_iou(torch.from_numpy(box)[None], fused)[0].numpy()
            best = int(overlaps.argmax())
            place = int(mine[best]) if overlaps[best] > iou else made
        made += place == made
        weight = max(score, 1e-12)  # a box of score 0 has a place all the same
        sums[place] += weight * box
        weights[place] += weight
        counts[place] += 1
        kinds[place] = label
    boxes = torch.from_numpy(sums[:made] / weights[:made, None]).float()
    means = torch.from_numpy(weights[:made] / counts[:made] * np.minimum(counts[:made], views) / views).float()
    best = torch.sort(means, descending=True, stable=True).indices
    found = torch.from_numpy(kinds[:made]).long()
    return boxes[best].to(device), means[best].to(device), found[best].to(device)
