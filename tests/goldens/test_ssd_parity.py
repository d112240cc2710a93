"""Our SSD300 against torchvision's: state, default boxes, maps, answers in their order, and losses.

`ssd300.npz` holds what torchvision 0.28 makes of parameters filled by name (weight_gain 0.7).
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from bestiary.detection.ssd import SSD, ssd300_vgg16
from bestiary.predictions import Detections
from bestiary.records import Objects, Target

OBJECTS = [
    (
        torch.tensor([[20.0, 30, 90, 100], [5, 8, 40, 37], [100, 60, 230, 170], [180, 5, 200, 25]]),
        torch.tensor([2, 89, 16, 2]),
    ),
    (torch.tensor([[50.0, 40, 61, 70]]), torch.tensor([43])),
]


@pytest.fixture(scope="module")
def wanted() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "ssd300.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def system(rule: ModuleType) -> SSD:
    system = ssd300_vgg16().eval()
    rule.fill(system, weight_gain=0.7)
    return system


def test_the_state_is_torchvisions(system: SSD, wanted: dict[str, np.ndarray]) -> None:
    parameters, *lines = str(wanted["state"]).split("\n")
    assert [f"{key} {','.join(map(str, value.shape))}" for key, value in system.state_dict().items()] == lines
    assert sum(p.numel() for p in system.parameters()) == int(parameters) == 35_641_826


def test_default_boxes_are_torchvisions(system: SSD, wanted: dict[str, np.ndarray]) -> None:
    boxes = system.boxes.over([(s, s) for s in (38, 19, 10, 5, 3, 1)])
    assert len(boxes) == 8732
    assert np.abs(boxes.numpy()[::37] - wanted["default_boxes"]).max() <= 1e-4
    assert boxes[0].tolist() == [-6.5, -6.5, 14.5, 14.5]


def test_maps_and_answers_are_torchvisions(system: SSD, rule: ModuleType, wanted: dict[str, np.ndarray]) -> None:
    picture = rule.picture((1, 3, 180, 240))[0]
    with torch.inference_mode():
        maps = system.backbone(system.scale.resize(system.normalize(picture))[None])
    (found,) = system.predict(picture)
    for level, features in enumerate(maps):
        there = wanted[f"feature.{level}"]
        here = features[:, ::16, ::2, ::2][:, : there.shape[1]].numpy()
        assert np.abs(here - there).max() <= 1e-5 * np.abs(there).max(), level
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes_xyxy, wanted["boxes"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.scores, wanted["scores"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.labels, wanted["labels"] - 1)


def test_losses_are_torchvisions(system: SSD, rule: ModuleType, wanted: dict[str, np.ndarray]) -> None:
    """Of objects that have different best boxes: where two share one, torchvision leaves the first without."""
    pictures = rule.picture((2, 3, 180, 240))
    targets = [Target(objects=Objects(boxes, labels)) for boxes, labels in OBJECTS]
    scaled, moved = [], []
    for picture, target in zip(pictures, targets, strict=True):
        image = system.scale.resize(system.normalize(picture))  # torchvision normalises first, too
        scaled.append(image * system.normalize.std + system.normalize.mean)
        moved.append(system.to_network_scale([picture], [target])[1][0])
    with torch.no_grad():
        losses = system.loss(scaled, moved).terms
    for name in ("classification", "box_regression"):
        assert float(losses[name]) == pytest.approx(float(wanted[f"loss.{name}"]), rel=1e-4)
