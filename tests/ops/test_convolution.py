from itertools import product

import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.ops.convolution import (
    batch_to_space,
    convolution_matrix,
    image_to_columns,
    interleaved_convolution,
    space_to_batch,
)
from bestiary.ops.pooling import max_pool_with_indices

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
WINDOWS = [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 2), (3, 1, 2, 2), (2, 3, 1, 1)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(9,), (7, 6), (5, 6, 5)])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), WINDOWS)
def test_matrix_is_the_convolution_and_its_transpose_the_transposed(
    size: tuple[int, ...], stride: int, padding: int, dilation: int, groups: int
) -> None:
    axes = len(size)
    maps, weight = random(1, 4, *size), random(6, 4 // groups, *(3, 2, 2)[:axes], seed=1)
    matrix = convolution_matrix(weight, size, stride, padding, dilation, groups)
    wanted = CONVOLVE[axes](maps, weight, None, stride, padding, dilation, groups)
    assert matrix.shape == (wanted.numel(), maps.numel())
    torch.testing.assert_close(matrix @ maps.flatten(), wanted.flatten(), rtol=0, atol=1e-12)

    signal = random(*wanted.shape, seed=2)
    back = (matrix.T @ signal.flatten()).view(maps.shape)
    base = TRANSPOSED[axes](signal, weight, None, stride, padding, 0, groups, dilation)
    extra = [n - m for n, m in zip(size, base.shape[2:], strict=True)]
    torch.testing.assert_close(
        back, TRANSPOSED[axes](signal, weight, None, stride, padding, extra, groups, dilation), rtol=0, atol=1e-12
    )
    assert torch.dot(matrix @ maps.flatten(), signal.flatten()).item() == pytest.approx((back * maps).sum().item())


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_at_stride_one_the_transposed_is_the_flipped_kernels(padding: int) -> None:
    """With the padding that is left of a whole kernel's: 2 - padding for kernels of 3."""
    weight = random(2, 3, 3, 3)
    matrix = convolution_matrix(weight, (6, 5), padding=padding)
    smaller = (4 + 2 * padding, 3 + 2 * padding)
    flipped = convolution_matrix(weight.transpose(0, 1).flip(2, 3), smaller, padding=2 - padding)
    torch.testing.assert_close(flipped.to_dense(), matrix.to_dense().T, rtol=0, atol=0)


def test_matrix_worked_by_hand() -> None:
    weight = torch.tensor([[[1.0, 2, 3]]])
    assert convolution_matrix(weight, 4, padding=1).to_dense().tolist() == [
        [2, 3, 0, 0],
        [1, 2, 3, 0],
        [0, 1, 2, 3],
        [0, 0, 1, 2],
    ]
    assert convolution_matrix(weight, 5, stride=2).to_dense().tolist() == [[1, 2, 3, 0, 0], [0, 0, 1, 2, 3]]
    with_zero = convolution_matrix(torch.tensor([[[0.0, 1]]]), 3)
    assert with_zero.values().tolist() == [0, 1, 0, 1]


def test_matrix_is_in_order_and_learns() -> None:
    weight = random(4, 2, 3, 3).requires_grad_()
    matrix = convolution_matrix(weight, (5, 4), 2, 1, 1, 2)
    rows, columns = matrix.indices()
    place = rows * matrix.shape[1] + columns
    assert (place.diff() > 0).all(), "coalesced: in order, none twice"
    maps = random(1, 4, 5, 4)
    (got,) = torch.autograd.grad((matrix @ maps.flatten()).square().sum(), weight)
    (wanted,) = torch.autograd.grad(F.conv2d(maps, weight, None, 2, 1, 1, 2).square().sum(), weight)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_cross_correlation_not_flipped() -> None:
    maps = torch.arange(9.0).view(1, 1, 3, 3)
    weight = torch.tensor([[[[1.0, 0], [0, 0]]]])
    matrix = convolution_matrix(weight, (3, 3))
    assert (matrix @ maps.flatten()).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), ((2, 1), (1, 2), (2, 3))])
def test_columns_are_torchs_and_multiply(stride: int, padding: int, dilation: int) -> None:
    maps, weight = random(2, 3, 8, 9), random(4, 3, 3, 2, seed=1)
    columns = image_to_columns(maps, (3, 2), stride, padding, dilation)
    assert torch.equal(columns, F.unfold(maps, (3, 2), dilation, padding, stride))
    wanted = F.conv2d(maps, weight, None, stride, padding, dilation)
    torch.testing.assert_close(weight.flatten(1) @ columns, wanted.flatten(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(9,), (5, 4, 6)])
def test_columns_on_other_numbers_of_axes(size: tuple[int, ...]) -> None:
    maps, weight = random(1, 2, *size), random(3, 2, *(2, 3, 2)[: len(size)], seed=1)
    columns = image_to_columns(maps, weight.shape[2:], 2, 1)
    wanted = CONVOLVE[len(size)](maps, weight, None, 2, 1)
    torch.testing.assert_close(weight.flatten(1) @ columns, wanted.flatten(2), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda m: image_to_columns(m, 2, 2, 1, 2), (maps.requires_grad_(),))


@pytest.mark.parametrize(("size", "block"), [((9,), (2,)), ((7, 6), (2, 3)), ((5, 6, 4), (2, 1, 3))])
def test_subgrids_by_loops_and_back(size: tuple[int, ...], block: tuple[int, ...]) -> None:
    maps = random(2, 3, *size)
    grids = space_to_batch(maps, block)
    for b, at in product(range(2), product(*(range(n) for n in size))):
        phase = 0
        for a, r in zip(at, block, strict=True):
            phase = phase * r + a % r
        small = tuple(a // r for a, r in zip(at, block, strict=True))
        assert torch.equal(grids[(phase * 2 + b, slice(None), *small)], maps[(b, slice(None), *at)])
    assert grids.abs().sum() == pytest.approx(maps.abs().sum().item()), "the rest is zeros"
    assert torch.equal(batch_to_space(grids, block, size), maps)


@pytest.mark.parametrize(("padding", "dilation", "groups"), [(0, 2, 1), (2, 2, 3), ((1, 3), (2, 3), 1), (12, 12, 1)])
def test_dilation_is_dense_and_interleaved(padding: int, dilation: int, groups: int) -> None:
    maps, weight, bias = random(2, 3, 9, 11), random(6, 3 // groups, 3, 3, seed=1), random(6, seed=2)
    got = interleaved_convolution(maps, weight, bias, padding, dilation, groups)
    wanted = F.conv2d(maps, weight, bias, 1, padding, dilation, groups)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda m, w: interleaved_convolution(m, w, None, 1, 2),
        (maps[:1, :, :5, :5].requires_grad_(), random(1, 3, 3, 3)),
    )


def test_without_stride_but_dilated_sees_the_strided_network() -> None:
    """The "a trous" rule: pool with stride 1, dilate what follows; every second value is the strided network's."""
    maps, weight = random(1, 2, 21, 23), random(3, 2, 3, 3, seed=1)
    strided = F.conv2d(max_pool_with_indices(maps, 2, 2)[0], weight)
    dense = F.conv2d(max_pool_with_indices(maps, 2, 1)[0], weight, dilation=2)
    assert dense.shape[2] > 2 * strided.shape[2] - 2
    torch.testing.assert_close(dense[..., ::2, ::2], strided, rtol=0, atol=1e-12)
    full = F.conv2d(maps, weight, padding=1)
    torch.testing.assert_close(full[..., ::2, ::2], F.conv2d(maps, weight, stride=2, padding=1), rtol=0, atol=1e-12)


def test_what_does_not_fit() -> None:
    with pytest.raises(RecordError, match="the window's 5"):
        convolution_matrix(torch.zeros(1, 1, 3), 4, dilation=2)
    with pytest.raises(RecordError, match="divisor"):
        convolution_matrix(torch.zeros(3, 1, 3), 4, groups=2)
    with pytest.raises(RecordError, match="multiple of 4"):
        batch_to_space(torch.zeros(6, 1, 2, 2), 2)
    with pytest.raises(RecordError, match="up to"):
        batch_to_space(torch.zeros(4, 1, 2, 2), 2, (5, 4))
