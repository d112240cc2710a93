"""What detectors that classify regions have in common: which regions a step learns from, their loss, and their answers.

Girshick: Fast R-CNN, ICCV 2015, section 2.3. Hard examples: Shrivastava, Gupta, Girshick, CVPR 2016, as Dai et al.,
R-FCN, NIPS 2016, section 2 take them. Pure functions: the networks, and where regions come from, are the systems'.

Background is class 0 of the logits; category k has class k + 1. Deltas have a column for each class, or two, of the
background and of any object.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.assign.box_codec import BoxCodec
from bestiary.assign.matcher import IGNORE, NEGATIVE, ThresholdMatcher
from bestiary.assign.sampler import sample_balanced
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import clip_boxes, large_enough, scale_boxes
from bestiary.heads.box import RegionSettings
from bestiary.heads.suppression import HARD, Suppression
from bestiary.heads.truth import Truth, assign
from bestiary.losses.classification import cross_entropy_loss
from bestiary.losses.regression import smooth_l1_loss
from bestiary.records import Objects, Target

REGION_CODEC = BoxCodec((10.0, 10.0, 5.0, 5.0))
"""Regions' offsets divided by what Fast R-CNN's code takes for their spread, 0.1, 0.1, 0.2, 0.2."""


class SampledRegions(NamedTuple):
    """Regions of one picture that a region head learns from.

    Attributes:
        boxes_xyxy: R regions, positives first.
        classes: 0 for background, label + 1 for an object.
        truth_xyxy: the object of each positive; P rows.
    """

    boxes_xyxy: Tensor
    classes: Tensor
    truth_xyxy: Tensor


@torch.no_grad()
def sample_regions(
    proposals_xyxy: Float[Tensor, "P 4"], truth: Truth, settings: RegionSettings, background_from: int | float = 0.0
) -> SampledRegions:
    """Regions of one picture, drawn at random; the objects themselves are among the candidates.

    Args:
        proposals_xyxy: candidates, pixels of the picture as the network sees it.
        truth: its objects.
        settings: which overlap makes a positive, how many regions, and the positives' largest share of them.
        background_from: a candidate that overlaps every object by less is not learned from: those that just touch an
            object are the harder ones. Of a picture without objects all candidates are background.
    """
    candidates = torch.cat([proposals_xyxy, truth.boxes_xyxy])
    assignment = assign(candidates, truth, ThresholdMatcher(settings.positive_iou, settings.positive_iou))
    if background_from > 0 and len(truth.boxes_xyxy):
        touching = ThresholdMatcher(background_from, background_from).match_boxes(truth.boxes_xyxy, candidates)
        easy = (assignment.kind == NEGATIVE) & (touching.kind == NEGATIVE)
        assignment = replace(assignment, kind=assignment.kind.masked_fill(easy, IGNORE))
    positive, negative = sample_balanced(assignment, settings.per_image, settings.positive_share)
    objects = assignment.object[positive]
    classes = torch.cat([truth.labels[objects] + 1, torch.zeros_like(negative)])
    return SampledRegions(candidates[torch.cat([positive, negative])], classes, truth.boxes_xyxy[objects])


def label_regions(proposals_xyxy: Float[Tensor, "P 4"], truth: Truth, settings: RegionSettings) -> SampledRegions:
    """As `sample_regions`, but all of them: hard examples are chosen by their losses."""
    everything = len(proposals_xyxy) + len(truth.boxes_xyxy)
    return sample_regions(proposals_xyxy, truth, replace(settings, per_image=everything, positive_share=1.0))


def region_losses(
    logits: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R D 4"],
    sampled: Sequence[SampledRegions],
    codec: BoxCodec = REGION_CODEC,
    beta: int | float = 1.0,
    class_weights: Float[Tensor, " K1"] | None = None,
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Equation 1 of Fast R-CNN for each region: -log p_u, and for objects the smooth L1 of the four offsets.

    Args:
        logits: of all pictures' regions, one after the other.
        deltas: likewise; of a positive only its class's column is read.
        sampled: the regions of each picture.
        codec: makes the wanted offsets.
        beta: where smooth L1 turns from parabola to line; 1 in Fast R-CNN, 1/9 in Faster R-CNN's code.
        class_weights: factors on the first loss, the background's first (`weights_with_background`).

    Returns:
        classification and regression; the second is 0 for background.
    """
    classes = torch.cat([s.classes for s in sampled])
    positive = (classes > 0).nonzero()[:, 0]
    regions = torch.cat([s.boxes_xyxy for s in sampled])[positive]
    wanted = codec.encode(torch.cat([s.truth_xyxy for s in sampled]), regions)
    moved = deltas[positive, classes[positive].clamp(max=deltas.shape[1] - 1)]
    box = logits.new_zeros(len(logits)).index_put((positive,), smooth_l1_loss(moved, wanted, beta).sum(1))
    return cross_entropy_loss(logits, classes, class_weights=class_weights), box


def mean_of_regions(
    losses: tuple[Float[Tensor, " R"], Float[Tensor, " R"]], chosen: Int64[Tensor, " C"] | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Both losses of the chosen regions (all if None), each divided by their number, background among them."""
    classification, box = losses if chosen is None else (losses[0][chosen], losses[1][chosen])
    divisor = max(1, len(classification))
    return classification.sum() / divisor, box.sum() / divisor


@torch.no_grad()
def hardest_regions(
    losses: tuple[Float[Tensor, " R"], Float[Tensor, " R"]], counts: Sequence[int], most: int
) -> Int64[Tensor, " C"]:
    """Of each picture the `most` regions whose two losses together are largest; equal ones by their order.

    Args:
        losses: of `region_losses`.
        counts: how many regions each picture has.
        most: of each picture.
    """
    found, first = [], 0
    for of_picture in (losses[0] + losses[1]).split(list(counts)):
        order = torch.sort(of_picture, descending=True, stable=True).indices[:most]
        found.append(order + first)
        first += len(of_picture)
    return torch.cat(found)


def decode_regions(
    logits: Float[Tensor, "R K1"],
    deltas: Float[Tensor, "R D 4"],
    regions_xyxy: Float[Tensor, "R 4"],
    size_hw: tuple[int, int],
    settings: RegionSettings,
    codec: BoxCodec = REGION_CODEC,
    suppression: Suppression = HARD,
    max_detections: int | None = None,
) -> tuple[Float[Tensor, "N 4"], Int64[Tensor, " N"], Float[Tensor, " N"]]:
    """One picture's regions to its answers, in the regions' pixels: boxes, labels from 0, scores, best first.

    A region may answer with several categories, each with its own box; each is suppressed within its category.

    Args:
        logits: background first.
        deltas: a column for each class, or for background and any object.
        regions_xyxy: what they move.
        size_hw: of the picture; answers are clipped to it.
        settings: least score and side, overlap, and number of answers.
        codec: reads the deltas.
        suppression: how overlapping answers make room.
        max_detections: in place of the settings'.
    """
    probs = logits.softmax(1)[:, 1:]
    region, label = (probs > settings.min_score).nonzero(as_tuple=True)
    scores = probs[region, label]
    offsets = deltas[region, (label + 1).clamp(max=deltas.shape[1] - 1)]
    boxes = clip_boxes(codec.decode(offsets, regions_xyxy[region]), size_hw)
    large = large_enough(boxes, settings.min_side)
    boxes, label, scores = boxes[large], label[large], scores[large]
    keep, scores = suppression(boxes, scores, label, settings.nms_iou)
    keep = keep[: max_detections or settings.max_detections]
    return boxes[keep], label[keep], scores[: len(keep)]


def weights_with_background(class_weights: Sequence[float] | None, num_categories: int) -> Float[Tensor, " K1"] | None:
    """Factors on the classification loss of the background, 1, and of each category; None for none.

    Raises:
        UsageError: not one a category, or one that is not positive.
    """
    if class_weights is None:
        return None
    if len(class_weights) != num_categories or min(class_weights) <= 0:
        got = f"got {tuple(class_weights)}, wanted {num_categories} positive numbers, one a category"
        raise UsageError(got, where="class_weights")
    return torch.tensor([1.0, *class_weights])


def proposals_of(targets: Sequence[Target]) -> list[Float[Tensor, "_p 4"]]:
    """The boxes that each picture's objects are looked for in.

    Raises:
        RecordError: a target has none (None; an empty tensor is legal).
    """
    found = []
    for i, target in enumerate(targets):
        if target.proposals_xyxy is None:
            mend = "`bestiary train` attaches them; by hand: dataclasses.replace(target, proposals_xyxy=boxes)"
            raise RecordError("got None, wanted boxes", where=f"targets[{i}].proposals_xyxy", mend=mend)
        found.append(target.proposals_xyxy)
    return found


def scale_target(target: Target, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Target:
    """Of the truth of a picture resized from one size to another what region detectors read: objects and proposals."""
    objects, proposals = target.objects, target.proposals_xyxy
    if objects is not None:
        boxes = scale_boxes(objects.boxes_xyxy, from_hw, to_hw)
        objects = Objects(boxes, objects.labels, crowd=objects.crowd, difficult=objects.difficult)
    if proposals is not None:
        proposals = scale_boxes(proposals, from_hw, to_hw)
    return Target(label=target.label, objects=objects, proposals_xyxy=proposals)
