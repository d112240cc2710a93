"""The HOG detector: a window's score is one place of the map, planted figures are found at their size, and what was
learned comes back from a checkpoint.
"""

import numpy as np
import pytest
import torch

from bestiary.detection.hog_svm import HogSVM, WindowMining, hog_svm
from bestiary.errors import UsageError
from bestiary.features.hog import hog
from bestiary.features.image_pyramid import at_scale
from bestiary.geometry.boxes import pairwise_iou
from bestiary.layers.learned import make_room
from bestiary.records import Objects, Sample, Target


def figure(canvas: np.ndarray, x: int, y: int, height: int, light: int) -> list[float]:
    """A head above a body, about half as wide as tall."""
    import cv2

    width = height // 2
    cv2.circle(canvas, (x + width // 2, y + height // 6), height // 7, light, -1, cv2.LINE_AA)
    cv2.rectangle(canvas, (x + width // 6, y + height // 3), (x + width - width // 6, y + height - 1), light, -1)
    return [float(x), float(y), float(x + width), float(y + height)]


def scene(seed: int, heights: tuple[int, ...], size_hw: tuple[int, int] = (160, 240)) -> Sample:
    """Figures side by side among lines and discs, under noise."""
    import cv2

    rng = np.random.default_rng(seed)
    canvas = np.full(size_hw, 120, np.uint8)
    for _ in range(12):
        ends = [tuple(int(v) for v in rng.integers(0, size_hw[::-1])) for _ in range(2)]
        cv2.line(canvas, ends[0], ends[1], int(rng.integers(60, 200)), int(rng.integers(1, 6)), cv2.LINE_AA)
    boxes, left = [], 4
    for height in heights:
        x, y = left + int(rng.integers(0, 12)), int(rng.integers(2, size_hw[0] - height - 2))
        boxes.append(figure(canvas, x, y, height, int(rng.choice([20, 230]))))
        left = x + height // 2 + 6
    noisy = canvas[None] + rng.normal(0, 8, (3, *size_hw))
    image = torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))
    objects = Objects(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))
    return Sample(image, Target(objects=objects), f"{seed}.png", size_hw)


@pytest.fixture(scope="module")
def fitted() -> HogSVM:
    samples = [scene(seed, (60, 90, 60) if seed % 2 else (120, 48)) for seed in range(12)]
    system = hog_svm(["figure", "never"], step=1.15, rounds=2)
    lines: list[str] = []
    with torch.no_grad():
        system.fit(samples, say=lines.append)
    assert any(line.startswith("never: 0 objects") for line in lines)
    assert any("figure: window of" in line for line in lines)
    return system.eval()


def test_figures_are_found_at_several_sizes_in_new_pictures(fitted: HogSVM) -> None:
    for seed, heights in ((100, (56, 110)), (101, (80, 50, 64)), (102, (130,))):
        new = scene(seed, heights)
        (answer,) = fitted.predict_images([new.image])
        best = answer[: len(heights)]
        assert (best.labels == 0).all()
        overlaps = pairwise_iou(new.target.objects.boxes_xyxy, best.boxes_xyxy).max(1).values
        assert (overlaps > 0.5).all(), (seed, overlaps)
        assert best.scores.min() > 0.5


def test_a_picture_without_figures_has_no_sure_answer(fitted: HogSVM) -> None:
    (answer,) = fitted.predict_images([scene(200, ()).image])
    assert not (answer.scores > 0.6).any()


def test_a_windows_score_is_one_place_of_the_map(fitted: HogSVM) -> None:
    learned = fitted.templates[0]
    height, width = learned.template.size_hw
    blocks = hog(scene(7, (60,)).image)
    margins = learned(blocks)
    rows, columns = height // 8 - 1, width // 8 - 1
    assert tuple(margins.shape) == (blocks.shape[0] - rows + 1, blocks.shape[1] - columns + 1)
    for y, x in ((0, 0), (3, 5), tuple(n - 1 for n in margins.shape)):
        window = blocks[y : y + rows, x : x + columns]
        assert margins[y, x] == pytest.approx(float((window * learned.weight).sum() + learned.bias), abs=1e-4)
        box = learned.windows_xyxy(torch.tensor([[y, x]]).float(), 8)[0]
        assert box.tolist() == [8 * x, 8 * y, 8 * x + width, 8 * y + height]
    assert learned(blocks[: rows - 1]).numel() == 0


def test_found_windows_are_scored_as_if_they_were_cut_out(fitted: HogSVM) -> None:
    """Where the pyramid does not resize, features of a cut-out window are those of the map."""
    image = scene(9, (60,)).image
    learned, template = fitted.templates[0], fitted.templates[0].template
    height, width = template.size_hw
    window = torch.tensor([[40.0, 16, 40 + width, 16 + height]])
    (cut,) = fitted._described(image, window, template)
    level = fitted._blocks(at_scale(image, 1))
    shift = fitted._pad // 8
    there = level[2 + shift : 2 + shift + height // 8 - 1, 5 + shift : 5 + shift + width // 8 - 1]
    torch.testing.assert_close(cut, there.flatten(), atol=1e-5, rtol=0)
    assert cut.numel() == learned.weight.numel()


def test_what_was_learned_comes_back(fitted: HogSVM) -> None:
    state, again = fitted.state_dict(), hog_svm(["figure", "never"], step=1.15)
    make_room(again, state)
    again.load_state_dict(state)
    image = scene(100, (56, 110)).image
    (one,), (other,) = fitted.predict_images([image]), again.eval().predict_images([image])
    assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)
    assert torch.equal(one.scores, other.scores)


def test_the_papers_window_has_3780_weights() -> None:
    system = hog_svm(window=(64, 128), margin=16, rounds=0, random_windows=3)
    assert system.categories == ("person",)
    with torch.no_grad():
        system.fit([scene(seed, (100, 110)) for seed in range(2)])
    learned = system.templates[0]
    assert learned.weight.numel() == 3780
    assert learned.template.object_hw == (96, 32)
    found = system.find(scene(0, (100, 110)).image)
    sides = found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.full((len(found),), 3.0), atol=0.05, rtol=0)


def test_what_cannot_be_is_named() -> None:
    for wrong in ({"cost": 0.0}, {"step": 1.0}, {"enlarge": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            hog_svm(["a"], **wrong)
    for wrong in ({"random": 0}, {"rounds": -1}, {"hard": 0}, {"apart": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            WindowMining(**wrong)
    with pytest.raises(UsageError, match="two objects"):
        hog_svm(["a"]).fit([scene(0, ())])
    with pytest.raises(UsageError, match="not been fitted"):
        hog_svm(["a"]).predict_images([scene(0, ()).image])
    tiny = Objects(torch.tensor([[0.0, 0, 4, 8], [9, 9, 13, 17]]), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UsageError, match="too small"):
        hog_svm(["a"]).fit([Sample(torch.zeros(3, 40, 40), Target(objects=tiny), "a", (40, 40))])
