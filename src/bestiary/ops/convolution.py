"""What a convolution is: a sparse matrix, a product with columns, and dilation as dense convolution of sub-grids.

Convolution here is what networks call so: cross-correlation, `out[y] = sum_t weight[t] input[y stride + t dilation -
padding]`, zeros outside. These forms are for understanding, checking and analysis; networks call `torch.nn.functional`.
"""

import math
from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.ops.pooling import require_spatial
from bestiary.ops.shapes import convolution_output_size, per_axis
from bestiary.records import require


def convolution_matrix(
    weight: Float[Tensor, "D C *kernel"],
    input_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Tensor, "rows columns"]:
    """The sparse matrix M of a convolution: `M @ x.flatten()` is the convolution of one picture x, and `M.T @ y` the
    transposed convolution of y with the same weight (its gradient with respect to x).

    Convention: row-major: column `(c H + y) W + x` is input pixel (y, x) of channel c, rows alike for the output.
    A transposed convolution that must give back `input_size` takes the `output_padding` that this size implies.

    Args:
        weight: as for `F.conv1d` .. `F.conv3d`; a gradient flows to it.
        input_size: spatial size of the input.
        stride: for all axes or one an axis, as the next two.
        padding: pixels of zeros on each side.
        dilation: distance of the taps.
        groups: of channels.

    Returns:
        Sparse COO, coalesced, `[out channels * out pixels, in channels * in pixels]`. Taps on padding are left out,
        taps of value zero are kept.

    Raises:
        RecordError: numbers that do not fit the weight's axes, or a window larger than the padded input.
    """
    axes = require_spatial("convolution_matrix(weight)", weight)
    size = per_axis(input_size, axes, "convolution_matrix(input_size)")
    steps = per_axis(stride, axes, "convolution_matrix(stride)")
    pads = per_axis(padding, axes, "convolution_matrix(padding)", least=0)
    apart = per_axis(dilation, axes, "convolution_matrix(dilation)")
    out_channels, width = weight.shape[:2]
    fits = groups >= 1 and out_channels % groups == 0
    require(fits, "convolution_matrix(groups)", groups, f"a divisor of {out_channels} output channels")
    place, inside = _taps(weight, size, steps, pads, apart)
    pixels, taps = place.shape

    channel = torch.arange(out_channels, device=weight.device)
    first = torch.div(channel, out_channels // groups, rounding_mode="floor") * width
    source = first[:, None] + torch.arange(width, device=weight.device)  # [D, C]: input channel
    # All of [D, pixels, C, taps]: rows in order, and columns in order within a row, so that M is coalesced as built.
    column = source[:, None, :, None] * math.prod(size) + place[None, :, None, :]
    row = (channel[:, None] * pixels + torch.arange(pixels, device=weight.device))[:, :, None, None]
    kept = inside[None, :, None, :].expand(out_channels, pixels, width, taps)
    value = weight.flatten(2)[:, None].expand(out_channels, pixels, width, taps)
    index = torch.stack([row.expand_as(kept)[kept], column.expand_as(kept)[kept]])
    shape = (out_channels * pixels, groups * width * math.prod(size))
    return torch.sparse_coo_tensor(index, value[kept], shape, is_coalesced=True, check_invariants=False)


def _taps(
    weight: Tensor, size: tuple[int, ...], steps: tuple[int, ...], pads: tuple[int, ...], apart: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """For each output pixel and tap `[P, T]`: the input pixel's place in its plane, and whether it is on the plane."""
    place = torch.zeros(1, 1, dtype=torch.int64, device=weight.device)
    inside = torch.ones(1, 1, dtype=torch.bool, device=weight.device)
    for n, k, s, p, d in zip(size, weight.shape[2:], steps, pads, apart, strict=True):
        out = convolution_output_size(n, k, s, p, d)
        arange = torch.arange(max(out, k), device=weight.device)
        at = (arange[:out] * s - p)[:, None] + arange[:k] * d  # [out, k]
        there = (at >= 0) & (at < n)
        place = (place[:, None, :, None] * n + at[None, :, None, :]).flatten(2).flatten(0, 1)
        inside = (inside[:, None, :, None] & there[None, :, None, :]).flatten(2).flatten(0, 1)
    return place, inside


def image_to_columns(
    input: Shaped[Tensor, "B C *spatial"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Shaped[Tensor, "B taps pixels"]:
    """Each window as a column ("im2col"): `weight.flatten(1) @ columns` is the convolution.

    Convention: `F.unfold`'s, on one to three axes: taps run over channels, then the kernel row-major, as a weight does;
    pixels over the output row-major. Zeros outside.

    Raises:
        RecordError: numbers that do not fit the axes, or a window larger than the padded input.
    """
    axes = require_spatial("image_to_columns(input)", input)
    kernel = per_axis(kernel_size, axes, "image_to_columns(kernel_size)")
    steps = per_axis(stride, axes, "image_to_columns(stride)")
    pads = per_axis(padding, axes, "image_to_columns(padding)", least=0)
    apart = per_axis(dilation, axes, "image_to_columns(dilation)")
    windows = F.pad(input, [p for p in reversed(pads) for _ in "ab"]) if any(pads) else input
    for axis, (n, k, s, p, d) in enumerate(zip(input.shape[2:], kernel, steps, pads, apart, strict=True)):
        convolution_output_size(int(n), k, s, p, d)
        windows = windows.unfold(2 + axis, d * (k - 1) + 1, s)[..., ::d]
    # [B, C, *pixels, *taps] -> [B, C, *taps, *pixels]
    order = (0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
    return windows.permute(order).flatten(2 + axes).flatten(1, 1 + axes)


def space_to_batch(input: Shaped[Tensor, "B C *spatial"], block: int | Sequence[int]) -> Shaped[Tensor, "B2 C *small"]:
    """The interleaved sub-grids of a map as pictures of a larger batch: a convolution on each is dilated by `block`.

    Convention: sub-grid (i, j) holds pixels (y r + i, x r + j) and is picture `(i r + j) B + b` of the result
    (row-major in the block, TensorFlow's order). The map is filled up with zeros at the far end to whole blocks.

    Raises:
        RecordError: numbers that do not fit the axes.
    """
    axes = require_spatial("space_to_batch(input)", input)
    blocks = per_axis(block, axes, "space_to_batch(block)")
    missing = [-n % r for n, r in zip(input.shape[2:], blocks, strict=True)]
    whole = F.pad(input, [m for m in reversed(missing) for m in (0, m)]) if any(missing) else input
    grids = [whole[(..., *(slice(i, None, r) for i, r in zip(at, blocks, strict=True)))] for at in _places(blocks)]
    return torch.cat(grids)


def batch_to_space(
    input: Shaped[Tensor, "B2 C *small"], block: int | Sequence[int], output_size: Sequence[int] | None = None
) -> Shaped[Tensor, "B C *spatial"]:
    """`space_to_batch` undone.

    Convention: of `space_to_batch`; what its padding added is cut away by `output_size`.

    Args:
        input: sub-grids, in its order.
        block: pixels between neighbours of a sub-grid.
        output_size: spatial size to cut to; whole blocks if None.

    Raises:
        RecordError: pictures that are not a multiple of the block, or a size beyond the blocks.
    """
    axes = require_spatial("batch_to_space(input)", input)
    blocks = per_axis(block, axes, "batch_to_space(block)")
    count = math.prod(blocks)
    require(len(input) % count == 0, "batch_to_space(input)", f"{len(input)} pictures", f"a multiple of {count}")
    full = tuple(int(n) * r for n, r in zip(input.shape[2:], blocks, strict=True))
    size = full if output_size is None else per_axis(output_size, axes, "batch_to_space(output_size)")
    require(all(m <= n for m, n in zip(size, full, strict=True)), "batch_to_space(output_size)", size, f"up to {full}")
    out = input.new_empty(len(input) // count, input.shape[1], *full)
    for grid, at in zip(input.chunk(count), _places(blocks), strict=True):
        out[(..., *(slice(i, None, r) for i, r in zip(at, blocks, strict=True)))] = grid
    return out[(..., *(slice(0, m) for m in size))]


def _places(blocks: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(product(*(range(r) for r in blocks)))


def interleaved_convolution(
    input: Float[Tensor, "B C *spatial"],
    weight: Float[Tensor, "D _c *kernel"],
    bias: Float[Tensor, " D"] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Tensor, "B D *out"]:
    """A dilated convolution of stride 1 as an undilated one on each interleaved sub-grid ("a trous" as dense and
    interleaved: Chen et al.: DeepLab, PAMI 2018, section 3.1, the first of its two implementations).

    Convention: equals `F.conv2d(input, weight, bias, padding=padding, dilation=dilation, groups=groups)`.

    Raises:
        RecordError: numbers that do not fit the axes, or a window larger than the padded input.
    """
    axes = require_spatial("interleaved_convolution(input)", input)
    pads = per_axis(padding, axes, "interleaved_convolution(padding)", least=0)
    apart = per_axis(dilation, axes, "interleaved_convolution(dilation)")
    out = [
        convolution_output_size(int(n), k, 1, p, d)
        for n, k, p, d in zip(input.shape[2:], weight.shape[2:], pads, apart, strict=True)
    ]
    padded = F.pad(input, [p for p in reversed(pads) for _ in "ab"])
    grids = space_to_batch(padded, apart)
    dense = (F.conv1d, F.conv2d, F.conv3d)[axes - 1](grids, weight, bias, groups=groups)
    return batch_to_space(dense, apart, out)
