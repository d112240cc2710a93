"""Box arithmetic under torchvision's names and signatures; pairwise IoU in threads where no gradient is asked for.

Convention: boxes are continuous `xyxy` unless `fmt` says otherwise, and equal leading batch axes go through. Half
precision and whole numbers are computed in float32. With `inclusive` the ends are pixel indices, both included, as in
Caffe's detectors: a side is x2 - x1 + 1 long.

Memory: beside the result, no pairwise function holds more than about 16 MiB of temporaries on the CPU (as long as one
row of pairs fits), 1 GiB elsewhere; where a gradient is asked for, autograd keeps about a dozen numbers a pair.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry import boxes as plain
from bestiary.geometry.boxes import at_least_float32, convert_boxes, inclusive_to_continuous
from bestiary.geometry.rotated_boxes import ROTATED_FORMATS, convert_rotated_boxes
from bestiary.ops.eager import in_row_chunks, in_row_threads, runs_eagerly, wants_gradient
from bestiary.ops.rotated import rotated_box_iou
from bestiary.records import require

_WORTH_A_KERNEL = 256
"""Pairs below which torch's own arithmetic is as fast."""

_PAIRS_A_THREAD = 65536
"""Fewer are not worth another thread."""


def require_boxes4(where: str, boxes: Tensor) -> None:
    """Raise `RecordError` unless `boxes` is [N, 4]."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        require(False, where, f"shape {tuple(boxes.shape)}", "(N, 4)")


def _require_two_sets(where: str, boxes1: Tensor, boxes2: Tensor, numbers: int = 4) -> None:
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        if boxes.ndim < 2 or boxes.shape[-1] != numbers:
            require(False, f"{where}({name})", f"shape {tuple(boxes.shape)}", f"(..., N, {numbers})")
    if boxes1.shape[:-2] != boxes2.shape[:-2]:
        got = f"{tuple(boxes1.shape[:-2])} and {tuple(boxes2.shape[:-2])}"
        require(False, f"{where}(boxes1, boxes2)", got, "equal batch axes")


def box_iou(
    boxes1: Shaped[Tensor, "*B N K"], boxes2: Shaped[Tensor, "*B M K"], fmt: str = "xyxy", inclusive: bool = False
) -> Float[Tensor, "*B N M"]:
    """Intersection over union of each pair, 0..1.

    Differentiable; without gradients, on the CPU, it runs in torch's number of threads.

    Convention: NaN where both boxes are empty (0 / 0); boxes that touch have 0. Rotated formats: `rotated_box_iou`.

    Args:
        boxes1: boxes of `fmt`.
        boxes2: likewise, with the same batch axes.
        fmt: "xyxy", "xywh", "cxcywh" (K = 4), "cxcywhr", "xywhr" (K = 5; degrees) or "xyxyxyxy" (K = 8).
        inclusive: ends are pixel indices, both included; "xyxy" only.

    Raises:
        RecordError: shapes do not fit.
        UsageError: an unknown format, or inclusive ends of another than "xyxy".
    """
    if inclusive and fmt != "xyxy":
        raise UsageError(f"got inclusive boxes of the format {fmt!r}, wanted 'xyxy'", where="box_iou(inclusive)")
    if fmt in ROTATED_FORMATS:
        numbers = 8 if fmt == "xyxyxyxy" else 5
        _require_two_sets("box_iou", boxes1, boxes2, numbers)
        return rotated_box_iou(*(convert_rotated_boxes(b, fmt, "cxcywhr") for b in (boxes1, boxes2)))
    _require_two_sets("box_iou", boxes1, boxes2)
    if fmt != "xyxy":
        boxes1, boxes2 = convert_boxes(boxes1, fmt, "xyxy"), convert_boxes(boxes2, fmt, "xyxy")
    if inclusive:
        boxes1, boxes2 = inclusive_to_continuous(boxes1), inclusive_to_continuous(boxes2)
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    if _suits_a_kernel(boxes1, boxes2):
        from bestiary.ops._kernels.overlaps import iou_rows

        return in_row_threads(iou_rows, boxes1, boxes2, _PAIRS_A_THREAD)
    return in_row_chunks(plain.pairwise_iou, boxes1, boxes2)


def _suits_a_kernel(boxes1: Tensor, boxes2: Tensor) -> bool:
    if boxes1.dtype != boxes2.dtype or boxes1.numel() * boxes2.shape[-2] < 4 * _WORTH_A_KERNEL:
        return False
    return runs_eagerly(boxes1, boxes2) and not wants_gradient(boxes1, boxes2)


def generalized_box_iou(boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"]) -> Float[Tensor, "*B N M"]:
    """Generalized IoU of each pair of `xyxy` boxes, -1..1 (Rezatofighi et al., CVPR 2019, algorithm 1); differentiable.

    Convention: IoU minus the share of the hull that neither covers; NaN where IoU or that share is 0 / 0.

    Raises:
        RecordError: shapes do not fit.
    """
    _require_two_sets("generalized_box_iou", boxes1, boxes2)
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    if _suits_a_kernel(boxes1, boxes2):
        from bestiary.ops._kernels.overlaps import generalized_iou_rows

        return in_row_threads(generalized_iou_rows, boxes1, boxes2, _PAIRS_A_THREAD)
    return in_row_chunks(plain.pairwise_generalized_iou, boxes1, boxes2)


def distance_box_iou(
    boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"], eps: int | float = 1e-7
) -> Float[Tensor, "*B N M"]:
    """Distance IoU of each pair of `xyxy` boxes, -1..1 (Zheng et al., AAAI 2020, equation 7); differentiable.

    Convention: IoU minus squared distance of the centres over (squared diagonal of the hull + `eps`); NaN where both
    are empty.

    Raises:
        RecordError: shapes do not fit.
    """
    _require_two_sets("distance_box_iou", boxes1, boxes2)
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    if _suits_a_kernel(boxes1, boxes2):
        return _penalised_in_threads(boxes1, boxes2, _no_angle, eps)
    return in_row_chunks(partial(plain.pairwise_distance_iou, eps=eps), boxes1, boxes2)


def complete_box_iou(
    boxes1: Shaped[Tensor, "*B N 4"], boxes2: Shaped[Tensor, "*B M 4"], eps: int | float = 1e-7
) -> Float[Tensor, "*B N M"]:
    """Complete IoU of each pair of `xyxy` boxes (Zheng et al., AAAI 2020, equations 8 to 11); differentiable.

    Convention: distance IoU minus alpha v, v the squared difference of arctan(w / h) times 4 / pi^2 and
    alpha = v / (1 - IoU + v + `eps`), constant to the gradient. A box without height has the angle pi / 2, a point 0
    (torchvision: NaN for the point). NaN where both are empty.

    Raises:
        RecordError: shapes do not fit.
    """
    _require_two_sets("complete_box_iou", boxes1, boxes2)
    boxes1, boxes2 = at_least_float32(boxes1), at_least_float32(boxes2)
    if _suits_a_kernel(boxes1, boxes2):
        return _penalised_in_threads(boxes1, boxes2, plain.aspect_angle, eps)
    return in_row_chunks(partial(plain.pairwise_complete_iou, eps=eps), boxes1, boxes2)


def _no_angle(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N"]:
    return torch.zeros_like(boxes[..., 0])


def _penalised_in_threads(
    boxes1: Float[Tensor, "*B N 4"],
    boxes2: Float[Tensor, "*B M 4"],
    angle: Callable[[Tensor], Tensor],
    eps: int | float,
) -> Float[Tensor, "*B N M"]:
    from bestiary.ops._kernels.overlaps import distance_iou_rows

    rows, columns = (torch.cat([boxes, angle(boxes)[..., None]], dim=-1) for boxes in (boxes1, boxes2))
    constants = boxes1.new_tensor([eps, plain.ASPECT_FACTOR]).numpy()

    def kernel(rows: Any, columns: Any, start: int, stop: int, out: Any) -> None:
        distance_iou_rows(rows, columns, constants, start, stop, out)

    return in_row_threads(kernel, rows, columns, _PAIRS_A_THREAD)


def box_area(boxes: Shaped[Tensor, "*N 4"], fmt: str = "xyxy", inclusive: bool = False) -> Float[Tensor, "*N"]:
    """Width times height, square pixels.

    Convention: nothing is clamped; a box with one inverted side has a negative area.

    Args:
        boxes: boxes of `fmt`.
        fmt: "xyxy", "xywh" or "cxcywh".
        inclusive: ends are pixel indices, both included; "xyxy" only.

    Raises:
        UsageError: an unknown format, or inclusive ends of another than "xyxy".
    """
    if fmt == "xyxy":
        return plain.box_area(inclusive_to_continuous(boxes) if inclusive else boxes)
    if inclusive:
        raise UsageError(f"got inclusive boxes of the format {fmt!r}, wanted 'xyxy'", where="box_area(inclusive)")
    if fmt not in plain.FORMATS:
        wanted = f"wanted one of {', '.join(plain.FORMATS)}"
        raise UsageError(f"got the box format {fmt!r}, {wanted}", where="box_area(fmt)")
    size = at_least_float32(boxes)[..., 2:]
    return size[..., 0] * size[..., 1]


def box_convert(boxes: Shaped[Tensor, "*N _k"], in_fmt: str, out_fmt: str) -> Shaped[Tensor, "*N _l"]:
    """Boxes of one format in another: among "xyxy", "xywh", "cxcywh", or among "cxcywhr", "xywhr", "xyxyxyxy".

    Convention: r is degrees, counter-clockwise as one sees the picture; x, y of "xywhr" and the first of the four
    corners is the one that is top left at angle 0. Whole numbers become float32 where centres, halves or angles are
    taken (torchvision rounds them).

    Raises:
        UsageError: an unknown format, or one rotated and the other not.
    """
    if in_fmt in ROTATED_FORMATS and out_fmt in ROTATED_FORMATS:
        return convert_rotated_boxes(boxes, in_fmt, out_fmt)
    known = (*plain.FORMATS, *ROTATED_FORMATS)
    if in_fmt in known and out_fmt in known and (in_fmt in ROTATED_FORMATS) != (out_fmt in ROTATED_FORMATS):
        mend = "The hull of a rotated box is the least and the greatest of its corners"
        got = f"got {in_fmt!r} to {out_fmt!r}, wanted both upright or both rotated"
        raise UsageError(got, where="box_convert", mend=mend)
    return convert_boxes(boxes, in_fmt, out_fmt)


def clip_boxes_to_image(boxes: Shaped[Tensor, "*N 4"], size: tuple[int, int]) -> Shaped[Tensor, "*N 4"]:
    """The part of each `xyxy` box inside a picture of `size` (height, width).

    Convention: x in 0..width, y in 0..height, both ends allowed; a box outside becomes empty, on the border.
    """
    return plain.clip_boxes(boxes, size)


def remove_small_boxes(boxes: Shaped[Tensor, "N 4"], min_size: int | float) -> Int64[Tensor, " K"]:
    """Indices, ascending, of the `xyxy` boxes of which both sides are at least `min_size` pixels (at it stays)."""
    return plain.large_enough(boxes, min_size)
