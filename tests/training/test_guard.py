import json
from pathlib import Path

import pytest
import torch
from loop_parts import TinyClassifier, pictures, tiny

from bestiary.data.loader import Batch, collate
from bestiary.errors import CheckpointError, TrainingError
from bestiary.records import Camera, Objects, Target
from bestiary.training.bundle import Played, flatten_batch, replay, unflatten_batch, write_bundle
from bestiary.training.guard import MOST_SKIPPED, Guard, describe
from bestiary.training.seeding import seed_generators
from bestiary.training.settings import Settings

NAN = torch.tensor(float("nan"))
IDENTITY = {"model": "tiny", "categories": ["dark", "light"]}


def batch(first: int = 0, count: int = 2) -> Batch:
    return collate(pictures(first + count)[first:], list(range(first, first + count)))


def played(terms: dict[str, torch.Tensor], first: int = 0) -> Played:
    return Played(batch(first), terms, seed=11)


def test_the_first_bad_batch_and_its_terms_are_named() -> None:
    good = played({"class": torch.tensor(1.0), "box": torch.tensor(2.0)})
    bad = played({"class": torch.tensor(float("-inf")), "box": NAN, "mask": torch.tensor(0.5)}, first=2)
    assert describe(tiny(), [good, bad]) == (
        "the loss is not finite: class is -inf, box is nan; pictures 002.png, 003.png"
    )


def test_a_bad_gradient_names_parameters() -> None:
    system = tiny()
    system.head.weight.grad = torch.full_like(system.head.weight, float("inf"))
    system.head.bias.grad = torch.zeros_like(system.head.bias)
    found = describe(system, [played({"class": torch.tensor(1.0)})])
    assert found == "the gradient is not finite in head.weight, though the loss is; pictures 000.png, 001.png"
    assert "another process" in describe(tiny(), [played({"class": torch.tensor(1.0)})])


def test_it_stops_and_leaves_a_bundle_that_can_be_played(tmp_path: Path) -> None:
    system = tiny(dropout=0.5)
    seed_generators(11, torch.device("cpu"))
    wanted = system.loss(batch().images, batch().targets).terms["class"]
    guard = Guard(Settings(), tmp_path, IDENTITY)
    with pytest.raises(TrainingError) as caught:
        guard.bad_step(system, [played({"class": NAN, "weights": torch.tensor(1.0)})], epoch=3, step=12, writes=True)
    assert caught.value.where == "epoch 3, step 12"
    assert "class is nan; pictures 000.png, 001.png" in caught.value.message
    folder = tmp_path / "nonfinite-step-0000012"
    assert str(folder / "reproduce.py") in (caught.value.mend or "")
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["batches"] == [
        {"names": ["000.png", "001.png"], "seed": 11, "terms": {"class": "nan", "weights": "1.0"}}
    ]
    assert facts["settings"]["epochs"] == 100
    assert sorted(p.name for p in (folder / "pictures").iterdir()) == ["0-0.png", "0-1.png"]
    compile((folder / "reproduce.py").read_text(), "reproduce.py", "exec")
    other = TinyClassifier(dropout=0.5)
    losses = replay(folder, other)
    assert torch.equal(losses[0].terms["class"], wanted)


def test_a_bundle_holds_every_batch_of_the_step(tmp_path: Path) -> None:
    steps = [played({"class": torch.tensor(1.0)}, first) for first in range(0, 24, 2)]
    write_bundle(tmp_path, tiny(), IDENTITY, steps, {})
    losses = replay(tmp_path, tiny(seed=1))
    expected = [float(tiny().loss(one.batch.images, one.batch.targets).total.detach()) for one in steps]
    assert [float(one.total.detach()) for one in losses] == expected
    with pytest.raises(CheckpointError):
        replay(tmp_path / "nowhere", tiny())


def test_only_the_process_that_saw_it_writes(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        Guard(Settings(), tmp_path, IDENTITY).bad_step(tiny(), [played({"class": NAN})], 1, 1, writes=False)
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_cannot_be_written_does_not_hide_the_loss(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(TrainingError, match=r"class is nan.*could not be kept"):
        Guard(Settings(), blocked, IDENTITY).bad_step(tiny(), [played({"class": NAN})], 1, 1, writes=True)


def test_a_skipped_step_leaves_the_running_statistics_alone(tmp_path: Path) -> None:
    system = tiny(norm=True)
    guard = Guard(Settings(on_nonfinite="skip"), tmp_path, IDENTITY)
    for number in range(2):
        system(torch.rand(2, 3, 8, 8))
        before = {k: v.clone() for k, v in system.named_buffers() if v.is_floating_point()}
        guard.before(system)
        system(torch.full((2, 3, 8, 8), float("nan")))
        assert not torch.isfinite(system.stem[1].running_mean).any()
        guard.bad_step(system, [played({"class": NAN})], 1, number + 1, writes=True)
        assert all(torch.equal(dict(system.named_buffers())[k], v) for k, v in before.items())
    assert [note.split(":")[0] for note in guard.notes] == [
        "step 1 (epoch 1) was skipped",
        "step 2 (epoch 1) was skipped",
    ]
    assert not list(tmp_path.iterdir())


def test_too_many_skipped_in_a_row_stop(tmp_path: Path) -> None:
    guard = Guard(Settings(on_nonfinite="skip"), tmp_path, IDENTITY)
    for number in range(MOST_SKIPPED - 1):
        guard.bad_step(tiny(), [played({"class": NAN})], 1, number, writes=False)
    guard.good_step()
    for number in range(MOST_SKIPPED - 1):
        guard.bad_step(tiny(), [played({"class": NAN})], 1, number, writes=False)
    with pytest.raises(TrainingError, match=f"{MOST_SKIPPED} steps in a row"):
        guard.bad_step(tiny(), [played({"class": NAN})], 1, 99, writes=False)


def test_a_batch_with_every_kind_of_truth_survives() -> None:
    objects = Objects(torch.tensor([[0.0, 1, 2, 3]]), torch.tensor([4]), masks=torch.ones(1, 2, 2, dtype=torch.bool))
    rich = Target(
        label=3,
        objects=objects,
        label_map=torch.zeros(2, 2, dtype=torch.uint8),
        depth=torch.ones(2, 2),
        camera=Camera(torch.eye(3), torch.eye(4)),
        caption="a line",
    )
    before = Batch(
        [torch.zeros(3, 2, 2), torch.zeros(3, 4, 4)], [rich, Target(objects=Objects.empty())], ["a", "b"], [5, 6]
    )
    tensors, described = flatten_batch(before)
    after = unflatten_batch(tensors, json.loads(json.dumps(described)))
    assert (after.names, after.indices) == (["a", "b"], [5, 6])
    first, second = after.targets
    assert (first.label, first.caption, second.label, second.label_map) == (3, "a line", None, None)
    assert first.objects is not None
    assert second.objects is not None
    assert torch.equal(first.objects.boxes_xyxy, objects.boxes_xyxy)
    assert first.objects.masks is not None
    assert first.objects.keypoints is None
    assert len(second.objects) == 0
    assert first.camera is not None
    assert torch.equal(first.camera.pose, torch.eye(4))
