"""Pictures as arrays to paint on, and how thick a line and how high a letter fit their size."""

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from bestiary.errors import RecordError


def open_canvas(image: Shaped[Tensor, "C H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """A fresh RGB copy of the picture; what is painted on it never reaches `image`.

    Args:
        image: uint8 0..255, bool, or floating 0..1 (clipped; NaN is black). Of one or two channels the first is shown
            as grey, of four and more the first three as RGB.

    Raises:
        RecordError: other types or shapes.
    """
    if image.ndim != 3 or image.shape[0] == 0:
        raise RecordError(f"got shape {tuple(image.shape)}, wanted (C, H, W) with C >= 1", where="draw(image)")
    picture = image.detach().cpu()
    picture = picture[:3] if picture.shape[0] >= 3 else picture[:1].expand(3, -1, -1)
    if picture.is_floating_point():
        picture = (
            (torch.nan_to_num(picture.float(), nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1) * 255)
            .round()
            .to(torch.uint8)
        )
    elif picture.dtype == torch.bool:
        picture = picture.to(torch.uint8) * 255
    elif picture.dtype != torch.uint8:
        raise RecordError(f"got {picture.dtype}, wanted uint8 0..255 or floating 0..1", where="draw(image)")
    return picture.permute(1, 2, 0).contiguous().numpy().copy()


def close_canvas(canvas: UInt8[np.ndarray, "H W 3"]) -> UInt8[Tensor, "3 H W"]:
    """The painted picture as a tensor."""
    return torch.from_numpy(canvas).permute(2, 0, 1).contiguous()


def line_width(canvas: UInt8[np.ndarray, "H W 3"]) -> int:
    """Pixels: 1 up to a shorter side of 300, 2 at 400, 5 at 1000."""
    return max(1, round(min(canvas.shape[:2]) / 200))


def text_height(canvas: UInt8[np.ndarray, "H W 3"]) -> int:
    """Pixels of a font's em: 9 for tiny pictures, a thirtieth of the shorter side for larger ones."""
    return max(9, min(48, round(min(canvas.shape[:2]) / 30)))


def blend(canvas: UInt8[np.ndarray, "H W 3"], mask: np.ndarray, colour: tuple[int, int, int], opacity: float) -> None:
    """Mix `colour` into the pixels `[H, W]` where `mask` is true, in place."""
    chosen = canvas[mask].astype(np.float32)
    canvas[mask] = (chosen + (np.asarray(colour, dtype=np.float32) - chosen) * opacity + 0.5).astype(np.uint8)
