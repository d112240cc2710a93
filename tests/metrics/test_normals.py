"""Angles between normals."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.normals import MEDIAN_BIN, NormalScores, normal_angles


def vectors(*rows: tuple[float, float, float], dtype: torch.dtype = torch.float64) -> Tensor:
    """One row of pixels."""
    return torch.tensor(rows, dtype=dtype).T[:, None, :]


def maps(count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(count, 3, 10, 12, generator=generator, dtype=torch.float64)
    predicted = truth + 0.4 * torch.randn(count, 3, 10, 12, generator=generator, dtype=torch.float64)
    truth[0, :, 3] = 0
    return predicted, truth


def test_angles_worked_by_hand() -> None:
    ahead = (0.0, 0.0, 1.0)
    truth = vectors(ahead, ahead, ahead, ahead, ahead, (0.0, 0.0, 0.0), (math.nan, 0.0, 1.0))
    said = vectors((0.0, 0.0, 7.0), (0.0, 2.0, 0.0), (0.0, 0.0, -1.0), (3.0, 0.0, 3.0), (0.0, 0.0, 0.0), ahead, ahead)
    angles = normal_angles(said, truth)[0]
    torch.testing.assert_close(angles[:5], torch.tensor([0.0, 90.0, 180.0, 45.0, 90.0], dtype=torch.float64))
    assert angles[5:].isnan().all()


def test_angles_equal_the_arc_cosine_and_keep_small_ones() -> None:
    predicted, truth = maps()
    cosine = torch.nn.functional.cosine_similarity(predicted, truth, dim=1)
    known = truth.abs().sum(1) > 0
    torch.testing.assert_close(normal_angles(predicted, truth)[known], torch.rad2deg(torch.acos(cosine))[known])
    small = 1e-3
    turned = vectors((math.sin(math.radians(small)), 0.0, math.cos(math.radians(small))), dtype=torch.float32)
    angle = normal_angles(turned, vectors((0.0, 0.0, 1.0), dtype=torch.float32))
    assert angle.item() == pytest.approx(small, rel=1e-6)


def test_gradients_and_half_precision() -> None:
    predicted, truth = maps(1)
    leaf = predicted[..., :3, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normal_angles(x, truth[..., :3, :4]), (leaf,))
    leaf = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).T[:, None].requires_grad_()
    angles = normal_angles(leaf, vectors((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0), dtype=torch.float32))
    (grad,) = torch.autograd.grad(angles.nansum(), leaf)
    assert torch.isfinite(grad).all()
    assert normal_angles(predicted.half(), truth.half()).dtype == torch.float32


def test_angles_compile_whole(unchecked: None) -> None:
    predicted, truth = maps()
    compiled = torch.compile(normal_angles, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(predicted, truth), normal_angles(predicted, truth), equal_nan=True)


def test_scores_pool_all_pixels() -> None:
    predicted, truth = maps()
    masks = torch.rand(3, 10, 12, generator=torch.Generator().manual_seed(1)) < 0.8
    angles = normal_angles(predicted, truth).masked_fill(~masks, math.nan)
    known = angles[~angles.isnan()].numpy()
    exact, binned = NormalScores(exact_median=True), NormalScores()
    for scores in (exact, binned):
        scores.update(predicted, truth, masks)
        values = scores.compute().values
        for limit in (11.25, 22.5, 30.0):
            assert values[f"within_{limit:g}"] == (known < limit).mean()
        assert values["mean"] == pytest.approx(known.mean(), rel=1e-12)
        assert values["rmse"] == pytest.approx(np.sqrt((known**2).mean()), rel=1e-12)
        means = [float(picture.nanmean()) for picture in angles]
        assert values["mean_of_pictures"] == pytest.approx(np.mean(means), rel=1e-12)
    assert exact.compute().values["median"] == np.median(known)
    assert abs(binned.compute().values["median"] - np.median(known)) <= MEDIAN_BIN / 2 + 1e-12
    assert 0.05 < exact.compute().value < 0.95


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_the_streamed_median_is_near_for_few_pixels(count: int) -> None:
    angles = torch.linspace(1, 170, count, dtype=torch.float64).deg2rad()
    predicted = torch.stack([angles.sin(), 0 * angles, angles.cos()])[:, None]
    scores = NormalScores()
    scores.update([predicted], [vectors((0.0, 0.0, 1.0)).expand_as(predicted)])
    wanted = float(np.median(angles.rad2deg().numpy()))
    assert scores.compute().values["median"] == pytest.approx(wanted, abs=MEDIAN_BIN / 2 + 1e-9)


def test_limits_are_strict_and_opposite_vectors_have_a_bin() -> None:
    scores = NormalScores((45,))
    truth = vectors((0.0, 0.0, 1.0), (0.0, 0.0, 1.0))
    scores.update([vectors((1.0, 0.0, 1.0), (0.0, 0.0, -1.0))], [truth])
    assert scores.compute().values["within_45"] == 0
    assert scores.compute().values["median"] == pytest.approx(112.5, abs=1e-3)


@pytest.mark.parametrize("exact", [True, False])
def test_scores_in_any_sharing(exact: bool) -> None:
    predicted, truth = maps(6)
    whole, first, second = (NormalScores(exact_median=exact) for _ in range(3))
    whole.update(predicted, truth)
    first.update(predicted[4:], truth[4:])
    second.update(predicted[:4], truth[:4])
    first.merge(second)
    assert first.compute().to_dict() == whole.compute().to_dict()
    assert all(math.isnan(value) for value in NormalScores(exact_median=exact).compute().values.values())


def test_pictures_without_a_known_pixel_count_nowhere() -> None:
    predicted, truth = maps(1)
    one, two = NormalScores(), NormalScores()
    one.update(predicted, truth)
    two.update(predicted, truth)
    two.update(predicted * math.nan, truth * 0)
    assert two.compute().values == one.compute().values


def test_bad_input_is_named() -> None:
    predicted, truth = maps(1)
    scores = NormalScores()
    with pytest.raises(RecordError, match="NaN or infinity in the prediction"):
        scores.update(predicted * math.inf, truth)
    with pytest.raises(RecordError, match="wanted"):
        scores.update(predicted[..., 1:], truth)
    with pytest.raises(RecordError, match="a mask of"):
        scores.update(predicted, truth, torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(RecordError, match="number of masks"):
        scores.update(predicted, truth, torch.ones(2, 10, 12, dtype=torch.bool))
    with pytest.raises(RecordError, match="1 predictions"):
        scores.update(predicted, truth[:0])
    with pytest.raises(UsageError, match="angles above 0"):
        NormalScores(())
    with pytest.raises(UsageError, match="exact_median"):
        scores.merge(NormalScores(exact_median=True))
