"""How near predicted joints come to the true ones in space: MPJPE, also after the best rigid or similar motion.

Convention: joints are x, y, z in one unit (the library's is the metre) and in the order of the truth; errors have that
unit. A joint whose `annotated` is False counts nowhere; a pose without annotated joints is NaN.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.fitting import fit_similarity, map_points
from bestiary.metrics.averages import Averages, at_least_single, precise, require_same_rules
from bestiary.metrics.scores import Scores
from bestiary.records import require

_CURVE_STEPS = 30


def joint_errors(
    points: Float[Tensor, "*B J D"],
    truths: Float[Tensor, "*B J D"],
    annotated: Bool[Tensor, "*B J"] | None = None,
    root: int | None = None,
) -> Float[Tensor, "*B J"]:
    """Distance of each joint from its truth; NaN where it is not annotated.

    Args:
        root: joint (the pelvis, as a rule) that both poses are moved by, so that it lies at the origin. Where the root
            is not annotated the whole pose is NaN.

    Raises:
        UsageError: no such joint.
    """
    points, truths = at_least_single(points), at_least_single(truths)
    known = torch.ones_like(points[..., 0], dtype=torch.bool) if annotated is None else annotated
    if root is not None:
        if not 0 <= root < points.shape[-2]:
            raise UsageError(f"got {root}, wanted a joint from 0 to {points.shape[-2] - 1}", where="root")
        points, truths = points - points[..., root, None, :], truths - truths[..., root, None, :]
        known = known & known[..., root, None]
    return torch.linalg.vector_norm(points - truths, dim=-1).masked_fill(~known, math.nan)


def mpjpe(
    points: Float[Tensor, "*B J D"],
    truths: Float[Tensor, "*B J D"],
    annotated: Bool[Tensor, "*B J"] | None = None,
    root: int | None = None,
) -> Float[Tensor, "*B"]:
    """Mean distance per joint position of each pose (Ionescu et al., PAMI 2014, eq. 8); Human3.6M's protocol 1 with
    `root` the pelvis."""
    return joint_errors(points, truths, annotated, root).nanmean(-1)


def pa_mpjpe(
    points: Float[Tensor, "*B J D"],
    truths: Float[Tensor, "*B J D"],
    annotated: Bool[Tensor, "*B J"] | None = None,
) -> Float[Tensor, "*B"]:
    """MPJPE after each pose's best similarity motion, never a reflection (Procrustes; Human3.6M's protocol 2)."""
    points, truths = at_least_single(points), at_least_single(truths)
    # A pose without annotated joints is NaN whatever its motion, but must have one.
    counted = None if annotated is None else (annotated | ~annotated.any(-1, keepdim=True)).to(points.dtype)
    return mpjpe(map_points(points, fit_similarity(points, truths, counted)), truths, annotated)


class Pose3dScores:
    """MPJPE, PA-MPJPE and 3D PCK, means over poses.

    Kept: one sum a number, whatever the number of poses.

    Args:
        root: joint at which both poses are put before MPJPE and PCK; None leaves them where they are.
        threshold: of 3D PCK, inclusive, in the joints' unit (0.15 m: Mehta et al., 3DV 2017).
        unit: named in the protocol.

    Raises:
        UsageError: a threshold that is not positive.
    """

    def __init__(self, root: int | None = None, threshold: int | float = 0.15, unit: str = "m") -> None:
        if not threshold > 0:
            raise UsageError(f"got {threshold}, wanted a length above 0", where="threshold")
        self.root, self.threshold, self.unit = root, float(threshold), unit
        self._averages = Averages()

    def update(
        self,
        points: Float[Tensor, "N J 3"],
        truths: Float[Tensor, "N J 3"],
        annotated: Bool[Tensor, "N J"] | None = None,
    ) -> None:
        """Count N poses.

        Raises:
            RecordError: a prediction that is not a finite number.
        """
        require(bool(torch.isfinite(points).all()), "update(points)", "NaN or infinity", "numbers")
        points, truths = precise(points), precise(truths)
        errors = joint_errors(points, truths, annotated, self.root)
        shares = [self._share(errors, self.threshold * i / _CURVE_STEPS) for i in range(_CURVE_STEPS + 1)]
        self._averages.add(
            {
                "PCK3D": self._share(errors, self.threshold),
                "PCK3D_AUC": torch.stack(shares).mean(0),
                "MPJPE": errors.nanmean(-1),
                "PA_MPJPE": pa_mpjpe(points, truths, annotated),
            }
        )

    @staticmethod
    def _share(errors: Float[Tensor, "N J"], threshold: float) -> Float[Tensor, " N"]:
        return (errors <= threshold).to(errors.dtype).masked_fill(errors.isnan(), math.nan).nanmean(-1)

    def merge(self, other: "Pose3dScores") -> None:
        """Add what another accumulator of the same root, threshold and unit has counted.

        Raises:
            UsageError: they differ.
        """
        require_same_rules(self, other, ("root", "threshold", "unit"))
        self._averages.merge(other._averages)

    def compute(self) -> Scores:
        """3D PCK (leading: higher is better), its mean over 31 thresholds from 0, MPJPE and PA-MPJPE."""
        values = {name: self._averages.mean(name) for name in ("PCK3D", "PCK3D_AUC", "MPJPE", "PA_MPJPE")}
        place = "as they stand" if self.root is None else f"with joint {self.root} at the origin"
        protocol = (
            f"{self._averages.count('MPJPE')} poses {place}, errors in {self.unit}, means over poses; "
            f"PCK3D within {self.threshold:g} {self.unit} (inclusive); PA: after each pose's best similarity motion"
        )
        return Scores("PCK3D", values, protocol)
