"""The four steps: what each trains, what it leaves alone, and what survives a checkpoint."""

import copy

import pytest
import torch
from tests.detection.drawn_squares import learn, overlaps_of_the_surest, squares, tiny
from torch import Tensor

from bestiary.backbones.resnet import resnet50
from bestiary.detection.faster_rcnn_alternating import (
    STEPS,
    AlternatingFasterRCNN,
    faster_rcnn_resnet50_c4_4step,
    faster_rcnn_small_4step,
)
from bestiary.detection.faster_rcnn_single import faster_rcnn_resnet50_c4, faster_rcnn_small
from bestiary.errors import UsageError
from bestiary.recipes.detectors.faster_rcnn import STEPS as PARTS
from bestiary.records import Target
from bestiary.training.freezing import freeze
from bestiary.weights.load import load_state


def build(seed: int = 0) -> AlternatingFasterRCNN:
    system = tiny(AlternatingFasterRCNN, seed)
    assert isinstance(system, AlternatingFasterRCNN)
    return system


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, list[Target]]:
    return squares()


def train(system: AlternatingFasterRCNN, step: int, turns: int) -> list[float]:
    """One step of the recipe as the loop runs it: what does not learn is frozen, norms and all."""
    name, parts, _ = PARTS[step]
    for parameter in system.parameters():
        parameter.requires_grad_(True)
    system.begin_stage(name)
    frozen = freeze(system, (), parts)
    system.train()
    frozen.hold()
    return learn(system, turns)


def part(system: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    return {n: v.clone() for n, v in system.state_dict().items() if n.startswith(prefix + ".")}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_each_step_trains_its_parts_and_nothing_else() -> None:
    system = build()
    names = ("backbone", "rpn_backbone", "rpn", "roi_heads")
    for step, (name, trained, _) in enumerate(PARTS):
        before = {n: part(system, n) for n in names}
        train(system, step, 2)
        changed = {n for n in names if not equal(part(system, n), before[n])}
        assert changed == set(trained), name


def test_the_first_two_steps_begin_from_one_start() -> None:
    system = build()
    torch.nn.init.normal_(system.backbone.get_parameter("features.0.weight"))  # weights that were loaded, say
    start = part(system, "backbone")
    system.begin_stage("rpn")
    assert equal({n.removeprefix("rpn_"): v for n, v in part(system, "rpn_backbone").items()}, start)
    train(system, 0, 2)
    system.begin_stage("detector")
    assert equal(part(system, "backbone"), start)


def test_the_third_step_starts_the_proposal_network_afresh_and_only_once() -> None:
    system = build()
    system.begin_stage("rpn")
    system.begin_stage("detector")
    torch.nn.init.ones_(system.rpn.head.get_parameter("cls_logits.weight"))
    system.begin_stage("shared_rpn")
    fresh = system.rpn.head.get_parameter("cls_logits.weight").clone()
    assert 0.001 < float(fresh.detach().abs().mean()) < 0.02
    system.begin_stage("shared_rpn")  # as when it is resumed
    assert torch.equal(system.rpn.head.get_parameter("cls_logits.weight"), fresh)


def test_beginning_the_first_step_again_keeps_what_was_learned() -> None:
    system = build()
    train(system, 0, 1)
    kept = part(system, "rpn_backbone")
    system.begin_stage("rpn")
    assert equal(part(system, "rpn_backbone"), kept)


def test_each_step_has_its_own_terms(pictures: tuple[Tensor, list[Target]]) -> None:
    system = build()
    first, second = ["rpn_objectness", "rpn_box"], ["box_class", "box_regression"]
    assert list(system.loss(*pictures).terms) == first + second
    for name, wanted in zip(STEPS, (first, second, first, second), strict=True):
        system.begin_stage(name)
        assert list(system.loss(*pictures).terms) == wanted


def test_trunks_are_shared_from_the_third_step_on(pictures: tuple[Tensor, list[Target]]) -> None:
    system = build().eval()
    system.begin_stage("detector")
    torch.nn.init.zeros_(system.rpn_backbone.get_parameter("features.0.weight"))
    with torch.no_grad():
        apart = system(pictures[0]).objectness[0]
        system.begin_stage("shared_rpn")
        shared = system(pictures[0])
        again = system.rpn(shared.pyramid)[0][0]
    assert not torch.allclose(apart, shared.objectness[0])
    assert torch.equal(again, shared.objectness[0])


def test_a_checkpoint_knows_how_far_the_training_was() -> None:
    system, twin = build(), build(1)
    system.begin_stage("shared_detector")
    twin.load_state_dict(system.state_dict())
    assert twin.is_shared
    assert int(twin.step) == 4
    assert copy.deepcopy(twin).is_shared
    twin.load_state_dict(build().state_dict())
    assert not twin.is_shared


def test_weights_go_to_the_joint_system_and_come_from_it(pictures: tuple[Tensor, list[Target]]) -> None:
    system = build().eval()
    system.begin_stage("shared_detector")
    joint = tiny(seed=2).eval()
    assert load_state(joint, system.state_dict()).note
    with torch.no_grad():
        assert torch.equal(joint(pictures[0]).objectness[0], system(pictures[0]).objectness[0])
    other = build(1)
    assert load_state(other, joint.state_dict()).note
    assert int(other.step) == 0
    assert equal(part(other, "backbone"), part(joint, "backbone"))


def test_an_unknown_step_is_an_error() -> None:
    with pytest.raises(UsageError, match="wanted one of rpn, detector"):
        build().begin_stage("finetune")


def test_the_four_steps_learn_to_find_two_squares() -> None:
    system = build()
    for step, turns in enumerate((40, 80, 40, 40)):
        losses = train(system, step, turns)
        assert sum(losses[-3:]) < sum(losses[:3]), PARTS[step][0]
    assert min(overlaps_of_the_surest(system)) > 0.5


def test_the_named_form_has_a_second_trunk() -> None:
    with torch.device("meta"):
        system, joint = faster_rcnn_small_4step(["a"]), faster_rcnn_small(["a"])
    more = {n for n, _ in system.named_parameters()} - {n for n, _ in joint.named_parameters()}
    assert more == {f"rpn_{n}" for n, _ in joint.named_parameters() if n.startswith("backbone.")}


def test_conv4_of_a_resnet_has_a_second_trunk_and_one_conv5() -> None:
    categories = [str(i) for i in range(20)]
    with torch.device("meta"):
        system, joint = faster_rcnn_resnet50_c4_4step(categories), faster_rcnn_resnet50_c4(categories)
    more = {n: p.numel() for n, p in system.named_parameters()}
    for name, parameter in joint.named_parameters():
        assert more.pop(name) == parameter.numel()
    trunk = {n: p.numel() for n, p in joint.named_parameters() if n.startswith("backbone.")}
    assert more == {f"rpn_{name}": count for name, count in trunk.items()}
    assert sum(trunk.values()) == 8_512_704  # conv1 to conv4 of ResNet-50 without norms
    assert {n.split(".")[0] for n, _ in system.named_parameters()} == {part for _, parts, _ in PARTS for part in parts}


def test_a_classifiers_conv5_starts_the_box_head_and_its_trunk_both() -> None:
    source = resnet50(["a", "b"])
    system = faster_rcnn_resnet50_c4_4step(["a", "b"], min_size=64, max_size=64)
    assert load_state(system, source.state_dict()).note
    system.begin_stage("rpn")
    weight = source.get_parameter("layer3.5.conv2.weight")
    for trunk in ("backbone", "rpn_backbone"):
        assert torch.equal(system.get_parameter(f"{trunk}.layer3.5.conv2.weight"), weight)
    drawn, targets = squares()
    for name, wanted in zip(STEPS, (["rpn_objectness", "rpn_box"], ["box_class", "box_regression"]) * 2, strict=True):
        system.begin_stage(name)
        terms = system.loss(drawn[:1], targets[:1]).terms
        assert list(terms) == wanted
        assert all(torch.isfinite(term) for term in terms.values())
    own = {n.rsplit("layer4.", 1)[1]: p for n, p in system.named_parameters() if "roi_heads" in n and "layer4." in n}
    assert torch.equal(own["2.conv3.weight"], source.get_parameter("layer4.2.conv3.weight"))
