"""Faster R-CNN (Ren, He, Girshick, Sun, NIPS 2015), trained jointly, and its form on a feature pyramid (Lin et al.,
CVPR 2017).

A region proposal network says where something is; a box head on the pooled regions says what, and moves the box.
The forms of 2015 on one map are built in `faster_rcnn_single`, four-step training stands in `faster_rcnn_alternating`.

Sizes, thresholds, losses and state names of the pyramid's forms are those of torchvision's `fasterrcnn_resnet50_fpn`,
so its files load as they are and give the same boxes. Their deviations from the 2015 paper, all of them torchvision's
and Detectron's: a pyramid with one anchor size a level; joint instead of four-step training; one logit of objectness;
losses divided by the number of sampled anchors or regions instead of the paper's lambda 10; anchors that cross the
border learn, too; RoIAlign instead of RoI pooling. Ours: a box that lies mostly on a crowd is neither object nor
background.

Background is a class inside only: index 0 of the predictor. Labels given and returned start at 0.
Sampling draws from torch's default generator, which `torch.manual_seed` sets and the training loop saves.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from bestiary.assign.matcher import Assignment
from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import VARIANTS, ResNet, freeze_stem
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.heads.box import BoxHead, BoxPredictor, RegionSettings, RoIHeads, StageHead
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import NetworkScale, size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import COCO_90
from bestiary.heads.region_learning import (
    REGION_CODEC,
    SampledRegions,
    decode_regions,
    mean_of_regions,
    region_losses,
    sample_regions,
    weights_with_background,
)
from bestiary.heads.region_start import HEAD, start_from_classifier
from bestiary.heads.rpn import RPN, ProposalSettings, flat, rank, suppress_proposals
from bestiary.heads.rpn_learning import ANCHOR_CODEC, SMOOTH_BETA, assign_anchors, rpn_losses_where_sampled
from bestiary.heads.truth import Truth, truths_of
from bestiary.layers.frozen_norm import FrozenBatchNorm2d, NormLayer
from bestiary.layers.preprocess import IMAGENET_MEAN, IMAGENET_STD, Normalize, pad_batch
from bestiary.necks.fpn import FPN, CoarserByPool, PyramidBackbone
from bestiary.ops import multiscale_roi_align
from bestiary.ops.region_modules import RoIAlign, RoIPool
from bestiary.predictions import Detections
from bestiary.records import Losses, Target
from bestiary.system import Images

PUBLISHED = (ProposalSettings(), RegionSettings())
SMALL = (ProposalSettings(after_nms=(1000, 300)), RegionSettings(per_image=256))
"""Half the regions in training, the 2015 paper's 300 in prediction: the box head is most of a small network's work."""


class RawRegions(NamedTuple):
    """What `forward` gives.

    Attributes:
        pyramid: P2 .. P6, or the one map.
        objectness: logits of each level, `[B, A, h, w]`.
        deltas: of each level, `[B, 4A, h, w]`, four numbers an anchor side by side.
    """

    pyramid: tuple[Tensor, ...]
    objectness: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]


SIZE_DIVISOR = 32
"""Sides of a batch are padded to multiples of the coarsest backbone stride."""


class FasterRCNN(Detector):
    """The system.

    Args:
        backbone: pictures to a pyramid, or to one map; the box head reads all levels but those that `extra` appended.
        categories: K names.
        rpn: head and anchors of the first stage, as many sets of sizes as the backbone has levels.
        box_head: pooled regions to vectors; `BoxHead` of 1,024 units if None.
        pooling: of regions on the one map; None for RoIAlign on a pyramid.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        proposals: settings of the first stage.
        regions: settings of the second.
        class_weights: factors on the classification loss of each category's regions; background counts 1.
        mean: per channel, on the 0..1 scale.
        std: likewise.

    Attributes:
        scale: the size at which pictures are seen.
        parts: seconds that "features", "proposals" and "heads" took in predictions.

    Raises:
        UsageError: no category, or sizes or weights that cannot be.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        backbone: PyramidBackbone | Trunk,
        categories: Sequence[str],
        *,
        rpn: RPN | None = None,
        box_head: BoxHead | StageHead | None = None,
        pooling: RoIPool | RoIAlign | None = None,
        min_size: int = 800,
        max_size: int = 1333,
        proposals: ProposalSettings = PUBLISHED[0],
        regions: RegionSettings = PUBLISHED[1],
        class_weights: Sequence[float] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(categories, regions.max_detections)
        channels = backbone.levels[0].channels
        head = box_head or BoxHead(channels, regions.bins)
        self.backbone = backbone
        self.rpn = rpn or RPN(channels)
        self.roi_heads = RoIHeads(head, BoxPredictor(head.out_features, len(self.categories)))
        self.normalize, self.pooling = Normalize(mean, std), pooling
        self.scale, self.proposals, self.regions = NetworkScale(min_size, max_size), proposals, regions
        self.anchor_codec, self.region_codec = ANCHOR_CODEC, REGION_CODEC
        self.strides = [float(v.stride) for v in backbone.levels if v.stride <= SIZE_DIVISOR]
        weights = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", weights, persistent=False)
        self.parts = PartTimes()

    @property
    def min_size(self) -> int:
        """Of `scale`."""
        return self.scale.min_size

    @property
    def max_size(self) -> int:
        """Of `scale`."""
        return self.scale.max_size

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> RawRegions:
        """First stage on normalised pixels whose sides are multiples of 32."""
        return self.first_stage(pixels, tuple(self.backbone(pixels)))

    def first_stage(
        self, pixels: Float[Tensor, "B C H W"], pyramid: tuple[Float[Tensor, "B C2 _h _w"], ...]
    ) -> RawRegions:
        """The backbone's maps, and what the proposal network says."""
        objectness, deltas = self.rpn(self.proposal_maps(pixels, pyramid))
        return RawRegions(pyramid, objectness, deltas)

    def proposal_maps(
        self, pixels: Float[Tensor, "B C H W"], pyramid: tuple[Float[Tensor, "B C2 _h _w"], ...]
    ) -> tuple[Float[Tensor, "B C2 _h _w"], ...]:
        """What the proposal network looks at: the maps that it shares with the detector."""
        return pyramid

    def pool_regions(
        self,
        pyramid: Sequence[Float[Tensor, "B C _h _w"]],
        boxes: Sequence[Float[Tensor, "_r 4"]] | Float[Tensor, "R 5"],
    ) -> Float[Tensor, "R C S S"]:
        """The bins of each region, by the pooling that the system has. Boxes: of each picture, or rows of picture and
        box.
        """
        if self.pooling is not None:
            return self.pooling(pyramid[0], boxes)
        maps, bins = pyramid[: len(self.strides)], self.regions.bins
        return multiscale_roi_align(maps, self.strides, boxes, bins, sampling_ratio=2, aligned=False)

    def classify_regions(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]], boxes_xyxy: Sequence[Float[Tensor, "_r 4"]]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Second stage: logits (background first) and deltas of each picture's regions, one after the other."""
        logits, deltas = self.roi_heads(self.pool_regions(pyramid, boxes_xyxy))
        return logits.float(), deltas.float()

    def rank_anchors(
        self, raw: RawRegions, pixels_hw: tuple[int, int], keep: int
    ) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P"], Int64[Tensor, " P"]]:
        """The `keep` likeliest boxes of each level, neither clipped nor suppressed: boxes, logits, levels."""
        levels = [flat(o, d) for o, d in zip(raw.objectness, raw.deltas, strict=True)]
        return rank(levels, self.anchors(raw.objectness, pixels_hw), self.anchor_codec, keep)

    def anchors(
        self, maps: Sequence[Float[Tensor, "B _c _h _w"]], pixels_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "_a 4"], ...]:
        """Anchors of each level for a batch whose padded size is `pixels_hw`."""
        return self.rpn.anchors([size_of(level) for level in maps], pixels_hw, maps[0].device)

    @torch.no_grad()
    def propose(
        self, raw: RawRegions, pixels_hw: tuple[int, int], sizes_hw: Sequence[tuple[int, int]], for_loss: bool = False
    ) -> tuple[list[Float[Tensor, "_r 4"]], list[Float[Tensor, " _r"]]]:
        """Proposals of each picture and their objectness probabilities, best first, without gradient.

        Args:
            raw: first stage.
            pixels_hw: size of the padded batch.
            sizes_hw: size of each picture in it; boxes are clipped to that.
            for_loss: keep as many as training does.
        """
        settings, stage = self.proposals, 0 if for_loss else 1
        ranked = self.rank_anchors(raw, pixels_hw, settings.before_nms[stage])
        return suppress_proposals(ranked, sizes_hw, settings, settings.after_nms[stage])

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Both stages' classification and regression; the same in training and evaluation mode.

        Terms: "rpn_objectness" and "rpn_box" divided by the anchors sampled in the batch, "box_class" and
        "box_regression" by the regions sampled (torchvision: loss_objectness, loss_rpn_box_reg, loss_classifier,
        loss_box_reg).

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        pixels, truths, sizes_hw = self.batch_of(images, targets)
        pyramid = tuple(self.backbone(pixels))
        maps = self.proposal_maps(pixels, pyramid)
        first = self.rpn_terms(maps, size_of(pixels), truths, sizes_hw)
        with torch.no_grad():  # gradients come by way of the sampled anchors
            raw = RawRegions(pyramid, *self.rpn(maps))
        return Losses({**first, **self.region_terms(raw, size_of(pixels), truths, sizes_hw)})

    def batch_of(
        self, images: Images, targets: Sequence[Target]
    ) -> tuple[Float[Tensor, "B C H2 W2"], list[Truth], list[tuple[int, int]]]:
        """Normalised, padded pixels; what is to be learned; and the size of each picture within the batch."""
        truths = truths_of(targets, len(images), len(self.categories))
        pixels = pad_batch([self.normalize(image) for image in images], SIZE_DIVISOR)
        return pixels, [truth.to(pixels.device) for truth in truths], [size_of(image) for image in images]

    def rpn_terms(
        self,
        maps: Sequence[Float[Tensor, "B C _h _w"]],
        pixels_hw: tuple[int, int],
        truths: Sequence[Truth],
        sizes_hw: Sequence[tuple[int, int]],
    ) -> dict[str, Float[Tensor, ""]]:
        """The first stage's two terms."""
        objectness, box = self.rpn_loss(maps, pixels_hw, truths, sizes_hw)
        return {"rpn_objectness": objectness, "rpn_box": box}

    def region_terms(
        self,
        raw: RawRegions,
        pixels_hw: tuple[int, int],
        truths: Sequence[Truth],
        sizes_hw: Sequence[tuple[int, int]],
    ) -> dict[str, Float[Tensor, ""]]:
        """The second stage's two terms, on regions drawn from what the first proposes."""
        proposals, _ = self.propose(raw, pixels_hw, sizes_hw, for_loss=True)
        sampled = [self.sample_regions(b, t) for b, t in zip(proposals, truths, strict=True)]
        logits, deltas = self.classify_regions(raw.pyramid, [s.boxes_xyxy for s in sampled])
        box_class, box_regression = self.roi_loss(logits, deltas, sampled)
        return {"box_class": box_class, "box_regression": box_regression}

    def assign_anchors(self, anchors_xyxy: Float[Tensor, "A 4"], truth: Truth) -> Assignment:
        """Which object each anchor learns: positive, negative or ignored (section 3.1.2)."""
        return assign_anchors(anchors_xyxy, truth, self.proposals)

    def rpn_loss(
        self,
        maps: Sequence[Float[Tensor, "B C _h _w"]],
        pixels_hw: tuple[int, int],
        truths: Sequence[Truth],
        sizes_hw: Sequence[tuple[int, int]] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Equation 1 on the sampled anchors: log loss, and smooth L1 of the positives, both over the number of all."""
        anchors = torch.cat(self.anchors(maps, pixels_hw))
        return rpn_losses_where_sampled(self.rpn, maps, anchors, truths, self.proposals, sizes_hw)

    def sample_regions(self, proposals_xyxy: Float[Tensor, "P 4"], truth: Truth) -> SampledRegions:
        """Regions of one picture for the box head; the objects themselves are among the candidates."""
        return sample_regions(proposals_xyxy, truth, self.regions)

    def roi_loss(
        self, logits: Float[Tensor, "R K1"], deltas: Float[Tensor, "R K1 4"], sampled: Sequence[SampledRegions]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Fast R-CNN's: cross entropy, and smooth L1 of the true class's deltas, both over the number of regions."""
        losses = region_losses(logits, deltas, sampled, self.region_codec, SMOOTH_BETA, self.class_weights)
        return mean_of_regions(losses)

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes resized as `predict` resizes; of the truth only what `loss` reads."""
        return self.scale.bring(images, targets)

    def resize(self, image: Float[Tensor, "C H W"]) -> Float[Tensor, "C H2 W2"]:
        """Shorter side to `min_size`, unless the longer would exceed `max_size`; at least one pixel is left."""
        return self.scale.resize(image)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first.

        Pictures share a forward pass where their padded sizes agree, so no answer depends on the rest of the batch.
        """
        return self.detect_scaled(images, 1.0)

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """`detect_images` with `min_size` and `max_size` times `scale`."""
        wanted = self.scale if scale == 1 else self.scale.times(scale)
        resized = [wanted.resize(self.normalize(image)) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(resized):
            padded = tuple(-(-side // SIZE_DIVISOR) for side in size_of(image))
            groups.setdefault((padded[0], padded[1]), []).append(i)
        found: dict[int, Detections] = {}
        for members in groups.values():
            batch = [resized[i] for i in members]
            for i, (boxes, labels, scores) in zip(members, self._detect(batch), strict=True):
                size = size_of(images[i])
                original = clip_boxes(scale_boxes(boxes, size_of(resized[i]), size), size)
                found[i] = Detections(original, labels, scores, size_hw=size, categories=self.categories)
        return [found[i] for i in range(len(images))]

    def _detect(self, images: Sequence[Float[Tensor, "C _h _w"]]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes, labels and scores at network scale of pictures that were resized and normalised."""
        pixels, sizes_hw = pad_batch(images, SIZE_DIVISOR), [size_of(i) for i in images]
        with self.parts.of("features", self):
            pyramid = tuple(self.backbone(pixels))
        with self.parts.of("proposals", self):
            raw = self.first_stage(pixels, pyramid)
            proposals, _ = self.propose(raw, size_of(pixels), sizes_hw)
        with self.parts.of("heads", self):
            counts = [len(p) for p in proposals]
            logits, deltas = self.classify_regions(raw.pyramid, proposals)
            parts = zip(logits.split(counts), deltas.split(counts), proposals, sizes_hw, strict=True)
            return [self.decode_regions(*part) for part in parts]

    def decode_regions(
        self,
        logits: Float[Tensor, "R K1"],
        deltas: Float[Tensor, "R K1 4"],
        regions_xyxy: Float[Tensor, "R 4"],
        size_hw: tuple[int, int],
    ) -> tuple[Float[Tensor, "D 4"], Int64[Tensor, " D"], Float[Tensor, " D"]]:
        """One picture's regions to its answers at network scale: boxes, labels from 0, scores, best first."""
        rule = self.region_codec, self.suppression, self.max_detections
        return decode_regions(logits, deltas, regions_xyxy, size_hw, self.regions, *rule)

    # -- weights -------------------------------------------------------------------------------------------------------

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier, its trunk, and the layers that the box head has, by the names that they have here; of the
        same system trained in four steps, all but the second trunk.
        """
        own = self.state_dict()
        if any(name.startswith("backbone.") for name in state):
            shared = {name: value for name, value in state.items() if not name.startswith("rpn_backbone.")}
            if len(shared) == len(state) or "step" in own:
                return state, ""
            shared.pop("step", None)
            return shared, "starts from the same system trained in four steps"
        taken, note = start_from_classifier(state, own)
        places = {f"backbone.body.{name}": value for name, value in state.items()}
        places |= {f"{HEAD}.{name}": value for name, value in state.items() if name.startswith("layer4.")}
        found = {name: value for name, value in places.items() if name in own}
        if not found:
            return taken, note
        return {**(taken if note else {}), **found}, note or "starts from a classifier: its convolutions"


def _build(
    name: str,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    norm: NormLayer,
    trainable_layers: int,
    settings: tuple[ProposalSettings, RegionSettings] = PUBLISHED,
) -> FasterRCNN:
    trunk = ResNet(VARIANTS[name], norm=norm)
    freeze_stem(trunk, trainable_layers)
    backbone = PyramidBackbone(trunk, FPN(trunk.levels, extra=CoarserByPool()))
    names = COCO_90 if categories is None else categories
    (min_size, max_size), (proposals, regions) = sizes, settings
    return FasterRCNN(backbone, names, min_size=min_size, max_size=max_size, proposals=proposals, regions=regions)


def fasterrcnn_resnet50_fpn(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 800,
    max_size: int = 1333,
    trainable_layers: int = 5,
    norm_eps: float = 1e-5,
) -> FasterRCNN:
    """The published system: 41,755,286 parameters, torchvision reports 37.0 AP on COCO.

    Args:
        categories: K names; None gives the published layout, COCO's 90 ids with "N/A" at the gaps (91 outputs inside).
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        trainable_layers: how many of stem and four stages learn, from the last; 3 is usual with ImageNet's weights.
        norm_eps: of the frozen norms. The published COCO file was trained with 0.
    """
    norm = partial(FrozenBatchNorm2d, eps=norm_eps)
    return _build("resnet50", categories, (min_size, max_size), norm, trainable_layers)


def fasterrcnn_resnet101_fpn(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 800,
    max_size: int = 1333,
    trainable_layers: int = 5,
    norm_eps: float = 1e-5,
) -> FasterRCNN:
    """The same on ResNet-101, with frozen norms. Arguments as `fasterrcnn_resnet50_fpn`."""
    norm = partial(FrozenBatchNorm2d, eps=norm_eps)
    return _build("resnet101", categories, (min_size, max_size), norm, trainable_layers)


def fasterrcnn_resnet18_fpn(
    categories: Sequence[str] | None = None, *, min_size: int = 800, max_size: int = 1333, trainable_layers: int = 5
) -> FasterRCNN:
    """For small machines: ResNet-18 with trainable batch norm, which learns from random weights, and `SMALL` settings.

    Arguments as `fasterrcnn_resnet50_fpn`.
    """
    return _build("resnet18", categories, (min_size, max_size), nn.BatchNorm2d, trainable_layers, SMALL)


def fasterrcnn_resnet34_fpn(
    categories: Sequence[str] | None = None, *, min_size: int = 800, max_size: int = 1333, trainable_layers: int = 5
) -> FasterRCNN:
    """As `fasterrcnn_resnet18_fpn` on ResNet-34. Arguments as `fasterrcnn_resnet50_fpn`."""
    return _build("resnet34", categories, (min_size, max_size), nn.BatchNorm2d, trainable_layers, SMALL)
