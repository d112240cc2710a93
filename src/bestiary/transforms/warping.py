"""Elastic deformation."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from bestiary.records import Sample
from bestiary.transforms.keep import KEEP, Keep
from bestiary.transforms.moving import move
from bestiary.transforms.transform import Described, require_argument
from bestiary.transforms.warp import MEAN_COLOUR, Fill, Pairs, bounds_of_corners, fill_values

EDGE_POINTS = 16
"""Points along each side of a box whose bounds stand for the bent box."""


@dataclass(frozen=True, repr=False)
class Elastic(Described):
    """A smooth random deformation (Ronneberger et al., U-Net, MICCAI 2015, section 3.1).

    Displacements of a coarse grid are drawn from a normal distribution and interpolated bicubically to every pixel;
    the grid's outer points lie on the picture's corners and edges. Each new pixel shows the old one at its place plus
    its displacement.

    Attributes:
        displacement: standard deviation, pixels; the paper's 10 (for pictures of 512 pixels).
        grid: points along each side; the paper's 3.
        fill: colour outside the picture.
        keep: which objects stay.
    """

    displacement: float = 10.0
    grid: int = 3
    fill: Fill = MEAN_COLOUR
    keep: Keep = KEEP

    def __post_init__(self) -> None:
        require_argument(self.displacement >= 0, "Elastic(displacement)", self.displacement, "at least 0")
        require_argument(self.grid >= 2, "Elastic(grid)", self.grid, "at least 2")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The deformed sample."""
        coarse = rng.normal(0.0, self.displacement, (2, self.grid, self.grid))
        if self.displacement == 0:
            return sample
        return move(sample, Field(displacements(coarse, sample.size_hw), self.fill, self.keep))


def displacements(
    coarse: Float64[np.ndarray, "2 _rows _columns"], size_hw: tuple[int, int]
) -> Float32[np.ndarray, "2 H W"]:
    """A grid of displacements (x, y), which ends on the picture's edges, at every pixel's centre; Catmull-Rom."""
    down, across = (_weights(points, side) for points, side in zip(coarse.shape[1:], size_hw, strict=True))
    return (down @ coarse @ across.T).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Field:
    """A map that says for each new pixel which old point it shows: `old = new + shift(new)`.

    Attributes:
        shift: x and y displacement at each pixel's centre.
        fill: colour outside.
        keep: which objects stay.
    """

    shift: Float32[np.ndarray, "2 H W"]
    fill: Fill = MEAN_COLOUR
    keep: Keep = KEEP
    joint_swaps: Pairs = ()
    predicate_swaps: Pairs = ()
    is_identity: bool = False
    keeps_boxes_tight: bool = False
    area_scale: float = 1.0

    @property
    def size_hw(self) -> tuple[int, int]:
        """Size of the new picture, that of the old."""
        return self.shift.shape[1], self.shift.shape[2]

    @cached_property
    def old_xy(self) -> tuple[Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
        """The old point of each new pixel's centre."""
        height, width = self.size_hw
        xs = self.shift[0] + (np.arange(width, dtype=np.float32) + 0.5)
        return xs, self.shift[1] + (np.arange(height, dtype=np.float32) + 0.5)[:, None]

    def points(self, points_xy: Float64[np.ndarray, "*N 2"]) -> Float64[np.ndarray, "*N 2"]:
        """Where old points go: `new = old - shift(new)`, iterated.

        It converges where the map does not fold, that is where displacements differ by less than the distance of
        their places.
        """
        old = points_xy.reshape(-1, 2)
        new = old.copy()
        for _ in range(50):
            step = old - self._shift_at(new) - new
            new += step
            if not len(new) or np.abs(step).max() < 1e-4:
                break
        return new.reshape(points_xy.shape)

    def boxes(self, boxes_xyxy: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
        """Bounds of the bent outlines."""
        t = np.linspace(0, 1, EDGE_POINTS)[:, None]
        x1, y1, x2, y2 = (boxes_xyxy[None, :, k] for k in range(4))
        across, down = x1 + t * (x2 - x1), y1 + t * (y2 - y1)
        still_x, still_y = np.zeros_like(across), np.zeros_like(down)
        xs = np.concatenate([across, across, still_x + x1, still_x + x2])
        ys = np.concatenate([still_y + y1, still_y + y2, down, down])
        return bounds_of_corners(self.points(np.stack([xs, ys], axis=-1)).transpose(1, 0, 2))

    def image(self, image: Shaped[Tensor, "C _h _w"]) -> Shaped[Tensor, "C _h2 _w2"]:
        """The picture, bilinear."""
        import cv2

        from bestiary.transforms.resampling import in_groups, packed, to_image, to_pixels

        xs, ys = (v - np.float32(0.5) for v in self.old_xy)

        def sample(part: np.ndarray, colour: tuple[float, ...]) -> np.ndarray:
            return cv2.remap(part, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=colour)

        fill = fill_values(self.fill, image.shape[0], image.dtype)
        return to_image(in_groups(packed(to_pixels(image)), fill, sample))

    def nearest(self, maps: Shaped[Tensor, "*C _h _w"], fill: float) -> Shaped[Tensor, "*C _h2 _w2"]:
        """Each new pixel has the value of the old pixel that its old point falls into."""
        from bestiary.transforms._kernels import sample_field

        out = torch.full(maps.shape, fill, dtype=maps.dtype)
        sources = maps.contiguous().view(-1, *maps.shape[-2:]).numpy()
        for source, target in zip(sources, out.view(-1, *maps.shape[-2:]).numpy(), strict=True):
            sample_field(source, *self.old_xy, target)
        return out

    def masks(self, masks: Bool[Tensor, "N _h _w"], bounds_xyxy: Int64[np.ndarray, "N 4"]) -> Bool[Tensor, "N _h2 _w2"]:
        """Like `nearest`."""
        return self.nearest(masks.view(torch.uint8), 0.0).view(torch.bool)

    def turn(self, intrinsics: Float64[np.ndarray, "3 3"] | None) -> None:
        """No camera takes a bent picture."""

    def _shift_at(self, points_xy: Float64[np.ndarray, "P 2"]) -> Float64[np.ndarray, "P 2"]:
        """Displacement at any points, bilinear between pixel centres, constant beyond the outermost."""
        height, width = self.size_hw
        x = np.clip(points_xy[:, 0] - 0.5, 0, width - 1)
        y = np.clip(points_xy[:, 1] - 0.5, 0, height - 1)
        x0, y0 = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
        x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
        fx, fy = x - x0, y - y0
        top = self.shift[:, y0, x0] * (1 - fx) + self.shift[:, y0, x1] * fx
        bottom = self.shift[:, y1, x0] * (1 - fx) + self.shift[:, y1, x1] * fx
        return (top * (1 - fy) + bottom * fy).T.astype(np.float64)


def _weights(points: int, side: int) -> Float64[np.ndarray, "side points"]:
    """Cubic convolution (a = -1/2) from `points` over the length of `side` pixels to the pixels' centres; ends are
    continued linearly.
    """
    place = (np.arange(side) + 0.5) / side * (points - 1)
    first = np.minimum(place.astype(int), points - 2)
    t = place - first
    cubic = (
        np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1) / 2
    )
    padded = np.zeros((side, points + 2))  # one point beyond each end
    for k in range(4):
        padded[np.arange(side), first + k] += cubic[:, k]
    weights = padded[:, 1:-1].copy()
    weights[:, 0] += 2 * padded[:, 0]  # p[-1] = 2 p[0] - p[1]
    weights[:, 1] -= padded[:, 0]
    weights[:, -1] += 2 * padded[:, -1]
    weights[:, -2] -= padded[:, -1]
    return weights
