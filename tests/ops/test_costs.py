import math
from itertools import pairwise

import pytest
import torch
from tests.ops.chains import ALEXNET, VGG16, chain
from torch import nn
from torch.nn import functional as F

from bestiary.backbones.resnet import VARIANTS, ResNet, ResNetClassifier
from bestiary.errors import RecordError
from bestiary.ops.costs import LayerCost, network_costs
from bestiary.ops.dry_run import dry_run
from bestiary.ops.shapes import convolution_cost


def classifier(plan: str, side: int) -> nn.Module:
    widths = [int(plan.split()[-2].split(".")[0]) * side**2, 4096, 4096, 1000]
    linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*chain(plan), nn.Flatten(), linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("alexnet", 61_100_840, 714_188_480),
        ("vgg16", 138_357_544, 15_470_264_320),
        ("resnet50", 25_557_032, 4_089_184_256),
    ],
)
def test_published_counts(name: str, parameters: int, multiply_adds: int) -> None:
    """The numbers that torchvision publishes for its files; no memory is needed for 138 million parameters."""
    with torch.device("meta"):
        if name == "resnet50":
            network: nn.Module = ResNetClassifier(ResNet(VARIANTS[name]), [str(i) for i in range(1000)])
        else:
            network = classifier(ALEXNET, 6) if name == "alexnet" else classifier(VGG16, 7)
    costs = network_costs(network, (1, 3, 224, 224))
    assert costs.parameters == parameters
    assert costs.multiply_adds == multiply_adds
    assert costs.layers[-1].output_shape == (1, 1000)
    if name == "resnet50":
        assert costs.activations == 11_114_984  # 11.1 million in Radosavovic et al.'s tables


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layers_by_the_closed_form(axes: int, groups: int) -> None:
    plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](4, 6, 3, 2, 1, groups=groups)
    back = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1](6, 4, 3, 2, groups=groups, bias=False)
    costs = network_costs(nn.Sequential(plain, back), (2, 4, *(9,) * axes))
    first, second = costs.layers
    parameters, multiply_adds = convolution_cost(4, 6, (3,) * axes, (5,) * axes, groups)
    assert (first.parameters, first.multiply_adds) == (parameters, 2 * multiply_adds)
    assert first.output_shape == (2, 6, *(5,) * axes)
    parameters, multiply_adds = convolution_cost(6, 4, (3,) * axes, (5,) * axes, groups, bias=False)
    assert (second.parameters, second.multiply_adds) == (parameters, 2 * multiply_adds)
    assert second.activations == 2 * 4 * 11**axes


class Odd(nn.Module):
    """A shared layer, a function that multiplies, a parameter of its own, a branch that never runs, two modes."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.same = self.shared
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.shared.weight
        self.unused = nn.Conv2d(1, 1, 3)
        self.frozen = nn.BatchNorm1d(4).eval()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.shared(x)
        x = self.tied(self.frozen(self.same(x)))
        return F.linear(x, torch.eye(4)) * self.scale


def test_sharing_functions_and_what_never_runs() -> None:
    module = Odd().train()
    module.frozen.eval()
    costs = network_costs(module, (2, 4))
    rows = {layer.name: layer for layer in costs.layers}
    assert rows["shared"] == LayerCost("shared", "Linear", 4, (2, 4), 20, 4 * 32, 4 * 8)
    assert rows["tied"].parameters == 0, "counted where it came first"
    assert rows["unused"] == LayerCost("unused", "Conv2d", 0, (), 10, 0, 0)
    assert rows[""].multiply_adds == 32
    assert rows[""].parameters == 4
    assert costs.parameters == sum(p.numel() for p in module.parameters())
    assert costs.multiply_adds == 6 * 32
    assert module.training
    assert not module.frozen.training
    assert module.shared._forward_hooks == {}
    assert module.frozen.num_batches_tracked == 0


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            x = x[x[:, 0] > 0]
        return self.fc(x)


def test_a_network_that_looks_at_values_is_run() -> None:
    assert network_costs(LooksAtValues(), (4, 3)).multiply_adds == 4 * 15


def test_attention_is_counted() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    got = network_costs(layer, (3, 5, 16)).multiply_adds
    projections, products, mlp = 4 * 5 * 16 * 16, 2 * 5 * 5 * 16, 2 * 5 * 16 * 32
    assert got == 3 * (projections + products + mlp)
    assert torch.backends.mha.get_fastpath_enabled()


def test_table_and_dtype() -> None:
    text = str(network_costs(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).double(), (1, 3, 6, 6)))
    head, row, total = text.splitlines()
    assert head.split()[:3] == ["layer", "kind", "calls"]
    assert row.split() == ["0", "Conv2d", "1", "1x8x4x4", "224", "3,456", "128"]
    assert total.split() == ["total", "1x3x6x6", "224", "3,456", "128"]


def test_steps_in_order_with_their_layers() -> None:
    run = dry_run(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)), (1, 1, 4, 4))
    assert [(step.name, step.layer) for step in run.steps if step.outputs] == [("convolution", "0"), ("relu", "1")]
    assert run.steps[-1].outputs[0].number == run.outputs[0].number == run.steps[-1].args[0].number
    assert run.outputs[0].shape == (1, 2, 2, 2)
    assert math.prod(run.input.shape) == 16


def test_what_does_not_fit() -> None:
    with pytest.raises(RecordError, match="positive sizes"):
        network_costs(nn.ReLU(), (1, 0, 4))
    module = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network_costs(module, (1, 4))
    assert module.training
