"""Box arithmetic under torchvision's names; pairwise IoU in threads where no gradient is asked for."""

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from bestiary.geometry.boxes import (
    box_area,
    clip_boxes,
    convert_boxes,
    large_enough,
    pairwise_generalized_iou,
    pairwise_iou,
)
from bestiary.records import require

__all__ = [
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "generalized_box_iou",
    "remove_small_boxes",
    "require_boxes4",
]

_WORTH_A_KERNEL = 4096
"""Pairs below which torch's own arithmetic is as fast."""


def require_boxes4(where: str, boxes: Tensor) -> None:
    """Raise `RecordError` unless `boxes` is [N, 4]."""
    require(boxes.ndim == 2 and boxes.shape[1] == 4, where, f"shape {tuple(boxes.shape)}", "(N, 4)")


def box_iou(boxes1: Shaped[Tensor, "N 4"], boxes2: Shaped[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Intersection over union of each pair of `xyxy` boxes, 0..1; NaN where both are empty (0 / 0).

    Differentiable; without gradients, on the CPU, it runs in torch's number of threads.

    Raises:
        RecordError: not [N, 4] and [M, 4].
    """
    require_boxes4("box_iou(boxes1)", boxes1)
    require_boxes4("box_iou(boxes2)", boxes2)
    same = boxes1.dtype == boxes2.dtype and boxes1.dtype in (torch.float32, torch.float64)
    on_cpu = boxes1.device.type == boxes2.device.type == "cpu" and type(boxes1) is type(boxes2) is Tensor
    learns = torch.is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad)
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not (same and on_cpu) or learns:
        return pairwise_iou(boxes1, boxes2)
    if len(boxes1) * len(boxes2) < _WORTH_A_KERNEL:
        return pairwise_iou(boxes1, boxes2)
    return _box_iou_in_threads(boxes1, boxes2)


def _box_iou_in_threads(boxes1: Float[Tensor, "N 4"], boxes2: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    from bestiary.ops._kernels.overlaps import iou_rows
    from bestiary.ops._kernels.threads import in_threads

    out = boxes1.new_empty(len(boxes1), len(boxes2))
    rows, columns = boxes1.detach().contiguous().numpy(), boxes2.detach().t().contiguous().numpy()
    out_array = out.numpy()
    grain = max(1, 65536 // max(1, len(boxes2)))
    in_threads(lambda a, b: iou_rows(rows, columns, a, b, out_array), len(rows), torch.get_num_threads(), grain)
    return out


def generalized_box_iou(boxes1: Shaped[Tensor, "N 4"], boxes2: Shaped[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Generalized IoU of each pair of `xyxy` boxes, -1..1 (Rezatofighi et al., CVPR 2019); differentiable.

    Raises:
        RecordError: not [N, 4] and [M, 4].
    """
    require_boxes4("generalized_box_iou(boxes1)", boxes1)
    require_boxes4("generalized_box_iou(boxes2)", boxes2)
    return pairwise_generalized_iou(boxes1, boxes2)


def box_convert(boxes: Shaped[Tensor, "*N 4"], in_fmt: str, out_fmt: str) -> Shaped[Tensor, "*N 4"]:
    """Boxes of the format "xyxy", "xywh" or "cxcywh" in another of them.

    Raises:
        UsageError: an unknown format.
    """
    return convert_boxes(boxes, in_fmt, out_fmt)


def clip_boxes_to_image(boxes: Shaped[Tensor, "*N 4"], size: tuple[int, int]) -> Shaped[Tensor, "*N 4"]:
    """The part of each `xyxy` box inside a picture of `size` (height, width)."""
    return clip_boxes(boxes, size)


def remove_small_boxes(boxes: Shaped[Tensor, "N 4"], min_size: int | float) -> Int64[Tensor, " K"]:
    """Indices, ascending, of the `xyxy` boxes of which both sides are at least `min_size` pixels."""
    return large_enough(boxes, min_size)
