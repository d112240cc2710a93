"""Several pictures on one sheet."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import close_canvas, open_canvas, text_height
from bestiary.draw.text import chip_size_hw, fit_text, put_chip
from bestiary.errors import RecordError

PAPER = (255, 255, 255)


def grid(
    pictures: Sequence[Shaped[Tensor, "_c _h _w"]], columns: int, titles: Sequence[str] = (), gap: int = 4
) -> UInt8[Tensor, "3 H W"]:
    """Pictures in rows of `columns`, each in the top left of a cell that fits the largest, `gap` white pixels apart.

    Args:
        pictures: of any sizes and channels; at least one.
        columns: of the grid; fewer pictures than that make a narrower sheet.
        titles: one a picture, written above it, or none at all.
        gap: pixels between cells.

    Raises:
        RecordError: no picture, no column, or not one title a picture.
    """
    if not pictures or columns < 1:
        raise RecordError(
            f"got {len(pictures)} pictures in {columns} columns, wanted one or more of each", where="draw.grid"
        )
    if titles and len(titles) != len(pictures):
        raise RecordError(f"got {len(titles)} titles, wanted {len(pictures)}, one a picture", where="draw.grid(titles)")
    canvases = [_titled(open_canvas(p), titles[i]) if titles else open_canvas(p) for i, p in enumerate(pictures)]
    height, width = (max(c.shape[axis] for c in canvases) for axis in (0, 1))
    columns = min(columns, len(canvases))
    rows = math.ceil(len(canvases) / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), PAPER, dtype=np.uint8)
    for i, canvas in enumerate(canvases):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[y : y + canvas.shape[0], x : x + canvas.shape[1]] = canvas
    return close_canvas(sheet)


def side_by_side(
    left: Shaped[Tensor, "_c _h _w"], right: Shaped[Tensor, "_c2 _h2 _w2"], titles: tuple[str, str] | None = None
) -> UInt8[Tensor, "3 H W"]:
    """Two pictures beside each other, with a title above each: truth and prediction, before and after."""
    return grid([left, right], 2, titles or ())


def _titled(canvas: np.ndarray, title: str) -> np.ndarray:
    """The picture under a white strip of one line; the strip is the same for all pictures of one size, so that rows
    align."""
    height = text_height(canvas)
    strip = np.full((chip_size_hw("Ag", height)[0], canvas.shape[1], 3), PAPER, dtype=np.uint8)
    fitted = fit_text(title, height, canvas.shape[1]) if title else None
    if fitted is not None:
        put_chip(strip, *fitted, (0, 0), PAPER)
    return np.concatenate([strip, canvas])
