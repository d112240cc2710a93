"""Our RetinaNet against torchvision's two: state, pyramid, answers in their order, and losses.

`retinanet.npz` holds what torchvision 0.28 makes of parameters filled by name (norm_gain 0.5, weight_gain 0.9) with
min_size 160, max_size 256; losses with norms in evaluation mode.
"""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from bestiary.detection import retinanet
from bestiary.detection.retinanet import RetinaNet
from bestiary.heads.truth import Truth
from bestiary.layers.preprocess import pad_batch
from bestiary.predictions import Detections
from bestiary.weights.load import load_state

V1, V2 = "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"
GAINS = {"norm_gain": 0.5, "weight_gain": 0.9}
SCALE = torch.tensor([224 / 240, 160 / 180] * 2)
OBJECTS = [
    (
        torch.tensor([[20.0, 30, 90, 100], [5, 8, 40, 37], [100, 60, 230, 170], [180, 5, 200, 25]]),
        torch.tensor([2, 89, 16, 2]),
    ),
    (torch.tensor([[50.0, 40, 61, 70]]), torch.tensor([43])),
]


@pytest.fixture(scope="module")
def wanted() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "retinanet.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module", params=[V1, V2])
def named(request: pytest.FixtureRequest, rule: ModuleType) -> tuple[str, RetinaNet]:
    system = getattr(retinanet, request.param)(min_size=160, max_size=256).eval()
    rule.fill(system, **GAINS)
    return request.param, system


def test_the_state_is_torchvisions(named: tuple[str, RetinaNet], wanted: dict[str, np.ndarray]) -> None:
    name, system = named
    lines = str(wanted[f"{name}.state"]).split("\n")[1:]
    said = [f"{key} {','.join(map(str, value.shape))}" for key, value in system.state_dict().items()]
    assert said == (lines if name == V2 else [v for v in lines if "num_batches_tracked" not in v])
    assert sum(p.numel() for p in system.parameters()) == (34_014_999 if name == V1 else 38_198_935)


@pytest.mark.parametrize("named", [V1], indirect=True)
def test_a_file_with_the_older_names_loads(named: tuple[str, RetinaNet]) -> None:
    _, system = named
    state = system.state_dict()
    older = {re.sub(r"(_head\.conv)\.(\d)\.0", lambda m: f"{m[1]}.{2 * int(m[2])}", n): v for n, v in state.items()}
    older["backbone.body.bn1.num_batches_tracked"] = torch.tensor(7)
    assert "head.regression_head.conv.6.weight" in older
    assert set(load_state(system, older).loaded) == set(state)


@pytest.mark.parametrize("named", [V1], indirect=True)
def test_the_pyramid_is_torchvisions(
    named: tuple[str, RetinaNet], rule: ModuleType, wanted: dict[str, np.ndarray]
) -> None:
    name, system = named
    picture = rule.picture((1, 3, 180, 240))[0]
    with torch.inference_mode():
        pyramid = system.backbone(pad_batch([system.scale.resize(system.normalize(picture))], 32))
    for level, key in zip(pyramid, ["0", "1", "2", "p6", "p7"], strict=True):
        right = wanted[f"{name}.feature.{key}"]
        assert np.abs(level[:, ::16, ::2, ::2].numpy() - right).max() <= 1e-4 * np.abs(right).max(), key


def test_the_answers_are_torchvisions(
    named: tuple[str, RetinaNet], rule: ModuleType, wanted: dict[str, np.ndarray]
) -> None:
    name, system = named
    (found,) = system.predict(rule.picture((1, 3, 180, 240))[0])
    assert isinstance(found, Detections)
    # Output 0 is no category: what random parameters let torchvision answer there, ours never does.
    rows = wanted[f"{name}.labels"] > 0
    count = int(rows.sum())
    assert len(found) == 300
    np.testing.assert_array_equal(found.labels[:count], wanted[f"{name}.labels"][rows] - 1)
    np.testing.assert_allclose(found.boxes_xyxy[:count], wanted[f"{name}.boxes"][rows], rtol=0, atol=5e-3)
    np.testing.assert_allclose(found.scores[:count], wanted[f"{name}.scores"][rows], rtol=0, atol=1e-4)


def test_the_losses_are_torchvisions(
    named: tuple[str, RetinaNet], rule: ModuleType, wanted: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, system = named
    monkeypatch.setattr(system, "unused_outputs", 0)  # torchvision lets the first output learn that it is nothing
    truths = [Truth(boxes * SCALE, labels + 1, torch.zeros(0, 4)) for boxes, labels in OBJECTS]
    with torch.inference_mode():
        pixels = system.normalize(rule.picture((2, 3, 160, 224)))
        losses = system.loss_of(system(pixels), (160, 224), truths)
    np.testing.assert_allclose([float(v) for v in losses.terms.values()], wanted[f"{name}.losses"], rtol=1e-4)
