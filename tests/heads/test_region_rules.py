"""The three label rules of R-CNN on one hand-made set of proposals."""

import torch

from bestiary.heads.box import RegionSettings
from bestiary.heads.region_learning import label_regions
from bestiary.heads.region_rules import regression_pairs, svm_negatives
from bestiary.heads.truth import Truth

OBJECT = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
TRUTH = Truth(OBJECT, torch.tensor([1]), torch.zeros(0, 4))


def shifted(*ious: float) -> torch.Tensor:
    """Boxes of the object's size moved right until they overlap it by this much."""
    moves = torch.tensor([100 * (1 - iou) / (1 + iou) for iou in ious])
    return OBJECT + torch.stack([moves, torch.zeros_like(moves), moves, torch.zeros_like(moves)], 1)


PROPOSALS = shifted(0.9, 0.7, 0.61, 0.59, 0.51, 0.49, 0.31, 0.29, 0.1, 0.0)


def test_three_rules_make_three_positive_sets_of_the_same_proposals() -> None:
    tuned = label_regions(PROPOSALS, TRUTH, RegionSettings(positive_iou=0.5))
    positive = tuned.boxes_xyxy[tuned.classes > 0]
    assert len(positive) == 6
    torch.testing.assert_close(positive, torch.cat([PROPOSALS[:5], OBJECT]))
    assert tuned.classes.unique().tolist() == [0, 2], "background, and label 1"
    negatives = svm_negatives(PROPOSALS, TRUTH, 3)
    assert negatives[:, 1].tolist() == [False] * 7 + [True] * 3, "its own category: below 0.3 only"
    assert negatives[:, 0].all(), "for other categories everything is a negative"
    assert negatives[:, 2].all()
    assert not svm_negatives(OBJECT, TRUTH, 3)[0, 1], "the object itself is the positive"
    rows, objects = regression_pairs(PROPOSALS, TRUTH)
    assert rows.tolist() == [0, 1, 2]
    assert objects.tolist() == [0, 0, 0]


def test_thresholds_are_settings_and_the_nearest_object_counts() -> None:
    both = Truth(torch.cat([OBJECT, OBJECT + 30]), torch.tensor([0, 2]), torch.zeros(0, 4))
    between = OBJECT + 20
    rows, objects = regression_pairs(between, both, above=0.6)
    assert (rows.tolist(), objects.tolist()) == ([0], [1])
    assert regression_pairs(between, both, above=0.7)[0].tolist() == []
    assert svm_negatives(between, both, 3, below=0.5)[0].tolist() == [True, True, False]


def test_two_objects_of_a_category_are_both_kept_clear_of() -> None:
    two = Truth(torch.cat([OBJECT, OBJECT + 200]), torch.tensor([0, 0]), torch.zeros(0, 4))
    assert svm_negatives(torch.cat([OBJECT, OBJECT + 200, OBJECT + 100]), two, 1)[:, 0].tolist() == [False, False, True]


def test_what_lies_on_a_crowd_is_no_negative_and_without_objects_nothing_moves() -> None:
    crowd = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), OBJECT)
    assert svm_negatives(torch.cat([OBJECT, OBJECT + 90]), crowd, 2).tolist() == [[False, False], [True, True]]
    assert [len(part) for part in regression_pairs(PROPOSALS, crowd)] == [0, 0]
    assert svm_negatives(torch.zeros(0, 4), TRUTH, 2).shape == (0, 2)
