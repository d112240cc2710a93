"""Shape arithmetic of sliding windows, one axis at a time: output sizes, receptive fields, parameters, multiply-adds.

Convention: sizes and paddings are whole pixels; a window covers `reach = dilation * (kernel - 1) + 1` of them.
Positions in the picture are continuous, the centre of the first pixel at 0.5, so that offsets can be used on boxes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bestiary.records import require


def per_axis(value: int | Sequence[int], axes: int, where: str, least: int = 1) -> tuple[int, ...]:
    """One number for each spatial axis: a number stands for all of them.

    Raises:
        RecordError: not one a axis, or one of them below `least`.
    """
    values = (value,) * axes if isinstance(value, int) else tuple(int(v) for v in value)
    fits = len(values) == axes and all(v >= least for v in values)
    require(fits, where, value, f"a number, or {axes} of them, at least {least}")
    return values


def convolution_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Length of a convolution's output: floor((size + 2 padding - reach) / stride) + 1.

    Raises:
        RecordError: the window does not fit into the padded input.
    """
    room = _room("convolution_output_size", size, kernel, stride, padding, dilation)
    return room // stride + 1


def pooling_output_size(
    size: int, kernel: int, stride: int | None = None, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Length of a pooling's output: as a convolution's, or rounded up.

    Convention: rounding up adds a last window that hangs over the far border, provided that it starts on the input or
    on its near padding; one that would start beyond is dropped. This is torch's rule and, for strides up to the kernel,
    Caffe's (which is always in this mode); for longer strides Caffe keeps such a window where there is no padding,
    and it is empty.

    Args:
        size: pixels.
        kernel: pixels.
        stride: the kernel if None.
        padding: pixels on each side.
        dilation: distance of the window's pixels.
        ceil_mode: round up.

    Raises:
        RecordError: the window does not fit into the padded input.
    """
    stride = kernel if stride is None else stride
    room = _room("pooling_output_size", size, kernel, stride, padding, dilation)
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def transposed_output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """Length of a transposed convolution's output: (size - 1) stride - 2 padding + reach + output_padding.

    It is the smallest length that a convolution with the same window takes to `size`, plus `output_padding` (which must
    be below the stride or the dilation), so that every length between two strides can be named.

    Raises:
        RecordError: nothing would be left, or the output padding is too long.
    """
    require(output_padding < max(stride, dilation), "output_padding", output_padding, "below the stride or dilation")
    length = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + output_padding
    require(length > 0, "transposed_output_size", f"length {length}", "at least 1")
    return length


def _room(where: str, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    given = {"size": size, "kernel": kernel, "stride": stride, "dilation": dilation}
    low = {name: value for name, value in given.items() if value < 1}
    require(not low and padding >= 0, where, {**low, "padding": padding}, "sizes from 1, padding from 0")
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    require(room >= 0, where, f"{size} pixels with padding {padding}", f"at least the window's {size - room}")
    return room


@dataclass(frozen=True)
class Window:
    """A layer that looks through a sliding window, along one axis.

    Attributes:
        kernel: taps.
        stride: input pixels an output pixel.
        padding: pixels before the first.
        dilation: distance of the taps.
    """

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        fits = min(self.kernel, self.stride, self.dilation) >= 1 and self.padding >= 0
        require(fits, "Window", self, "kernel, stride and dilation from 1, padding from 0")


@dataclass(frozen=True)
class Field:
    """Where a layer's outputs look, along one axis.

    Attributes:
        size: input pixels from the first to the last that can reach one output (holes of dilation included).
        stride: input pixels from one output to the next (the "jump").
        offset: centre of the first output's field, in continuous pixels (0.5 is the first pixel's centre); negative
            where padding puts it outside the picture.
    """

    size: int = 1
    stride: float = 1.0
    offset: float = 0.5

    def centre(self, index: int | float) -> float:
        """Centre of the field of output `index`, continuous pixels."""
        return self.offset + index * self.stride

    def span(self, index: int) -> tuple[int, int]:
        """First and last input pixel of output `index`; they can lie outside the picture, on padding."""
        first = math.ceil(self.centre(index) - self.size / 2)
        return first, first + self.size - 1


def stacked_field(windows: Iterable[Window]) -> Field:
    """Receptive field of a chain of layers (Araujo, Norris, Sim: Computing Receptive Fields, Distill 2019).

    Per layer, with jump j: size += (reach - 1) j; offset += ((reach - 1) / 2 - padding) j; j *= stride. Borders are not
    seen: the field is that of an output far from them. Of graphs with branches: `receptive_field`.

    Args:
        windows: from the picture on.
    """
    size, stride, offset = 1, 1, 0.5
    for window in windows:
        reach = window.dilation * (window.kernel - 1)
        size += reach * stride
        offset += (reach / 2 - window.padding) * stride
        stride *= window.stride
    return Field(size, float(stride), offset)


def convolution_cost(
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    output_size: Sequence[int],
    groups: int = 1,
    bias: bool = True,
) -> tuple[int, int]:
    """Parameters and multiply-adds of one convolution on one picture.

    Each output value costs `in_channels / groups * prod(kernel_size)` multiply-adds; the bias is not counted as one.
    Depthwise is `groups == in_channels`, pointwise a kernel of ones. For a transposed convolution give its input's size
    as `output_size`: each input value is multiplied once by every weight that it meets.

    Raises:
        RecordError: channels are not multiples of the groups.
    """
    fits = groups >= 1 and in_channels % groups == 0 and out_channels % groups == 0
    require(fits, "convolution_cost(groups)", groups, f"a divisor of {in_channels} and {out_channels} channels")
    weights = out_channels * (in_channels // groups) * math.prod(kernel_size)
    return weights + (out_channels if bias else 0), weights * math.prod(output_size)
