"""Detection by a classifier of windows: a convolutional network on every position, scale and shape, with a class for
background.

The plain way from a classifier to a detector, as Sermanet et al., OverFeat, ICLR 2014, made it work: the network looks
at windows of one size; pictures are resized so that objects of all sizes fill a window (image pyramid, section 3.3);
fully connected layers run as convolutions, so that neighbouring windows share their work; a regressor on the same
layers moves each window onto its object (section 4); what overlaps is suppressed.

There are two ways to predict. `warp`: every window is cut out and goes through the network by itself. `dense`: the
network runs once over each size of the picture. They give the same answers if the network does not pad; a network that
pads sees zeros at a window's border where the dense pass sees what is around it. So that it learns what the dense pass
will see, windows are cut out with some pixels of their surroundings, whose places are left out of the last map.

Deviations: OverFeat's regressor was trained after the classifier, here both learn at once, by Fast R-CNN's loss; its
boxes were merged by their distance, here suppressed; it refined its stride of 36 pixels by pooling at several offsets,
here windows are a stride apart.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Trunk
from bestiary.backbones.vgg import VGG, vgg11_bn_half
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes, cxcywh_to_xyxy, scale_boxes, xyxy_to_cxcywh
from bestiary.heads.box import BoxHead, BoxPredictor, RegionSettings, RoIHeads
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import NetworkScale, size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import VOC_20
from bestiary.heads.region_learning import (
    decode_regions,
    mean_of_regions,
    region_losses,
    sample_regions,
    weights_with_background,
)
from bestiary.heads.region_start import start_from_classifier
from bestiary.heads.truth import truths_of
from bestiary.heads.views import class_map
from bestiary.heads.warped_regions import warp_regions
from bestiary.heads.window_levels import WindowLevel, WindowLevels
from bestiary.layers.preprocess import Normalize
from bestiary.predictions import Detections
from bestiary.records import Losses, Target
from bestiary.system import Images

Way = Literal["dense", "warp"]

EXAMPLES = RegionSettings(per_image=32, nms_iou=0.4)
"""A quarter of 32 windows a picture shows objects: 128 windows a step of four pictures, as R-CNN's. Neighbouring
windows agree on an object, so suppression is strict.
"""

SMALL_SCALE = NetworkScale(240, 400)
"""Of the small form."""

NEAR_TRUTH = 8
"""Windows around each object that training adds to those of the grid, of which few fit an object well."""

SHIFT, STRETCH = 0.15, 0.25
"""How far these are moved, in their sides, and by which logarithm they are larger or smaller: standard deviations."""

WINDOWS_AT_ONCE = 256
"""Of the `warp` way, so that thousands of windows need no more memory than these."""


class SlidingWindowCNN(Detector):
    """The system.

    Args:
        backbone: windows to one map.
        head: of that map.
        categories: K names.
        windows: side of the network's input, and which windows of a picture it sees.
        scale: the size at which windows are laid over pictures.
        way: how `predict` runs the network.
        context: pixels around a window that are cut out with it, a multiple of the stride; 0 for networks that do not
            pad.
        regress: windows are moved onto their objects; else an answer is a window of the grid.
        regions: which windows learn what, and which boxes are answers.
        class_weights: K factors on the classification loss of each category's windows; the background's is 1.
        normalize: of the pixels.

    Attributes:
        parts: seconds that predictions spent on "features" and "heads" since `parts.clear()`.

    Raises:
        UsageError: no category, a way that there is not, or a window that the backbone or the head does not fit.
    """

    head_names = ("roi_heads.box_predictor",)
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: Trunk,
        head: BoxHead,
        categories: Sequence[str],
        windows: WindowLevels,
        *,
        scale: NetworkScale = SMALL_SCALE,
        way: Way = "dense",
        context: int = 0,
        regress: bool = True,
        regions: RegionSettings = EXAMPLES,
        class_weights: Sequence[float] | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(categories, regions.max_detections)
        if way not in get_args(Way):
            raise UsageError(f"got {way!r}, wanted one of {', '.join(get_args(Way))}", where="way")
        level = backbone.levels[-1]
        self.grid = math.isqrt(head.fc6.in_features // level.channels)
        if windows.stride != level.stride or head.fc6.in_features != level.channels * self.grid**2:
            got = f"windows {windows.stride} apart and a head of {head.fc6.in_features} inputs"
            wanted = (
                f"{level.stride} apart, as the backbone's places are, and {level.channels} inputs for each of a square"
            )
            raise UsageError(f"got {got}, wanted {wanted}", where="SlidingWindowCNN(windows)")
        if context < 0 or context % windows.stride:
            raise UsageError(f"got {context}, wanted a multiple of {windows.stride}", where="context")
        self.backbone, self.context = backbone, context
        self.roi_heads = RoIHeads(head, BoxPredictor(head.out_features, len(self.categories)))
        self.normalize = normalize or Normalize()
        self.windows, self.scale, self.way, self.regions, self.regress = windows, scale, way, regions, regress
        weights = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", weights, persistent=False)
        self.parts = PartTimes()
        self._start()

    def _start(self) -> None:
        """Fresh last layers; without a regressor, offsets that are 0 and stay so."""
        predictor = self.roi_heads.box_predictor
        nn.init.normal_(predictor.cls_score.weight, std=0.01)
        nn.init.normal_(predictor.bbox_pred.weight, std=0.001 if self.regress else 0.0)
        for layer in (predictor.cls_score, predictor.bbox_pred):
            nn.init.zeros_(layer.bias)
        predictor.bbox_pred.requires_grad_(self.regress)

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "R C S S"]) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Logits (background first) and offsets of normalised windows, cut out with their context."""
        edge = self.context // self.windows.stride
        inside = slice(edge, edge + self.grid)
        logits, deltas = self.roi_heads(self.backbone(pixels)[-1][..., inside, inside])
        return logits.float(), deltas.float()

    def dense(self, pixels: Float[Tensor, "1 C H W"]) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """`forward` of all windows of one level, row by row, in one pass over it."""
        with self.parts.of("features", self):
            maps = self.backbone(pixels)[-1]
        with self.parts.of("heads", self):
            fc6, fc7 = (self.roi_heads.box_head.get_submodule(name) for name in ("fc6", "fc7"))
            hidden = class_map(maps, (fc6, nn.ReLU(), fc7, nn.ReLU()), self.grid)
            logits, deltas = self.roi_heads.box_predictor(hidden[0].flatten(1).T)
            return logits.float(), deltas.float()

    def cut(self, pixels: Float[Tensor, "C H W"], boxes_xyxy: Float[Tensor, "R 4"]) -> Float[Tensor, "R C S S"]:
        """Windows of one normalised picture as `forward` wants them; outside the picture is 0."""
        return warp_regions(pixels, boxes_xyxy, self.windows.window + 2 * self.context, self.context)

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "window_class" and, with a regressor, "window_box", both divided by the number of windows drawn.

        Windows are drawn from those that prediction would look at, and from some around each object.

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        sampled, cut = [], []
        for image, truth in zip(images, truths, strict=True):
            pixels = self.normalize(image)
            truth, size_hw = truth.to(pixels.device), size_of(pixels)
            grid = self.windows.boxes(self.windows.levels(size_hw), size_hw, pixels.device)
            chosen = sample_regions(torch.cat([grid, around(truth.boxes_xyxy)]), truth, self.regions)
            sampled.append(chosen)
            cut.append(self.cut(pixels, chosen.boxes_xyxy))
        logits, deltas = self(torch.cat(cut))
        losses = mean_of_regions(region_losses(logits, deltas, sampled, class_weights=self.class_weights))
        return Losses(dict(zip(("window_class", "window_box"), losses[: 1 + self.regress], strict=False)))

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes resized as `predict` resizes them before windows are laid; of the truth only what `loss`
        reads.
        """
        return self.scale.bring(images, targets)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first; one picture after the other."""
        return self.detect_scaled(images, 1.0)

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """`detect_images` with pictures `scale` times as large under the same windows."""
        return [self._detect(image, self.scale.times(scale)) for image in images]

    def _detect(self, image: Shaped[Tensor, "C H W"], scale: NetworkScale) -> Detections:
        pixels = scale.resize(self.normalize(image))
        size, scaled = size_of(image), size_of(pixels)
        levels = self.windows.levels(scaled)
        boxes = self.windows.boxes(levels, scaled, pixels.device)
        logits, deltas = self.judge(pixels, levels)
        with self.parts.of("heads", self):
            boxes, labels, scores = decode_regions(
                logits,
                deltas,
                boxes,
                scaled,
                self.regions,
                suppression=self.suppression,
                max_detections=self.max_detections,
            )
        original = clip_boxes(scale_boxes(boxes, scaled, size), size)
        return Detections(original, labels, scores, size_hw=size, categories=self.categories)

    def judge(
        self, pixels: Float[Tensor, "C H W"], levels: Sequence[WindowLevel]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K1 4"]]:
        """Logits and offsets of all windows of one normalised picture, in the order of `WindowLevels.boxes`."""
        if self.way == "dense":
            sizes = [level.size_hw for level in levels]
            found = [self.dense(F.interpolate(pixels[None], size=size, mode="bilinear")) for size in sizes]
        else:
            windows = self.windows.boxes(levels, size_of(pixels), pixels.device).split(WINDOWS_AT_ONCE)
            found = []
            for part in windows:
                with self.parts.of("features", self):
                    found.append(self(self.cut(pixels, part)))
        return torch.cat([logits for logits, _ in found]), torch.cat([deltas for _, deltas in found])

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier: its convolutions and its first two fully connected layers, where their shapes fit."""
        return start_from_classifier(state, self.state_dict())


def around(boxes_xyxy: Float32[Tensor, "N 4"]) -> Float32[Tensor, "M 4"]:
    """`NEAR_TRUTH` boxes near each, moved and stretched by chance; drawn from torch's default generator."""
    centres, sides = xyxy_to_cxcywh(boxes_xyxy.repeat_interleave(NEAR_TRUTH, 0)).split(2, 1)
    chance = torch.randn(2, len(sides), 2, device=sides.device)
    return cxcywh_to_xyxy(torch.cat([centres + SHIFT * sides * chance[0], sides * (STRETCH * chance[1]).exp()], 1))


def sliding_window_vgg16(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 480,
    max_size: int = 800,
    window_sides: Sequence[int] = (112, 160, 224, 320, 448),
    aspects: Sequence[float] = (0.5, 1.0, 2.0),
    way: Way = "dense",
    context: int = 32,
    regress: bool = True,
    class_weights: Sequence[float] | None = None,
) -> SlidingWindowCNN:
    """VGG-16 on windows of 224 pixels, 32 apart: the classifier as it is, with a class for background. 134,690,729
    parameters with 20 categories.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        min_size: windows are laid over the picture with its shorter side at this ...
        max_size: ... unless the longer would exceed this.
        window_sides: roots of the windows' areas, pixels at that size.
        aspects: width over height of windows.
        way: dense: the network runs over the picture at every scale; warp: over every window by itself.
        context: pixels around a window, at the size of the network's input, that are cut out with it, a multiple of the
            stride: so that it learns what the dense way sees.
        regress: windows are moved onto their objects.
        class_weights: K factors on the classification loss of each category's windows; none for 1.

    Raises:
        UsageError: a value that cannot be.
    """
    windows = WindowLevels(224, 32, tuple(window_sides), tuple(aspects))
    trunk = VGG(DEPTHS["vgg16"], maps=("C5",))
    return _build(trunk, 4096, categories, windows, (min_size, max_size), (way, context, regress), class_weights)


def sliding_window_small(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 240,
    max_size: int = 400,
    window_sides: Sequence[int] = (24, 36, 54, 81, 120),
    aspects: Sequence[float] = (1.0,),
    way: Way = "dense",
    context: int = 16,
    regress: bool = True,
    class_weights: Sequence[float] | None = None,
) -> SlidingWindowCNN:
    """For small machines: the half-width VGG-11 with batch norm on windows of 64 pixels, 16 apart, layers of 512;
    4,679,572 parameters with 3 categories, which learn from random weights.

    Arguments as `sliding_window_vgg16`.
    """
    windows = WindowLevels(64, 16, tuple(window_sides), tuple(aspects))
    how = way, context, regress
    return _build(vgg11_bn_half(), 512, categories, windows, (min_size, max_size), how, class_weights)


def _build(
    trunk: VGG,
    width: int,
    categories: Sequence[str] | None,
    windows: WindowLevels,
    sizes: tuple[int, int],
    how: tuple[Way, int, bool],
    class_weights: Sequence[float] | None,
) -> SlidingWindowCNN:
    head = BoxHead(trunk.channels, windows.window // windows.stride, width, dropout=0.5)
    return SlidingWindowCNN(
        trunk,
        head,
        VOC_20 if categories is None else categories,
        windows,
        scale=NetworkScale(*sizes),
        way=how[0],
        context=how[1],
        regress=how[2],
        class_weights=class_weights,
    )
