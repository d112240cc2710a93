"""A cascade in a picture is the cascade of its windows; rates multiply; most windows are rejected early."""

import numpy as np
import pytest
import torch

from bestiary.errors import UsageError
from bestiary.features.cascade import Cascade, disjoint_groups
from bestiary.features.cascade_learning import StageGoals, every_fourth, learn_stage, lowest_vote
from bestiary.features.haar import normalised_integrals
from bestiary.features.integral import integral_images
from bestiary.features.object_windows import Template

SIDE = 12
GOALS = StageGoals(stages=3, detection_rate=0.98, false_rate=0.4, most_features=20, pool=600, negatives=300)


def crosses(count: int, rng: np.random.Generator) -> np.ndarray:
    """Bright crosses under noise."""
    pictures = rng.normal(100, 40, (count, SIDE, SIDE))
    pictures[:, 4:8] += 45
    pictures[:, :, 4:8] += 45
    return pictures.clip(0, 255).astype(np.float32)


def others(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with one bright bar anywhere."""
    pictures = rng.normal(100, 40, (count, SIDE, SIDE))
    for picture in pictures:
        at = rng.integers(0, SIDE - 4)
        part = picture[at : at + 4] if rng.random() < 0.5 else picture[:, at : at + 4]
        part += 45
    return pictures.clip(0, 255).astype(np.float32)


@pytest.fixture(scope="module")
def learned() -> tuple[Cascade, list, np.ndarray]:
    rng = np.random.default_rng(0)
    cascade = Cascade()
    cascade.learn_shape(Template((SIDE, SIDE)), torch.tensor([1.0, 3.0]))
    positives = normalised_integrals(crosses(400, rng))
    rates, left = [], positives
    for _ in range(GOALS.stages):
        pool = normalised_integrals(others(6000, rng))
        negatives = pool[cascade.passed(pool) == cascade.stages][:300]
        rates.append(learn_stage(cascade, left, negatives, GOALS, rng))
        left = left[cascade.passed(left) == cascade.stages]
    return cascade, rates, positives


def test_each_stage_keeps_objects_and_rejects_others(learned) -> None:
    cascade, rates, _ = learned
    assert cascade.stages == 3
    assert cascade.stage_ends.tolist() == np.cumsum([r.features for r in rates]).tolist()
    for rate in rates:
        assert rate.detection >= GOALS.detection_rate
        assert rate.false <= GOALS.false_rate
    fresh = np.random.default_rng(1)
    for pictures, stages_rates in ((crosses(2000, fresh), (0.9, 1.0)), (others(4000, fresh), (0.0, 0.15))):
        share = (cascade.passed(normalised_integrals(pictures)) == 3).mean()
        assert stages_rates[0] <= share <= stages_rates[1]


def test_the_cascades_rate_is_the_product_of_its_stages(learned) -> None:
    cascade, _, positives = learned
    passed = cascade.passed(positives)
    product = 1.0
    for stage in range(cascade.stages):
        reached = passed >= stage
        product *= (passed[reached] > stage).mean()
    assert (passed == cascade.stages).mean() == pytest.approx(product)


def scene(rng: np.random.Generator) -> torch.Tensor:
    picture = rng.normal(100, 25, (90, 110))
    for y, x, side in ((5, 8, 12), (40, 50, 24), (60, 5, 12)):
        cell = side // 3
        picture[y + cell : y + 2 * cell, x : x + side] += 70
        picture[y : y + side, x + cell : x + 2 * cell] += 70
    return torch.from_numpy(picture.clip(0, 255).round().astype(np.uint8))


def test_a_scan_is_the_cascade_of_every_window(learned) -> None:
    cascade, _, _ = learned
    picture = scene(np.random.default_rng(2))
    scan = cascade.scan(*integral_images(picture), 1.0, least_stages=0)
    windows = picture.unfold(0, SIDE, 1).unfold(1, SIDE, 1)
    assert tuple(scan.margins.shape) == tuple(windows.shape[:2])
    flat = windows.reshape(-1, SIDE, SIDE).float().numpy()
    passed = cascade.passed(normalised_integrals(flat))
    margins = scan.margins.flatten().numpy()
    # What passes stage s has at least s, what fails the next one less than that stage's whole vote more.
    assert ((margins >= cascade.stages) == (passed == cascade.stages)).mean() > 0.9995
    assert (np.abs(np.floor(margins + 1e-9) + 1 - passed)[passed < cascade.stages] <= 1).all()
    assert (scan.margins[5, 8] >= 3) & (scan.margins[60, 5] >= 3)


def test_windows_of_other_sizes_are_found_where_they_are(learned) -> None:
    cascade, _, _ = learned
    sums, squares = integral_images(scene(np.random.default_rng(2)))
    scan = cascade.scan(sums, squares, 2.0, step=1.0)
    assert (scan.step, scan.size_hw) == (2, (24, 24))
    assert scan.margins[20, 25] >= 3
    assert scan.windows_xyxy(torch.tensor([[20, 25]])).tolist() == [[50, 40, 74, 64]]
    assert (scan.margins >= 0).float().mean() < 0.2
    assert tuple(cascade.scan(sums, squares, 8.0).margins.shape) == (0, 2)


def test_most_windows_are_rejected_by_few_features(learned) -> None:
    cascade, rates, _ = learned
    noise = torch.from_numpy(np.random.default_rng(3).normal(100, 25, (200, 200)).clip(0, 255).astype(np.uint8))
    scan = cascade.scan(*integral_images(noise), 1.0)
    each = scan.features / scan.margins.numel()
    assert rates[0].features <= each < 0.7 * len(cascade.features)


def test_threads_do_not_change_the_answer(learned) -> None:
    cascade, before = learned[0], torch.get_num_threads()
    integrals = integral_images(scene(np.random.default_rng(2)).repeat(4, 4))
    try:
        torch.set_num_threads(1)
        alone = cascade.scan(*integrals, 1.0)
        torch.set_num_threads(3)
        again = cascade.scan(*integrals, 1.0)
        assert torch.equal(alone.margins, again.margins)
        assert alone.features == again.features
    finally:
        torch.set_num_threads(before)


def test_scales_reach_from_the_smallest_object_to_the_largest(learned) -> None:
    scales = learned[0].scales((200, 200), 1.25)
    assert scales[0] == 1
    assert 3 / 1.25**0.5 <= scales[-1] <= 3 * 1.25**0.5
    assert max(learned[0].scales((20, 200), 1.25)) * SIDE <= 20
    assert learned[0].scales((11, 200), 1.25) == []


def test_the_lowest_vote_keeps_the_share_that_was_asked_for() -> None:
    votes = np.arange(200.0)
    for rate in (0.5, 0.98, 0.995, 1.0):
        kept = (votes >= lowest_vote(votes, rate)).mean()
        assert rate <= kept < rate + 1 / 200 + 1e-9


def test_windows_of_one_object_stand_aside_together() -> None:
    assert every_fourth(9).nonzero()[0].tolist() == [3, 7]
    assert every_fourth(20, together=2).nonzero()[0].tolist() == [6, 7, 14, 15]


def test_no_stump_is_chosen_by_what_stands_aside() -> None:
    """Objects that stand aside are others in disguise: a stage that had learned from them would know them."""
    rng = np.random.default_rng(0)
    pictures = np.concatenate([crosses(300, rng), 255 - crosses(100, rng)])
    aside = np.arange(400) >= 300
    learned = []
    for hidden in (pictures, np.concatenate([pictures[:300], crosses(100, rng)])):
        cascade = Cascade()
        cascade.learn_shape(Template((SIDE, SIDE)), torch.tensor([1.0, 3.0]))
        negatives = normalised_integrals(others(300, np.random.default_rng(1)))
        goals = StageGoals(most_features=1, pool=200, detection_rate=0.5)
        learn_stage(cascade, normalised_integrals(hidden), negatives, goals, np.random.default_rng(2), aside)
        learned.append(cascade)
    assert torch.equal(learned[0].features, learned[1].features)
    assert torch.equal(learned[0].thresholds, learned[1].thresholds)
    assert learned[0].stage_thresholds[0] < learned[1].stage_thresholds[0]


def test_groups_are_joined_through_others() -> None:
    overlapping = torch.eye(5, dtype=torch.bool)
    overlapping[0, 3] = overlapping[3, 0] = overlapping[3, 4] = overlapping[4, 3] = True
    groups = disjoint_groups(overlapping)
    assert groups[0] == groups[3] == groups[4]
    assert len(groups.unique()) == 3
    assert len(disjoint_groups(torch.zeros(0, 0, dtype=torch.bool))) == 0


def test_goals_that_cannot_be_are_named() -> None:
    for wrong in ({"detection_rate": 0}, {"false_rate": 1.1}, {"stages": 0}, {"pool": 0}, {"negatives": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            StageGoals(**wrong)
