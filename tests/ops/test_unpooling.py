import math

import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.ops import unpooling
from bestiary.ops.pooling import max_pool_with_indices
from bestiary.ops.unpooling import bed_of_nails, max_unpool

TORCHS = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}


def by_loops(values: torch.Tensor, indices: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    out = torch.zeros(*values.shape[:2], math.prod(size), dtype=values.dtype)
    for b in range(values.shape[0]):
        for c in range(values.shape[1]):
            for value, at in zip(values[b, c].flatten().tolist(), indices[b, c].flatten().tolist(), strict=True):
                out[b, c, at] += value
    return out.unflatten(2, size)


@pytest.mark.parametrize("size", [(9,), (7, 6), (5, 6, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_loops_and_torch(size: tuple[int, ...], dtype: torch.dtype) -> None:
    maps = torch.randn(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    values, indices = max_pool_with_indices(maps, 2)
    assert torch.equal(max_unpool(values, indices, size), by_loops(values, indices, size))
    assert torch.equal(max_unpool(values, indices, size), TORCHS[len(size)](values, indices, 2, output_size=size))


def test_worked_numbers() -> None:
    grid = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None]
    _, indices = max_pool_with_indices(grid, 2)
    got = max_unpool(torch.tensor([[1.0, 2], [3, 4]])[None, None], indices, (4, 4))
    assert got[0, 0].tolist() == [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]


def test_is_the_gradient_of_overlapping_pooling() -> None:
    maps = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    pooled, indices = max_pool_with_indices(maps, 3, 2, 1)
    signal = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2))
    (wanted,) = torch.autograd.grad(pooled, maps, signal)
    assert indices.flatten(2).unique().numel() < indices[0, 0].numel() * 8, "windows share maxima"
    torch.testing.assert_close(max_unpool(signal, indices, (9, 8)), wanted, rtol=0, atol=1e-6)


def test_shared_places_are_added() -> None:
    values, indices = torch.tensor([[[1.0, 2, 4]]]), torch.tensor([[[3, 0, 3]]])
    assert max_unpool(values, indices, (5,)).tolist() == [[[2, 0, 0, 5, 0]]]


def test_channels_last_stays_so() -> None:
    maps = torch.randn(2, 5, 8, 7, generator=torch.Generator().manual_seed(3))
    wanted = max_unpool(*max_pool_with_indices(maps, 2), (8, 7))
    values, indices = max_pool_with_indices(maps.contiguous(memory_format=torch.channels_last), 2)
    assert not values.is_contiguous()
    got = max_unpool(values, indices, (8, 7))
    assert torch.equal(got, wanted)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(max_unpool(values.flip(3).flip(3)[..., ::1], indices.contiguous(), (8, 7)), wanted)


@pytest.mark.parametrize("last", [False, True])
def test_kernel_equals_plain_torch(last: bool) -> None:
    maps = torch.randn(3, 64, 33, 40, generator=torch.Generator().manual_seed(4))
    maps = maps.contiguous(memory_format=torch.channels_last) if last else maps
    values, indices = max_pool_with_indices(maps, 3, 2, 1)
    torch.testing.assert_close(
        max_unpool(values, indices, (33, 40)), unpooling._scatter(values, indices, (33, 40)), rtol=0, atol=1e-6
    )


def test_gradients() -> None:
    _, indices = max_pool_with_indices(torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(5)), 3, 2, 1)
    values = torch.randn(indices.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: max_unpool(v, indices, (5, 6)), (values,))
    assert torch.autograd.gradcheck(lambda v: bed_of_nails(v, (2, 3), (1, 0)), (values,))


def test_half_precision_and_empty() -> None:
    values = torch.ones(1, 1, 1, 2, dtype=torch.bfloat16)
    got = max_unpool(values, torch.tensor([[[[1, 2]]]]), (2, 2))
    assert got.dtype == torch.bfloat16
    assert got.flatten().tolist() == [0, 1, 1, 0]
    assert max_unpool(torch.zeros(0, 2, 1, 1), torch.zeros(0, 2, 1, 1, dtype=torch.int64), (2, 2)).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("last", [False, True])
def test_half_precision_puts_back_the_very_values(dtype: torch.dtype, last: bool) -> None:
    maps = torch.randn(2, 5, 8, 7, generator=torch.Generator().manual_seed(7)).to(dtype)
    maps = maps.contiguous(memory_format=torch.channels_last) if last else maps
    values, indices = max_pool_with_indices(maps, 2)
    got = max_unpool(values, indices, (8, 7))
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=torch.channels_last) == last
    assert torch.equal(got.float(), max_unpool(values.float(), indices, (8, 7)))


def test_what_does_not_fit(unchecked: None) -> None:
    values = torch.zeros(1, 1, 2, 2)
    with pytest.raises(RecordError, match="got 0 to 9, wanted 0 to 8"):
        max_unpool(values, torch.tensor([[[[0, 9], [1, 2]]]]), (3, 3))
    with pytest.raises(RecordError, match="got -1 to 4"):
        max_unpool(values, torch.tensor([[[[0, -1], [4, 2]]]]), (3, 3))
    with pytest.raises(RecordError, match="the values'"):
        max_unpool(values, torch.zeros(1, 1, 2, 3, dtype=torch.int64), (3, 3))
    with pytest.raises(RecordError, match="output_size"):
        max_unpool(values, torch.zeros(1, 1, 2, 2, dtype=torch.int64), (3, 3, 3))
    with pytest.raises(RecordError, match="below the factor"):
        bed_of_nails(values, 2, 2)


def test_nails() -> None:
    grid = torch.tensor([[1.0, 2], [3, 4]])[None, None]
    assert bed_of_nails(grid, 2)[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    got = bed_of_nails(grid, (2, 3), (1, 2))[0, 0]
    assert got.tolist() == [[0] * 6, [0, 0, 1, 0, 0, 2], [0] * 6, [0, 0, 3, 0, 0, 4]]
    assert bed_of_nails(torch.tensor([[[5.0, 6]]]), 3, 1).tolist() == [[[0, 5, 0, 0, 6, 0]]]
    assert torch.equal(bed_of_nails(grid, 1), grid)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (5, 3)])
def test_nails_and_a_flipped_kernel_are_a_transposed_convolution(kernel: int, stride: int) -> None:
    g = torch.Generator().manual_seed(6)
    maps = torch.randn(1, 3, 4, 5, dtype=torch.float64, generator=g)
    weight = torch.randn(3, 2, kernel, kernel, dtype=torch.float64, generator=g)
    nails = bed_of_nails(maps, stride)[..., : 3 * stride + 1, : 4 * stride + 1]
    got = F.conv2d(F.pad(nails, (kernel - 1,) * 4), weight.transpose(0, 1).flip(2, 3))
    torch.testing.assert_close(got, F.conv_transpose2d(maps, weight, stride=stride), rtol=0, atol=1e-12)
