"""What the report says of label maps: shares, sentences, borders and pictures, from numbers worked by hand."""

import math
from pathlib import Path

import numpy as np
import torch

from bestiary import draw
from bestiary.metrics.boundary import BoundaryScores
from bestiary.metrics.scores import Scores
from bestiary.metrics.segmentation import SegmentationScores
from bestiary.metrics.trimap import TrimapScores
from bestiary.predictions import Segmentation
from bestiary.records import Target
from bestiary.reports.examples import collect_examples
from bestiary.reports.html import write_report
from bestiary.reports.label_maps import border_chart, class_shares, label_maps_in_words, swatches

NAMES = ("background", "road", "car")


def scores_of(counts: list[list[int]], **details: object) -> Scores:
    found = SegmentationScores(NAMES)
    found.counts += np.array(counts)
    found.pictures_with += np.array(counts).any(1) * 3
    computed = found.compute()
    return Scores(computed.headline, computed.values, computed.protocol, computed.per_class, computed.details | details)


def trimap(near: float, per_class: dict[str, dict[str, float]] | None = None) -> Scores:
    values = {"mean_iou_1": near / 2, "mean_iou_4": near, "mean_iou_32": 2 * near}
    return Scores("mean_iou_1", values, "p", per_class or {})


def picture(truth_at: int = 20, said_at: int = 24) -> tuple[Segmentation, Target]:
    truth, said = torch.zeros(40, 60, dtype=torch.uint8), torch.zeros(40, 60, dtype=torch.uint8)
    truth[:, truth_at:], said[:, said_at:] = 1, 1
    truth[:4] = 255
    image = torch.full((3, 40, 60), 90, dtype=torch.uint8)
    return Segmentation(said, (40, 60), categories=NAMES, name="a.png", image=image), Target(label_map=truth)


def test_shares_stand_most_frequent_first_and_bars_fit_the_widest() -> None:
    rows = class_shares(scores_of([[60, 10, 0], [0, 25, 0], [0, 5, 0]]))
    assert [row.name for row in rows] == ["background", "road", "car"]
    assert [(row.true, row.said) for row in rows] == [(0.7, 0.6), (0.25, 0.4), (0.05, 0.0)]
    assert rows[0].true_bar == 100
    assert math.isclose(rows[1].said_bar, 100 * 0.4 / 0.7)
    assert [row.pictures for row in rows] == [3, 3, 3]
    assert (rows[0].colour, rows[1].colour) == ("", "#{:02x}{:02x}{:02x}".format(*draw.colour_of(1)))
    assert rows[2].iou == 0
    assert swatches(NAMES) == [(row.name, row.colour) for row in rows[1:]]


def test_other_scores_have_no_shares() -> None:
    assert class_shares(Scores("AP", {"AP": 0.5}, "p")) == []
    assert class_shares(scores_of([[0, 0, 0]] * 3)) == []
    assert label_maps_in_words(Scores("top1", {"top1": 0.5}, "p", {}, {"confusion": [[1, 0], [0, 1]]})) == []


def test_sentences_name_what_matters() -> None:
    said = label_maps_in_words(scores_of([[900, 60, 0], [20, 10, 0], [10, 0, 0]]), [trimap(0.1)])
    assert said[0].startswith("The classes are unequal: background has 96 % of the pixels, car 1 %.")
    assert said[1].startswith("Never named: car.")
    assert said[2] == "9 % of the pixels are wrong; 67 % of those are background taken for road."
    assert said[3].startswith("Much is lost at borders: within 4 pixels of them mean IoU is 0.10, over whole")
    assert len(said) == 4


def test_a_good_even_model_is_told_so() -> None:
    counts = [[100, 0, 0], [0, 100, 0], [0, 0, 100]]
    assert label_maps_in_words(scores_of(counts)) == []
    assert label_maps_in_words(scores_of(counts), [trimap(0.9)])[0].startswith("Borders are met nearly as well")


def test_the_chart_shows_the_classes_that_lose_most_at_borders() -> None:
    scores = scores_of([[90, 10, 0], [10, 90, 0], [0, 10, 90]])
    near = {"background": {"iou_1": 0.2, "iou_4": 0.5}, "road": {"iou_1": 0.7, "iou_4": 0.7}, "car": {"iou_1": 0.5}}
    chart = border_chart(scores, [Scores("boundary_f", {"boundary_f": 0.5}, "p"), trimap(0.4, near)])
    assert chart is not None
    assert [name for _, name, _ in chart.legend] == ["mean", "background", "car", "road"]
    assert chart.legend[0][2] == "0.200 to 0.800"
    assert f"{scores.value:.3f}" in chart.remark
    assert border_chart(scores, []) is None


def test_mistakes_are_red_unknown_is_hatched_and_the_rest_is_grey() -> None:
    prediction, target = picture()
    assert target.label_map is not None
    assert prediction.image is not None
    drawn = draw.mistake_map(prediction.image, target.label_map, prediction.label_map)
    red, green, _ = drawn.int()
    wrong = torch.zeros(40, 60, dtype=torch.bool)
    wrong[4:, 20:24] = True
    assert torch.equal((red - green > 60), wrong)
    assert 0.3 < (drawn[0, :4] != drawn[0, 30, 50]).double().mean() < 0.7


def test_a_page_holds_it_all(tmp_path: Path) -> None:
    prediction, target = picture()
    found = []
    for evaluator in (SegmentationScores(NAMES), BoundaryScores(NAMES), TrimapScores(NAMES)):
        evaluator.update([prediction], [target])
        found.append(evaluator.compute())
    examples = collect_examples([(prediction, target)], NAMES)
    assert examples[0].caption == "mean IoU 0.87, 6.7 % of the pixels wrong: road taken for background 7 %"
    page = write_report(tmp_path / "r.html", title="x", scores=found[0], extra_scores=found[1:], examples=examples)
    text = page.read_text(encoding="utf-8")
    for wanted in ("How unequal the classes are", "Near borders", "Colours of the classes", "<span>mistakes</span>"):
        assert wanted in text
    assert text.count("data:image/jpeg") == 3
    assert 'class="gallery rows"' in text
