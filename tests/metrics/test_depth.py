"""Depth errors: by hand, by numpy loops in the manner of the published evaluations."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.depth import (
    ERRORS,
    Crop,
    DepthScores,
    depth_errors,
    eigen_crop,
    garg_crop,
    known_depth,
    median_scale,
    nyu_crop,
    scale_and_shift,
)


def test_errors_worked_by_hand() -> None:
    errors = {k: float(v) for k, v in depth_errors(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0])).items()}
    log = math.log(0.5)
    assert tuple(errors) == ERRORS
    assert errors == pytest.approx(
        {
            "delta1": 0.5,
            "delta2": 0.5,
            "delta3": 0.5,
            "abs_rel": 0.25,
            "sq_rel": 0.25,
            "rmse": math.sqrt(0.5),
            "rmse_log": math.sqrt(log**2 / 2),
            "log10": math.log10(2) / 2,
            "silog": 100 * math.sqrt(log**2 / 2 - (log / 2) ** 2),
            "irmse": 1000 * math.sqrt(0.5**2 / 2),
        },
        rel=1e-12,
    )


def test_delta_is_strict_and_knows_both_directions() -> None:
    truth = torch.ones(4, dtype=torch.float64)
    predicted = torch.tensor([1.25, 0.8, math.nextafter(1.25, 0), 1.25**2], dtype=torch.float64)
    errors = depth_errors(predicted, truth)
    assert errors["delta1"] == 0.25
    assert errors["delta2"] == 0.75
    assert errors["delta3"] == 1


def test_scale_invariance_and_perfect_depth() -> None:
    truth = torch.rand(100, dtype=torch.float64) * 20 + 1
    predicted = truth * (0.5 + torch.rand(100, dtype=torch.float64))
    one, doubled = depth_errors(predicted, truth), depth_errors(2 * predicted, truth)
    assert float(one["silog"]) == pytest.approx(float(doubled["silog"]), rel=1e-12)
    assert doubled["abs_rel"] > one["abs_rel"]
    assert depth_errors(3 * truth, truth)["silog"] < 1e-5
    perfect = depth_errors(truth, truth)
    assert [float(perfect[name]) for name in ERRORS] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert all(error.isnan() for error in depth_errors(truth[:0], truth[:0]).values())
    with pytest.raises(RecordError, match="predicted"):
        depth_errors(truth - 30, truth)
    with pytest.raises(RecordError, match="truth"):
        depth_errors(truth, truth * math.nan)


def test_crops_are_the_published_windows() -> None:
    def window(mask: Tensor) -> tuple[int, int, int, int]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert mask.sum() == len(rows) * len(columns)
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1

    assert window(garg_crop((375, 1242))) == (153, 371, 44, 1197)
    assert window(eigen_crop((375, 1242))) == (124, 342, 44, 1197)
    assert window(nyu_crop((480, 640))) == (45, 471, 41, 601)
    with pytest.raises(RecordError, match=r"got \(240, 320\), wanted \(480, 640\)"):
        nyu_crop((240, 320))


def test_truth_counts_strictly_inside_the_range() -> None:
    truth = torch.tensor([[0.0, 1e-3, 0.5, 79.999, 80.0, math.inf, math.nan]], dtype=torch.float64)
    assert known_depth(truth).tolist() == [[False, False, True, True, False, False, False]]
    inside = known_depth(torch.ones(2, 100, 100), crop="garg")
    assert torch.equal(inside[1], garg_crop((100, 100)))


def test_median_scale() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 100):
        predicted, truth = rng.random(count) + 0.1, rng.random(count) + 0.1
        got = median_scale(torch.from_numpy(predicted), torch.from_numpy(truth))
        assert float(got) == pytest.approx(np.median(truth) / np.median(predicted), rel=1e-12)
    assert median_scale(torch.zeros(3), torch.ones(3)).isnan()
    assert median_scale(torch.zeros(0), torch.zeros(0)).isnan()


def test_scale_and_shift_is_least_squares() -> None:
    rng = np.random.default_rng(1)
    predicted, truth = rng.random(50), rng.random(50)
    wanted = np.linalg.lstsq(np.stack([predicted, np.ones(50)], 1), truth, rcond=None)[0]
    got = scale_and_shift(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert [float(x) for x in got] == pytest.approx(list(wanted), rel=1e-10)
    flat = scale_and_shift(torch.full((5,), 0.1), torch.arange(5.0))
    assert [float(x) for x in flat] == [0, 2]
    leaf = torch.from_numpy(predicted[:6]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: scale_and_shift(x, torch.from_numpy(truth[:6])), (leaf,))


def scene(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predictions of another scale, and truths of which a third is unknown."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 100, (count, 30, 40))
    predicted = 0.4 * truth * rng.lognormal(0, 0.3, truth.shape)
    truth[rng.random(truth.shape) < 0.3] = 0
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def naive_errors(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    ratio = np.maximum(predicted / truth, truth / predicted)
    error = np.log(predicted) - np.log(truth)
    return {
        **{f"delta{i}": float((ratio < 1.25**i).mean()) for i in (1, 2, 3)},
        "abs_rel": float(np.mean(np.abs(truth - predicted) / truth)),
        "sq_rel": float(np.mean((truth - predicted) ** 2 / truth)),
        "rmse": float(np.sqrt(((truth - predicted) ** 2).mean())),
        "rmse_log": float(np.sqrt((error**2).mean())),
        "log10": float(np.abs(np.log10(predicted) - np.log10(truth)).mean()),
        "silog": float(np.sqrt(np.mean(error**2) - np.mean(error) ** 2) * 100),
        "irmse": float(np.sqrt(((1000 / predicted - 1000 / truth) ** 2).mean())),
    }


@pytest.mark.parametrize("alignment", ["none", "median", "scale_shift", "inverse_scale_shift"])
@pytest.mark.parametrize("crop", ["none", "garg", "eigen"])
def test_scores_equal_the_published_way(alignment: str, crop: Crop) -> None:
    predictions, truths = scene()
    if alignment == "inverse_scale_shift":
        predictions = 3 / predictions + 0.2
    scores = DepthScores(1e-3, 80, crop, alignment)  # type: ignore[arg-type]
    scores.update(predictions, truths)
    pictures, said_all, true_all = [], [], []
    for predicted, truth in zip(predictions.numpy(), truths.numpy(), strict=True):
        mask = (truth > 1e-3) & (truth < 80)
        if crop != "none":
            mask &= (garg_crop if crop == "garg" else eigen_crop)((30, 40)).numpy()
        said, true = predicted[mask], truth[mask]
        if alignment == "median":
            said = said * np.median(true) / np.median(said)
        if alignment == "scale_shift":
            said = np.polyval(np.polyfit(said, true, 1), said)
        if alignment == "inverse_scale_shift":
            said = 1 / np.maximum(np.polyval(np.polyfit(said, 1 / true, 1), said), 1 / 80)
        said = np.clip(said, 1e-3, 80)
        pictures.append(naive_errors(said, true))
        said_all.append(said)
        true_all.append(true)
    values = scores.compute().values
    pooled = naive_errors(np.concatenate(said_all), np.concatenate(true_all))
    for name in ERRORS:
        assert values[name] == pytest.approx(np.mean([p[name] for p in pictures]), rel=1e-9)
        assert values[f"{name}_pixels"] == pytest.approx(pooled[name], rel=1e-9)
    assert abs(values["rmse"] - values["rmse_pixels"]) > 1e-4, "two different numbers"


def test_scores_in_any_sharing_and_of_any_sizes() -> None:
    predictions, truths = scene(7)
    whole, first, second = (DepthScores(max_depth=60, alignment="median") for _ in range(3))
    whole.update(predictions, truths)
    whole.update([torch.ones(3, 4)], [torch.ones(3, 4)])
    first.update([torch.ones(3, 4), *predictions[4:]], [torch.ones(3, 4), *truths[4:]])
    second.update(predictions[:4], truths[:4])
    first.merge(second)
    assert first.compute().to_dict() == whole.compute().to_dict()
    assert whole.compute().headline == "delta1"


def test_pictures_without_truth_count_nowhere() -> None:
    predictions, truths = scene(2)
    scores, with_empty = DepthScores(), DepthScores()
    scores.update(predictions, truths)
    with_empty.update(torch.cat([predictions, predictions[:1]]), torch.cat([truths, 0 * truths[:1]]))
    assert with_empty.compute().values == scores.compute().values
    assert "2 pictures (1 without truth left out)" in with_empty.compute().protocol
    assert all(math.isnan(value) for value in DepthScores().compute().values.values())


def test_single_precision_and_strange_layouts_and_predictions() -> None:
    predictions, truths = scene(3)
    wanted, scores = DepthScores(), DepthScores()
    wanted.update(predictions.float().double(), truths.float().double())
    scores.update(predictions.float().transpose(1, 2).contiguous().transpose(1, 2), truths.float())
    assert scores.compute().values == pytest.approx(wanted.compute().values, rel=1e-12)
    for alignment in ("none", "median", "scale_shift"):
        odd = DepthScores(alignment=alignment)  # type: ignore[arg-type]
        odd.update([torch.zeros(2, 2)], [torch.full((2, 2), 5.0)])
        odd.update(
            [torch.tensor([[-1.0, math.inf]])] if alignment == "none" else [],
            [torch.ones(1, 2)] * (alignment == "none"),
        )
        assert all(math.isfinite(value) for value in odd.compute().values.values()), alignment
    careless = DepthScores()
    careless.update([torch.tensor([[math.nan, 2.0]])], [torch.tensor([[0.0, 2.0]])])
    assert careless.compute().value == 1, "NaN where nothing is known does no harm"


def test_bad_input_is_named() -> None:
    scores = DepthScores()
    with pytest.raises(RecordError, match="picture 0: got NaN"):
        scores.update([torch.full((1, 1), math.nan)], [torch.ones(1, 1)])
    with pytest.raises(RecordError, match=r"a prediction of \(1, 2\), wanted \(2, 1\)"):
        scores.update([torch.ones(1, 2)], [torch.ones(2, 1)])
    with pytest.raises(RecordError, match="2 predictions"):
        scores.update(torch.ones(2, 1, 1), [torch.ones(1, 1)])
    with pytest.raises(UsageError, match="min_depth < max_depth"):
        DepthScores(1, 1)
    with pytest.raises(UsageError, match="max_depth"):
        scores.merge(DepthScores(max_depth=10))
