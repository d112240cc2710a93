import pytest
import torch

from bestiary.backbones.resnet import resnet18, resnet50
from bestiary.errors import CheckpointError
from bestiary.segmentation.dfn import dfn_resnet101
from bestiary.segmentation.psp_net import psp_net_resnet18, psp_net_resnet50
from bestiary.weights.load import load_state


def test_a_classifier_with_a_plain_stem_is_a_start_but_for_what_reads_the_stem() -> None:
    with torch.device("meta"):
        classifier, net = resnet50().state_dict(), psp_net_resnet50()
    taken, line = net.start_state(classifier)
    own = net.state_dict()
    assert line.endswith("but for the stem and bn1, layer1.0.conv1, layer1.0.downsample.0")
    assert all(own[name].shape == value.shape for name, value in taken.items())
    missing = {name for name in own if name.startswith("backbone.") and name not in taken}
    stem = {name for name in missing if name.startswith(("backbone.conv1.", "backbone.bn1."))}
    assert missing - stem == {"backbone.layer1.0.conv1.weight", "backbone.layer1.0.downsample.0.weight"}


def test_a_classifier_with_the_same_stem_is_a_start_as_a_whole() -> None:
    with torch.device("meta"):
        net = dfn_resnet101()
    trunk = {n.removeprefix("backbone."): v for n, v in net.state_dict().items() if n.startswith("backbone.")}
    taken, line = net.start_state(trunk)
    assert set(taken) == {f"backbone.{name}" for name in trunk}
    assert "but for" not in line


def test_the_small_form_starts_from_the_published_kind_of_classifier() -> None:
    torch.manual_seed(0)
    classifier, net = resnet18(), psp_net_resnet18(("a", "b"))
    report = load_state(net, classifier.state_dict())
    assert torch.equal(net.backbone.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)  # type: ignore[index,union-attr]
    assert report.note == "starts from a classifier: its convolutions"


def test_what_it_knows_nothing_of_is_refused() -> None:
    net = psp_net_resnet18(("a", "b"))
    with pytest.raises(CheckpointError):
        load_state(net, {"strange.weight": torch.zeros(3)})
