"""Changes of colour and light. Only the picture changes; its truth stays as it is.

Colours are affine: brightness, contrast and saturation in any order are one matrix, applied once and clipped once at
the end, where step-by-step implementations clip (and round) in between. So a colour that leaves the range on the way
and returns is not lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Shaped, UInt8
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.records import Sample
from bestiary.transforms.resampling import packed, to_image, to_pixels
from bestiary.transforms.transform import Described, require_argument, require_probability

LUMINANCE = np.array([0.299, 0.587, 0.114])
"""How much red, green and blue add to brightness (ITU-R BT.601)."""

IMAGENET_EIGENVALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Principal colours of ImageNet on the scale 0..1, in the columns, as published with fb.resnet.torch."""

Affine = tuple[Float64[np.ndarray, "C C"], Float64[np.ndarray, " C"]]


@dataclass(frozen=True, repr=False)
class ColourJitter(Described):
    """Brightness, contrast, saturation and hue, in random order.

    Attributes:
        brightness: colours are multiplied by a factor from 1 - brightness to 1 + brightness (not below 0).
        contrast: the same, of the distance from the picture's mean grey.
        saturation: the same, of the distance from each pixel's own grey.
        hue: the hue turns by up to this fraction of the colour circle, 0..0.5; saturation and value of HSV stay.
        p: probability that anything changes.

    Raises:
        RecordError: saturation or hue of a picture that has not three channels.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        least = min(self.brightness, self.contrast, self.saturation, self.hue)
        require_argument(
            least >= 0 and self.hue <= 0.5, "ColourJitter", repr(self), "strengths of at least 0, hue up to 0.5"
        )
        require_probability(self.p, "ColourJitter(p)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample in other colours."""
        order = rng.permutation(4)
        factors = [rng.uniform(max(0.0, 1 - s), 1 + s) for s in (self.brightness, self.contrast, self.saturation)]
        turns = rng.uniform(-self.hue, self.hue)
        if rng.random() >= self.p:
            return sample
        channels = sample.image.shape[0]
        if self.saturation or self.hue:
            _require_colour(sample)
        grey = LUMINANCE if channels == 3 else np.full(channels, 1 / channels)
        affine: Affine = (np.eye(channels), np.zeros(channels))
        pixels = packed(to_pixels(sample.image))
        mean = _channel_means(pixels)
        for step in order:
            if step == 3 and turns:
                pixels = _with_turned_hue(pixels, affine, turns)
                affine, mean = (np.eye(channels), np.zeros(channels)), _channel_means(pixels)
            elif step == 0:
                affine = factors[0] * affine[0], factors[0] * affine[1]
            elif step == 1:
                level = grey @ (affine[0] @ mean + affine[1])
                affine = factors[1] * affine[0], factors[1] * affine[1] + (1 - factors[1]) * level
            elif step == 2 and self.saturation:
                blend = factors[2] * np.eye(3) + (1 - factors[2]) * grey
                affine = blend @ affine[0], blend @ affine[1]
        return replace(sample, image=to_image(_recoloured(pixels, affine, sample.image.dtype)))


@dataclass(frozen=True, repr=False)
class PCAColour(Described):
    """AlexNet's colour augmentation (Krizhevsky et al., NIPS 2012, section 4.1): one shift of all colours along the
    principal ones.

    Adds `P (a * lambda)` to each pixel, P the eigenvectors and lambda the eigenvalues of the pixels' covariance, a
    drawn for each picture from a normal distribution.

    Attributes:
        std: standard deviation of a; the paper's 0.1.
        eigenvalues: on the scale 0..1; `principal_colours` finds those of other pictures.
        eigenvectors: in the columns.
    """

    std: float = 0.1
    eigenvalues: tuple[float, ...] = IMAGENET_EIGENVALUES
    eigenvectors: tuple[tuple[float, ...], ...] = IMAGENET_EIGENVECTORS

    def __post_init__(self) -> None:
        require_argument(self.std >= 0, "PCAColour(std)", self.std, "at least 0")
        shapes = {len(self.eigenvalues), len(self.eigenvectors), *(len(row) for row in self.eigenvectors)}
        require_argument(
            len(shapes) == 1, "PCAColour", f"lengths {shapes}", "as many eigenvectors and rows as eigenvalues"
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample, shifted."""
        channels = len(self.eigenvalues)
        if sample.image.shape[0] != channels:
            raise RecordError(f"got {sample.image.shape[0]} channels, wanted {channels}", where="PCAColour")
        amounts = rng.normal(0.0, self.std, channels) * self.eigenvalues
        shift = np.array(self.eigenvectors) @ amounts * _top(sample.image.dtype)
        pixels = packed(to_pixels(sample.image))
        return replace(sample, image=to_image(_recoloured(pixels, (np.eye(channels), shift), sample.image.dtype)))


@dataclass(frozen=True, repr=False)
class RandomGrey(Described):
    """Grey in three equal channels, with probability `p`."""

    p: float = 0.1

    def __post_init__(self) -> None:
        require_probability(self.p, "RandomGrey(p)")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Grey, or as it was."""
        if rng.random() >= self.p:
            return sample
        _require_colour(sample)
        affine: Affine = (np.tile(LUMINANCE, (3, 1)), np.zeros(3))
        return replace(sample, image=to_image(_recoloured(packed(to_pixels(sample.image)), affine, sample.image.dtype)))


def principal_colours(images: Iterable[UInt8[Tensor, "C _h _w"]]) -> PCAColour:
    """`PCAColour` for other pictures than ImageNet's: eigenvalues and eigenvectors of all their pixels' covariance.

    Raises:
        RecordError: no pixel.
    """
    count, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for image in images:
        colours = image.reshape(image.shape[0], -1).double().numpy() / 255
        if not count:
            total, products = np.zeros(len(colours)), np.zeros((len(colours), len(colours)))
        count, total, products = count + colours.shape[1], total + colours.sum(1), products + colours @ colours.T
    if not count:
        raise RecordError("got no pixel, wanted at least one picture", where="principal_colours")
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    return PCAColour(eigenvalues=tuple(values.tolist()), eigenvectors=tuple(tuple(row) for row in vectors.tolist()))


def _top(dtype: torch.dtype) -> float:
    return 255.0 if dtype == torch.uint8 else 1.0


def _require_colour(sample: Sample) -> None:
    channels = sample.image.shape[0]
    if channels != 3:
        mend = "Set saturation and hue to 0 and leave out RandomGrey"
        raise RecordError(f"got {channels} channels, wanted 3 (red, green, blue)", where="colour", mend=mend)


def _channel_means(pixels: Shaped[np.ndarray, "_h _w C"]) -> Float64[np.ndarray, " C"]:
    if pixels.shape[2] <= 4:
        import cv2

        return np.array(cv2.mean(pixels)[: pixels.shape[2]])
    return pixels.mean((0, 1), dtype=np.float64)


def _recoloured(
    pixels: Shaped[np.ndarray, "_h _w C"], affine: Affine, dtype: torch.dtype
) -> Shaped[np.ndarray, "_h _w C"]:
    """`matrix @ colour + offset`, clipped, in the type of the picture (rounded if that is uint8)."""
    import cv2

    matrix = np.column_stack(affine)
    if pixels.shape[2] <= 4:
        out = cv2.transform(pixels, matrix)
        out = out[..., None] if out.ndim == 2 else out
    else:
        out = pixels @ matrix[:, :-1].T.astype(np.float32) + matrix[:, -1].astype(np.float32)
    if dtype == torch.uint8:
        return out if out.dtype == np.uint8 else np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return np.clip(out, 0, 1, out=out)


def _with_turned_hue(
    pixels: Shaped[np.ndarray, "_h _w 3"], affine: Affine, turns: float
) -> Shaped[np.ndarray, "_h _w 3"]:
    """Float32 pixels on the same scale as `pixels`, after `affine` and with their hue turned."""
    import cv2

    from bestiary.transforms._kernels import turn_hue

    top = _top(torch.uint8 if pixels.dtype == np.uint8 else torch.float32)
    out = cv2.transform(pixels.astype(np.float32), np.column_stack(affine))
    turn_hue(out.reshape(-1, 3), turns, top)
    return out
