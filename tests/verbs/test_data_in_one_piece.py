"""Data without splits of their own, or without some: what training sets aside can be measured, by every verb."""

from pathlib import Path

import pytest
import torch

from bestiary.data.dataset import Dataset
from bestiary.errors import UsageError
from bestiary.pictures.encode import write_image, write_map
from bestiary.verbs.datasets import HELD_OUT, Samples, has_learned, open_measured, open_split
from bestiary.verbs.embedding import embed
from bestiary.verbs.evaluating import evaluate
from bestiary.verbs.models import load
from bestiary.verbs.training import Splits, set_aside, train
from bestiary.zoo import build

TASK = "segmentation"


def names_of(samples: Samples) -> set[str]:
    assert isinstance(samples, Dataset)
    return set(samples.names)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Twenty pictures beside their maps."""
    root = tmp_path / "whole"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(20):
        write_image(root / "images" / f"{number:02}.png", torch.full((3, 16, 20), number, dtype=torch.uint8))
        write_map(root / "labels" / f"{number:02}.png", torch.arange(320).view(16, 20).to(torch.uint8) % 2)
    (root / "classes.txt").write_text("ground\ncell\n", encoding="utf-8")
    return root


def folders(root: Path, *splits: str) -> Path:
    """Ten pictures of two classes in each split."""
    for split in splits:
        for number in range(10):
            folder = root / split / ("odd" if number % 2 else "even")
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{number}.png", torch.full((3, 32, 32), 20 * number, dtype=torch.uint8))
    return root


def test_the_division_is_the_one_that_training_makes(whole: Path) -> None:
    everything = open_split(whole, "all", TASK)
    learned, held = set_aside(everything, HELD_OUT)
    train, val = open_split(whole, "train", TASK), open_split(whole, "val", TASK)
    assert (names_of(train), names_of(val)) == (names_of(learned), names_of(held))
    assert names_of(train) | names_of(val) == names_of(everything)
    assert 0 < len(val) < len(train)


def test_without_pictures_for_validation_they_come_from_the_training_pictures(tmp_path: Path) -> None:
    data = folders(tmp_path / "data", "train", "test")
    train, val = open_split(data, "train", "classification"), open_split(data, "val", "classification")
    assert len(train) == 10, "the split that the data has stays as it is"
    assert names_of(val) < names_of(train)


def test_what_the_data_has_not_stays_unknown(whole: Path) -> None:
    for split in ("test", "train+val", "valid"):
        with pytest.raises(UsageError, match="wanted one of all"):
            open_split(whole, split, TASK)


def test_measured_on_test_pictures_and_else_on_those_set_aside(whole: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert open_measured(folders(tmp_path / "data", "train", "test"), None, "classification")[1] == "test"
    dataset, split = open_measured(whole, None, TASK, say=said.append)
    assert (split, names_of(dataset)) == ("val", names_of(open_split(whole, "val", TASK)))
    assert "the data has no test pictures: measured on val" in said
    assert any("of 20 pictures of 'all' set aside for validation by name" in line for line in said)
    assert len(open_measured(whole, "all", TASK)[0]) == 20
    with pytest.raises(UsageError, match="wanted one of all"):
        open_measured(whole, "test", TASK)


def test_a_model_is_evaluated_without_a_word_about_splits(whole: Path) -> None:
    model = build("unet_padded_small", ("ground", "cell"), {"width": 2, "predict_size": 16}).eval()
    found = evaluate(model, whole)
    held = len(open_split(whole, "val", TASK))
    assert found.facts["pictures"] == f"{held} (val)"


@pytest.mark.usefixtures("unchecked")
def test_features_are_of_all_pictures_where_none_are_for_testing(tmp_path: Path) -> None:
    model = build("resnet18_cifar", ("even", "odd")).eval()
    assert len(embed(model, data=folders(tmp_path / "two", "train", "val")).names) == 20
    assert len(embed(model, data=folders(tmp_path / "three", "train", "test")).names) == 10


@pytest.mark.parametrize(
    ("there", "taught", "is_parted", "split", "expected"),
    [
        (["train", "test"], "train", True, "test", False),
        (["train", "test"], "train", True, "train", True),
        (["train", "test"], "train", True, "val", False),
        (["train", "test"], "train", False, "val", True),
        (["train", "val", "test"], "train", True, "val", False),
        (["train", "val", "test"], "train", False, "val", False),
        (["train", "val", "test"], "train+val", False, "val", True),
        (["train", "val", "test"], "train", True, "train+val", True),
        ([], "all", True, "val", False),
        ([], "all", True, "train", True),
        ([], "all", False, "val", True),
        ([], "all", True, "all", True),
    ],
)
def test_what_a_model_has_learned_from_is_known(
    there: list[str], taught: str, is_parted: bool, split: str, expected: bool, whole: Path, tmp_path: Path
) -> None:
    data = folders(tmp_path / "data", *there) if there else whole
    learned = {"data": data.name, "split": taught, "set_aside": is_parted}
    assert has_learned(learned, data, split) is expected
    assert not has_learned({**learned, "data": "other"}, data, split)
    assert not has_learned({}, data, split)


@pytest.mark.usefixtures("unchecked")
def test_scores_on_pictures_that_were_learned_are_called_so(tmp_path: Path) -> None:
    data = folders(tmp_path / "data", "train", "test")
    run = train("nearest_neighbour", data, out=tmp_path / "run", splits=Splits(val=None))
    model, said = load(run.best), list[str]()
    assert evaluate(model, data, "test", say=said.append).facts["pictures"] == "10 (test)"
    assert not any("has learned" in line for line in said)
    found = evaluate(model, data, "val", say=said.append)
    assert found.facts["pictures"].endswith("(val, from which the model has learned)")
    assert "the model has learned from pictures of val: its scores there say little of new ones" in said
