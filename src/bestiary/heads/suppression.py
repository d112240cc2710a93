"""Which of many overlapping boxes are answers: one rule for all detectors, hard or soft."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.ops import batched_nms, batched_soft_nms, matrix_nms

SuppressionKind = Literal["nms", "soft_linear", "soft_gaussian", "matrix"]

MATRIX_MOST = 2000
"""Matrix NMS compares all pairs at once: of a category only so many of the best, so that memory stays bounded."""


@dataclass(frozen=True)
class Suppression:
    """How boxes of one category that overlap make room for the best of them. Categories never touch one another.

    Attributes:
        kind: nms: the others go; soft_linear, soft_gaussian: their scores are lowered one after the other (Bodla et
            al., Soft-NMS, ICCV 2017); matrix: all at once (Wang et al., SOLOv2, NeurIPS 2020).
        iou: overlap from which a box goes, or is lowered by soft_linear; None for the system's own.
        sigma: of the two Gaussian kinds (soft_gaussian, matrix): exp(-IoU^2 / sigma).
        min_score: boxes whose lowered scores are below this go; hard NMS lowers none.
    """

    kind: SuppressionKind = "nms"
    iou: int | float | None = None
    sigma: int | float = 0.5
    min_score: int | float = 0.001

    def __post_init__(self) -> None:
        if self.kind not in get_args(SuppressionKind):
            wanted = ", ".join(get_args(SuppressionKind))
            raise UsageError(f"got {self.kind!r}, wanted one of {wanted}", where="suppression")
        if self.iou is not None and not 0 <= self.iou <= 1:
            raise UsageError(f"got {self.iou}, wanted 0 to 1", where="suppression_iou")
        if not self.sigma > 0:
            raise UsageError(f"got {self.sigma}, wanted above 0", where="suppression_sigma")

    def __call__(
        self,
        boxes_xyxy: Float[Tensor, "N 4"],
        scores: Float[Tensor, " N"],
        labels: Int[Tensor, " N"],
        iou: int | float = 0.5,
    ) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
        """Indices of the boxes that stay, and their scores, best first over all categories together.

        Args:
            boxes_xyxy: candidates.
            scores: higher is better; for the soft kinds none below 0.
            labels: category of each, any integers.
            iou: the system's own overlap, for a rule without one.
        """
        overlap = iou if self.iou is None else self.iou
        if self.kind == "nms":
            kept = batched_nms(boxes_xyxy, scores, labels, overlap)
            return kept, scores[kept]
        if self.kind == "matrix":
            return self._all_at_once(boxes_xyxy, scores, labels)
        method = self.kind.removeprefix("soft_")
        return batched_soft_nms(boxes_xyxy, scores, labels, method, overlap, self.sigma, self.min_score)

    def _all_at_once(self, boxes_xyxy: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kept, lowered = [scores.new_empty(0, dtype=torch.int64)], [scores.new_empty(0)]
        for label in labels.unique():
            members = (labels == label).nonzero()[:, 0]
            best = torch.sort(scores[members], descending=True, stable=True).indices[:MATRIX_MOST]
            members = members[best]
            own = boxes_xyxy[members]
            values = matrix_nms(pairwise_iou(own, own), scores[members], sigma=self.sigma)
            stays = values >= self.min_score
            kept.append(members[stays])
            lowered.append(values[stays])
        indices, values = torch.cat(kept), torch.cat(lowered)
        by_index = torch.sort(indices).indices
        order = by_index[torch.sort(values[by_index], descending=True, stable=True).indices]
        return indices[order], values[order]


HARD = Suppression()
"""Greedy NMS at the system's own overlap."""
