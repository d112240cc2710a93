"""Tensor in, tensor out: the geometric operators of detection, with torchvision's signatures and answers.

On the CPU, loops that do not vectorise run in numba kernels (`_kernels`); elsewhere, and for float64, in plain torch.
Both give the same answers. `nms`, `batched_nms`, `roi_align` and `multiscale_roi_align` are custom operators
("bestiary::..."), so `torch.compile` sees one node and an exporter can translate them.
"""

from bestiary.ops.overlaps import (
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    generalized_box_iou,
    remove_small_boxes,
)
from bestiary.ops.regions import assign_levels, multiscale_roi_align, roi_align
from bestiary.ops.suppression import batched_nms, nms

__all__ = [
    "assign_levels",
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "generalized_box_iou",
    "multiscale_roi_align",
    "nms",
    "remove_small_boxes",
    "roi_align",
]
