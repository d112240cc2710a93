"""A two-stage detector as one graph: the arithmetic of `FasterRCNN._detect` on tensors of fixed length a picture.

Where the system drops boxes, the graph gives them a score below every threshold, so that a batch of any size stays one
tensor until the last step; there the boxes that are left are picked out, none being legal.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.deploy.graphs import Graph, Port
from bestiary.deploy.onnx_operators import suppress
from bestiary.detection.faster_rcnn import SIZE_DIVISOR, FasterRCNN, RawRegions
from bestiary.geometry.anchors import cell_anchors
from bestiary.heads.rpn import flat, rank

DROPPED = -1.0
"""Score of a box that is out; probabilities are not negative."""
KEPT = -0.5
"""Between the dropped and the others."""


class RegionGraph(Graph):
    """Pictures of one size, at network scale, to boxes in their pixels.

    The constant `min_score` is the least probability of an answer; the parity check moves it.
    """

    outputs = (
        Port("boxes", "float32", ("N", 4), "x1, y1, x2, y2 in pixels of the input, clipped to it"),
        Port("scores", "float32", ("N",), "probability; best first within a picture"),
        Port("labels", "int64", ("N",), "index into the categories"),
        Port("pictures", "int64", ("N",), "which picture of the batch, ascending"),
    )
    min_score: Tensor

    def __init__(self, system: FasterRCNN) -> None:
        super().__init__(system)
        self.network = system
        self.register_buffer("min_score", torch.tensor(float(system.regions.min_score)))
        for level, sides in enumerate(system.rpn.sizes):
            self.register_buffer(f"cell_anchors_{level}", cell_anchors(sides, system.rpn.ratios))
        self.preparation = {
            "kind": "resize_between",
            "min_size": system.min_size,
            "max_size": system.max_size,
            "rule": "both sides to floor(side * s), s = min(min_size / shorter, max_size / longer); bilinear, "
            "half-pixel centres, not antialiased; boxes are scaled back by the ratios of the sides and clipped",
        }
        longer = min(system.max_size, system.min_size * 4 // 3)
        self.sizes_hw = ((system.min_size, longer), (longer, max(1, system.min_size * 3 // 4)))

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "N 4"], Float[Tensor, " N"], Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Boxes, scores, labels, and the picture each belongs to."""
        height, width = images.shape[-2:]
        padded = [(side + SIZE_DIVISOR - 1) // SIZE_DIVISOR * SIZE_DIVISOR for side in (height, width)]
        pixels = F.pad(self.network.normalize(images), [0, padded[1] - width, 0, padded[0] - height])
        raw = self.network(pixels)
        limits = torch.stack([torch.scalar_tensor(width), torch.scalar_tensor(height)]).to(images).repeat(2)
        boxes, probs, levels = self._rank_anchors(raw, padded[0], padded[1], limits)
        regions, alive = self._propose(boxes, probs, levels)
        return self._decide(raw, regions, alive, limits)

    def _rank_anchors(self, raw: RawRegions, height: int, width: int, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clipped boxes `[B, P, 4]`, probabilities `[B, P]` and levels `[P]` of the likeliest anchors."""
        settings = self.network.proposals
        anchors = [self._anchors(i, o, height, width) for i, o in enumerate(raw.objectness)]
        flattened = [flat(o, d) for o, d in zip(raw.objectness, raw.deltas, strict=True)]
        boxes, logits, levels = rank(flattened, anchors, self.network.anchor_codec, settings.before_nms[1])
        boxes = _clip(boxes, limits)
        probs = logits.sigmoid()
        fits = _large(boxes, settings.min_side) & (probs >= settings.min_score)
        return boxes, torch.where(fits, probs, DROPPED), levels

    def _anchors(self, level: int, objectness: Tensor, height: int, width: int) -> Tensor:
        """As `RPN.anchors`, of symbolic sizes."""
        down, across = objectness.shape[-2:]
        y = (torch.arange(down) * (height // down)).to(objectness)[:, None].expand(down, across)
        x = (torch.arange(across) * (width // across)).to(objectness)[None].expand(down, across)
        cell = getattr(self, f"cell_anchors_{level}")
        return (torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) + cell).reshape(-1, 4)

    def _propose(self, boxes: Tensor, probs: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """R regions a picture, `[B, R, 4]`, and which of them are any."""
        settings = self.network.proposals
        count = probs.shape[1]
        groups = torch.arange(len(self.network.rpn.sizes), device=levels.device)
        by_level = torch.where(levels == groups[:, None], probs[:, None], DROPPED)
        rows = suppress(boxes, by_level, settings.nms_iou, KEPT)
        survivors = _keep_only(probs, rows[:, 0] * count + rows[:, 2])
        best, index = _best(survivors, settings.after_nms[1])
        return boxes.gather(1, index[..., None].expand(-1, -1, 4)), best > KEPT

    def _decide(
        self, raw: RawRegions, regions: Tensor, alive: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Second stage on all regions of the batch; `R K` candidates a picture, region by region."""
        network, settings = self.network, self.network.regions
        (batch, count), classes = alive.shape, len(network.categories)
        picture = torch.arange(batch, device=regions.device).to(regions)[:, None].expand(batch, count)
        rois = torch.cat([picture.reshape(-1, 1), regions.reshape(-1, 4)], 1)
        pooled = network.pool_regions(raw.pyramid, rois)
        logits, deltas = network.roi_heads(pooled)
        references = rois[:, None, 1:].expand(-1, classes, 4).reshape(-1, 4)
        boxes = _clip(network.region_codec.decode(deltas[:, 1:].reshape(-1, 4), references), limits)
        boxes = boxes.view(batch, count, classes, 4)
        probs = logits.softmax(1)[:, 1:].view(batch, count, classes)
        counts = alive[..., None] & _large(boxes, settings.min_side) & (probs > self.min_score)
        probs = torch.where(counts, probs, DROPPED)
        # Each category has boxes of its own: for the suppression a picture's category is a picture.
        alone = boxes.transpose(1, 2).reshape(-1, count, 4), probs.transpose(1, 2).reshape(-1, 1, count)
        rows = suppress(*alone, settings.nms_iou, KEPT)
        place = (rows[:, 0] // classes * count + rows[:, 2]) * classes + rows[:, 0] % classes
        survivors = _keep_only(probs.reshape(batch, -1), place)
        best, index = _best(survivors, network.max_detections)
        of_picture, rank_in_picture = (best > KEPT).nonzero(as_tuple=True)
        chosen = index[of_picture, rank_in_picture]
        answers = boxes.view(batch, -1, 4)[of_picture, chosen]
        return answers, best[of_picture, rank_in_picture], chosen % classes, of_picture


def _keep_only(probs: Tensor, places: Tensor) -> Tensor:
    """`probs` `[B, P]` at the flat `places`, `DROPPED` elsewhere."""
    flattened = probs.flatten()
    return torch.full_like(flattened, DROPPED).scatter(0, places, flattened[places]).view_as(probs)


def _best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The `most` largest of each row and where they stand, or all in order if there are fewer."""
    length: Any = torch.sym_min(most, scores.shape[1])
    best = scores.topk(length, dim=1)
    return best.values, best.indices


def _clip(boxes_xyxy: Tensor, limits: Tensor) -> Tensor:
    """`limits`: width, height, width, height."""
    return torch.minimum(boxes_xyxy.clamp(min=0), limits)


def _large(boxes_xyxy: Tensor, min_side: float) -> Tensor:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2] >= min_side).all(-1)
