"""Which regions R-CNN's three learners take as examples of what (Girshick et al., CVPR 2014, appendices B and C).

The rules differ on purpose. Fine-tuning needs many positives: every region that overlaps an object by half
(`heads.region_learning.sample_regions`). The SVMs judge exactly: their positives are the objects themselves, their
negatives overlap the objects of the category by less than 0.3, and what lies between is neither. The box regressors
learn only where a linear map can help: from regions that overlap an object by more than 0.6.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bestiary.geometry.boxes import box_area, pairwise_intersection, pairwise_iou
from bestiary.heads.truth import CROWD_SHARE, Truth


def svm_negatives(
    regions_xyxy: Float[Tensor, "R 4"], truth: Truth, num_categories: int, below: int | float = 0.3
) -> Bool[Tensor, "R K"]:
    """Whether a region is a negative of each category: it overlaps every object of that category by less than `below`,
    and does not lie mostly on a crowd, whose members may be of any category.
    """
    overlaps = pairwise_iou(regions_xyxy, truth.boxes_xyxy).nan_to_num(nan=0.0)
    highest = overlaps.new_zeros(len(regions_xyxy), num_categories)
    if len(truth.labels):
        highest = highest.scatter_reduce(1, truth.labels.expand_as(overlaps), overlaps, "amax")
    return (highest < below) & ~_crowded(regions_xyxy, truth)[:, None]


def regression_pairs(
    regions_xyxy: Float[Tensor, "R 4"], truth: Truth, above: int | float = 0.6
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    """Regions that learn to move onto an object, and the object of each: the one that it overlaps most, the first on a
    tie, if by more than `above`.
    """
    if not len(truth.boxes_xyxy):
        none = torch.zeros(0, dtype=torch.int64, device=regions_xyxy.device)
        return none, none
    overlap, which = pairwise_iou(regions_xyxy, truth.boxes_xyxy).nan_to_num(nan=0.0).max(1)
    rows = (overlap > above).nonzero()[:, 0]
    return rows, which[rows]


def _crowded(regions_xyxy: Float[Tensor, "R 4"], truth: Truth) -> Bool[Tensor, " R"]:
    on_crowd = torch.zeros(len(regions_xyxy), dtype=torch.bool, device=regions_xyxy.device)
    limit = CROWD_SHARE * box_area(regions_xyxy)
    for crowd in truth.crowds_xyxy:
        on_crowd |= pairwise_intersection(crowd[None], regions_xyxy)[0] > limit
    return on_crowd
