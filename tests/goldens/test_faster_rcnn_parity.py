"""Our Faster R-CNN against torchvision's `fasterrcnn_resnet50_fpn`: state, pyramid and answers in their order."""

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from bestiary.backbones.resnet import VARIANTS, ResNet
from bestiary.detection.faster_rcnn import FasterRCNN, fasterrcnn_resnet50_fpn
from bestiary.heads.published import COCO_90
from bestiary.layers.preprocess import pad_batch
from bestiary.necks.fpn import FPN, CoarserByPool, PyramidBackbone
from bestiary.predictions import Detections

NAME = "fasterrcnn_resnet50_fpn"


@pytest.fixture(scope="module")
def system(rule: ModuleType) -> FasterRCNN:
    system = fasterrcnn_resnet50_fpn(min_size=160, max_size=256).eval()
    rule.fill(system, norm_gain=0.5)
    return system


def test_the_state_with_trainable_norms_is_torchvisions(states: dict[str, tuple[int, list[str]]]) -> None:
    with torch.device("meta"):
        trunk = ResNet(VARIANTS["resnet50"], norm=nn.BatchNorm2d)
        system = FasterRCNN(PyramidBackbone(trunk, FPN(trunk.levels, extra=CoarserByPool())), COCO_90)
    parameters, lines = states[NAME]
    assert [f"{key} {','.join(map(str, value.shape))}" for key, value in system.state_dict().items()] == lines
    assert sum(p.numel() for p in system.parameters()) == parameters


def test_with_frozen_norms_only_the_batch_counts_are_missing(
    system: FasterRCNN, states: dict[str, tuple[int, list[str]]]
) -> None:
    wanted = [line for line in states[NAME][1] if "num_batches_tracked" not in line]
    assert [f"{key} {','.join(map(str, value.shape))}" for key, value in system.state_dict().items()] == wanted
    assert sum(p.numel() for p in system.parameters()) == 41_755_286


def test_a_published_state_with_batch_counts_loads(system: FasterRCNN) -> None:
    state = system.state_dict()
    state["backbone.body.bn1.num_batches_tracked"] = torch.tensor(7)
    system.load_state_dict(state)


def test_the_pyramid_is_torchvisions(system: FasterRCNN, rule: ModuleType, outputs: dict[str, np.ndarray]) -> None:
    picture = rule.picture((1, 3, 180, 240))[0]
    with torch.inference_mode():
        raw = system(pad_batch([system.resize(system.normalize(picture))], 32))
    for level, key in zip(raw.pyramid, ["0", "1", "2", "3", "pool"], strict=True):
        wanted = outputs[f"{NAME}.feature.{key}"]
        assert np.abs(level[:, ::16, ::2, ::2].numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max(), key


def test_the_answers_are_torchvisions(system: FasterRCNN, rule: ModuleType, outputs: dict[str, np.ndarray]) -> None:
    (found,) = system.predict(rule.picture((1, 3, 180, 240))[0])
    assert isinstance(found, Detections)
    off = np.abs(found.boxes_xyxy.numpy() - outputs[f"{NAME}.boxes"])
    # The same float32 network moves single numbers by up to 1.5e-3 pixels from one thread to two, or between
    # convolution algorithms (measured); any difference of meaning, such as eps, moves boxes by far more.
    assert np.quantile(off, 0.98) <= 1e-3
    assert off.max() <= 5e-3
    np.testing.assert_allclose(found.scores, outputs[f"{NAME}.scores"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.labels, outputs[f"{NAME}.labels"] - 1)


def test_another_eps_is_another_network(rule: ModuleType, outputs: dict[str, np.ndarray]) -> None:
    system = fasterrcnn_resnet50_fpn(min_size=160, max_size=256, norm_eps=1e-3).eval()
    rule.fill(system, norm_gain=0.5)
    (found,) = system.predict(rule.picture((1, 3, 180, 240))[0])
    wanted = outputs[f"{NAME}.boxes"]
    assert isinstance(found, Detections)
    assert len(found) != len(wanted) or np.abs(found.boxes_xyxy.numpy() - wanted).max() > 0.1
