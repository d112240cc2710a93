"""Dense labellers by the command line: measured class by class, and written in every form."""

import json
from pathlib import Path

import pytest
import torch

import bestiary
from bestiary.cli.main import main
from bestiary.heads.pixel_ensemble import PixelEnsemble
from bestiary.heads.segmentation import PixelSystem
from bestiary.pictures.encode import write_image, write_map
from bestiary.predictions import Segmentation
from bestiary.verbs.models import save

NAMES = ("sky", "road", "car")


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of each split, and a network that has learned nothing."""
    root = tmp_path_factory.mktemp("pixels")
    for split in ("train", "val", "test"):
        for i in range(2):
            draw = torch.Generator().manual_seed(i)
            labels = torch.zeros(32, 40, dtype=torch.uint8)
            labels[12:], labels[20:26, 8 + i : 20] = 1, 2
            write_image(root / "data" / "images" / split / f"{i}.png", torch.rand(3, 32, 40, generator=draw))
            write_map(root / "data" / "labels" / split / f"{i}.png", labels)
    (root / "data" / "classes.txt").write_text("\n".join(NAMES))
    torch.manual_seed(0)
    save(bestiary.create("unet_padded_small", NAMES, arguments={"width": 2}), root / "best.safetensors")
    return root


def test_every_protocol_is_printed_and_stored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", folder / "best.safetensors", "--data", folder / "data"]
    assert call(*words, "--per-class") == 0
    said = capsys.readouterr().out
    wanted = ("pixel_accuracy", "mean_pixel_accuracy", "mean_iou", "frequency_weighted_iou", "mean_dice")
    for name in (
        *wanted,
        "boundary_f",
        "boundary_iou",
        "Csurka et al. 2013",
        "Cheng et al. 2021",
        "one confusion matrix",
    ):
        assert name in said
    assert all(
        any(line.startswith(name) and "iou 0." in line for line in said.splitlines()) for name in ("sky", "road")
    )
    assert "trimap" not in said

    assert call(*words, "--protocol", "trimap,iou", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert [one["headline"] for one in scores] == ["mean_iou_1", "mean_iou"]
    assert set(scores[1]["per_class"]["road"]) == {"iou", "dice", "pixel_accuracy", "precision"}
    assert len(scores[1]["details"]["confusion"]) == 3
    assert scores[1]["details"]["pictures_with"] == [2, 2, 2]

    assert call(*words, "--protocol", "coco") == 2
    assert "There are iou, boundary, boundary_iou" in capsys.readouterr().err


def test_the_report_draws_borders_though_nobody_asked(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert call("eval", folder / "best.safetensors", "--data", folder / "data", "--report", page) == 0
    text = page.read_text(encoding="utf-8")
    assert "Near borders" in text
    assert "How unequal the classes are" in text


def test_predictions_in_every_form_can_be_scored(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = folder / "data" / "images" / "test", tmp_path / "out"
    words = ["predict", folder / "best.safetensors", "--colours", source, "--out", out, "--coco"]
    assert call(*words, "--polygons", "--polygon-tolerance", "1", "--style", "contours") == 0
    names = {p.name for p in out.iterdir()}
    assert names == {"colours.json", "predictions.coco.json"} | {
        f"{i}{end}" for i in range(2) for end in (".jpg", ".json", ".labels.png", ".colours.png")
    }
    assert json.loads((out / "0.json").read_text())["imagePath"] == "0.png"
    capsys.readouterr()

    assert call("score", folder / "data", out, "--split", "test", "--per-class", "--json") == 0
    found = json.loads(capsys.readouterr().out)["scores"][0]["values"]
    assert call("eval", folder / "best.safetensors", "--data", folder / "data", "--json") == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["values"] == found

    assert call("predict", folder / "best.safetensors", source, "--style", "wild") == 2
    assert "wanted overlay|contours|colours|side_by_side" in capsys.readouterr().err


def test_models_answer_together(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    other = save(bestiary.create("unet_padded_small", NAMES, arguments={"width": 3}), tmp_path / "other.safetensors")
    one = folder / "best.safetensors"
    words = ["--data", folder / "data", "--protocol", "iou", "--json"]

    def score(*further: object) -> float:
        assert call("eval", one, *further, *words) == 0
        return json.loads(capsys.readouterr().out)["scores"][0]["values"]["pixel_accuracy"]

    single = maps_of(load_labeller(one), folder)
    both = maps_of(PixelEnsemble([load_labeller(one), load_labeller(other)]).eval(), folder)
    assert any(not torch.equal(a, b) for a, b in zip(single, both, strict=True))
    alone, together = score(), score("--ensemble", other)
    truth = [torch.zeros(32, 40, dtype=torch.uint8) for _ in both]
    for i, labels in enumerate(truth):
        labels[12:], labels[20:26, 8 + i : 20] = 1, 2
    for found, wanted in ((single, alone), (both, together)):
        right = [float((labels == t).float().mean()) for labels, t in zip(found, truth, strict=True)]
        assert wanted == pytest.approx(sum(right) / 2)
    assert score("--ensemble", other, "--ensemble-rule", "product", "--test-flip") >= 0
    assert call("predict", one, folder / "data" / "images" / "test", "--ensemble", other, "--out", tmp_path / "p") == 0
    capsys.readouterr()
    assert call("eval", one, "--ensemble", other, "--ensemble-rule", "median", *words) == 2
    assert "wanted one of mean, product" in capsys.readouterr().err
    assert call("eval", one, "--ensemble-rule", "product", *words) == 2
    assert "there is nothing to join" in capsys.readouterr().err
    classifier = save(bestiary.create("resnet18_cifar", NAMES), tmp_path / "classifier.safetensors")
    assert call("eval", one, "--ensemble", classifier, *words) == 2
    assert "labellers of pixels can answer together" in capsys.readouterr().err


def load_labeller(path: Path) -> PixelSystem:
    model = bestiary.load(path)
    assert isinstance(model, PixelSystem)
    return model


def maps_of(model: PixelSystem, folder: Path) -> list[torch.Tensor]:
    found = model.predict(folder / "data" / "images" / "test")
    return [p.label_map for p in found if isinstance(p, Segmentation)]
