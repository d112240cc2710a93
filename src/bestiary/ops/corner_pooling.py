"""Corner pooling (Law and Deng: CornerNet, ECCV 2018, section 3.3, equations 6 and 7)."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.ops.exporting import exporting
from bestiary.records import require

Direction = Literal["top", "bottom", "left", "right"]

_SCANS: dict[str, tuple[int, int]] = {"top": (2, -1), "bottom": (2, 1), "left": (3, -1), "right": (3, 1)}
"""Axis and direction of the scan: a top-left corner looks down and to the right, so the maxima come from there."""


def corner_pool(input: Float[Tensor, "B C H W"], direction: Direction = "top") -> Float[Tensor, "B C H W"]:
    """Each pixel takes the greatest value on its way to one border.

    A top-left corner's evidence lies below and to the right of it: "top" takes the maximum of the pixel and all below
    it, "left" of the pixel and all to its right; "bottom" and "right" are the other two, for bottom-right corners:
    `[2, 1, 3, 0, 2]` becomes, leftwards, `[3, 3, 3, 2, 2]`.

    Convention: the pixel itself belongs to its way. The gradient goes to the maximum alone; of equal values, to the one
    nearest to the pixel. A NaN beats every number. Half precision stays as it is (nothing is summed) but in the
    gradient, which is summed in float32. An exported graph uses plain maxima, log2(size) of them, with equal values.

    Args:
        input: a map.
        direction: the border that the maxima are carried to.

    Raises:
        RecordError: not four axes.
        UsageError: no such direction.
    """
    require(input.ndim == 4, "corner_pool(input)", f"shape {tuple(input.shape)}", "(B, C, H, W)")
    if direction not in _SCANS:
        raise UsageError(f"got {direction!r}, wanted one of {get_args(Direction)}", where="corner_pool(direction)")
    axis, step = _SCANS[direction]
    if input.shape[axis] == 0:
        return input.clone()
    return _by_doubling(input, axis, step) if exporting() else _corner_pool(input, axis, step)


def _by_doubling(input: Tensor, axis: int, step: int) -> Tensor:
    """Maxima over 1, 2, 4 ... pixels: operators that every exporter knows, which a running maximum is not."""
    out, reach, size = input, 1, int(input.shape[axis])
    while reach < size:
        kept = out.narrow(axis, 0 if step > 0 else size - reach, reach)
        ahead, behind = out.narrow(axis, reach, size - reach), out.narrow(axis, 0, size - reach)
        best = torch.maximum(ahead, behind)
        out = torch.cat([kept, best] if step > 0 else [best, kept], dim=axis)
        reach *= 2
    return out


def _cummax(input: Tensor, axis: int, step: int) -> tuple[Tensor, Tensor]:
    """Running maximum, and where it was on the axis, by torch, which breaks ties as we do."""
    if step > 0:
        values, places = torch.cummax(input, axis)
        return values, places
    values, places = torch.cummax(input.flip(axis), axis)
    return values.flip(axis), input.shape[axis] - 1 - places.flip(axis)


def _in_kernel(input: Tensor) -> bool:
    return input.device.type == "cpu" and input.dtype in (torch.float32, torch.float64)


@torch.library.custom_op("bestiary::corner_pool", mutates_args=())
def _corner_pool(input: Tensor, axis: int, step: int) -> Tensor:
    if not _in_kernel(input):
        return _cummax(input, axis, step)[0].contiguous()
    from bestiary.ops._kernels.corner_pooling import scan_columns, scan_rows
    from bestiary.ops._kernels.threads import in_threads

    out = torch.empty(input.shape, dtype=input.dtype)
    source, target = input.contiguous().flatten(0, 1).numpy(), out.flatten(0, 1).numpy()
    kernel = scan_rows if axis == 2 else scan_columns
    in_threads(lambda a, b: kernel(source, step, a, b, target), len(source), torch.get_num_threads(), _grain(input))
    return out


@torch.library.custom_op("bestiary::corner_pool_backward", mutates_args=())
def _corner_pool_backward(grad: Tensor, input: Tensor, out: Tensor, axis: int, step: int) -> Tensor:
    if not _in_kernel(input):
        places = _cummax(input, axis, step)[1]
        wide = torch.zeros(input.shape, dtype=torch.promote_types(grad.dtype, torch.float32), device=grad.device)
        return wide.scatter_add_(axis, places, grad.to(wide.dtype)).to(grad.dtype)
    from bestiary.ops._kernels.corner_pooling import return_columns, return_rows
    from bestiary.ops._kernels.threads import in_threads

    result = torch.empty(input.shape, dtype=grad.dtype)
    g, x, best, target = (t.contiguous().flatten(0, 1).numpy() for t in (grad, input, out, result))
    kernel = return_rows if axis == 2 else return_columns
    in_threads(lambda a, b: kernel(g, x, best, step, a, b, target), len(x), torch.get_num_threads(), _grain(input))
    return result


def _grain(input: Tensor) -> int:
    """Planes that are worth a thread: about 16,000 values."""
    return max(1, 16384 // max(1, input.shape[2] * input.shape[3]))


@_corner_pool.register_fake
def _(input: Tensor, axis: int, step: int) -> Tensor:
    return torch.empty(input.shape, dtype=input.dtype, device=input.device)


@_corner_pool_backward.register_fake
def _(grad: Tensor, input: Tensor, out: Tensor, axis: int, step: int) -> Tensor:
    return torch.empty(input.shape, dtype=grad.dtype, device=grad.device)


# ctx is Any: torch hands in a class of its own making, and what is set on it here is read there.
def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, ctx.axis, ctx.step = inputs
    ctx.save_for_backward(features, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    features, output = ctx.saved_tensors
    return _corner_pool_backward(grad, features, output, ctx.axis, ctx.step), None, None


_corner_pool.register_autograd(_backward, setup_context=_remember)
