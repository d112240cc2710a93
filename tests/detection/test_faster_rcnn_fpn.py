"""A pyramid on any trunk, and torchvision's two forms on MobileNetV3: state and answers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from bestiary.backbones.trunks import TRUNKS, build_trunk
from bestiary.detection import faster_rcnn_fpn as forms
from bestiary.errors import UsageError
from bestiary.predictions import Detections
from bestiary.records import Objects, Target
from bestiary.weights.load import load_state

REFERENCE = Path(__file__).parent / "mobilenet_reference.npz"
"""torchvision 0.28: state of each form, and its answers for parameters made from their names (tests/goldens/fill.py),
with frozen norms, sides 160 to 256 and the factors below."""
FACTORS = {
    "rpn.head.cls_logits": 1 / 150,
    "rpn.head.bbox_pred": 1 / 1000,
    "roi_heads.box_predictor.cls_score": 1 / 150,
    "roi_heads.box_predictor.bbox_pred": 1 / 300,
}
TARGET = Target(objects=Objects(torch.tensor([[8.0, 8, 40, 44]]), torch.tensor([1])))


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_the_mobile_forms_are_torchvisions(name: str) -> None:
    spec = importlib.util.spec_from_file_location("golden_fill", Path(__file__).parents[1] / "goldens" / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    system = getattr(forms, name)(min_size=160, max_size=256).eval()
    with np.load(REFERENCE) as file:
        lines = str(file[f"{name}.state"]).split("\n")
        boxes, scores, labels = (file[f"{name}.{key}"] for key in ("boxes", "scores", "labels"))
    assert [f"{key} {','.join(map(str, v.shape))}" for key, v in system.state_dict().items()] == lines
    assert sum(p.numel() for p in system.parameters()) == 19_386_354
    rule.fill(system)
    with torch.no_grad():
        for part, factor in FACTORS.items():
            system.get_parameter(f"{part}.weight").mul_(factor)
    (found,) = system.predict(rule.picture((1, 3, 180, 240))[0])
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes_xyxy, boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.labels, labels - 1)


def test_unlikely_proposals_are_dropped() -> None:
    with torch.device("meta"):
        large, small = forms.fasterrcnn_mobilenet_v3_large_fpn(), forms.fasterrcnn_mobilenet_v3_large_320_fpn()
    assert large.proposals.min_score == small.proposals.min_score == 0.05
    assert (large.proposals.after_nms, small.proposals.after_nms) == ((2000, 1000), (2000, 150))
    assert (small.min_size, small.max_size) == (320, 640)


def test_layers_of_the_mobile_trunk_freeze_from_the_first() -> None:
    with torch.device("meta"):
        system = forms.fasterrcnn_mobilenet_v3_large_fpn(["a"], trainable_layers=3)
    frozen = {int(n.split(".")[2]) for n, p in system.named_parameters() if not p.requires_grad}
    assert frozen == set(range(7))
    with pytest.raises(UsageError, match="trainable_layers"), torch.device("meta"):
        forms.fasterrcnn_mobilenet_v3_large_fpn(trainable_layers=7)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vgg11_bn_half", "darknet19", "shufflenet_v2_x0_5"])
def test_a_detector_stands_on_any_trunk(name: str) -> None:
    torch.manual_seed(0)
    system = forms.fasterrcnn_fpn(["a", "b"], backbone=name, min_size=64, max_size=96)
    system.loss(torch.rand(2, 3, 64, 90), [TARGET] * 2).total.backward()
    for parameter in ("rpn.head.cls_logits.weight", "backbone.fpn.inner_blocks.0.0.weight"):
        grad = system.get_parameter(parameter).grad
        assert grad is not None
        assert grad.any()
    first = next(iter(system.backbone.body.parameters()))  # type: ignore[union-attr]
    assert first.grad is not None
    assert first.grad.any()
    (found,) = system.predict(torch.rand(3, 50, 70))
    assert found.size_hw == (50, 70)


def test_a_classifier_of_that_name_is_a_start() -> None:
    system, trunk = (
        forms.fasterrcnn_fpn(["a"], backbone="mobilenet_v3_small", min_size=64),
        build_trunk("mobilenet_v3_small"),
    )
    report = load_state(system, {**trunk.state_dict(), "classifier.3.weight": torch.rand(9, 9)})
    assert report.note
    name = "features.3.block.0.0.weight"
    assert torch.equal(system.get_parameter(f"backbone.body.{name}"), trunk.get_parameter(name))


def test_an_unknown_trunk_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'darknet19'"):
        forms.fasterrcnn_fpn(["a"], backbone="darknet20")
    assert "vgg16_bn" in TRUNKS
