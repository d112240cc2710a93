"""An affine map from one picture to another, and how pixels, points and boxes follow it.

Coordinates are continuous, (0, 0) the outer corner of the top-left pixel and (0.5, 0.5) its centre, so that resizing
by s is exactly `x' = s x` and mirroring exactly `x' = width - x`. OpenCV counts from the centre of the first pixel;
only `resampling.py` knows.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from bestiary.transforms.keep import KEEP, Keep

Pairs = tuple[tuple[int, int], ...]
Fill = float | tuple[float, ...]
"""Colour of what lies outside the picture, 0..255 (divided by 255 for float pictures); one number, or one for each
channel.
"""

MEAN_COLOUR: Fill = (124.0, 116.0, 104.0)
"""ImageNet's mean colour, which normalising turns into zero."""

Matrix = Float64[np.ndarray, "2 3"]
NEARLY = 1e-6
"""Pixels; map results that are this near a whole number are meant to be whole."""


@dataclass(frozen=True, eq=False)
class Warp:
    """An affine map.

    Attributes:
        matrix: new x, y from old x, y, 1.
        source_hw: size of the picture it is for.
        size_hw: size of the picture that comes out.
        window_xyxy: the part of the source that is shown, whole pixels; beyond it is fill.
        fill: colour outside; None where nothing lies outside, so that it never matters.
        keep: which objects stay.
        joint_swaps: joints that change places, pair by pair in this order.
        predicate_swaps: predicates of relations that change places ("left of" with "right of").
    """

    matrix: Matrix
    source_hw: tuple[int, int]
    size_hw: tuple[int, int]
    window_xyxy: tuple[int, int, int, int]
    fill: Fill | None = None
    keep: Keep = KEEP
    joint_swaps: Pairs = field(default=())
    predicate_swaps: Pairs = field(default=())

    @classmethod
    def whole(
        cls, matrix: Matrix, source_hw: tuple[int, int], size_hw: tuple[int, int], fill: Fill | None = None
    ) -> "Warp":
        """A map that shows all of the source that falls into the new picture."""
        return cls(matrix, source_hw, size_hw, (0, 0, source_hw[1], source_hw[0]), fill)

    @classmethod
    def identity(cls, size_hw: tuple[int, int]) -> "Warp":
        """The map that changes nothing."""
        return cls.whole(np.eye(2, 3), size_hw, size_hw)

    @classmethod
    def resize(cls, source_hw: tuple[int, int], size_hw: tuple[int, int]) -> "Warp":
        """All of the picture at another size."""
        scales = size_hw[1] / source_hw[1], size_hw[0] / source_hw[0]
        return cls.whole(np.array([[scales[0], 0, 0], [0, scales[1], 0]]), source_hw, size_hw)

    @classmethod
    def cut(
        cls, source_hw: tuple[int, int], corner_xy: tuple[int, int], size_hw: tuple[int, int], fill: Fill | None = None
    ) -> "Warp":
        """The rectangle of `size_hw` whose top-left corner is `corner_xy`; it may reach beyond the picture on any
        side.
        """
        x, y = corner_xy
        window = max(x, 0), max(y, 0), min(x + size_hw[1], source_hw[1]), min(y + size_hw[0], source_hw[0])
        window = window[0], window[1], max(window[0], window[2]), max(window[1], window[3])
        return cls(np.array([[1.0, 0, -x], [0, 1.0, -y]]), source_hw, size_hw, window, fill)

    @cached_property
    def inverse(self) -> Matrix:
        """Old x, y from new x, y, 1."""
        linear = np.linalg.inv(self.matrix[:, :2]) if not self.is_upright else np.diag(1 / np.diag(self.matrix[:, :2]))
        return np.column_stack([linear, -linear @ self.matrix[:, 2]])

    @cached_property
    def is_upright(self) -> bool:
        """Rows stay rows: no rotation and no shear, but perhaps a mirror."""
        return bool(self.matrix[0, 1] == 0 == self.matrix[1, 0])

    @property
    def keeps_boxes_tight(self) -> bool:
        """Rectangles become rectangles."""
        return self.is_upright or bool(self.matrix[0, 0] == 0 == self.matrix[1, 1])

    @property
    def is_identity(self) -> bool:
        """Nothing changes at all."""
        same = self.source_hw == self.size_hw and not self.joint_swaps and not self.predicate_swaps
        whole = self.window_xyxy == (0, 0, self.source_hw[1], self.source_hw[0])
        return same and whole and bool(np.array_equal(self.matrix, np.eye(2, 3)))

    @property
    def area_scale(self) -> float:
        """Factor by which areas grow."""
        return abs(float(np.linalg.det(self.matrix[:, :2])))

    def points(self, points_xy: Float64[np.ndarray, "*N 2"]) -> Float64[np.ndarray, "*N 2"]:
        """Where points go."""
        return points_xy @ self.matrix[:, :2].T + self.matrix[:, 2]

    def boxes(self, boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
        """Bounds of where boxes go, not cut to the picture."""
        return _boxes(self.matrix, boxes_xyxy)

    def image(self, image: Shaped[Tensor, "C _h _w"]) -> Shaped[Tensor, "C _h2 _w2"]:
        """The picture, interpolated."""
        from bestiary.transforms.resampling import warp_image

        return warp_image(image, self)

    def nearest(self, maps: Shaped[Tensor, "*C _h _w"], fill: float) -> Shaped[Tensor, "*C _h2 _w2"]:
        """Maps whose values may not be mixed: each new pixel has the value of the old pixel that its centre falls
        into.
        """
        from bestiary.transforms.resampling import warp_nearest

        return warp_nearest(maps, self, fill)

    def masks(self, masks: Bool[Tensor, "N _h _w"], bounds_xyxy: Int64[np.ndarray, "N 4"]) -> Bool[Tensor, "N _h2 _w2"]:
        """Like `nearest`, looking only within `bounds_xyxy`, outside which each mask is empty."""
        from bestiary.transforms.resampling import warp_masks

        return warp_masks(masks, bounds_xyxy, self)

    def turn(
        self, intrinsics: Float64[np.ndarray, "3 3"] | None
    ) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "2 2"]]:
        """The camera that would take the new picture: its intrinsics, and its x, y axes' coordinates in the old ones.

        A map A of pixels after intrinsics K is `A K = K' R` with K' upper triangular and R orthogonal (an RQ
        decomposition): R turns or mirrors the camera frame, K' is the new camera. Without a camera, square pixels are
        assumed.
        """
        old = np.eye(3) if intrinsics is None else intrinsics
        whole = np.vstack([self.matrix, [0, 0, 1]]) @ old
        (a, b), (c, d) = whole[:2, :2]
        fy = float(np.hypot(c, d))
        down = np.array([c, d]) / fy
        right = np.array([down[1], -down[0]])
        right = right if np.array([a, b]) @ right > 0 else -right
        new = np.eye(3)
        new[0, :2] = np.array([a, b]) @ right, np.array([a, b]) @ down
        new[1, 1], new[:2, 2] = fy, whole[:2, 2]
        new[0, 1] = 0.0 if abs(new[0, 1]) < 1e-9 * fy else new[0, 1]
        return new, np.stack([right, down]) + 0.0  # no negative zeros

    def then(self, after: "Warp") -> "Warp | None":
        """One map for this and `after`, or None if that would show pixels that going through both would have cut
        away.
        """
        if self.fill is not None and after.fill is not None and self.fill != after.fill:
            return None
        window = self._seen_through(after)
        if window is None:
            return None
        linear = after.matrix[:, :2] @ self.matrix[:, :2]
        matrix = np.column_stack([linear, after.matrix[:, :2] @ self.matrix[:, 2] + after.matrix[:, 2]])
        return replace(
            self,
            matrix=matrix,
            size_hw=after.size_hw,
            window_xyxy=window,
            fill=after.fill if self.fill is None else self.fill,
            keep=self.keep.strictest(after.keep),
            joint_swaps=self.joint_swaps + after.joint_swaps,
            predicate_swaps=self.predicate_swaps + after.predicate_swaps,
        )

    def _seen_through(self, after: "Warp") -> tuple[int, int, int, int] | None:
        """The part of the source that both maps show, if it is a rectangle of whole pixels."""
        height, width = self.size_hw
        here = np.array([0, 0, width, height], dtype=np.float64)
        if after.window_xyxy == (0, 0, width, height) and _contains(here, self.boxes(_row(self.window_xyxy))[0]):
            return self.window_xyxy  # this map cuts nothing away
        if self.keeps_boxes_tight:
            rectangle = _boxes(self.inverse, _row(after.window_xyxy))[0]
            whole = np.round(rectangle)
            if np.abs(rectangle - whole).max() <= NEARLY:
                x1, y1, x2, y2 = self.window_xyxy
                low = np.maximum(whole[:2], [x1, y1])
                high = np.maximum(low, np.minimum(whole[2:], [x2, y2]))
                return int(low[0]), int(low[1]), int(high[0]), int(high[1])
        asked = _boxes(after.inverse, _row((0, 0, after.size_hw[1], after.size_hw[0])))[0]
        return self.window_xyxy if _contains(_row(after.window_xyxy)[0], asked) else None


def corners(boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4 2"]:
    """The four corners of each box."""
    return boxes_xyxy[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]


def bounds_of_corners(points_xy: Float64[np.ndarray, "N P 2"]) -> Float64[np.ndarray, "N 4"]:
    """The smallest box around each group of points."""
    return np.concatenate([points_xy.min(1), points_xy.max(1)], axis=1)


def fill_values(fill: Fill | None, channels: int, dtype: torch.dtype) -> tuple[float, ...]:
    """`fill` for each channel of a picture of this type; the mean of its numbers where they are not one for each
    channel.
    """
    numbers = MEAN_COLOUR if fill is None else fill
    values = (numbers,) * channels if isinstance(numbers, int | float) else tuple(numbers)
    if len(values) != channels:
        values = (sum(values) / len(values),) * channels
    return tuple(float(round(v)) for v in values) if dtype == torch.uint8 else tuple(v / 255 for v in values)


def _boxes(matrix: Matrix, boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
    return bounds_of_corners(corners(boxes_xyxy) @ matrix[:, :2].T + matrix[:, 2])


def _row(box_xyxy: tuple[int, int, int, int]) -> Float64[np.ndarray, "1 4"]:
    return np.array([box_xyxy], dtype=np.float64)


def _contains(outer_xyxy: Float64[np.ndarray, "4"], inner_xyxy: Float64[np.ndarray, "4"]) -> bool:
    low = (inner_xyxy[:2] >= outer_xyxy[:2] - NEARLY).all()
    return bool(low and (inner_xyxy[2:] <= outer_xyxy[2:] + NEARLY).all())
