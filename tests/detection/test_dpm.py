"""The detector around the mixtures: it learns, predicts, is saved, tells parts, and says what is wrong."""

from pathlib import Path

import pytest
import torch

from bestiary.detection.dpm import DPM, dpm, uncovered
from bestiary.errors import UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.published import VOC_20
from bestiary.records import Objects, Sample, Target

KINDS = ["pin", "gate", "ghost"]
SMALL = {
    "parts": 2,
    "rounds": 1,
    "passes": 2,
    "cost": 0.05,
    "least_area": 1000.0,
    "per_octave": 4,
}


def sample(seed: int, kinds: tuple[int, ...] = (0, 1)) -> Sample:
    """A disc over a bar, and two posts under a beam, on noise."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 100, 150
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = 100 + 12 * torch.randn(3, height, width, generator=generator)
    boxes = []
    for place, kind in enumerate(kinds):
        cx, cy = (torch.tensor([36 + 74 * place, 46]) + 14 * torch.rand(2, generator=generator) - 7).tolist()
        if kind == 0:
            image[:, ((x - cx) ** 2 + (y - cy + 17) ** 2) < 70] = 235.0
            image[:, ((x - cx).abs() < 4) & ((y - cy - 9).abs() < 18)] = 15.0
            boxes.append([cx - 13, cy - 28, cx + 13, cy + 28])
        else:
            for post in (-15, 15):
                image[:, ((x - cx - post).abs() < 4) & ((y - cy).abs() < 20)] = 230.0
            image[:, ((x - cx).abs() < 20) & ((y - cy + 17).abs() < 4)] = 20.0
            boxes.append([cx - 21, cy - 22, cx + 21, cy + 22])
    objects = Objects(torch.tensor(boxes).view(-1, 4), torch.tensor(kinds, dtype=torch.int64))
    return Sample(image.clamp(0, 255).to(torch.uint8), Target(objects=objects), f"{seed}.png", (height, width))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [sample(seed, (seed % 2, 1 - seed % 2)) for seed in range(8)]


@pytest.fixture(scope="module")
def system(samples: list[Sample]) -> DPM:
    lines: list[str] = []
    system = dpm(KINDS, **SMALL)
    system.fit(samples, 0, lines.append)
    assert any("ghost: no object" in line for line in lines)
    assert any(line.startswith("pin: round 1 of 1: 8 of 8 objects placed") for line in lines)
    return system


def test_objects_are_found_in_new_pictures(system: DPM) -> None:
    right = 0
    for seed in range(50, 56):
        new = sample(seed)
        (found,) = system.predict(new.image)
        assert (found.scores.diff() <= 0).all()
        assert found.boxes_xyxy.min() >= 0
        assert set(found.labels.tolist()) <= {0, 1}
        objects = new.target.objects
        assert objects is not None
        for box, label in zip(objects.boxes_xyxy, objects.labels, strict=True):
            mine = found[found.labels == label]
            right += bool(len(mine) and pairwise_iou(mine.boxes_xyxy[:1], box[None]) > 0.5)
    assert right >= 10


def test_parts_lie_on_their_objects(system: DPM) -> None:
    new = sample(60)
    found, parts = system.find_parts(new.image)
    assert parts.shape == (len(found), 2, 4)
    assert (found.margins.diff() <= 0).all()
    best, root = parts[0], found.boxes_xyxy[0]
    middle = (best[:, :2] + best[:, 2:]) / 2
    assert bool(((middle >= root[:2] - 8) & (middle <= root[2:] + 8)).all())
    sheet = system.draw_parts(new.image, threshold=float(found.margins[0]) - 0.1)
    assert sheet.shape == new.image.shape
    assert not torch.equal(sheet, new.image)
    nothing = system.draw_parts(new.image, threshold=1e6)
    assert torch.equal(nothing, new.image)


def test_what_was_learned_is_saved_whole(system: DPM, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file(system.state_dict(), tmp_path / "dpm.safetensors")
    again, state = dpm(KINDS, **SMALL), load_file(tmp_path / "dpm.safetensors")
    for prefix, part in (("mixture.", again.mixture), ("scale.", again.scale)):
        for name in part.declared:
            part.learn(name, state[prefix + name])
    for a, b in zip(system.predict(sample(61).image), again.predict(sample(61).image), strict=True):
        assert torch.equal(a.boxes_xyxy, b.boxes_xyxy)
        assert torch.equal(a.scores, b.scores)


def test_the_seed_decides_everything(system: DPM, samples: list[Sample]) -> None:
    again = dpm(KINDS, **SMALL)
    again.fit(samples, 0)
    for (name, a), b in zip(system.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_grey_picture_and_a_tiny_one(system: DPM) -> None:
    assert len(system.predict(sample(62).image[:1])) == 1
    (found,) = system.predict(torch.zeros(3, 9, 7, dtype=torch.uint8))
    assert found.size_hw == (9, 7)
    assert (found.boxes_xyxy[:, 2:] <= torch.tensor([7.0, 9.0])).all()


def test_another_suppression_sees_all_windows(system: DPM) -> None:
    image = sample(63).image
    windows = system.find(image)
    assert len(system.merge(windows)) < len(windows)
    soft = dpm(KINDS, **SMALL)
    soft.take({"suppression": "soft_gaussian"})
    assert len(soft.merge(windows)) == len(windows)


def test_context_judges_what_stays(system: DPM, samples: list[Sample]) -> None:
    judge = dpm(KINDS, **SMALL, context=True)
    assert judge.context is not None
    for name in system.mixture.declared:
        judge.mixture.learn(name, getattr(system.mixture, name))
    judge._fit_context(judge.context, samples, 0, lambda _: None)
    plain, judged = system.find(samples[0].image), judge.find(samples[0].image)
    stays = system.merge(plain)
    assert torch.equal(judged.boxes_xyxy, stays.boxes_xyxy)
    assert torch.equal(judge.merge(judged).margins, judged.margins)
    known = judge.context.known[judged.labels]
    assert torch.equal(judged.margins[~known], stays.margins[~known])


def test_a_box_goes_if_a_better_one_covers_it() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 2, 6, 6], [0, 6, 10, 16], [0, 4, 10, 14], [2, 2, 6, 6]])
    margins, labels = torch.tensor([5.0, 4, 3, 2, 1]), torch.tensor([0, 0, 0, 0, 1])
    # The second lies in the first though their IoU is 0.16; of the fourth 60 % lie in the first.
    assert uncovered(boxes, labels, margins, 0.5).tolist() == [0, 2, 4]
    # The fourth first: it covers 60 % of the first and 80 % of the third.
    assert uncovered(boxes, labels, margins.flip(0), 0.5).tolist() == [4, 3, 1]
    assert uncovered(boxes, labels, margins, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert uncovered(boxes[:0], labels[:0], margins[:0], 0.5).tolist() == []


def test_nothing_to_learn_from_is_said(samples: list[Sample]) -> None:
    empty = [Sample(s.image, Target(objects=Objects.empty()), s.name, s.original_size_hw) for s in samples[:2]]
    with pytest.raises(UsageError, match="no object could be learned from"):
        dpm(KINDS, **SMALL).fit(empty)
    with pytest.raises(UsageError, match="not been fitted"):
        dpm(KINDS, **SMALL).predict(samples[0].image)
    with pytest.raises(UsageError, match="no loss"):
        dpm(KINDS).loss([samples[0].image], [samples[0].target])
    assert dpm().categories == VOC_20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("components", 0), ("parts", -1), ("rounds", -1), ("passes", 0), ("per_octave", 0), ("cost", 0.0),
        ("least_area", -1.0), ("least_area", 6000.0), ("finest", 3), ("positives", 0), ("pictures", 0),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        dpm(KINDS, **{name: value})
