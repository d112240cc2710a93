"""Maximum and mean over windows of whole pixels: what RoIPool, PSRoIPool and the pyramid of SPP-net come down to.

By kernel on the CPU, in plain torch elsewhere and for float64; both visit a window row by row, so that of equal largest
values the first takes the gradient. On the CPU gradients do not depend on the number of threads.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bestiary.ops.exporting import exporting
from bestiary.ops.rois import (
    copy_channels_first,
    empty_in_layout,
    is_channels_last,
    pixels_first,
    require_pictures,
    room_in_layout,
)
from bestiary.ops.window_sums import mean_by_sums


class Windows(NamedTuple):
    """The windows of R regions' bins.

    Attributes:
        pictures: which one of the batch each region lies in.
        rows: of each bin down, the first row and the one after its last; none where that is not larger.
        columns: the same across.
    """

    pictures: Int64[Tensor, " R"]
    rows: Int64[Tensor, "R _h 2"]
    columns: Int64[Tensor, "R _w 2"]

    def areas(self) -> Int64[Tensor, "R P"]:
        """Pixels in each window."""
        down, across = ((edges[..., 1] - edges[..., 0]).clamp(min=0) for edges in (self.rows, self.columns))
        return (down[:, :, None] * across[:, None, :]).flatten(1)

    def positions(self, by_position: bool) -> int:
        """Groups of channels: one a bin, or one for all."""
        return self.rows.shape[1] * self.columns.shape[1] if by_position else 1


def max_in_windows(features: Float[Tensor, "B C H W"], windows: Windows) -> Float[Tensor, "R C _h _w"]:
    """Largest value of each window, 0 for an empty one, NaN where there is one; differentiable."""
    return _max_in_windows(features, *windows)


def mean_in_windows(
    features: Float[Tensor, "B C H W"], windows: Windows, by_position: bool = False
) -> Float[Tensor, "R _c _h _w"]:
    """Mean of each window, 0 for an empty one; differentiable.

    Args:
        features: with `by_position`, channel c * bins + b serves bin b of output channel c.
        windows: of each region's bins.
        by_position: whether each bin has channels of its own.
    """
    if exporting():
        return mean_by_sums(features, *windows, by_position)
    return _mean_in_windows(features, *windows, by_position)


@torch.library.custom_op("bestiary::max_in_windows", mutates_args=())
def _max_in_windows(features: Tensor, pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _pool(features, Windows(pictures, rows, columns), 1, _max_by_kernel, _max_in_torch)


@torch.library.custom_op("bestiary::mean_in_windows", mutates_args=())
def _mean_in_windows(features: Tensor, pictures: Tensor, rows: Tensor, columns: Tensor, by_position: bool) -> Tensor:
    windows = Windows(pictures, rows, columns)
    return _pool(features, windows, windows.positions(by_position), _mean_by_kernel, _mean_in_torch)


@torch.library.custom_op("bestiary::max_in_windows_backward", mutates_args=())
def _max_in_windows_backward(grad: Tensor, features: Tensor, pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    dtype, windows = _computed_in(grad), Windows(pictures, rows, columns)
    maps = pixels_first(features.detach().to(dtype))
    total, source = room_in_layout(maps.shape, maps).zero_(), grad.detach().to(dtype)
    if grad.numel():
        compute = _max_backward_by_kernel if _has_kernel(source) else _max_backward_in_torch
        compute(maps, windows, source, total)
    return copy_channels_first(total, 1, room_in_layout(features.shape, grad, is_channels_last(features)))


@torch.library.custom_op("bestiary::mean_in_windows_backward", mutates_args=())
def _mean_in_windows_backward(
    grad: Tensor,
    pictures: Tensor,
    rows: Tensor,
    columns: Tensor,
    shape: Sequence[int],
    by_position: bool,
    channels_last: bool,
) -> Tensor:
    dtype, windows = _computed_in(grad), Windows(pictures, rows, columns)
    batch, channels, height, width = shape
    total, source = room_in_layout((batch, height, width, channels), grad, dtype=dtype).zero_(), grad.detach().to(dtype)
    positions = windows.positions(by_position)
    if grad.numel():
        compute = _mean_backward_by_kernel if _has_kernel(source) else _mean_backward_in_torch
        compute(windows, positions, source, total)
    return copy_channels_first(total, positions, room_in_layout(shape, grad, channels_last))


def _computed_in(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _has_kernel(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32


_Compute = Callable[[Tensor, Windows, int, Tensor], None]


def _pool(features: Tensor, windows: Windows, positions: int, by_kernel: _Compute, in_torch: _Compute) -> Tensor:
    require_pictures(windows.pictures, len(features), "boxes")
    shape = (len(windows.pictures), features.shape[1] // positions, windows.rows.shape[1], windows.columns.shape[1])
    out = room_in_layout(shape, features, is_channels_last(features), _computed_in(features))
    if out.numel():
        maps = pixels_first(features.detach().to(out.dtype), positions)
        compute = by_kernel if _has_kernel(out) else in_torch
        compute(maps, windows, positions, out)
    return out.to(features.dtype)


def _arrays(windows: Windows) -> tuple[Any, Any, Any]:
    pictures, rows, columns = (t.contiguous().numpy() for t in windows)
    return pictures, rows, columns


def _grid(bins: Tensor) -> tuple[Any, bool]:
    """Bins [R, C, h, w] as a contiguous array, and whether its channels are last."""
    last = is_channels_last(bins)
    return (bins.permute(0, 2, 3, 1) if last else bins.contiguous()).numpy(), last


def _max_by_kernel(
    maps: Float[Tensor, "B H W C"], windows: Windows, positions: int, out: Float[Tensor, "R C _h _w"]
) -> None:
    from bestiary.ops._kernels.threads import in_threads
    from bestiary.ops._kernels.windows import max_forward

    (target, last), arrays = _grid(out), (maps.numpy(), *_arrays(windows))

    def work(start: int, stop: int) -> None:
        max_forward(*arrays, last, start, stop, target)

    in_threads(work, len(out), torch.get_num_threads(), grain=16)


def _max_backward_by_kernel(
    maps: Float[Tensor, "B H W C"], windows: Windows, grad: Float[Tensor, "R C _h _w"], total: Float[Tensor, "B H W C"]
) -> None:
    from bestiary.ops._kernels.threads import in_threads
    from bestiary.ops._kernels.windows import max_backward

    (source, last), arrays, target = _grid(grad), (maps.numpy(), *_arrays(windows)), total.numpy()

    def work(start: int, stop: int) -> None:
        max_backward(*arrays, source, last, start, stop, target)

    # Long ranges: a region that reaches into several is read in each.
    units, threads = total.shape[0] * total.shape[1], torch.get_num_threads()
    in_threads(work, units, threads, grain=max(8, -(-units // (2 * threads))))


def _mean_by_kernel(
    maps: Float[Tensor, "B H W C"], windows: Windows, positions: int, out: Float[Tensor, "R _c _h _w"]
) -> None:
    from bestiary.ops._kernels.threads import in_threads
    from bestiary.ops._kernels.windows import mean_forward

    (target, last), arrays = _grid(out), (maps.numpy(), *_arrays(windows))

    def work(start: int, stop: int) -> None:
        mean_forward(*arrays, positions > 1, last, start, stop, target)

    in_threads(work, len(out), torch.get_num_threads(), grain=16)


def _mean_backward_by_kernel(
    windows: Windows, positions: int, grad: Float[Tensor, "R _c _h _w"], total: Float[Tensor, "B H W C"]
) -> None:
    from bestiary.ops._kernels.threads import in_threads
    from bestiary.ops._kernels.windows import mean_backward

    (source, last), arrays, target = _grid(grad), _arrays(windows), total.numpy()

    def work(start: int, stop: int) -> None:
        mean_backward(*arrays, source, positions > 1, last, start, stop, target)

    in_threads(work, total.shape[3], torch.get_num_threads(), grain=64)


def _cells(windows: Windows, size_hw: tuple[int, int]) -> Iterator[tuple[Int64[Tensor, "R P"], Bool[Tensor, "R P"]]]:
    """For each offset within a window, row by row: pixel of the flattened maps in every bin, and whether it is in."""
    lengths = [(edges[..., 1] - edges[..., 0]).clamp(min=0) for edges in (windows.rows, windows.columns)]
    first = windows.pictures[:, None] * size_hw[0] + windows.rows[..., 0]
    for dy in range(int(lengths[0].max())):
        for dx in range(int(lengths[1].max())):
            inside = (dy < lengths[0])[:, :, None] & (dx < lengths[1])[:, None, :]
            cells = (first + dy)[:, :, None] * size_hw[1] + (windows.columns[..., 0] + dx)[:, None, :]
            yield torch.where(inside, cells, 0).flatten(1), inside.flatten(1)


def _largest(maps: Float[Tensor, "B H W C"], windows: Windows) -> Float[Tensor, "R P C"]:
    flat = maps.flatten(0, 2)
    bins = windows.rows.shape[1] * windows.columns.shape[1]
    best = flat.new_full((len(windows.pictures), bins, flat.shape[1]), -math.inf)
    for cells, inside in _cells(windows, (maps.shape[1], maps.shape[2])):
        values = flat[cells]
        best = torch.where(inside[..., None] & ((values > best) | values.isnan()), values, best)
    return torch.where((windows.areas() > 0)[..., None], best, 0)


def _max_in_torch(
    maps: Float[Tensor, "B H W C"], windows: Windows, positions: int, out: Float[Tensor, "R C _h _w"]
) -> None:
    out.copy_(_largest(maps, windows).mT.reshape(out.shape))


def _max_backward_in_torch(
    maps: Float[Tensor, "B H W C"], windows: Windows, grad: Float[Tensor, "R C _h _w"], total: Float[Tensor, "B H W C"]
) -> None:
    best, left = _largest(maps, windows), grad.flatten(2).mT.contiguous()
    flat, flat_total = maps.flatten(0, 2), total.view(-1, total.shape[3])
    for cells, inside in _cells(windows, (maps.shape[1], maps.shape[2])):
        values = flat[cells]
        chosen = inside[..., None] & ((values == best) | values.isnan())
        flat_total.index_add_(0, cells.flatten(), torch.where(chosen, left, 0).flatten(0, 1))
        left = torch.where(chosen, 0, left)


def _position_rows(cells: Int64[Tensor, "R P"], positions: int) -> Int64[Tensor, "R P"]:
    """Rows of the maps flattened to [B H W positions, C] that each bin reads."""
    return cells * positions + torch.arange(cells.shape[1], device=cells.device) if positions > 1 else cells


def _mean_in_torch(
    maps: Float[Tensor, "B H W C"], windows: Windows, positions: int, out: Float[Tensor, "R _c _h _w"]
) -> None:
    size_hw, flat = (maps.shape[1], maps.shape[2]), maps.reshape(-1, out.shape[1])
    total = flat.new_zeros(len(out), out.shape[2] * out.shape[3], out.shape[1])
    for cells, inside in _cells(windows, size_hw):
        total += torch.where(inside[..., None], flat[_position_rows(cells, positions)], 0)
    total /= windows.areas().clamp(min=1)[..., None]
    out.copy_(total.mT.reshape(out.shape))


def _mean_backward_in_torch(
    windows: Windows, positions: int, grad: Float[Tensor, "R _c _h _w"], total: Float[Tensor, "B H W C"]
) -> None:
    size_hw, flat = (total.shape[1], total.shape[2]), total.view(-1, grad.shape[1])
    shares = grad.flatten(2).mT / windows.areas().clamp(min=1)[..., None]
    for cells, inside in _cells(windows, size_hw):
        flat.index_add_(0, _position_rows(cells, positions)[inside], shares[inside])


@_max_in_windows.register_fake
def _(features: Tensor, pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    shape = (pictures.shape[0], features.shape[1], rows.shape[1], columns.shape[1])
    return empty_in_layout(shape, features, is_channels_last(features))


@_mean_in_windows.register_fake
def _(features: Tensor, pictures: Tensor, rows: Tensor, columns: Tensor, by_position: bool) -> Tensor:
    positions = Windows(pictures, rows, columns).positions(by_position)
    shape = (pictures.shape[0], features.shape[1] // positions, rows.shape[1], columns.shape[1])
    return empty_in_layout(shape, features, is_channels_last(features))


@_max_in_windows_backward.register_fake
def _(grad: Tensor, features: Tensor, pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return empty_in_layout(features.shape, grad, is_channels_last(features))


@_mean_in_windows_backward.register_fake
def _(
    grad: Tensor,
    pictures: Tensor,
    rows: Tensor,
    columns: Tensor,
    shape: Sequence[int],
    by_position: bool,
    channels_last: bool,
) -> Tensor:
    return empty_in_layout(shape, grad, channels_last)


# ctx is Any: torch hands in a class of its own making, and what is set on it here is read there.
def _remember_max(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_max(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _max_in_windows_backward(grad, *ctx.saved_tensors), None, None, None


def _remember_mean(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, *windows, ctx.by_position = inputs
    ctx.save_for_backward(*windows)
    ctx.shape, ctx.channels_last = features.shape, is_channels_last(features)


def _backward_mean(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    windows = ctx.saved_tensors
    return _mean_in_windows_backward(grad, *windows, ctx.shape, ctx.by_position, ctx.channels_last), *[None] * 4


_max_in_windows.register_autograd(_backward_max, setup_context=_remember_max)
_mean_in_windows.register_autograd(_backward_mean, setup_context=_remember_mean)
