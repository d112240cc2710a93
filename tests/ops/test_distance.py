import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bestiary.errors import RecordError
from bestiary.ops import distance
from bestiary.ops.distance import (
    border_weights,
    envelope_in_torch,
    euclidean_distance,
    min_envelope_1d,
    min_envelope_2d,
)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.3, 0.9, 0.99]), st.integers(0, 999))
def test_distances_equal_scipy(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    mask[seed % height, seed % width] = False
    got = euclidean_distance(torch.from_numpy(mask))
    assert np.array_equal(got.numpy(), ndimage.distance_transform_edt(mask).astype(np.float32))


def test_distances_equal_the_loops() -> None:
    mask = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.9
    got = euclidean_distance(mask)
    for index in np.ndindex(2, 3):
        outside = (~mask[index]).nonzero().tolist()
        for y, x in itertools.product(range(7), range(9)):
            wanted = min(((y - v) ** 2 + (x - u) ** 2) ** 0.5 for v, u in outside)
            assert got[index][y, x].item() == np.float32(wanted)


def test_one_pixel_in_a_large_picture_on_any_number_of_threads_and_layout() -> None:
    mask = torch.ones(300, 401).bool()
    mask[7, 390] = False
    wanted = torch.hypot(torch.arange(300.0)[:, None] - 7, torch.arange(401.0) - 390)
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            torch.testing.assert_close(euclidean_distance(mask), wanted)
            assert torch.equal(euclidean_distance(mask.t()), euclidean_distance(mask).t())
        finally:
            torch.set_num_threads(before)


def test_distances_of_everything_nothing_and_no_pixels() -> None:
    assert torch.isinf(euclidean_distance(torch.ones(3, 4).bool())).all()
    assert not euclidean_distance(torch.zeros(3, 4).bool()).any()
    assert euclidean_distance(torch.ones(0, 4).bool()).shape == (0, 4)
    assert euclidean_distance(torch.ones(0, 3, 4).bool()).shape == (0, 3, 4)


def brute_1d(costs: np.ndarray, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    p = np.arange(costs.shape[-1])
    step = p[:, None] - p[None]
    table = costs[..., None, :] + a * step**2 + b * step
    return table.min(-1), table.argmin(-1)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.floats(0.01, 5), st.floats(-3, 3), st.sampled_from([0.1, 1.0, 30.0]), st.integers(0, 999))
def test_envelopes_equal_all_pairs(length: int, a: float, b: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.normal(0, scale, (3, length))
    costs[1, rng.random(length) < 0.4] = np.inf
    got, sources = min_envelope_1d(torch.from_numpy(costs), a, b)
    wanted, places = brute_1d(costs, a, b)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-9, atol=1e-9)
    finite = np.isfinite(wanted)
    assert np.array_equal(sources.numpy()[finite], places[finite])
    coefficients = torch.full((3,), a, dtype=torch.float64), torch.full((3,), b, dtype=torch.float64)
    assert torch.equal(envelope_in_torch(torch.from_numpy(costs), *coefficients)[finite.any(1)], sources[finite.any(1)])


def test_ties_go_to_the_lowest_and_infinite_lines_stay() -> None:
    got, sources = min_envelope_1d(torch.tensor([[0.0, 5.0, 0.0], [torch.inf] * 3]), 1)
    assert got.tolist() == [[0, 1, 0], [torch.inf] * 3]
    assert sources.tolist() == [[0, 0, 2], [0, 0, 0]]


def test_of_an_indicator_the_envelope_is_the_squared_distance() -> None:
    mask = torch.rand(20, 31, generator=torch.Generator().manual_seed(1)) < 0.95
    costs = torch.where(mask, torch.inf, 0.0).double()
    got, sources = min_envelope_2d(costs, (1, 1))
    torch.testing.assert_close(got.sqrt().float(), euclidean_distance(mask))
    x, y = sources.unbind(-1)
    assert not mask[y, x].any()


def test_maps_equal_all_pairs_with_coefficients_of_their_own() -> None:
    g = torch.Generator().manual_seed(2)
    costs = torch.randn(4, 5, 6, generator=g, dtype=torch.float64)
    ax, ay = torch.rand(2, 4, generator=g, dtype=torch.float64) + 0.1
    bx, by = torch.randn(2, 4, generator=g, dtype=torch.float64)
    got, sources = min_envelope_2d(costs, (ax, ay), (bx, by))
    for n, py, px in np.ndindex(4, 5, 6):
        options = {
            (qx, qy): costs[n, qy, qx]
            + ax[n] * (px - qx) ** 2
            + ay[n] * (py - qy) ** 2
            + bx[n] * (px - qx)
            + by[n] * (py - qy)
            for qy in range(5)
            for qx in range(6)
        }
        best = min(options, key=lambda q: options[q])
        torch.testing.assert_close(got[n, py, px], options[best])
        assert tuple(sources[n, py, px].tolist()) == best


def test_gradients_flow_to_costs_and_coefficients() -> None:
    g = torch.Generator().manual_seed(3)
    costs = torch.randn(2, 4, 5, generator=g, dtype=torch.float64, requires_grad=True)
    a = (torch.rand(2, 2, generator=g, dtype=torch.float64) + 0.2).requires_grad_()
    b = torch.randn(2, 2, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, a, b: min_envelope_2d(c, (a[0], a[1]), (b[0], b[1]))[0], (costs, a, b))


def test_moving_a_part_costs_exactly_its_deformation() -> None:
    response = torch.full((9, 9), -1e6)
    response[4, 4] = 3.0
    score = -min_envelope_2d(-response, (0.1, 0.2), (0.05, 0.0))[0]
    assert score[4, 4].item() == 3
    assert score[4, 6].item() == pytest.approx(3 - 0.1 * 4 - 0.05 * 2)
    assert score[2, 4].item() == pytest.approx(3 - 0.2 * 4)


@pytest.mark.usefixtures("unchecked")
def test_bad_coefficients_and_shapes_are_named() -> None:
    with pytest.raises(RecordError, match="numbers above 0"):
        min_envelope_1d(torch.zeros(3), 0)
    with pytest.raises(RecordError, match="broadcasts to"):
        min_envelope_1d(torch.zeros(2, 3), torch.ones(5))
    with pytest.raises(RecordError, match=r"\(\.\.\., H, W\)"):
        min_envelope_2d(torch.zeros(3), (1, 1))
    half, _ = min_envelope_1d(torch.tensor([0.0, 9.0, 9.0]).half(), 1)
    assert half.dtype == torch.float16
    assert half.tolist() == [0, 1, 4]
    assert min_envelope_1d(torch.zeros(2, 0), 1)[0].shape == (2, 0)


def naive_border(cells: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    out = np.zeros(cells.shape)
    for y, x in np.argwhere(cells == 0):
        places = {n: np.argwhere(cells == n) - [y, x] for n in np.unique(cells) if n}
        near = sorted(np.sqrt((d**2).sum(1)).min() for d in places.values())
        if len(near) > 1:
            out[y, x] = w0 * np.exp(-((near[0] + near[1]) ** 2) / (2 * sigma**2))
    return out


def test_border_weights_equal_the_loops() -> None:
    rng = np.random.default_rng(4)
    cells = np.where(rng.random((25, 33)) < 0.05, rng.integers(1, 7, (25, 33)), 0)
    for sigma in (1.0, 5.0):
        got = border_weights(torch.from_numpy(cells), 10, sigma)
        np.testing.assert_allclose(got.numpy(), naive_border(cells, 10, sigma), rtol=1e-9, atol=1e-8)
    far_apart = torch.from_numpy(np.where(cells > 0, cells * 1_000_003, 0))
    assert torch.equal(border_weights(far_apart), border_weights(torch.from_numpy(cells)))


def test_border_weight_between_two_walls_is_the_equation() -> None:
    cells = torch.zeros(9, 12, dtype=torch.int32)
    cells[:, :4], cells[:, 7:] = 1, 2
    got = border_weights(cells, w0=10, sigma=5)
    torch.testing.assert_close(got[:, 4:7], torch.full((9, 3), 10 * np.exp(-16 / 50), dtype=torch.float64))
    assert not got[:, :4].any()
    assert not got[:, 7:].any()
    assert not border_weights((cells == 1).int()).any()
    assert border_weights(cells[:0]).shape == (0, 12)
    with pytest.raises(RecordError, match="sigma > 0"):
        border_weights(cells, sigma=0)
    with pytest.raises(RecordError, match="0 or more"):
        border_weights(-cells)


@pytest.mark.usefixtures("unchecked")
def test_compiled_graphs_are_whole_and_operators_registered_in_full() -> None:
    mask = torch.rand(11, 13, generator=torch.Generator().manual_seed(5)) < 0.8
    costs = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(6))

    def both(m: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return euclidean_distance(m), min_envelope_2d(c, (0.3, 0.4), (0.1, 0.0))[0]

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(mask, costs), both(mask, costs), strict=True):
        torch.testing.assert_close(got, wanted)
    torch.library.opcheck(distance._euclidean_distance, (mask,))
    torch.library.opcheck(distance._envelope, (costs, torch.ones(2, 6), torch.zeros(2, 6)))
