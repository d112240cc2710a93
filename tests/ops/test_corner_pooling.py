import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.errors import RecordError, UsageError
from bestiary.ops import corner_pooling
from bestiary.ops.corner_pooling import Direction, corner_pool

DIRECTIONS: list[Direction] = ["top", "bottom", "left", "right"]


def by_loops(maps: torch.Tensor, direction: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, and the flat place in the plane of the maximum nearest to each pixel."""
    values, places = torch.empty_like(maps), torch.empty(maps.shape, dtype=torch.int64)
    height, width = maps.shape[2:]
    steps = {"top": (1, 0), "bottom": (-1, 0), "left": (0, 1), "right": (0, -1)}
    dy, dx = steps[direction]
    for b in range(maps.shape[0]):
        for c in range(maps.shape[1]):
            for y in range(height):
                for x in range(width):
                    best, place = -math.inf, y * width + x
                    u, v = y, x
                    while 0 <= u < height and 0 <= v < width:
                        if maps[b, c, u, v] > best:
                            best, place = maps[b, c, u, v].item(), u * width + v
                        u, v = u + dy, v + dx
                    values[b, c, y, x], places[b, c, y, x] = best, place
    return values, places


def tied_maps(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 3, (2, 2, 6, 9), generator=g).to(dtype)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_by_loops(direction: Direction, dtype: torch.dtype) -> None:
    maps = tied_maps(0, dtype).requires_grad_()
    values, places = by_loops(maps.detach(), direction)
    got = corner_pool(maps, direction)
    assert torch.equal(got, values)
    grad = torch.randint(-4, 5, got.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    got.backward(grad)
    wanted = torch.zeros(2, 2, 54).scatter_add_(2, places.flatten(2), grad.flatten(2).float()).view(2, 2, 6, 9)
    assert maps.grad is not None
    assert torch.equal(maps.grad, wanted.to(dtype))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_kernel_is_torchs_running_maximum(direction: Direction) -> None:
    axis, step = corner_pooling._SCANS[direction]
    maps = torch.randn(3, 8, 37, 41, generator=torch.Generator().manual_seed(2))
    maps[0, 0, 5, 6], maps[1, 1, :, 3] = math.nan, -math.inf
    values, places = corner_pooling._cummax(maps, axis, step)
    torch.testing.assert_close(corner_pool(maps, direction), values, rtol=0, atol=0, equal_nan=True)
    grad = torch.randn(maps.shape, generator=torch.Generator().manual_seed(3))
    wanted = torch.zeros(maps.shape).scatter_add_(axis, places, grad)
    out = corner_pool(maps, direction)
    got = corner_pooling._corner_pool_backward(grad, maps, out, axis, step)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_exported_form_has_equal_values(direction: Direction) -> None:
    axis, step = corner_pooling._SCANS[direction]
    for size in (1, 2, 5, 8, 13):
        maps = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(size))
        assert torch.equal(corner_pooling._by_doubling(maps, axis, step), corner_pool(maps, direction))


def test_worked_line() -> None:
    line = torch.tensor([2.0, 1, 3, 0, 2])[None, None, None]
    assert corner_pool(line, "left").flatten().tolist() == [3, 3, 3, 2, 2]
    assert corner_pool(line, "right").flatten().tolist() == [2, 2, 3, 3, 3]
    assert corner_pool(line.transpose(2, 3), "top").flatten().tolist() == [3, 3, 3, 2, 2]
    assert corner_pool(line.transpose(2, 3), "bottom").flatten().tolist() == [2, 2, 3, 3, 3]


def test_of_equal_values_the_nearest_learns() -> None:
    line = torch.tensor([5.0, 1, 5, 0])[None, None, None].requires_grad_()
    corner_pool(line, "left").sum().backward()
    assert line.grad is not None
    assert line.grad.flatten().tolist() == [1, 0, 2, 1]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 999))
def test_flips_and_turns_give_the_other_directions(height: int, width: int, seed: int) -> None:
    maps = torch.randint(-3, 3, (1, 2, height, width), generator=torch.Generator().manual_seed(seed)).float()
    top = corner_pool(maps, "top")
    assert torch.equal(corner_pool(maps.flip(2), "bottom").flip(2), top)
    assert torch.equal(corner_pool(maps.mT, "left").mT, top)
    assert torch.equal(corner_pool(maps.mT.flip(3), "right").flip(3).mT, top)
    assert torch.equal(corner_pool(top, "top"), top)
    assert torch.equal(top[:, :, 0], maps.amax(2))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradcheck(direction: Direction) -> None:
    g = torch.Generator().manual_seed(4)
    maps = torch.randperm(60, generator=g).double().view(1, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: corner_pool(m, direction), (maps,))


def test_threads_do_not_change_a_bit() -> None:
    maps = torch.randn(4, 32, 40, 40, generator=torch.Generator().manual_seed(5))
    before, answers = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaf = maps.clone().requires_grad_()
            corner_pool(leaf, "left").square().sum().backward()
            answers.append(leaf.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*answers)


def test_layouts_and_empty() -> None:
    maps = tied_maps(6)
    for other in (maps.contiguous(memory_format=torch.channels_last), maps.repeat_interleave(2, 3)[..., ::2]):
        assert torch.equal(corner_pool(other, "left"), corner_pool(maps, "left"))
    for shape in ((0, 2, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)):
        for direction in DIRECTIONS:
            assert corner_pool(torch.zeros(shape), direction).shape == shape


def test_what_does_not_fit(unchecked: None) -> None:
    with pytest.raises(UsageError, match="wanted one of"):
        corner_pool(torch.zeros(1, 1, 2, 2), "up")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=r"\(B, C, H, W\)"):
        corner_pool(torch.zeros(1, 2, 2))
