"""Integral images: the sum of a rectangle from four numbers (Viola, Jones, CVPR 2001; Crow, SIGGRAPH 1984)."""

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from bestiary.records import require


def integral_image(levels: Shaped[Tensor, "H W"]) -> Float64[Tensor, "H1 W1"]:
    """Sums of all pixels above and left of each corner: the first row and column are 0.

    In double precision, exact for bytes and their squares up to a picture of 10^11 pixels.
    """
    padded = torch.zeros(levels.shape[0] + 1, levels.shape[1] + 1, dtype=torch.float64)
    padded[1:, 1:] = levels.detach().cpu().double().cumsum(0).cumsum(1)
    return padded


def integral_images(levels: Shaped[Tensor, "H W"]) -> tuple[Float64[Tensor, "H1 W1"], Float64[Tensor, "H1 W1"]]:
    """`integral_image` of bytes and of their squares, in one pass.

    Raises:
        RecordError: other than bytes.
    """
    require(levels.dtype == torch.uint8, "integral_images(levels)", str(levels.dtype), "uint8")
    if not levels.numel():
        return integral_image(levels), integral_image(levels)
    import cv2

    sums, squares = cv2.integral2(levels.contiguous().numpy(), sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
    return torch.from_numpy(sums), torch.from_numpy(squares)


def rectangle_sums(integral: Float64[Tensor, "H1 W1"], rectangles_xyxy: Int64[Tensor, "N 4"]) -> Float64[Tensor, " N"]:
    """Sums over rectangles between corners of pixels, each within the picture.

    Raises:
        RecordError: a rectangle that reaches beyond the picture, or whose ends come before its starts.
    """
    x1, y1, x2, y2 = rectangles_xyxy.unbind(1)
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    fits = (x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= width) & (y2 <= height)
    bad = (~fits).nonzero()
    got = rectangles_xyxy[bad[0, 0]].tolist() if len(bad) else ""
    require(not len(bad), "rectangle_sums(rectangles_xyxy)", got, f"rectangles within {width} x {height}")
    return integral[y2, x2] - integral[y1, x2] - integral[y2, x1] + integral[y1, x1]


def grey_bytes(image: Shaped[Tensor, "C H W"]) -> np.ndarray:
    """Grey 0..255, rounded, `[H, W]`: of RGB bytes their luminance."""
    import cv2

    if image.shape[0] == 1:
        return np.ascontiguousarray(image[0].numpy())
    return cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY)
