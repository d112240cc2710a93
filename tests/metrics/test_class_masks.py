"""Scores of classes that overlap, against counts by hand and sklearn's numbers."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, precision_recall_fscore_support
from torch import Tensor

from bestiary import draw
from bestiary.draw import colour_of
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.masks import Rle
from bestiary.metrics.class_masks import ClassMaskScores
from bestiary.predictions import Segmentation
from bestiary.records import Objects, Target
from bestiary.reports.examples import picture_iou


def masks(seed: int, classes: int = 3) -> Tensor:
    return torch.rand(classes, 12, 9, generator=torch.Generator().manual_seed(seed)) > 0.6


def said(found: Tensor, names: tuple[str, ...] = ("a", "b", "c")) -> Segmentation:
    label_map = torch.full(found.shape[-2:], 255, dtype=torch.uint8)
    for k, mask in enumerate(found):
        label_map[mask] = k
    return Segmentation(label_map, (12, 9), categories=names, class_masks=found)


def truth(true: Tensor) -> Target:
    labels = torch.arange(len(true)).flip(0)
    return Target(objects=Objects(torch.zeros(len(true), 4), labels, masks=true.flip(0)))


def test_scores_are_those_of_all_pixels_together() -> None:
    pairs = [(masks(i), masks(i + 10)) for i in range(3)]
    scores = ClassMaskScores(("a", "b", "c"))
    for found, true in pairs:
        scores.update([said(found)], [truth(true)])
    result = scores.compute()
    predicted = torch.stack([p for p, _ in pairs]).movedim(1, -1).reshape(-1, 3).numpy()
    true = torch.stack([t for _, t in pairs]).movedim(1, -1).reshape(-1, 3).numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted)
    iou = jaccard_score(true, predicted, average=None)
    for k, name in enumerate("abc"):
        wanted = {"iou": iou[k], "dice": f1[k], "recall": recall[k], "precision": precision[k]}
        assert result.per_class[name] == pytest.approx(wanted)
    assert result.value == pytest.approx(iou.mean())
    assert result.values["mean_dice"] == pytest.approx(f1.mean())
    assert "3 pictures, classes may overlap" in result.protocol


def test_parts_merge_to_the_whole() -> None:
    whole, left, right = (ClassMaskScores(("a", "b", "c")) for _ in range(3))
    for part, seed in ((left, 0), (right, 1)):
        for scores in (part, whole):
            scores.update([said(masks(seed))], [truth(masks(seed + 10))])
    left.merge(right)
    assert left.compute().values == whole.compute().values
    with pytest.raises(UsageError, match="absent"):
        left.merge(ClassMaskScores(("a", "b", "c"), absent="zero"))


def test_unknown_pixels_are_not_scored() -> None:
    labels = torch.zeros(12, 9, dtype=torch.uint8)
    labels[6:] = 255
    found = torch.zeros(3, 12, 9, dtype=torch.bool)
    found[0, :3], found[1, 6:] = True, True
    scores = ClassMaskScores(("a", "b", "c"))
    scores.update([said(found)], [Target(label_map=labels)])
    result = scores.compute()
    assert result.per_class["a"]["iou"] == 0.5
    assert math.isnan(result.per_class["b"]["iou"])
    assert result.value == 0.5
    assert ClassMaskScores(("a", "b"), averaged=("b",)).compute().protocol.endswith("over 1 of 2 classes")
    assert math.isnan(ClassMaskScores(("a",)).compute().value)


def test_what_cannot_be_scored_is_named() -> None:
    scores = ClassMaskScores(("a", "b", "c"))
    plain = Segmentation(torch.zeros(12, 9, dtype=torch.uint8), (12, 9))
    for predictions, targets, words in (
        ([], [Target()], "0 predictions and 1 targets"),
        ([plain], [truth(masks(0))], "without class masks.*multi_label"),
        ([said(masks(0, 2))], [truth(masks(0))], r"\(2, 12, 9\) predicted and \(3, 12, 9\) true"),
        ([said(masks(0))], [Target()], "neither masks nor a label map"),
    ):
        with pytest.raises(RecordError, match=words):
            scores.update(predictions, targets)


def test_a_prediction_writes_every_class_and_not_the_likeliest_alone() -> None:
    found = torch.zeros(3, 12, 9, dtype=torch.bool)
    found[0, :6], found[1, 3:9] = True, True
    prediction = said(found)
    assert prediction.to_dict()["shares"] == {"a": 0.5, "b": 0.5}
    entries = prediction.to_coco(image_id=7)
    assert [entry["category_id"] for entry in entries] == [1, 2]
    decoded = [Rle.from_coco(entry["segmentation"]).decode() for entry in entries]
    assert torch.equal(torch.stack(decoded), found[:2])
    assert {shape["label"] for shape in prediction.to_labelme()["shapes"]} == {"a", "b"}


def test_the_cost_of_a_picture_is_by_its_masks() -> None:
    found = masks(0)
    assert picture_iou(said(found), truth(found)) == 1.0
    assert 0 < picture_iou(said(masks(1)), truth(found)) < 1
    nothing = torch.zeros_like(found)
    assert picture_iou(said(nothing), truth(nothing)) == 1.0


def test_overlapping_classes_are_drawn_over_one_another() -> None:
    image = torch.full((3, 60, 80), 128, dtype=torch.uint8)
    found = torch.zeros(2, 60, 80, dtype=torch.bool)
    found[0, :50], found[1, 10:30, 10:30] = True, True
    drawn = draw.class_masks(image, found, ("large", "small"))
    assert drawn.shape == (3, 60, 80)
    inside = drawn[:, 20, 20].numpy().astype(int)
    beside, colour = drawn[:, 20, 60].numpy().astype(int), np.array(colour_of(1))
    assert np.abs(inside - colour).sum() < np.abs(beside - colour).sum(), "the smaller class lies on top"
    assert not torch.equal(drawn[:, 20, 60], image[:, 20, 60])


@pytest.mark.usefixtures("unchecked")
def test_masks_of_another_size_are_named() -> None:
    image, found = torch.zeros(3, 12, 9), torch.zeros(2, 12, 8, dtype=torch.bool)
    with pytest.raises(RecordError, match=r"draw.class_masks\(masks\): got size \(12, 8\), wanted the picture's"):
        draw.class_masks(image, found, ("large", "small"))
    with pytest.raises(RecordError, match=r"Segmentation\.class_masks"):
        Segmentation(torch.zeros(12, 9, dtype=torch.uint8), (12, 9), class_masks=found)
