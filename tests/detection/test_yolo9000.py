"""YOLO9000: pictures with boxes and pictures with labels in one batch."""

import pytest
import torch
from torch import Tensor

from bestiary.backbones.tiny_darknet import TinyDarknet
from bestiary.detection.yolo9000 import YOLO9000
from bestiary.errors import RecordError
from bestiary.heads.region_layer import RegionRaw, RegionRule, split_raw
from bestiary.heads.region_network import RegionNetwork
from bestiary.heads.word_tree import TreeClasses, WordTree
from bestiary.records import Objects, Sample, Target

CATEGORIES = ("animal", "cat", "dog", "chair")
TREE = WordTree.of(CATEGORIES, ("cat=animal", "dog=animal"))
PRIORS = (1.2, 1.2, 1.6, 1.6)
DETECTION = {"object", "no_object", "box", "class", "pull"}


def tiny(threshold: float | None = None) -> YOLO9000:
    torch.manual_seed(0)
    trunk = TinyDarknet((4, 8, 16, 16, 32, 32, 64))
    network = RegionNetwork(trunk, 2 * (5 + len(TREE.names)), convolutions=0, passthrough=0)
    rule = RegionRule(pull_pictures=0, cross_entropy=True)
    classes = TreeClasses(TREE, CATEGORIES, threshold)
    return YOLO9000(network, CATEGORIES, priors=PRIORS, classes=classes, size=128, rule=rule).eval()


def boxed(label: int) -> Target:
    return Target(objects=Objects(torch.tensor([[20.0, 20.0, 70.0, 70.0]]), torch.tensor([label])))


def test_a_joint_batch_has_both_kinds_of_terms() -> None:
    system, images = tiny(), torch.rand(4, 3, 128, 128)
    labels = [Target(label=1), Target(label=3)]
    boxes = [boxed(0), boxed(2)]
    joint = system.loss(images, [boxes[0], labels[0], labels[1], boxes[1]]).terms
    assert set(joint) == DETECTION | {"label", "label_no_object"}
    apart = system.loss(images[[0, 3]], boxes).terms, system.loss(images[[1, 2]], labels).terms
    for name, value in joint.items():
        assert 2 * value.item() == pytest.approx(apart[name.startswith("label")][name].item(), rel=1e-4)
    assert apart[0]["label"] == apart[1]["object"] == apart[1]["box"] == 0


def test_the_likeliest_place_learns_the_label_and_the_others_that_there_is_nothing() -> None:
    system = tiny()
    maps = torch.randn(1, 2 * 9, 4, 4).requires_grad_()
    raw = split_raw(maps, 2)
    label = torch.tensor([2])
    likely = raw.objectness.sigmoid() * system.classes.probs(raw.classes)[..., 2]
    place = int(likely[0].argmax())
    assert system.assign_label(raw, label).tolist() == [place]
    total = torch.stack(list(system.label_terms(raw, label).values())).sum()
    gradients = torch.autograd.grad(total, list(raw), allow_unused=True)
    offsets, objectness, classes = gradients
    assert offsets is None
    assert (objectness[0] == 0).nonzero().tolist() == [[place]]
    assert (objectness[0, torch.arange(32) != place] > 0).all()
    assert classes[0].any(1).nonzero().tolist() == [[place]]


def test_a_label_from_above_teaches_nothing_beneath() -> None:
    system = tiny()
    numbers = (0.1 * torch.randn(1, 3, 4)).requires_grad_()
    raw = RegionRaw(torch.zeros(1, 3, 4), torch.tensor([[0.0, 5.0, 0.0]]), numbers)
    system.label_terms(raw, torch.tensor([0]))["label"].backward()
    gradient = raw.classes.grad
    assert gradient is not None
    beneath = [TREE.names.index(name) for name in ("cat", "dog")]
    beside = [TREE.names.index(name) for name in ("animal", "chair")]
    assert (gradient[0, 1, beneath] == 0).all()
    assert (gradient[0, 1, beside] != 0).all()


def test_names_are_learned_from_labels_and_places_from_boxes() -> None:
    rng = torch.Generator().manual_seed(0)

    def picture(channel: int, x: int, y: int) -> Tensor:
        image = 0.2 * torch.rand(3, 128, 128, generator=rng)
        image[channel, y : y + 50, x : x + 50] += 0.8
        return image

    images = [picture(0, 20, 20), picture(1, 60, 50), picture(0, 50, 10), picture(1, 15, 60)]
    places = [(20, 20), (60, 50)]
    targets = [
        Target(objects=Objects(torch.tensor([[x, y, x + 50, y + 50]]).float(), torch.tensor([0]))) for x, y in places
    ]
    targets += [Target(label=1), Target(label=2)]  # boxes say animal, labels say which
    system = tiny().train()
    optimiser = torch.optim.Adam(system.parameters(), 0.003)
    for _ in range(60):
        optimiser.zero_grad()
        system.loss(images, targets).total.backward()
        optimiser.step()
    system.eval()
    first, second = system.detect_images(images[:2])
    for found, wanted, other in ((first, 1, 2), (second, 2, 1)):
        best = {k: max([0.0, *found.scores[found.labels == k].tolist()]) for k in range(4)}
        assert best[wanted] > best[other]
        assert best[0] >= best[wanted]
        assert best[0] > 0.3


def test_a_threshold_gives_one_category_a_box() -> None:
    _, scores = tiny(0.5).candidates(torch.randn(2, 18, 4, 4), (128, 128))
    assert ((scores > 0).sum(-1) == 1).all()


def test_priors_come_from_the_pictures_with_boxes() -> None:
    system = tiny()
    samples = [
        Sample(torch.zeros(3, 128, 128), target, "a.png", (128, 128))
        for target in (boxed(1), Target(label=0), boxed(3))
    ]
    system.fit_stage("priors", samples)
    torch.testing.assert_close(system.priors_wh, torch.full((2, 2), 50 / 32))


@pytest.mark.parametrize("target", [Target(), Target(label=4)])
def test_a_picture_must_say_something(target: Target) -> None:
    with pytest.raises(RecordError, match="objects, or a label from 0 to 3"):
        tiny().loss(torch.rand(1, 3, 64, 64), [target])
