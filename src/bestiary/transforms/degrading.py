"""Worse pictures: blurred, noisy, with holes. Only the picture changes; its truth stays as it is."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from bestiary.records import Sample
from bestiary.transforms.resampling import packed, to_image, to_pixels
from bestiary.transforms.transform import Described, require_argument, require_probability, require_range
from bestiary.transforms.warp import MEAN_COLOUR, Fill, fill_values


@dataclass(frozen=True, repr=False)
class GaussianBlur(Described):
    """Out of focus.

    Attributes:
        sigma: range of the Gaussian's standard deviation, pixels.
        p: probability.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    p: float = 0.5

    def __post_init__(self) -> None:
        require_range(self.sigma, 0.0, "GaussianBlur(sigma)")
        require_probability(self.p, "GaussianBlur(p)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Blurred, or as it was; the edge is mirrored about the outermost pixels."""
        import cv2

        sigma = rng.uniform(*self.sigma)
        if rng.random() >= self.p or sigma < 1e-3:
            return sample
        side = 2 * int(np.ceil(4 * sigma)) + 1
        blurred = cv2.GaussianBlur(
            packed(to_pixels(sample.image)), (side, side), sigma, borderType=cv2.BORDER_REFLECT_101
        )
        return replace(sample, image=to_image(blurred))


@dataclass(frozen=True, repr=False)
class GaussianNoise(Described):
    """A noisy sensor: independent normal noise on each pixel and channel.

    Attributes:
        std: range of the standard deviation, on the scale 0..255.
        p: probability.
    """

    std: tuple[float, float] = (0.0, 10.0)
    p: float = 0.5

    def __post_init__(self) -> None:
        require_range(self.std, 0.0, "GaussianNoise(std)")
        require_probability(self.p, "GaussianNoise(p)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Noisy, or as it was."""
        std = rng.uniform(*self.std)
        if rng.random() >= self.p:
            return sample
        pixels = to_pixels(sample.image)
        noise = rng.standard_normal(pixels.shape, dtype=np.float32)
        if sample.image.dtype == torch.uint8:
            noisy = np.clip(np.rint(pixels + noise * np.float32(std)), 0, 255).astype(np.uint8)
        else:
            noisy = np.clip(pixels + noise * np.float32(std / 255), 0, 1)
        return replace(sample, image=to_image(noisy))


@dataclass(frozen=True, repr=False)
class RandomErasing(Described):
    """Rectangles of one colour over the picture (Cutout, DeVries and Taylor 2017; random erasing, Zhong et al. 2020).

    Attributes:
        p: probability of each rectangle.
        count: rectangles.
        area: range of a rectangle's area, as a fraction of the picture's.
        aspect: range of width over height; drawn evenly in the logarithm.
        fill: their colour.

    A rectangle that would not fit into the picture is cut at its edges.
    """

    p: float = 0.5
    count: int = 1
    area: tuple[float, float] = (0.02, 0.33)
    aspect: tuple[float, float] = (0.3, 3.3)
    fill: Fill = MEAN_COLOUR

    def __post_init__(self) -> None:
        require_probability(self.p, "RandomErasing(p)")
        require_argument(self.count >= 1, "RandomErasing(count)", self.count, "at least 1")
        require_range(self.area, 0.0, "RandomErasing(area)")
        require_range(self.aspect, 1e-3, "RandomErasing(aspect)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """With holes, or as it was."""
        height, width = sample.size_hw
        fill = torch.tensor(fill_values(self.fill, sample.image.shape[0], sample.image.dtype)).to(sample.image.dtype)
        image = None
        for _ in range(self.count):
            area, aspect = rng.uniform(*self.area) * height * width, np.exp(rng.uniform(*np.log(self.aspect)))
            across, down = (max(1, round(float(np.sqrt(area * r)))) for r in (aspect, 1 / aspect))
            x, y = (int(rng.integers(0, max(s - n, 0), endpoint=True)) for s, n in ((width, across), (height, down)))
            if rng.random() < self.p:
                image = sample.image.clone() if image is None else image
                image[:, y : y + down, x : x + across] = fill[:, None, None]
        return sample if image is None else replace(sample, image=image)
