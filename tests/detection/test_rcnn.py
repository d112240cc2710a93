"""R-CNN: its stages on shapes, what they learn from, what they leave in the state, and the published forms' sizes."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from region_scenes import CATEGORIES, Windows, judge, scene, trunk
from torch import Tensor, nn

from bestiary.array_cache import ArrayCache
from bestiary.backbones.alexnet import caffenet
from bestiary.detection.rcnn import RCNN, rcnn_alexnet, rcnn_small, rcnn_vgg16
from bestiary.errors import RecordError, UsageError
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.box import BoxHead
from bestiary.heads.region_stages import RegionRules, TrainingRegions
from bestiary.heads.warped_regions import warp_regions
from bestiary.layers.learned import make_room
from bestiary.layers.preprocess import Normalize
from bestiary.records import Objects, Sample, Target

TRAIN = [scene(seed) for seed in range(24)]
TEST = [scene(100 + seed) for seed in range(8)]


def build(**rules: float) -> RCNN:
    torch.manual_seed(0)
    return RCNN(
        trunk(),
        BoxHead(16, 4, 24),
        CATEGORIES,
        proposer=Windows(),
        normalize=Normalize(),
        window=16,
        context=1,
        rules=RegionRules(**{"per_step": 64, **rules}),  # type: ignore[arg-type]
    )


def finetune(system: RCNN, steps: int = 50) -> None:
    system.begin_stage("finetune")
    optimiser = torch.optim.SGD(system.parameters(), lr=0.03, momentum=0.9)
    system.train()
    for step in range(steps):
        batch = [TRAIN[(4 * step + i) % len(TRAIN)] for i in range(4)]
        loss = system.loss([s.image for s in batch], [s.target for s in batch]).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    system.eval()


@pytest.fixture(scope="module")
def stages() -> dict[str, RCNN]:
    """The system after each stage."""
    system, found = build(), {}
    finetune(system)
    found["finetune"] = copy.deepcopy(system)
    for name in ("svm", "boxes"):
        system.begin_stage(name)
        with torch.no_grad():
            system.fit_stage(name, TRAIN)
        found[name] = copy.deepcopy(system)
    return found


def scored(system: RCNN) -> tuple[float, float, float]:
    return judge(system.predict([s.image for s in TEST]), TEST)


def test_the_chain_learns_to_find_things_and_each_stage_adds_to_it(stages) -> None:
    tuned, svm, boxes = (scored(stages[name]) for name in ("finetune", "svm", "boxes"))
    assert tuned[0] > 0.8, "the softmax answers as long as there are no SVMs"
    assert svm[0] > 0.8
    assert svm[1] > 0.9
    assert boxes[2] > svm[2] + 0.05, "boxes fit better once they are moved"
    assert boxes[2] > 0.8


def test_stages_leave_each_others_parts_alone_and_fine_tuning_forgets(stages) -> None:
    states = {name: system.state_dict() for name, system in stages.items()}
    for before, after, parts in (("finetune", "svm", ("svm", "score_scale")), ("svm", "boxes", ("box_regressors",))):
        changed = {
            name.split(".")[0]
            for name, value in states[after].items()
            if value.shape != states[before][name].shape or not value.equal(states[before][name])
        }
        assert changed == set(parts)
    again = copy.deepcopy(stages["boxes"])
    again.begin_stage("svm")
    assert (again.svm.is_fitted, again.box_regressors.is_fitted) == (False, True)
    again.begin_stage("finetune")
    assert not again.box_regressors.is_fitted
    with pytest.raises(UsageError, match="wanted one of finetune, svm, boxes"):
        again.begin_stage("train")
    with pytest.raises(UsageError, match="wanted svm or boxes"):
        again.fit_stage("finetune", TRAIN)
    with pytest.raises(UsageError, match="no picture"):
        again.fit_stage("svm", [])


def test_the_state_holds_all_that_was_learned(stages) -> None:
    state = stages["boxes"].state_dict()
    twin = build().eval()
    make_room(twin, state)
    twin.load_state_dict(state)
    images = [s.image for s in TEST[:2]]
    for one, other in zip(stages["boxes"].predict(images), twin.predict(images), strict=True):
        torch.testing.assert_close(
            (one.boxes_xyxy, one.labels, one.scores), (other.boxes_xyxy, other.labels, other.scores)
        )


def test_answers_are_margins_in_order_moved_and_suppressed(stages) -> None:
    system, image = stages["boxes"], TEST[0].image
    proposed = Windows().find(image).boxes_xyxy
    with torch.no_grad():
        windows = warp_regions(system.normalize(image), proposed, 16, 1)
        pooled = system.backbone(windows)[-1]
        margins = system.svm(system.roi_heads.box_head(pooled))
        moved = system.codec.decode(system.box_regressors(pooled.flatten(1)).flatten(1), proposed).unflatten(1, (-1, 4))
    (found,) = system.predict([image])
    best = int(margins[:, found.labels[0]].argmax())
    torch.testing.assert_close(found.boxes_xyxy[0], moved[best, found.labels[0]].clamp(0, 48), atol=1e-3, rtol=1e-4)
    assert (found.scores.diff() <= 0).all()
    for label in (0, 1):
        kept = found.boxes_xyxy[found.labels == label]
        assert (pairwise_iou(kept, kept).triu(1) <= 0.3 + 1e-6).all()
    torch.testing.assert_close(system(windows), system.roi_heads(pooled))


def test_few_regions_at_once_are_as_good_as_many_and_parts_are_timed(stages) -> None:
    one, other = copy.deepcopy(stages["boxes"]), copy.deepcopy(stages["boxes"])
    one.rules = replace(one.rules, at_once=7)
    image = TEST[1].image
    (a,), (b,) = one.predict([image]), other.predict([image])
    torch.testing.assert_close((a.boxes_xyxy, a.scores), (b.boxes_xyxy, b.scores), atol=1e-3, rtol=1e-3)
    assert list(one.parts.seconds) == ["proposals", "features", "heads"]
    assert all(seconds > 0 for seconds in one.parts.seconds.values())
    none = copy.deepcopy(other)
    none.proposer = Windows(sides=())
    assert len(none.predict([image])[0]) == 0


def spy(system: RCNN, monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The regions of every call, none of which is looked at."""
    seen: list[list[Tensor]] = []

    def pooled(looks: list[Tensor], regions: list[Tensor]) -> Tensor:
        seen.append(regions)
        return torch.rand(sum(map(len, regions)), 16, 4, 4)

    monkeypatch.setattr(system, "pooled", pooled)
    return seen


def overlaps(regions: Tensor, sample: Sample) -> Tensor:
    assert sample.target.objects is not None
    return pairwise_iou(regions, sample.target.objects.boxes_xyxy).max(1).values


def test_a_step_draws_a_quarter_of_objects_from_every_picture_of_its_batch(monkeypatch) -> None:
    system = build()
    seen = spy(system, monkeypatch)
    batch = TRAIN[:4]
    system.loss([s.image for s in batch], [s.target for s in batch])
    assert [len(regions) for regions in seen[0]] == [16] * 4
    for regions, sample in zip(seen[0], batch, strict=True):
        candidates = torch.cat([sample.target.proposals_xyxy, sample.target.objects.boxes_xyxy])
        there = int((overlaps(candidates, sample) >= 0.5).sum())
        assert int((overlaps(regions, sample) >= 0.5).sum()) == min(4, there)


def test_the_loss_says_what_is_missing_and_takes_pictures_without_objects() -> None:
    system, sample = build(), TRAIN[0]
    with pytest.raises(RecordError, match=r"targets\[0\]\.proposals_xyxy"):
        system.loss([sample.image], [replace(sample.target, proposals_xyxy=None)])
    empty = Target(objects=Objects.empty(), proposals_xyxy=sample.target.proposals_xyxy)
    nothing = Target(objects=Objects.empty(), proposals_xyxy=torch.zeros(0, 4))
    assert torch.isfinite(system.loss([sample.image] * 2, [empty, nothing]).total)


def test_class_weights_weigh_regions_of_their_category(monkeypatch) -> None:
    system = build()
    seen = spy(system, monkeypatch)
    system.class_weights = torch.tensor([1.0, 4.0, 1.0])
    for parameter in system.roi_heads.cls_score.parameters():
        nn.init.zeros_(parameter)
    square = next(s for s in TRAIN if s.target.objects.labels.tolist() == [0])
    weighed = float(system.loss([square.image], [square.target]).total.detach()) / math.log(3)
    positive = int((overlaps(seen[0][0], square) >= 0.5).sum())
    assert positive > 3
    assert weighed == pytest.approx((64 + 3 * positive) / 64)


def test_features_are_computed_once_and_never_stale(tmp_path: Path, stages, monkeypatch) -> None:
    system = copy.deepcopy(stages["boxes"])
    regions = TrainingRegions(system, TRAIN, ArrayCache(tmp_path))
    first = regions[0]
    assert first.labels.tolist()[-len(TRAIN[0].target.objects) :] == TRAIN[0].target.objects.labels.tolist()
    assert len(first.features) == len(TRAIN[0].target.proposals_xyxy) + len(TRAIN[0].target.objects)
    looks: list[int] = []
    look = system.look
    monkeypatch.setattr(system, "look", lambda image: looks.append(1) or look(image))
    torch.testing.assert_close(regions[0].features, first.features)
    assert looks == []
    moved: Sample = replace(
        TRAIN[0], target=replace(TRAIN[0].target, proposals_xyxy=Windows((12,)).find(TRAIN[0].image).boxes_xyxy)
    )
    TrainingRegions(system, [moved], regions.cache)[0]
    with torch.no_grad():
        system.roi_heads.box_head.fc7.bias += 1
    assert not regions[0].features.equal(first.features)
    system.context = 2
    assert not regions[0].features.equal(first.features)
    assert len(looks) == 3


@pytest.mark.parametrize(
    ("form", "parameters", "window"),
    [(rcnn_alexnet, 56_954_261, (227, 16)), (rcnn_vgg16, 134_346_581, (224, 16)), (rcnn_small, 3_107_221, (64, 5))],
)
def test_the_forms(form, parameters: int, window: tuple[int, int]) -> None:
    with torch.device("meta"):
        system = form()
        side = system.window
        assert system(torch.rand(2, 3, side, side)).shape == (2, 21)
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert (side, system.context) == window


def test_a_classifier_is_where_it_starts_from() -> None:
    system, classifier = rcnn_alexnet(["a", "b"]), caffenet(["x"] * 3)
    taken, note = system.start_state(classifier.state_dict())
    assert note.startswith("starts from a classifier: its convolutions, fc6, fc7")
    assert set(system.state_dict()) - set(taken) >= {"roi_heads.cls_score.weight"}
    own = system.state_dict()
    assert system.start_state(own) == (own, "")


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="context=8, window=16"):
        RCNN(trunk(), BoxHead(16, 4, 8), CATEGORIES, proposer=Windows(), normalize=Normalize(), window=16, context=8)
    with pytest.raises(UsageError, match="proposal_count"):
        rcnn_small(["a"], proposal_count=0)
