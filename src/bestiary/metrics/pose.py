"""How near predicted joints come to the annotated ones: OKS, PCK, PCKh, PCP and the curves behind them.

Convention: keypoints are x, y (further columns are not read), truths x, y and visibility. A joint of visibility 0 is
not annotated and counts nowhere; hidden (1) and visible (2) joints count alike. Thresholds are inclusive: a distance
of exactly `alpha` lengths is right. What cannot be measured is NaN.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.metrics.averages import at_least_single, precise, require_same_rules
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.records import require

COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035),  # nose, eyes, ears
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),  # shoulders, elbows, wrists
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),  # hips, knees, ankles
)
"""Standard deviation of annotators for each of COCO's 17 joints, relative to the square root of the person's area."""

Normalizer = Literal["head", "torso", "box", "given"]
"""The length that distances are measured in: `head_lengths`, `torso_lengths`, `box_lengths` or another."""

_CURVE_POINTS = 101


def object_keypoint_similarity(
    keypoints: Float[Tensor, "*#B J _d"],
    truths: Float[Tensor, "*#B J 3"],
    areas: Float[Tensor, "*#B"],
    sigmas: Sequence[int | float] = COCO_SIGMAS,
    boxes_xyxy: Float[Tensor, "*#B 4"] | None = None,
) -> Float[Tensor, "*#B"]:
    """OKS, 0..1: `mean over annotated joints of exp(-d^2 / (2 area (2 sigma)^2))` (COCO keypoint evaluation, 2016).

    Convention: leading axes broadcast, so `oks(found[:, None], truths[None], areas[None])` is the N x M table. Areas
    are square pixels (COCO: of the mask, not the box); as in the reference tool 2^-52 is added to them. A truth without
    annotated joints is compared with its box doubled about its centre: d is the distance of each joint from outside
    to it, 0 within; without `boxes_xyxy` its similarity is NaN (and passes no gradient).
    Differentiable; half precision is computed in float32.

    Args:
        sigmas: one a joint.
        boxes_xyxy: of the truths; read only where no joint is annotated.

    Raises:
        RecordError: not one sigma a joint.
    """
    joints = truths.shape[-2]
    require(len(sigmas) == joints, "sigmas", f"{len(sigmas)} numbers", f"{joints}, one a joint")
    points, truths, areas = at_least_single(keypoints)[..., :2], at_least_single(truths), at_least_single(areas)
    annotated = truths[..., 2] > 0
    count = annotated.sum(-1)
    offsets = points - truths[..., :2]
    if boxes_xyxy is not None:
        corners = at_least_single(boxes_xyxy)[..., None, :]
        sides = corners[..., 2:] - corners[..., :2]
        low, high = corners[..., :2] - sides, corners[..., 2:] + sides
        outside = (low - points).clamp(min=0) + (points - high).clamp(min=0)
        bare = (count == 0)[..., None]
        offsets = torch.where(bare[..., None], outside, offsets)
        annotated = annotated | bare
        count = annotated.sum(-1)
    spread = torch.tensor([2 * s for s in sigmas], dtype=offsets.dtype, device=offsets.device) ** 2
    exponents = (offsets**2).sum(-1) / (2 * spread * (areas[..., None] + 2.0**-52))
    # Exponents of joints that do not count may be infinite: replaced before exp, or their gradient would be NaN.
    similarity = torch.where(annotated, torch.exp(-exponents.masked_fill(~annotated, 0.0)), 0.0)
    mean = similarity.sum(-1) / count.clamp(min=1)
    return torch.where(count > 0, mean, torch.full_like(mean, math.nan))


def head_lengths(head_boxes_xyxy: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B"]:
    """MPII's head size, pixels: 0.6 times the diagonal of the annotated head box (Andriluka et al., CVPR 2014)."""
    return 0.6 * torch.hypot(
        head_boxes_xyxy[..., 2] - head_boxes_xyxy[..., 0], head_boxes_xyxy[..., 3] - head_boxes_xyxy[..., 1]
    )


def box_lengths(boxes_xyxy: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B"]:
    """The larger side of the person's box, pixels (Yang and Ramanan, PAMI 2013)."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).amax(-1)


def torso_lengths(truths: Float[Tensor, "*B J 3"], ends: tuple[int, int]) -> Float[Tensor, "*B"]:
    """Distance between two annotated joints, pixels; NaN where one of them is not.

    Args:
        ends: FLIC's and LSP's torso runs from the left shoulder to the right hip (Sapp and Taskar, CVPR 2013).

    Raises:
        UsageError: no such joint.
    """
    _require_joints("ends", ends, truths.shape[-2])
    first, second = truths[..., ends[0], :], truths[..., ends[1], :]
    length = torch.linalg.vector_norm(first[..., :2] - second[..., :2], dim=-1)
    return length.masked_fill((first[..., 2] <= 0) | (second[..., 2] <= 0), math.nan)


def keypoint_distances(
    keypoints: Float[Tensor, "*B J _d"], truths: Float[Tensor, "*B J 3"], lengths: Float[Tensor, "*B"]
) -> Float[Tensor, "*B J"]:
    """Distance of each joint from its truth in units of the person's length.

    Convention: NaN where the joint is not annotated, and for persons whose length is NaN, infinite or not above 0.
    """
    points, truths, lengths = at_least_single(keypoints), at_least_single(truths), at_least_single(lengths)
    measured = torch.isfinite(lengths) & (lengths > 0)
    # Divided rather than compared with alpha * length: a correctly rounded quotient meets the written alpha exactly.
    distances = torch.linalg.vector_norm(points[..., :2] - truths[..., :2], dim=-1)
    distances = distances / torch.where(measured, lengths, 1.0)[..., None]
    return distances.masked_fill(~(measured[..., None] & (truths[..., 2] > 0)), math.nan)


def correct_keypoints(
    keypoints: Float[Tensor, "*B J _d"],
    truths: Float[Tensor, "*B J 3"],
    lengths: Float[Tensor, "*B"],
    alpha: int | float = 0.5,
) -> Float[Tensor, "*B J"]:
    """1 where a joint is within `alpha` lengths of its truth, 0 where it is not, NaN where that cannot be said.

    `nanmean()` of it is PCK over all joints, `nanmean(0)` each joint's; with `head_lengths` and 0.5 it is PCKh@0.5.
    """
    distances = keypoint_distances(keypoints, truths, lengths)
    return (distances <= alpha).to(distances.dtype).masked_fill(distances.isnan(), math.nan)


def correct_limbs(
    keypoints: Float[Tensor, "*B J _d"],
    truths: Float[Tensor, "*B J 3"],
    limbs: Sequence[tuple[int, int]],
    alpha: int | float = 0.5,
) -> Float[Tensor, "*B _limbs"]:
    """Strict PCP: 1 where both ends of a limb are within `alpha` of its true length, 0 where not, NaN where an end is
    not annotated or the true limb has no length (Ferrari et al., CVPR 2008, each end judged by itself).

    Raises:
        UsageError: no limb, or a joint that does not exist.
    """
    if not limbs:
        raise UsageError("got no limb, wanted pairs of joints", where="limbs")
    columns = []
    for ends in limbs:
        _require_joints("limbs", ends, truths.shape[-2])
        pair = list(ends)
        lengths = torso_lengths(truths, ends)
        columns.append(correct_keypoints(keypoints[..., pair, :], truths[..., pair, :], lengths, alpha).amin(-1))
    return torch.stack(columns, dim=-1)


class PoseScores:
    """PCK of every joint at several thresholds, and the curve up to the largest.

    Kept: two tables of counts, thresholds x joints, whatever the number of people.

    Args:
        joints: J names.
        alphas: thresholds in lengths; the first leads. The area under the curve reaches up to the largest.
        normalizer: what the lengths given to `update` are: named in the protocol; "head" makes it PCKh.

    Raises:
        UsageError: no joint, no threshold, or one that is not positive.
    """

    def __init__(
        self, joints: Sequence[str], alphas: Sequence[int | float] = (0.5, 0.2, 0.1), normalizer: Normalizer = "head"
    ) -> None:
        if not joints or not alphas or min(alphas) <= 0:
            got = f"{len(joints)} joints and thresholds {list(alphas)}"
            raise UsageError(f"got {got}, wanted at least one of each, thresholds above 0", where="alphas")
        self.joints, self.alphas = tuple(joints), tuple(float(a) for a in alphas)
        self.normalizer: Normalizer = normalizer
        self._grid = np.concatenate([self.alphas, np.linspace(0.0, max(self.alphas), _CURVE_POINTS)])
        self._right: Int64[np.ndarray, "T J"] = np.zeros((len(self._grid), len(joints)), np.int64)
        self._judged: Int64[np.ndarray, " J"] = np.zeros(len(joints), np.int64)
        self._people = self._unmeasured = 0

    def update(
        self, keypoints: Float[Tensor, "N J _d"], truths: Float[Tensor, "N J 3"], lengths: Float[Tensor, " N"]
    ) -> None:
        """Count N people, each prediction beside its truth.

        Raises:
            RecordError: not as many joints as names, or a prediction that is not a number where a truth is.
        """
        got = truths.shape[1]
        require(got == len(self.joints), "update(truths)", f"{got} joints", f"{len(self.joints)}, as named")
        truths, lengths = precise(truths), precise(lengths)
        bad = keypoints[..., :2].isnan().any(-1) & (truths[..., 2] > 0).to(keypoints.device)
        require(not bool(bad.any()), "update(keypoints)", "NaN", "numbers")
        distances = keypoint_distances(precise(keypoints), truths, lengths).cpu().numpy()
        self._judged += (~np.isnan(distances)).sum(0)
        self._right += np.stack([(distances <= alpha).sum(0) for alpha in self._grid])
        self._people += len(truths)
        self._unmeasured += int((~(torch.isfinite(lengths) & (lengths > 0))).sum())

    def merge(self, other: "PoseScores") -> None:
        """Add what another accumulator of the same joints and thresholds has counted.

        Raises:
            UsageError: they differ.
        """
        require_same_rules(self, other, ("joints", "alphas", "normalizer"))
        self._right += other._right
        self._judged += other._judged
        self._people += other._people
        self._unmeasured += other._unmeasured

    def compute(self) -> Scores:
        """PCK over all joints (leading, at the first threshold), its mean over joints, and the area under the curve,
        the mean PCK of thresholds from 0 to the largest by the trapezoid rule."""
        kind, count = "PCKh" if self.normalizer == "head" else "PCK", len(self.alphas)
        with np.errstate(invalid="ignore"):
            per_joint = self._right / self._judged
            pooled = self._right.sum(1) / self._judged.sum()
        values = {f"{kind}@{alpha:g}": float(pooled[t]) for t, alpha in enumerate(self.alphas)}
        for t, alpha in enumerate(self.alphas):
            values[f"{kind}@{alpha:g}_mean_of_joints"] = mean_of_measured(per_joint[t])
        values[f"{kind}_AUC"] = float(_trapezoid(pooled[count:]))
        per_class = {
            name: {
                **{f"{kind}@{alpha:g}": float(per_joint[t, j]) for t, alpha in enumerate(self.alphas)},
                f"{kind}_AUC": float(_trapezoid(per_joint[count:, j])),
                "count": float(self._judged[j]),
            }
            for j, name in enumerate(self.joints)
        }
        unit = {"head": "0.6 x diagonal of the head box", "torso": "torso", "box": "larger side of the box"}
        protocol = (
            f"{self._people} people, {int(self._judged.sum())} annotated joints; right within alpha (inclusive) of "
            f"{unit.get(self.normalizer, 'the given lengths')}; over all joints unless said; area under the curve "
            f"from 0 to {max(self.alphas):g}"
        )
        details = {
            "people": self._people,
            "people_without_length": self._unmeasured,
            "thresholds": self._grid[count:],
            "curve": pooled[count:],
        }
        return Scores(f"{kind}@{self.alphas[0]:g}", values, protocol, per_class, details)


def _trapezoid(curve: Float[np.ndarray, " P"]) -> float:
    """Area over a width of 1."""
    return (curve.sum() - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


def _require_joints(where: str, ends: tuple[int, int], count: int) -> None:
    if not all(0 <= end < count for end in ends):
        raise UsageError(f"got {ends}, wanted two joints from 0 to {count - 1}", where=where)
