"""YOLOv2 (Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017) and Darknet's Tiny YOLO.

One map of cells at stride 32; each cell has priors, sizes found by k-means on the data's boxes, and each prior says how
far it is from an object, whether there is one, and what. `heads/region_layer.py` has the layer's rules and losses.

Faithful to the paper, and where it is silent to Darknet's code (`region_layer.c`, `yolo-voc.cfg`): Darknet-19 without
its classifier, three 3x3 convolutions of 1,024, of which the last also sees the finer map through a 1x1 convolution of
64 and Darknet's reorg; five priors; the centre within its cell; objectness taught the IoU with weight 5, its absence
with weight 1 unless the box overlaps an object by more than 0.6, offsets weighted by 2 - the object's share of the
picture, and the pull towards the priors for the first 12,800 pictures; a new size of 320 .. 608 for every ten batches;
pictures stretched to a square (`letterbox` keeps their proportions, as later versions of Darknet do). Losses are sums
over a picture's places and means over pictures, so that their gradients are what Darknet divides by its batch.

Deviations: any number of objects a picture (Darknet reads 30); resizing is antialiased; sizes are drawn to the end
(Darknet's last 200 batches are at 608); a box that lies mostly on a crowd is neither object nor background.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.assign.box_priors import box_priors
from bestiary.backbones.darknet import Darknet19
from bestiary.backbones.levels import Trunk
from bestiary.backbones.tiny_darknet import TinyDarknet
from bestiary.errors import UsageError
from bestiary.heads import region_layer
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import COCO_80, VOC_20
from bestiary.heads.region_layer import Layout, RegionRaw, RegionRule, RegionTargets
from bestiary.heads.region_learning import weights_with_background
from bestiary.heads.region_network import Classes, RegionNetwork
from bestiary.heads.square import GREY, Square
from bestiary.heads.truth import Truth, truths_of
from bestiary.layers.preprocess import pad_batch
from bestiary.layers.scaling import as_float
from bestiary.predictions import Detections
from bestiary.records import Losses, Sample, Target
from bestiary.system import Images

STRIDE = 32
VOC_PRIORS = (1.3221, 1.73145, 3.19275, 4.00944, 5.05587, 8.09892, 9.47112, 4.84053, 11.2364, 10.0071)
COCO_PRIORS = (0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052, 9.16828)
TINY_PRIORS = (1.08, 1.19, 3.42, 4.41, 6.63, 11.38, 9.42, 5.11, 16.62, 10.52)
"""Width and height of each of the published priors, in cells of 32 pixels (`tiny-yolo-voc.cfg` the last)."""

SIZES = tuple(range(320, 609, 32))
"""Sizes that training draws from."""

BATCHES_A_SIZE = 10
BEFORE_SUPPRESSION = 1000
"""The best answers of a picture that NMS sees."""

FROM_PAPER = RegionRule()
DETECTOR, PRIORS = "detector", "priors"


class YOLOv2(Detector):
    """The system.

    Args:
        network: pixels to A (5 + M) numbers a cell.
        categories: K names.
        priors: width and height of each of the A priors in cells, one after the other.
        classes: what the M numbers mean; a softmax over the categories if None.
        size: side of the square that `predict` works at, a multiple of 32.
        train_sizes: sides that training draws from, a new one every ten batches; none for no change.
        letterbox: pictures keep their proportions within the square, with grey around; False stretches them.
        direct_location: centres stay in their cells; False for offsets as in Faster R-CNN.
        fit_priors: the stage "priors" replaces the priors by those of the training boxes.
        rule: weights of the loss.
        class_weights: factors on the class loss of each category's objects.
        limits: least score of an answer, overlap that NMS removes at, and number of answers.

    Attributes:
        priors_wh: in cells; part of the state.
        seen: pictures trained on, as Darknet counts them in its files.
        batches: batches trained on.
        parts: seconds that "network" and "decoding" took in predictions.

    Raises:
        UsageError: no category, or numbers that cannot be.
    """

    head_names = ("network.predictor",)
    priors_wh: Tensor
    seen: Tensor
    batches: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        network: RegionNetwork,
        categories: Sequence[str],
        *,
        priors: Sequence[float] = VOC_PRIORS,
        classes: Classes | None = None,
        size: int = 416,
        train_sizes: Sequence[int] = (),
        letterbox: bool = False,
        direct_location: bool = True,
        fit_priors: bool = True,
        rule: RegionRule = FROM_PAPER,
        class_weights: Sequence[float] | None = None,
        limits: tuple[float, float, int] = (0.001, 0.5, 100),
    ) -> None:
        super().__init__(categories, limits[2])
        self.network = network
        self.classes = classes or Classes()
        for side in (size, *train_sizes):
            if side < STRIDE or side % STRIDE:
                raise UsageError(f"got {side}, wanted a multiple of {STRIDE}", where="size")
        self.square, self.train_sizes = Square(size, letterbox), tuple(train_sizes)
        self.direct_location, self.fit_priors, self.rule = direct_location, fit_priors, rule
        self.min_score, self.nms_iou = limits[:2]
        self.register_buffer("priors_wh", priors_of(priors))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        weights = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", weights, persistent=False)
        self.parts = PartTimes()

    @property
    def size(self) -> int:
        """Side of the square that `predict` works at."""
        return self.square.side

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """Raw numbers of each cell for pixels 0..1, prior by prior tx, ty, tw, th, objectness, classes."""
        return self.network(pixels)

    # -- priors --------------------------------------------------------------------------------------------------------

    def begin_stage(self, name: str) -> None:
        """Take up "priors" or "detector".

        Raises:
            UsageError: no such stage.
        """
        if name not in (PRIORS, DETECTOR):
            raise UsageError(f"got the stage {name!r}, wanted {PRIORS} or {DETECTOR}", where=self.model_name or None)

    def fit_stage(
        self, name: str, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Find as many priors as there are, from the boxes of all samples at the size that `predict` sees them at.

        Raises:
            UsageError: there is no box.
        """
        if not self.fit_priors:
            say(f"priors stay as they are: {_text(self.priors_wh)}")
            return
        sizes = [self._box_sizes(sample) for sample in samples]
        found = box_priors(torch.cat([torch.zeros(0, 2), *sizes]), len(self.priors_wh), seed)
        self.priors_wh.copy_(found.sizes_wh)
        say(f"priors in cells of {STRIDE} pixels: {_text(found.sizes_wh)}; mean IoU {found.mean_iou:.3f}")

    def _box_sizes(self, sample: Sample) -> Float32[Tensor, "N 2"]:
        (truth,) = truths_of([sample.target], 1, len(self.categories))
        tile = self.tiling.tile
        seen = self.square.to_square(truth.boxes_xyxy, (tile, tile) if tile else size_of(sample.image))
        return (seen[:, 2:] - seen[:, :2]) / STRIDE

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "object", "no_object", "box", "class" and "pull", sums over places, means over pictures.

        In training mode pictures are first brought to the size of the moment, and counted.

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        pixels, factors_hw = self.batch_of(images)
        cells = [in_cells(truth.to(pixels.device), factors_hw) for truth in truths]
        raw = region_layer.split_raw(self(pixels), len(self.priors_wh))
        terms = self.region_loss(raw, cells, self.layout(size_of(pixels)))
        self.count(len(images))
        return Losses(terms)

    def count(self, pictures: int) -> None:
        """A batch of training is done; nothing in evaluation mode."""
        if self.training:
            self.seen += pictures
            self.batches += 1

    def batch_of(self, images: Images) -> tuple[Float[Tensor, "B C H W"], tuple[float, float]]:
        """Pixels whose sides are multiples of 32, and how much longer they were made."""
        batch = pad_batch([as_float(image) - GREY for image in images], STRIDE) + GREY
        before_hw = size_of(batch)
        side = self.size_of_batch()
        if side is None:
            return batch, (1.0, 1.0)
        longest = max(before_hw)
        height, width = (max(STRIDE, round(length * side / longest / STRIDE) * STRIDE) for length in before_hw)
        if (height, width) != before_hw:
            batch = F.interpolate(batch, size=(height, width), mode="bilinear", antialias=True)
        return batch, (height / before_hw[0], width / before_hw[1])

    def size_of_batch(self) -> int | None:
        """The size that training works at by now, drawn anew every ten batches; None to leave pictures as they are."""
        if not self.training or not self.train_sizes:
            return None
        drawn = torch.Generator().manual_seed(int(self.batches) // BATCHES_A_SIZE)
        return self.train_sizes[int(torch.randint(len(self.train_sizes), (1,), generator=drawn))]

    def layout(self, pixels_hw: tuple[int, int]) -> Layout:
        """Where the places are in pixels of that size."""
        return Layout(self.priors_wh, (pixels_hw[0] // STRIDE, pixels_hw[1] // STRIDE), self.direct_location)

    def assign(self, truth: Truth, layout: Layout) -> RegionTargets:
        """The place that answers for each object; all in cells."""
        return region_layer.assign_places(truth, layout)

    def region_loss(self, raw: RegionRaw, truths: Sequence[Truth], layout: Layout) -> dict[str, Float[Tensor, ""]]:
        """The terms for a batch of raw numbers and objects in cells."""
        is_pulled = int(self.seen) < self.rule.pull_pictures
        return region_layer.region_losses(raw, truths, layout, self.class_losses, self.rule, is_pulled)

    def class_losses(self, logits: Float[Tensor, "T M"], labels: Int64[Tensor, " T"]) -> Float[Tensor, " T"]:
        """Of the places that answer for an object, by the categories' weights."""
        losses = self.classes.losses(logits, labels)
        return losses if self.class_weights is None else losses * self.class_weights[labels + 1]

    # -- prediction ----------------------------------------------------------------------------------------------------

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes in the square that `predict` works at."""
        return self.square.bring(images, targets)

    def candidates(
        self, raw: Float[Tensor, "B D H2 W2"], pixels_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N K"]]:
        """Every box at network scale, neither clipped nor suppressed, and its probability of each category.

        Args:
            raw: of `forward`.
            pixels_hw: size of the pixels that it was given.
        """
        rows = region_layer.split_raw(raw, len(self.priors_wh))
        boxes = region_layer.decode_places(rows.offsets, self.layout(pixels_hw))
        return STRIDE * boxes, rows.objectness.sigmoid()[..., None] * self.classes.probs(rows.classes)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first."""
        return self.detect_scaled(images, 1.0)

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """`detect_images` in a square of `scale` times the side, to the nearest multiple of 32."""
        square = replace(self.square, side=max(1, round(self.size * scale / STRIDE)) * STRIDE)
        pixels = torch.stack([square.place(image) for image in images])
        with self.parts.of("network", self):
            raw = self(pixels)
        with self.parts.of("decoding", self):
            boxes, scores = self.candidates(raw.float(), size_of(pixels))
            sizes = [size_of(image) for image in images]
            return [self._answer(b, s, square, hw) for b, s, hw in zip(boxes, scores, sizes, strict=True)]

    def _answer(self, boxes: Tensor, scores: Tensor, square: Square, size_hw: tuple[int, int]) -> Detections:
        found, labels, values = self.decode(boxes, scores)
        own = square.to_picture(found, size_hw)
        return Detections(own, labels, values, size_hw=size_hw, categories=self.categories)

    def decode(
        self, boxes_xyxy: Float[Tensor, "N 4"], scores: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "D 4"], Int64[Tensor, " D"], Float[Tensor, " D"]]:
        """One picture's candidates to its answers at network scale: boxes, labels, scores, best first."""
        place, label = (scores > self.min_score).nonzero(as_tuple=True)
        values = scores[place, label]
        best = torch.sort(values, descending=True, stable=True).indices[:BEFORE_SUPPRESSION]
        boxes, labels, values = boxes_xyxy[place[best]], label[best], values[best]
        keep, values = self.suppress(boxes, values, labels, self.nms_iou)
        keep = keep[: self.max_detections]
        return boxes[keep], labels[keep], values[: len(keep)]

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a Darknet classifier its convolutions, by the names that they have here."""
        own = self.state_dict()
        places = {f"network.trunk.{name}": value for name, value in state.items()}
        found = {name: value for name, value in places.items() if name in own and own[name].shape == value.shape}
        return (found, "starts from a classifier: its convolutions") if found else (state, "")


def priors_of(numbers: Sequence[float]) -> Float32[Tensor, "A 2"]:
    """Widths and heights in turn, as pairs.

    Raises:
        UsageError: not pairs, or one that is not positive.
    """
    if len(numbers) < 2 or len(numbers) % 2 or min(numbers) <= 0:
        raise UsageError(f"got {tuple(numbers)}, wanted positive widths and heights in turn", where="priors")
    return torch.tensor(tuple(numbers), dtype=torch.float32).view(-1, 2)


def in_cells(truth: Truth, factors_hw: tuple[float, float] = (1.0, 1.0)) -> Truth:
    """Boxes in cells of a picture that was made longer by some factors."""
    factors = truth.boxes_xyxy.new_tensor([factors_hw[1], factors_hw[0]] * 2) / STRIDE
    return Truth(truth.boxes_xyxy * factors, truth.labels, truth.crowds_xyxy * factors)


def _text(priors_wh: Tensor) -> str:
    return ", ".join(f"{w:.2f} x {h:.2f}" for w, h in priors_wh.tolist())


def assemble(
    trunk: Trunk,
    categories: Sequence[str],
    priors: Sequence[float],
    *,
    width: int = 1024,
    convolutions: int = 3,
    passthrough: int = 64,
) -> RegionNetwork:
    """A network whose outputs suit the priors and a softmax over the categories. Arguments as `RegionNetwork`."""
    outputs = len(priors) // 2 * (5 + len(categories))
    return RegionNetwork(trunk, outputs, width=width, convolutions=convolutions, passthrough=passthrough)


def yolo_v2(
    categories: Sequence[str] | None = None,
    *,
    size: int = 416,
    train_sizes: Sequence[int] = SIZES,
    letterbox: bool = False,
    priors: Sequence[float] = VOC_PRIORS,
    fit_priors: bool = True,
    pull_pictures: int = 12_800,
    class_weights: Sequence[float] | None = None,
) -> YOLOv2:
    """The paper's system: 50,655,389 parameters and 845 boxes for VOC at 416.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        size: side of the square that `predict` works at, a multiple of 32.
        train_sizes: sides that training draws from, a new one every ten batches; none for no change.
        letterbox: pictures keep their proportions within the square, with grey around; otherwise they are stretched.
        priors: width and height of each prior in cells of 32 pixels, in turn.
        fit_priors: training begins with k-means on the boxes of the data, and as many priors; otherwise they stay.
        pull_pictures: the boxes are drawn to their priors for so many pictures.
        class_weights: K factors on the classification loss, by the object's category; none for 1.
    """
    names = VOC_20 if categories is None else categories
    network = assemble(Darknet19(), names, priors)
    looks = {"size": size, "train_sizes": train_sizes, "letterbox": letterbox}
    rule = RegionRule(pull_pictures=pull_pictures)
    return YOLOv2(network, names, priors=priors, fit_priors=fit_priors, rule=rule, class_weights=class_weights, **looks)


def yolo_v2_coco(
    categories: Sequence[str] | None = None,
    *,
    size: int = 608,
    train_sizes: Sequence[int] = SIZES,
    letterbox: bool = False,
    priors: Sequence[float] = COCO_PRIORS,
    fit_priors: bool = True,
    pull_pictures: int = 12_800,
    class_weights: Sequence[float] | None = None,
) -> YOLOv2:
    """The same with COCO's priors and, if `categories` is None, its 80 categories: 50,962,889 parameters.

    Arguments as `yolo_v2`.
    """
    names = COCO_80 if categories is None else categories
    return yolo_v2(
        names,
        size=size,
        train_sizes=train_sizes,
        letterbox=letterbox,
        priors=priors,
        fit_priors=fit_priors,
        pull_pictures=pull_pictures,
        class_weights=class_weights,
    )


def tiny_yolo_v2(
    categories: Sequence[str] | None = None,
    *,
    size: int = 416,
    train_sizes: Sequence[int] = SIZES,
    letterbox: bool = False,
    priors: Sequence[float] = TINY_PRIORS,
    fit_priors: bool = True,
    pull_pictures: int = 12_800,
    class_weights: Sequence[float] | None = None,
) -> YOLOv2:
    """Darknet's `tiny-yolo-voc.cfg`: nine convolutions, no passthrough, 15,861,773 parameters for VOC.

    Arguments as `yolo_v2`.
    """
    names = VOC_20 if categories is None else categories
    network = assemble(TinyDarknet(), names, priors, convolutions=1, passthrough=0)
    looks = {"size": size, "train_sizes": train_sizes, "letterbox": letterbox}
    rule = RegionRule(pull_pictures=pull_pictures)
    return YOLOv2(network, names, priors=priors, fit_priors=fit_priors, rule=rule, class_weights=class_weights, **looks)


def yolo_v2_small(
    categories: Sequence[str] | None = None,
    *,
    size: int = 416,
    train_sizes: Sequence[int] = (352, 384, 416, 448, 480),
    letterbox: bool = False,
    priors: Sequence[float] = VOC_PRIORS,
    fit_priors: bool = True,
    pull_pictures: int = 1000,
    class_weights: Sequence[float] | None = None,
) -> YOLOv2:
    """For small machines: everything a quarter as wide, from random weights; objectness learns by cross entropy.

    Arguments as `yolo_v2`.
    """
    names = VOC_20 if categories is None else categories
    network = assemble(Darknet19(width=0.25), names, priors, width=256, passthrough=16)
    looks = {"size": size, "train_sizes": train_sizes, "letterbox": letterbox}
    rule = RegionRule(pull_pictures=pull_pictures, cross_entropy=True)
    return YOLOv2(network, names, priors=priors, fit_priors=fit_priors, rule=rule, class_weights=class_weights, **looks)
