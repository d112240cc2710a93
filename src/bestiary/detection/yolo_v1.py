"""YOLO (Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection, CVPR 2016).

One network, one look: an S x S grid over the picture, and of each cell, all at once, what the categories' probabilities
would be if an object's centre fell into it, and n boxes with the confidence of each. A box's score for a category is
the product of the two.

Faithful: 24 convolutions and two connected layers on pictures stretched to 448 x 448, S = 7, n = 2, 7 x 7 x 30 numbers
for VOC, all outputs linear; the five terms of equation 3 with 5 and 0.5; of a cell's boxes the one that overlaps the
object most is responsible, its confidence should be the overlap; NMS within each category. Fast YOLO has nine
convolutions; the paper does not say which, the authors' first `yolo-tiny.cfg` does. `yolo_v1_darknet` is what the
authors published later as `yolov1.cfg`, and not the paper's net: batch norm, a local layer, three boxes a cell.

Deviations: probabilities and confidences below 0 count as 0, and scores above 1 as 1, where the authors multiply what
there is; the first object in a cell is learned, where the authors' code shuffles them first. The paper's
deep layers have no batch norm and need the pre-trained first twenty (`yolo_v1_classifier`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.assign.cells import CellTruth, assign_cells, joined_cells
from bestiary.backbones.chain import Chain
from bestiary.backbones.darknet import NO_MEAN, NO_STD
from bestiary.backbones.extraction import ALL_24, FAST_9, SMALL_10, TINY_8, extraction
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import clip_boxes, cxcywh_to_xyxy, scale_boxes
from bestiary.heads.cells import CellHead, ConnectedHead, ConvolutionHead, LocalHead
from bestiary.heads.detection import Detector
from bestiary.heads.network_scale import size_of
from bestiary.heads.part_times import PartTimes
from bestiary.heads.published import VOC_20
from bestiary.heads.region_learning import weights_with_background
from bestiary.heads.region_start import start_from_classifier
from bestiary.heads.square import Square
from bestiary.heads.truth import Truth, truths_of
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import stack_equal
from bestiary.losses.yolo_v1 import CellLosses, Cells, yolo_v1_losses
from bestiary.predictions import Detections
from bestiary.records import Losses, Target
from bestiary.system import Images

SmallHead = Literal["convolution", "connected", "local"]

COORD, NO_OBJECT = 5.0, 0.5
"""The paper's lambdas."""


class YOLOv1(Detector):
    """The system.

    Args:
        backbone: pictures to one map of S x S places.
        categories: K names.
        head: that map to cells.
        size: side of the square that pictures are stretched to.
        min_score: least score of an answer.
        nms_iou: of two boxes of a category that overlap by more, the less sure goes.
        max_detections: answers a picture.
        class_weights: K factors on the fifth term, by the object's category.

    Attributes:
        parts: seconds that predictions spent on "network" and "decoding" since `parts.clear()`.

    Raises:
        UsageError: no category, or a size that does not make the grid.
    """

    head_names = ("head.output",)
    class_weights: Tensor | None

    def __init__(
        self,
        backbone: Chain,
        categories: Sequence[str],
        head: CellHead,
        *,
        size: int = 448,
        min_score: int | float = 0.001,
        nms_iou: int | float = 0.5,
        max_detections: int = 100,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(categories, max_detections)
        if size != head.side * backbone.levels[-1].stride:
            got = f"got size {size} and a grid of {head.side}, wanted {head.side} times {backbone.levels[-1].stride}"
            raise UsageError(got, where="YOLOv1(size)")
        self.backbone, self.head, self.size = backbone, head, size
        self.min_score, self.nms_iou = min_score, nms_iou
        self.normalize = Normalize(NO_MEAN, NO_STD)
        weights = weights_with_background(class_weights, len(self.categories))
        self.register_buffer("class_weights", None if weights is None else weights[1:], persistent=False)
        self.parts = PartTimes()

    # -- the network ---------------------------------------------------------------------------------------------------

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B S S P"]:
        """Of each cell K probabilities, n confidences, n boxes of four."""
        return self.head(self.backbone(pixels)[-1])

    def cells(self, raw: Float[Tensor, "B S S P"]) -> Cells:
        """What `forward` gives, by name."""
        categories, boxes = self.head.num_categories, self.head.boxes
        probs, confidences, rest = raw.split([categories, boxes, 4 * boxes], -1)
        return Cells(probs, confidences, rest.unflatten(-1, (boxes, 4)))

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """The five terms of equation 3, of pictures of the network's own size: sums over cells, means over pictures.

        Raises:
            RecordError: pictures of another size, a target without objects, or a label that is no category.
        """
        truths = truths_of(targets, len(images), len(self.categories))
        pixels = self.normalize(self._of_own_size(images))
        wanted = self.assign([truth.to(pixels.device) for truth in truths])
        terms = self.cell_losses(self(pixels), wanted)
        return Losses({name: values.mean() for name, values in terms._asdict().items()})

    def assign(self, truths: Sequence[Truth]) -> CellTruth:
        """What each cell of each picture is to learn; boxes are in pixels of the network's size."""
        size_hw, side = (self.size, self.size), self.head.side
        return joined_cells([assign_cells(t.boxes_xyxy, t.labels, size_hw, side, t.crowds_xyxy) for t in truths])

    def cell_losses(self, raw: Float[Tensor, "B S S P"], truth: CellTruth) -> CellLosses:
        """The five terms of each picture."""
        cells = self.cells(raw.float())
        return yolo_v1_losses(cells, truth, coord=COORD, no_object=NO_OBJECT, class_weights=self.class_weights)

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """Pictures and boxes stretched to the network's square; of the truth only what `loss` reads."""
        return Square(self.size).bring(images, targets)

    def _of_own_size(self, images: Images) -> Shaped[Tensor, "B C H W"]:
        pixels = stack_equal(images)
        if size_of(pixels) != (self.size, self.size):
            mend = "`to_network_scale` stretches pictures; in training the transform does."
            got = f"got pictures of {size_of(pixels)}, wanted {self.size} x {self.size}"
            raise RecordError(got, where="images", mend=mend)
        return pixels

    # -- prediction ----------------------------------------------------------------------------------------------------

    def candidates(
        self, raw: Float[Tensor, "B S S P"], pixels_hw: tuple[int, int]
    ) -> tuple[Float[Tensor, "B N 4"], Float[Tensor, "B N K"]]:
        """All S S n boxes, cell by cell and row by row, not clipped, and their scores for each category, 0..1.

        Args:
            raw: of `forward`.
            pixels_hw: size of the picture that boxes are given in.
        """
        probs, confidences, boxes = self.cells(raw.float())
        side, (height, width) = self.head.side, pixels_hw
        steps = torch.arange(side, device=raw.device, dtype=boxes.dtype)
        x, y = (boxes[..., 0] + steps[:, None]) / side, (boxes[..., 1] + steps[:, None, None]) / side
        shares = torch.cat([torch.stack([x, y], -1), boxes[..., 2:].square()], -1)
        scores = confidences.clamp(min=0)[..., None] * probs.clamp(min=0)[..., None, :]
        pixels = cxcywh_to_xyxy(shares) * boxes.new_tensor([width, height, width, height])
        return pixels.flatten(1, 3), scores.clamp(max=1).flatten(1, 3)

    def decode(
        self, boxes_xyxy: Float[Tensor, "N 4"], scores: Float[Tensor, "N K"], size_hw: tuple[int, int]
    ) -> Detections:
        """One picture's candidates, in its pixels, to its answers."""
        box, label = (scores > self.min_score).nonzero(as_tuple=True)
        boxes = clip_boxes(boxes_xyxy[box], size_hw)
        kept, sure = self.suppress(boxes, scores[box, label], label, self.nms_iou)
        kept, sure = kept[: self.max_detections], sure[: self.max_detections]
        return Detections(boxes[kept], label[kept], sure, size_hw=size_hw, categories=self.categories)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """Boxes of each picture in its own pixels, clipped, best first; all pictures in one pass."""
        square = (self.size, self.size)
        with self.parts.of("network", self):
            raw = self(self.normalize(torch.stack([Square(self.size).place(image) for image in images])))
        with self.parts.of("decoding", self):
            boxes, scores = self.candidates(raw, square)
            sizes = [size_of(image) for image in images]
            own = [scale_boxes(each, square, size_hw) for each, size_hw in zip(boxes, sizes, strict=True)]
            return [self.decode(*each) for each in zip(own, scores, sizes, strict=True)]

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """At the only size that there is.

        Raises:
            UsageError: another scale than 1.
        """
        if scale != 1:
            mend = "Mirror images (--test-flip) and tiles (--tile) work."
            raise UsageError(f"got {scale}, but YOLO sees pictures at one size", where="test_scales", mend=mend)
        return self.detect_images(images)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier (`yolo_v1_classifier`), its convolutions."""
        return start_from_classifier(state, self.state_dict())


def grid_of(size: int, stride: int) -> int:
    """S; raises `UsageError` where the size is no multiple of the stride."""
    side, rest = divmod(size, stride)
    if rest or side < 1:
        raise UsageError(f"got {size}, wanted a multiple of {stride}", where="size")
    return side


def yolo_v1(
    categories: Sequence[str] | None = None,
    *,
    size: int = 448,
    boxes_per_cell: int = 2,
    class_weights: Sequence[float] | None = None,
) -> YOLOv1:
    """The paper's system: 271,703,550 parameters for VOC.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        size: side of the square that pictures are stretched to; the grid has a cell for each 64 pixels.
        boxes_per_cell: n.
        class_weights: K factors on the classification loss, by the object's category; none for 1.
    """
    names, side = VOC_20 if categories is None else categories, grid_of(size, 64)
    head = ConnectedHead(1024, side, len(names), boxes_per_cell)
    return YOLOv1(extraction(ALL_24), names, head, size=size, class_weights=class_weights)


def fast_yolo_v1(
    categories: Sequence[str] | None = None,
    *,
    size: int = 448,
    boxes_per_cell: int = 2,
    class_weights: Sequence[float] | None = None,
) -> YOLOv1:
    """Fast YOLO, nine convolutions: 45,089,374 parameters for VOC. Arguments as `yolo_v1`."""
    names, side = VOC_20 if categories is None else categories, grid_of(size, 64)
    head = ConnectedHead(1024, side, len(names), boxes_per_cell, hidden=(256, 4096), linear=(0,))
    return YOLOv1(extraction(FAST_9), names, head, size=size, class_weights=class_weights)


def yolo_v1_darknet(
    categories: Sequence[str] | None = None,
    *,
    size: int = 448,
    boxes_per_cell: int = 3,
    class_weights: Sequence[float] | None = None,
) -> YOLOv1:
    """Darknet's public `yolov1.cfg`: batch norm, a local layer, 1,715 outputs for VOC. Arguments as `yolo_v1`."""
    names, side = VOC_20 if categories is None else categories, grid_of(size, 64)
    head = LocalHead(1024, side, len(names), boxes_per_cell)
    return YOLOv1(extraction(ALL_24, norm=True), names, head, size=size, class_weights=class_weights)


def tiny_yolo_v1_darknet(
    categories: Sequence[str] | None = None,
    *,
    size: int = 448,
    boxes_per_cell: int = 2,
    class_weights: Sequence[float] | None = None,
) -> YOLOv1:
    """Darknet's public `yolov1-tiny.cfg`: eight convolutions with batch norm and one connected layer.

    Arguments as `yolo_v1`.
    """
    names, side = VOC_20 if categories is None else categories, grid_of(size, 64)
    head = ConnectedHead(256, side, len(names), boxes_per_cell, hidden=())
    return YOLOv1(extraction(TINY_8, norm=True), names, head, size=size, class_weights=class_weights)


def yolo_v1_small(
    categories: Sequence[str] | None = None,
    *,
    size: int = 320,
    boxes_per_cell: int = 2,
    head: SmallHead = "convolution",
    class_weights: Sequence[float] | None = None,
) -> YOLOv1:
    """For small machines and few pictures: ten narrow convolutions with batch norm, from random weights.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        size: side of the square that pictures are stretched to; the grid has a cell for each 16 pixels.
        boxes_per_cell: n.
        head: convolution: each cell from what the map holds there, with filters that all share; connected: the paper's,
            of 256 hidden; local: Darknet's, of 16 channels.
        class_weights: K factors on the classification loss, by the object's category; none for 1.
    """
    names, side = VOC_20 if categories is None else categories, grid_of(size, 16)
    numbers = (256, side, len(names), boxes_per_cell)
    if head == "connected":
        end: CellHead = ConnectedHead(*numbers, hidden=(256,))
    else:
        end = LocalHead(*numbers, width=16) if head == "local" else ConvolutionHead(*numbers)
    return YOLOv1(extraction(SMALL_10, norm=True), names, end, size=size, class_weights=class_weights)
