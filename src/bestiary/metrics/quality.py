"""How like a picture is to its truth: PSNR, SSIM and MS-SSIM, as scores and, being differentiable, as losses.

Convention: pictures are `[B, C, H, W]`, and each gives one number. The data range is 255 for uint8 and, unless said, 1
for floats: never guessed from the values, which are not clamped. SSIM is taken where its whole window lies inside the
picture, without padding. A channel counts as much as another: PSNR takes the mean square over pixels and channels, SSIM
the mean over channels ("RGB"); for the brightness convention ("Y") hand in `luma_bt601`. Half precision is computed in
float32.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.metrics.averages import Averages, at_least_single, precise, require_same_rules
from bestiary.metrics.scores import Scores
from bestiary.records import require

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Fine to coarse (Wang, Simoncelli, Bovik, Asilomar 2003, section 3.2)."""

Channels = Literal["rgb", "y"]
"""What is compared: every channel as it is, or the BT.601 brightness of RGB."""

_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def psnr(
    pictures: Shaped[Tensor, "B C H W"], truths: Shaped[Tensor, "B C H W"], data_range: int | float | None = None
) -> Float[Tensor, " B"]:
    """`10 log10(data_range^2 / mean squared error)` of each picture, dB; infinite for equal pictures.

    Differentiable except there.

    Raises:
        RecordError: a picture without pixels, different types, or a type without pictures.
    """
    first, second, span = _comparable(pictures, truths, data_range)
    mean_square = ((first - second) ** 2).mean((1, 2, 3))
    return 10 * torch.log10(span**2 / mean_square)


def ssim(
    pictures: Shaped[Tensor, "B C H W"], truths: Shaped[Tensor, "B C H W"], data_range: int | float | None = None
) -> Float[Tensor, " B"]:
    """Structural similarity of each picture, -1..1, higher is liker (Wang et al., TIP 2004, eq. 13).

    Gaussian window of 11 x 11 with deviation 1.5, K1 = 0.01, K2 = 0.03, covariances as the window weighs them (not
    divided by n - 1). Differentiable: `1 - ssim(...)` is a loss.

    Raises:
        RecordError: sides below 11 pixels, different types, or a type without pictures.
    """
    first, second, span = _comparable(pictures, truths, data_range)
    _require_side(first, _WINDOW)
    luminance, structure = _ssim_maps(first, second, span)
    return (luminance * structure).mean((1, 2, 3))


def ms_ssim(
    pictures: Shaped[Tensor, "B C H W"],
    truths: Shaped[Tensor, "B C H W"],
    data_range: int | float | None = None,
    weights: Sequence[int | float] = MS_SSIM_WEIGHTS,
) -> Float[Tensor, " B"]:
    """Multi-scale structural similarity of each picture, 0..1 (Wang, Simoncelli, Bovik, 2003, eq. 7).

    Convention: every scale is the 2 x 2 mean of the one before (odd sides repeat their last row or column); contrast
    and structure count at all scales, luminance at the last. A channel's mean that is not above 0 counts as 0, so that
    powers are real, and passes no gradient; channels are averaged last. Differentiable.

    Args:
        weights: exponents, fine to coarse.

    Raises:
        RecordError: sides of less than 161 pixels (five scales; 11 must be left at the last), or as `ssim`.
        UsageError: no weight.
    """
    if not weights:
        raise UsageError("got no weight, wanted one a scale", where="weights")
    first, second, span = _comparable(pictures, truths, data_range)
    _require_side(first, (_WINDOW - 1) * 2 ** (len(weights) - 1) + 1)
    product = first.new_ones(first.shape[:2])
    for scale, weight in enumerate(weights):
        luminance, structure = _ssim_maps(first, second, span)
        last = scale == len(weights) - 1
        mean = (luminance * structure if last else structure).mean((2, 3))
        # A power of 0 has no finite slope: means that are not positive are kept from it.
        positive = mean > 0
        product = product * torch.where(positive, torch.where(positive, mean, 1.0) ** weight, 0.0)
        if not last:
            first, second = _halved(first), _halved(second)
    return product.mean(1)


def luma_bt601(pictures: Shaped[Tensor, "B 3 H W"], data_range: int | float | None = None) -> Float[Tensor, "B 1 H W"]:
    """Brightness Y of RGB in BT.601's studio range, as MATLAB's `rgb2ycbcr`, on the scale of the input.

    With R, G, B of 0..1, `Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255`: 16 / 255 for black, 235 / 255 for white.
    Not rounded. Super-resolution papers compare it with the full data range (255 on 8 bits).

    Raises:
        RecordError: a type without pictures.
    """
    values, _, span = _comparable(pictures, pictures, data_range)
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=values.dtype, device=values.device) / 255
    return (values * weights[:, None, None]).sum(1, keepdim=True) + span * 16 / 255


def shave(pictures: Shaped[Tensor, "B C H W"], border: int) -> Shaped[Tensor, "B C _h _w"]:
    """Without `border` pixels on each side: super-resolution leaves out as many as it enlarges times.

    Raises:
        RecordError: nothing would be left.
    """
    height, width = pictures.shape[-2:]
    fits = border >= 0 and min(height, width) > 2 * border
    require(fits, "shave(border)", f"{border} of {height} x {width} pixels", "0 or more, with a picture left")
    return pictures[..., border : height - border, border : width - border]


def _comparable(first: Tensor, second: Tensor, data_range: int | float | None) -> tuple[Tensor, Tensor, float]:
    """Both as floats, and their range."""
    require(first.shape == second.shape, "pictures", tuple(first.shape), f"{tuple(second.shape)}, the truths' shape")
    require(first.ndim == 4, "pictures", f"shape {tuple(first.shape)}", "(B, C, H, W)")
    require(first.dtype == second.dtype, "pictures", str(first.dtype), f"{second.dtype}, as the truths")
    is_bytes = first.dtype == torch.uint8
    require(is_bytes or first.is_floating_point(), "pictures", str(first.dtype), "uint8 or floats")
    require(first.shape[1:].numel() > 0, "pictures", f"shape {tuple(first.shape)}", "at least a pixel")
    span = (255.0 if is_bytes else 1.0) if data_range is None else float(data_range)
    require(span > 0, "data_range", span, "a number above 0")
    return at_least_single(first), at_least_single(second), span


def _require_side(pictures: Tensor, least: int) -> None:
    side = min(pictures.shape[-2:])
    require(side >= least, "pictures", f"a side of {side} pixels", f"at least {least}")


def _ssim_maps(first: Tensor, second: Tensor, span: float) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, where the window fits.

    Both variances enter only as their sum, so that four blurred planes a channel are enough.
    """
    planes = torch.stack([first, second, first * second, first**2 + second**2], dim=1)
    mean1, mean2, product, squares = _blurred(planes).unbind(1)
    both, sum_of_squares = mean1 * mean2, mean1**2 + mean2**2
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    luminance = (2 * both + c1) / (sum_of_squares + c1)
    structure = (2 * (product - both) + c2) / (squares - sum_of_squares + c2)
    return luminance, structure


def _blurred(planes: Float[Tensor, "B F C H W"]) -> Float[Tensor, "B F C _h _w"]:
    """Weighted means under the window, inside only.

    All planes are channels of one depthwise convolution, row-wise then column-wise: 15 times as fast as one plane a
    picture, 10 times as the square window.
    """
    heights = [math.exp(-((i - _WINDOW // 2) ** 2) / (2 * _SIGMA**2)) for i in range(_WINDOW)]
    window = torch.tensor([h / sum(heights) for h in heights], dtype=planes.dtype, device=planes.device)
    count = planes.shape[1] * planes.shape[2]
    flat = planes.flatten(1, 2)
    rows = F.conv2d(flat, window.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
    blurred = F.conv2d(rows, window.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)
    return blurred.unflatten(1, planes.shape[1:3])


def _halved(pictures: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C _h _w"]:
    height, width = pictures.shape[-2:]
    return F.avg_pool2d(F.pad(pictures, (0, width % 2, 0, height % 2), mode="replicate"), 2)


class QualityScores:
    """PSNR and SSIM of restored pictures, means over pictures.

    Kept: one sum a number, whatever the number of pictures. Computed in float64.

    Args:
        channels: "rgb" compares every channel, "y" the brightness (`luma_bt601`), both with the full data range.
        border: pixels left out on each side (super-resolution: the factor).
        data_range: see the head of this module.
        eight_bit: round predictions to 8 bits first, as if they were stored in a file: what published numbers of
            super-resolution do. For floats only.
        multi_scale: also MS-SSIM, of pictures that are large enough for it.

    Raises:
        UsageError: a negative border.
    """

    def __init__(
        self,
        channels: Channels = "rgb",
        border: int = 0,
        data_range: int | float | None = None,
        eight_bit: bool = False,
        multi_scale: bool = False,
    ) -> None:
        if border < 0:
            raise UsageError(f"got {border}, wanted 0 or more", where="border")
        self.channels: Channels = channels
        self.border, self.data_range = border, data_range
        self.eight_bit, self.multi_scale = eight_bit, multi_scale
        self._averages = Averages()

    def update(self, pictures: Shaped[Tensor, "B C H W"], truths: Shaped[Tensor, "B C H W"]) -> None:
        """Count B pictures; call it once for each size.

        Raises:
            RecordError: shapes or types differ, a side is below 11 pixels without its border, NaN in a picture, or "y"
                of pictures that are not RGB.
        """
        _, _, span = _comparable(pictures, truths, self.data_range)
        said, true = precise(pictures), precise(truths)
        require(not bool(said.isnan().any() | true.isnan().any()), "update(pictures)", "NaN", "numbers")
        if self.eight_bit:
            said = (said.clamp(0, span) * (255 / span)).round() * (span / 255)
        if self.channels == "y":
            require(said.shape[1] == 3, "update(pictures)", f"{said.shape[1]} channels", "3, red, green, blue")
            said, true = luma_bt601(said, span), luma_bt601(true, span)
        said, true = shave(said, self.border), shave(true, self.border)
        numbers = {"psnr": psnr(said, true, span), "ssim": ssim(said, true, span)}
        numbers["mean_square"] = ((said - true) ** 2).mean((1, 2, 3)) / span**2
        if self.multi_scale:
            numbers["ms_ssim"] = ms_ssim(said, true, span)
        self._averages.add(numbers)

    def merge(self, other: "QualityScores") -> None:
        """Add what another accumulator of the same convention has counted.

        Raises:
            UsageError: they differ.
        """
        require_same_rules(self, other, ("channels", "border", "data_range", "eight_bit", "multi_scale"))
        self._averages.merge(other._averages)

    def compute(self) -> Scores:
        """PSNR (mean of the pictures' dB; leads), SSIM, MS-SSIM if asked for, and `psnr_of_mean`, that of the mean
        squared error over pictures. Equal pictures make the mean PSNR infinite."""
        names = ["psnr", "ssim", *(["ms_ssim"] if self.multi_scale else [])]
        values = {name: self._averages.mean(name) for name in names}
        square = self._averages.mean("mean_square")
        values["psnr_of_mean"] = -10 * math.log10(square) if square else math.inf
        compared = "BT.601 brightness (studio range)" if self.channels == "y" else "all channels"
        span = "255 for uint8, 1 for floats" if self.data_range is None else f"{self.data_range:g}"
        protocol = (
            f"mean over {self._averages.count('psnr')} pictures of {compared}, {self.border} border pixels left out, "
            f"predictions {'rounded to 8 bits' if self.eight_bit else 'as they are'}; data range {span}; SSIM: "
            "Gaussian window of 11, deviation 1.5, no padding"
        )
        return Scores("psnr", values, protocol)
