import math

import pytest
import torch

from bestiary import ops
from bestiary.errors import RecordError
from bestiary.ops import region_pooling, regions
from bestiary.ops.region_modules import MultiScaleRoIAlign, RoIAlign
from bestiary.ops.region_pooling import Sampling, pool_forward
from bestiary.ops.rois import region_rows


def bilinear(plane: list[list[float]], y: float, x: float) -> float:
    height, width = len(plane), len(plane[0])
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = plane[y0][x0] * (x0 + 1 - x) + plane[y0][x1] * (x - x0)
    bottom = plane[y1][x0] * (x0 + 1 - x) + plane[y1][x1] * (x - x0)
    return top * (y0 + 1 - y) + bottom * (y - y0)


def naive_roi_align(
    features: torch.Tensor, rois: torch.Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> torch.Tensor:
    """One loop for each index of the definition, in double precision."""
    out = torch.zeros(len(rois), features.shape[1], *size, dtype=torch.float64)
    for r, (picture, *box) in enumerate(rois.double().tolist()):
        x1, y1, x2, y2 = (v * scale - (0.5 if aligned else 0) for v in box)
        w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        bin_h, bin_w = h / size[0], w / size[1]
        grid_h, grid_w = (ratio, ratio) if ratio > 0 else (math.ceil(bin_h), math.ceil(bin_w))
        for c in range(features.shape[1]):
            plane = features[int(picture), c].double().tolist()
            for by in range(size[0]):
                for bx in range(size[1]):
                    total = 0.0
                    for iy in range(grid_h):
                        for ix in range(grid_w):
                            y = y1 + by * bin_h + (iy + 0.5) * bin_h / grid_h
                            x = x1 + bx * bin_w + (ix + 0.5) * bin_w / grid_w
                            total += bilinear(plane, y, x)
                    out[r, c, by, bx] = total / max(1, grid_h * grid_w)
    return out


def features_and_rois(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures of 3 channels; regions inside, across borders, outside, tiny, empty and inverted. Stride 4."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, 9, 12, generator=g)
    corner, size = torch.rand(12, 2, generator=g) * 44 - 6, torch.rand(12, 2, generator=g) * 40
    picture = torch.randint(0, 2, (12, 1), generator=g).float()
    special = [
        [0.0, 0, 0, 48, 36],
        [1, -30, -30, 90, 80],
        [0, 100, 100, 120, 120],
        [1, 20, 20, 20, 20],
        [0, 30, 30, 10, 20],
        [1, 47.9, 35.9, 48, 36],
    ]
    return features, torch.cat([torch.cat([picture, corner, corner + size], dim=1), torch.tensor(special)])


CASES = [(2, False), (2, True), (-1, False), (-1, True), (1, False), (3, True)]


@pytest.mark.parametrize(("ratio", "aligned"), CASES)
def test_kernel_equals_the_loops_of_the_definition(ratio: int, aligned: bool) -> None:
    features, rois = features_and_rois()
    got = ops.roi_align(features, rois, (3, 2), 0.25, ratio, aligned)
    wanted = naive_roi_align(features, rois, (3, 2), 0.25, ratio, aligned)
    # Coordinates reach 23 pixels, where float32 has steps of 2e-6; neighbouring values differ by up to 5.
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("ratio", "aligned"), CASES)
def test_plain_torch_path_equals_the_loops_of_the_definition(ratio: int, aligned: bool) -> None:
    features, rois = features_and_rois(1)
    got = ops.roi_align(features.double(), rois.double(), (3, 2), 0.25, ratio, aligned)
    wanted = naive_roi_align(features, rois, (3, 2), 0.25, ratio, aligned)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ratio", "aligned"), CASES)
def test_gradcheck_in_double_precision(ratio: int, aligned: bool) -> None:
    features, rois = features_and_rois(2)
    features = features[:, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: ops.roi_align(f, rois.double(), (2, 3), 0.25, ratio, aligned), (features,), fast_mode=True
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("ratio", "aligned"), CASES)
def test_kernel_gradient_equals_the_plain_one(ratio: int, aligned: bool, last: bool) -> None:
    features, rois = features_and_rois(3)
    if last:
        features = features.contiguous(memory_format=torch.channels_last)
    kernel, plain = features.requires_grad_(), features.detach().double().requires_grad_()
    got = ops.roi_align(kernel, rois, 3, 0.25, ratio, aligned)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(0))
    (got * weight).sum().backward()
    (ops.roi_align(plain, rois.double(), 3, 0.25, ratio, aligned) * weight.double()).sum().backward()
    assert kernel.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(kernel.grad.double(), plain.grad, rtol=0, atol=1e-5)
    assert kernel.grad.stride() == kernel.stride()


def test_a_linear_ramp_is_read_at_the_exact_bin_centres() -> None:
    # f(x) = x at pixel indices; with the half-pixel shift, index = coordinate - 1/2.
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    got = ops.roi_align(ramp, [torch.tensor([[2.3, 3.0, 12.3, 13.0]])], 5, 1.0, 2, True)
    centres = 2.3 + 2.0 * (torch.arange(5) + 0.5) - 0.5
    torch.testing.assert_close(got[0, 0, 0], centres)


def test_hand_worked_two_by_two() -> None:
    # One bin over [0.5, 1.5]^2, one sample at its middle (1, 1): when aligned, that is index 0.5, the mean.
    square = torch.tensor([[[[1.0, 2], [3, 4]]]])
    box = [torch.tensor([[0.5, 0.5, 1.5, 1.5]])]
    assert ops.roi_align(square, box, 1, 1.0, 1, True).item() == 2.5
    assert ops.roi_align(square, box, 1, 1.0, 1, False).item() == 4.0


def test_samples_beyond_one_pixel_outside_count_as_zero_and_nearer_ones_as_the_border() -> None:
    ones = torch.ones(1, 1, 4, 4)

    def at(x: float) -> float:
        return ops.roi_align(ones, [torch.tensor([[x - 0.5, 1.0, x + 0.5, 2.0]])], 1, 1.0, 1, False).item()

    assert [at(-1.0), at(-1.01), at(4.0), at(4.01)] == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("ratio", [2, -1])
def test_channels_last_gives_the_same_numbers_in_its_own_layout(ratio: int) -> None:
    features, rois = features_and_rois(4)
    last = features.contiguous(memory_format=torch.channels_last)
    a, b = ops.roi_align(features, rois, (3, 2), 0.25, ratio), ops.roi_align(last, rois, (3, 2), 0.25, ratio)
    assert torch.equal(a, b)
    assert a.is_contiguous()
    assert b.is_contiguous(memory_format=torch.channels_last)


def test_half_precision_is_computed_in_float32() -> None:
    features, rois = features_and_rois(5)
    low = features.to(torch.bfloat16).requires_grad_()
    got = ops.roi_align(low, rois, 3, 0.25, 2)
    assert torch.equal(got, ops.roi_align(low.detach().float(), rois, 3, 0.25, 2).to(torch.bfloat16))
    got.float().sum().backward()
    assert low.grad is not None
    assert low.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("thinnest", [1, 2, 4])
def test_gradient_does_not_depend_on_how_the_map_is_cut_into_bands(
    thinnest: int, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, rois = features_and_rois(4)
    layout = torch.channels_last if last else torch.contiguous_format
    features = features.contiguous(memory_format=layout).requires_grad_()
    out = ops.roi_align(features, rois, 3, 0.25, 2)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    (whole,) = torch.autograd.grad(out, features, weight, retain_graph=True)
    monkeypatch.setattr(region_pooling, "_BAND_BYTES", 1)
    monkeypatch.setattr(region_pooling, "_THINNEST_BAND", thinnest)
    (cut,) = torch.autograd.grad(out, features, weight)
    assert whole.any()
    assert torch.equal(cut, whole)


def test_gradient_is_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_pooling, "_BAND_BYTES", 1)  # else this map would be one band, and one thread's work
    monkeypatch.setattr(region_pooling, "_THINNEST_BAND", 3)
    g = torch.Generator().manual_seed(0)
    features = torch.randn(1, 192, 20, 30, generator=g, requires_grad=True)
    corner = torch.rand(300, 2, generator=g) * 20
    boxes = [torch.cat([corner, corner + torch.rand(300, 2, generator=g) * 15], dim=1)]
    before, grads, outs = torch.get_num_threads(), [], []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            out = ops.roi_align(features, boxes, 7, 1.0, 2)
            outs.append(out.detach())
            grads.append(torch.autograd.grad(out.square().sum(), features)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(grads[0], x) for x in grads[1:])
    assert all(torch.equal(outs[0], x) for x in outs[1:])


def test_boxes_of_pictures_equal_rows_with_indices_and_none_is_legal() -> None:
    features, rois = features_and_rois(6)
    rois = rois[rois[:, 0].sort(stable=True).indices]
    listed = [rois[rois[:, 0] == i, 1:] for i in range(2)]
    assert torch.equal(ops.roi_align(features, listed, 2, 0.25), ops.roi_align(features, rois, 2, 0.25))
    nothing = ops.roi_align(features.requires_grad_(), [torch.zeros(0, 4)] * 2, 7)
    assert nothing.shape == (0, 3, 7, 7)
    nothing.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regions_that_are_not_finite_give_zeros_and_no_crash(dtype: torch.dtype) -> None:
    features = torch.ones(1, 2, 5, 5, dtype=dtype)
    boxes = torch.tensor([[float("nan"), 0, 3, 3], [0, 0, float("inf"), 3], [0, 0, 3, 3]], dtype=dtype)
    for ratio in (2, -1):
        out = ops.roi_align(features, [boxes], 2, 1.0, ratio)
        assert not out[:2].any()
        assert (out[2] == 1).all()


def test_a_region_of_no_picture_is_an_error() -> None:
    features, rois = features_and_rois()
    rois[3, 0] = 2
    with pytest.raises(RecordError, match="pictures 0 to 2, wanted indices below 2"):
        ops.roi_align(features, rois, 3)
    with pytest.raises(RecordError, match="boxes of 1 pictures"):
        ops.roi_align(features, [rois[:, 1:]], 3)
    with pytest.raises(RecordError, match="positive numbers of bins"):
        ops.roi_align(features, rois, 0)


def test_the_papers_sizes_choose_the_papers_levels() -> None:
    sides = torch.tensor([10.0, 111.9, 112, 223.9, 224, 447.9, 448, 2000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert ops.assign_levels(boxes, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    flat = torch.tensor([[0.0, 0, 448, 112], [5, 5, 5, 5]])  # sqrt(448 * 112) = 224; an empty box goes to the finest
    assert ops.assign_levels(flat, 4).tolist() == [2, 0]
    assert ops.assign_levels(torch.zeros(0, 4), 4).shape == (0,)


def pyramid(seed: int = 0) -> tuple[list[torch.Tensor], tuple[int, ...], list[torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    strides = (4, 8, 16, 32)
    features = [torch.randn(2, 5, 512 // s, 640 // s, generator=g) for s in strides]
    boxes = []
    for count in (17, 9):
        corner = torch.rand(count, 2, generator=g) * 300
        boxes.append(torch.cat([corner, corner + torch.rand(count, 2, generator=g).mul(3.2).add(3.5).exp()], dim=1))
    return features, strides, boxes


def test_pyramid_equals_each_region_on_its_own_map() -> None:
    features, strides, boxes = pyramid()
    got = ops.multiscale_roi_align(features, strides, boxes, 7)
    rois = region_rows(boxes, features[0], "")
    levels = ops.assign_levels(rois[:, 1:], 4)
    assert set(levels.tolist()) == {0, 1, 2, 3}
    for row, level in enumerate(levels.tolist()):
        alone = ops.roi_align(features[level], rois[row : row + 1], 7, 1 / strides[level], 2)
        assert torch.equal(got[row : row + 1], alone)


def test_pyramid_in_exported_form_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    features, strides, boxes = pyramid(1)
    leaves = [f.requires_grad_() for f in features]
    got = ops.multiscale_roi_align(leaves, strides, boxes, 3)
    grads = torch.autograd.grad(got.square().sum(), leaves)
    monkeypatch.setattr(regions, "exporting", lambda: True)
    same = ops.multiscale_roi_align(leaves, strides, boxes, 3)
    assert torch.equal(got, same)
    for a, b in zip(grads, torch.autograd.grad(same.square().sum(), leaves), strict=True):
        torch.testing.assert_close(a, b)
        assert a.any()


def test_pyramid_needs_a_stride_a_map_and_equal_channels() -> None:
    features, strides, boxes = pyramid()
    with pytest.raises(RecordError, match="3 for 4 maps"):
        ops.multiscale_roi_align(features, strides[:3], boxes, 7)
    with pytest.raises(Exception, match=r"equal B and C|type-check"):
        ops.multiscale_roi_align([features[0][:, :3], *features[1:]], strides, boxes, 7)


def test_compiled_whole_with_gradients(unchecked: None) -> None:
    features, strides, boxes = pyramid(2)
    leaves = [f.requires_grad_() for f in features]

    def pooled(features: list[torch.Tensor], boxes: list[torch.Tensor]) -> torch.Tensor:
        one = ops.roi_align(features[0], boxes, 3, 0.25, 2)
        return (one + ops.multiscale_roi_align(features, strides, boxes, 3)).square().sum()

    compiled = torch.compile(pooled, fullgraph=True, backend="aot_eager")
    wanted = torch.autograd.grad(pooled(leaves, boxes), leaves)
    for a, b in zip(torch.autograd.grad(compiled(leaves, boxes), leaves), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_operators_are_well_formed(unchecked: None) -> None:
    features, rois = features_and_rois()
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = features.contiguous(memory_format=layout).requires_grad_()
        torch.library.opcheck(regions._roi_align, (leaf, rois, 0.25, 3, 2, 2, False))
    levels = torch.arange(len(rois)) % 2
    maps = [features.detach().requires_grad_(), torch.randn(2, 3, 5, 6, requires_grad=True)]
    torch.library.opcheck(regions._multiscale_roi_align, (maps, rois, levels, [0.25, 0.125], 3, 2, 2, False))


def test_plain_path_in_small_parts_equals_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from bestiary.ops import region_pooling

    features, rois = features_and_rois(7)
    outs = []
    for most in (1 << 22, 200):
        monkeypatch.setattr(region_pooling, "_TAPS_AT_ONCE", most)
        outs.append(pool_forward([features.double()], rois.double(), None, [0.25], (2, 2), Sampling(-1, False)))
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-14)


def test_the_batch_stays_free_in_an_exported_graph(unchecked: None) -> None:
    class Pool(torch.nn.Module):
        def forward(
            self, fine: torch.Tensor, coarse: torch.Tensor, rois: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            many = ops.multiscale_roi_align([fine, coarse], (4, 8), rois, 3)
            return ops.roi_align(fine, rois, 3, 0.25, 2), many

    features, rois = features_and_rois(8)
    inputs = (features, torch.randn(2, 3, 5, 6), rois)
    batch, regions_ = torch.export.Dim("batch"), torch.export.Dim("regions")
    exported = torch.export.export(Pool(), inputs, dynamic_shapes=({0: batch}, {0: batch}, {0: regions_}))
    more = (torch.cat([features, features]), torch.randn(4, 3, 5, 6), rois[:7] + torch.tensor([2.0, 0, 0, 0, 0]))
    for a, b in zip(exported.module()(*more), Pool()(*more), strict=True):
        assert torch.equal(a, b)


def test_modules_are_the_functions_with_their_settings() -> None:
    features, rois = features_and_rois(9)
    assert torch.equal(
        RoIAlign((3, 2), 0.25, 2, True)(features, rois), ops.roi_align(features, rois, (3, 2), 0.25, 2, True)
    )
    assert "aligned=True" in repr(RoIAlign(3, 0.25, 2, True))
    assert "canonical_level=4" in repr(MultiScaleRoIAlign(["0"], 7, 2))


def test_torchvisions_multiscale_numbers_and_strides() -> None:
    # torchvision 0.28. The picture of 64 x 60 was padded to 64 x 64: the strides are 4 and 8 all the same.
    maps = {
        "0": torch.arange(16 * 16.0).reshape(1, 1, 16, 16) * 3 % 17,
        "1": torch.arange(64.0).reshape(1, 1, 8, 8) * 5 % 13,
        "pool": torch.ones(1, 1, 4, 4),
    }
    boxes = [torch.tensor([[1.0, 2, 20, 30], [0, 0, 60, 62], [10, 12, 50, 54]])]
    module = MultiScaleRoIAlign(["0", "1"], 2, 2, canonical_scale=32, canonical_level=3)
    wanted = [
        [7.955078, 5.102539, 6.967773, 9.029297],
        [5.479004, 6.163574, 8.6875, 5.296875],
        [5.524414, 5.875, 5.34375, 6.46875],
    ]
    torch.testing.assert_close(module(maps, boxes, [(64, 60)]).flatten(1), torch.tensor(wanted), rtol=0, atol=2e-6)
    with pytest.raises(RecordError, match="some of"):
        module({"2": maps["0"]}, boxes, [(64, 64)])
    with pytest.raises(RecordError, match="each twice the one before"):
        module({"0": maps["0"], "1": maps["pool"]}, boxes, [(64, 64)])
