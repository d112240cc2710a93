"""R-FCN (Dai, Li, He, Sun: R-FCN: Object Detection via Region-based Fully Convolutional Networks, NIPS 2016).

Faster R-CNN without anything to compute or learn a region: the last convolution gives k x k score maps for each class,
one for each relative position (top left of a cat, ...), and k x k maps for each number that moves a box. A region
averages each of its k x k bins in that bin's own map, and the mean of the bins is its answer. All that costs is shared
by all regions, so that the loss of every one can be known and the hardest chosen (OHEM).

Faithful: conv5 dilated to stride 16, a 1x1 convolution of 1,024, k = 7, boxes of eight numbers (background and any
object, 392 maps), the proposal network on conv4 with 512 channels, NMS 0.7 from 6,000 to 300 proposals in training too,
of which the 128 with the largest loss learn, offsets divided by 0.1, 0.1, 0.2, 0.2, frozen batch norm, shorter side 600
up to 1,000, NMS 0.3. Deviations: the first block of conv5 is not dilated, nor does it stride on its 1x1, as torchvision
has both; corners of pooled regions are rounded on the map, as torchvision's operator does, in the authors' in the
picture; box sides are differences of coordinates; training is joint, which the authors' code prefers to the paper's
four steps. In the authors' code the proposal network reads conv5; here, as in the paper, conv4.

Background is a class inside only: index 0 of the scores. Labels given and returned start at 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import VARIANTS, ResNet, freeze_stem, frozen_norm
from bestiary.backbones.vgg import vgg11_bn_half
from bestiary.detection.faster_rcnn_single import PROPOSALS, SMALL_PROPOSALS, proposal_network
from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.heads.box import RegionSettings
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import NetworkScale, size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import VOC_20
from bestiary.heads.region_learning import (
    decode_regions,
    hardest_regions,
    label_regions,
    mean_of_regions,
    region_losses,
    sample_regions,
    weights_with_background,
)
from bestiary.heads.region_start import start_from_classifier
from bestiary.heads.rpn import RPN, ProposalSettings, flat, rank, suppress_proposals
from bestiary.heads.rpn_learning import ANCHOR_CODEC, rpn_losses
from bestiary.heads.truth import Truth, truths_of
from bestiary.layers.frozen_norm import NormLayer
from bestiary.layers.preprocess import Normalize, pad_batch
from bestiary.ops import ps_roi_pool
from bestiary.ops.rois import Boxes
from bestiary.predictions import Detections
from bestiary.records import Losses, Target
from bestiary.system import Images

BOX_NUMBERS = 8
"""Four for the background, which nobody reads, and four for any object: the authors' layout."""
PAPER_SCALE = NetworkScale(600, 1000)
PAPER_PROPOSALS = replace(PROPOSALS, before_nms=(6000, 6000), after_nms=(300, 300))
PAPER_REGIONS = RegionSettings(per_image=128, nms_iou=0.3)
SMALL = replace(SMALL_PROPOSALS, before_nms=(1500, 1500), after_nms=(300, 300))


class RawMaps(NamedTuple):
    """What `forward` gives, all at the stride of the backbone's last map.

    Attributes:
        objectness: logits, `[B, A, h, w]`.
        deltas: `[B, 4A, h, w]`, four numbers an anchor side by side.
        positions: `[B, (K + 1 + 8) k k, h, w]`: score maps class by class, then the box maps number by number; k k maps
            of each, one for each bin, row by row.
    """

    objectness: Tensor
    deltas: Tensor
    positions: Tensor


class PositionMaps(nn.Module):
    """A 1x1 convolution with ReLU, and two more: what every bin of a region reads.

    Args:
        in_channels: of the backbone's last map.
        num_categories: K.
        width: channels between.
        bins: k.
    """

    def __init__(self, in_channels: int, num_categories: int, width: int = 1024, bins: int = 7) -> None:
        super().__init__()
        self.conv_new_1 = nn.Conv2d(in_channels, width, 1)
        self.rfcn_cls = nn.Conv2d(width, (num_categories + 1) * bins * bins, 1)
        self.rfcn_bbox = nn.Conv2d(width, BOX_NUMBERS * bins * bins, 1)
        for layer in (self.rfcn_cls, self.rfcn_bbox):
            nn.init.normal_(layer.weight, std=0.01)
        # The authors' 0.01 suits 2,048 channels; He's start suits any number.
        nn.init.kaiming_normal_(self.conv_new_1.weight, nonlinearity="relu")
        for layer in (self.conv_new_1, self.rfcn_cls, self.rfcn_bbox):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P H W"]:
        """Score maps, then box maps."""
        hidden = F.relu(self.conv_new_1(features), inplace=True)
        return torch.cat([self.rfcn_cls(hidden), self.rfcn_bbox(hidden)], 1)


class RFCN(Detector):
    """The system.

    Args:
        backbone: pictures to maps; the last two, or the only one, have the same stride.
        categories: K names.
        rpn: the proposal network of one map: the last but one, or the only one.
        width: channels before the position-sensitive maps.
        bins: k.
        scale: the size at which the network sees pictures.
        proposals: settings of the first stage.
        regions: which regions learn what, and which boxes are answers.
        hard_per_image: of each picture so many regions learn, those with the largest loss; None draws
            `regions.per_image` at random.
        class_weights: K factors on the classification loss of each category's regions; the background's is 1.
        normalize: of the pixels.

    Attributes:
        parts: seconds that predictions spent on "features", "proposals" and "heads" since `parts.clear()`.

    Raises:
        UsageError: no category, maps of two strides, or weights or numbers that cannot be.
    """

    head_names = ("position_maps.rfcn_cls", "position_maps.rfcn_bbox")
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: Trunk,
        categories: Sequence[str],
        *,
        rpn: RPN,
        width: int = 1024,
        bins: int = 7,
        scale: NetworkScale = PAPER_SCALE,
        proposals: ProposalSettings = PAPER_PROPOSALS,
        regions: RegionSettings = PAPER_REGIONS,
        hard_per_image: int | None = 128,
        class_weights: Sequence[float] | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(categories, regions.max_detections)
        strides = [level.stride for level in backbone.levels[-2:]]
        if len(set(strides)) != 1:
            raise UsageError(f"got maps of strides {strides}, wanted one stride", where="RFCN(backbone)")
        if hard_per_image is not None and hard_per_image < 1:
            raise UsageError(f"got {hard_per_image}, wanted 1 or more, or none", where="hard_per_image")
        self.backbone, self.stride, self.rpn, self.bins = backbone, strides[0], rpn, bins
        self.position_maps = PositionMaps(backbone.levels[-1].channels, len(self.categories), width, bins)
        self.normalize = normalize or Normalize()
        self.scale, self.proposals, self.regions, self.hard_per_image = scale, proposals, regions, hard_per_image
        weights = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", weights, persistent=False)
        self.parts = PartTimes()

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> RawMaps:
        """All maps of normalised pixels."""
        maps = self.backbone(pixels)
        objectness, deltas = self.rpn(maps[-2:][:1])
        return RawMaps(objectness[0], deltas[0], self.position_maps(maps[-1]))

    def vote(
        self, positions: Float[Tensor, "B P H W"], boxes_xyxy: Boxes
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R 2 4"]]:
        """Logits (background first) and offsets (of background and any object) of each picture's regions: the means
        over their bins.
        """
        votes = ps_roi_pool(positions, boxes_xyxy, self.bins, 1 / self.stride).float().mean((2, 3))
        return votes[:, :-BOX_NUMBERS], votes[:, -BOX_NUMBERS:].unflatten(1, (2, 4))

    @torch.no_grad()
    def propose(
        self, raw: RawMaps, pixels_hw: tuple[int, int], sizes_hw: Sequence[tuple[int, int]], for_loss: bool = False
    ) -> list[Float[Tensor, "_r 4"]]:
        """Proposals of each picture, best first, without gradient.

        Args:
            raw: of the batch.
            pixels_hw: size of the padded batch.
            sizes_hw: size of each picture in it; boxes are clipped to that.
            for_loss: keep as many as training does.
        """
        settings, stage = self.proposals, 0 if for_loss else 1
        levels = [flat(raw.objectness, raw.deltas)]
        ranked = rank(levels, [self.anchors(raw, pixels_hw)], ANCHOR_CODEC, settings.before_nms[stage])
        return suppress_proposals(ranked, sizes_hw, settings, settings.after_nms[stage])[0]

    def anchors(self, raw: RawMaps, pixels_hw: tuple[int, int]) -> Float[Tensor, "A 4"]:
        """Of a batch of that padded size."""
        return self.rpn.anchors([size_of(raw.objectness)], pixels_hw, raw.objectness.device)[0]

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "rpn_objectness" and "rpn_box", divided by the anchors drawn, "box_class" and "box_regression", divided
        by the regions that learn.

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        pixels = pad_batch([self.normalize(image) for image in images], self.stride)
        truths = [truth.to(pixels.device) for truth in truths]
        pixels_hw, sizes_hw = size_of(pixels), [size_of(image) for image in images]
        raw = self(pixels)
        outputs, anchors = ((raw.objectness,), (raw.deltas,)), self.anchors(raw, pixels_hw)
        objectness, rpn_box = rpn_losses(outputs, anchors, truths, self.proposals, sizes_hw)
        proposals = self.propose(raw, pixels_hw, sizes_hw, for_loss=True)
        box_class, box_regression = self.region_loss(raw.positions, proposals, truths)
        return Losses(
            {
                "rpn_objectness": objectness,
                "rpn_box": rpn_box,
                "box_class": box_class,
                "box_regression": box_regression,
            }
        )

    def region_loss(
        self, positions: Float[Tensor, "B P H W"], proposals: Sequence[Float[Tensor, "_r 4"]], truths: Sequence[Truth]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Equation 2 of the regions that learn: the hardest, or some drawn at random."""
        draw = sample_regions if self.hard_per_image is None else label_regions
        sampled = [draw(boxes, truth, self.regions) for boxes, truth in zip(proposals, truths, strict=True)]
        logits, deltas = self.vote(positions, [s.boxes_xyxy for s in sampled])
        losses = region_losses(logits, deltas, sampled, class_weights=self.class_weights)
        if self.hard_per_image is None:
            return mean_of_regions(losses)
        counts = [len(s.boxes_xyxy) for s in sampled]
        return mean_of_regions(losses, hardest_regions(losses, counts, self.hard_per_image))

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes resized as `predict` resizes; of the truth only what `loss` reads."""
        return self.scale.bring(images, targets)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first; one picture after the other."""
        return [self._detect(image, self.scale) for image in images]

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """With the network's size so many times as large."""
        return [self._detect(image, self.scale.times(scale)) for image in images]

    def _detect(self, image: Shaped[Tensor, "C H W"], scale: NetworkScale) -> Detections:
        with self.parts.of("features", self):
            resized = scale.resize(self.normalize(image))
            pixels = pad_batch([resized], self.stride)
            raw = self(pixels)
        size, scaled = size_of(image), size_of(resized)
        with self.parts.of("proposals", self):
            proposals = self.propose(raw, size_of(pixels), [scaled])
        with self.parts.of("heads", self):
            logits, deltas = self.vote(raw.positions, proposals)
            answers = logits, deltas, proposals[0], scaled, self.regions
            boxes, labels, scores = decode_regions(
                *answers, suppression=self.suppression, max_detections=self.max_detections
            )
            original = clip_boxes(scale_boxes(boxes, scaled, size), size)
        return Detections(original, labels, scores, size_hw=size, categories=self.categories)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier, its convolutions."""
        return start_from_classifier(state, self.state_dict())


def _build(
    backbone: Trunk,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    anchor_sizes: Sequence[float],
    hard_per_image: int | None,
    class_weights: Sequence[float] | None,
    settings: ProposalSettings = PAPER_PROPOSALS,
    widths: tuple[int, int] = (512, 1024),
) -> RFCN:
    hidden, width = widths
    return RFCN(
        backbone,
        VOC_20 if categories is None else categories,
        rpn=proposal_network(backbone.levels[-2:][0].channels, hidden, anchor_sizes),
        width=width,
        scale=NetworkScale(*sizes),
        proposals=settings,
        hard_per_image=hard_per_image,
        class_weights=class_weights,
    )


def dilated_trunk(name: str, norm: NormLayer, trainable_layers: int) -> ResNet:
    """A ResNet whose conv5 keeps the stride of conv4."""
    trunk = ResNet(VARIANTS[name], norm=norm, dilate=(False, False, True))
    freeze_stem(trunk, trainable_layers)
    return trunk


def r_fcn_resnet101(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    hard_per_image: int | None = 128,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> RFCN:
    """The paper's system.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        anchor_sizes: sides of the square anchors, pixels at network scale; smaller ones for small objects.
        hard_per_image: of each picture the so many regions with the largest loss learn; none: 128 drawn at random.
        class_weights: K factors on the classification loss of each category's regions; none for 1.
        trainable_layers: how many of stem and four stages learn, from the last; the authors' 3 suit ImageNet's weights.
    """
    trunk = dilated_trunk("resnet101", frozen_norm, trainable_layers)
    return _build(trunk, categories, (min_size, max_size), anchor_sizes, hard_per_image, class_weights)


def r_fcn_resnet50(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    hard_per_image: int | None = 128,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> RFCN:
    """The same on ResNet-50. Arguments as `r_fcn_resnet101`."""
    trunk = dilated_trunk("resnet50", frozen_norm, trainable_layers)
    return _build(trunk, categories, (min_size, max_size), anchor_sizes, hard_per_image, class_weights)


def r_fcn_resnet18(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 320,
    max_size: int = 533,
    anchor_sizes: Sequence[float] = (32.0, 64.0, 128.0),
    hard_per_image: int | None = 128,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> RFCN:
    """On ResNet-18 with trainable batch norm, which learns from random weights. Arguments as `r_fcn_resnet101`."""
    trunk = dilated_trunk("resnet18", nn.BatchNorm2d, trainable_layers)
    further = hard_per_image, class_weights, SMALL, (256, 512)
    return _build(trunk, categories, (min_size, max_size), anchor_sizes, *further)


def r_fcn_small(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 320,
    max_size: int = 533,
    anchor_sizes: Sequence[float] = (32.0, 64.0, 128.0),
    hard_per_image: int | None = 128,
    class_weights: Sequence[float] | None = None,
) -> RFCN:
    """For small machines: half of VGG-11 with trainable batch norm, whose one map both stages read.

    Arguments as `r_fcn_resnet101`.
    """
    further = hard_per_image, class_weights, SMALL, (256, 512)
    return _build(vgg11_bn_half(), categories, (min_size, max_size), anchor_sizes, *further)
