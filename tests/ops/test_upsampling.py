import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bestiary.errors import RecordError, UsageError
from bestiary.ops.upsampling import (
    Method,
    bilinear_filler,
    icnr_,
    resize_convolution,
    sub_pixel,
    upsample,
    upsample_bilinear_transposed,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def keys(t: float, a: float = -0.75) -> float:
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def line_by_loops(line: list[float], size: int, method: str, align_corners: bool) -> list[float]:
    """One row of numbers at another length, from the convention as it is written."""
    n = len(line)
    out = []
    for i in range(size):
        if method == "nearest":
            out.append(line[math.floor(i * n / size)])
            continue
        if method == "nearest-exact":
            out.append(line[min(n - 1, math.floor((i + 0.5) * n / size))])
            continue
        at = i * (n - 1) / (size - 1) if align_corners else (i + 0.5) * n / size - 0.5
        if method == "linear":
            at = min(max(at, 0), n - 1)
            low = min(int(at), n - 1)
            out.append(line[low] * (low + 1 - at) + line[min(low + 1, n - 1)] * (at - low))
        else:
            low = math.floor(at)
            out.append(sum(line[min(max(low + k, 0), n - 1)] * keys(at - low - k) for k in (-1, 0, 1, 2)))
    return out


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [3, 4, 7, 8, 13])
@pytest.mark.parametrize("method", ["nearest", "nearest-exact", "linear", "cubic"])
def test_both_axes_by_loops(method: Method, size: int, align_corners: bool) -> None:
    if align_corners and method.startswith("nearest"):
        return
    plane = random(4, 5)
    rows = [line_by_loops(row, size, method, align_corners) for row in plane.tolist()]
    columns = [line_by_loops(list(column), size + 1, method, align_corners) for column in zip(*rows, strict=True)]
    got = upsample(plane[None, None], size=(size + 1, size), method=method, align_corners=align_corners)
    torch.testing.assert_close(got[0, 0].T, torch.tensor(columns, dtype=torch.float64), rtol=0, atol=1e-12)


def test_one_and_three_axes() -> None:
    assert upsample(torch.tensor([[[0.0, 1]]]), 2).tolist() == [[[0, 0.25, 0.75, 1]]]
    assert upsample(torch.tensor([[[0.0, 1]]]), size=3, align_corners=True).tolist() == [[[0, 0.5, 1]]]
    cube = random(1, 1, 2, 3, 4)
    got = upsample(cube, 2)
    flat = upsample(cube[0].mT.reshape(1, 8, 3), 2).view(1, 2, 4, 6).mT  # the middle axis alone
    wanted = F.interpolate(flat[None], scale_factor=(2, 1, 2), mode="trilinear")
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_factor_only_says_the_size() -> None:
    plane = random(1, 1, 5, 5)
    assert upsample(plane, 1.5).shape[2:] == (7, 7)
    assert torch.equal(upsample(plane, 1.5), upsample(plane, size=7))


def test_antialias_is_pillows() -> None:
    plane = random(40, 31).float()
    for method, kernel in (("linear", Image.Resampling.BILINEAR), ("cubic", Image.Resampling.BICUBIC)):
        got = upsample(plane[None, None], size=(13, 9), method=method, antialias=True)[0, 0]
        wanted = np.asarray(Image.fromarray(plane.numpy()).resize((9, 13), kernel))
        np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(2, 3, 15, 2), (5, 1, 15, 1), (1, 3, 15, 1), (2, 3, 9, 9)])
def test_antialias_to_one_column_in_any_layout(shape: tuple[int, ...]) -> None:
    maps = random(*shape)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = upsample(maps.contiguous(memory_format=layout), size=(6, 1), antialias=True)
        for b, c in np.ndindex(*shape[:2]):
            wanted = upsample(maps[b : b + 1, c : c + 1], size=(6, 1), antialias=True)
            torch.testing.assert_close(got[b : b + 1, c : c + 1], wanted, rtol=0, atol=1e-12)
    ramp = torch.arange(12.0).view(1, 1, 12, 1).expand(2, 3, 12, 4).contiguous(memory_format=torch.channels_last)
    assert upsample(ramp, size=(3, 1), antialias=True)[1, 2, 1, 0].item() == pytest.approx(5.5, abs=1e-5)


def test_half_precision_is_interpolated_in_float32() -> None:
    plane = random(1, 2, 6, 7).bfloat16()
    for method in ("linear", "cubic"):
        assert torch.equal(upsample(plane, 3, method=method), upsample(plane.float(), 3, method=method).bfloat16())


def test_filler_by_its_formula_and_its_sums() -> None:
    assert bilinear_filler(4, 1)[0, 0, 0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    assert bilinear_filler(3, 1)[0, 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    assert [bilinear_filler(k, 1).sum().item() for k in (4, 16, 64)] == [4, 64, 1024]
    dense, grouped = bilinear_filler(4, 6), bilinear_filler(4, 6, groups=6)
    assert dense.shape == (6, 6, 4, 4)
    assert torch.equal(dense[range(6), range(6)], grouped[:, 0])
    assert dense.sum() == grouped.sum() == 24
    assert bilinear_filler(4, 6, groups=2)[5, 2].sum() == 4
    assert bilinear_filler(4, 2, axes=1).shape == (2, 2, 4)
    with pytest.raises(RecordError, match="groups"):
        bilinear_filler(4, 6, groups=4)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_bilinear_transposed_convolution(factor: int) -> None:
    maps = random(2, 3, 5, 4)
    weight = bilinear_filler(2 * factor - factor % 2, 3, dtype=torch.float64)
    wanted = F.conv_transpose2d(maps, weight, stride=factor, padding=math.ceil((factor - 1) / 2))
    got = upsample_bilinear_transposed(maps, factor)
    assert got.shape == (2, 3, 5 * factor, 4 * factor)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(got[inner], upsample(maps, factor)[inner], rtol=0, atol=1e-12)


def test_odd_filler_without_a_crop_aligns_corners() -> None:
    """Kernel 3, stride 2, padding 1 goes to 2 n - 1, corner on corner."""
    maps = random(1, 1, 5, 6)
    got = F.conv_transpose2d(maps, bilinear_filler(3, 1, dtype=torch.float64), stride=2, padding=1)
    torch.testing.assert_close(got, upsample(maps, size=(9, 11), align_corners=True), rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("order", ["CRD", "DCR"])
def test_sub_pixel_by_loops(axes: int, order: str) -> None:
    r, size = 2, (3, 2, 4)[:axes]
    maps = random(2, 3 * r**axes, *size)
    got = sub_pixel(maps, r, order)  # type: ignore[arg-type]
    assert got.shape == (2, 3, *(n * r for n in size))
    for c in range(3):
        for at in np.ndindex(*got.shape[2:]):
            block = 0
            for a in at:
                block = block * r + a % r
            channel = c * r**axes + block if order == "CRD" else block * 3 + c
            assert torch.equal(got[(slice(None), c, *at)], maps[(slice(None), channel, *(a // r for a in at))])


def test_sub_pixel_after_a_convolution_is_a_transposed_one() -> None:
    """Kernel 3 on the small map, r² times the channels, is kernel 3 r at stride r, phases gathered (Shi, 2.2)."""
    maps, weight, r = random(1, 2, 5, 4), random(3 * 4, 2, 3, 3, seed=1), 2
    # Phase (i, j) of the transposed kernel, flipped, is the convolution of that sub-pixel.
    phases = weight.view(3, r, r, 2, 3, 3).flip(4, 5)
    kernel = phases.permute(3, 0, 4, 1, 5, 2).reshape(2, 3, 3 * r, 3 * r)
    got = sub_pixel(F.conv2d(maps, weight, padding=1), r)
    torch.testing.assert_close(got, F.conv_transpose2d(maps, kernel, stride=r, padding=r), rtol=0, atol=1e-12)


def test_icnr_starts_as_nearest_upsampling() -> None:
    weight = icnr_(torch.empty(12, 3, 3, 3), 2)
    assert weight.std() > 0.1
    maps = random(1, 3, 6, 5).float()
    got = sub_pixel(F.conv2d(maps, weight, padding=1), 2)
    wanted = upsample(F.conv2d(maps, weight[::4], padding=1), 2, method="nearest")
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert torch.equal(icnr_(torch.empty(4, 1, 1, 1), 2, torch.nn.init.ones_), torch.ones(4, 1, 1, 1))
    with pytest.raises(RecordError, match="multiple of 4"):
        icnr_(torch.empty(6, 1, 1, 1), 2)


def test_resize_convolution_reflects_and_keeps_constants() -> None:
    weight = random(2, 1, 3, 3)
    got = resize_convolution(torch.full((1, 1, 3, 4), 2.0, dtype=torch.float64), weight, factor=2)
    assert got.shape == (1, 2, 6, 8)
    torch.testing.assert_close(got, 2 * weight.sum((1, 2, 3)).view(1, 2, 1, 1).expand_as(got), rtol=0, atol=1e-12)
    maps, bias = random(1, 1, 3, 3), random(2)
    large = F.pad(maps.repeat_interleave(2, 2).repeat_interleave(2, 3), (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(
        resize_convolution(maps, weight, bias), F.conv2d(large, weight, bias), rtol=0, atol=1e-12
    )
    line = resize_convolution(random(1, 1, 5), random(1, 1, 5), factor=3, method="linear")
    assert line.shape == (1, 1, 15)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_gradcheck(method: Method) -> None:
    maps, weight = random(1, 4, 3, 4).requires_grad_(), random(2, 4, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: upsample(m, 2, method=method), (maps,))
    assert torch.autograd.gradcheck(lambda m, w: resize_convolution(m, w, method=method), (maps, weight))
    assert torch.autograd.gradcheck(lambda m: sub_pixel(upsample_bilinear_transposed(m, 3), 2, "DCR"), (maps,))


def test_layouts_and_empty() -> None:
    maps = random(2, 4, 5, 6).float()
    last = maps.contiguous(memory_format=torch.channels_last)
    for op in (lambda m: upsample(m, 2), lambda m: upsample_bilinear_transposed(m, 2), lambda m: sub_pixel(m, 2)):
        torch.testing.assert_close(op(last), op(maps), rtol=0, atol=1e-6)
        assert op(maps[:0]).shape == (0, *op(maps).shape[1:])


def test_what_does_not_fit(unchecked: None) -> None:
    maps = torch.zeros(1, 4, 4, 4)
    with pytest.raises(RecordError, match="one of the two"):
        upsample(maps)
    with pytest.raises(RecordError, match="one of the two"):
        upsample(maps, 2, 8)
    with pytest.raises(RecordError, match="above 0"):
        upsample(maps, 0)
    with pytest.raises(RecordError, match="at least 1"):
        upsample(maps, 0.1)
    with pytest.raises(UsageError, match="wanted one of"):
        upsample(maps, 2, method="lanczos")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="align_corners"):
        upsample(maps, 2, method="nearest", align_corners=True)
    with pytest.raises(UsageError, match="two spatial axes"):
        upsample(maps[0], 2, method="cubic")
    with pytest.raises(UsageError, match="two spatial axes"):
        upsample(maps[0], 2, antialias=True)
    with pytest.raises(RecordError, match="multiple of 9"):
        sub_pixel(maps, 3)
    with pytest.raises(UsageError, match="DCR"):
        sub_pixel(maps, 2, "RGB")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="odd sizes"):
        resize_convolution(maps, torch.zeros(1, 4, 2, 2))
    with pytest.raises(RecordError, match="reflects"):
        resize_convolution(maps[..., :1], torch.zeros(1, 4, 5, 5))
