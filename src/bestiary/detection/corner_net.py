"""CornerNet (Law, Deng: CornerNet: Detecting Objects as Paired Keypoints, ECCV 2018).

An object is two corners. Two hourglasses give a map at stride 4; of each category there is a heatmap of top-left and
one of bottom-right corners, of each cell a tag and an offset. A corner's cell often shows nothing of its object: corner
pooling brings there what lies below and beside. Two corners of one category with nearly equal tags make a box. There
are no anchors and no matching.

Faithful: 511 pixels to 128 cells, corner pooling, the focal loss with bumps around corners (IoU 0.3), pull and push
with 0.1 each, smooth L1 on offsets, the same losses after each hourglass; pictures are seen at their own size, black
around them up to the next size that can be halved, together with their mirror image; peaks of 3x3, 100 corners of each
kind, tags within 0.5, 1,000 pairs a view, soft-NMS with a Gaussian, 100 boxes. Deviations: the radius of a bump is the
exact solution, for which the authors' code takes other roots of the same equations and IoU 0.7; pull and push are means
over the pictures, where that code adds up the four or five of a GPU; boxes are continuous; pairs without area and cells
that are no peaks make no boxes; cells within crowds are no background.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.hourglass import StackedHourglass
from bestiary.errors import CheckpointError
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.heads.corner_learning import CornerWeights, corner_losses, corner_targets
from bestiary.heads.corners import CornerHead, CornerMaps, PairSettings, best_corners, pair_corners
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import NetworkScale, size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import COCO_80
from bestiary.heads.region_learning import weights_with_background
from bestiary.heads.suppression import Suppression
from bestiary.heads.truth import Truth, truths_of
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import as_float
from bestiary.predictions import Detections
from bestiary.records import Losses, Target
from bestiary.system import Images

MEAN, STD = (0.47026115, 0.44719302, 0.40789654), (0.27809835, 0.27408164, 0.28863828)
"""Of COCO's pictures, red, green, blue; the network reads them in reverse."""

SOFT = Suppression("soft_gaussian", 0.5, 0.5)

AUTHORS: tuple[tuple[str, str], ...] = (
    (r"^pre\.", "backbone.stem."),
    (r"^kps\.", "backbone.hourglasses."),
    (r"^cnvs\.", "backbone.outs."),
    (r"^inters_\.", "backbone.taken."),
    (r"^cnvs_\.", "backbone.given."),
    (r"^inters\.", "backbone.joined."),
    (r"\.skip\.", ".downsample."),
    (r"^(tl|br)_cnvs\.(\d+)\.", r"\1.\2.pool."),
    (r"^(tl|br)_heats\.(\d+)\.", r"\1.\2.heat."),
    (r"^(tl|br)_tags\.(\d+)\.", r"\1.\2.tag."),
    (r"^(tl|br)_regrs\.(\d+)\.", r"\1.\2.offset."),
    (r"\.pool\.p1_conv1\.", ".pool.vertical."),
    (r"\.pool\.p2_conv1\.", ".pool.horizontal."),
    (r"\.pool\.p_conv1\.", ".pool.sum_conv."),
    (r"\.pool\.p_bn1\.", ".pool.sum_bn."),
    (r"\.pool\.conv1\.", ".pool.skip_conv."),
    (r"\.pool\.bn1\.", ".pool.skip_bn."),
    (r"\.pool\.conv2\.", ".pool.out."),
    (r"^tl\.", "top_left."),
    (r"^br\.", "bottom_right."),
)
"""Names in the authors' files, one rule after the other."""


class RawCorners(NamedTuple):
    """What one hourglass says of both corners."""

    top_left: CornerMaps
    bottom_right: CornerMaps


class CornerNet(Detector):
    """The system.

    Args:
        backbone: hourglasses.
        categories: K names.
        hidden: channels between the two convolutions of each prediction.
        pooled: channels that corner pooling scans.
        scale: the size at which the network sees pictures; None for the one they have.
        pairs: which corners make boxes.
        weights: of the terms of the loss.
        class_weights: K factors on the corners' loss of each category.
        max_detections: answers a picture, the best.
        normalize: of the pixels.

    Attributes:
        test_flip: each picture is also seen as its mirror image, and the boxes of both are suppressed together; on,
            unless `take` is told otherwise.
        parts: seconds that predictions spent on "network" and "decoding" since `parts.clear()`.

    Raises:
        UsageError: no category, or weights or numbers that cannot be.
    """

    suppression = SOFT
    test_flip: bool = True
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: StackedHourglass,
        categories: Sequence[str],
        *,
        hidden: int = 256,
        pooled: int = 128,
        scale: NetworkScale | None = None,
        pairs: PairSettings | None = None,
        weights: CornerWeights | None = None,
        class_weights: Sequence[float] | None = None,
        max_detections: int = 100,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(categories, max_detections)
        self.backbone, self.scale = backbone, scale
        self.in_channels = backbone.in_channels
        counts = hidden, pooled, len(self.categories)
        self.top_left, self.bottom_right = (
            nn.ModuleList(CornerHead(level.channels, *counts, corner) for level in backbone.levels)
            for corner in ("top_left", "bottom_right")
        )
        names = [f"{part}.{n}.heat.1" for part in ("top_left", "bottom_right") for n in range(len(backbone.levels))]
        self.head_names = tuple(names)
        self.pairs, self.weights = pairs or PairSettings(), weights or CornerWeights()
        self.normalize = normalize or Normalize(MEAN, STD, "bgr")
        known = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", None if known is None else known[1:], persistent=False)
        self.parts = PartTimes()

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> RawCorners:
        """Maps of the last hourglass."""
        return self._corners(self.backbone(pixels)[-1], -1)

    def supervised(self, pixels: Float[Tensor, "B C H W"]) -> list[RawCorners]:
        """Maps of every hourglass: each of them is taught."""
        return [self._corners(maps, stack) for stack, maps in enumerate(self.backbone(pixels))]

    def _corners(self, maps: Float[Tensor, "B C H W"], stack: int) -> RawCorners:
        return RawCorners(self.top_left[stack](maps), self.bottom_right[stack](maps))

    def padded_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """The next size whose sides are one less than a multiple: 511 for 384 to 511 pixels."""
        height, width = (side | (self.backbone.multiple - 1) for side in size_hw)
        return height, width

    def prepare(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]]
    ) -> tuple[Float[Tensor, "B C H W"], list[tuple[int, int]]]:
        """Normalised input of one size, each picture in the middle of black, and where its corner lies: x, y."""
        sizes = [self.padded_size(size_of(image)) for image in images]
        height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
        rows, corners = [], []
        for image in images:
            here = size_of(image)
            left, top = width // 2 - here[1] // 2, height // 2 - here[0] // 2
            margins = left, width - here[1] - left, top, height - here[0] - top
            rows.append(F.pad(as_float(image), margins))
            corners.append((left, top))
        return self.normalize(torch.stack(rows)), corners

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "corners", "pull", "push" and "offsets", means over the hourglasses.

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        pixels, corners = self.prepare(list(images))
        placed = [_moved(truth.to(pixels.device), corner) for truth, corner in zip(truths, corners, strict=True)]
        stacks = self.supervised(pixels)
        map_hw, pixels_hw = size_of(stacks[0].top_left.heat), size_of(pixels)
        wanted = [corner_targets(truth, map_hw, pixels_hw, len(self.categories)) for truth in placed]
        each = [corner_losses(raw, wanted, self.weights, self.class_weights) for raw in stacks]
        return Losses({name: torch.stack([terms[name] for terms in each]).mean() for name in each[0]})

    # -- prediction ----------------------------------------------------------------------------------------------------

    def decode(
        self, raw: RawCorners, pixels_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N"], Int64[Tensor, "B N"]]:
        """Boxes in pixels of the input, scores and labels of the best pairs of corners, best first; the scores of those
        that make no box are negative.
        """
        first, second = (best_corners(maps, self.pairs.corners) for maps in raw)
        boxes, scores, labels = pair_corners(first, second, self.pairs)
        return scale_boxes(boxes, size_of(raw.top_left.heat), pixels_hw), scores, labels

    def candidates(
        self, raw: RawCorners, pixels_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N K"]]:
        """`decode` with a score for each category, 0 for all but one: what an exported graph suppresses."""
        boxes, scores, labels = self.decode(raw, pixels_hw)
        mine = labels[..., None] == torch.arange(len(self.categories), device=labels.device)
        return boxes, mine * scores.clamp(min=0)[..., None]

    def take(self, arguments: Mapping[str, Any]) -> None:
        """As every detector; `test_flip` is the system's own, so that both views' boxes are suppressed together."""
        self.test_flip = bool(arguments.get("test_flip", self.test_flip))
        super().take({**arguments, "test_flip": False})

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Shaped[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes resized as `predict` resizes them, if it does; black is put around them by `loss`."""
        return (images, targets) if self.scale is None else self.scale.bring(images, targets)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first; pictures that are padded to one size go through
        the network together.
        """
        return self._detect_all(images, self.scale)

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """With the network's size so many times as large."""
        if self.scale is None:
            return super().detect_scaled(images, scale)
        return self._detect_all(images, self.scale.times(scale))

    def _detect_all(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: NetworkScale | None) -> list[Detections]:
        resized = [as_float(image) if scale is None else scale.resize(as_float(image)) for image in images]
        groups: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(resized):
            groups.setdefault(self.padded_size(size_of(image)), []).append(place)
        found: dict[int, Detections] = {}
        for places in groups.values():
            answers = self._detect([resized[i] for i in places], [size_of(images[i]) for i in places])
            found.update(zip(places, answers, strict=True))
        return [found[place] for place in range(len(images))]

    def _detect(
        self, images: Sequence[Float[Tensor, "C _h _w"]], sizes_hw: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Of pictures at network scale that are padded to one size, in pixels of the sizes they had before."""
        with self.parts.of("network", self):
            pixels, corners = self.prepare(images)
            raw = self(torch.cat([pixels, pixels.flip(-1)]) if self.test_flip else pixels)
        with self.parts.of("decoding", self):
            boxes, scores, labels = self.decode(raw, size_of(pixels))
            if self.test_flip:
                boxes = _both_ways(boxes, pixels.shape[-1])
                scores, labels = (torch.cat(tuple(v.chunk(2)), 1) for v in (scores, labels))
            answers = []
            for row, (image, size_hw) in enumerate(zip(images, sizes_hw, strict=True)):
                inside = boxes[row] - boxes.new_tensor(corners[row] * 2)
                original = clip_boxes(scale_boxes(inside, size_of(image), size_hw), size_hw)
                answers.append(self._answer(original, scores[row], labels[row], size_hw))
            return answers

    def _answer(
        self,
        boxes_xyxy: Float[Tensor, "N 4"],
        scores: Float[Tensor, " N"],
        labels: Int64[Tensor, " N"],
        size_hw: tuple[int, int],
    ) -> Detections:
        """Suppressed; what lies wholly in the black is left out."""
        real = (scores >= 0) & (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)
        boxes_xyxy, labels = boxes_xyxy[real], labels[real]
        kept, lowered = self.suppress(boxes_xyxy, scores[real], labels, 0.5)
        kept, lowered = kept[: self.max_detections], lowered[: self.max_detections]
        return Detections(boxes_xyxy[kept], labels[kept], lowered, size_hw=size_hw, categories=self.categories)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """The authors' file by our names; any other state as it is.

        Raises:
            CheckpointError: the authors' file is not whole, or has fewer hourglasses than the system.
        """
        if "pre.0.conv.weight" not in state:
            return state, ""
        renamed = from_authors(state)
        missing = [name for name, _ in self.named_parameters() if name not in renamed]
        if missing:
            got = f"the authors' file lacks {len(missing)} entries, the first of them {missing[0]}"
            raise CheckpointError(got, mend="Is it of as many hourglasses as the system?")
        return renamed, f"{len(renamed)} entries of the authors' file loaded"


def _moved(truth: Truth, corner_xy: tuple[int, int]) -> Truth:
    """The truth of a picture whose top-left corner lies there now."""
    shift = truth.boxes_xyxy.new_tensor(corner_xy * 2)
    return Truth(truth.boxes_xyxy + shift, truth.labels, truth.crowds_xyxy + shift)


def _both_ways(boxes_xyxy: Float[Tensor, "B2 N 4"], width: int) -> Float[Tensor, "B M 4"]:
    """Boxes of the pictures and, behind them, those of their mirror images, mirrored back."""
    plain, mirrored = boxes_xyxy.chunk(2)
    x1, y1, x2, y2 = mirrored.unbind(-1)
    return torch.cat([plain, torch.stack([width - x2, y1, width - x1, y2], -1)], 1)


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with our names for those of the authors' code (`module.` taken off beforehand)."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in AUTHORS:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _build(
    backbone: StackedHourglass,
    categories: Sequence[str] | None,
    sizes: tuple[int | None, int],
    class_weights: Sequence[float] | None,
    widths: tuple[int, int] = (256, 128),
) -> CornerNet:
    min_size, max_size = sizes
    return CornerNet(
        backbone,
        COCO_80 if categories is None else categories,
        hidden=widths[0],
        pooled=widths[1],
        scale=None if min_size is None else NetworkScale(min_size, max_size),
        class_weights=class_weights,
    )


def corner_net_hourglass104(
    categories: Sequence[str] | None = None,
    *,
    min_size: int | None = None,
    max_size: int = 1333,
    class_weights: Sequence[float] | None = None,
) -> CornerNet:
    """The paper's system: two hourglasses, 201,035,212 parameters with COCO's 80 categories.

    Args:
        categories: K names; None gives COCO's 80.
        min_size: `predict` scales the shorter side to this; none for pictures as they are, as in the paper ...
        max_size: ... unless the longer would exceed this.
        class_weights: K factors on the corners' loss of each category; none for 1.
    """
    return _build(StackedHourglass(), categories, (min_size, max_size), class_weights)


def corner_net_hourglass52(
    categories: Sequence[str] | None = None,
    *,
    min_size: int | None = None,
    max_size: int = 1333,
    class_weights: Sequence[float] | None = None,
) -> CornerNet:
    """With one hourglass. Arguments as `corner_net_hourglass104`."""
    return _build(StackedHourglass(1), categories, (min_size, max_size), class_weights)


def corner_net_small(
    categories: Sequence[str] | None = None,
    *,
    min_size: int | None = 255,
    max_size: int = 383,
    class_weights: Sequence[float] | None = None,
) -> CornerNet:
    """For small machines: one hourglass of 64 to 128 channels, halved four times, at a shorter side of 255.

    Arguments as `corner_net_hourglass104`.
    """
    backbone = StackedHourglass(1, (64, 64, 96, 96, 128), (1, 1, 1, 1, 2), stem_channels=32, out_channels=64)
    return _build(backbone, categories, (min_size, max_size), class_weights, (64, 32))
