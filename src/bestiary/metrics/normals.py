"""Angles between predicted and true surface normals: mean, median, root mean square, and shares within 11.25, 22.5
and 30 degrees (Fouhey, Gupta, Hebert, ICCV 2013), over all pixels of all pictures."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.metrics.averages import Averages, at_least_single, precise, require_same_rules
from bestiary.metrics.scores import Scores
from bestiary.records import require

WITHIN = (11.25, 22.5, 30.0)
"""Degrees."""

MEDIAN_BIN = 0.001
"""Degrees: width of the bins from which the median is read, which is off by half of it at most."""


def normal_angles(predicted: Float[Tensor, "*B 3 H W"], truth: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B H W"]:
    """Angle between each pair of vectors, degrees, 0..180, whatever their lengths.

    Convention: NaN where the truth is unknown, that is zero or not finite; 90 where the prediction is the zero vector,
    whose cosine with anything is 0. By atan2 of the cross and the dot product, which is exact for small angles, where
    the arc cosine of float32 vectors is off by up to 0.03 degrees. Differentiable, but not at 0 and 180 degrees, where
    the gradient is 0. Half precision is computed in float32.
    """
    predicted, truth = at_least_single(predicted), at_least_single(truth)
    known = torch.isfinite(truth).all(-3) & (truth != 0).any(-3)
    some = (predicted != 0).any(-3)
    ahead = truth.new_tensor([0.0, 0.0, 1.0])[:, None, None]
    # Vectors that have no angle are replaced before it is taken, so that no NaN enters the gradient.
    first = torch.where((known & some)[..., None, :, :], predicted, ahead)
    second = torch.where((known & some)[..., None, :, :], truth, ahead)
    cross = torch.linalg.vector_norm(torch.linalg.cross(first, second, dim=-3), dim=-3)
    angles = torch.rad2deg(torch.atan2(cross, (first * second).sum(-3)))
    return torch.where(some, angles, 90.0).masked_fill(~known, math.nan)


class NormalScores:
    """Angles of normal maps as pictures come.

    Kept: sums, and for the median a histogram in bins of 0.001 degrees (1.4 MB), whatever the number of pictures; with
    `exact_median`, every angle (float64: 8 bytes a pixel).

    Args:
        within: degrees; the shares of angles strictly below; the first leads.
        exact_median: keep all angles instead of the histogram.

    Raises:
        UsageError: no angle, or one not above 0.
    """

    def __init__(self, within: Sequence[int | float] = WITHIN, exact_median: bool = False) -> None:
        if not within or min(within) <= 0:
            raise UsageError(f"got {list(within)}, wanted angles above 0", where="within")
        self.within, self.exact_median, self.pictures = tuple(float(a) for a in within), exact_median, 0
        self._pixels, self._means = Averages(), Averages()
        self._bins: Int64[np.ndarray, " K"] = np.zeros(0 if exact_median else round(180 / MEDIAN_BIN), np.int64)
        self._angles: list[np.ndarray] = []

    def update(
        self,
        predictions: Sequence[Float[Tensor, "3 _h _w"]] | Float[Tensor, "_b 3 _h _w"],
        truths: Sequence[Float[Tensor, "3 _h _w"]] | Float[Tensor, "_b 3 _h _w"],
        masks: Sequence[Bool[Tensor, "_h _w"]] | Bool[Tensor, "_b _h _w"] | None = None,
    ) -> None:
        """Count pictures; pixels outside their mask, if there is one, do not count.

        Raises:
            RecordError: numbers or sizes differ, or a prediction is not finite where it counts.
        """
        count, wanted = len(predictions), len(truths)
        require(count == wanted, "update", f"{count} predictions", f"{wanted}, as many as truths")
        require(masks is None or len(masks) == wanted, "update", "another number of masks", f"{wanted}")
        for i, (predicted, truth) in enumerate(zip(predictions, truths, strict=True)):
            where, shape = f"picture {self.pictures}", tuple(predicted.shape)
            require(
                shape == tuple(truth.shape), where, f"a prediction of {shape}", f"{tuple(truth.shape)}, the truth's"
            )
            said, true = precise(predicted), precise(truth)
            true = true.to(said.device)
            known = torch.isfinite(true).all(0) & (true != 0).any(0)
            if masks is not None:
                got = tuple(masks[i].shape)
                require(got == shape[1:], where, f"a mask of {got}", f"{shape[1:]}, the picture's")
                known = known & masks[i].to(known.device)
            sound = bool((torch.isfinite(said).all(0) | ~known).all())
            require(sound, where, "NaN or infinity in the prediction", "vectors")
            self._add(normal_angles(said, true)[known])
            self.pictures += 1

    def _add(self, angles: Float[Tensor, " N"]) -> None:
        count = torch.tensor([float(len(angles))])
        numbers = {"angle": angles.sum()[None], "square": (angles**2).sum()[None], "count": count}
        numbers |= {f"within_{a:g}": (angles < a).sum()[None].double() for a in self.within}
        self._pixels.add(numbers)
        self._means.add({"mean": angles.mean()[None]})
        if self.exact_median:
            self._angles.append(angles.cpu().numpy())
        else:
            number = (angles / MEDIAN_BIN).long().clamp(max=len(self._bins) - 1)
            self._bins += torch.bincount(number, minlength=len(self._bins)).cpu().numpy()

    def merge(self, other: "NormalScores") -> None:
        """Add what another accumulator of the same angles has counted.

        Raises:
            UsageError: they differ.
        """
        require_same_rules(self, other, ("within", "exact_median"))
        self._pixels.merge(other._pixels)
        self._means.merge(other._means)
        self._bins += other._bins
        self._angles += other._angles
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """Shares within each angle (the first leads), mean, median and root mean square over all pixels, and
        `mean_of_pictures`, the mean of each picture's mean; degrees."""
        pixels = self._pixels.total("count")

        def over_pixels(name: str) -> float:
            return self._pixels.total(name) / pixels if pixels else math.nan

        values = {f"within_{a:g}": over_pixels(f"within_{a:g}") for a in self.within}
        values |= {"mean": over_pixels("angle"), "median": self._median(int(pixels))}
        values |= {"rmse": math.sqrt(over_pixels("square")), "mean_of_pictures": self._means.mean("mean")}
        median = "exact" if self.exact_median else f"to {MEDIAN_BIN / 2:g} degrees"
        protocol = (
            f"angles in degrees over {pixels:.0f} pixels of {self.pictures} pictures, within: strictly below; "
            f"median {median}"
        )
        return Scores(f"within_{self.within[0]:g}", values, protocol, details={"pixels": int(pixels)})

    def _median(self, pixels: int) -> float:
        """The middle angle, the mean of the middle two of an even number."""
        if not pixels:
            return math.nan
        if self.exact_median:
            return float(np.median(np.concatenate(self._angles)))
        below = np.cumsum(self._bins)
        middle = [int(np.searchsorted(below, place, side="right")) for place in ((pixels - 1) // 2, pixels // 2)]
        return (sum(middle) / 2 + 0.5) * MEDIAN_BIN
