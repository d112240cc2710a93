"""Text on pictures, in any script for which a font can be found.

Pillow sets the letters (OpenCV before version 5 knows ASCII only). The font is DejaVu Sans, which comes with
matplotlib; for scripts that it lacks (Chinese, Japanese, Korean ...) the system's own fonts are asked, and the first
that has the letters is taken.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import close_canvas, open_canvas, text_height
from bestiary.draw.colours import Colour, ink_on

SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "msyh.ttc", "meiryo.ttc",
    "malgun.ttf", "Hiragino Sans GB.ttc", "PingFang.ttc", "Arial Unicode.ttf", "arialuni.ttf", "unifont.ttf",
)  # fmt: skip
PADDING = 2
"""Pixels around the text of a chip."""


@functools.cache
def _font_files() -> tuple[str, ...]:
    from importlib.util import find_spec

    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return SYSTEM_FONTS
    return (str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), *SYSTEM_FONTS)


@functools.cache
def _open_font(file: str, height: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(file, height)
    except OSError:
        return None


@functools.cache
def _missing_glyph(file: str, height: int) -> bytes:
    return bytes(_open_font(file, height).getmask("\U0010fffe"))


def _has_letters(file: str, height: int, text: str) -> bool:
    if text.isascii():
        return True
    missing = _missing_glyph(file, height)
    letters = {c for c in text if not c.isspace()}
    return all(bytes(_open_font(file, height).getmask(letter)) != missing for letter in letters)


def _font_for(text: str, height: int) -> Any:
    opened = [file for file in _font_files() if _open_font(file, height) is not None]
    for file in opened:
        if _has_letters(file, height, text):
            return _open_font(file, height)
    if opened:
        return _open_font(opened[0], height)
    from PIL import ImageFont

    return ImageFont.load_default(height)


@functools.lru_cache(maxsize=512)
def set_text(text: str, height: int) -> UInt8[np.ndarray, "H W"]:
    """The coverage 0..255 of one line of text, tight in width, with the full line height of its font.

    Args:
        text: one line; line breaks become spaces.
        height: em, pixels.
    """
    line = " ".join(text.split()) or " "
    font = _font_for(line, height)
    ascent, descent = font.getmetrics() if hasattr(font, "getmetrics") else (height, height // 4)
    left, _, right, bottom = font.getbbox(line)
    picture = np.zeros((max(ascent + descent, bottom), max(1, right - min(left, 0))), dtype=np.uint8)
    mask, (dx, dy) = font.getmask2(line, mode="L")
    letters = np.array(mask, dtype=np.uint8).reshape(mask.size[::-1])
    dx, dy = dx - min(left, 0), max(0, dy)
    rows, columns = min(letters.shape[0], picture.shape[0] - dy), min(letters.shape[1], picture.shape[1] - dx)
    picture[dy : dy + rows, dx : dx + columns] = letters[:rows, :columns]
    return picture


def chip_size_hw(text: str, height: int) -> tuple[int, int]:
    """Size of the chip that `put_chip` paints."""
    rows, columns = set_text(text, height).shape
    return rows + 2, columns + 2 * PADDING


def put_chip(
    canvas: UInt8[np.ndarray, "H W 3"], text: str, height: int, corner_xy: tuple[int, int], colour: Colour
) -> None:
    """Paint a filled box with its top left corner at `corner_xy` and the text on it in black or white, cut at the
    picture's edge."""
    rows, columns = chip_size_hw(text, height)
    x, y = corner_xy
    chip = np.empty((rows, columns, 3), dtype=np.uint8)
    chip[:] = colour
    cover = set_text(text, height)[..., None].astype(np.float32) / 255
    inner = chip[1:-1, PADDING:-PADDING]
    inner[:] = (inner + (np.asarray(ink_on(colour), dtype=np.float32) - inner) * cover + 0.5).astype(np.uint8)
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + columns, canvas.shape[1]), min(y + rows, canvas.shape[0])
    if x1 < x2 and y1 < y2:
        canvas[y1:y2, x1:x2] = chip[y1 - y : y2 - y, x1 - x : x2 - x]


def fit_text(text: str, height: int, width: int) -> tuple[str, int] | None:
    """The text and em height at which it fits `width` pixels: smaller down to 7, then cut with an ellipsis; None if
    not even that fits."""
    for size in range(height, 6, -1):
        if chip_size_hw(text, size)[1] <= width:
            return text, size
    for length in range(len(text) - 1, 1, -1):
        if chip_size_hw(text[:length] + "…", 7)[1] <= width:
            return text[:length] + "…", 7
    return None


def text_lines(image: Shaped[Tensor, "C H W"], lines: Sequence[str]) -> UInt8[Tensor, "3 H W"]:
    """The picture with lines of text in its top left corner, white on black; lines that do not fit are left out."""
    canvas = open_canvas(image)
    top = 0
    for line in lines:
        fitted = fit_text(line, text_height(canvas), canvas.shape[1])
        if fitted is None:
            continue
        rows = chip_size_hw(*fitted)[0]
        if top + rows > canvas.shape[0]:
            break
        put_chip(canvas, *fitted, (0, top), (0, 0, 0))
        top += rows
    return close_canvas(canvas)
