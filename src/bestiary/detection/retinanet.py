"""RetinaNet (Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017).

One stage: every place of a pyramid from P3 to P7 has nine anchors, one subnet says what is in each, another moves it,
and the focal loss keeps the hundred thousand easy ones from drowning the few that hold an object.

Sizes, thresholds, losses and state names of `retinanet_resnet50_fpn` and `..._v2` are torchvision's, so that its files
load as they are and give the same boxes. Where they leave the paper: P6 is made of P5 instead of C5, anchors are cut
to whole pixels, the box loss is L1, the losses of a step are the mean over its pictures, and 300 answers are kept
instead of 100. The forms `_paper` have the paper's numbers (those of Detectron where the paper has none). Of all forms:
anchors are centred on cells' corners, as in torchvision; an object that no anchor overlaps makes none positive, and a
box that lies mostly on a crowd is neither object nor background. The forms for small machines have group norm in the
subnets, without which they start slowly from random weights.

Torchvision's published layout has 91 outputs an anchor for 90 categories: the first is never an object's. It is kept
with exactly those 90 names, and never answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import VARIANTS, ResNet, freeze_stem
from bestiary.backbones.trunks import build_trunk, levels_from
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import NetworkScale, size_of
from bestiary.heads.padded_groups import by_padded_size
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import COCO_90
from bestiary.heads.region_learning import weights_with_background
from bestiary.heads.retina import PAPER_SIZES, WHOLE_SIZES, RetinaHead, by_anchor, deltas_at, likeliest
from bestiary.heads.retina_learning import DELTA_CODEC, ClassLoss, RetinaSettings, retina_losses
from bestiary.heads.truth import Truth, truths_of
from bestiary.layers.frozen_norm import FrozenBatchNorm2d
from bestiary.layers.preprocess import IMAGENET_MEAN, IMAGENET_STD, Normalize, pad_batch
from bestiary.necks.fpn import FPN, CoarserByConvolution, PyramidBackbone
from bestiary.predictions import Detections
from bestiary.records import Losses, Target
from bestiary.system import Images

SIZE_DIVISOR = 32
"""Sides of a batch are padded to multiples of the trunk's coarsest stride."""
PUBLISHED = RetinaSettings()
PAPER = RetinaSettings(box_loss="smooth_l1", max_detections=100)
IMPROVED = RetinaSettings(box_loss="giou")
SMALL_WIDTH = 128
"""Channels of the small forms' pyramid: the subnets' work goes with the square, and is most of a small network's."""

group_norm = partial(nn.GroupNorm, 32)
"""A `norm` part that is indifferent to how few pictures a step has, and to levels that share it."""


class RawLevels(NamedTuple):
    """What `forward` gives.

    Attributes:
        logits: of each level, `[B, A K, h, w]`, the outputs of an anchor side by side.
        deltas: of each level, `[B, 4 A, h, w]`, four numbers an anchor side by side.
    """

    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]


class RetinaNet(Detector):
    """The system.

    Args:
        backbone: pictures to a pyramid.
        categories: K names.
        head: both subnets and the anchors; as many sets of sizes as the backbone has levels, and for each anchor K
            outputs, or more: then the first are no categories. The paper's if None.
        scale: the size at which the network sees pictures.
        settings: which anchors learn what, and which boxes are answers.
        class_weights: K factors on the classification loss of each category's anchors; background counts 1.
        mean: per channel, on the 0..1 scale.
        std: likewise.

    Attributes:
        unused_outputs: how many of an anchor's outputs, the first, are no categories.
        parts: seconds that predictions spent on "network" and "decoding" since `parts.clear()`.

    Raises:
        UsageError: no category, or sizes or weights that cannot be.
    """

    head_names = ("head.classification_head.cls_logits",)
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: PyramidBackbone,
        categories: Sequence[str],
        *,
        head: RetinaHead | None = None,
        scale: NetworkScale | None = None,
        settings: RetinaSettings = PUBLISHED,
        class_weights: Sequence[float] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(categories, settings.max_detections)
        self.backbone = backbone
        self.head = head or RetinaHead(backbone.levels[0].channels, len(self.categories))
        self.unused_outputs = self.head.num_outputs - len(self.categories)
        self.normalize, self.scale, self.settings = Normalize(mean, std), scale or NetworkScale(800, 1333), settings
        weights = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", None if weights is None else weights[1:], persistent=False)
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

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> RawLevels:
        """Both subnets on all levels, of normalised pixels whose sides are multiples of 32."""
        return RawLevels(*self.head(self.backbone(pixels)))

    def anchors(self, raw: RawLevels, pixels_hw: tuple[int, int]) -> tuple[Float[Tensor, "_a 4"], ...]:
        """Of each level, for a batch whose padded size is `pixels_hw`."""
        return self.head.anchors([size_of(level) for level in raw.logits], pixels_hw, raw.logits[0].device)

    def outputs_by_anchor(self, raw: RawLevels) -> tuple[Float[Tensor, "B N K"], Float[Tensor, "B N 4"]]:
        """Logits of the categories and deltas of all anchors, level after level."""
        logits = torch.cat([by_anchor(level, self.head.num_anchors) for level in raw.logits], 1)
        deltas = torch.cat([by_anchor(level, self.head.num_anchors) for level in raw.deltas], 1)
        return logits[..., self.unused_outputs :], deltas

    def candidates(
        self, raw: RawLevels, pixels_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N K"]]:
        """All anchors moved, not clipped, and the probabilities of each; N follows from the sizes alone."""
        logits, deltas = self.outputs_by_anchor(raw)
        anchors = torch.cat(self.anchors(raw, pixels_hw)).expand(deltas.shape)
        boxes = DELTA_CODEC.decode(deltas.flatten(0, 1), anchors.flatten(0, 1))
        return boxes.view_as(deltas), logits.sigmoid()

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "classification" and "box_regression", the same in training and evaluation mode.

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        pixels = pad_batch([self.normalize(image) for image in images], SIZE_DIVISOR)
        return self.loss_of(self(pixels), size_of(pixels), [truth.to(pixels.device) for truth in truths])

    def loss_of(self, raw: RawLevels, pixels_hw: tuple[int, int], truths: Sequence[Truth]) -> Losses:
        """Both terms of what the network said of a batch of that padded size (`retina_losses`)."""
        anchors = torch.cat(self.anchors(raw, pixels_hw))
        outputs = self.outputs_by_anchor(raw)
        classification, box = retina_losses(*outputs, anchors, truths, self.settings, self.class_weights)
        return Losses({"classification": classification, "box_regression": box})

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes resized as `predict` resizes; of the truth only what `loss` reads."""
        return self.scale.bring(images, targets)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first.

        Pictures share a forward pass where their padded sizes agree, so no answer depends on the rest of the batch.
        """
        return self.detect_scaled(images, 1.0)

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """`detect_images` with the network's size times `scale`."""
        wanted = self.scale if scale == 1 else self.scale.times(scale)
        resized = [wanted.resize(self.normalize(image)) for image in images]
        found: dict[int, Detections] = {}
        for members in by_padded_size(resized, SIZE_DIVISOR):
            with self.parts.of("network", self):
                pixels = pad_batch([resized[i] for i in members], SIZE_DIVISOR)
                raw = self(pixels)
            with self.parts.of("decoding", self):
                answers = self.decode(raw, size_of(pixels), [size_of(resized[i]) for i in members])
                for i, (boxes, labels, scores) in zip(members, answers, strict=True):
                    size = size_of(images[i])
                    original = clip_boxes(scale_boxes(boxes, size_of(resized[i]), size), size)
                    found[i] = Detections(original, labels, scores, size_hw=size, categories=self.categories)
        return [found[i] for i in range(len(images))]

    @torch.no_grad()
    def decode(
        self, raw: RawLevels, pixels_hw: tuple[int, int], sizes_hw: Sequence[tuple[int, int]]
    ) -> list[tuple[Float[Tensor, "_d 4"], Int64[Tensor, " _d"], Float[Tensor, " _d"]]]:
        """Answers of each picture at network scale, clipped to it: boxes, labels, scores, best first.

        Of each level the `before_nms` likeliest pairs of anchor and category above `min_score` are decoded (section
        4.1), and those of one category suppressed across levels: the answers that the same rule picks from
        `candidates`.

        Args:
            raw: of the batch.
            pixels_hw: its padded size.
            sizes_hw: of each picture in it.
        """
        anchors = self.anchors(raw, pixels_hw)
        return [self._decode_one(raw, picture, anchors, size_hw) for picture, size_hw in enumerate(sizes_hw)]

    def _decode_one(
        self, raw: RawLevels, picture: int, anchors: Sequence[Tensor], size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        rule, num_anchors = self.settings, self.head.num_anchors
        boxes, labels, scores = [], [], []
        for logits, deltas, of_level in zip(raw.logits, raw.deltas, anchors, strict=True):
            chosen = likeliest(logits[picture], num_anchors, rule.min_score, rule.before_nms, self.unused_outputs)
            place, label, score = chosen
            boxes.append(DELTA_CODEC.decode(deltas_at(deltas[picture], place, num_anchors), of_level[place]))
            labels.append(label)
            scores.append(score)
        clipped, label = clip_boxes(torch.cat(boxes), size_hw), torch.cat(labels)
        keep, kept_scores = self.suppress(clipped, torch.cat(scores), label, rule.nms_iou)
        keep = keep[: self.max_detections]
        return clipped[keep], label[keep], kept_scores[: len(keep)]

    # -- weights -------------------------------------------------------------------------------------------------------

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier, its trunk."""
        if any(name.startswith("backbone.") for name in state):
            return state, ""
        own = self.state_dict()
        places = {f"backbone.body.{name}": value for name, value in state.items()}
        found = {name: value for name, value in places.items() if name in own}
        return (found, "starts from a classifier: its convolutions") if found else (state, "")


class _Form(NamedTuple):
    """What the named forms differ in beside their trunks."""

    settings: RetinaSettings
    sizes: tuple[tuple[float, ...], ...] = WHOLE_SIZES
    p6_from_c5: bool = False
    normed: bool = False
    width: int = 256


TORCHVISION = _Form(PUBLISHED)
TORCHVISION_V2 = _Form(IMPROVED, p6_from_c5=True, normed=True)
LIN = _Form(PAPER, PAPER_SIZES, p6_from_c5=True)
SMALL = _Form(replace(PUBLISHED, max_detections=100), normed=True, width=SMALL_WIDTH)


def _build(
    trunk: Trunk,
    categories: Sequence[str] | None,
    sizes: tuple[int, int],
    form: _Form,
    learning: tuple[ClassLoss, float | None, float, Sequence[float] | None],
) -> RetinaNet:
    class_loss, alpha, gamma, class_weights = learning
    names = COCO_90 if categories is None else tuple(categories)
    levels, width = levels_from(trunk, stride=8), form.width
    extra = CoarserByConvolution(levels[-1].channels if form.p6_from_c5 else width, width, form.p6_from_c5)
    outputs = len(names) + (names == COCO_90 and form.sizes == WHOLE_SIZES)
    return RetinaNet(
        PyramidBackbone(trunk, FPN(levels, width, extra=extra)),
        names,
        head=RetinaHead(width, outputs, form.sizes, norm=group_norm if form.normed else None),
        scale=NetworkScale(*sizes),
        settings=replace(form.settings, class_loss=class_loss, alpha=alpha, gamma=gamma),
        class_weights=class_weights,
    )


def _frozen(name: str, trainable_layers: int, norm_eps: float) -> ResNet:
    trunk = ResNet(VARIANTS[name], norm=partial(FrozenBatchNorm2d, eps=norm_eps))
    freeze_stem(trunk, trainable_layers)
    return trunk


def retinanet_resnet50_fpn(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 800,
    max_size: int = 1333,
    class_loss: ClassLoss = "focal",
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
    norm_eps: float = 1e-5,
) -> RetinaNet:
    """torchvision's published system: 34,014,999 parameters, of which it reports 36.4 AP on COCO.

    Args:
        categories: K names; None gives the published layout, COCO's 90 ids with "N/A" at the gaps (91 outputs inside).
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        class_loss: focal, of all anchors; cross_entropy, of all, plain; ohem, of the 128 hardest of a picture after
            suppression at IoU 0.5; ohem_1_3, of the positives and three times as many negatives after it.
        focal_alpha: weight of the positives, 1 - alpha of the negatives; none for 1 of both.
        focal_gamma: how fast easy examples lose their weight.
        class_weights: K factors on the classification loss of each category's anchors; none for 1.
        trainable_layers: how many of stem and four stages learn, from the last; 3 is usual with ImageNet's weights.
        norm_eps: of the frozen norms. The published COCO file was trained with 0.
    """
    trunk = _frozen("resnet50", trainable_layers, norm_eps)
    learning = class_loss, focal_alpha, focal_gamma, class_weights
    return _build(trunk, categories, (min_size, max_size), TORCHVISION, learning)


def retinanet_resnet50_fpn_v2(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 800,
    max_size: int = 1333,
    class_loss: ClassLoss = "focal",
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> RetinaNet:
    """torchvision's second: P6 from C5, group norm in the subnets, GIoU loss, trainable batch norm; 38,198,935
    parameters, of which it reports 41.5 AP on COCO. Arguments as `retinanet_resnet50_fpn`.
    """
    trunk = ResNet(VARIANTS["resnet50"])
    freeze_stem(trunk, trainable_layers)
    learning = class_loss, focal_alpha, focal_gamma, class_weights
    return _build(trunk, categories, (min_size, max_size), TORCHVISION_V2, learning)


def retinanet_resnet50_paper(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 800,
    max_size: int = 1333,
    class_loss: ClassLoss = "focal",
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
    norm_eps: float = 1e-5,
) -> RetinaNet:
    """The paper's: P6 from C5, anchors at exact thirds of an octave, smooth L1, 100 answers; frozen batch norm.

    Detectron reports 35.7 AP on COCO (1x). Arguments as `retinanet_resnet50_fpn`, whose first, unused output it lacks.
    """
    trunk = _frozen("resnet50", trainable_layers, norm_eps)
    return _build(trunk, categories, (min_size, max_size), LIN, (class_loss, focal_alpha, focal_gamma, class_weights))


def retinanet_resnet101_paper(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 800,
    max_size: int = 1333,
    class_loss: ClassLoss = "focal",
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
    norm_eps: float = 1e-5,
) -> RetinaNet:
    """The same on ResNet-101; Detectron reports 37.7 AP on COCO (1x). Arguments as `retinanet_resnet50_fpn`."""
    trunk = _frozen("resnet101", trainable_layers, norm_eps)
    return _build(trunk, categories, (min_size, max_size), LIN, (class_loss, focal_alpha, focal_gamma, class_weights))


def retinanet_resnet18_fpn(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 320,
    max_size: int = 533,
    class_loss: ClassLoss = "focal",
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> RetinaNet:
    """For small machines, from random weights: ResNet-18 with trainable batch norm, 128 channels, group norm in the
    subnets, 100 answers. Arguments as `retinanet_resnet50_fpn`.
    """
    trunk = ResNet(VARIANTS["resnet18"])
    freeze_stem(trunk, trainable_layers)
    return _build(trunk, categories, (min_size, max_size), SMALL, (class_loss, focal_alpha, focal_gamma, class_weights))


def retinanet_fpn(
    categories: Sequence[str] | None = None,
    *,
    backbone: str = "mobilenet_v3_large",
    min_size: int = 320,
    max_size: int = 533,
    class_loss: ClassLoss = "focal",
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
) -> RetinaNet:
    """As `retinanet_resnet18_fpn`, on C3 to C5 of the trunk that you name. Arguments as `retinanet_resnet50_fpn`.

    Args:
        backbone: a name of `bestiary.backbones.trunks`, such as vgg16_bn, darknet19, shufflenet_v2_x1_0. A classifier
            of that name can be the start (`--weights`).

    Raises:
        UsageError: no such trunk.
    """
    learning = class_loss, focal_alpha, focal_gamma, class_weights
    return _build(build_trunk(backbone), categories, (min_size, max_size), SMALL, learning)
