import numpy as np
import pytest
import torch
from scipy import ndimage

from bestiary.errors import UsageError
from bestiary.metrics.segmentation import confusion_matrix, mean_iou
from bestiary.metrics.trimap import TrimapScores, trimap_band
from bestiary.predictions import Segmentation
from bestiary.records import Target


def halves(at: int, size: int = 12) -> np.ndarray:
    labels = np.zeros((size, size), np.uint8)
    labels[:, at:] = 1
    return labels


def test_a_band_has_its_width_on_both_sides() -> None:
    for width in (1, 2, 3):
        assert np.flatnonzero(trimap_band(halves(6), width)[0]).tolist() == list(range(6 - width, 6 + width))
    assert not trimap_band(halves(0), 5).any(), "one label has no boundary"


@pytest.mark.parametrize("seed", range(4))
def test_a_band_equals_dilation_by_a_disc(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (ndimage.zoom(rng.random((5, 6)), 7, order=1) * 4).astype(np.uint8)
    touching = trimap_band(labels, 1)
    grid = np.arange(-4, 5)
    disc = grid[:, None] ** 2 + grid[None] ** 2 <= 16
    assert np.array_equal(trimap_band(labels, 5), ndimage.binary_dilation(touching, disc))


def test_only_the_band_counts_and_unknown_pixels_bound_it() -> None:
    truth = halves(6)
    truth[:, 6] = 255
    said = halves(5)
    scores = TrimapScores(["a", "b"], widths=(1, 3, 50))
    scores.update([Segmentation(torch.from_numpy(said), (12, 12))], [Target(label_map=torch.from_numpy(truth))])
    # Width 1 holds columns 5 (wrong) and 7 (right): a 0 of 1, b 1 of 2.
    assert scores.counts[0].tolist() == [[0, 12], [0, 12]]
    values = scores.compute().values
    assert values["mean_iou_1"] == 0.25
    assert values["mean_iou_50"] == mean_iou(confusion_matrix(truth, said, 2))
    assert scores.compute().headline == "mean_iou_1"


def test_halves_merge_and_bad_widths_are_refused() -> None:
    both = [TrimapScores(["a", "b"], (2,)) for _ in range(2)]
    for scores, at in zip(both, (3, 8), strict=True):
        pair = Segmentation(torch.from_numpy(halves(5)), (12, 12)), Target(label_map=torch.from_numpy(halves(at)))
        scores.update([pair[0]], [pair[1]])
    counts = both[0].counts + both[1].counts
    both[0].merge(both[1])
    assert np.array_equal(both[0].counts, counts)
    assert both[0].pictures == 2
    for widths in ((), (0,), (2, 1)):
        with pytest.raises(UsageError, match="widths"):
            TrimapScores(["a"], widths)
