"""A one-stage detector as one graph, with the suppression inside or left to the runner.

Such a system has `candidates(raw, pixels_hw)`: every box that it can give and the probability of each category, as many
as the size of the pixels says. The graph ranks them, and NonMaxSuppression is its last step; without it the ranked
boxes are the outputs, of one length a picture, for runners that have a suppression of their own.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.deploy.box_graph import DROPPED, KEPT, BoxGraph, best_of, clip_to, keep_only, limits_of, picked
from bestiary.deploy.graphs import Placement, Port
from bestiary.deploy.onnx_operators import suppress
from bestiary.heads.detection import Detector

MOST = 10_000
"""Boxes with a category, of a picture, that suppression looks at where the system sets no limit."""

Ranked = tuple[Float[Tensor, "B M 4"], Float[Tensor, "B M"], Int64[Tensor, "B M"]]
"""Boxes, probabilities and labels of the most probable pairs of a box and a category, best first."""


@dataclass(frozen=True)
class DenseRule:
    """How a system's candidates become answers.

    Attributes:
        min_score: answers have a higher probability.
        nms_iou: of two boxes of a category that overlap by more, the less probable goes.
        most: of a picture so many pairs of box and category are looked at, the best.
        of_category: first of each category so many; None for all.
        clip_first: boxes are clipped before they are compared.
    """

    min_score: int | float
    nms_iou: int | float
    most: int = MOST
    of_category: int | None = None
    clip_first: bool = True


class DenseGraph(BoxGraph):
    """Any system with `candidates`.

    Args:
        system: in evaluation mode.
        rule: of its answers.
        nms: inside the graph, or outside: then the outputs are what a suppression needs.
    """

    ranked_outputs = (
        Port("boxes", "float32", ("B", "M", 4), "x1, y1, x2, y2 in pixels of the input, none suppressed"),
        Port("scores", "float32", ("B", "M"), "probability, best first"),
        Port("labels", "int64", ("B", "M"), "index into the categories"),
    )

    def __init__(self, system: Detector, rule: DenseRule, nms: Placement = "inside") -> None:
        super().__init__(system, rule.min_score)
        self.network, self.nms, self.rule = system, nms, rule
        self.nms_iou = self.overlap(rule.nms_iou)
        if nms == "outside":
            self.outputs = self.ranked_outputs
            self.decoding = {
                "min_score": float(rule.min_score),
                "nms_iou": self.nms_iou,
                "max_detections": self.max_detections,
                "rule": "of the boxes whose score is above `min_score`, of two of one category whose overlap (IoU) "
                "exceeds `nms_iou` the worse goes; of what is left the `max_detections` best are the answer",
            }

    def forward(self, images: Float[Tensor, "B C H W"]) -> tuple[Tensor, ...]:
        """Boxes, scores, labels, and the picture each belongs to; or of each picture those of the ranked boxes."""
        limits = limits_of(images)
        boxes, probs, labels = self.ranked(images, limits)
        clipped = clip_to(boxes, limits)
        compared = clipped if self.rule.clip_first else boxes
        if self.nms == "outside":
            return compared, probs, labels
        groups = torch.arange(len(self.network.categories), device=labels.device)
        mine = (labels[:, None] == groups[:, None]) & (probs > self.min_score)[:, None]
        by_category = torch.where(mine, probs[:, None], DROPPED)
        rows = suppress(compared, by_category, self.nms_iou, KEPT)
        survivors = keep_only(probs, rows[:, 0] * probs.shape[1] + rows[:, 2])
        scores, chosen, of_picture = picked(survivors, self.max_detections)
        return clipped[of_picture, chosen], scores, labels[of_picture, chosen], of_picture

    def ranked(self, images: Float[Tensor, "B C H W"], limits: Float[Tensor, " 4"]) -> Ranked:
        """The best pairs of box and category, in pixels of the input, not clipped."""
        normalize: Any = getattr(self.network, "normalize", None)
        pixels = images if normalize is None else normalize(images)
        system: Any = self.network  # `candidates` is what these systems have in common, not a base
        boxes, scores = system.candidates(system(pixels), (pixels.shape[-2], pixels.shape[-1]))
        return self.rank(boxes, scores)

    def rank(self, boxes_xyxy: Float[Tensor, "B N 4"], scores: Float[Tensor, "B N K"]) -> Ranked:
        """The best pairs among all."""
        categories, rows = scores.shape[2], None
        if self.rule.of_category is not None:
            length: Any = torch.sym_min(self.rule.of_category, scores.shape[1])
            scores, rows = scores.topk(length, dim=1)
        probs, index = best_of(scores.flatten(1), self.rule.most)
        place = index // categories if rows is None else rows.flatten(1).gather(1, index)
        return boxes_xyxy.gather(1, place[..., None].expand(-1, -1, 4)), probs, index % categories
