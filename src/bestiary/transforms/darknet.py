"""Darknet's augmentation, on which YOLO and YOLOv2 are trained: a moved frame, and colours in HSV.

Redmon et al., You Only Look Once, CVPR 2016, section 2.2: random scaling and translation of up to 20 % of the picture,
exposure and saturation by a factor of up to 1.5 in HSV. The exact draws are those of the authors' code.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.records import Sample
from bestiary.transforms.keep import KEEP, Keep
from bestiary.transforms.resampling import packed, to_image, to_pixels
from bestiary.transforms.transform import Described, Geometric, require_argument, require_size
from bestiary.transforms.warp import Fill, Warp

GREY: Fill = 127.5
"""Half of the brightest; Darknet's canvas around pictures."""


@dataclass(frozen=True, repr=False)
class RandomFrame(Geometric):
    """Each edge of the picture moves in or out, and what the frame then holds is stretched to one size.

    Attributes:
        size_hw: size that comes out.
        jitter: an edge moves by up to this share of its side, either way, each edge for itself: the frame has from
            1 - 2 jitter to 1 + 2 jitter of the side.
        fill: colour outside the picture. Darknet's first versions repeat the edge there.
        keep: which objects stay.
    """

    size_hw: tuple[int, int]
    jitter: float = 0.2
    fill: Fill = GREY
    keep: Keep = KEEP

    def __post_init__(self) -> None:
        require_size(self.size_hw, "RandomFrame(size_hw)")
        require_argument(0 <= self.jitter < 0.5, "RandomFrame(jitter)", self.jitter, "a share, 0 up to but not 0.5")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """Cut and stretch as one map."""
        height, width = size_hw
        left, right, top, bottom = (
            int(rng.uniform(-self.jitter * side, self.jitter * side)) for side in (width, width, height, height)
        )
        wide, high = max(1, width - left - right), max(1, height - top - bottom)
        scales = self.size_hw[1] / wide, self.size_hw[0] / high
        matrix = np.array([[scales[0], 0, -left * scales[0]], [0, scales[1], -top * scales[1]]])
        window = max(left, 0), max(top, 0), min(left + wide, width), min(top + high, height)
        return Warp(matrix, size_hw, self.size_hw, window, self.fill, self.keep)


@dataclass(frozen=True, repr=False)
class HSVJitter(Described):
    """Hue turned, saturation and exposure (the value of HSV) multiplied.

    Attributes:
        hue: turns by up to this fraction of the colour circle, either way, 0..0.5.
        saturation: factor drawn from 1 up to this, and as often its inverse. Darknet draws the same for 0.75 as for
            nothing: only factors above 1 are legal here.
        exposure: likewise.

    Raises:
        RecordError: a picture that has not three channels.
    """

    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5

    def __post_init__(self) -> None:
        require_argument(0 <= self.hue <= 0.5, "HSVJitter(hue)", self.hue, "a fraction of the circle, 0..0.5")
        least = min(self.saturation, self.exposure)
        require_argument(least >= 1, "HSVJitter(saturation, exposure)", least, "factors of at least 1")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample in other colours."""
        turn = rng.uniform(-self.hue, self.hue)
        factors = [_factor(most, rng) for most in (self.saturation, self.exposure)]
        if sample.image.shape[0] != 3:
            got = f"got {sample.image.shape[0]} channels, wanted 3 (red, green, blue)"
            raise RecordError(got, where="HSVJitter", mend="Set hue to 0, saturation and exposure to 1")
        return replace(sample, image=shifted_colours(sample.image, turn, factors[0], factors[1]))


def _factor(most: float, rng: np.random.Generator) -> float:
    factor = rng.uniform(1.0, most)
    return factor if rng.random() < 0.5 else 1 / factor


def shifted_colours(
    image: Float32[Tensor, "3 H W"] | Tensor, turn: float, saturation: float, exposure: float
) -> Float32[Tensor, "3 H W"] | Tensor:
    """A picture, uint8 or float 0..1, with its hue turned by `turn` circles, saturation and value multiplied; clipped
    to what there is, in the type it had.
    """
    import cv2

    pixels = packed(to_pixels(image))
    floats = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels
    hsv = cv2.cvtColor(floats, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    hsv[..., 1:] = np.minimum(hsv[..., 1:] * np.array([saturation, exposure], np.float32), 1)
    out = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if image.dtype == torch.uint8:
        return to_image(np.rint(out * 255).astype(np.uint8))
    return to_image(out)
