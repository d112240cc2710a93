import math
from itertools import product

import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.ops.pooling import max_pool_with_indices, mean_pool
from bestiary.ops.shapes import pooling_output_size

CASES = [(2, 2, 0, 1, False), (3, 2, 1, 1, False), (3, 2, 0, 1, True), (2, 3, 1, 2, True), (3, 1, 1, 2, False)]


def windows(size: tuple[int, ...], kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> list:
    """For each output place, the input places of its window, row-major, and how many lie on the padded input."""
    counts = [pooling_output_size(n, kernel, stride, padding, dilation, ceil_mode) for n in size]
    found = []
    for place in product(*(range(c) for c in counts)):
        lines = [[o * stride - padding + t * dilation for t in range(kernel)] for o in place]
        padded = math.prod(sum(at < n + padding for at in line) for line, n in zip(lines, size, strict=True))
        inside = [at for at in product(*lines) if all(0 <= a < n for a, n in zip(at, size, strict=True))]
        found.append((place, inside, padded))
    return found


def flat(at: tuple[int, ...], size: tuple[int, ...]) -> int:
    index = 0
    for a, n in zip(at, size, strict=True):
        index = index * n + a
    return index


@pytest.mark.parametrize("size", [(9,), (7, 6), (5, 6, 4)])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "ceil_mode"), CASES)
def test_max_and_its_place_by_loops(
    size: tuple[int, ...], kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> None:
    g = torch.Generator().manual_seed(len(size))
    maps = torch.randint(-4, 4, (2, 3, *size), generator=g).float()  # many ties
    values, indices = max_pool_with_indices(maps, kernel, stride, padding, dilation, ceil_mode)
    for b, c in product(range(2), range(3)):
        for place, inside, _ in windows(size, kernel, stride, padding, dilation, ceil_mode):
            best = max(maps[(b, c, *at)].item() for at in inside)
            first = next(flat(at, size) for at in inside if maps[(b, c, *at)] == best)
            assert values[(b, c, *place)] == best
            assert indices[(b, c, *place)] == first


@pytest.mark.parametrize("size", [(9,), (7, 6), (5, 6, 4)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil_mode"), [(2, 2, 0, True), (3, 2, 1, True), (3, 2, 1, False)]
)
@pytest.mark.parametrize("include", [False, True])
def test_mean_by_loops(
    size: tuple[int, ...], kernel: int, stride: int, padding: int, ceil_mode: bool, include: bool
) -> None:
    maps = torch.randn(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    got = mean_pool(maps, kernel, stride, padding, ceil_mode, include)
    for c in range(2):
        for place, inside, padded in windows(size, kernel, stride, padding, 1, ceil_mode):
            total = sum(maps[(0, c, *at)].item() for at in inside)
            assert got[(0, c, *place)].item() == pytest.approx(total / (padded if include else len(inside)), abs=1e-14)


def test_worked_numbers() -> None:
    grid = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None]
    values, indices = max_pool_with_indices(grid, 2)
    assert values[0, 0].tolist() == [[5, 6], [7, 8]]
    assert indices[0, 0].tolist() == [[5, 2], [12, 15]]
    ones = torch.ones(1, 1, 3, 3)
    assert mean_pool(ones, 3, 2, 1)[0, 0, 0, 0].item() == pytest.approx(4 / 9)
    assert torch.equal(mean_pool(ones, 3, 2, 1, count_include_pad=False), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("last", [False, True])
def test_ties_and_nan(last: bool) -> None:
    flat_map = torch.zeros(1, 2, 4, 4)
    nan = torch.zeros(1, 2, 2, 2)
    nan[0, :, 0, 1] = nan[0, :, 1, 0] = math.nan
    nan[0, :, 0, 0] = math.inf
    if last:
        flat_map, nan = (t.contiguous(memory_format=torch.channels_last) for t in (flat_map, nan))
    assert max_pool_with_indices(flat_map, 2)[1][0, 1].tolist() == [[0, 2], [8, 10]]
    values, indices = max_pool_with_indices(nan, 2)
    assert values.isnan().all()
    assert indices.flatten().tolist() == [2, 2]


def test_gradient_goes_to_the_first_maximum() -> None:
    maps = torch.zeros(1, 1, 1, 4, requires_grad=True)
    max_pool_with_indices(maps, (1, 2), (1, 1))[0].sum().backward()
    assert maps.grad is not None
    assert maps.grad.tolist() == [[[[1, 1, 1, 0]]]]


def test_gradcheck() -> None:
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=g, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: max_pool_with_indices(m, 3, 2, 1)[0], (maps,))
    assert torch.autograd.gradcheck(lambda m: mean_pool(m, 3, 2, 1, True, False), (maps,))


def test_layouts_precisions_and_empty() -> None:
    maps = torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(1))
    wanted = max_pool_with_indices(maps, 3, 2, 1)
    for other in (maps.contiguous(memory_format=torch.channels_last), maps.repeat_interleave(2, 3)[..., ::2]):
        got = max_pool_with_indices(other, 3, 2, 1)
        assert torch.equal(got[0], wanted[0])
        assert torch.equal(got[1], wanted[1])
    half = maps.bfloat16()
    assert torch.equal(
        max_pool_with_indices(half, 3, 2, 1)[0], max_pool_with_indices(half.float(), 3, 2, 1)[0].bfloat16()
    )
    assert torch.equal(mean_pool(half, 3, 2, 1), mean_pool(half.float(), 3, 2, 1).bfloat16())
    values, indices = max_pool_with_indices(maps[:0], 2)
    assert values.shape == indices.shape == (0, 6, 4, 5)


def test_default_stride_is_the_kernel() -> None:
    maps = torch.randn(1, 1, 7, 7)
    assert torch.equal(max_pool_with_indices(maps, (3, 2))[0], F.max_pool2d(maps, (3, 2), (3, 2)))


def test_what_does_not_fit() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    with pytest.raises(RecordError, match="half the kernel"):
        max_pool_with_indices(maps, 2, padding=2)
    with pytest.raises(RecordError, match="the window's 5"):
        mean_pool(maps, 5)
    with pytest.raises(RecordError, match=r"max_pool_with_indices\(kernel_size\)"):
        max_pool_with_indices(maps, (2, 2, 2))
    with pytest.raises(RecordError, match="1 to 3 spatial axes"):
        mean_pool(torch.zeros(2, 3), 2)
