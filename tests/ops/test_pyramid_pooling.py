import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.ops import pyramid_pooling
from bestiary.ops.pyramid_pooling import grid_means, spatial_pyramid_pool, spatial_pyramid_pool_regions

MODES = ["max", "mean"]


def naive_vector(part: torch.Tensor, levels: tuple[int, ...], mode: str) -> list[float]:
    """One loop for each index of the definition; `part` is [C, h, w]."""
    (channels, height, width), vector = part.shape, []
    for n in levels:
        for c in range(channels):
            for i in range(n):
                for j in range(n):
                    rows = slice(i * height // n, -(-(i + 1) * height // n))
                    cell = part[c, rows, j * width // n : -(-(j + 1) * width // n)]
                    vector.append((cell.max() if mode == "max" else cell.mean()).item())
    return vector


def naive_span(low: float, high: float, stride: float, first_centre: float, size: int) -> tuple[int, int]:
    """First and last pixel of those whose centre is strictly inside, by trying every one."""
    inside = [i for i in range(-100, 200) if low < first_centre + i * stride < high]
    if not inside:
        inside = [min(range(-100, 200), key=lambda i: abs(first_centre + i * stride - (low + high) / 2))]
    return min(max(inside[0], 0), size - 1), min(max(inside[-1], 0), size - 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(13, 9), (4, 2), (1, 1), (6, 6)])
def test_whole_maps_equal_the_loops(size: tuple[int, int], mode: str) -> None:
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    got = spatial_pyramid_pool(features, (1, 2, 3, 6), mode)
    assert got.shape == (2, 3 * 50)
    wanted = torch.tensor([naive_vector(part, (1, 2, 3, 6), mode) for part in features])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(13, 9), (4, 2), (1, 1), (6, 6)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("in_graph", [False, True])
def test_grid_means_are_the_loops_in_a_graph_too(
    size: tuple[int, int], bins: int, in_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid_pooling, "exporting", lambda: in_graph)
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([naive_vector(part, (bins,), "mean") for part in features])
    got = grid_means(features, bins)
    assert got.shape == (2, 3, bins, bins)
    torch.testing.assert_close(got.flatten(1), wanted, rtol=0, atol=1e-6)


def test_grid_means_of_nothing_are_an_error() -> None:
    with pytest.raises(RecordError, match="grid_means"):
        grid_means(torch.zeros(1, 2, 0, 3), 2)
    with pytest.raises(RecordError, match="bins"):
        grid_means(torch.zeros(1, 2, 3, 3), 0)


def test_the_vectors_order_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]]])
    assert spatial_pyramid_pool(features, (2, 1)).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 4, 8]]
    assert spatial_pyramid_pool(features, (1,), "mean").tolist() == [[2.5, 6.5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first_centre", [0.5, 7.5])
def test_regions_equal_the_loops(first_centre: float, mode: str, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(1)
    features = torch.randn(2, 3, 9, 12, generator=g).to(dtype)
    corner, size = torch.rand(12, 2, generator=g) * 150 - 20, torch.rand(12, 2, generator=g) * 120
    rois = torch.cat([torch.randint(0, 2, (12, 1), generator=g), corner, corner + size], dim=1)
    rois[:4, 1:] = (
        rois[:4, 1:] / 16
    ).round() * 16 + first_centre  # exactly at centres: strictly inside leaves them out
    special = torch.tensor([[0.0, 500, 500, 600, 600], [1, 40, 40, 41, 41], [1, 0, 0, 192, 144], [0, 90, 90, 20, 30]])
    rois = torch.cat([rois, special])
    levels = (1, 3, 4)
    got = spatial_pyramid_pool_regions(features, rois, 16, levels, mode, first_centre)
    wanted = []
    for picture, x1, y1, x2, y2 in rois.tolist():
        left, right = naive_span(x1, x2, 16, first_centre, 12)
        top, bottom = naive_span(y1, y2, 16, first_centre, 9)
        wanted.append(naive_vector(features[int(picture), :, top : bottom + 1, left : right + 1], levels, mode))
    torch.testing.assert_close(got.double(), torch.tensor(wanted).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_region_that_is_the_whole_picture_is_the_whole_map(mode: str) -> None:
    features = torch.randn(1, 4, 9, 12, generator=torch.Generator().manual_seed(2))
    whole = [torch.tensor([[0.0, 0, 192, 144]])]
    torch.testing.assert_close(
        spatial_pyramid_pool_regions(features, whole, 16, mode=mode), spatial_pyramid_pool(features, mode=mode)
    )


def test_the_papers_rule_by_hand() -> None:
    # floor(33 / 16) + 1 = 3 to ceil(80 / 16) - 1 = 4 across; floor(16 / 16) + 1 = 2 to ceil(49 / 16) - 1 = 3 down.
    features = torch.arange(64.0).view(1, 1, 8, 8)
    got = spatial_pyramid_pool_regions(features, [torch.tensor([[33.0, 16, 80, 49]])], 16, (2,), first_centre=0)
    assert got.tolist() == [[2 * 8 + 3, 2 * 8 + 4, 3 * 8 + 3, 3 * 8 + 4]]


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode: str) -> None:
    g = torch.Generator().manual_seed(3)
    # All values differ by more than the step of the numeric derivative.
    features = torch.randperm(2 * 2 * 6 * 7, generator=g).double().view(2, 2, 6, 7).requires_grad_()
    rois = torch.tensor([[0.0, 10, 10, 70, 60], [1, -20, 30, 50, 90], [0, 40, 40, 41, 41]])

    def vectors(f: torch.Tensor) -> torch.Tensor:
        return spatial_pyramid_pool_regions(f, rois, 16, (1, 2, 3), mode)

    assert torch.autograd.gradcheck(vectors, (features,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda f: spatial_pyramid_pool(f, (1, 4), mode), (features,), fast_mode=True)
    single = features.detach().float().requires_grad_()
    (wanted,) = torch.autograd.grad(vectors(features).sum(), features)
    (got,) = torch.autograd.grad(vectors(single).sum(), single)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5)


def test_layouts_precisions_and_no_region() -> None:
    features = torch.randn(2, 4, 9, 12, generator=torch.Generator().manual_seed(4))
    rois = torch.tensor([[0.0, 10, 10, 70, 60], [1, 20, 30, 150, 90]])
    wanted = spatial_pyramid_pool_regions(features, rois, 16)
    last = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(spatial_pyramid_pool_regions(last, rois, 16), wanted)
    wide = torch.stack([features, features], dim=-1).flatten(3)[..., ::2]
    assert torch.equal(spatial_pyramid_pool_regions(wide, rois, 16), wanted)
    low = spatial_pyramid_pool_regions(features.half(), rois, 16)
    assert torch.equal(low, spatial_pyramid_pool_regions(features.half().float(), rois, 16).half())
    assert spatial_pyramid_pool_regions(features, [torch.zeros(0, 4)] * 2, 16).shape == (0, 200)
    odd = torch.tensor([[0, math.nan, 0, 5, 5], [0, 0, 0, math.inf, math.inf]])
    assert spatial_pyramid_pool_regions(features, odd, 16).isfinite().all()


def test_what_does_not_fit_is_an_error() -> None:
    features = torch.zeros(1, 2, 3, 3)
    with pytest.raises(RecordError, match="positive numbers of bins"):
        spatial_pyramid_pool(features, ())
    with pytest.raises(RecordError, match="positive numbers of bins"):
        spatial_pyramid_pool_regions(features, [torch.zeros(1, 4)], 16, (1, 0))
    with pytest.raises(RecordError, match="at least one pixel"):
        spatial_pyramid_pool(features[:, :, :0])
    with pytest.raises(RecordError, match="above 0"):
        spatial_pyramid_pool_regions(features, [torch.zeros(1, 4)], 0)
    with pytest.raises(Exception, match=r'"max" or "mean"|Type-check'):
        spatial_pyramid_pool(features, (1,), "median")
