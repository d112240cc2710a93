"""What each one-stage system needs beside `DenseGraph`: its rule, its size, and shortcuts that a ladder of sizes asks
for.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bestiary.deploy.box_graph import DROPPED, best_of, between_sizes, cells_at, clip_to
from bestiary.deploy.dense_graph import DenseGraph, DenseRule, Ranked
from bestiary.deploy.graphs import Placement
from bestiary.detection.corner_net import CornerNet
from bestiary.detection.retinanet import SIZE_DIVISOR, RetinaNet
from bestiary.detection.ssd import SSD
from bestiary.detection.yolo_v1 import YOLOv1
from bestiary.detection.yolo_v2 import BEFORE_SUPPRESSION, YOLOv2
from bestiary.geometry.anchors import cell_anchors
from bestiary.heads.corners import best_corners, pair_corners
from bestiary.heads.detection import Detector
from bestiary.heads.retina import by_anchor
from bestiary.heads.retina_learning import DELTA_CODEC
from bestiary.heads.square import Square

CORNER_NMS_IOU = 0.5
"""Of hard suppression in place of the soft one that CornerNet has."""
Sizes = tuple[tuple[int, int], tuple[int, int]]


def dense_graph_of(system: Detector, nms: Placement) -> DenseGraph | None:
    """The graph of a one-stage system; None for any other."""
    if isinstance(system, RetinaNet):
        return RetinaGraph(system, nms)
    if isinstance(system, CornerNet):
        return CornerGraph(system, nms)
    if isinstance(system, SSD):
        limits = system.settings
        graph = DenseGraph(system, DenseRule(limits.min_score, limits.nms_iou, of_category=limits.candidates), nms)
        graph.preparation, graph.sizes_hw = _square(system.scale)
        return graph
    if isinstance(system, YOLOv1):
        graph = DenseGraph(system, DenseRule(system.min_score, system.nms_iou), nms)
        graph.preparation, graph.sizes_hw = _square(Square(system.size))
        return graph
    if isinstance(system, YOLOv2):
        rule = DenseRule(system.min_score, system.nms_iou, BEFORE_SUPPRESSION, clip_first=False)
        graph = DenseGraph(system, rule, nms)
        graph.preparation, graph.sizes_hw = _square(system.square)
        return graph
    return None


def _square(square: Square) -> tuple[dict[str, Any], Sizes]:
    """Preparation and sizes of a system that sees every picture in one square."""
    stretch = "both sides to `side`, whatever becomes of the proportions"
    keep = (
        "both sides to max(1, floor(side_of_picture * `side` / longer + 1e-6)), in the middle of grey 0.5, the margins "
        "left and above floor(half) of what is missing"
    )
    preparation = {
        "kind": "square",
        "side": square.side,
        "antialias": square.antialias,
        "letterbox": square.letterbox,
        "rule": f"{keep if square.letterbox else stretch}; bilinear, half-pixel centres, "
        f"{'' if square.antialias else 'not '}antialiased; boxes are brought back and clipped",
    }
    side = square.side
    return preparation, ((side, side), (side, side))


class RetinaGraph(DenseGraph):
    """RetinaNet: of each level only the likeliest are decoded (section 4.1 of the paper)."""

    def __init__(self, system: RetinaNet, nms: Placement = "inside") -> None:
        super().__init__(system, DenseRule(system.settings.min_score, system.settings.nms_iou), nms)
        self.retina = system
        for level, sides in enumerate(system.head.sizes):
            self.register_buffer(f"cell_anchors_{level}", cell_anchors(sides, system.head.ratios))
        self.preparation, self.sizes_hw = between_sizes(system.scale)

    def ranked(self, images: Float[Tensor, "B C H W"], limits: Float[Tensor, " 4"]) -> Ranked:
        """Level after level, best first within one."""
        system, most = self.retina, self.retina.settings.before_nms
        height, width = images.shape[-2:]
        tall, wide = ((side + SIZE_DIVISOR - 1) // SIZE_DIVISOR * SIZE_DIVISOR for side in (height, width))
        raw = system(F.pad(system.normalize(images), [0, wide - width, 0, tall - height]))
        num_anchors, first = system.head.num_anchors, system.unused_outputs
        boxes, probs, labels = [], [], []
        for level, (logits, deltas) in enumerate(zip(raw.logits, raw.deltas, strict=True)):
            anchors = cells_at(getattr(self, f"cell_anchors_{level}"), logits, tall, wide)
            flat = by_anchor(logits, num_anchors)[..., first:]
            best, index = best_of(flat.flatten(1), most)
            place = index // len(self.retina.categories)
            chosen = by_anchor(deltas, num_anchors).gather(1, place[..., None].expand(-1, -1, 4))
            decoded = DELTA_CODEC.decode(chosen.flatten(0, 1), anchors[place].flatten(0, 1))
            boxes.append(decoded.view_as(chosen))
            probs.append(best.sigmoid())
            labels.append(index % len(self.retina.categories))
        return torch.cat(boxes, 1), torch.cat(probs, 1), torch.cat(labels, 1)


class CornerGraph(DenseGraph):
    """CornerNet: black around the picture up to a size that can be halved; pairs of corners are the candidates."""

    def __init__(self, system: CornerNet, nms: Placement = "inside") -> None:
        super().__init__(system, DenseRule(0.0, CORNER_NMS_IOU), nms)
        self.corner_net = system
        least = system.backbone.multiple
        if system.scale is None:
            self.preparation = {"kind": "own_size", "rule": "pictures as they are"}
            self.sizes_hw = ((2 * least, 2 * least + 40), (3 * least - 20, 2 * least))
        else:
            self.preparation, self.sizes_hw = between_sizes(system.scale)

    def ranked(self, images: Float[Tensor, "B C H W"], limits: Float[Tensor, " 4"]) -> Ranked:
        """As `CornerNet.prepare` and `decode`, of symbolic sizes."""
        system, multiple = self.corner_net, self.corner_net.backbone.multiple
        height, width = images.shape[-2:]
        tall, wide = (side // multiple * multiple + multiple - 1 for side in (height, width))
        left, top = wide // 2 - width // 2, tall // 2 - height // 2
        pixels = F.pad(images, [left, wide - width - left, top, tall - height - top])
        raw = system(system.normalize(pixels))
        corners = [best_corners(maps, system.pairs.corners) for maps in raw]
        cells, scores, labels = pair_corners(corners[0], corners[1], system.pairs)
        down, across = raw.top_left.heat.shape[-2:]
        boxes = cells * (_twice(wide, tall, images) / _twice(across, down, images)) - _twice(left, top, images)
        inside = clip_to(boxes, limits)
        real = (inside[..., 2:] > inside[..., :2]).all(-1)  # not wholly in the black
        return boxes, torch.where(real, scores, DROPPED), labels


def _twice(x: int, y: int, like: Tensor) -> Float[Tensor, " 4"]:
    """x, y, x, y, which may be symbols."""
    return torch.stack([torch.scalar_tensor(x), torch.scalar_tensor(y)]).to(like).repeat(2)
