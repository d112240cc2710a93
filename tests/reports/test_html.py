"""The report: whole, self-contained, harmless whatever the names, and true to the numbers it was given."""

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.classification import ClassificationScores
from bestiary.metrics.coco import CocoScores
from bestiary.metrics.errors import error_split
from bestiary.metrics.scores import Scores
from bestiary.metrics.voc import voc_scores
from bestiary.predictions import Classification, Detections
from bestiary.records import Objects, Target
from bestiary.reports.examples import Example
from bestiary.reports.html import heat_map, picture_uri, write_report

EVIL = "<script>alert('x')</script>\"&"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and texts, and insists that every element is closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def detection_scores(names: tuple[str, ...] = ("cat", "dog")) -> CocoScores:
    scores = CocoScores(names)
    home, away = [10.0, 10.0, 60.0, 60.0], [70.0, 70.0, 99.0, 99.0]
    labels = torch.tensor([0, 1, 0])
    found = Detections(torch.tensor([home, away, away]), labels, torch.tensor([0.9, 0.8, 0.7]), size_hw=(100, 100))
    truth = Target(objects=Objects(torch.tensor([home, away]), torch.tensor([0, 1])))
    scores.update([found] * 30, [truth] * 30)
    return scores


def example(group: str = "worst", name: str = "a.jpg") -> Example:
    picture = torch.full((3, 40, 60), 200, dtype=torch.uint8)
    return Example(name, picture, picture, "1 missed", 1.0, group)  # type: ignore[arg-type]


HISTORY = [
    {"epoch": 1, "step": 5, "lr": 0.1, "train/loss": 2.0, "note": "x"},
    {"epoch": 2, "step": 10, "lr": 0.05, "train/loss": 1.0, "val/loss": 1.5, "score/AP": 0.25},
    {"epoch": 3, "step": 15, "lr": 0.01, "train/loss": math.nan, "val/loss": 1.25, "score/AP": 0.5},
]


def test_a_full_page_is_whole_and_asks_for_nothing(tmp_path: Path) -> None:
    scores = detection_scores()
    path = write_report(
        tmp_path / "new" / "report.html",
        title="Pets",
        scores=scores.compute(),
        extra_scores=[voc_scores(scores.table())],
        facts={"model": "ssd300_vgg16", "data": "pets", "command": "bestiary evaluate"},
        examples=[example(), example("typical"), example("best")],
        errors=error_split(scores.table()),
        history=HISTORY,
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert "http" not in text.replace("http-equiv", "")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    plots = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("class") == "plot"]
    assert all(attributes["aria-label"] for attributes in plots)
    assert len(plots) == 4  # precision and recall, loss, scores, learning rate
    headings = [
        t
        for t in page.texts
        if t in ("In words", "What goes wrong", "Classes", "Training", "Of the run", "Worst pictures")
    ]
    assert len(headings) == 6
    assert "COCO boxes" in text
    assert "VOC2010" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_names_are_harmless_wherever_they_stand(tmp_path: Path) -> None:
    scores = detection_scores((EVIL, "dog"))
    path = write_report(
        tmp_path / "report.html",
        title=EVIL,
        scores=scores.compute(),
        facts={"model": EVIL, EVIL: EVIL},
        examples=[example(name=EVIL)],
        errors=error_split(scores.table()),
        history=[{"epoch": 1, f"train/{EVIL}": 1.0, "train/loss": 1.0, "train/a": 1.0, "train/b": 0.5}],
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text
    assert all("alert" not in name for _, attributes in page.tags for name in attributes)
    assert sum(EVIL in t for t in page.texts) >= 5


def test_numbers_are_those_of_the_scores(tmp_path: Path) -> None:
    result = detection_scores().compute()
    page = Page(write_report(tmp_path / "r.html", title="x", scores=result).read_text(encoding="utf-8"))
    at = page.texts.index("AP")
    assert page.texts[at + 1] == f"{result.value:.3f}"
    for name, value in result.values.items():
        if name != "AP":
            at = page.texts.index(name.replace("_", " "))
            assert page.texts[at + 1] == ("–" if math.isnan(value) else f"{value:.3f}")


def test_bare_scores_are_enough(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", title="Depth", scores=Scores("delta1", {"delta1": 0.5}, "all pixels"))
    page = Page(path.read_text(encoding="utf-8"))
    assert "0.500" in page.texts
    assert "all pixels" in page.texts
    assert "Classes" not in page.texts
    nothing = Scores("AP", {"AP": math.nan}, "p", {"a": {"AP": math.nan, "count": 0.0}})
    assert "–" in Page(write_report(tmp_path / "n.html", title="x", scores=nothing).read_text(encoding="utf-8")).texts


def test_scores_read_back_from_json_make_the_same_page(tmp_path: Path) -> None:
    result = detection_scores().compute()
    pages = []
    for i, scores in enumerate((result, Scores.from_dict(result.to_dict()))):
        text = write_report(tmp_path / f"{i}.html", title="x", scores=scores).read_text(encoding="utf-8")
        pages.append(re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", text))
    assert pages[0] == pages[1]


def test_heat_map_shares_and_names() -> None:
    scores = ClassificationScores(["a", "b", "c"])
    said, truth = [0, 0, 1, 1], [0, 1, 1, 0]
    probs = torch.eye(3)[torch.tensor(said)]
    scores.update([Classification(p, (1, 1)) for p in probs], [Target(label=t) for t in truth])
    heat = heat_map(scores.compute())
    assert heat is not None
    name, total, cells = heat.rows[1]
    assert (name, total, heat.columns) == ("b", 2, ["a", "b", "c"])
    assert [cell[:3] for cell in cells] == [("1", 0.5, False), ("1", 0.5, True), ("·", 0.0, False)]
    assert heat.rows[2][1] == 0
    assert heat.frequent == [("a", "b", 1, 0.5), ("b", "a", 1, 0.5)]
    assert heat_map(Scores("a", {"a": 1.0}, "p")) is None
    with pytest.raises(RecordError, match="confusion"):
        heat_map(Scores("a", {"a": 1.0}, "p", {"x": {}}, {"confusion": np.eye(3)}))


def test_pixels_are_shown_as_shares() -> None:
    details = {"confusion": [[900_000, 100_000], [0, 7]], "pixels": 1_000_007}
    heat = heat_map(Scores("iou", {"iou": 0.5}, "p", {"sky": {"iou": 0.9}, "road": {"iou": 0.1}}, details))
    assert heat is not None
    assert [cell[0] for _, _, cells in heat.rows for cell in cells] == ["90", "10", "·", "100"]
    assert (heat.as_shares, heat.unit) == (True, "pixels")
    assert heat.rows[0][2][1][3] == "sky taken for road: 100,000 of 1,000,000"


def test_classes_stand_worst_first(tmp_path: Path) -> None:
    per_class = {"good": {"AP": 0.9}, "none": {"AP": math.nan}, "bad": {"AP": 0.1}}
    scores = Scores("AP", {"AP": 0.5}, "p", per_class)
    texts = Page(write_report(tmp_path / "r.html", title="x", scores=scores).read_text(encoding="utf-8")).texts
    assert [t for t in texts if t in per_class] == ["bad", "good", "none"]


def test_many_classes_are_listed_but_not_drawn_whole(tmp_path: Path) -> None:
    scores = ClassificationScores([f"c{i}" for i in range(60)])
    probs = torch.eye(60)
    scores.update([Classification(probs[3], (1, 1))], [Target(label=7)])
    text = write_report(tmp_path / "r.html", title="x", scores=scores.compute()).read_text(encoding="utf-8")
    assert '<table class="heat">' not in text
    assert "Most often confused" in text


def test_pictures_are_shrunk_and_decode() -> None:
    picture = torch.zeros(3, 300, 900, dtype=torch.uint8)
    picture[0] = 255
    image = Image.open(io.BytesIO(base64.b64decode(picture_uri(picture, side=90).split(",")[1])))
    assert image.size == (90, 30)
    red, green, blue = image.getpixel((45, 15))  # type: ignore[misc]
    assert (red > 240, green < 15, blue < 15) == (True, True, True)
    thin = torch.zeros(3, 1, 2000, dtype=torch.uint8)
    assert picture_uri(thin).startswith("data:image/jpeg")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path / "file" / "r.html", title="x", scores=Scores("a", {"a": 1.0}, "p"))
