"""Masks as pixels, and where all of a mask's forms are found: run lengths (`rle`), polygons (`polygons`), pixels."""

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from bestiary.geometry.polygons import mask_to_polygons, polygons_to_mask, polygons_to_rle
from bestiary.geometry.rle import (
    Rle,
    encode_rle,
    rle_areas,
    rle_boxes_xyxy,
    rle_intersection,
    rle_iou,
    rle_union,
)

__all__ = [
    "Rle",
    "encode_rle",
    "mask_iou",
    "mask_to_box_xyxy",
    "mask_to_polygons",
    "polygons_to_mask",
    "polygons_to_rle",
    "rle_areas",
    "rle_boxes_xyxy",
    "rle_intersection",
    "rle_iou",
    "rle_union",
]


def mask_to_box_xyxy(mask: Bool[Tensor, "H W"]) -> Float32[Tensor, " 4"]:
    """The smallest box around the mask's pixels; all zeros for an empty mask."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return torch.zeros(4, device=mask.device)
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def mask_iou(
    masks: Bool[Tensor, "N H W"], truths: Bool[Tensor, "M H W"], crowd: Bool[Tensor, " M"] | None = None
) -> Float[Tensor, "N M"]:
    """`rle_iou` of masks given pixel by pixel, on any device; 0 where there is nothing to divide by.

    One matrix product; sums of up to 2^24 pixels (4096 x 4096) are exact.
    """
    flat, true = masks.flatten(1).float(), truths.flatten(1).float()
    inter = flat @ true.t()
    area, truth_area = flat.sum(dim=1), true.sum(dim=1)
    below = area[:, None] + truth_area[None] - inter
    if crowd is not None:
        below = torch.where(crowd[None], area[:, None], below)
    return inter / below.clamp(min=1)
