"""Ciresan's window classifier: its table, all windows at once against each alone, what it learns from."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bestiary import zoo
from bestiary.errors import UsageError
from bestiary.layers.overlap_tile import mirror_window
from bestiary.layers.preprocess import Normalize
from bestiary.metrics.segmentation import SegmentationScores
from bestiary.records import Target
from bestiary.segmentation.pixel_windows import PixelWindows, pixel_windows, pixel_windows_small

GREY = Normalize([0.5], [0.5])


def tiny(**parts: object) -> PixelWindows:
    """Windows of 13 pixels."""
    torch.manual_seed(0)
    return PixelWindows(("a", "b"), GREY, (4, 2), maps=6, hidden=8, last=2, **parts).eval()  # type: ignore[arg-type]


def test_net_n4_is_that_of_the_paper() -> None:
    net = pixel_windows()
    assert (net.side, net.in_channels, net.categories) == (95, 1, ("membrane", "cell"))
    assert sum(p.numel() for p in net.parameters()) == 219_290
    sides, features = [], torch.zeros(1, 1, 95, 95)
    for layer in net.network:
        features = layer(features)
        sides.append((features.shape[1], features.shape[-1]))
    # convolution, pooling, tangent, as in the table: 92 46 42 21 18 9 6 3, 200 units, 2 classes
    assert [side for _, side in sides] == [92, 46, 46, 42, 21, 21, 18, 9, 9, 6, 3, 3, 1, 1, 1]
    assert [maps for maps, _ in sides] == [48] * 12 + [200, 200, 2]


@torch.inference_mode()
def test_windows_at_once_and_one_by_one_agree_at_every_pixel() -> None:
    net = tiny(evaluation="windows")
    image = torch.rand(2, 1, 11, 14)
    one_by_one = net.predict_logits(image)
    net.evaluation = "dense"
    assert torch.allclose(net.predict_logits(image), one_by_one, rtol=0, atol=1e-5)
    surrounded = mirror_window(image, -6, -6, (23, 26))
    for y, x in ((0, 0), (10, 13), (4, 7)):
        alone = net.network(GREY(surrounded[..., y : y + 13, x : x + 13]))
        assert torch.allclose(alone[..., 0, 0], one_by_one[..., y, x], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_net_n4_agrees_too_and_its_dense_form_is_many_times_faster() -> None:
    net = pixel_windows().eval()
    pixels = torch.rand(1, 1, 94 + 20, 94 + 48)
    net.dense_logits(pixels)
    started = time.perf_counter()
    at_once = net.dense_logits(pixels)
    dense_time = time.perf_counter() - started
    started = time.perf_counter()
    one_row = net.window_logits(pixels[:, :, :95])
    window_time = 20 * (time.perf_counter() - started)
    assert torch.allclose(at_once[:, :, :1], one_row, rtol=0, atol=1e-5)
    assert window_time > 20 * dense_time


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (2, 40)])
@torch.inference_mode()
def test_any_picture_is_named_whole(size: tuple[int, int]) -> None:
    images = [torch.randint(0, 256, (1, *size), dtype=torch.uint8) for _ in range(2)]
    net = tiny()
    together = net.predict_images(images)
    for image, found in zip(images, together, strict=True):
        assert found.label_map.shape == size
        assert torch.equal(net.predict_images([image])[0].label_map, found.label_map)


def test_training_on_all_windows_is_the_mean_over_all_pixels() -> None:
    net = tiny(windows=None)
    image = torch.rand(1, 9, 12)
    label_map = (image[0] > 0.5).to(torch.uint8)
    label_map[:2] = 255
    loss = net.loss([image], [Target(label_map=label_map)]).total
    log_probs = net.predict_logits(image[None])[0].log_softmax(0)
    known = label_map != 255
    wanted = -torch.where(label_map == 1, log_probs[1], log_probs[0])[known].mean()
    assert torch.allclose(loss, wanted, atol=1e-6)


def test_drawn_windows_estimate_the_balanced_loss() -> None:
    torch.manual_seed(0)
    net = tiny(windows=4000, turn=False)
    image = torch.rand(1, 12, 12)
    label_map = (image[0] > 0.8).to(torch.uint8)
    estimate = net.loss([image], [Target(label_map=label_map)]).total.detach()
    log_probs = net.predict_logits(image[None])[0].log_softmax(0).detach()
    wanted = -(log_probs[0][label_map == 0].mean() + log_probs[1][label_map == 1].mean()) / 2
    assert float(estimate) == pytest.approx(float(wanted), rel=0.02)


def test_a_dot_is_learned() -> None:
    torch.manual_seed(0)
    net = tiny(windows=20).train()
    image = torch.zeros(1, 20, 20)
    image[0, 5, 6] = image[0, 14, 12] = 1.0
    label_map = torch.nn.functional.max_pool2d(image, 3, 1, 1)[0].to(torch.uint8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        net.loss([image], [Target(label_map=label_map)]).total.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
    with torch.inference_mode():
        (found,) = net.eval().predict_images([image])
    assert (found.label_map != label_map).double().mean() < 0.03


@pytest.mark.parametrize("windows", [16, None])
def test_without_any_label_the_loss_is_nothing(windows: int | None) -> None:
    net = tiny(windows=windows)
    unknown = Target(label_map=torch.full((9, 9), 255, dtype=torch.uint8))
    loss = net.loss([torch.rand(1, 9, 9)], [unknown]).total
    loss.backward()
    assert float(loss.detach()) == 0


def test_the_state_comes_back_whole() -> None:
    one, other = pixel_windows_small(("a", "b", "c")), pixel_windows_small(("a", "b", "c"))
    other.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(one.predict_logits(image), other.predict_logits(image))


def test_channels_and_fields_by_the_zoo() -> None:
    net = zoo.build("pixel_windows_small", ("a", "b"), {"in_channels": 4, "windows": 5, "sampling": "balanced"})
    assert net.loss([torch.rand(4, 6, 7)], [Target(label_map=torch.zeros(6, 7, dtype=torch.uint8))]).total.isfinite()
    with pytest.raises(UsageError, match="wanted at least 1 a picture"):
        pixel_windows(windows=0)


def test_membranes_are_learned_from_drawn_windows(real_data: Path) -> None:
    def slice_of(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        folder = real_data / "isbi2012"
        image, labels = (
            np.array(Image.open(folder / kind / f"{number}.png").convert("L")) for kind in ("images", "labels")
        )
        return torch.from_numpy(image)[None, :256, :256], torch.from_numpy(labels > 127).to(torch.uint8)[:256, :256]

    torch.manual_seed(0)
    net = PixelWindows(("membrane", "cell"), GREY, (4, 5), maps=12, hidden=32, last=3, windows=48)  # of 23 pixels
    train = [slice_of(number) for number in range(4)]
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        net.loss([image for image, _ in train], [Target(label_map=labels) for _, labels in train]).total.backward()
        optimizer.step()
    image, labels = slice_of(20)
    scores = SegmentationScores(net.categories)
    with torch.inference_mode():
        scores.update(net.eval().predict_images([image]), [Target(label_map=labels)])
    found = scores.compute()
    # saying "cell" everywhere reaches 0.39 mean IoU
    assert found.value > 0.6, found
    assert found.per_class["membrane"]["iou"] > 0.43, found
