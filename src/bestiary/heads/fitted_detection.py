"""What every detector without gradients does around its method: read the samples, judge what it finds, and say boxes
with probabilities.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32, Int8, Int64, Shaped, UInt8
from torch import Tensor

from bestiary.assign.matcher import IGNORE, NEGATIVE, POSITIVE
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import box_area, clip_boxes, pairwise_intersection, pairwise_iou
from bestiary.heads.detection import Detector
from bestiary.heads.fitted_classification import PATIENCE, require_pixels, to_bytes
from bestiary.heads.truth import CROWD_SHARE, Truth, truths_of
from bestiary.layers.calibration import platt_scaling
from bestiary.layers.learned import Learned
from bestiary.ops.suppression import batched_nms
from bestiary.predictions import Detections
from bestiary.records import Record, Rows, Sample, Target, require_boxes, require_tensor, row_field
from bestiary.system import FittedSystem

LEAST_SLOPE = 1e-3
"""Of a category whose margins say nothing, or the opposite of what they should: nearly flat, but in their order."""


@dataclass(frozen=True, eq=False)
class Annotated(Record):
    """One training picture.

    Attributes:
        image: RGB bytes.
        truth: its objects; crowds and difficult objects stand apart, they are neither objects nor background.
        name: of the sample.
    """

    image: UInt8[Tensor, "3 H W"]
    truth: Truth
    name: str

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.image.shape[1]), int(self.image.shape[2])


@dataclass(frozen=True, eq=False)
class Found(Rows):
    """N windows that a method took for objects, in any order, also overlapping.

    Attributes:
        boxes_xyxy: pixels of the picture; may reach beyond it.
        labels: categories.
        margins: how sure the method is, on a scale of its own that may differ between categories.
    """

    boxes_xyxy: Float32[Tensor, "N 4"] = row_field()
    labels: Int64[Tensor, " N"] = row_field()
    margins: Float32[Tensor, " N"] = row_field()

    def __post_init__(self) -> None:
        require_boxes("Found", self.boxes_xyxy)
        require_tensor("Found", "labels", self.labels, (None,), torch.int64)
        require_tensor("Found", "margins", self.margins, (None,), torch.float32)
        self.require_rows()

    @classmethod
    def joined(cls, parts: Sequence["Found"]) -> "Found":
        """All windows of all parts; of no part, none."""
        if not parts:
            return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        boxes, labels, margins = zip(*((p.boxes_xyxy, p.labels, p.margins) for p in parts), strict=True)
        return cls(torch.cat(boxes), torch.cat(labels), torch.cat(margins))


class FittedDetector(FittedSystem, Detector):
    """Base of the fitted detectors: a subclass adds `fit`, which ends with `calibrate`, and `find`; and `merge`, where
    overlapping windows are not simply suppressed.

    Args:
        categories: K names.
        nms_overlap: of two windows of a category with a larger IoU the better one stays.
        max_detections: answers a picture, the best.

    Raises:
        UsageError: no category, an overlap outside 0..1, or no answer wanted.
    """

    def __init__(self, categories: Sequence[str], nms_overlap: float | int = 0.5, max_detections: int = 100) -> None:
        super().__init__(categories, max_detections)
        if not 0 <= nms_overlap <= 1:
            raise UsageError(f"got {nms_overlap}, wanted 0 to 1", where="nms_overlap")
        self.nms_overlap = float(nms_overlap)
        self.scale = ScoreScale(len(self.categories))

    def find(self, image: UInt8[Tensor, "3 H W"]) -> Found:
        """The windows of one picture that may be objects; what was learned is there."""
        raise NotImplementedError

    def merge(self, found: Found) -> Found:
        """What several windows say of one object, before suppression: here as many windows as there are."""
        return found

    def calibrate(
        self, samples: Sequence[Sample], say: Callable[[str], None] = lambda _: None, at_most: int = 200
    ) -> None:
        """Learn what probability a margin means, from what is found in up to `at_most` evenly spread pictures."""
        chosen = range(0, len(samples), max(1, -(-len(samples) // at_most)))
        found: list[Found] = []
        kinds: list[Tensor] = []
        for picture in annotated(samples, len(self.categories), say, chosen, "calibrated on"):
            windows = self.merge(self.find(picture.image))
            rows = batched_nms(windows.boxes_xyxy, windows.margins, windows.labels, self.nms_overlap)
            found.append(windows[rows])
            kinds.append(judged(windows[rows], picture.truth))
        self.scale.fit(Found.joined(found), torch.cat(kinds))

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """The objects of each picture, merged, clipped, suppressed, best first.

        Raises:
            UsageError: nothing was learned yet.
            RecordError: a picture without pixels.
        """
        self.require_fitted()
        for i, image in enumerate(images):
            require_pixels(image, f"images[{i}]")
        return [self._detections(to_bytes(image.detach().cpu())) for image in images]

    def _detections(self, image: UInt8[Tensor, "3 H W"]) -> Detections:
        size_hw = (int(image.shape[1]), int(image.shape[2]))
        found = self.merge(self.find(image))
        found = replace(found, boxes_xyxy=clip_boxes(found.boxes_xyxy, size_hw))
        found = found[(found.boxes_xyxy[:, 2:] > found.boxes_xyxy[:, :2]).all(1)]
        # Equal probabilities, where the sigmoid saturates, rank by index: in the order of the margins.
        found = found[torch.sort(found.margins, descending=True, stable=True).indices]
        rows, scores = self.suppress(found.boxes_xyxy, self.scale(found), found.labels, self.nms_overlap)
        rows, scores = rows[: self.max_detections], scores[: self.max_detections]
        return Detections(
            found.boxes_xyxy[rows], found.labels[rows], scores, size_hw=size_hw, categories=self.categories
        )


class ScoreScale(Learned):
    """The probability that a window of a margin is an object, by a sigmoid for each category.

    Args:
        num_categories: K.

    Attributes:
        slope: [K], above 0: probabilities keep the order of the margins.
        offset: [K].
    """

    slope: Tensor
    offset: Tensor

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.num_categories = num_categories
        self.declare("slope", "offset")

    def fit(self, found: Found, kinds: Int8[Tensor, " N"]) -> None:
        """Learn from judged windows (Platt, 1999). A category that was never found gets slope 1 and offset 0."""
        slope, offset = torch.ones(self.num_categories), torch.zeros(self.num_categories)
        for label in range(self.num_categories):
            mine = (found.labels == label) & (kinds != IGNORE)
            if mine.any():
                steep, shift = platt_scaling(found.margins[mine], kinds[mine] == POSITIVE)
                slope[label], offset[label] = max(steep, LEAST_SLOPE), shift
        self.learn("slope", slope)
        self.learn("offset", offset)

    def forward(self, found: Found) -> Float32[Tensor, " N"]:
        """Probabilities."""
        return (self.slope[found.labels] * found.margins + self.offset[found.labels]).sigmoid()


def judged(found: Found, truth: Truth, overlap: float | int = 0.5) -> Int8[Tensor, " N"]:
    """POSITIVE for a window that found an object, NEGATIVE for a false alarm, IGNORE for one mostly on a crowd.

    Best first, a window finds the object of its category that it overlaps most, if that is still free and its IoU is at
    least `overlap`.
    """
    kinds = torch.full((len(found),), NEGATIVE, dtype=torch.int8)
    overlaps = pairwise_iou(found.boxes_xyxy, truth.boxes_xyxy)
    overlaps = torch.where(found.labels[:, None] == truth.labels[None], overlaps, -1.0)
    free = torch.ones(len(truth.boxes_xyxy), dtype=torch.bool)
    best, which = overlaps.max(1) if len(free) else (torch.zeros(len(found)), torch.zeros(len(found)).long())
    for row in torch.sort(found.margins, descending=True, stable=True).indices.tolist() if len(free) else ():
        if best[row] >= overlap and free[which[row]]:
            kinds[row], free[which[row]] = POSITIVE, False
    return kinds.masked_fill((kinds == NEGATIVE) & on_crowds(found.boxes_xyxy, truth), IGNORE)


def on_crowds(boxes_xyxy: Float32[Tensor, "N 4"], truth: Truth) -> Bool[Tensor, " N"]:
    """Whether more than half of a box lies on one crowd."""
    if not len(truth.crowds_xyxy):
        return torch.zeros(len(boxes_xyxy), dtype=torch.bool)
    inside = pairwise_intersection(boxes_xyxy, truth.crowds_xyxy).max(1).values
    return inside > CROWD_SHARE * box_area(boxes_xyxy)


def apart_from(
    boxes_xyxy: Float32[Tensor, "N 4"], truth: Truth, label: int, overlap: float | int
) -> Bool[Tensor, " N"]:
    """Whether a box is no object of a category: its IoU with each of them is below `overlap`, and no crowd is there."""
    apart = ~on_crowds(boxes_xyxy, truth)
    own = truth.boxes_xyxy[truth.labels == label]
    return apart & (pairwise_iou(boxes_xyxy, own).max(1).values < overlap) if len(own) else apart


def boxes_by_category(
    samples: Sequence[Sample], num_categories: int, say: Callable[[str], None] = lambda _: None
) -> list[Float32[Tensor, "_n 4"]]:
    """All objects' boxes of each category, in one pass; errors as `annotated`'s."""
    boxes: list[list[Tensor]] = [[] for _ in range(num_categories)]
    for picture in annotated(samples, num_categories, say):
        for label, own in enumerate(boxes):
            own.append(picture.truth.boxes_xyxy[picture.truth.labels == label])
    return [torch.cat(own) for own in boxes]


def annotated(
    samples: Sequence[Sample],
    num_categories: int,
    say: Callable[[str], None] = lambda _: None,
    chosen: Sequence[int] | None = None,
    done: str = "read",
) -> Iterator[Annotated]:
    """The samples as a detector learns from them, one after the other: none is kept.

    Args:
        samples: each access decodes a picture.
        num_categories: labels are below it.
        say: told now and then how far the pass is.
        chosen: indices of those wanted, in their order; None for all.
        done: what has been done with the pictures, for `say`: "12 of 205 pictures read".

    Raises:
        UsageError: no sample.
        RecordError: a picture without pixels, a sample whose objects nobody annotated, or a label that is no category.
    """
    if len(samples) == 0:
        raise UsageError("got no picture, wanted at least one", where="fit(samples)")
    indices = range(len(samples)) if chosen is None else chosen
    patience = PATIENCE
    due = time.monotonic() + patience
    for count, index in enumerate(indices):
        sample = samples[index]
        require_pixels(sample.image, sample.name)
        try:
            truth = truths_of([_without_difficult(sample.target)], 1, num_categories)[0]
        except RecordError as error:
            raise RecordError(error.message, where=f"the objects of {sample.name}", mend=error.mend) from None
        yield Annotated(to_bytes(sample.image), truth, sample.name)
        if time.monotonic() > due and count + 1 < len(indices):
            say(f"{count + 1:,} of {len(indices):,} pictures {done}")
            patience *= 2
            due = time.monotonic() + patience


def _without_difficult(target: Target) -> Target:
    """Objects too difficult to be scored stand as crowds: nothing is to be learned from them either."""
    objects = target.objects
    if objects is None or objects.difficult is None:
        return target
    crowd = objects.difficult if objects.crowd is None else objects.crowd | objects.difficult
    return replace(target, objects=replace(objects, crowd=crowd))
