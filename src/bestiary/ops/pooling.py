"""Max and mean pooling over one, two or three spatial axes, told by the input's rank, with the windows spelled out."""

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.ops.shapes import per_axis, pooling_output_size
from bestiary.records import require

_MAX = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool_with_indices(
    input: Float[Tensor, "B C *spatial"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[Float[Tensor, "B C *pooled"], Int64[Tensor, "B C *pooled"]]:
    """Greatest value of each window, and where it was: the "switches" of Zeiler and Fergus (ECCV 2014), which
    `max_unpool` takes.

    Convention: padding is minus infinity: it never wins. An index counts the pixels of the unpadded plane in row-major
    order (`y * W + x`; with three axes `(z * H + y) * W + x`), each channel on its own. Of equal values the first in
    that order wins, and the whole gradient goes to it; a NaN beats every number, and of several NaNs the last wins.
    `ceil_mode` as in `pooling_output_size`: off as in torch, on as in Caffe. An empty batch gives an empty output.

    Args:
        input: one to three spatial axes.
        kernel_size: pixels, for all axes or one an axis.
        stride: the kernel size if None (windows side by side).
        padding: pixels on each side, at most half the kernel.
        dilation: distance of a window's pixels.
        ceil_mode: whether a last window may hang over the border.

    Raises:
        RecordError: numbers that do not fit the axes, padding above half the kernel, or a window larger than the input.
    """
    windows = _windows("max_pool_with_indices", input, kernel_size, stride, padding, dilation, ceil_mode)
    return _MAX[input.ndim - 2](input, *windows, ceil_mode=ceil_mode)


def mean_pool(
    input: Float[Tensor, "B C *spatial"],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Tensor, "B C *pooled"]:
    """Mean of each window.

    Convention: padding is zeros. With `count_include_pad` a window's sum is divided by its number of pixels, padding
    among them (Caffe, and torch's default): values fall towards the border. Without, by those on the input alone, and
    a constant map stays constant. What hangs over the padding in `ceil_mode` is never counted. Half precision is summed
    in float32.

    Args:
        input: one to three spatial axes.
        kernel_size: pixels, for all axes or one an axis.
        stride: the kernel size if None.
        padding: pixels on each side, at most half the kernel.
        ceil_mode: whether a last window may hang over the border.
        count_include_pad: what the sum is divided by.

    Raises:
        RecordError: numbers that do not fit the axes, padding above half the kernel, or a window larger than the input.
    """
    kernel, step, pad, _ = _windows("mean_pool", input, kernel_size, stride, padding, 1, ceil_mode)
    return _MEAN[input.ndim - 2](input, kernel, step, pad, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


def require_spatial(where: str, input: Tensor) -> int:
    """The number of spatial axes: `RecordError` unless it is 1, 2 or 3."""
    require(3 <= input.ndim <= 5, where, f"shape {tuple(input.shape)}", "(B, C, 1 to 3 spatial axes)")
    return input.ndim - 2


def _windows(
    where: str,
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    axes = require_spatial(f"{where}(input)", input)
    kernel = per_axis(kernel_size, axes, f"{where}(kernel_size)")
    step = kernel if stride is None else per_axis(stride, axes, f"{where}(stride)")
    pad = per_axis(padding, axes, f"{where}(padding)", least=0)
    apart = per_axis(dilation, axes, f"{where}(dilation)")
    fits = all(2 * p <= k for p, k in zip(pad, kernel, strict=True))
    require(fits, f"{where}(padding)", padding, f"at most half the kernel, {kernel}")
    for size, *window in zip(input.shape[2:], kernel, step, pad, apart, strict=True):
        pooling_output_size(int(size), *window, ceil_mode=ceil_mode)
    return kernel, step, pad, apart
