"""The boosted cascade as a detector: planted marks are found at several sizes, windows are merged, and what was learned
comes back from a checkpoint.
"""

import numpy as np
import pytest
import torch

from bestiary.detection.viola_jones import ViolaJones, viola_jones
from bestiary.errors import UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.fitted_detection import Found
from bestiary.layers.learned import make_room
from bestiary.records import Objects, Sample, Target

SIZE = (120, 160)


def mark(picture: np.ndarray, x: int, y: int, side: int) -> None:
    """Something like a face: bright, with a dark bar for the eyes and another for the mouth."""
    picture[y : y + side, x : x + side] += 70
    picture[y + side // 4 : y + side // 2, x + side // 8 : x + side - side // 8] -= 110
    picture[y + 3 * side // 4 : y + 7 * side // 8, x + side // 4 : x + 3 * side // 4] -= 90


def scene(seed: int, sides: tuple[int, ...]) -> Sample:
    """Marks side by side among bright and dark rectangles, under noise."""
    rng = np.random.default_rng(seed)
    picture = np.full(SIZE, 110.0)
    for _ in range(15):
        y, x = int(rng.integers(0, SIZE[0])), int(rng.integers(0, SIZE[1]))
        picture[y : y + int(rng.integers(4, 40)), x : x + int(rng.integers(4, 40))] += rng.uniform(-70, 70)
    boxes, left = [], 3
    for side in sides:
        x, y = left + int(rng.integers(0, 8)), int(rng.integers(2, SIZE[0] - side - 2))
        picture[y : y + side, x : x + side] = 110
        mark(picture, x, y, side)
        boxes.append([float(x), float(y), float(x + side), float(y + side)])
        left = x + side + 3
    noisy = picture[None] + rng.normal(0, 8, (3, *SIZE))
    image = torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))
    objects = Objects(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))
    return Sample(image, Target(objects=objects), f"{seed}.png", SIZE)


@pytest.fixture(scope="module")
def fitted() -> ViolaJones:
    samples = [scene(seed, (28, 44, 32) if seed % 2 else (56, 24, 36)) for seed in range(16)]
    system = viola_jones(["mark", "never"], stages=6, pool=800, negatives=400, most_features=20)
    lines: list[str] = []
    with torch.no_grad():
        system.fit(samples, say=lines.append)
    assert any(line.startswith("never: 0 objects") for line in lines)
    assert any(line.startswith("mark, stage 1:") for line in lines)
    return system.eval()


def test_marks_are_found_at_several_sizes_in_new_pictures(fitted: ViolaJones) -> None:
    for seed, sides in ((100, (26, 50)), (101, (34, 30, 42)), (102, (58,))):
        new = scene(seed, sides)
        (answer,) = fitted.predict_images([new.image])
        best = answer[: len(sides)]
        overlaps = pairwise_iou(new.target.objects.boxes_xyxy, best.boxes_xyxy).max(1).values
        assert (overlaps > 0.5).all(), (seed, overlaps)
        assert (best.labels == 0).all()


def test_the_cascade_is_one_of_stages_that_reject(fitted: ViolaJones) -> None:
    cascade = fitted.cascade(0)
    assert 2 <= cascade.stages <= 6
    assert fitted.cascade(1).stages == 0
    assert cascade.template.size_hw == (24, 24)
    assert not len(fitted.find(torch.full((3, *SIZE), 128, dtype=torch.uint8)))


def test_lenient_answers_are_more_and_less_sure(fitted: ViolaJones) -> None:
    image = scene(101, (34, 30, 42)).image
    strict = fitted.find(image)
    try:
        fitted.lenient = 2
        lenient = fitted.find(image)
    finally:
        fitted.lenient = 0
    assert len(lenient) > len(strict)
    assert set(map(tuple, strict.boxes_xyxy.tolist())) < set(map(tuple, lenient.boxes_xyxy.tolist()))
    assert strict.margins.min() >= 0
    assert lenient.margins.min() < strict.margins.min()


def test_overlapping_windows_are_averaged() -> None:
    system = viola_jones(["mark", "other"], merge_overlap=0.5)
    boxes = torch.tensor([[10.0, 10, 30, 30], [12, 10, 32, 30], [14, 10, 34, 30], [70, 70, 90, 90], [10, 10, 30, 30]])
    found = Found(boxes, torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0.0, 0.0, 0.0, 0.5, 0.25]))
    merged = system.merge(found)
    assert merged.labels.tolist() == [0, 0, 1]
    together = merged.boxes_xyxy[:, 0].argsort()
    expected = torch.tensor([[12.0, 10, 32, 30], [10, 10, 30, 30], [70, 70, 90, 90]])
    assert {tuple(b) for b in merged.boxes_xyxy.tolist()} == {tuple(b) for b in expected.tolist()}
    assert len(together) == 3
    three = merged.margins[(merged.boxes_xyxy[:, 0] == 12).nonzero()[0, 0]]
    assert float(three) == pytest.approx(np.log(3))
    alone = ViolaJones(["mark", "other"], merge_overlap=0.5, least_windows=2).merge(found)
    assert alone.boxes_xyxy.tolist() == [[12, 10, 32, 30]]
    assert len(system.merge(found[:0])) == 0


def test_what_was_learned_comes_back(fitted: ViolaJones) -> None:
    state, again = fitted.state_dict(), viola_jones(["mark", "never"])
    make_room(again, state)
    again.load_state_dict(state)
    image = scene(100, (26, 50)).image
    (one,), (other,) = fitted.predict_images([image]), again.eval().predict_images([image])
    assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)
    assert torch.equal(one.scores, other.scores)


def test_the_same_seed_learns_the_same() -> None:
    learned = []
    for _ in range(2):
        system = viola_jones(["mark"], stages=2, pool=200, negatives=100, most_features=5)
        with torch.no_grad():
            system.fit([scene(seed, (28, 44)) for seed in range(3)], seed=4)
        learned.append(system.state_dict())
    assert all(torch.equal(value, learned[1][name]) for name, value in learned[0].items())


def test_what_cannot_be_is_named() -> None:
    assert viola_jones().categories == ("face",)
    for wrong in ({"cuts": 0}, {"lenient": -1}, {"least_windows": 0}, {"factor": 1}, {"step": 0}, {"window": (7, 24)}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ViolaJones(["a"], **wrong)
    with pytest.raises(UsageError, match="two objects"):
        viola_jones(["a"]).fit([scene(0, ())])
    with pytest.raises(UsageError, match="not been fitted"):
        viola_jones(["a"]).predict_images([scene(0, ()).image])
