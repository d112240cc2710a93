"""What a region proposal network learns from a picture (Ren et al.: Faster R-CNN, NIPS 2015, sections 3.1.2, 3.1.3).

Pure functions of its outputs and anchors, for every system that has one.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bestiary.assign.box_codec import BoxCodec
from bestiary.assign.matcher import IGNORE, Assignment, ThresholdMatcher
from bestiary.assign.sampler import sample_balanced
from bestiary.heads.rpn import RPN, ProposalSettings, flat
from bestiary.heads.truth import Truth, assign
from bestiary.losses.regression import smooth_l1_loss

ANCHOR_CODEC = BoxCodec((1.0, 1.0, 1.0, 1.0))
SMOOTH_BETA = 1 / 9
"""Where smooth L1 turns from parabola to line: sigma 3 of the authors' code."""


def within(boxes_xyxy: Float[Tensor, "A 4"], size_hw: tuple[int, int]) -> Bool[Tensor, " A"]:
    """Boxes no part of which lies outside a picture."""
    inside = (boxes_xyxy[:, :2] >= 0).all(1)
    return inside & (boxes_xyxy[:, 2] <= size_hw[1]) & (boxes_xyxy[:, 3] <= size_hw[0])


def assign_anchors(
    anchors_xyxy: Float[Tensor, "A 4"],
    truth: Truth,
    settings: ProposalSettings,
    size_hw: tuple[int, int] | None = None,
) -> Assignment:
    """Which object each anchor learns: positive, negative or ignored.

    Args:
        anchors_xyxy: pixels.
        truth: of the picture.
        settings: thresholds.
        size_hw: of the picture, for `inside_only`: an object's best anchor is then the best of those inside.
    """
    matcher = ThresholdMatcher(settings.positive_iou, settings.negative_iou, True)
    if not settings.inside_only or size_hw is None:
        return assign(anchors_xyxy, truth, matcher)
    inside = within(anchors_xyxy, size_hw).nonzero()[:, 0]
    of_inside = assign(anchors_xyxy[inside], truth, matcher)
    everywhere = torch.zeros(len(anchors_xyxy), dtype=torch.int64, device=anchors_xyxy.device)
    kind = torch.full_like(everywhere, IGNORE, dtype=of_inside.kind.dtype)
    return replace(
        of_inside,
        object=everywhere.index_copy(0, inside, of_inside.object),
        kind=kind.index_copy(0, inside, of_inside.kind),
    )


class SampledAnchors(NamedTuple):
    """Anchors of a batch that a step learns from.

    Attributes:
        rows: S of them, `picture * anchors a picture + anchor`.
        answers: 1 for an object, 0 for background.
        positive: which of the rows are objects.
        wanted: their offsets to their objects.
    """

    rows: Tensor
    answers: Tensor
    positive: Tensor
    wanted: Tensor


@torch.no_grad()
def sample_anchors(
    anchors_xyxy: Float[Tensor, "N 4"],
    truths: Sequence[Truth],
    settings: ProposalSettings,
    sizes_hw: Sequence[tuple[int, int]] | None = None,
) -> SampledAnchors:
    """Draw anchors of each picture at random.

    Args:
        anchors_xyxy: of all levels, one after the other, the same for all pictures.
        truths: of each picture.
        settings: who learns, and how many are drawn.
        sizes_hw: of each picture, for `inside_only`.
    """
    rows, answers, wanted = [], [], []
    for picture, truth in enumerate(truths):
        assignment = assign_anchors(anchors_xyxy, truth, settings, None if sizes_hw is None else sizes_hw[picture])
        positive, negative = sample_balanced(assignment, settings.per_image, settings.positive_share)
        rows.append(torch.cat([positive, negative]) + picture * len(anchors_xyxy))
        answers.append(torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]))
        wanted.append(ANCHOR_CODEC.encode(truth.boxes_xyxy[assignment.object[positive]], anchors_xyxy[positive]))
    answer = torch.cat(answers).to(anchors_xyxy.device)
    return SampledAnchors(torch.cat(rows), answer, answer.nonzero()[:, 0], torch.cat(wanted))


def rpn_losses(
    outputs: tuple[Sequence[Float[Tensor, "B _a _h _w"]], Sequence[Float[Tensor, "B _d _h _w"]]],
    anchors_xyxy: Float[Tensor, "N 4"],
    truths: Sequence[Truth],
    settings: ProposalSettings,
    sizes_hw: Sequence[tuple[int, int]] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Equation 1 on sampled anchors: log loss, and smooth L1 of the positives, both over the number of all sampled.

    Args:
        outputs: objectness logits and deltas of each level, everywhere.
        anchors_xyxy: as for `sample_anchors`, and so are the others.
        truths: of each picture.
        settings: also the weight of the box loss.
        sizes_hw: of each picture.
    """
    sampled = sample_anchors(anchors_xyxy, truths, settings, sizes_hw)
    levels = [flat(o, d) for o, d in zip(*outputs, strict=True)]
    logits = torch.cat([v[0] for v in levels], 1).flatten()
    deltas = torch.cat([v[1] for v in levels], 1).flatten(0, 1)
    return _losses_of(logits[sampled.rows], deltas[sampled.rows], sampled, settings)


def rpn_losses_where_sampled(
    rpn: RPN,
    pyramid: Sequence[Float[Tensor, "B C _h _w"]],
    anchors_xyxy: Float[Tensor, "N 4"],
    truths: Sequence[Truth],
    settings: ProposalSettings,
    sizes_hw: Sequence[tuple[int, int]] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`rpn_losses` of the same anchors and with the same gradients, computed only where anchors were sampled.

    Of 50,000 places of a batch a thousand are: on a feature pyramid that saves two thirds of the network's work, as
    proposals need no gradient.

    Args:
        rpn: the network.
        pyramid: the maps it looks at.
        anchors_xyxy: as for `rpn_losses`, and so are the others.
        truths: of each picture.
        settings: of the first stage.
        sizes_hw: of each picture.
    """
    sampled = sample_anchors(anchors_xyxy, truths, settings, sizes_hw)
    return _losses_of(*rpn.at(pyramid, sampled.rows), sampled, settings)


def _losses_of(
    logits: Float[Tensor, " S"], deltas: Float[Tensor, "S 4"], sampled: SampledAnchors, settings: ProposalSettings
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    divisor = max(1, len(logits))
    log_loss = F.binary_cross_entropy_with_logits(logits, sampled.answers, reduction="sum")
    box = smooth_l1_loss(deltas[sampled.positive], sampled.wanted, SMOOTH_BETA).sum()
    return log_loss / divisor, settings.box_weight * box / divisor
