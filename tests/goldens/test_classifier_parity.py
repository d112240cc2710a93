"""Our classifiers against torchvision's: the same state, and with the same parameters the same logits."""

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary import zoo
from bestiary.backbones import resnet

NAMES = [
    "alexnet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg16_bn",
    "googlenet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "squeezenet1_0",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
]


@pytest.fixture(scope="module")
def pixels(rule: ModuleType) -> Tensor:
    return rule.picture((2, 3, 224, 224))


@pytest.mark.parametrize("name", NAMES)
def test_state_and_logits_are_torchvisions(
    name: str,
    rule: ModuleType,
    states: dict[str, tuple[int, list[str]]],
    outputs: dict[str, np.ndarray],
    pixels: Tensor,
) -> None:
    with torch.device("meta"):
        network = zoo.build(name)
    network = network.to_empty(device="cpu").eval()
    parameters, lines = states[name]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert [f"{key} {','.join(map(str, value.shape))}" for key, value in network.state_dict().items()] == lines
    rule.fill(network)
    with torch.inference_mode():
        logits = network(pixels).numpy()
    wanted = outputs[name]
    assert np.abs(logits - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(("name", "parameters"), [("resnext101_64x4d", 83_455_272), ("wide_resnet101_2", 126_886_696)])
def test_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = getattr(resnet, name)()
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_the_msra_form_has_the_same_state_and_other_logits(
    rule: ModuleType, outputs: dict[str, np.ndarray], pixels: Tensor
) -> None:
    torchvisions, papers = resnet.resnet50().eval(), resnet.resnet50_msra().eval()
    rule.fill(torchvisions)
    papers.load_state_dict(torchvisions.state_dict())
    with torch.inference_mode():
        logits = papers(pixels).numpy()
    wanted = outputs["resnet50"]
    assert np.abs(logits - wanted).max() > 0.01 * np.abs(wanted).max()
