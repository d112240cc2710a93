"""Training in stages: what each learns, where it is kept, and that a stopped run goes on as one that was not."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bestiary.array_cache import ArrayCache
from bestiary.errors import CheckpointError, UsageError
from bestiary.layers.learned import Learned
from bestiary.predictions import Classification
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.recipes.classification import ClassificationPictures
from bestiary.recipes.recipe import Recipe, Stage
from bestiary.records import Losses, Sample, Target
from bestiary.system import System
from bestiary.training.checkpoint import read_model
from bestiary.training.fitting import FitSettings
from bestiary.training.settings import Settings
from bestiary.verbs import staging
from bestiary.verbs.staging import Lesson


class Means(Learned):
    """A part that is fitted."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("centres")


class ThreeSteps(System):
    """A trunk learns, class means are fitted to its features, a head learns."""

    task = "classification"
    model_name = "three_steps"

    def __init__(self) -> None:
        super().__init__(["dark", "light"])
        self.trunk, self.head, self.means = nn.Linear(3, 4), nn.Linear(4, 2), Means()
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.stage = ""
        self.begun: list[str] = []

    def begin_stage(self, name: str) -> None:
        self.stage = name
        self.begun.append(name)

    def features(self, images: Sequence[Tensor]) -> Tensor:
        colours = torch.stack(
            [image.float().mean((1, 2)) / (255 if image.dtype == torch.uint8 else 1) for image in images]
        )
        return self.trunk(colours).tanh()

    def loss(self, images: Sequence[Tensor], targets: Sequence[Target]) -> Losses:
        labels = torch.tensor([target.label for target in targets])
        logits = self.head(self.features(images))
        name = {"trunk": "first", "head": "second"}[self.stage]
        return Losses({name: nn.functional.cross_entropy(logits, labels)})

    def fit_stage(
        self, name: str, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        assert name == "means"
        assert not torch.is_grad_enabled()
        features = self.features([sample.image for sample in samples])
        labels = torch.tensor([sample.target.label for sample in samples])
        self.means.learn("centres", torch.stack([features[labels == k].mean(0) for k in (0, 1)]))
        say(f"seed {seed}")

    def predict_images(self, images: Sequence[Tensor]) -> list[Classification]:
        probs = self.head(self.features(images)).softmax(1)
        return [
            Classification(p, size_hw=tuple(i.shape[-2:]), categories=self.categories)
            for p, i in zip(probs, images, strict=True)
        ]


def samples(count: int = 12) -> list[Sample]:
    made = []
    for i in range(count):
        label = i % 2
        image = torch.full((3, 8, 8), 60 + 130 * label + i, dtype=torch.uint8)
        made.append(Sample(image, Target(label=label), f"{i}.png", (8, 8)))
    return made


def recipe(**steps: int) -> Recipe:
    def loop(name: str, only: str) -> Settings:
        return Settings(epochs=2, batch=4, lr=0.5, train_only=(only,), steps=steps.get(name), tensorboard=False)

    pictures = ClassificationPictures(resize=8, crop=8, area=None)
    stages = (
        Stage("trunk", loop("trunk", "trunk"), "the trunk learns", is_scored=False),
        Stage("means", FitSettings(seed=3)),
        Stage("head", loop("head", "head")),
    )
    return Recipe("classification", stages[0].settings, pictures, stages=stages)


class Pictures(list[Sample]):
    """An open data set."""

    categories = ("dark", "light")


def lesson(system: System, said: list[str] | None = None, **steps: int) -> Lesson:
    told = (said if said is not None else []).append
    return Lesson(system, recipe(**steps), Pictures(samples()), Pictures(samples(4)), told)


def make() -> ThreeSteps:
    torch.manual_seed(0)
    return ThreeSteps()


@pytest.fixture
def whole(tmp_path: Path, no_drawing: None) -> tuple[ThreeSteps, Path, list[str]]:
    system, said = make(), []
    run = lesson(system, said).run(tmp_path / "whole", resume=False)
    assert run.stopped == "stages"
    assert [row["stage"] for row in run.history] == ["trunk", "trunk", "means", "head", "head"]
    return system, run.folder, said


def test_each_stage_learns_its_part_alone_and_is_kept(whole) -> None:
    system, folder, said = whole
    assert system.begun == ["trunk", "means", "head"]
    assert said[:2] == ["stage 1 of 3, trunk: the trunk learns", "stage 2 of 3, means"]
    assert "seed 3" in said
    start, files = make().state_dict(), [folder / f"{i}-{name}" for i, name in enumerate(("trunk", "means", "head"), 1)]
    states = [read_model(path / "best.safetensors")[0] for path in files]
    moved = [{name for name in before if before[name].shape != after[name].shape or not before[name].equal(after[name])}
             for before, after in zip([start, *states], states, strict=False)]  # fmt: skip
    assert moved == [{"trunk.weight", "trunk.bias"}, {"means.centres"}, {"head.weight", "head.bias"}]
    for name in ("best.safetensors", "last.safetensors"):
        final, identity = read_model(folder / name)
        assert all(value.equal(states[2][key]) for key, value in final.items())
        assert identity["model"] == "three_steps"
        assert identity["recipe"]["means.seed"] == 3
    assert json.loads((folder / "stages.json").read_text(encoding="utf-8"))["done"] == ["trunk", "means", "head"]
    assert [name for name, p in system.named_parameters() if not p.requires_grad] == ["frozen"]


def test_scores_choose_only_where_predictions_mean_something(whole) -> None:
    _, folder, _ = whole
    first, last = ((folder / name / "results.csv").read_text(encoding="utf-8") for name in ("1-trunk", "3-head"))
    assert "val/first" in first
    assert "score/" not in first
    assert "score/top1" in last


@pytest.mark.parametrize("killed_in", ["means", "head"])
def test_a_run_killed_in_a_stage_ends_as_one_that_was_not(whole, killed_in, tmp_path, monkeypatch, no_drawing) -> None:
    _, folder, _ = whole
    out, said = tmp_path / "killed", []

    def stop(self: object, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ThreeSteps, "fit_stage" if killed_in == "means" else "predict_images", stop)
        with pytest.raises(KeyboardInterrupt):
            lesson(make()).run(out, resume=False)
    system = make()
    run = lesson(system, said).run(out, resume=True)
    assert said[0] == "stage 1 of 3, trunk: done before"
    assert run.stopped == "stages"
    assert "trunk" not in system.begun
    wanted, _ = read_model(folder / "best.safetensors")
    found, _ = read_model(run.best)
    assert all(value.equal(found[name]) for name, value in wanted.items())


def test_a_stage_that_ran_out_of_time_ends_the_call(tmp_path: Path, monkeypatch, no_drawing) -> None:
    timed = recipe().with_fields({"head.minutes": 1e-9})
    assert [getattr(stage.settings, "minutes", None) for stage in timed.stages] == [None, None, 1e-9]
    parts = lesson(make())
    run = Lesson(parts.system, timed, parts.training, parts.held_out, parts.say).run(tmp_path / "run", resume=False)
    assert run.stopped == "minutes"
    assert run.best.parent.name == "3-head"
    assert not (tmp_path / "run" / "best.safetensors").exists()
    again = lesson(make()).run(tmp_path / "run", resume=True)
    assert again.stopped == "stages"
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_folders_are_neither_overwritten_nor_guessed(whole, tmp_path: Path) -> None:
    _, folder, _ = whole
    with pytest.raises(UsageError, match="holds a run already"):
        lesson(make()).run(folder, resume=False)
    with pytest.raises(CheckpointError, match="no run to resume"):
        lesson(make()).run(tmp_path / "nothing", resume=True)
    (folder / "stages.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"stages\.json"):
        lesson(make()).run(folder, resume=True)


class Halves(Proposer):
    """Both halves of a picture, once it has learned how wide pictures are."""

    name = "halves"

    def __init__(self) -> None:
        super().__init__()
        self.declare("width")
        self.found = 0

    def settings(self) -> dict[str, int]:
        return {}

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        self.learn("width", torch.tensor([float(samples[0].image.shape[-1])]))

    def find(self, image: Tensor) -> Proposals:
        self.found += 1
        half = float(self.width) / 2
        boxes = torch.tensor([[0, 0, half, 8], [half, 0, 2 * half, 8]])
        return Proposals(boxes, torch.tensor([1.0, 0.5]))


def test_proposals_come_with_every_picture_and_are_found_once(tmp_path: Path) -> None:
    system = make()
    assert lesson(system).with_proposals(None).training[0].target.proposals_xyxy is None, "there is no proposer"
    system.proposer, system.proposal_count = Halves(), 1
    said: list[str] = []
    cache = ArrayCache(tmp_path)
    prepared = lesson(system, said).with_proposals(cache)
    for part, count in ((prepared.training, 12), (prepared.held_out, 4)):
        assert [sample.target.proposals_xyxy.tolist() for sample in (part[i] for i in range(len(part)))] == [
            [[0, 0, 4, 8]]
        ] * count
    assert system.proposer.found == 12, "the four held out are the first four of the others, by their pixels"
    assert any("halves: 1 boxes a picture, 12 pictures" in line for line in said)
    again = make()
    again.proposer = Halves()
    assert len(lesson(again).with_proposals(cache).training[3].target.proposals_xyxy) == 2
    assert again.proposer.found == 0, "another run reads what is on disk"


def test_what_is_done_is_not_done_again(whole, monkeypatch) -> None:
    _, folder, _ = whole
    monkeypatch.setattr(staging.loop, "train", lambda *_, **__: pytest.fail("it trains again"))
    assert lesson(make()).run(folder, resume=True).history == []
