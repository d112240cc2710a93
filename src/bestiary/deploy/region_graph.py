"""A two-stage detector as one graph: the arithmetic of its prediction on tensors of fixed length a picture."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.assign.box_codec import BoxCodec
from bestiary.deploy.box_graph import (
    DROPPED,
    KEPT,
    BoxGraph,
    best_of,
    between_sizes,
    cells_at,
    clip_to,
    keep_only,
    large,
    limits_of,
    picked,
)
from bestiary.deploy.onnx_operators import suppress
from bestiary.detection.faster_rcnn import SIZE_DIVISOR, FasterRCNN, RawRegions
from bestiary.detection.r_fcn import RFCN, RawMaps
from bestiary.geometry.anchors import cell_anchors
from bestiary.heads.region_learning import REGION_CODEC
from bestiary.heads.rpn import flat, rank
from bestiary.heads.rpn_learning import ANCHOR_CODEC

Raw = RawRegions | RawMaps


class RegionGraph(BoxGraph):
    """Faster R-CNN on a pyramid or one map; `PositionGraph` reads R-FCN's maps."""

    divisor = SIZE_DIVISOR
    anchor_codec: BoxCodec = ANCHOR_CODEC
    region_codec: BoxCodec = REGION_CODEC

    def __init__(self, system: FasterRCNN | RFCN) -> None:
        super().__init__(system, system.regions.min_score)
        self.network = system
        self.anchor_levels = len(system.rpn.sizes)
        for level, sides in enumerate(system.rpn.sizes):
            self.register_buffer(f"cell_anchors_{level}", cell_anchors(sides, system.rpn.ratios))
        self.preparation, self.sizes_hw = between_sizes(system.scale)

    def first_stage(self, raw: Raw) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Objectness and deltas of each level."""
        if not isinstance(raw, RawRegions):
            raise TypeError(type(raw).__name__)
        return raw.objectness, raw.deltas

    def second_stage(
        self, raw: Raw, rois: Float[Tensor, "R 5"]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R _k 4"]]:
        """Logits, background first, and deltas: one set for each class, or two, of the background and any object."""
        if not isinstance(raw, RawRegions) or not isinstance(self.network, FasterRCNN):
            raise TypeError(type(raw).__name__)
        return self.network.roi_heads(self.network.pool_regions(raw.pyramid, rois))

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "N 4"], Float[Tensor, " N"], Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Boxes, scores, labels, and the picture each belongs to."""
        height, width = images.shape[-2:]
        padded = [(side + self.divisor - 1) // self.divisor * self.divisor for side in (height, width)]
        pixels = F.pad(self.network.normalize(images), [0, padded[1] - width, 0, padded[0] - height])
        raw = self.network(pixels)
        limits = limits_of(images)
        boxes, probs, levels = self._rank_anchors(raw, padded[0], padded[1], limits)
        regions, alive = self._propose(boxes, probs, levels)
        return self._decide(raw, regions, alive, limits)

    def _rank_anchors(self, raw: Raw, height: int, width: int, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clipped boxes `[B, P, 4]`, probabilities `[B, P]` and levels `[P]` of the likeliest anchors."""
        settings = self.network.proposals
        objectness, deltas = self.first_stage(raw)
        cells = [getattr(self, f"cell_anchors_{i}") for i in range(self.anchor_levels)]
        anchors = [cells_at(c, o, height, width) for c, o in zip(cells, objectness, strict=True)]
        flattened = [flat(o, d) for o, d in zip(objectness, deltas, strict=True)]
        boxes, logits, levels = rank(flattened, anchors, self.anchor_codec, settings.before_nms[1])
        boxes = clip_to(boxes, limits)
        probs = logits.sigmoid()
        fits = large(boxes, settings.min_side) & (probs >= settings.min_score)
        return boxes, torch.where(fits, probs, DROPPED), levels

    def _propose(self, boxes: Tensor, probs: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """R regions a picture, `[B, R, 4]`, and which of them are any."""
        settings = self.network.proposals
        count = probs.shape[1]
        groups = torch.arange(self.anchor_levels, device=levels.device)
        by_level = torch.where(levels == groups[:, None], probs[:, None], DROPPED)
        rows = suppress(boxes, by_level, float(settings.nms_iou), KEPT)
        survivors = keep_only(probs, rows[:, 0] * count + rows[:, 2])
        best, index = best_of(survivors, settings.after_nms[1])
        return boxes.gather(1, index[..., None].expand(-1, -1, 4)), best > KEPT

    def _decide(
        self, raw: Raw, regions: Tensor, alive: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Second stage on all regions of the batch; `R K` candidates a picture, region by region."""
        settings = self.network.regions
        (batch, count), classes = alive.shape, len(self.network.categories)
        picture = torch.arange(batch, device=regions.device).to(regions)[:, None].expand(batch, count)
        rois = torch.cat([picture.reshape(-1, 1), regions.reshape(-1, 4)], 1)
        logits, deltas = self.second_stage(raw, rois)
        references = rois[:, None, 1:].expand(-1, classes, 4).reshape(-1, 4)
        offsets = deltas[:, 1:].expand(-1, classes, 4).reshape(-1, 4)
        boxes = clip_to(self.region_codec.decode(offsets, references), limits)
        boxes = boxes.view(batch, count, classes, 4)
        probs = logits.softmax(1)[:, 1:].view(batch, count, classes)
        counts = alive[..., None] & large(boxes, settings.min_side) & (probs > self.min_score)
        probs = torch.where(counts, probs, DROPPED)
        # Each category has boxes of its own: for the suppression a picture's category is a picture.
        alone = boxes.transpose(1, 2).reshape(-1, count, 4), probs.transpose(1, 2).reshape(-1, 1, count)
        rows = suppress(*alone, self.overlap(settings.nms_iou), KEPT)
        place = (rows[:, 0] // classes * count + rows[:, 2]) * classes + rows[:, 0] % classes
        survivors = keep_only(probs.reshape(batch, -1), place)
        scores, chosen, of_picture = picked(survivors, self.max_detections)
        return boxes.view(batch, -1, 4)[of_picture, chosen], scores, chosen % classes, of_picture


class PositionGraph(RegionGraph):
    """R-FCN: both stages are maps of one network, and a region's answer is the mean of its bins."""

    def __init__(self, system: RFCN) -> None:
        super().__init__(system)
        self.divisor = system.stride

    def first_stage(self, raw: Raw) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Of the one map."""
        if not isinstance(raw, RawMaps):
            raise TypeError(type(raw).__name__)
        return (raw.objectness,), (raw.deltas,)

    def second_stage(
        self, raw: Raw, rois: Float[Tensor, "R 5"]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R _k 4"]]:
        """The votes."""
        if not isinstance(raw, RawMaps) or not isinstance(self.network, RFCN):
            raise TypeError(type(raw).__name__)
        return self.network.vote(raw.positions, rois)
