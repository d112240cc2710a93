"""Every rung from YOLO to YOLOv2: what each argument changes, and that each can be trained."""

from typing import Any

import pytest
import torch
from torch import nn

from bestiary.detection.yolo_v1 import YOLOv1
from bestiary.detection.yolo_v2 import YOLOv2
from bestiary.detection.yolo_v2_ladder import HAND_PICKED, ConnectedYOLO, yolo_v2_ladder
from bestiary.errors import UsageError
from bestiary.heads.detection import Detector
from bestiary.records import Objects, Target

OFF = {"darknet19": False, "dimension_priors": False, "direct_location": False, "passthrough": False}
RUNGS: list[dict[str, Any]] = [
    {"batch_norm": False, "convolutional": False, "size": 448},
    {"convolutional": False, "size": 448},
    {**OFF},
    {**OFF, "darknet19": True},
    {"passthrough": False},
    {},
    {"train_sizes": (320, 352, 416)},
    {"size": 544},
]
"""The table's columns; that of the hi-res classifier differs in its weights only."""


def rung(number: int) -> Detector:
    return yolo_v2_ladder(["a", "b"], **RUNGS[number])


def test_each_rung_is_what_its_column_says() -> None:
    systems = [rung(n) for n in range(len(RUNGS))]
    norms = [any(isinstance(m, nn.BatchNorm2d) for m in system.modules()) for system in systems]
    assert norms == [False, *[True] * 7]
    assert [isinstance(system, YOLOv1) for system in systems] == [True, True, *[False] * 6]
    later = [system for system in systems if isinstance(system, YOLOv2)]
    assert [len(system.priors_wh) for system in later] == [9, 9, 5, 5, 5, 5]
    assert [system.direct_location for system in later] == [False, False, True, True, True, True]
    assert [system.fit_priors for system in later] == [False, False, True, True, True, True]
    assert [system.network.fine is not None for system in later] == [False, False, False, True, True, True]
    outputs = [system.network.predictor.out_channels for system in later]
    assert outputs == [9 * 7, 9 * 7, *[5 * 7] * 4]
    assert [system.network.stride for system in later] == [32] * 6
    assert (later[-2].train_sizes, later[-1].size) == ((320, 352, 416), 544)


def test_hand_picked_sizes_are_three_areas_in_three_proportions() -> None:
    pairs = list(zip(HAND_PICKED[::2], HAND_PICKED[1::2], strict=True))
    assert [w * h for w, h in pairs] == pytest.approx([4] * 3 + [16] * 3 + [64] * 3)
    assert [h / w for w, h in pairs] == pytest.approx([0.5, 1, 2] * 3)


@pytest.mark.parametrize("number", [0, 2, 5])
def test_a_rung_begins_with_priors_and_has_a_loss(number: int) -> None:
    said: list[str] = []
    system = rung(number).eval()
    target = Target(objects=Objects(torch.tensor([[10.0, 10.0, 60.0, 50.0]]), torch.tensor([1])))
    system.begin_stage("priors")
    if isinstance(system, ConnectedYOLO):
        system.fit_stage("priors", [], say=said.append)
        assert said == ["connected layers have no priors"]
    system.begin_stage("detector")
    loss = system.loss(*system.to_network_scale([torch.rand(3, 80, 90)], [target])).total
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in system.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"convolutional": False, "size": 448, "train_sizes": (320,)}, "one size"),
        ({"batch_norm": False}, "batch norm"),
        ({"darknet19": False}, "without Darknet-19"),
        ({"convolutional": False, "size": 416}, "multiple of 64"),
    ],
)
def test_what_is_no_rung_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        yolo_v2_ladder(["a"], **arguments)
