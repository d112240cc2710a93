import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.ops.position_sensitive import ps_roi_align, ps_roi_pool
from bestiary.ops.region_modules import PSRoIAlign, PSRoIPool
from bestiary.ops.regions import roi_align

ROIS = torch.tensor(
    [[0, 0, 0, 7, 5], [0, 2.5, 1.5, 4.5, 3.5], [0, -3, -2, 3, 9], [0, 20, 20, 30, 30], [0, 5, 4, 1, 1], [0, 3, 2, 3, 2]]
)


def score_maps(classes: int, bins: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, classes * bins, 9, 12, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def regions(count: int = 20, seed: int = 0) -> torch.Tensor:
    """Inside, across borders, outside, empty and inverted; half of the corners at halves of a pixel of stride 4."""
    g = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(count, 2, generator=g) * 50 - 8, torch.rand(count, 2, generator=g) * 40 - 2
    rois = torch.cat([torch.randint(0, 2, (count, 1), generator=g), corner, corner + size], dim=1)
    rois[::2, 1:] = (rois[::2, 1:] / 2).round() * 2
    return torch.cat([rois, torch.tensor([[0.0, 100, 100, 120, 120], [1, -30, -30, 90, 80], [1, 20, 20, 20, 20]])])


def away_from_zero(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def naive_ps_roi_pool(features: torch.Tensor, rois: torch.Tensor, size: tuple[int, int], scale: float) -> torch.Tensor:
    height, width = features.shape[2:]
    classes = features.shape[1] // (size[0] * size[1])
    out = torch.zeros(len(rois), classes, *size, dtype=torch.float64)
    for r, (picture, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (away_from_zero(v * scale) for v in box)
        rows, columns = max(y2 - y1, 1), max(x2 - x1, 1)
        for by in range(size[0]):
            top, bottom = (
                min(max(y1 + e, 0), height - 1) for e in (by * rows // size[0], -(-(by + 1) * rows // size[0]))
            )
            for bx in range(size[1]):
                ends = (bx * columns // size[1], -(-(bx + 1) * columns // size[1]))
                left, right = (min(max(x1 + e, 0), width - 1) for e in ends)
                if top >= bottom or left >= right:
                    continue
                for c in range(classes):
                    plane = features[int(picture), (c * size[0] + by) * size[1] + bx].double()
                    out[r, c, by, bx] = plane[top:bottom, left:right].mean()
    return out


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(3, 2), (1, 1), (4, 5)])
def test_pool_equals_the_loops_of_the_definition(size: tuple[int, int], dtype: torch.dtype, last: bool) -> None:
    features, rois = score_maps(3, size[0] * size[1], dtype), regions()
    if last:
        features = features.contiguous(memory_format=torch.channels_last)
    got = ps_roi_pool(features, rois, size, 0.25)
    wanted = naive_ps_roi_pool(features, rois, size, 0.25)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ratio", [2, -1])
def test_align_takes_each_bin_from_roi_align_of_its_own_maps(ratio: int, dtype: torch.dtype) -> None:
    height, width, classes = 3, 2, 4
    features, rois = score_maps(classes, height * width, dtype, 1), regions()
    got = ps_roi_align(features, rois, (height, width), 0.25, ratio)
    for b in range(height * width):
        own = roi_align(features[:, b :: height * width], rois, (height, width), 0.25, ratio, True)
        y, x = divmod(b, width)
        torch.testing.assert_close(got[:, :, y, x], own[:, :, y, x], rtol=0, atol=1e-6)


def test_torchvisions_numbers() -> None:
    features = torch.arange(4 * 48.0).reshape(1, 4, 6, 8) * 5 % 13
    pooled = [
        [5.25, 6.75, 5.166667, 6.666667],
        [4.0, 2.0, 4.0, 2.0],
        [0.0, 6.0, 0.0, 4.833333],
        [0.0, 0.0, 0.0, 0.0],
        [3.0, 9.0, 2.0, 8.0],
        [4.0, 10.0, 3.0, 9.0],
    ]
    aligned = [
        [6.1875, 5.3125, 5.199219, 5.035156],
        [7.5, 5.5, 7.5, 5.5],
        [0.0, 2.859375, 0.0, 3.125],
        [0.0, 0.0, 0.0, 0.0],
        [7.25, 3.25, 4.75, 7.25],
        [7.5, 7.0, 6.5, 6.0],
    ]
    for dtype in (torch.float32, torch.float64):
        maps = features.to(dtype)
        torch.testing.assert_close(
            ps_roi_pool(maps, ROIS, 2).flatten(1).float(), torch.tensor(pooled), rtol=0, atol=2e-6
        )
        torch.testing.assert_close(
            ps_roi_align(maps, ROIS, 2, 1.0, 2).flatten(1).float(), torch.tensor(aligned), rtol=0, atol=2e-6
        )


def test_gradcheck_in_double_precision() -> None:
    features, rois = score_maps(2, 6, torch.float64, 2).requires_grad_(), regions(8)
    assert torch.autograd.gradcheck(lambda f: ps_roi_pool(f, rois, (2, 3), 0.25), (features,), fast_mode=True)
    for ratio in (2, -1):
        assert torch.autograd.gradcheck(
            lambda f, ratio=ratio: ps_roi_align(f, rois, (2, 3), 0.25, ratio), (features,), fast_mode=True
        )


@pytest.mark.parametrize("op", [ps_roi_pool, ps_roi_align])
@pytest.mark.parametrize("last", [False, True])
def test_kernel_gradient_equals_the_plain_one_for_any_number_of_threads(op: type, last: bool) -> None:
    # 30 classes x 6 bins: the threads' ranges of channels cut across bins.
    features, rois = score_maps(30, 6, seed=3), regions(60)
    if last:
        features = features.contiguous(memory_format=torch.channels_last)
    kernel, plain = features.requires_grad_(), features.detach().double().requires_grad_()
    weight = torch.randn(len(rois), 30, 2, 3, generator=torch.Generator().manual_seed(0))
    (wanted,) = torch.autograd.grad(op(plain, rois.double(), (2, 3), 0.25), plain, weight.double())
    before, grads = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            grads.append(torch.autograd.grad(op(kernel, rois, (2, 3), 0.25), kernel, weight)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(grads[0], other) for other in grads[1:])
    torch.testing.assert_close(grads[0].double(), wanted, rtol=0, atol=1e-5)
    assert grads[0].stride() == features.stride()


def test_an_empty_bin_is_zero_and_not_a_quotient_of_zeros() -> None:
    features = torch.ones(1, 4, 5, 5)
    empty = torch.tensor([[0.0, 2, 2, 2, 2], [0, 3, 3, 1, 1]])
    assert not ps_roi_align(features, empty, 2).any()
    assert not ps_roi_pool(features, torch.tensor([[0.0, 8, 8, 9, 9]]), 2).any()


def test_half_precision_is_computed_in_float32_and_no_region_is_legal() -> None:
    features, rois = score_maps(2, 4, torch.float16, 4).requires_grad_(), regions()
    for op in (ps_roi_pool, ps_roi_align):
        got = op(features, rois, 2, 0.25)
        assert torch.equal(got, op(features.detach().float(), rois, 2, 0.25).half())
        (grad,) = torch.autograd.grad(got.float().sum(), features)
        assert grad.dtype == torch.float16
        assert op(features, [torch.zeros(0, 4)] * 2, 2).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("op", [ps_roi_pool, ps_roi_align])
def test_channels_must_be_a_multiple_of_the_bins_and_pictures_must_exist(op: type) -> None:
    features = score_maps(2, 4)
    with pytest.raises(RecordError, match="8 channels, wanted a multiple of the 9 bins"):
        op(features, regions(), 3)
    with pytest.raises(RecordError, match="indices below 2"):
        op(features, torch.tensor([[2.0, 0, 0, 3, 3]]), 2)


def test_modules_are_the_functions_with_their_settings() -> None:
    features, rois = score_maps(2, 6), regions()
    assert torch.equal(PSRoIPool((2, 3), 0.25)(features, rois), ps_roi_pool(features, rois, (2, 3), 0.25))
    assert torch.equal(PSRoIAlign((2, 3), 0.25, 2)(features, rois), ps_roi_align(features, rois, (2, 3), 0.25, 2))
    assert "sampling_ratio=2" in repr(PSRoIAlign(3, 0.25, 2))
    assert "output_size=3" in repr(PSRoIPool(3, 0.25))
