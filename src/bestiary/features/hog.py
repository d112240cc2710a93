"""Histograms of oriented gradients: Dalal, Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005.

Each block of 2 x 2 cells has a histogram of unsigned gradient orientations for each of its cells, and is normalised as
a whole; blocks overlap, so a cell stands in up to four of them, each time under another light.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from bestiary.layers.scaling import as_float
from bestiary.ops._kernels.threads import in_threads
from bestiary.records import require


@dataclass(frozen=True)
class HogLayout:
    """What a block is; the defaults are the paper's R-HOG.

    Attributes:
        cell: side of a cell, pixels.
        cells: of a block, a side.
        bins: orientations, over half a turn.
        sigma: of the Gaussian that weighs a block's pixels, in block sides (the paper: 0.5); None weighs all alike.
        clip: largest number of a normalised block (L2-Hys).
        epsilon: added in quadrature to a block's length, in grey levels 0..255: much weaker blocks fade.
        root: gradients of the square roots of the colours; the paper's default detector uses the colours.

    Raises:
        RecordError: a number out of its range.
    """

    cell: int = 8
    cells: int = 2
    bins: int = 9
    sigma: float | int | None = None
    clip: float | int = 0.2
    epsilon: float | int = 3.6
    root: bool = False

    def __post_init__(self) -> None:
        require(self.cell >= 2, "HogLayout.cell", self.cell, "2 or more")
        require(self.cells >= 1, "HogLayout.cells", self.cells, "1 or more")
        require(2 <= self.bins <= 180, "HogLayout.bins", self.bins, "2 to 180")
        require(self.sigma is None or self.sigma > 0, "HogLayout.sigma", self.sigma, "more than 0, or None")
        require(self.clip > 0, "HogLayout.clip", self.clip, "more than 0")
        require(self.epsilon > 0, "HogLayout.epsilon", self.epsilon, "more than 0")

    @property
    def channels(self) -> int:
        """Numbers a block: 36."""
        return self.cells * self.cells * self.bins

    @property
    def block(self) -> int:
        """Side of a block, pixels; the next begins one cell further."""
        return self.cell * self.cells

    def grid_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of blocks in a picture or window."""
        height, width = (max(0, (side - self.block) // self.cell + 1) for side in size_hw)
        return height, width

    def length(self, window_hw: tuple[int, int]) -> int:
        """Numbers that describe a window: 3,780 for 128 x 64."""
        rows, columns = self.grid_hw(window_hw)
        return rows * columns * self.channels

    def cell_weights(self) -> Float32[Tensor, "side cells"]:
        """Share of a pixel at each place along a block's side in each of the block's cells.

        Linear between the centres of cells; what a pixel near the block's border would give to a cell outside is lost.
        """
        places = torch.arange(self.block, dtype=torch.float64) + 0.5
        centres = (torch.arange(self.cells, dtype=torch.float64) + 0.5) * self.cell
        shares = (1 - (places[:, None] - centres).abs() / self.cell).clamp(min=0)
        if self.sigma is not None:
            away = (places - self.block / 2) / (self.sigma * self.block)
            shares = shares * (-0.5 * away.square()).exp()[:, None]
        return shares.float()


PAPER = HogLayout()
"""8 x 8 pixels a cell, 2 x 2 cells a block, 9 orientations, no Gaussian."""


def hog_levels(image: Shaped[Tensor, "C H W"], root: bool = False) -> Float32[Tensor, "C H W"]:
    """Colours as gradients are taken of them: 0..255, or 255 times the root of 0..1."""
    if image.dtype == torch.uint8 and not root:
        return image.float()
    shares = as_float(image)
    return (shares.clamp(min=0).sqrt() if root else shares).float() * 255


def block_histograms(
    image: Shaped[Tensor, "C H W"],
    layout: HogLayout = PAPER,
    weights: Float32[Tensor, "side cells"] | None = None,
) -> Float32[Tensor, "Y X D"]:
    """Histograms of the blocks before they are normalised: (cell row, cell column, orientation).

    Gradients are differences of the two neighbours, without smoothing, of the channel in which they are largest.

    Args:
        image: uint8 0..255 or float 0..1, any channels.
        layout: of the blocks.
        weights: in place of the layout's `cell_weights`.
    """
    from bestiary.features._kernels import hog as kernels

    require(image.ndim == 3 and image.shape[0] > 0, "hog(image)", f"shape {tuple(image.shape)}", "(C, H, W)")
    rows, columns = layout.grid_hw((int(image.shape[1]), int(image.shape[2])))
    out = np.empty((rows, columns, layout.channels), np.float32)
    if not out.size:
        return torch.from_numpy(out)
    levels = hog_levels(image.detach().cpu(), layout.root).contiguous().numpy()
    shares = (layout.cell_weights() if weights is None else weights).contiguous().numpy()
    low = np.empty(levels.shape[1:], np.uint8)
    low_vote, high_vote = np.empty(levels.shape[1:], np.float32), np.empty(levels.shape[1:], np.float32)

    def orient(start: int, stop: int) -> None:
        kernels.orient_gradients(levels, start, stop, layout.bins, low, low_vote, high_vote)

    def gather(start: int, stop: int) -> None:
        kernels.gather_blocks(low, low_vote, high_vote, layout.bins, layout.cell, shares, start, stop, out)

    threads = torch.get_num_threads()
    in_threads(orient, levels.shape[1], threads, grain=1 + _GRAIN // levels.shape[2])
    in_threads(gather, rows, threads, grain=1 + _GRAIN // (levels.shape[2] * layout.block))
    return torch.from_numpy(out)


_GRAIN = 20_000
"""Pixels that are worth a thread."""


def hog(image: Shaped[Tensor, "C H W"], layout: HogLayout = PAPER) -> Float32[Tensor, "Y X D"]:
    """The blocks of a picture, one a cell's step: each 36 numbers of length 1, or 0 where it has no gradient.

    Args:
        image: uint8 0..255 or float 0..1, any channels. Smaller than a block, it has none.
        layout: of the blocks.
    """
    from bestiary.features._kernels.hog import normalise_blocks

    blocks = block_histograms(image, layout)
    normalise_blocks(blocks.numpy(), 0, len(blocks), float(layout.epsilon), float(layout.clip))
    return blocks


def window_length(window_hw: tuple[int, int], layout: HogLayout = PAPER) -> int:
    """As `HogLayout.length`; raises for a window that is no whole number of cells, or smaller than a block.

    Raises:
        RecordError: see above.
    """
    fits = all(side % layout.cell == 0 and side >= layout.block for side in window_hw)
    wanted = f"multiples of {layout.cell} from {layout.block} on"
    require(fits, "window", f"{window_hw[1]} x {window_hw[0]}", wanted)
    return layout.length(window_hw)


def template_picture(
    weight: Float32[Tensor, "Y X D"], layout: HogLayout = PAPER, side: int = 16
) -> Float32[Tensor, "H W"]:
    """The positive weights of a template as strokes along the edges they ask for, 0..1: for people to look at.

    Args:
        weight: of each block.
        layout: of the blocks.
        side: pixels a cell in the picture.
    """
    rows, columns, _ = weight.shape
    cells = torch.zeros(rows + layout.cells - 1, columns + layout.cells - 1, layout.bins)
    parts = weight.clamp(min=0).reshape(rows, columns, layout.cells, layout.cells, layout.bins)
    for i in range(layout.cells):
        for j in range(layout.cells):
            cells[i : i + rows, j : j + columns] += parts[:, :, i, j]
    places = (torch.arange(side) + 0.5) / side - 0.5
    y, x = torch.meshgrid(places, places, indexing="ij")
    strokes = []
    for k in range(layout.bins):
        gradient = (k + 0.5) * math.pi / layout.bins
        off = (x * math.cos(gradient) + y * math.sin(gradient)).abs() * side
        strokes.append((1 - off).clamp(min=0) * (x.hypot(y) < 0.5))
    picture = torch.einsum("yxk,kij->yixj", cells, torch.stack(strokes)).reshape(cells.shape[0] * side, -1)
    return picture / picture.max().clamp(min=1e-12)
