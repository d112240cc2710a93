"""Faster R-CNN (Ren, He, Girshick, Sun, NIPS 2015) on a feature pyramid (Lin et al., CVPR 2017), trained jointly.

A region proposal network says where something is; a box head on the pooled regions says what, and moves the box.
Sizes, thresholds, losses and state names are those of torchvision's `fasterrcnn_resnet50_fpn`, so its files load as
they are and give the same boxes. Deviations from the 2015 paper, all of them torchvision's and Detectron's: a pyramid
with one anchor size a level; joint instead of four-step training; a sigmoid for objectness; losses divided by the
number of sampled anchors or regions instead of the paper's lambda 10; anchors that cross the border learn, too;
RoIAlign instead of RoI pooling. Ours: a box that lies mostly on a crowd is neither object nor background.

Background is a class inside only: index 0 of the predictor. Labels given and returned start at 0.
Sampling draws from torch's default generator, which `torch.manual_seed` sets and the training loop saves.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.assign.box_codec import BoxCodec
from bestiary.assign.matcher import Assignment, ThresholdMatcher
from bestiary.assign.sampler import sample_balanced
from bestiary.backbones.resnet import VARIANTS, ResNet, freeze_stem
from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes, large_enough, scale_boxes
from bestiary.heads.box import BoxHead, BoxPredictor, RegionSettings, RoIHeads
from bestiary.heads.published import COCO_90
from bestiary.heads.rpn import RPN, ProposalSettings, flat, rank
from bestiary.heads.truth import Truth, assign, truths_of
from bestiary.layers.frozen_norm import FrozenBatchNorm2d, NormLayer
from bestiary.layers.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalize,
    pad_batch,
    resize_bilinear,
    short_side_scale,
)
from bestiary.layers.scaling import as_float
from bestiary.losses.regression import smooth_l1_loss
from bestiary.necks.fpn import FPN, CoarserByPool, PyramidBackbone
from bestiary.ops import batched_nms, multiscale_roi_align
from bestiary.predictions import Detections, Prediction
from bestiary.records import Losses, Objects, Target
from bestiary.system import Images, System

PUBLISHED = (ProposalSettings(), RegionSettings())
SMALL = (ProposalSettings(after_nms=(1000, 300)), RegionSettings(per_image=256))
"""Half the regions in training, the 2015 paper's 300 in prediction: the box head is most of a small network's work."""


class RawRegions(NamedTuple):
    """What `forward` gives.

    Attributes:
        pyramid: P2 .. P6.
        objectness: logits of each level, `[B, A, h, w]`.
        deltas: of each level, `[B, 4A, h, w]`, four numbers an anchor side by side.
    """

    pyramid: tuple[Tensor, ...]
    objectness: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]


class SampledRegions(NamedTuple):
    """Regions of one picture that the box head learns from.

    Attributes:
        boxes_xyxy: R regions, positives first.
        classes: 0 for background, label + 1 for an object.
        truth_xyxy: the object of each positive; P rows.
    """

    boxes_xyxy: Tensor
    classes: Tensor
    truth_xyxy: Tensor


SMOOTH_BETA = 1 / 9
"""Where smooth L1 turns from parabola to line: sigma 3 of the authors' code."""
SIZE_DIVISOR = 32
"""Sides of a batch are padded to multiples of the coarsest backbone stride."""


class FasterRCNN(System):
    """The system.

    Args:
        backbone: pictures to a pyramid; the box head reads all levels but those that `extra` appended.
        categories: K names.
        rpn: head and anchors of the first stage, as many sizes as the pyramid has levels.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        proposals: settings of the first stage.
        regions: settings of the second.
        mean: per channel, on the 0..1 scale.
        std: likewise.

    Raises:
        UsageError: no category, or sizes that cannot be.
    """

    task = "detection"

    def __init__(
        self,
        backbone: PyramidBackbone,
        categories: Sequence[str],
        *,
        rpn: RPN | None = None,
        min_size: int = 800,
        max_size: int = 1333,
        proposals: ProposalSettings = PUBLISHED[0],
        regions: RegionSettings = PUBLISHED[1],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(categories)
        if not self.categories:
            raise UsageError("got no category, wanted at least one", where="categories")
        if not 1 <= min_size <= max_size:
            raise UsageError(f"got min_size={min_size}, max_size={max_size}, wanted 1 <= min_size <= max_size")
        channels = backbone.levels[0].channels
        head = BoxHead(channels, regions.bins)
        self.backbone = backbone
        self.rpn = rpn or RPN(channels)
        self.roi_heads = RoIHeads(head, BoxPredictor(head.fc7.out_features, len(self.categories)))
        self.normalize = Normalize(mean, std)
        self.min_size, self.max_size, self.proposals, self.regions = min_size, max_size, proposals, regions
        self.anchor_codec = BoxCodec((1.0, 1.0, 1.0, 1.0))
        self.region_codec = BoxCodec((10.0, 10.0, 5.0, 5.0))
        self.strides = [float(v.stride) for v in backbone.levels if v.stride <= SIZE_DIVISOR]

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> RawRegions:
        """First stage on normalised pixels whose sides are multiples of 32."""
        pyramid = self.backbone(pixels)
        objectness, deltas = self.rpn(pyramid)
        return RawRegions(pyramid, objectness, deltas)

    def classify_regions(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]], boxes_xyxy: Sequence[Float[Tensor, "_r 4"]]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Second stage: logits (background first) and deltas of each picture's regions, one after the other."""
        maps, strides = pyramid[: len(self.strides)], self.strides
        pooled = multiscale_roi_align(maps, strides, boxes_xyxy, self.regions.bins, sampling_ratio=2, aligned=False)
        logits, deltas = self.roi_heads(pooled)
        return logits.float(), deltas.float()

    def rank_anchors(
        self, raw: RawRegions, pixels_hw: tuple[int, int], keep: int
    ) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P"], Int64[Tensor, " P"]]:
        """The `keep` likeliest boxes of each level, neither clipped nor suppressed: boxes, logits, levels."""
        levels = [flat(o, d) for o, d in zip(raw.objectness, raw.deltas, strict=True)]
        return rank(levels, self.anchors(raw, pixels_hw), self.anchor_codec, keep)

    def anchors(self, raw: RawRegions, pixels_hw: tuple[int, int]) -> tuple[Float[Tensor, "_a 4"], ...]:
        """Anchors of each level for a batch whose padded size is `pixels_hw`."""
        maps_hw = [(o.shape[-2], o.shape[-1]) for o in raw.objectness]
        return self.rpn.anchors(maps_hw, pixels_hw, raw.objectness[0].device)

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
        boxes, logits, levels = self.rank_anchors(raw, pixels_hw, settings.before_nms[stage])
        kept_boxes, kept_probs = [], []
        for of_picture, probs, size_hw in zip(boxes, logits.sigmoid(), sizes_hw, strict=True):
            clipped = clip_boxes(of_picture, size_hw)
            large = large_enough(clipped, settings.min_side)
            clipped, probs, origin = clipped[large], probs[large], levels[large]
            keep = batched_nms(clipped, probs, origin, settings.nms_iou)[: settings.after_nms[stage]]
            kept_boxes.append(clipped[keep])
            kept_probs.append(probs[keep])
        return kept_boxes, kept_probs

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Both stages' classification and regression; the same in training and evaluation mode.

        Terms: "rpn_objectness" and "rpn_box" divided by the anchors sampled in the batch, "box_class" and
        "box_regression" by the regions sampled (torchvision: loss_objectness, loss_rpn_box_reg, loss_classifier,
        loss_box_reg).

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        pixels = pad_batch([self.normalize(image) for image in images], SIZE_DIVISOR)
        truths = [truth.to(pixels.device) for truth in truths]
        pixels_hw = (pixels.shape[-2], pixels.shape[-1])
        raw = self(pixels)
        rpn_objectness, rpn_box = self.rpn_loss(raw, pixels_hw, truths)
        proposals, _ = self.propose(raw, pixels_hw, [_size_hw(i) for i in images], for_loss=True)
        sampled = [self.sample_regions(b, t) for b, t in zip(proposals, truths, strict=True)]
        logits, deltas = self.classify_regions(raw.pyramid, [s.boxes_xyxy for s in sampled])
        box_class, box_regression = self.roi_loss(logits, deltas, sampled)
        return Losses(
            {
                "rpn_objectness": rpn_objectness,
                "rpn_box": rpn_box,
                "box_class": box_class,
                "box_regression": box_regression,
            }
        )

    def assign_anchors(self, anchors_xyxy: Float[Tensor, "A 4"], truth: Truth) -> Assignment:
        """Which object each anchor learns: positive, negative or ignored (section 3.1.2)."""
        settings = self.proposals
        return assign(anchors_xyxy, truth, ThresholdMatcher(settings.positive_iou, settings.negative_iou, True))

    def rpn_loss(
        self, raw: RawRegions, pixels_hw: tuple[int, int], truths: Sequence[Truth]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Equation 1 on the sampled anchors: log loss, and smooth L1 of the positives, both over the number of all."""
        anchors = torch.cat(self.anchors(raw, pixels_hw))
        levels = [flat(o, d) for o, d in zip(raw.objectness, raw.deltas, strict=True)]
        logits, deltas = torch.cat([v[0] for v in levels], 1), torch.cat([v[1] for v in levels], 1)
        rows, answers, moved, wanted = [], [], [], []
        for picture, truth in enumerate(truths):
            assignment = self.assign_anchors(anchors, truth)
            positive, negative = sample_balanced(assignment, self.proposals.per_image, self.proposals.positive_share)
            rows.append(torch.cat([positive, negative]) + picture * len(anchors))
            answers.append(torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]))
            moved.append(positive + picture * len(anchors))
            wanted.append(self.anchor_codec.encode(truth.boxes_xyxy[assignment.object[positive]], anchors[positive]))
        sampled, answer = torch.cat(rows), torch.cat(answers).to(logits.device)
        divisor = max(1, len(sampled))
        log_loss = F.binary_cross_entropy_with_logits(logits.flatten()[sampled], answer, reduction="sum")
        box = smooth_l1_loss(deltas.flatten(0, 1)[torch.cat(moved)], torch.cat(wanted), SMOOTH_BETA).sum()
        return log_loss / divisor, box / divisor

    @torch.no_grad()
    def sample_regions(self, proposals_xyxy: Float[Tensor, "P 4"], truth: Truth) -> SampledRegions:
        """Regions of one picture for the box head; the objects themselves are among the candidates."""
        candidates = torch.cat([proposals_xyxy, truth.boxes_xyxy])
        matcher = ThresholdMatcher(self.regions.positive_iou, self.regions.positive_iou)
        assignment = assign(candidates, truth, matcher)
        positive, negative = sample_balanced(assignment, self.regions.per_image, self.regions.positive_share)
        objects = assignment.object[positive]
        classes = torch.cat([truth.labels[objects] + 1, torch.zeros_like(negative)])
        return SampledRegions(candidates[torch.cat([positive, negative])], classes, truth.boxes_xyxy[objects])

    def roi_loss(
        self, logits: Float[Tensor, "R K1"], deltas: Float[Tensor, "R K1 4"], sampled: Sequence[SampledRegions]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Fast R-CNN's: cross entropy, and smooth L1 of the true class's deltas, both over the number of regions."""
        classes = torch.cat([s.classes for s in sampled])
        divisor = max(1, len(classes))
        positive = (classes > 0).nonzero()[:, 0]
        truth = torch.cat([s.truth_xyxy for s in sampled])
        regions = torch.cat([s.boxes_xyxy for s in sampled])[positive]
        wanted = self.region_codec.encode(truth, regions)
        box = smooth_l1_loss(deltas[positive, classes[positive]], wanted, SMOOTH_BETA).sum()
        return F.cross_entropy(logits, classes, reduction="sum") / divisor, box / divisor

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes resized as `predict` resizes; of the truth only what `loss` reads."""
        resized = [self.resize(as_float(image)) for image in images]
        scaled = []
        for before, after, target in zip(images, resized, targets, strict=True):
            o = target.objects
            if o is not None:
                boxes = scale_boxes(o.boxes_xyxy, _size_hw(before), _size_hw(after))
                o = Objects(boxes, o.labels, crowd=o.crowd, difficult=o.difficult)
            scaled.append(Target(label=target.label, objects=o))
        return resized, scaled

    def resize(self, image: Float[Tensor, "C H W"]) -> Float[Tensor, "C H2 W2"]:
        """Shorter side to `min_size`, unless the longer would exceed `max_size`; at least one pixel is left."""
        size_hw = _size_hw(image)
        scale = max(short_side_scale(size_hw, self.min_size, self.max_size), 1 / min(size_hw))
        return resize_bilinear(image, scale)

    def predict_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Prediction]:
        """Boxes of each picture in its own pixels, clipped, best first.

        Pictures share a forward pass where their padded sizes agree, so no answer depends on the rest of the batch.
        """
        resized = [self.resize(self.normalize(image)) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(resized):
            padded = tuple(-(-side // SIZE_DIVISOR) for side in _size_hw(image))
            groups.setdefault((padded[0], padded[1]), []).append(i)
        found: dict[int, Prediction] = {}
        for members in groups.values():
            batch = [resized[i] for i in members]
            for i, (boxes, labels, scores) in zip(members, self._detect(batch), strict=True):
                size = _size_hw(images[i])
                original = clip_boxes(scale_boxes(boxes, _size_hw(resized[i]), size), size)
                found[i] = Detections(original, labels, scores, size_hw=size, categories=self.categories)
        return [found[i] for i in range(len(images))]

    def _detect(self, images: Sequence[Float[Tensor, "C _h _w"]]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Boxes, labels and scores at network scale of pictures that were resized and normalised."""
        pixels, sizes_hw = pad_batch(images, SIZE_DIVISOR), [_size_hw(i) for i in images]
        raw = self(pixels)
        proposals, _ = self.propose(raw, (pixels.shape[-2], pixels.shape[-1]), sizes_hw)
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
        """One picture's regions to its answers at network scale: boxes, labels from 0, scores, best first.

        A region may answer with several categories, each with its own box; each is suppressed within its category.
        """
        settings = self.regions
        probs = logits.softmax(1)[:, 1:]
        region, label = (probs > settings.min_score).nonzero(as_tuple=True)
        scores = probs[region, label]
        boxes = clip_boxes(self.region_codec.decode(deltas[region, label + 1], regions_xyxy[region]), size_hw)
        large = large_enough(boxes, settings.min_side)
        boxes, label, scores = boxes[large], label[large], scores[large]
        keep = batched_nms(boxes, scores, label, settings.nms_iou)[: settings.max_detections]
        return boxes[keep], label[keep], scores[keep]


def _size_hw(image: Tensor) -> tuple[int, int]:
    return int(image.shape[-2]), int(image.shape[-1])


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
