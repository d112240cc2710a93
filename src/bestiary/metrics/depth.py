"""Errors of depth maps, per picture and over all pixels, with the crops, caps and alignments of the benchmarks.

Convention: depth is z in metres, 0 (or not finite) where unknown. A true pixel counts if it lies strictly between the
least and the largest depth and inside the crop; predictions are aligned first, then clamped to that range. With p
predicted and t true, e = ln p - ln t:

delta_i   share of max(p/t, t/p) < 1.25^i        rmse      root of mean (p - t)^2
abs_rel   mean |p - t| / t                       rmse_log  root of mean e^2
sq_rel    mean (p - t)^2 / t                     silog     100 root of (mean e^2 - (mean e)^2)
log10     mean |log10 p - log10 t|               irmse     root of mean (1/p - 1/t)^2, in 1/km

Eigen, Puhrsch, Fergus, NIPS 2014 for the names; KITTI's depth benchmark (Uhrig et al., 3DV 2017) for silog and irmse.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.metrics.averages import Averages, precise, require_same_rules
from bestiary.metrics.scores import Scores
from bestiary.records import require

Crop = Literal["none", "garg", "eigen", "nyu"]
"""Which pixels are scored: all, `garg_crop`, `eigen_crop` or `nyu_crop`."""

Alignment = Literal["none", "median", "scale_shift", "inverse_scale_shift"]
"""How a prediction without a unit is fitted to each picture's truth: `median_scale`; `scale_and_shift` of the depth; or
of inverse depth, which the prediction then is (MiDaS)."""

ERRORS = ("delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "irmse")


def garg_crop(size_hw: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """KITTI's crop of Garg et al., ECCV 2016: rows 0.40810811 to 0.99189189 of the height, columns 0.03594771 to
    0.96405229 of the width, cut down to whole pixels, the last excluded."""
    return _window(size_hw, (0.40810811, 0.99189189, 0.03594771, 0.96405229))


def eigen_crop(size_hw: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """KITTI's crop of Eigen et al. as later code has it: rows 0.3324324 to 0.91351351, columns 0.0359477 to
    0.96405229."""
    return _window(size_hw, (0.3324324, 0.91351351, 0.0359477, 0.96405229))


def nyu_crop(size_hw: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """NYU Depth v2's crop of Eigen et al.: rows 45 to 470 and columns 41 to 600 of 480 x 640 pictures.

    Raises:
        RecordError: another size.
    """
    require(tuple(size_hw) == (480, 640), "nyu_crop(size_hw)", tuple(size_hw), "(480, 640)")
    mask = torch.zeros(size_hw, dtype=torch.bool)
    mask[45:471, 41:601] = True
    return mask


def _window(size_hw: tuple[int, int], shares: tuple[float, float, float, float]) -> Bool[Tensor, "H W"]:
    height, width = size_hw
    top, bottom, left, right = shares
    mask = torch.zeros(size_hw, dtype=torch.bool)
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def known_depth(
    truth: Float[Tensor, "*B H W"], min_depth: int | float = 1e-3, max_depth: int | float = 80.0, crop: Crop = "none"
) -> Bool[Tensor, "*B H W"]:
    """Pixels that count: true depth strictly between `min_depth` and `max_depth` (metres), inside the crop."""
    mask = (truth > min_depth) & (truth < max_depth)
    if crop == "none":
        return mask
    size_hw = (truth.shape[-2], truth.shape[-1])
    windows = {"garg": garg_crop, "eigen": eigen_crop, "nyu": nyu_crop}
    return mask & windows[crop](size_hw).to(truth.device)


def median_scale(predicted: Float[Tensor, " N"], truth: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """What the prediction is to be multiplied by for equal medians (Zhou et al., CVPR 2017, section 4.1).

    Convention: the median of an even number is the mean of the middle two. NaN for no pixel or a median of 0.
    """
    below = _median(predicted)
    return (_median(truth) / below).masked_fill(below == 0, math.nan)


def scale_and_shift(
    predicted: Float[Tensor, " N"], truth: Float[Tensor, " N"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Scale s and shift b of least `sum (s predicted + b - truth)^2` (Ranftl et al., PAMI 2022, eq. 4).

    Convention: a constant prediction gets scale 0 and the truth's mean. NaN for no pixel. Differentiable.
    """
    mean, goal = predicted.mean(), truth.mean()
    centred = predicted - mean
    spread = (centred**2).sum()
    flat = (predicted == predicted[:1]).all()
    scale = torch.where(flat, 0.0, (centred * (truth - goal)).sum() / torch.where(flat, 1.0, spread))
    return scale, goal - scale * mean


def _median(numbers: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    count = len(numbers)
    if not count:
        return numbers.new_tensor(math.nan)
    upper = numbers.kthvalue(count // 2 + 1).values
    return upper if count % 2 else (numbers.kthvalue(count // 2).values + upper) / 2


def depth_errors(
    predicted: Float[Tensor, " N"],
    truth: Float[Tensor, " N"],
) -> dict[str, Float64[Tensor, ""]]:
    """Every error of N pixels, both depths above 0 (see the head of this module), in float64; NaN for no pixel.

    Raises:
        RecordError: a depth that is not a number above 0.
    """
    for name, depths in (("predicted", predicted), ("truth", truth)):
        require(bool((depths > 0).all()), f"depth_errors({name})", "a depth of 0 or below, or NaN", "depths above 0")
    sums = _sums(precise(predicted), precise(truth))
    return _errors({name: total / len(truth) for name, total in sums.items()})


def _sums(predicted: Float64[Tensor, " N"], truth: Float64[Tensor, " N"]) -> dict[str, Float64[Tensor, ""]]:
    """Sums over pixels, of whose means every error is a function, be they of one picture or of all."""
    off = predicted - truth
    log_off = predicted.log() - truth.log()
    worst = torch.maximum(predicted / truth, truth / predicted)
    terms = {f"delta{i}": (worst < 1.25**i).double() for i in (1, 2, 3)}
    terms |= {
        "abs_rel": off.abs() / truth,
        "sq_rel": off**2 / truth,
        "square": off**2,
        "log": log_off,
        "log_square": log_off**2,
        "log_size": log_off.abs(),
        "inverse_square": (1 / predicted - 1 / truth) ** 2,
    }
    return {name: term.sum() for name, term in terms.items()}


def _errors(means: dict[str, Float64[Tensor, ""]]) -> dict[str, Float64[Tensor, ""]]:
    """The errors, in the order of `ERRORS`."""
    errors = {name: means[name] for name in ("delta1", "delta2", "delta3", "abs_rel", "sq_rel")}
    return errors | {
        "rmse": means["square"].sqrt(),
        "rmse_log": means["log_square"].sqrt(),
        "log10": means["log_size"] / math.log(10),
        # The mean of squares less the square of the mean may round below 0 where all errors are equal.
        "silog": 100 * (means["log_square"] - means["log"] ** 2).clamp(min=0).sqrt(),
        "irmse": 1000 * means["inverse_square"].sqrt(),
    }


class DepthScores:
    """Depth errors as pictures come.

    Kept: two sums a number, whatever the number of pictures.

    Args:
        min_depth: metres; truths at or below it do not count, predictions are raised to it.
        max_depth: metres, the cap: truths at or above it do not count, predictions are lowered to it. KITTI: 80,
            NYU: 10.
        crop: which pixels are scored.
        alignment: of a prediction without a unit to each picture's counted pixels.

    Raises:
        UsageError: not 0 < min_depth < max_depth.
    """

    def __init__(
        self,
        min_depth: int | float = 1e-3,
        max_depth: int | float = 80.0,
        crop: Crop = "none",
        alignment: Alignment = "none",
    ) -> None:
        if not 0 < min_depth < max_depth:
            raise UsageError(f"got {min_depth} to {max_depth}, wanted 0 < min_depth < max_depth", where="max_depth")
        self.min_depth, self.max_depth = float(min_depth), float(max_depth)
        self.crop: Crop = crop
        self.alignment: Alignment = alignment
        self.pictures = 0
        self._pictures, self._pixels = Averages(), Averages()

    def update(
        self,
        predictions: Sequence[Float[Tensor, "_h _w"]] | Float[Tensor, "_b _h _w"],
        truths: Sequence[Float[Tensor, "_h _w"]] | Float[Tensor, "_b _h _w"],
    ) -> None:
        """Count pictures: predicted depth (inverse depth with "inverse_scale_shift") and true depth, of one size.

        Raises:
            RecordError: numbers or sizes differ, or a prediction is NaN where the truth is known.
        """
        count, wanted = len(predictions), len(truths)
        require(count == wanted, "update", f"{count} predictions", f"{wanted}, as many as truths")
        for predicted, truth in zip(predictions, truths, strict=True):
            where, shape = f"picture {self.pictures}", tuple(predicted.shape)
            require(
                shape == tuple(truth.shape), where, f"a prediction of {shape}", f"{tuple(truth.shape)}, the truth's"
            )
            truth = precise(truth)
            known = known_depth(truth, self.min_depth, self.max_depth, self.crop)
            said, true = precise(predicted).to(truth.device)[known], truth[known]
            require(not bool(said.isnan().any()), where, "NaN in the prediction", "numbers")
            sums = _sums(self._aligned(said, true), true)
            means = {name: total / len(true) for name, total in sums.items()}
            self._pictures.add({name: error[None] for name, error in _errors(means).items()})
            self._pixels.add({name: total[None] for name, total in sums.items()})
            self._pixels.add({"count": torch.tensor([float(len(true))])})
            self.pictures += 1

    def _aligned(self, predicted: Float64[Tensor, " N"], truth: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        if not len(truth):
            return predicted
        if self.alignment == "median":
            scale = median_scale(predicted, truth)
            # A median of 0 has no scale: every pixel is then as near as may be said.
            predicted = torch.where(scale.isnan(), 0.0, scale * predicted)
        elif self.alignment == "scale_shift":
            scale, shift = scale_and_shift(predicted, truth)
            predicted = scale * predicted + shift
        elif self.alignment == "inverse_scale_shift":
            scale, shift = scale_and_shift(predicted, 1 / truth)
            predicted = 1 / (scale * predicted + shift).clamp(min=1 / self.max_depth)
        return predicted.clamp(self.min_depth, self.max_depth)

    def merge(self, other: "DepthScores") -> None:
        """Add what another accumulator of the same range, crop and alignment has counted.

        Raises:
            UsageError: they differ.
        """
        require_same_rules(self, other, ("min_depth", "max_depth", "crop", "alignment"))
        self._pictures.merge(other._pictures)
        self._pixels.merge(other._pixels)
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """Every error as the mean over pictures (`delta1` leads: higher is better) and, `_pixels`, over all pixels."""
        pixels = self._pixels.total("count")
        means = {
            name: torch.tensor(self._pixels.total(name) / pixels if pixels else math.nan, dtype=torch.float64)
            for name in _sums(torch.ones(0).double(), torch.ones(0).double())
        }
        values = {name: self._pictures.mean(name) for name in ERRORS}
        values |= {f"{name}_pixels": float(error) for name, error in _errors(means).items()}
        judged = self._pictures.count("delta1")
        fit = {
            "none": "no alignment",
            "median": "scaled to each picture's median",
            "scale_shift": "scale and shift fitted to each picture",
            "inverse_scale_shift": "scale and shift of inverse depth fitted to each picture",
        }
        protocol = (
            f"mean over {judged} pictures ({self.pictures - judged} without truth left out), and `_pixels` over "
            f"{pixels:.0f} pixels; truth within {self.min_depth:g} to {self.max_depth:g} m, both excluded; "
            f"crop: {self.crop}; {fit[self.alignment]}; silog x 100, irmse 1/km"
        )
        return Scores("delta1", values, protocol, details={"pictures": self.pictures, "pixels": int(pixels)})
