import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.ops.shapes import (
    Field,
    Window,
    convolution_cost,
    convolution_output_size,
    per_axis,
    pooling_output_size,
    stacked_field,
    transposed_output_size,
)

GRID = [(k, s, p, d) for k in (1, 2, 3, 5) for s in (1, 2, 3) for p in (0, 1, 2) for d in (1, 2)]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), GRID)
def test_sizes_are_torchs(kernel: int, stride: int, padding: int, dilation: int) -> None:
    weight = torch.zeros(1, 1, kernel)
    for size in range(dilation * (kernel - 1) + 1, 14):
        line = torch.zeros(1, 1, size)
        got = convolution_output_size(size, kernel, stride, padding, dilation)
        assert got == F.conv1d(line, weight, None, stride, padding, dilation).shape[2]
        if 2 * padding <= kernel:
            for ceil_mode in (False, True):
                wanted = F.max_pool1d(line, kernel, stride, padding, dilation, ceil_mode).shape[2]
                assert pooling_output_size(size, kernel, stride, padding, dilation, ceil_mode) == wanted
        length = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
        if length > 0:
            for extra in range(max(stride, dilation)):
                wanted = F.conv_transpose1d(line, weight, None, stride, padding, extra, 1, dilation).shape[2]
                assert transposed_output_size(size, kernel, stride, padding, extra, dilation) == wanted


def test_transposed_size_goes_back() -> None:
    for size in range(3, 20):
        small = convolution_output_size(size, 3, 2, 1)
        lengths = [transposed_output_size(small, 3, 2, 1, extra) for extra in range(2)]
        assert size in lengths


def test_rounding_up_as_caffe_does() -> None:
    """GoogLeNet's first pool: 112 -> 56 only when rounded up; SegNet's fifth on 360 x 480: 23 -> 12."""
    assert pooling_output_size(112, 3, 2) == 55
    assert pooling_output_size(112, 3, 2, ceil_mode=True) == 56
    assert pooling_output_size(23, 2, 2) == 11
    assert pooling_output_size(23, 2, 2, ceil_mode=True) == 12
    assert pooling_output_size(5, 2, 2, padding=1, ceil_mode=True) == 3  # a fourth would start on the far padding
    assert pooling_output_size(5, 1, 3, ceil_mode=True) == 2  # Caffe would keep an empty third


def test_lengths_of_one_window() -> None:
    assert convolution_output_size(3, 3) == 1
    with pytest.raises(RecordError, match="2 pixels with padding 0, wanted at least the window's 3"):
        convolution_output_size(2, 3)
    with pytest.raises(RecordError, match="stride"):
        pooling_output_size(4, 2, 0)
    with pytest.raises(RecordError, match="padding"):
        convolution_output_size(4, 2, 1, -1)
    with pytest.raises(RecordError, match="output_padding"):
        transposed_output_size(4, 3, 2, 1, 2)
    with pytest.raises(RecordError, match="at least 1"):
        transposed_output_size(1, 1, 1, 1)
    with pytest.raises(RecordError, match="Window"):
        Window(0)


def test_a_number_for_each_axis() -> None:
    assert per_axis(2, 3, "here") == (2, 2, 2)
    assert per_axis([1, 2], 2, "here") == (1, 2)
    with pytest.raises(RecordError, match="here"):
        per_axis((1, 2), 3, "here")
    with pytest.raises(RecordError, match="at least 1"):
        per_axis(0, 2, "here")


def test_fields_of_a_chain_grow_as_in_the_lectures() -> None:
    strides = (1, 2, 1, 1, 2, 1, 1, 2)
    sizes = [stacked_field(Window(3, s, 1) for s in strides[: i + 1]).size for i in range(8)]
    assert sizes == [3, 5, 9, 13, 17, 25, 33, 41]
    assert [stacked_field(Window(3, 1, d, d) for d in (1, 2, 4)[:n]).size for n in (1, 2, 3)] == [3, 7, 15]
    context = [stacked_field(Window(3, 1, d, d) for d in (1, 1, 2, 4, 8, 16, 1)[:n]).size for n in range(1, 8)]
    assert context == [3, 5, 9, 17, 33, 65, 67]


def test_field_of_alexnets_fifth_pool() -> None:
    conv, pool = Window(3, 1, 1), Window(3, 2)
    field = stacked_field([Window(11, 4, 2), pool, Window(5, 1, 2), pool, conv, conv, conv, pool])
    assert field == Field(195, 32.0, 31.5)
    assert field.centre(2) == 95.5
    assert field.span(3) == (30, 224)
    assert stacked_field([]) == Field(1, 1.0, 0.5)
    assert stacked_field([]).span(4) == (4, 4)


def test_cost_of_a_convolution() -> None:
    assert convolution_cost(3, 64, (3, 3), (224, 224)) == (1792, 86_704_128)  # VGG's first layer
    assert convolution_cost(32, 32, (3, 3), (7, 7), groups=32, bias=False) == (288, 14_112)  # depthwise
    assert convolution_cost(32, 64, (1, 1), (7, 7), bias=False) == (2048, 100_352)  # pointwise
    with pytest.raises(RecordError, match="groups"):
        convolution_cost(6, 4, (3,), (5,), groups=3)
