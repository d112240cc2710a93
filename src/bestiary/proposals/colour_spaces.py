"""A picture in the colour spaces that groupings are diversified by (Selective Search, section 3.2), all on 0..255."""

import numpy as np
from jaxtyping import Float32, UInt8

from bestiary.records import require

COLOUR_SPACES = ("hsv", "lab", "rgi", "hue", "intensity", "rgb")
"""Hue, saturation, value; CIE L*a*b*; shares of red and green, and intensity; hue; intensity; the picture itself."""


def in_colour_space(pixels: UInt8[np.ndarray, "H W 3"], name: str) -> Float32[np.ndarray, "H W C"]:
    """The RGB picture in a space of `COLOUR_SPACES`.

    Hue has all of 0..255 for the circle; a* and b* are moved by 128.

    Raises:
        RecordError: another space.
    """
    import cv2

    require(name in COLOUR_SPACES, "in_colour_space(name)", repr(name), f"one of {', '.join(COLOUR_SPACES)}")
    values = pixels.astype(np.float32)
    if name == "rgb":
        return values
    if name in ("hsv", "hue"):
        turned = cv2.cvtColor(values * np.float32(1 / 255), cv2.COLOR_RGB2HSV) * np.array(
            [255 / 360, 255, 255], np.float32
        )
        return turned if name == "hsv" else np.ascontiguousarray(turned[..., :1])
    if name == "lab":
        turned = cv2.cvtColor(values * np.float32(1 / 255), cv2.COLOR_RGB2Lab)
        return turned * np.array([2.55, 1, 1], np.float32) + np.array([0, 128, 128], np.float32)
    intensity = values.mean(2, keepdims=True)
    if name == "intensity":
        return intensity
    shares = values[..., :2] * (255 / np.maximum(values.sum(2, keepdims=True), 1))
    return np.concatenate([shares, intensity], 2)
