"""Pages for every task, by the verb and by the command line."""

import json
import re
from pathlib import Path

import pytest
import torch

from bestiary.cli.main import main
from bestiary.errors import UsageError
from bestiary.inspect.painting import activation_tiles, enlarged, first_filters, heat_picture, signal_picture
from bestiary.pictures.encode import write_image
from bestiary.records import Sample, Target
from bestiary.verbs.inspecting import Look, inspect_model
from bestiary.zoo import build


class Squares:
    """Six pictures of three classes."""

    categories = ("a", "b<", "c")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        image = torch.full((3, 32, 32), 40, dtype=torch.uint8)
        image[index % 3, 4 * index : 4 * index + 8, 8:16] = 250
        return Sample(image, Target(label=index % 3), f"{index}.png", (32, 32))


@pytest.fixture
def two_pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("one.png", "sub/one.png"):
        write_image(folder / name, torch.rand(3, 40, 50))
    return folder


@pytest.fixture(autouse=True)
def small_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields are tested elsewhere; here they only cost time."""
    monkeypatch.setattr("bestiary.inspect.table.FIELD_SIDES", (96,))


def headings(path: Path) -> list[str]:
    return re.findall(r"<h2>(?:<code>)?([^<]+)", path.read_text(encoding="utf-8"))


def test_everything_of_a_classifier(tmp_path: Path, two_pictures: Path) -> None:
    torch.manual_seed(0)
    system = build("alexnet_cifar", Squares.categories)
    look = Look(layers=("features.4",), units=(3,), maximise=2, plane="pca")
    found = inspect_model(system, two_pictures, Squares(), tmp_path / "pages", look)
    assert [p.name for p in found.pages] == ["one.html", "sub_one.html"]
    assert headings(found.index) == [
        *("Pictures", "First filters", "Receptive fields", "What units like best"),
        *("Pictures that excite a unit most", "How it arranges the pictures", "Layers"),
    ]
    assert headings(found.pages[0]) == ["Where it sees the class", "features.4"]
    page = found.pages[0].read_text(encoding="utf-8")
    for words in ("Unit 3", "Guided gradient", "Deconvnet", "b&lt;: saliency", "Grad-CAM", 'href="index.html"'):
        assert words in page or words in found.index.read_text(encoding="utf-8")
    index = found.index.read_text(encoding="utf-8")
    assert "measured the same" in index
    assert 'href="sub_one.html"' in index
    assert index.count('<circle class="point"') == 6
    assert "//" not in re.sub(r"data:image/[^\"]+", "", index + page)
    again = inspect_model(system, two_pictures, Squares(), tmp_path / "again", look)
    assert again.index.read_bytes() == found.index.read_bytes()


@pytest.mark.parametrize(
    ("name", "arguments", "layer"),
    [
        ("fasterrcnn_resnet18_fpn", {"min_size": 64, "max_size": 96}, "backbone.body.layer2"),
        ("unet_padded_small", {}, "inc"),
    ],
)
def test_other_tasks(name: str, arguments: dict[str, int], layer: str, tmp_path: Path, two_pictures: Path) -> None:
    system = build(name, ["a", "b"], arguments)
    found = inspect_model(system, two_pictures / "one.png", out=tmp_path, look=Look(layers=(layer,), top=1))
    assert headings(found.pages[0]) == [layer]
    assert "What it says" in found.pages[0].read_text(encoding="utf-8")
    assert {"First filters", "Receptive fields", "Layers"} <= set(headings(found.index))


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "alexnet_cifar", "--layer", "features.1", "--out", str(tmp_path / "a"), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["index"]).exists()
    assert said["network"]["layers"][0]["name"] == "features.0"
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "nearest_neighbour", "--out", str(tmp_path / "b")])
    assert ended.value.code == 2
    assert "fitted" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "alexnet_cifar", "--layer", "features.99", "--out", str(tmp_path / "c")])
    assert ended.value.code == 2
    assert "features.9" in capsys.readouterr().err


def test_numbers_that_cannot_be() -> None:
    for wrong in ({"top": 0}, {"maximise": -1}, {"most": 1}):
        with pytest.raises(UsageError):
            Look(**wrong)  # type: ignore[arg-type]


def test_painting() -> None:
    heat = torch.tensor([[0.0, 1.0], [0.5, -3.0]])
    alone = heat_picture(heat)
    assert int(alone[:, 0, 1].sum()) > int(alone[:, 1, 0].sum()) > int(alone[:, 0, 0].sum())
    assert torch.equal(alone[:, 1, 1], alone[:, 0, 0])
    assert int(heat_picture(heat, top=4.0)[:, 0, 1].sum()) < int(alone[:, 0, 1].sum())
    beneath = torch.full((3, 2, 2), 200, dtype=torch.uint8)
    over = heat_picture(heat, beneath)
    assert torch.equal(over[:, 0, 0], torch.full((3,), 150, dtype=torch.uint8))  # paled, nothing laid on it
    signal = signal_picture(torch.tensor([[[0.0, 1.0], [-1.0, 0.5]]]))
    assert signal[0].tolist() == [[128, 255], [0, 191]]
    assert signal_picture(torch.zeros(3, 2, 2)).unique().tolist() == [128]
    assert enlarged(alone, 5).shape == (3, 6, 6)
    assert activation_tiles(torch.rand(4, 3, 3), [2, 0], side=30).shape[0] == 3
    net = torch.nn.Conv2d(3, 5, 3)
    net.weight.data.zero_()
    net.weight.data[1, 0, 0, 0] = 2.0
    filters = first_filters(net, side=3)
    assert filters[:, 0, 6].tolist() == [255, 128, 128] or filters[:, 0, 6].tolist() == [255, 127, 127]
    with pytest.raises(UsageError):
        first_filters(torch.nn.Linear(2, 2))
