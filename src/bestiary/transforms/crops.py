"""Parts of the picture, and more than the picture."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bestiary.records import Sample
from bestiary.transforms.keep import KEEP, Keep
from bestiary.transforms.moving import move
from bestiary.transforms.transform import (
    Described,
    Geometric,
    require_argument,
    require_probability,
    require_range,
    require_size,
)
from bestiary.transforms.warp import MEAN_COLOUR, Fill, Warp


@dataclass(frozen=True, repr=False)
class CenterCrop(Geometric):
    """The middle of the picture; a smaller picture is padded on all sides."""

    size_hw: tuple[int, int]
    fill: Fill = MEAN_COLOUR
    keep: Keep = KEEP

    def __post_init__(self) -> None:
        require_size(self.size_hw, "CenterCrop(size_hw)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The cut; where the margin is odd, the right and bottom one is the larger."""
        corner = (size_hw[1] - self.size_hw[1]) // 2, (size_hw[0] - self.size_hw[0]) // 2
        return replace(Warp.cut(size_hw, corner, self.size_hw, self.fill), keep=self.keep)


@dataclass(frozen=True, repr=False)
class RandomCrop(Geometric):
    """A part of fixed size at a random place.

    Attributes:
        size_hw: of the part. A picture smaller than that lies at a random place in it.
        pad: margin that is put around the picture first; 4 with a size of 32 is the usual augmentation of small
            pictures.
        fill: colour outside.
        keep: which objects stay.
    """

    size_hw: tuple[int, int]
    pad: int = 0
    fill: Fill = MEAN_COLOUR
    keep: Keep = KEEP

    def __post_init__(self) -> None:
        require_size(self.size_hw, "RandomCrop(size_hw)")
        require_argument(self.pad >= 0, "RandomCrop(pad)", self.pad, "at least 0")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The cut, every place equally likely."""
        y, x = (self._start(s, n, rng) for s, n in zip(size_hw, self.size_hw, strict=True))
        return replace(Warp.cut(size_hw, (x, y), self.size_hw, self.fill), keep=self.keep)

    def _start(self, side: int, new: int, rng: np.random.Generator) -> int:
        first, last = -self.pad, side + self.pad - new
        return int(rng.integers(min(first, last), max(first, last), endpoint=True))


@dataclass(frozen=True, repr=False)
class RandomResizedCrop(Geometric):
    """A part of random area and proportions, resized: how GoogLeNet was trained (Szegedy et al. 2015, section 6).

    Attributes:
        size_hw: size that comes out.
        area: range of the part's area, as a fraction of the picture's; drawn evenly.
        aspect: range of width over height; drawn evenly in the logarithm.
        keep: which objects stay.

    After 10 parts that did not fit into the picture, the largest centred part of an allowed aspect is taken, as
    torchvision does.
    """

    size_hw: tuple[int, int]
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    keep: Keep = KEEP

    def __post_init__(self) -> None:
        require_size(self.size_hw, "RandomResizedCrop(size_hw)")
        require_range(self.area, 0.0, "RandomResizedCrop(area)")
        require_argument(0 < self.area[1] <= 1, "RandomResizedCrop(area)", self.area, "fractions up to 1")
        require_range(self.aspect, 1e-3, "RandomResizedCrop(aspect)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """Cut and resize as one map."""
        x, y, width, height = self.draw(size_hw, rng)
        scales = self.size_hw[1] / width, self.size_hw[0] / height
        matrix = np.array([[scales[0], 0, -x * scales[0]], [0, scales[1], -y * scales[1]]])
        return Warp(matrix, size_hw, self.size_hw, (x, y, x + width, y + height), keep=self.keep)

    def draw(self, size_hw: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """The part: x, y, width, height."""
        full_height, full_width = size_hw
        low, high = np.log(self.aspect)
        for _ in range(10):
            area = full_height * full_width * rng.uniform(*self.area)
            aspect = np.exp(rng.uniform(low, high))
            width, height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < width <= full_width and 0 < height <= full_height:
                x = int(rng.integers(0, full_width - width, endpoint=True))
                return x, int(rng.integers(0, full_height - height, endpoint=True)), width, height
        aspect = min(max(full_width / full_height, self.aspect[0]), self.aspect[1])
        width = max(1, min(full_width, round(full_height * aspect)))
        height = max(1, min(full_height, round(full_width / aspect)))
        return (full_width - width) // 2, (full_height - height) // 2, width, height


@dataclass(frozen=True, repr=False)
class RandomZoomOut(Geometric):
    """The picture somewhere on a larger canvas of one colour: SSD's expansion, which makes small objects.

    Attributes:
        p: probability.
        ratio: range of the canvas' sides over the picture's; the SSD authors' code has up to 4.
        fill: colour of the canvas.
    """

    p: float = 0.5
    ratio: tuple[float, float] = (1.0, 4.0)
    fill: Fill = MEAN_COLOUR

    def __post_init__(self) -> None:
        require_probability(self.p, "RandomZoomOut(p)")
        require_range(self.ratio, 1.0, "RandomZoomOut(ratio)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The canvas, every place equally likely."""
        if rng.random() >= self.p:
            return Warp.identity(size_hw)
        ratio = rng.uniform(*self.ratio)
        new = int(size_hw[0] * ratio), int(size_hw[1] * ratio)
        y, x = (int(rng.integers(0, n - s, endpoint=True)) for n, s in zip(new, size_hw, strict=True))
        return Warp.cut(size_hw, (-x, -y), new, self.fill)


@dataclass(frozen=True, repr=False)
class RandomIoUCrop(Described):
    """SSD's crop (Liu et al., ECCV 2016, section 2.2): a part that overlaps at least one object enough.

    A minimum overlap is drawn; up to `trials` parts are drawn until the largest IoU of a part with a box reaches it.
    If none does, the picture stays whole. Objects stay if their centre is inside. A picture without objects stays
    whole too, unless the minimum drawn is 0.

    Attributes:
        min_ious: minima to choose from, equally likely; None: the picture as it is; 0: any part.
        side: range of the part's sides, as a fraction of the picture's.
        aspect: range of width over height, of the drawn sides in pixels.
        trials: parts to try.
    """

    min_ious: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
    side: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.5, 2.0)
    trials: int = 50

    def __post_init__(self) -> None:
        require_argument(len(self.min_ious) > 0, "RandomIoUCrop(min_ious)", "none", "at least one")
        require_range(self.side, 1e-3, "RandomIoUCrop(side)")
        require_argument(self.side[1] <= 1, "RandomIoUCrop(side)", self.side, "fractions up to 1")
        require_range(self.aspect, 1e-3, "RandomIoUCrop(aspect)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The part, or the sample as it was."""
        min_iou = self.min_ious[int(rng.integers(len(self.min_ious)))]
        objects = sample.target.objects
        boxes_xyxy = np.zeros((0, 4)) if objects is None else objects.boxes_xyxy.numpy().astype(np.float64)
        if min_iou is None or not (len(boxes_xyxy) or min_iou == 0):
            return sample
        full_height, full_width = sample.size_hw
        for _ in range(self.trials):
            width, height = (max(1, int(s * rng.uniform(*self.side))) for s in (full_width, full_height))
            x, y = (
                int(rng.integers(0, full_width - width, endpoint=True)),
                int(rng.integers(0, full_height - height, endpoint=True)),
            )
            if not self.aspect[0] <= width / height <= self.aspect[1]:
                continue
            if self._fits(np.array([x, y, x + width, y + height], dtype=np.float64), boxes_xyxy, min_iou):
                warp = Warp.cut(sample.size_hw, (x, y), (height, width))
                return move(sample, replace(warp, keep=Keep(min_visible=0.0, centre_inside=True)))
        return sample

    @staticmethod
    def _fits(part_xyxy: np.ndarray, boxes_xyxy: np.ndarray, min_iou: float) -> bool:
        """Whether an object overlaps enough; where there are objects, one centre must be inside, or none would be
        left.
        """
        if not len(boxes_xyxy):
            return True
        centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
        inside = ((centres >= part_xyxy[:2]) & (centres < part_xyxy[2:])).all(1)
        low, high = np.maximum(boxes_xyxy[:, :2], part_xyxy[:2]), np.minimum(boxes_xyxy[:, 2:], part_xyxy[2:])
        overlap = np.clip(high - low, 0, None).prod(1)
        union = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1) + (part_xyxy[2:] - part_xyxy[:2]).prod() - overlap
        return bool(inside.any() and (overlap / union).max() >= min_iou)


@dataclass(frozen=True, repr=False)
class Pad(Described):
    """Margins around the picture.

    Attributes:
        margins_ltrb: pixels on the left, top, right and bottom.
        mode: "constant": one colour; "reflect": mirrored about the outermost pixels' centres, which are not repeated
            (U-Net's and DeepLab's extrapolation); "mirror": about the picture's edge, outermost pixels repeated. The
            maps of a mirrored picture are mirrored with it; objects are not: their reflections are not annotated,
            their masks end at the old edge.
        fill: colour, for "constant".

    Raises:
        UsageError: a negative margin.
        RecordError: "reflect" or "mirror" with a margin that the picture is too small for.
    """

    margins_ltrb: tuple[int, int, int, int]
    mode: Literal["constant", "reflect", "mirror"] = "constant"
    fill: Fill = MEAN_COLOUR

    def __post_init__(self) -> None:
        require_argument(min(self.margins_ltrb) >= 0, "Pad(margins_ltrb)", self.margins_ltrb, "no negative margin")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The padded sample."""
        from bestiary.transforms.reflecting import reflect

        left, top, right, bottom = self.margins_ltrb
        height, width = sample.size_hw
        moved = move(
            sample, Warp.cut(sample.size_hw, (-left, -top), (top + height + bottom, left + width + right), self.fill)
        )
        return (
            moved
            if self.mode == "constant"
            else reflect(sample, moved, self.margins_ltrb, repeat_edge=self.mode == "mirror")
        )
