import math

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from bestiary.errors import RecordError
from bestiary.ops import window_pooling
from bestiary.ops.region_modules import RoIPool
from bestiary.ops.roi_pool import _rounded, roi_pool, rounded_edges


def away_from_zero(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def naive_roi_pool(
    features: torch.Tensor, rois: torch.Tensor, size: tuple[int, int], scale: float
) -> tuple[torch.Tensor, dict[tuple[int, ...], tuple[int, ...]]]:
    """One loop for each index of the definition; also which pixel each bin's value came from."""
    channels, height, width = features.shape[1:]
    out = torch.zeros(len(rois), channels, *size, dtype=features.dtype)
    origin = {}
    for r, (picture, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (away_from_zero(v * scale) for v in box)
        rows, columns = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for c in range(channels):
            for by in range(size[0]):
                for bx in range(size[1]):
                    best = None
                    for y in range(y1 + by * rows // size[0], y1 - -(by + 1) * rows // size[0]):
                        for x in range(x1 + bx * columns // size[1], x1 - -(bx + 1) * columns // size[1]):
                            inside = 0 <= y < height and 0 <= x < width
                            if inside and (best is None or features[int(picture), c, y, x] > best):
                                best = features[int(picture), c, y, x]
                                origin[r, c, by, bx] = (int(picture), c, y, x)
                    out[r, c, by, bx] = 0 if best is None else best
    return out, origin


def features_and_rois(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures of 3 channels with many equal values; regions at halves of a pixel, outside, inverted. Stride 4."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randint(-4, 5, (2, 3, 9, 12), generator=g).float()
    corner, size = torch.randint(-4, 20, (10, 2), generator=g) * 2.0, torch.randint(0, 20, (10, 2), generator=g) * 2.0
    picture = torch.randint(0, 2, (10, 1), generator=g).float()
    special = [[0.0, 0, 0, 47, 35], [1, -30, -30, 90, 80], [0, 100, 100, 120, 120], [1, 30, 30, 10, 20]]
    return features, torch.cat([torch.cat([picture, corner, corner + size], dim=1), torch.tensor(special)])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(3, 2), (1, 1), (4, 5)])
def test_values_and_their_origins_are_those_of_the_loops(size: tuple[int, int], dtype: torch.dtype, last: bool) -> None:
    features, rois = features_and_rois()
    wanted, origin = naive_roi_pool(features, rois, size, 0.25)
    layout = torch.channels_last if last else torch.contiguous_format
    leaf = features.to(dtype).contiguous(memory_format=layout).requires_grad_()
    got = roi_pool(leaf, rois, size, 0.25)
    assert torch.equal(got, wanted.to(dtype))
    assert got.is_contiguous(memory_format=layout)
    weight = torch.randint(-9, 10, got.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (grad,) = torch.autograd.grad(got, leaf, weight)
    by_hand = torch.zeros_like(features)
    for bin_, pixel in origin.items():
        by_hand[pixel] += weight[bin_].float()
    assert torch.equal(grad.float(), by_hand)  # small integers: every sum is exact
    assert grad.stride() == leaf.stride()


def test_torchvisions_numbers() -> None:
    # torchvision 0.28: ties, corners at halves, regions across the border, outside and inverted.
    features = (torch.arange(48.0).reshape(1, 1, 6, 8) * 7 % 11).requires_grad_()
    rois = torch.tensor(
        [
            [0, 0, 0, 7, 5],
            [0, 2.5, 1.5, 4.5, 3.5],
            [0, -3, -2, 3, 9],
            [0, 20, 20, 30, 30],
            [0, 5, 4, 1, 1],
            [0, 3, 2, 3, 2],
        ]
    )
    got = roi_pool(features, rois, (2, 3), 1.0)
    assert got.flatten(1).tolist() == [
        [9, 10, 10, 10, 10, 10],
        [2, 9, 5, 3, 10, 6],
        [0, 10, 10, 0, 5, 8],
        [0, 0, 0, 0, 0, 0],
        [6, 6, 6, 6, 6, 6],
        [1, 1, 1, 1, 1, 1],
    ]
    (grad,) = torch.autograd.grad(got, features, torch.arange(1.0, 37).reshape(got.shape))
    assert grad[0, 0].tolist() == [
        [0, 0, 0, 17, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 3, 0],
        [0, 1, 0, 201, 0, 0, 0, 0],
        [0, 18, 0, 7, 8, 9, 0, 0],
        [0, 0, 0, 10, 16, 177, 0, 0],
        [17, 0, 18, 0, 0, 0, 0, 6],
    ]
    halves = roi_pool(features, rois, 2, 0.5).flatten(1).tolist()
    assert halves == [[8, 10, 10, 9], [8, 4, 9, 5], [2, 9, 5, 10], [0, 0, 0, 0], [1, 1, 1, 1], [4, 4, 4, 4]]


def test_onnx_runtime_agrees_inside_across_the_border_and_outside() -> None:
    g = torch.Generator().manual_seed(2)
    features = torch.randn(2, 4, 20, 26, generator=g)
    corner, size = torch.rand(80, 2, generator=g) * 120 - 20, torch.rand(80, 2, generator=g) * 60
    rois = torch.cat([torch.randint(0, 2, (80, 1), generator=g), corner, corner + size], dim=1)
    node = helper.make_node("MaxRoiPool", ["x", "rois"], ["y"], pooled_shape=[5, 7], spatial_scale=0.25)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "rois", "y")]
    graph = helper.make_graph([node], "one", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": features.numpy(), "rois": rois.numpy()})
    np.testing.assert_array_equal(roi_pool(features, rois, (5, 7), 0.25).numpy(), wanted)


def test_one_bin_a_pixel_gives_the_map_back() -> None:
    features = torch.randn(1, 5, 6, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(roi_pool(features, [torch.tensor([[0.0, 0, 7, 5]])], (6, 8)), features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_halves_round_away_from_zero_and_just_below_does_not(dtype: torch.dtype) -> None:
    below = torch.nextafter(torch.tensor(0.5, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    values = torch.stack([below, -below, *torch.tensor([0.5, -0.5, 1.5, 2.5, -2.5, 0.0], dtype=dtype)])
    assert _rounded(values).tolist() == [0, 0, 1, -1, 2, 3, -3, 0]


def test_gradcheck_in_double_precision() -> None:
    _, rois = features_and_rois(4)
    # All values differ by more than the step of the numeric derivative.
    features = torch.randperm(2 * 2 * 9 * 12, generator=torch.Generator().manual_seed(4)).double().view(2, 2, 9, 12)
    leaf = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: roi_pool(f, rois, (2, 3), 0.25), (leaf,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nan_shows_and_takes_its_gradient_and_infinities_count(dtype: torch.dtype) -> None:
    features = torch.full((1, 1, 2, 4), -math.inf, dtype=dtype)
    features[0, 0, 1, 1] = math.nan
    features.requires_grad_()
    got = roi_pool(features, [torch.tensor([[0.0, 0, 3, 1]], dtype=dtype)], (1, 2))
    assert got[0, 0, 0, 0].isnan()
    assert got[0, 0, 0, 1] == -math.inf
    (grad,) = torch.autograd.grad(got.sum(), features)
    assert grad[0, 0].tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regions_that_are_not_finite_or_far_away_give_zeros(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[math.nan, 0, 3, 3], [0, 0, math.inf, 3], [1e30, 0, 2e30, 3], [0, 0, 3, 3]], dtype=dtype)
    got = roi_pool(torch.ones(1, 2, 5, 5, dtype=dtype), [boxes], 2)
    assert not got[:3].any()
    assert (got[3] == 1).all()


def test_half_precision_is_exact() -> None:
    features, rois = features_and_rois(5)
    low = features.half().requires_grad_()
    got = roi_pool(low, rois, 3, 0.25)
    assert torch.equal(got.float(), roi_pool(features, rois, 3, 0.25))
    got.sum().backward()
    assert low.grad is not None
    assert low.grad.dtype == torch.float16


def test_no_region_and_no_channel_are_legal() -> None:
    features = torch.randn(2, 3, 5, 6, requires_grad=True)
    got = roi_pool(features, [torch.zeros(0, 4)] * 2, 7)
    assert got.shape == (0, 3, 7, 7)
    (grad,) = torch.autograd.grad(got.sum(), features)
    assert not grad.any()
    assert roi_pool(features[:, :0], torch.tensor([[0.0, 0, 0, 3, 3]]), 2).shape == (1, 0, 2, 2)


def test_non_contiguous_maps_and_any_number_of_threads_give_the_same() -> None:
    g = torch.Generator().manual_seed(6)
    wide = torch.randn(1, 300, 20, 60, generator=g)
    features = wide[:, ::2, :, ::2].requires_grad_()
    corner = torch.rand(200, 2, generator=g) * 20
    boxes = [torch.cat([corner, corner + torch.rand(200, 2, generator=g) * 15], dim=1)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = roi_pool(features, boxes, 7)
            results.append((out.detach(), torch.autograd.grad(out.square().sum(), features)[0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], roi_pool(features.detach().contiguous(), boxes, 7))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_what_does_not_fit_is_an_error() -> None:
    features, rois = features_and_rois()
    rois[3, 0] = -1
    with pytest.raises(RecordError, match="pictures -1 to 1, wanted indices below 2"):
        roi_pool(features, rois, 3)
    with pytest.raises(RecordError, match="boxes of 1 pictures"):
        roi_pool(features, [rois[:, 1:]], 3)
    with pytest.raises(RecordError, match="positive numbers of bins"):
        roi_pool(features, rois, (3, 0))


def test_module_compiled_and_exported(unchecked: None) -> None:
    features, rois = features_and_rois(7)
    leaf, module = features.requires_grad_(), RoIPool((3, 2), 0.25)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    wanted = module(leaf, rois)
    torch.testing.assert_close(compiled(leaf, rois), wanted)
    grads = [torch.autograd.grad(f(leaf, rois).square().sum(), leaf)[0] for f in (module, compiled)]
    torch.testing.assert_close(grads[0], grads[1])
    batch, regions = torch.export.Dim("batch"), torch.export.Dim("regions")
    inputs = (features.detach(), rois)
    exported = torch.export.export(module, inputs, dynamic_shapes=({0: batch}, {0: regions}))
    assert torch.ops.bestiary.roi_pool.default in {node.target for node in exported.graph.nodes}
    more = torch.cat([features, features]).detach()
    assert torch.equal(exported.module()(more, rois[:5]), module(more, rois[:5]))
    assert "spatial_scale=0.25" in repr(module)


def test_operators_are_well_formed(unchecked: None) -> None:
    features, rois = features_and_rois()
    rows = rounded_edges(rois[:, 2], rois[:, 4], 0.25, 2, 9, 1)
    columns = rounded_edges(rois[:, 1], rois[:, 3], 0.25, 3, 12, 1)
    windows = (rois[:, 0].long(), rows, columns)
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = features.contiguous(memory_format=layout).requires_grad_()
        torch.library.opcheck(window_pooling._max_in_windows, (leaf, *windows))
        torch.library.opcheck(window_pooling._mean_in_windows, (leaf, *windows, False))
