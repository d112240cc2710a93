"""What RetinaNet learns from a picture: pure functions of its outputs and anchors.

Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017, sections 3, 4.1 and 5.1. Beside the
focal loss of all anchors stand the losses that the paper compares it with: plain cross entropy, and that of hard
examples (Shrivastava, Gupta, Girshick: OHEM, CVPR 2016), of all kinds or 1 : 3 as in SSD.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.assign.box_codec import BoxCodec
from bestiary.assign.matcher import IGNORE, NEGATIVE, Assignment, ThresholdMatcher
from bestiary.errors import UsageError
from bestiary.heads.truth import Truth, assign
from bestiary.losses.classification import binary_cross_entropy_loss, sigmoid_focal_loss
from bestiary.losses.regression import smooth_l1_loss
from bestiary.ops import nms
from bestiary.ops.box_losses import generalized_box_iou_loss

ClassLoss = Literal["focal", "cross_entropy", "ohem", "ohem_1_3"]
BoxLoss = Literal["l1", "smooth_l1", "giou"]

DELTA_CODEC = BoxCodec((1.0, 1.0, 1.0, 1.0))
SMOOTH_BETA = 0.11
"""Where Detectron's smooth L1 turns from parabola to line."""
CANDIDATES_PER_EXAMPLE = 64
"""Suppression of hard examples begins with so many times as many as are wanted, the hardest: of all 200,000 anchors it
would take longer than the network."""


@dataclass(frozen=True)
class RetinaSettings:
    """Which anchors learn what, and which boxes are answers.

    Attributes:
        positive_iou: at least this IoU with an object makes an anchor positive.
        negative_iou: below this IoU with every object it is negative; between the two it is ignored.
        keep_best: an object's best anchors are positive whatever their IoU (torchvision, Detectron).
        class_loss: focal: of all anchors; cross_entropy: of all, plain; ohem: of the hardest `hard_per_image` after
            suppression; ohem_1_3: of those left by it the positives and three times as many negatives.
        alpha: of the focal loss: weight of the positives, 1 - alpha of the negatives; None for 1 of both.
        gamma: of the focal loss; 0 is the paper's balanced cross entropy.
        hard_per_image: anchors a picture that ohem chooses.
        hard_iou: of its suppression.
        box_loss: of the positives: l1 (torchvision), smooth_l1 (the paper's, corner at `SMOOTH_BETA`), giou.
        min_score: only probabilities above this are answers.
        before_nms: scores a level that enter NMS.
        nms_iou: of the NMS within each category.
        max_detections: answers a picture.
    """

    positive_iou: int | float = 0.5
    negative_iou: int | float = 0.4
    keep_best: bool = True
    class_loss: ClassLoss = "focal"
    alpha: int | float | None = 0.25
    gamma: int | float = 2.0
    hard_per_image: int = 128
    hard_iou: int | float = 0.5
    box_loss: BoxLoss = "l1"
    min_score: int | float = 0.05
    before_nms: int = 1000
    nms_iou: int | float = 0.5
    max_detections: int = 300

    def __post_init__(self) -> None:
        for name, choices in (("class_loss", get_args(ClassLoss)), ("box_loss", get_args(BoxLoss))):
            if getattr(self, name) not in choices:
                raise UsageError(f"got {getattr(self, name)!r}, wanted one of {', '.join(choices)}", where=name)
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise UsageError(f"got {self.alpha}, wanted a number between 0 and 1, or none", where="alpha")
        if self.gamma < 0:
            raise UsageError(f"got {self.gamma}, wanted 0 or more", where="gamma")
        for name in ("hard_per_image", "before_nms"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {getattr(self, name)}, wanted at least 1", where=name)


def assign_anchors(anchors_xyxy: Float[Tensor, "N 4"], truth: Truth, settings: RetinaSettings) -> Assignment:
    """Which object each anchor learns: positive, negative or ignored (section 4)."""
    return assign(
        anchors_xyxy, truth, ThresholdMatcher(settings.positive_iou, settings.negative_iou, settings.keep_best)
    )


def retina_losses(
    logits: Float[Tensor, "B N K"],
    deltas: Float[Tensor, "B N 4"],
    anchors_xyxy: Float[Tensor, "N 4"],
    truths: Sequence[Truth],
    settings: RetinaSettings,
    class_weights: Float[Tensor, " K"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Classification and box regression, each the mean over the pictures.

    A picture's focal loss, cross entropy and box loss are sums over its anchors divided by the number of its positives
    (of none: by 1); with hard examples classification is divided by the number of examples.

    Args:
        logits: of the batch, a column a category.
        deltas: likewise.
        anchors_xyxy: the same for all pictures.
        truths: of each picture.
        settings: who learns what.
        class_weights: factors on the classification loss of each category's positive anchors; background counts 1.
    """
    classification, box = [], []
    for of_picture, moved, truth in zip(logits, deltas, truths, strict=True):
        with torch.no_grad():
            assignment = assign_anchors(anchors_xyxy, truth, settings)
        classification.append(class_loss(of_picture, anchors_xyxy, assignment, truth.labels, settings, class_weights))
        box.append(box_loss(moved, anchors_xyxy, assignment, truth.boxes_xyxy, settings.box_loss))
    return torch.stack(classification).mean(), torch.stack(box).mean()


def class_loss(
    logits: Float[Tensor, "N K"],
    anchors_xyxy: Float[Tensor, "N 4"],
    assignment: Assignment,
    labels: Int64[Tensor, " M"],
    settings: RetinaSettings,
    class_weights: Float[Tensor, " K"] | None = None,
) -> Float[Tensor, ""]:
    """One picture's classification loss; ignored anchors have neither loss nor gradient.

    Args:
        logits: of each anchor.
        anchors_xyxy: hard examples close to one another by these make room for the hardest.
        assignment: of the anchors.
        labels: of the picture's objects.
        settings: which loss.
        class_weights: as for `retina_losses`.
    """
    positive = assignment.positive.nonzero()[:, 0]
    of_positive = labels[assignment.object[positive]]
    targets = torch.zeros_like(logits).index_put((positive, of_positive), logits.new_ones(()))
    weights = (assignment.kind != IGNORE).to(logits.dtype)
    if class_weights is not None:
        weights = weights.index_put((positive,), class_weights[of_positive].to(logits.dtype))
    if settings.class_loss in ("focal", "cross_entropy"):
        losses = (
            sigmoid_focal_loss(logits, targets, settings.alpha, settings.gamma)
            if settings.class_loss == "focal"
            else binary_cross_entropy_loss(logits, targets)
        )
        return (losses * weights[:, None]).sum() / max(1, len(positive))
    losses = binary_cross_entropy_loss(logits, targets).sum(1) * weights
    chosen = hard_examples(losses, anchors_xyxy, assignment, settings)
    return losses[chosen].sum() / max(1, len(chosen))


@torch.no_grad()
def hard_examples(
    losses: Float[Tensor, " N"], anchors_xyxy: Float[Tensor, "N 4"], assignment: Assignment, settings: RetinaSettings
) -> Int64[Tensor, " C"]:
    """The anchors that a picture learns from where not all do, hardest first.

    Anchors by their losses; those that overlap a harder one make room; then the first `hard_per_image` ("ohem"), or of
    those left all positives, and three times as many negatives, of none three ("ohem_1_3").

    Args:
        losses: of each anchor.
        anchors_xyxy: pixels.
        assignment: ignored anchors are never chosen.
        settings: how many, and which overlap.
    """
    learns = (assignment.kind != IGNORE).nonzero()[:, 0]
    order = torch.sort(losses[learns], descending=True, stable=True).indices
    hardest = learns[order[: CANDIDATES_PER_EXAMPLE * settings.hard_per_image]]
    left = hardest[nms(anchors_xyxy[hardest], losses[hardest], settings.hard_iou)]
    if settings.class_loss == "ohem":
        return left[: settings.hard_per_image]
    is_negative = assignment.kind[left] == NEGATIVE
    most = 3 * max(1, int((~is_negative).sum()))
    return left[~is_negative | (is_negative.cumsum(0) <= most)]


def box_loss(
    deltas: Float[Tensor, "N 4"],
    anchors_xyxy: Float[Tensor, "N 4"],
    assignment: Assignment,
    boxes_xyxy: Float[Tensor, "M 4"],
    kind: BoxLoss = "l1",
) -> Float[Tensor, ""]:
    """One picture's loss of its positives' boxes, divided by their number; 0, with gradient, where there is none.

    Args:
        deltas: of each anchor.
        anchors_xyxy: what they move.
        assignment: of the anchors.
        boxes_xyxy: of the picture's objects.
        kind: of the four numbers' differences, or of the boxes' overlap.
    """
    positive = assignment.positive.nonzero()[:, 0]
    wanted, anchors, moved = boxes_xyxy[assignment.object[positive]], anchors_xyxy[positive], deltas[positive]
    if kind == "giou":
        losses = generalized_box_iou_loss(DELTA_CODEC.decode(moved, anchors), wanted)
    else:
        beta = SMOOTH_BETA if kind == "smooth_l1" else 0.0
        losses = smooth_l1_loss(moved, DELTA_CODEC.encode(wanted, anchors), beta)
    return losses.sum() / max(1, len(positive))
