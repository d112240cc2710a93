"""SSD's change of colours (Liu et al., ECCV 2016, section 2.2; the draws are those of the authors' code)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32

from bestiary.errors import RecordError
from bestiary.records import Sample
from bestiary.transforms.resampling import packed, to_image, to_pixels
from bestiary.transforms.transform import Described, require_argument, require_probability

Colours = Float32[np.ndarray, "_h _w 3"]


@dataclass(frozen=True, repr=False)
class PhotometricDistortion(Described):
    """Brightness, contrast, saturation and hue, each with a probability of its own; colours are cut to their range
    after each.

    Unlike `ColourJitter`'s, brightness is added, contrast multiplies all colours (it is not about the mean), and
    saturation and hue are those of HSV. Contrast is the second or the last step, equally likely.

    Attributes:
        brightness: largest addition, as a share of the range; the authors' 32 of 255.
        contrast: colours are multiplied by 1 - contrast to 1 + contrast.
        saturation: saturation likewise.
        hue: largest turn, as a fraction of the circle; the authors' 18 of OpenCV's 180.
        p: probability of each.

    Raises:
        RecordError: a picture that has not three channels.
    """

    brightness: float = 32 / 255
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.1
    p: float = 0.5

    def __post_init__(self) -> None:
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        fits = min(strengths) >= 0 and self.hue <= 0.5 and max(self.contrast, self.saturation) <= 1
        wanted = "strengths of at least 0, hue up to 0.5, contrast and saturation up to 1"
        require_argument(fits, "PhotometricDistortion", repr(self), wanted)
        require_probability(self.p, "PhotometricDistortion(p)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample in other colours."""
        contrast_early = rng.random() < 0.5
        happens = rng.random(4) < self.p
        shift = rng.uniform(-self.brightness, self.brightness) if happens[0] else 0.0
        factor = rng.uniform(1 - self.contrast, 1 + self.contrast) if happens[1] else 1.0
        saturation = rng.uniform(1 - self.saturation, 1 + self.saturation) if happens[2] else 1.0
        turn = rng.uniform(-self.hue, self.hue) if happens[3] else 0.0
        if sample.image.shape[0] != 3:
            raise RecordError(f"got {sample.image.shape[0]} channels, wanted 3 (red, green, blue)", where="colour")
        if (shift, factor, saturation, turn) == (0.0, 1.0, 1.0, 0.0):
            return sample
        bytes_given = sample.image.dtype == torch.uint8
        pixels = packed(to_pixels(sample.image))
        colours = pixels.astype(np.float32) / np.float32(255) if bytes_given else pixels.astype(np.float32)
        colours = np.clip(colours + np.float32(shift), 0, 1)
        if contrast_early:
            colours = np.clip(colours * np.float32(factor), 0, 1)
        colours = _in_hsv(colours, saturation, turn)
        if not contrast_early:
            colours = np.clip(colours * np.float32(factor), 0, 1)
        changed = np.rint(colours * 255).astype(np.uint8) if bytes_given else colours
        return replace(sample, image=to_image(changed))


def _in_hsv(colours: Colours, saturation: float, turn: float) -> Colours:
    """Saturation times a factor, at most 1, and the hue turned by a fraction of the circle."""
    import cv2

    if saturation == 1 and turn == 0:
        return colours
    hsv = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turn)) % 360
    hsv[..., 1] = np.minimum(hsv[..., 1] * np.float32(saturation), 1)
    return np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), 0, 1)
