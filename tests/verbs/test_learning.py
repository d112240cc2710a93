"""The whole way on real pictures: a folder of them, one command, and it has learned."""

import json
from pathlib import Path

import pytest

from bestiary.cli.main import main

CLASSES = ("airplane", "automobile", "frog")


def few_pictures(cifar: Path, folder: Path, train: int, test: int) -> Path:
    """So many pictures of each of three classes, by links."""
    for split, count in (("train", train), ("test", test)):
        for category in CLASSES:
            (folder / split / category).mkdir(parents=True)
            for picture in sorted((cifar / split / category).iterdir())[:count]:
                (folder / split / category / picture.name).symlink_to(picture)
    return folder


def test_a_classifier_learns_photographs(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = few_pictures(real_data / "cifar10", tmp_path / "data", 400, 100)
    words = f"train resnet18_cifar --data {data} --out {tmp_path / 'run'} --val-split none --json"
    fields = "--epochs 3 --batch 32 --lr 0.02 --warmup-steps 10 --workers 0 --channels-last"
    with pytest.raises(SystemExit, match="0"):
        main([*words.split(), *fields.split()])
    scores = json.loads(capsys.readouterr().out)["scores"][0]
    # one of three by chance, and a linear model on the pixels reaches about 0.6
    assert scores["values"]["top1"] > 0.7, scores["values"]
