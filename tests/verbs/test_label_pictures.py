"""Pictures with a label alone beside those with boxes, as YOLO9000 learns from them."""

from pathlib import Path

import pytest
import torch

from bestiary.cli.main import main
from bestiary.data.world import World
from bestiary.errors import UsageError
from bestiary.pictures.encode import write_image
from bestiary.records import Objects, Sample, Target
from bestiary.verbs.label_pictures import JoinedPictures, join_labels
from bestiary.verbs.models import load
from bestiary.verbs.training import Splits, train


class Pictures:
    """So many pictures of one task; the number of each is in its pixels."""

    def __init__(self, count: int, boxed: bool, categories: tuple[str, ...] = ("cat", "dog")) -> None:
        self.count, self.boxed, self.categories = count, boxed, categories

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        objects = Objects(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0])) if self.boxed else None
        target = Target(label=1, objects=objects, caption="not to be seen")
        return Sample(torch.full((3, 16, 16), index, dtype=torch.uint8), target, f"{index}.png", (16, 16))


def made_folders(root: Path, *classes: str) -> Path:
    for name in classes:
        (root / "train" / name).mkdir(parents=True)
        for number in range(3):
            write_image(root / "train" / name / f"{number}.png", torch.full((3, 70, 90), 40 * number).byte())
    return root


def made_boxes(root: Path) -> Path:
    """YOLO's text files: one dog a picture."""
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for number in range(2):
            name = f"{split}{number}"
            write_image(root / "images" / split / f"{name}.png", torch.full((3, 64, 80), 90).byte())
            (root / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (root / "data.yaml").write_text("names: [dog]\ntrain: images/train\nval: images/val\n")
    return root


def test_each_picture_comes_once_and_those_with_boxes_as_often_as_the_paper_wants() -> None:
    joined = JoinedPictures(Pictures(3, boxed=True), Pictures(25, boxed=False))
    assert (joined.repeats, len(joined)) == (3, 3 * 3 + 25), "25 with a label for 9 with boxes: at most four to one"
    samples = [joined[i] for i in range(len(joined))]
    boxed, labelled = samples[:9], samples[9:]
    assert [int(s.image[0, 0, 0]) for s in boxed] == [0, 1, 2] * 3
    assert all(s.target.objects is not None for s in boxed)
    assert [int(s.image[0, 0, 0]) for s in labelled] == list(range(25))
    assert {s.name for s in labelled}.isdisjoint(s.name for s in boxed)
    seen = {(s.target.label, s.target.objects, s.target.caption) for s in labelled}
    assert seen == {(1, None, None)}, "of their truth nothing else is shown"
    assert JoinedPictures(Pictures(3, boxed=True), Pictures(12, boxed=False)).repeats == 1


def test_open_data_sets_must_agree_on_the_categories(tmp_path: Path) -> None:
    boxes = Pictures(2, boxed=True)
    joined, held = join_labels(boxes, boxes, Pictures(2, boxed=False))
    assert (len(joined), held) == (4, boxes)
    with pytest.raises(UsageError, match="an open data set keeps its own categories"):
        join_labels(boxes, None, made_folders(tmp_path / "labels", "bird"))


def test_a_detector_that_learns_from_boxes_alone_says_so() -> None:
    world = World(2, split="train")
    labels = Pictures(2, False, tuple(world.categories))
    with pytest.raises(UsageError, match=r"ssd300_small: it learns nothing.*yolo9000 learns from both"):
        train("ssd300_small", world, validation=world, splits=Splits(labels=labels))


@pytest.mark.usefixtures("no_drawing")
def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes, labels = made_boxes(tmp_path / "boxes"), made_folders(tmp_path / "labels", "cat", "dog")
    words = f"train yolo9000 --data {boxes} --label-data {labels} --out {tmp_path / 'run'} --test-split none"
    fields = "--size 64 --steps 1 --epochs 1 --batch 3 --precision fp32 --workers 0 --tree cat=animal,dog=animal"
    with pytest.raises(SystemExit, match="0"):
        main([*words.split(), "--train-sizes", "", *fields.split()])
    said = capsys.readouterr().err
    assert "6 pictures with a label alone join 2 with boxes: 2 classes" in said
    assert "training on 8 pictures, validating on 2" in said
    assert load(tmp_path / "run").categories == ("dog", "cat"), "those of the boxes first"
