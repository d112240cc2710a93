"""BING against naive twins: gradients, bits, template, suppression; how far bits may be from the template; learning."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.proposals.proposal_scenes import recall, scene

from bestiary.data.dataset import load
from bestiary.errors import UsageError
from bestiary.proposals._kernels.bing import (
    binary_scores,
    exact_scores,
    halve_columns,
    halve_rows,
    normed_gradients,
    suppress,
)
from bestiary.proposals.bing import SIZES, Bing, axis_of, binarise
from bestiary.proposals.methods import build
from bestiary.training.fitting import Samples

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 256, (3, 21, 30)).astype(np.uint8)


def test_gradients_are_the_norms_of_the_strongest_channel() -> None:
    values = PLANES.astype(int)
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = np.abs(padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]).max(0)
    down = np.abs(padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]).max(0)
    across[:, [0, -1]] *= 2
    down[[0, -1]] *= 2
    np.testing.assert_array_equal(normed_gradients(PLANES), np.minimum(across + down, 255))


def test_halving_is_averaging_pairs() -> None:
    values = PLANES.astype(int)
    np.testing.assert_array_equal(halve_rows(PLANES), (values[:, 0:20:2] + values[:, 1:21:2] + 1) // 2)
    np.testing.assert_array_equal(halve_columns(PLANES), (values[:, :, 0::2] + values[:, :, 1::2] + 1) // 2)


def naive_scores(gradients: np.ndarray, weight: np.ndarray) -> np.ndarray:
    height, width = gradients.shape
    return np.array(
        [
            [float((gradients[y : y + 8, x : x + 8].ravel() * weight).sum()) for x in range(width - 7)]
            for y in range(height - 7)
        ]
    )


@pytest.mark.parametrize(("approximations", "bits"), [(1, 1), (2, 4), (3, 8)])
def test_bit_operations_are_the_approximated_template_on_coarse_gradients(approximations: int, bits: int) -> None:
    gradients, weight = normed_gradients(PLANES), RNG.normal(size=64).astype(np.float32)
    masks, factors = binarise(weight, approximations)
    rebuilt = np.zeros(64)
    for mask, factor in zip(masks.tolist(), factors.tolist(), strict=True):
        rebuilt += factor * np.array([1.0 if bit == "1" else -1.0 for bit in f"{mask:064b}"])
    coarse = gradients.astype(np.float64) // 2 ** (8 - bits) * 2 ** (8 - bits)
    found = binary_scores(gradients, masks, factors, bits)
    np.testing.assert_allclose(found, naive_scores(coarse, rebuilt), rtol=1e-5, atol=1e-2)


def test_the_template_as_it_is() -> None:
    gradients, weight = normed_gradients(PLANES), RNG.normal(size=(8, 8)).astype(np.float32)
    found = exact_scores(gradients, weight)
    np.testing.assert_allclose(found, naive_scores(gradients.astype(float), weight.ravel()), rtol=1e-4, atol=1e-2)


def test_bits_are_no_further_from_the_template_than_they_may() -> None:
    weight = RNG.normal(size=64).astype(np.float32)
    gradients = normed_gradients(PLANES)
    exact = naive_scores(gradients.astype(float), weight)
    last = np.inf
    for approximations in (1, 2, 4, 8):
        masks, factors = binarise(weight, approximations)
        signs = np.array([[1.0 if bit == "1" else -1.0 for bit in f"{mask:064b}"] for mask in masks.tolist()])
        rebuilt = factors.astype(np.float64) @ signs
        # Where a weight is off, 255 times that; the bits left out are at most 15 a pixel.
        bound = 255 * np.abs(weight - rebuilt).sum() + 15 * np.abs(rebuilt).sum()
        error = np.abs(binary_scores(gradients, masks, factors, 4) - exact).max()
        assert error <= bound
        residual = float(np.linalg.norm(weight - rebuilt))
        assert residual < last  # each vector explains more
        last = residual
    assert last < 0.35 * np.linalg.norm(weight)


def test_each_vector_is_the_best_for_its_signs() -> None:
    weight = RNG.normal(size=64).astype(np.float32)
    (mask,), (factor,) = binarise(weight, 1)
    assert factor == pytest.approx(np.abs(weight).mean(), rel=1e-6)
    assert f"{int(mask):064b}" == "".join("1" if w >= 0 else "0" for w in weight)


def naive_suppression(scores: np.ndarray, radius: int, most: int) -> list[int]:
    hidden, taken = np.zeros(scores.shape, bool), []
    for place in np.argsort(-scores.ravel(), kind="stable"):
        y, x = divmod(int(place), scores.shape[1])
        if len(taken) < most and not hidden[y, x]:
            taken.append(int(place))
            hidden[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = True
    return taken


@pytest.mark.parametrize("kind", ["noise", "ties", "flat", "ramp"])
def test_suppression_equals_the_naive(kind: str) -> None:
    rng = np.random.default_rng(1)
    for size_hw in ((1, 1), (1, 40), (30, 7), (40, 53)):
        scores = rng.normal(size=size_hw).astype(np.float32)
        scores = {"ties": np.round(scores), "flat": np.ones_like(scores), "ramp": scores.cumsum(1).cumsum(0)}.get(
            kind, scores
        )
        for radius, most in ((0, 5), (2, 130), (3, 9)):
            assert suppress(scores, radius, most).tolist() == naive_suppression(scores, radius, most)


def test_levels_fit_the_picture() -> None:
    axis = axis_of(640, SIZES)
    assert axis.lengths == (512, 256, 128, 64, 32, 16)
    assert [8 * s for s in axis.scales] == [10, 20, 40, 80, 160, 320]
    small = axis_of(100, SIZES)  # 160 is cut to the whole side, and then there is no more
    assert small.lengths == (80, 40, 20, 10, 8)
    assert [8 * s for s in small.scales] == [10, 20, 40, 80, 100]
    assert axis_of(3, SIZES).lengths == (8,)
    assert axis_of(3, SIZES).scales[0] * 8 == 3
    for length in range(1, 400):
        axis = axis_of(length, SIZES)
        assert all(n >= 8 and n * s <= length + 1e-9 for n, s in zip(axis.lengths, axis.scales, strict=True))


def test_windows_lie_where_their_pixels_are() -> None:
    image = torch.full((3, 200, 300), 100, dtype=torch.uint8)
    image[:, 80:120, 160:240] = 220  # 80 wide, 40 high
    proposer = Bing(per_size=1, is_binary=False)
    ring = np.zeros((8, 8), np.float32)
    ring[[0, 1, 6, 7]] = ring[:, [0, 1, 6, 7]] = 1
    ring[2:6, 2:6] = -1
    proposer.learn("weight", torch.from_numpy(ring.ravel()))
    proposer.learn("active", torch.tensor([[2, 3]]))
    proposer.learn("slopes", torch.ones(1))
    proposer.learn("offsets", torch.zeros(1))
    (box,) = proposer.find(image).boxes_xyxy.tolist()
    assert box == pytest.approx([160, 80, 240, 120], abs=6)
    assert (box[2] - box[0], box[3] - box[1]) == (80, 40)


def test_it_learns_sizes_and_finds_objects() -> None:
    proposer, said = Bing(), []
    proposer.fit([scene(50 + i) for i in range(10)], say=said.append)
    assert set(map(tuple, proposer.active.tolist())) <= {(h, w) for h in range(1, 4) for w in range(1, 4)}
    assert len(proposer.active) >= 4
    assert "sizes" in said[0]
    samples = [scene(i) for i in range(8)]
    assert recall(proposer, samples, 200) > 0.9
    assert recall(proposer, samples, 20) > 0.45
    # Bits for floats: nearly the same boxes.
    exact = Bing(is_binary=False)
    for name in proposer.declared:
        exact.learn(name, getattr(proposer, name))
    exact._calibrate([scene(50 + i) for i in range(10)])
    assert recall(exact, samples, 200) > 0.9


def test_settings_out_of_range_are_named() -> None:
    for bad in ({"sizes": ()}, {"sizes": (10, 30)}, {"per_size": 0}, {"bits": 9}, {"approximations": 0}, {"cost": 0}):
        with pytest.raises(UsageError, match=r"bing|sizes"):
            Bing(**bad)  # type: ignore[arg-type]


def test_blood_cells_are_found(real_data: Path) -> None:
    training, test = (load(real_data / "bccd", split, fields={"boxes"}) for split in ("train", "test"))
    proposer = Bing()
    proposer.fit(Samples(training.subset(list(range(20)))))
    samples = [test[i] for i in range(0, 70, 10)]
    found = recall(proposer, samples, 1000)
    assert found > 0.9
    assert found > recall(build("random_boxes"), samples, 1000) + 0.2
    assert recall(proposer, samples, 100) > 0.5
