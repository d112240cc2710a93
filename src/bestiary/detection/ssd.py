"""SSD (Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, ECCV 2016).

Each cell of several maps judges a few default boxes: which class, and where the box ought to lie. Faithful: the maps
of VGG-16 (`backbones/ssd_vgg.py`), 8,732 default boxes at 300 pixels and 24,564 at 512, each object's best box and all
of overlap 0.5 positive, three of the hardest background boxes for each, softmax and smooth L1 over the positives of the
batch, offsets divided by 0.1, 0.1, 0.2, 0.2; 400 boxes a category, NMS 0.45, 200 answers.

Two geometries. Caffe's (the authors'): sizes cut to whole pixels, boxes cut nowhere. torchvision's: sizes not rounded,
sides no longer than the picture. Deviations: pixels are RGB (the authors' networks see BGR: a matter of the first
convolution's order). On MobileNet the paper of that name says nothing of maps and boxes; these are the authors' of the
published models. The forms `_small` read a finer map, have batch norm and start from random weights.

Background is a class inside only: index 0 of the logits. Labels given and returned start at 0.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.backbones.extra_maps import ExpandedMobileNetV2, ExtraMaps
from bestiary.backbones.levels import Trunk
from bestiary.backbones.mobilenet_v1 import MobileNetV1
from bestiary.backbones.mobilenet_v2 import MobileNetV2
from bestiary.backbones.ssd_vgg import SSDVGG, STRIDES, freeze_blocks, start_from_vgg
from bestiary.backbones.vgg import vgg11_bn_half
from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.geometry.default_boxes import DefaultBoxes, DefaultMap, default_maps
from bestiary.heads.detection import Detector
from bestiary.heads.multibox import (
    MultiBoxHead,
    MultiBoxSettings,
    Predictor,
    RawBoxes,
    convolution,
    decode_boxes,
    flat_boxes,
    multibox_answers,
    multibox_losses,
    separable,
)
from bestiary.heads.network_scale import size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import COCO_80, COCO_90, VOC_20
from bestiary.heads.region_learning import weights_with_background
from bestiary.heads.square import Square
from bestiary.heads.truth import truths_of
from bestiary.layers.activation import ReLU6
from bestiary.layers.preprocess import (
    BYTE_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    VGG_FEATURES_MEAN,
    Normalize,
    pad_batch,
)
from bestiary.predictions import Detections
from bestiary.records import Losses, Target
from bestiary.system import Images

Published = Literal["voc", "coco"]
"""Data set that the authors chose the boxes' sizes for; COCO has smaller objects."""

PixelRange = Literal["bytes", "imagenet"]
"""bytes: 0..255 less a mean, as the published files and the authors' VGG want; imagenet: as torchvision's classifiers.
"""

RATIOS: Mapping[int, tuple[tuple[int, ...], ...]] = {
    300: ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    512: ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
}

SIZES: Mapping[tuple[int, Published], tuple[float, ...]] = {
    (300, "voc"): (30, 60, 111, 162, 213, 264, 315),
    (300, "coco"): (21, 45, 99, 153, 207, 261, 315),
    (512, "voc"): (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
    (512, "coco"): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}
"""Sizes of the default boxes, pixels."""

SMALL_WIDTHS = (256, 256, 128, 128)
"""Channels of the extra maps of the small forms, as many of the last as make six maps."""


class SSD(Detector):
    """The system.

    Args:
        backbone: pictures to maps.
        categories: K names.
        boxes: the default boxes of each of its maps.
        scale: the square that pictures are brought to.
        predictor: makes the layers that read a map.
        settings: who learns, and what is an answer.
        class_weights: K factors on the classification loss of each category's boxes; the background's is 1.
        normalize: of the pixels.

    Attributes:
        parts: seconds that predictions spent on "network" and "decoding" since `parts.clear()`.

    Raises:
        UsageError: no category, not as many maps as sets of boxes, or weights that cannot be.
    """

    head_names = ("head",)
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: Trunk,
        categories: Sequence[str],
        *,
        boxes: DefaultBoxes,
        scale: Square,
        predictor: Predictor = convolution,
        settings: MultiBoxSettings | None = None,
        class_weights: Sequence[float] | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        rules = settings or MultiBoxSettings()
        super().__init__(categories, rules.max_detections)
        if len(backbone.levels) != len(boxes.maps):
            got = f"got {len(backbone.levels)} maps and boxes for {len(boxes.maps)}"
            raise UsageError(f"{got}, wanted boxes for each map", where="SSD(boxes)")
        self.backbone, self.boxes, self.scale, self.settings = backbone, boxes, scale, rules
        channels = [level.channels for level in backbone.levels]
        self.head = MultiBoxHead(channels, boxes.counts, len(self.categories), predictor)
        self.normalize = normalize or Normalize()
        weights = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", weights, persistent=False)
        self.parts = PartTimes()

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> RawBoxes:
        """Logits and offsets of the default boxes of each map, for normalised pixels."""
        return self.head(self.backbone(pixels))

    def default_boxes(self, raw: RawBoxes) -> Float[Tensor, "N 4"]:
        """Of maps of that size, in pixels of the network's input."""
        return self.boxes.over([size_of(of_map) for of_map in raw.deltas], raw.deltas[0].device)

    def candidates(
        self, raw: RawBoxes, pixels_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N K"]]:
        """Where each default box has moved to, not clipped, and the probability of each category.

        Args:
            raw: of the batch.
            pixels_hw: its size; the boxes are in its pixels and do not depend on it otherwise.
        """
        probs = flat_boxes(raw.logits, len(self.categories) + 1).softmax(-1)[..., 1:]
        return decode_boxes(flat_boxes(raw.deltas, 4), self.default_boxes(raw)), probs

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "classification" and "box_regression", divided by the positive boxes of the batch.

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        pixels = self._canvas([self.normalize(image) for image in images])
        truths = [truth.to(pixels.device) for truth in truths]
        raw = self(pixels)
        logits, deltas = flat_boxes(raw.logits, len(self.categories) + 1), flat_boxes(raw.deltas, 4)
        given = truths, self.settings, self.class_weights
        classification, box = multibox_losses(logits, deltas, self.default_boxes(raw), *given)
        return Losses({"classification": classification, "box_regression": box})

    def _canvas(self, images: Sequence[Float[Tensor, "C _h _w"]]) -> Float[Tensor, "B C H W"]:
        """One batch, no smaller than the system's own square (smaller maps would end): zeros, the mean colour, on the
        right and at the bottom.
        """
        batch = pad_batch(images, 1)
        height, width = (max(0, self.scale.side - side) for side in size_of(batch))
        return F.pad(batch, (0, width, 0, height)) if height or width else batch

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes resized as `predict` resizes; of the truth only what `loss` reads."""
        return self.scale.bring(images, targets)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first; all pictures in one pass."""
        return self._detect(images, self.scale)

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """With a square so many times as large; a smaller one lies on a canvas of the usual size."""
        return self._detect(images, self.scale.times(scale))

    def _detect(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: Square) -> list[Detections]:
        with self.parts.of("network", self):
            pixels = self._canvas([scale.resize(self.normalize(image)) for image in images])
            raw = self(pixels)
        with self.parts.of("decoding", self):
            boxes, probs = self.candidates(raw, size_of(pixels))
            answers = [self.decode(*pair, scale) for pair in zip(boxes, probs, strict=True)]
            found = []
            for image, (moved, labels, scores) in zip(images, answers, strict=True):
                size, square = size_of(image), (scale.side, scale.side)
                original = clip_boxes(scale_boxes(moved, square, size), size)
                found.append(Detections(original, labels, scores, size_hw=size, categories=self.categories))
        return found

    def decode(
        self, boxes_xyxy: Float[Tensor, "N 4"], probs: Float[Tensor, "N K"], scale: Square | None = None
    ) -> tuple[Float[Tensor, "M 4"], Shaped[Tensor, " M"], Float[Tensor, " M"]]:
        """One picture's candidates to boxes in the square's pixels, labels and scores, best first.

        Args:
            boxes_xyxy: of `candidates`.
            probs: likewise.
            scale: the square that the picture was brought to; the system's own if None.
        """
        square = scale or self.scale
        rules = self.settings, self.suppression, self.max_detections
        return multibox_answers(boxes_xyxy, probs, (square.side, square.side), *rules)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier, its convolutions; of VGG-16 fc6 and fc7 too."""
        if isinstance(self.backbone, SSDVGG):
            return start_from_vgg(state)
        own = self.state_dict()
        taken = {f"backbone.body.{name}": v for name, v in state.items() if f"backbone.body.{name}" in own}
        return (taken, "starts from a classifier: its convolutions") if taken else (state, "")


def _on_vgg(
    side: Literal[300, 512],
    categories: Sequence[str],
    boxes: DefaultBoxes,
    frozen_blocks: int,
    class_weights: Sequence[float] | None,
    pixels: PixelRange,
) -> SSD:
    if not 0 <= frozen_blocks <= 4:
        raise UsageError(f"got {frozen_blocks}, wanted 0 to 4", where="frozen_blocks")
    trunk = SSDVGG(side)
    freeze_blocks(trunk, frozen_blocks)
    mean, std = (VGG_FEATURES_MEAN, BYTE_STD) if pixels == "bytes" else (IMAGENET_MEAN, IMAGENET_STD)
    normalize = Normalize(mean, std)
    return SSD(
        trunk,
        categories,
        boxes=boxes,
        scale=Square(side, antialias=False),
        class_weights=class_weights,
        normalize=normalize,
    )


def _caffe_boxes(side: Literal[300, 512], sizes: Published) -> DefaultBoxes:
    return DefaultBoxes(default_maps(SIZES[side, sizes], RATIOS[side], STRIDES[side]), whole_pixels=True)


def ssd300_vgg16(
    categories: Sequence[str] | None = None,
    *,
    class_weights: Sequence[float] | None = None,
    frozen_blocks: int = 0,
    pixels: PixelRange = "bytes",
) -> SSD:
    """SSD300 in torchvision's layout and geometry: 35,641,826 parameters with COCO's categories.

    Args:
        categories: K names; None gives COCO's, as published.
        class_weights: K factors on the classification loss of each category's boxes; none for 1.
        frozen_blocks: so many of VGG's first four blocks stay as they are.
        pixels: bytes, of the published file and of `vgg16.imagenet1k_features`; imagenet, to start from any other
            VGG-16.
    """
    maps = default_maps(SIZES[300, "coco"], RATIOS[300], STRIDES[300])
    names = COCO_90 if categories is None else categories
    return _on_vgg(300, names, DefaultBoxes(maps, longest=300), frozen_blocks, class_weights, pixels)


def ssd300_vgg16_caffe(
    categories: Sequence[str] | None = None,
    *,
    sizes: Published = "voc",
    class_weights: Sequence[float] | None = None,
    frozen_blocks: int = 0,
    pixels: PixelRange = "bytes",
) -> SSD:
    """The paper's SSD300, the authors' geometry: 26,285,486 parameters with VOC's 20 categories.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        sizes: of the default boxes, as the authors chose them for VOC or for COCO, whose objects are smaller.
        class_weights: K factors on the classification loss of each category's boxes; none for 1.
        frozen_blocks: so many of VGG's first four blocks stay as they are.
        pixels: bytes, to start from `vgg16.imagenet1k_features`; imagenet, to start from any other VGG-16.
    """
    names = VOC_20 if categories is None else categories
    return _on_vgg(300, names, _caffe_boxes(300, sizes), frozen_blocks, class_weights, pixels)


def ssd512_vgg16(
    categories: Sequence[str] | None = None,
    *,
    sizes: Published = "voc",
    class_weights: Sequence[float] | None = None,
    frozen_blocks: int = 0,
    pixels: PixelRange = "bytes",
) -> SSD:
    """The paper's SSD512, the authors' geometry: 27,188,676 parameters with VOC's 20 categories. (torchvision's layers
    for large pictures are others.)

    Arguments as `ssd300_vgg16_caffe`.
    """
    names = VOC_20 if categories is None else categories
    return _on_vgg(512, names, _caffe_boxes(512, sizes), frozen_blocks, class_weights, pixels)


def _on_mobilenet(
    trunk: ExtraMaps, categories: Sequence[str] | None, side: int, class_weights: Sequence[float] | None, thin: bool
) -> SSD:
    """Boxes of the authors' published models: six sizes from 0.2 to 0.95 of the side, three boxes a cell of the finest
    map and six of the others, one cell as far from the next as the map has cells.
    """
    sizes = [side * (0.2 + 0.15 * place) for place in range(6)]
    cells = [-(-side // level.stride) for level in trunk.levels]
    maps = default_maps((*sizes, side), ((2, 3),) * 6, [side / count for count in cells])
    boxes = DefaultBoxes((DefaultMap(sizes[0], None, (2,), maps[0].step), *maps[1:]))
    return SSD(
        trunk,
        COCO_80 if categories is None else categories,
        boxes=boxes,
        scale=Square(side, antialias=False),
        predictor=separable if thin else convolution,
        class_weights=class_weights,
    )


def ssd300_mobilenet(
    categories: Sequence[str] | None = None, *, side: int = 300, class_weights: Sequence[float] | None = None
) -> SSD:
    """SSD on MobileNet (Howard et al., 2017, section 4.6): maps of 19, 10, 5, 3, 2 and 1 cells, 1,917 boxes.

    Args:
        categories: K names; None gives COCO's 80.
        side: of the square that pictures are brought to; the default boxes grow with it.
        class_weights: K factors on the classification loss of each category's boxes; none for 1.
    """
    return _on_mobilenet(ExtraMaps(MobileNetV1(), ("C4", "C5")), categories, side, class_weights, thin=False)


def ssdlite320_mobilenet_v2(
    categories: Sequence[str] | None = None, *, side: int = 320, class_weights: Sequence[float] | None = None
) -> SSD:
    """SSDLite (Sandler et al., CVPR 2018, section 6.2): all layers behind MobileNetV2 are depthwise separable; the
    finest map is the expansion of its thirteenth bottleneck but three, of 576 channels.

    Arguments as `ssd300_mobilenet`.
    """
    trunk = ExtraMaps(ExpandedMobileNetV2(MobileNetV2()), ("C4", "C5"), thin=True, activation=ReLU6)
    return _on_mobilenet(trunk, categories, side, class_weights, thin=True)


def _small(trunk: Trunk, categories: Sequence[str] | None, side: int, class_weights: Sequence[float] | None) -> SSD:
    """From stride 8 on, boxes of the sizes that the authors chose for COCO, as shares of the side."""
    read = [level.name for level in trunk.levels if level.stride >= 8]
    extended = ExtraMaps(trunk, read, SMALL_WIDTHS[len(read) - 2 :])
    sizes = [size * side / 300 for size in SIZES[300, "coco"]]
    # Behind the trunk a map may have one cell more than fits at its stride: all cells share the side.
    steps = [n.stride if n.name in read else side / -(-side // n.stride) for n in extended.levels]
    maps = default_maps(sizes, RATIOS[300], steps)
    return SSD(
        extended,
        VOC_20 if categories is None else categories,
        boxes=DefaultBoxes(maps),
        scale=Square(side),
        class_weights=class_weights,
    )


def ssd300_small(
    categories: Sequence[str] | None = None, *, side: int = 300, class_weights: Sequence[float] | None = None
) -> SSD:
    """For small machines: half of VGG-11 with trainable batch norm, which learns from random weights.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        side: of the square that pictures are brought to; the default boxes grow with it.
        class_weights: K factors on the classification loss of each category's boxes; none for 1.
    """
    return _small(vgg11_bn_half(maps=("C3", "C4")), categories, side, class_weights)


def ssd300_mobilenet_small(
    categories: Sequence[str] | None = None, *, side: int = 300, class_weights: Sequence[float] | None = None
) -> SSD:
    """As `ssd300_small` on a MobileNet of half the width. Arguments as `ssd300_small`."""
    return _small(MobileNetV1(0.5), categories, side, class_weights)
