"""The main job on small made pictures: create, train, fine-tune, load, evaluate, predict."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import bestiary
from bestiary import zoo
from bestiary.cli.main import main
from bestiary.errors import CheckpointError, DataError, UsageError
from bestiary.pictures.encode import write_image
from bestiary.verbs.models import identity_of, load_weights, save
from bestiary.verbs.predicting import Outputs, Timing, predict_source
from bestiary.verbs.training import Splits, lesson_of


def make_folder(root: Path, per_class: int = 12) -> Path:
    """Two classes that a colour tells apart, with noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", per_class), ("val", 4), ("test", 4)):
        for name, channel in (("red things", 0), ("blaue Dinge ü", 2)):
            for i in range(count):
                picture = rng.integers(0, 90, (3, 36, 40), dtype=np.uint8)
                picture[channel] += 140
                write_image(root / split / name / f"{i}.png", torch.from_numpy(picture))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("colours"))


FAST = {"epochs": 2, "batch": 8, "lr": 0.02, "warmup_steps": 0, "tensorboard": False, "precision": "fp32"}


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bestiary.verbs.training.TrainedRun:
    return bestiary.train("resnet18_cifar", folder, out=tmp_path_factory.mktemp("runs") / "one", **FAST)


def test_the_seed_draws_the_fresh_parameters_whatever_was_drawn_before(folder) -> None:
    def weights(seed: int, before: int) -> torch.Tensor:
        torch.manual_seed(before)
        recipe = zoo.recipe_of("resnet18_cifar").with_fields({"seed": seed})
        made = lesson_of("resnet18_cifar", folder, recipe, Splits())
        assert torch.initial_seed() == before, "the caller's generator is as it was"
        return made.system.conv1.weight

    assert torch.equal(weights(0, 1), weights(0, 2))
    assert not torch.equal(weights(0, 1), weights(1, 1))


def test_a_folder_of_pictures_becomes_a_measured_model(run, folder) -> None:
    assert run.scores[0].values["top1"] == 1.0
    assert run.stopped == "epochs"
    assert len(run.history) == 2
    page = run.report.read_text(encoding="utf-8")
    assert "blaue Dinge ü" in page
    names = {p.name for p in run.folder.iterdir()}
    assert {
        "best.safetensors",
        "last.safetensors",
        "results.csv",
        "curves.png",
        "settings.json",
        "report.html",
    } <= names
    model = bestiary.load(run.best)
    prediction = model.predict(folder / "test" / "red things" / "0.png")[0]
    assert prediction.top(1)[0][0] == "red things"
    assert prediction.size_hw == (36, 40)


def test_a_checkpoint_rebuilds_the_model_bit_for_bit(run, tmp_path) -> None:
    model = bestiary.load(run.best)
    again = bestiary.load(save(model, tmp_path / "copy.safetensors"))
    assert again.categories == model.categories == ("blaue Dinge ü", "red things")
    assert identity_of(again) == identity_of(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_new_head_alone_is_trained_and_the_trunk_stays_bit_identical(run, folder, tmp_path) -> None:
    # Another number of classes, so that the head must start anew.
    for split in ("train", "val"):
        for i in range(8):
            picture = torch.full((3, 36, 40), 30, dtype=torch.uint8)
            picture[1] = 200
            write_image(tmp_path / "data" / split / "green" / f"{i}.png", picture)
            for name in ("red things", "blaue Dinge ü"):
                source = folder / "train" / name / f"{i}.png"
                target = tmp_path / "data" / split / name / f"{i}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    said: list[str] = []
    trunk = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    tuned = bestiary.train(
        "resnet18_cifar",
        tmp_path / "data",
        weights=run.best,
        out=tmp_path / "tuned",
        splits=Splits(test=None),
        say=said.append,
        **{**FAST, "epochs": 1, "freeze": trunk},
    )
    assert any("new head" in line for line in said)
    before, after = bestiary.load(run.best).state_dict(), bestiary.load(tuned.last).state_dict()
    assert after["fc.weight"].shape == (3, 512)
    for name, value in before.items():
        if name.split(".")[0] in trunk:
            assert torch.equal(value, after[name]), name


def test_evaluate_equals_counting_by_hand(run, folder) -> None:
    model = bestiary.load(run.best)
    result = bestiary.evaluate(model, folder, split="test")
    right = 0
    for label, name in enumerate(model.categories):
        right += sum(p.label == label for p in model.predict(folder / "test" / name))
    assert result.scores[0].values["top1"] == right / 8


def test_create_gives_published_layouts_and_the_users() -> None:
    with torch.device("meta"):
        assert len(zoo.build("resnet50").categories) == 1000
        assert (
            zoo.build("fasterrcnn_resnet50_fpn").state_dict()["roi_heads.box_predictor.cls_score.weight"].shape[0] == 91
        )
        assert zoo.build("resnet50", ["a", "b"]).state_dict()["fc.weight"].shape == (2, 2048)
    assert not bestiary.create("resnet18_cifar", ["a", "b"]).training


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_every_model_can_be_built_described_and_found_by_task(name: str) -> None:
    entry = zoo.ZOO[name]
    with torch.device("meta"):
        system = zoo.build(name)
        named = zoo.build(name, ["a", "b", "c"])
    assert system.task == entry.task
    assert named.categories == ("a", "b", "c")
    assert name in bestiary.list_models(entry.task)
    facts = bestiary.verbs.describe(name).facts
    assert facts["parameters"] == sum(p.numel() for p in system.parameters())


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        bestiary.create("resnet5O")
    with pytest.raises(UsageError, match="Did you mean 'detection'"):
        bestiary.list_models("detektion")
    with pytest.raises(UsageError, match="Did you mean 'min_size'"):
        bestiary.create("fasterrcnn_resnet18_fpn", ["a"], arguments={"minsize": 3})
    with pytest.raises(UsageError, match="Did you mean --epochs"):
        bestiary.train("resnet18_cifar", "nowhere", epoch=3)


def test_data_without_a_validation_split_is_split_by_name_and_says_so(folder, tmp_path) -> None:
    only = tmp_path / "only"
    for path in (folder / "train").rglob("*.png"):
        target = only / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    said: list[str] = []
    finished = bestiary.train(
        "resnet18_cifar",
        only,
        out=tmp_path / "run",
        splits=Splits(train="all"),
        say=said.append,
        **{**FAST, "epochs": 1},
    )
    assert any("set aside" in line for line in said)
    assert finished.scores, "measured on what was set aside"


def test_a_checkpoint_of_another_model_says_what_does_not_fit(run, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(zoo.build("unet_padded_small", ["a", "b"]), run.best)
    with pytest.raises(CheckpointError):
        bestiary.load(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(run.best.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="broken"):
        bestiary.load(tmp_path / "broken.safetensors")


def test_a_folder_with_nothing_in_it_is_a_data_error(tmp_path) -> None:
    with pytest.raises(DataError):
        bestiary.train("resnet18_cifar", tmp_path, out=tmp_path / "run")


def test_predictions_stream_to_files_and_broken_pictures_are_named(run, folder, tmp_path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes((folder / "test" / "red things" / "0.png").read_bytes())
    (pictures / "b.png").write_bytes(b"")
    said: list[str] = []
    outputs = Outputs(tmp_path / "out", coco=True)
    found = list(predict_source(bestiary.load(run.best), str(pictures), outputs, say=said.append))
    assert [p.name for p in found] == ["a.png"]
    assert len(said) == 1
    assert "b.png" in said[0]
    assert (tmp_path / "out" / "a.jpg").exists()
    assert (tmp_path / "out" / "predictions.coco.json").read_text() == "[]\n"


def test_a_graphs_settings_are_refused_for_a_checkpoint(tmp_path: Path) -> None:
    save(bestiary.create("resnet18_cifar", ["a", "b"]), tmp_path / "best.safetensors")
    with pytest.raises(UsageError, match="threads=1"):
        bestiary.load(tmp_path, threads=1)
    with pytest.raises(UsageError, match="bfloat16"):
        bestiary.load(tmp_path, precision="bfloat16")


def test_predictions_name_as_many_classes_as_asked_and_say_where_the_time_went(run, folder, capsys) -> None:
    model, timing = bestiary.load(run.best), Timing()
    outputs = Outputs(folder / "none", draw=False, top=1)
    found = list(predict_source(model, str(folder / "test" / "red things"), outputs, batch=3, timing=timing))
    assert len(found) == 4
    assert outputs.summary(found[0]) == f"red things {found[0].top(1)[0][1]:.3f}"
    assert [t["category"] for t in outputs.document(found[0])["top"]] == ["red things"]
    assert timing.pictures == 1, "the first batch of three is kept apart"
    assert min(timing.decode_s, timing.network_s, timing.first_s) > 0
    assert re.fullmatch(r"decode [\d.]+ ms, network [\d.]+ ms a picture \(first batch [\d.]+ ms\)", timing.summary())
    with pytest.raises(UsageError, match="--top: got 0"):
        list(predict_source(model, str(folder), Outputs(folder / "none", top=0)))


def test_timing_by_hand() -> None:
    timing = Timing()
    assert timing.summary() == ""
    timing.add(2, 0.5, 1.0)
    assert timing.summary() == "first batch 1500.0 ms"
    timing.add(2, 0.010, 0.030)
    timing.add(3, 0.015, 0.050)
    assert timing.summary() == "decode 5.0 ms, network 16.0 ms a picture (first batch 1500.0 ms)"


def test_train_only_the_head_by_its_name(run, folder, tmp_path) -> None:
    fields = {**FAST, "epochs": 1, "train_only": ("head",), "ema": 0.9, "weight_decay": 0.1}
    tuned = bestiary.train(
        "resnet18_cifar", folder, weights=run.best, out=tmp_path / "tuned", splits=Splits(test=None), **fields
    )
    before, after = bestiary.load(run.best).state_dict(), bestiary.load(tuned.last).state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"fc.weight", "fc.bias"}


def test_a_loaded_classifier_has_its_channels_innermost_and_says_the_same(run, folder) -> None:
    loaded = bestiary.load(run.best)
    built = bestiary.create("resnet18_cifar", loaded.categories, weights=run.best)
    assert loaded.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert built.layer1[0].conv1.weight.is_contiguous()
    for one, two in zip(loaded.predict(folder / "test"), built.predict(folder / "test"), strict=True):
        torch.testing.assert_close(one.probs, two.probs, atol=1e-5, rtol=1e-4)


def test_a_precision_stands_behind_the_runtimes_name(run, folder, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(run.best), str(folder), "--no-draw", "--runtime", "torch:bfloat16"])
    assert stop.value.code == 2
    assert "precision='bfloat16' for a checkpoint in torch" in capsys.readouterr().err
