"""What the graphs of all box detectors share: their outputs, and choosing among boxes without dropping any.

Where a system drops boxes, a graph gives them a score below every threshold, so that a batch of any size stays one
tensor until the last step; there the boxes that are left are picked out, none being legal.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bestiary.deploy.graphs import Graph, Port
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import NetworkScale
from bestiary.heads.suppression import HARD
from bestiary.heads.test_time import ONE_VIEW
from bestiary.heads.tiling import NO_TILES

DROPPED = -1.0
"""Score of a box that is out; probabilities are not negative."""
KEPT = -0.5
"""Between the dropped and the others."""


class BoxGraph(Graph):
    """Pictures of one size, at network scale, to boxes in their pixels.

    Tiles, further views and soft suppression are the system's; the graph has none of them and says so in its notes.

    The constant `min_score` is the least probability of an answer; the parity check moves it.
    """

    outputs = (
        Port("boxes", "float32", ("N", 4), "x1, y1, x2, y2 in pixels of the input, clipped to it"),
        Port("scores", "float32", ("N",), "probability; best first within a picture"),
        Port("labels", "int64", ("N",), "index into the categories"),
        Port("pictures", "int64", ("N",), "which picture of the batch, ascending"),
    )
    min_score: Tensor

    def __init__(self, system: Detector, min_score: int | float) -> None:
        super().__init__(system)
        self.max_detections = system.max_detections
        rule = system.suppression
        self._overlap = rule.iou if rule.kind == HARD.kind else None
        self.register_buffer("min_score", torch.tensor(float(min_score)))
        self.notes = plain(system)

    def overlap(self, own: int | float) -> float:
        """Of hard suppression: the one that was asked for, or the system's own."""
        return float(own if self._overlap is None else self._overlap)


def plain(system: Detector) -> tuple[str, ...]:
    """Make a detector look once, at whole pictures, with hard suppression, as its graph does; what that changed."""
    notes = []
    if system.tiling.tile:
        notes.append(f"the graph sees pictures whole, not the model's tiles of {system.tiling.tile} pixels")
        system.tiling = NO_TILES
    views = len(system.test_views.each)
    if system.test_views.each != ONE_VIEW.each:
        notes.append(f"the graph sees one view of a picture, not the model's {views} (test_scales, test_flip)")
        system.test_views = ONE_VIEW
    elif getattr(system, "test_flip", False):
        notes.append("the graph does not look at mirror images, as the model does (test_flip)")
        system.test_flip = False  # type: ignore[assignment]
    if system.suppression.kind != HARD.kind:
        notes.append(f"the graph's suppression is hard, not the model's {system.suppression.kind}")
        system.suppression = HARD
    return tuple(notes)


def between_sizes(scale: NetworkScale) -> tuple[dict[str, Any], tuple[tuple[int, int], tuple[int, int]]]:
    """Preparation and two sizes of a system that brings the shorter side to one length, the longer to another at
    most.
    """
    preparation = {
        "kind": "resize_between",
        "min_size": scale.min_size,
        "max_size": scale.max_size,
        "rule": "both sides to floor(side * s), s = min(min_size / shorter, max_size / longer); bilinear, "
        "half-pixel centres, not antialiased; boxes are scaled back by the ratios of the sides and clipped",
    }
    longer = min(scale.max_size, scale.min_size * 4 // 3)
    return preparation, ((scale.min_size, longer), (longer, max(1, scale.min_size * 3 // 4)))


def cells_at(
    cell_anchors: Float[Tensor, "A 4"], like: Float[Tensor, "B C H W"], height: int, width: int
) -> Float[Tensor, "N 4"]:
    """As `geometry.anchors.grid_anchors` over the map `like` of pixels `height x width`, of symbolic sizes."""
    down, across = like.shape[-2:]
    y = (torch.arange(down) * (height // down)).to(like)[:, None].expand(down, across)
    x = (torch.arange(across) * (width // across)).to(like)[None].expand(down, across)
    return (torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) + cell_anchors).reshape(-1, 4)


def limits_of(images: Float[Tensor, "B C H W"]) -> Float[Tensor, " 4"]:
    """Width, height, width, height."""
    height, width = images.shape[-2:]
    return torch.stack([torch.scalar_tensor(width), torch.scalar_tensor(height)]).to(images).repeat(2)


def clip_to(boxes_xyxy: Float[Tensor, "*N 4"], limits: Float[Tensor, " 4"]) -> Float[Tensor, "*N 4"]:
    """Within a picture of these limits."""
    return torch.minimum(boxes_xyxy.clamp(min=0), limits)


def large(boxes_xyxy: Float[Tensor, "*N 4"], min_side: int | float) -> Bool[Tensor, "*N"]:
    """Both sides at least so long."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2] >= min_side).all(-1)


def keep_only(probs: Float[Tensor, "*B P"], places: Int64[Tensor, " S"]) -> Float[Tensor, "*B P"]:
    """`probs` at the flat `places`, `DROPPED` elsewhere."""
    flattened = probs.flatten()
    return torch.full_like(flattened, DROPPED).scatter(0, places, flattened[places]).view_as(probs)


def best_of(scores: Float[Tensor, "B P"], most: int) -> tuple[Float[Tensor, "B Q"], Int64[Tensor, "B Q"]]:
    """The `most` largest of each row and where they stand, or all in order if there are fewer."""
    length: Any = torch.sym_min(most, scores.shape[1])
    best = scores.topk(length, dim=1)
    return best.values, best.indices


def picked(
    probs: Float[Tensor, "B P"], most: int
) -> tuple[Float[Tensor, " N"], Int64[Tensor, " N"], Int64[Tensor, " N"]]:
    """Scores of the `most` best that are not dropped, picture by picture: they, their columns, their pictures."""
    best, index = best_of(probs, most)
    of_picture, rank_in_picture = (best > KEPT).nonzero(as_tuple=True)
    return best[of_picture, rank_in_picture], index[of_picture, rank_in_picture], of_picture
