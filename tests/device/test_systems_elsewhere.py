"""Systems on a device that is not the CPU: losses, gradients and predictions as on the CPU.

On the second device always (see `second_device`), on a GPU where there is one.
"""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from second_device import here
from torch import Tensor, nn

from bestiary import zoo
from bestiary.data.world import World
from bestiary.detection.retinanet import RetinaNet
from bestiary.geometry.boxes import clip_boxes
from bestiary.records import Sample
from bestiary.system import System, evaluation_mode
from bestiary.training.settings import Settings

NAMES = [
    *("alexnet_cifar", "googlenet_cifar", "resnet18_cifar", "squeezenext_cifar", "shufflenet_v2_cifar"),
    *("sliding_window_small", "rcnn_small", "spp_net_small", "fast_rcnn_small", "faster_rcnn_small", "r_fcn_small"),
    *("faster_rcnn_small_4step", "fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet18_fpn", "ssd300_small"),
    *("yolo_v1_small", "yolo_v2_small", "corner_net_small"),
    *("pixel_windows_small", "farabet_small", "recurrent_cnn_small", "zoom_out_small", "hypercolumns_small"),
    *("fcn8s_small", "segnet_small", "deconv_net_small", "unet_small", "dilation_small", "deeplab_v2_small"),
    *("deeplab_v3_plus_resnet18", "psp_net_resnet18", "refine_net_resnet18", "dfn_resnet18", "exfuse_resnet18"),
]
FINDS_NOTHING = {"corner_net_small"}
"""What finds nothing before it has learned something: its corners do not pair."""
WORLD = World(2, split="train")


def with_proposals(sample: Sample) -> Sample:
    assert sample.target.objects is not None
    boxes = sample.target.objects.boxes_xyxy
    height, width = sample.original_size_hw
    shifted = clip_boxes(torch.cat([boxes + shift for shift in (0.0, 3.0, -2.0, 20.0)]), (height, width))
    return replace(sample, target=replace(sample.target, proposals_xyxy=shifted))


def prepared(name: str) -> tuple[System, list[Sample]]:
    """A fresh system as it stands in the last stage that has gradients, and two pictures with all the truth there is.

    Dropout is off: each device draws numbers of its own.
    """
    torch.manual_seed(0)
    system, samples = zoo.build(name, WORLD.categories), [with_proposals(WORLD[index]) for index in range(2)]
    system.observe(samples)
    for stage in zoo.recipe_of(name).stages:
        system.begin_stage(stage.name)
        if not isinstance(stage.settings, Settings):
            break
    for module in system.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return system, samples


def learn(name: str, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms of the loss and gradients of one batch."""
    system, samples = prepared(name)
    images, targets = system.to_network_scale([s.image for s in samples], [s.target for s in samples])
    system.train().to(device)
    torch.manual_seed(1)
    losses = system.loss([image.to(device) for image in images], [target.to(device) for target in targets])
    losses.total.backward()
    gradients = {key: p.grad for key, p in system.named_parameters() if p.grad is not None}
    assert all(value.device == device for value in (*losses.terms.values(), *gradients.values()))
    return here(dict(losses.terms)), here(gradients)


def tensors_of(prediction: Any) -> dict[str, Tensor]:
    found = {f.name: getattr(prediction, f.name) for f in fields(prediction)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def predict(name: str, device: torch.device) -> list[dict[str, Tensor]]:
    system, samples = prepared(name)
    if isinstance(system, RetinaNet):
        system.settings = replace(system.settings, min_score=0.0)  # at first all scores are 0.01
    system.to(device)
    with evaluation_mode(system), torch.no_grad():
        found = [tensors_of(p) for p in system.predict_images([s.image.to(device) for s in samples])]
    assert all(value.device == device for tensors in found for value in tensors.values())
    return here(found)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_there_as_it_does_here(name: str, device: torch.device) -> None:
    (wanted, slopes), (terms, gradients) = learn(name, torch.device("cpu")), learn(name, device)
    torch.testing.assert_close(terms, wanted, rtol=1e-3, atol=1e-5)
    assert gradients.keys() == slopes.keys()
    for key, gradient in gradients.items():
        assert float((gradient - slopes[key]).norm()) <= 1e-2 * float(slopes[key].norm()) + 1e-5, key


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FINDS_NOTHING])
def test_it_predicts_there_what_it_predicts_here(name: str, device: torch.device) -> None:
    wanted, found = predict(name, torch.device("cpu")), predict(name, device)
    assert sum(value.numel() for tensors in wanted for value in tensors.values()) > 0
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
