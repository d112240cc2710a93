"""The fully convolutional ResNets beside what the parity with torchvision shows."""

import pytest
import torch

from bestiary.backbones.resnet import resnet18
from bestiary.records import Target
from bestiary.segmentation.fcn_resnet import fcn_resnet18, fcn_resnet50, fcn_resnet101
from bestiary.weights.load import load_state

CATEGORIES = ("sky", "road", "car")


def test_parameters() -> None:
    with torch.device("meta"):
        systems = {
            "50": fcn_resnet50(),
            "50 alone": fcn_resnet50(auxiliary=False),
            "101": fcn_resnet101(),
            "18": fcn_resnet18(),
        }
    assert {name: sum(p.numel() for p in system.parameters()) for name, system in systems.items()} == {
        "50": 35_322_218,
        "50 alone": 32_957_013,
        "101": 54_314_346,
        "18": 11_769_301,
    }


@pytest.mark.parametrize(("output_stride", "side"), [(8, 12), (16, 6), (32, 3)])
def test_maps_have_the_stride_that_was_asked_for(output_stride: int, side: int) -> None:
    with torch.device("meta"):
        system = fcn_resnet50(output_stride=output_stride).eval()
        assert system.backbone(torch.rand(1, 3, 96, 96))[-1].shape[-2:] == (side, side)
        assert system.backbone.levels[-1].stride == output_stride


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return fcn_resnet18(CATEGORIES, auxiliary=True)


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (70, 33)])
def test_any_picture_is_predicted_and_learned(size: tuple[int, int]) -> None:
    system, image = small(), torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    target = Target(label_map=torch.zeros(size, dtype=torch.uint8))
    assert system.train().loss([image], [target]).total.isfinite()
    (prediction,) = system.eval().predict_images([image])
    assert prediction.label_map.shape == size


def test_training_reaches_every_parameter_and_lowers_the_loss() -> None:
    system = small().train()
    images = list(torch.rand(2, 3, 64, 64))
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[:, 20:], labels[40:] = 1, 2
    optimizer, history = torch.optim.AdamW(system.parameters(), lr=1e-3), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = system.loss(images, [Target(label_map=labels)] * 2).total
        loss.backward()
        assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.6 * history[0]


def test_it_starts_from_resnets_classifier() -> None:
    torch.manual_seed(1)
    classifier, system = resnet18(["a", "b"]), small()
    report = load_state(system, classifier.state_dict())
    assert report.summary() == "starts from a classifier: its convolutions"
    trunk = {n.removeprefix("backbone.") for n in system.state_dict() if n.startswith("backbone.")}
    assert trunk == {n for n in classifier.state_dict() if not n.startswith("fc.")}
    assert torch.equal(system.backbone.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)


def test_other_channels() -> None:
    system = fcn_resnet18(CATEGORIES, in_channels=2).eval()
    assert system.predict_logits(torch.rand(1, 2, 33, 40)).shape == (1, 3, 33, 40)
