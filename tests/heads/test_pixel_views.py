"""Views and windows of labellers of pixels, against sums written out by hand."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.heads.pixel_views import PixelViews, resize_pictures
from bestiary.heads.segmentation import PixelSystem
from bestiary.heads.tiling import Tiling
from bestiary.layers.preprocess import Normalize


class Sideways(PixelSystem):
    """Class 1 where a picture is brighter than to its left: neither mirroring nor scaling leaves its answer alone."""

    def __init__(self, **told: object) -> None:
        super().__init__(("falls", "rises"), Normalize([0.0], [1.0]))
        self.take(told)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, pixels: Tensor) -> Tensor:
        step = pixels - F.pad(pixels, [1, 0, 0, 0], mode="replicate")[..., :-1]
        return torch.cat([-step, 3 * step], 1)

    def logit_windows(self, images: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        self.seen.append(tuple(images.shape[-2:]))
        yield 0, 0, self(self.prepare(images, 0, 0, (int(images.shape[-2]), int(images.shape[-1]))))


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def probs_at(net: Sideways, image: Tensor, scale: float, flip: bool) -> Tensor:
    """One view, by the words of the papers."""
    height, width = image.shape[-2:]
    seen = image[None]
    if scale != 1:
        size = (round(height * scale), round(width * scale))
        seen = F.interpolate(seen, size=size, mode="bilinear", antialias=True)
    logits = net(seen.flip(-1)).flip(-1) if flip else net(seen)
    return F.interpolate(logits.softmax(1), size=(height, width), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("merge", ["mean", "max"])
def test_views_are_merged_as_the_papers_say(merge: str) -> None:
    net = Sideways(test_scales=(0.5, 1, 1.5), test_flip=True, test_merge=merge, keep_probs=True)
    image = noise(1, 12, 20)
    views = torch.stack([probs_at(net, image, scale, flip) for scale in (0.5, 1, 1.5) for flip in (False, True)])
    wanted = views.mean(0) if merge == "mean" else views.amax(0) / views.amax(0).sum(0)
    (found,) = net.predict_images([image])
    assert torch.allclose(found.probs, wanted, atol=1e-6)
    assert torch.equal(found.label_map, wanted.argmax(0).to(torch.uint8))
    assert not torch.allclose(found.probs, probs_at(net, image, 1, False), atol=1e-3), "the views must matter"


def test_scales_multiply_the_size_that_prediction_works_at() -> None:
    net = Sideways(test_scales=(0.5, 2.0), predict_size=10)
    (found,) = net.predict_images([noise(1, 40, 60)])
    assert net.seen == [(5, 8), (20, 30)]
    assert found.label_map.shape == (40, 60)


def test_windows_overlap_by_a_third_and_their_probabilities_are_averaged() -> None:
    net = Sideways(test_window=6, keep_probs=True)
    image = noise(1, 10, 15)
    sums, counts = torch.zeros(2, 10, 15), torch.zeros(10, 15)
    windows = Tiling(6, 1 / 3).windows((10, 15))
    for x1, y1, x2, y2 in windows:
        sums[:, y1:y2, x1:x2] += net(image[None, :, y1:y2, x1:x2]).softmax(1)[0]
        counts[y1:y2, x1:x2] += 1
    assert counts.min() >= 1
    assert counts.max() > 1
    lefts = sorted({x1 for x1, *_ in windows})
    assert all(right - left <= 4 for left, right in pairwise(lefts)), "two thirds of a window"
    (found,) = net.predict_images([image])
    assert torch.allclose(found.probs, sums / counts, atol=1e-6)
    assert set(net.seen) == {(6, 6)}


def test_a_window_as_large_as_the_picture_changes_nothing() -> None:
    image = noise(1, 10, 15)
    (plain,) = Sideways(keep_probs=True).predict_images([image])
    (seen,) = Sideways(keep_probs=True, test_window=15).predict_images([image])
    assert torch.allclose(plain.probs, seen.probs, atol=1e-6)
    assert torch.equal(plain.label_map, seen.label_map)


def test_without_a_word_predictions_are_those_of_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PixelViews().is_plain
    assert PixelViews(scales=(1,)).is_plain
    assert not PixelViews(flip=True).is_plain
    monkeypatch.setattr(PixelViews, "probs", None)  # no view is asked
    Sideways().predict_images([noise(1, 8, 8)])


def test_a_batch_equals_single_pictures() -> None:
    net = Sideways(test_scales=(0.75, 1), test_flip=True, test_window=7, keep_probs=True)
    images = [noise(1, 9, 14), noise(1, 14, 9), noise(1, 9, 14).flip(-1)]
    for image, found in zip(images, net.predict_images(images), strict=True):
        (single,) = net.predict_images([image])
        assert torch.allclose(single.probs, found.probs, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (2, 40)])
def test_any_size_is_seen(size: tuple[int, int]) -> None:
    net = Sideways(test_scales=(0.25, 1, 2), test_flip=True, test_window=8)
    (found,) = net.predict_images([torch.randint(0, 256, (3, *size), dtype=torch.uint8)])
    assert found.label_map.shape == size


def test_the_crf_refines_the_probabilities_of_all_views() -> None:
    image = noise(3, 24, 24) / 5
    image[:, :, 12:] += 0.7
    plain = Sideways(keep_probs=True, test_flip=True)
    sharp = Sideways(keep_probs=True, test_flip=True, crf="plain")
    assert sharp.crf is not None
    (before,), (after,) = plain.predict_images([image]), sharp.predict_images([image])
    assert torch.equal(after.probs, sharp.crf.refine(image, before.probs))
    assert not torch.equal(after.label_map, before.label_map)
    sharp.take({"crf": "none"})
    assert torch.equal(sharp.predict_images([image])[0].probs, before.probs)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"test_scales": (0.0,)}, "test_scales"),
        ({"test_scales": (1, 1)}, "each only once"),
        ({"test_window": -1}, "test_window"),
        ({"window_overlap": 1.0}, "window_overlap"),
        ({"crf": "deeplab"}, "no dense CRF is called 'deeplab'"),
        ({"crf": "plain", "multi_label": True}, "one class"),
        ({"mask_threshold": 1}, "mask_threshold"),
        ({"class_balance": "even"}, "class_balance"),
    ],
)
def test_what_cannot_be_is_named(told: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Sideways(**told)


@pytest.mark.usefixtures("unchecked")
def test_a_merge_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="test_merge: got 'sum', wanted one of mean, max"):
        Sideways(test_merge="sum")


def test_pictures_are_resized_to_a_pixel_at_least_and_left_alone_at_their_size() -> None:
    image = torch.randint(0, 256, (1, 3, 4, 6), dtype=torch.uint8)
    assert resize_pictures(image, (4, 6)) is image
    assert resize_pictures(image, (0, 2)).shape == (1, 3, 1, 2)
    assert float(resize_pictures(image, (8, 12)).max()) <= 1
