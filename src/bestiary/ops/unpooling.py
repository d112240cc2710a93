"""Putting pooled values back on the larger map, everything else zero."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.ops.exporting import exporting
from bestiary.ops.pooling import require_spatial
from bestiary.ops.shapes import per_axis
from bestiary.records import require


def max_unpool(
    input: Float[Tensor, "B C *pooled"], indices: Int64[Tensor, "B C *pooled"], output_size: Sequence[int]
) -> Float[Tensor, "B C *spatial"]:
    """Each value where its maximum was (Zeiler and Fergus, ECCV 2014; DeconvNet, ICCV 2015; SegNet, PAMI 2017).

    Convention: indices as `max_pool_with_indices` gives them, row-major in the plane of `output_size`. Where
    overlapping windows share a maximum their values are added: the operator is the transpose of the pooling, equal to
    its gradient (torch's `max_unpool2d` keeps an arbitrary one of them; both agree where windows do not overlap).
    Channels-last input gives channels-last output.

    Args:
        input: values.
        indices: of the pooling that is undone.
        output_size: of the map that was pooled: `features.shape[2:]`. It cannot be inferred: 5 and 4 pixels pool to 2.

    Raises:
        RecordError: shapes differ, or an index lies outside the plane (seen on the CPU, where the values are at hand).
    """
    if exporting():  # where sizes are symbols
        return _scatter(input, indices, output_size)
    axes = require_spatial("max_unpool(input)", input)
    same = input.shape == indices.shape
    require(same, "max_unpool(indices)", f"shape {tuple(indices.shape)}", f"the values', {tuple(input.shape)}")
    return _max_unpool(input, indices, per_axis(output_size, axes, "max_unpool(output_size)"))


def bed_of_nails(
    input: Float[Tensor, "B C *spatial"], factor: int | Sequence[int], offset: int | Sequence[int] = 0
) -> Float[Tensor, "B C *larger"]:
    """Each value alone in a block of zeros, `factor` times larger on every axis.

    Convention: output pixel `factor * i + offset` holds input pixel i; offset 0 is the block's top left. Followed by a
    convolution with the flipped kernel it is a transposed convolution of stride `factor`.

    Args:
        input: one to three spatial axes.
        factor: pixels of a block, for all axes or one an axis.
        offset: place in the block, below the factor.

    Raises:
        RecordError: numbers that do not fit the axes, or a place outside the block.
    """
    axes = require_spatial("bed_of_nails(input)", input)
    factors = per_axis(factor, axes, "bed_of_nails(factor)")
    places = per_axis(offset, axes, "bed_of_nails(offset)", least=0)
    inside = all(p < f for p, f in zip(places, factors, strict=True))
    require(inside, "bed_of_nails(offset)", offset, f"below the factor, {factors}")
    # Every axis in two, pixels and place in the block; the places are filled up with zeros on both sides.
    split = input.reshape(*input.shape[:2], *(m for n in input.shape[2:] for m in (n, 1)))
    sides = [m for f, p in zip(reversed(factors), reversed(places), strict=True) for m in (p, f - 1 - p, 0, 0)]
    larger = [n * f for n, f in zip(input.shape[2:], factors, strict=True)]
    return F.pad(split, sides).reshape(*input.shape[:2], *larger)


def _scatter(values: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    plane = values.new_zeros(*values.shape[:2], math.prod(size))
    return plane.scatter_add(2, indices.flatten(2), values.flatten(2)).unflatten(2, tuple(size))


def _pixel_last(values: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side in memory."""
    return not values.is_contiguous() and values.movedim(1, -1).is_contiguous()


@torch.library.custom_op("bestiary::max_unpool", mutates_args=())
def _max_unpool(values: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    if values.device.type != "cpu":
        out = _scatter(values, indices, size)
        return out.movedim(1, -1).contiguous().movedim(-1, 1) if _pixel_last(values) else out
    if values.dtype not in (torch.float32, torch.float64):  # thirty times as fast as torch's scattering of them
        return _by_kernel(values.float(), indices, size).to(values.dtype)
    return _by_kernel(values, indices, size)


def _by_kernel(values: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    from bestiary.ops._kernels.threads import in_threads
    from bestiary.ops._kernels.unpooling import unpool_pixels, unpool_planes

    out = _empty(values, size)
    if _pixel_last(values):
        kernel, arrays = unpool_pixels, [t.movedim(1, -1).contiguous() for t in (values, indices)]
        views = [t.flatten(1, -2).numpy() for t in (*arrays, out.movedim(1, -1))]
    else:
        kernel, arrays = unpool_planes, [t.contiguous() for t in (values, indices)]
        views = [t.flatten(2).flatten(0, 1).numpy() for t in (*arrays, out)]
    fine: list[bool] = []
    # A range is worth a thread from about 16,000 output values on.
    grain = max(1, 16384 // max(1, views[2][0].size if len(views[2]) else 1))
    in_threads(
        lambda a, b: fine.append(kernel(views[0], views[1], a, b, views[2])),
        len(views[0]),
        torch.get_num_threads(),
        grain,
    )
    got = f"{int(indices.min())} to {int(indices.max())}" if not all(fine) else ""
    require(all(fine), "max_unpool(indices)", got, f"0 to {math.prod(size) - 1}")
    return out


def _empty(values: Tensor, size: Sequence[int | torch.SymInt]) -> Tensor:
    batch, channels = values.shape[:2]
    if _pixel_last(values):
        return values.new_empty(batch, *size, channels).movedim(-1, 1)
    return values.new_empty(batch, channels, *size)


@_max_unpool.register_fake
def _(values: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    return _empty(values, size)


# ctx is Any: torch hands in a class of its own making, and what is set on it here is read there.
def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (indices,) = ctx.saved_tensors
    return grad.flatten(2).gather(2, indices.flatten(2)).view(indices.shape), None, None


_max_unpool.register_autograd(_backward, setup_context=_remember)
