"""The overlap-tile strategy: a picture of any size through a network that shrinks, tile by tile, without a seam.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, section 2 and figure 2: predicting a tile needs more input than it
covers; what lies outside the picture is extrapolated by mirroring.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from bestiary.errors import RecordError, UsageError


@dataclass(frozen=True)
class InputGeometry:
    """Which sizes of input suit a network, and where its output lies within them.

    Attributes:
        margin: pixels that the output lacks on every side, of a network without padding.
        grid: product of the pooling strides. A tile sees the pixels in the same pooling cells as the whole picture
            does only if its origin is a multiple of it.
        smallest: smallest output; the others are larger by multiples of `grid`.
    """

    margin: int = 0
    grid: int = 1
    smallest: int = 1

    def __post_init__(self) -> None:
        if self.margin < 0 or self.grid < 1 or self.smallest < 1:
            raise UsageError(f"got {self}, wanted a margin of 0 or more, the others at least 1", where="InputGeometry")

    def fits(self, side: int) -> bool:
        """Whether an input of `side` pixels gives whole numbers at every level."""
        spare = side - 2 * self.margin - self.smallest
        return spare >= 0 and spare % self.grid == 0

    def nearest(self, side: int) -> tuple[int, ...]:
        """The legal input sides around `side`: the next smaller one, if there is one, and the next larger one."""
        least = 2 * self.margin + self.smallest
        below = least + (side - least) // self.grid * self.grid
        return (below, below + self.grid) if below >= least else (least,)

    def covering(self, side: int) -> int:
        """The smallest legal output that covers `side` pixels."""
        return self.smallest + self.grid * max(0, -(-(side - self.smallest) // self.grid))

    def require(self, size_hw: tuple[int, int]) -> None:
        """Raise `RecordError` that computes the legal sizes next to `size_hw`, unless it is legal itself."""
        if all(self.fits(side) for side in size_hw):
            return
        height, width = (" or ".join(map(str, self.nearest(side))) for side in size_hw)
        wanted = f"sides of {2 * self.margin + self.smallest} + {self.grid} n"
        raise RecordError(
            f"got an input of {size_hw[0]} x {size_hw[1]}, wanted {wanted}",
            where="pixels",
            mend=f"The nearest legal height is {height}, width {width}; predict and loss extend pictures themselves.",
        )


@dataclass(frozen=True)
class Tiles:
    """Tiles of equal size along one side: origins in the output, and how many pixels each predicts."""

    origins: tuple[int, ...]
    side: int


def plan_tiles(side: int, geometry: InputGeometry, largest: int) -> Tiles:
    """The fewest tiles of at most `largest` output pixels that cover `side` pixels, of as equal a size as the grid
    allows.

    Origins are multiples of `geometry.grid`, so that the tiles together equal the prediction of the whole picture; they
    overlap by `geometry.smallest` pixels at least. (Stepping by 388, the paper's own output size, would not: 388 is no
    multiple of 16.)

    Raises:
        UsageError: `largest` is below the first tile that can step.
    """
    if largest < geometry.smallest + geometry.grid:
        raise UsageError(
            f"got tiles of {largest} pixels, wanted at least {geometry.smallest + geometry.grid}", where="tile_output"
        )
    cells = (geometry.covering(side) - geometry.smallest) // geometry.grid
    cells_a_tile = (largest - geometry.smallest) // geometry.grid
    count = max(1, -(-cells // cells_a_tile))
    step = -(-cells // count)
    origins = tuple(min(i * step, cells - step) * geometry.grid for i in range(count))
    return Tiles(origins, step * geometry.grid + geometry.smallest)


def mirror_indices(start: int, stop: int, side: int, device: torch.device | None = None) -> Int64[Tensor, " N"]:
    """For each of the positions `start..stop` the pixel `0..side` that mirroring puts there.

    The mirror stands on the centre of the border pixel, which is not repeated; beyond one picture's width the
    reflections go on, so a picture of a single pixel fills any plane.
    """
    positions = torch.arange(start, stop, device=device)
    period = max(1, 2 * (side - 1))
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded) if side > 1 else torch.zeros_like(folded)


def mirror_window(
    image: Shaped[Tensor, "*B H W"], top: int, left: int, size_hw: tuple[int, int]
) -> Shaped[Tensor, "*B H2 W2"]:
    """The window of `size_hw` at (`top`, `left`), which may lie anywhere, of the picture mirrored at its borders.

    Raises:
        RecordError: the picture has no pixel.
    """
    height, width = int(image.shape[-2]), int(image.shape[-1])
    if height < 1 or width < 1:
        raise RecordError(f"got a picture of {height} x {width}, wanted at least one pixel", where="images")
    inside = top >= 0 and left >= 0 and top + size_hw[0] <= height and left + size_hw[1] <= width
    if inside:
        return image[..., top : top + size_hw[0], left : left + size_hw[1]]
    rows = mirror_indices(top, top + size_hw[0], height, image.device)
    columns = mirror_indices(left, left + size_hw[1], width, image.device)
    return image.index_select(-2, rows).index_select(-1, columns)
