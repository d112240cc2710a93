"""Class activation maps where the logit is a mean of them, Grad-CAM elsewhere."""

import pytest
import torch
from tests.inspect.small_nets import branches, pixels
from torch import nn

from bestiary.errors import UsageError
from bestiary.inspect.class_maps import class_map
from bestiary.zoo import build


def test_the_mean_of_a_class_activation_map_is_the_logit_without_its_bias() -> None:
    torch.manual_seed(0)
    net = build("resnet18_cifar", list("abcd")).eval()
    found = class_map(net, pixels(side=32), 2)
    assert (found.method, found.layer) == ("CAM", "layer4")
    assert found.heat.shape == (4, 4)
    bias = float(net.fc.bias.detach()[2])  # type: ignore[union-attr, index]
    assert float(found.heat.mean()) + bias == pytest.approx(found.logit, rel=1e-4)
    assert class_map(net, pixels(side=32)).category == int(net(pixels(side=32)).argmax())


def test_grad_cam_is_the_positive_part_of_the_class_activation_map() -> None:
    torch.manual_seed(0)
    net = build("resnet18_cifar", list("abcd")).eval()
    plain, graded = class_map(net, pixels(side=32), 1), class_map(net, pixels(side=32), 1, layer="layer4")
    assert graded.method == "Grad-CAM"
    torch.testing.assert_close(graded.heat * 16, plain.heat.clamp(min=0), rtol=1e-4, atol=1e-5)


def test_a_network_that_averages_a_map_of_each_category() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = class_map(net, pixels(side=9), 3)
    assert (found.method, found.layer) == ("CAM", "2")
    torch.testing.assert_close(found.heat, net[:3](pixels(side=9))[0, 3])


def test_without_global_pooling_it_is_grad_cam_by_its_formula() -> None:
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True))
    net = nn.Sequential(body, nn.Flatten(), nn.Linear(6 * 49, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    found = class_map(net, pixels(side=9), 0)
    maps = body(pixels(side=9)).detach().requires_grad_(True)
    net[1:](maps)[0, 0].backward()
    assert maps.grad is not None
    expected = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1)[0].relu()
    assert found.method == "Grad-CAM"
    torch.testing.assert_close(found.heat, expected.detach())


def test_grad_cam_looks_before_the_last_pool() -> None:
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2))
    net = nn.Sequential(body, nn.Flatten(), nn.Linear(6 * 9, 4)).eval()
    found = class_map(net, pixels(side=8))
    assert found.layer == "0.1"
    assert found.heat.shape == (6, 6)
    assert class_map(net, pixels(side=8), layer="0.2").heat.shape == (3, 3)


def test_pooling_in_a_function_after_an_activation_in_a_function_is_not_mistaken() -> None:
    # The rectified map of conv3 is no layer's output as such, but an in-place activation leaves it there.
    net = branches(inplace=True)
    found = class_map(net, pixels(), 1)
    assert (found.method, found.layer) == ("CAM", "conv3")
    assert float(found.heat.mean()) + float(net.fc.bias.detach()[1]) == pytest.approx(found.logit, rel=1e-4)
    assert class_map(branches(inplace=False), pixels(), 1).method == "Grad-CAM"


def test_what_has_no_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="logits"):
        class_map(nn.Conv2d(3, 4, 3), pixels())
    with pytest.raises(UsageError, match="category"):
        class_map(branches(), pixels(), 5)
    with pytest.raises(UsageError, match="no map"):
        class_map(nn.Sequential(nn.Flatten(), nn.Linear(27, 4)), pixels(side=3), 0)
