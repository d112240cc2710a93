"""VGG with fc6 and fc7 as convolutions: where its maps' cells lie, and that it is the classifier it starts from."""

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.fcn_vgg import AS_PUBLISHED, SAME_SIZE, ConvolutionalVGG, Paddings
from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError

THIN = {"width": 1 / 16, "fc_width": 12}
MAPS = ("pool2", "conv3_1", "pool3", "conv4_2", "pool4")


def thin(paddings: Paddings = AS_PUBLISHED, maps: tuple[str, ...] = MAPS, batch_norm: bool = False) -> ConvolutionalVGG:
    torch.manual_seed(0)
    return ConvolutionalVGG(maps=maps, paddings=paddings, batch_norm=batch_norm, **THIN).double().eval()


def test_levels_have_the_papers_strides_and_channels() -> None:
    trunk = ConvolutionalVGG(DEPTHS["vgg11"], maps=("conv1_1", "pool2", "conv4_2"), **THIN)
    found = [(level.name, level.stride, level.channels) for level in trunk.levels]
    assert found == [("conv1_1", 1, 4), ("pool2", 4, 8), ("conv4_2", 8, 32), ("fc7", 32, 12)]
    maps = trunk(torch.rand(2, 3, 40, 57))
    assert [m.shape[1] for m in maps] == [4, 8, 32, 12]


def test_vgg16_of_the_papers_size() -> None:
    with torch.device("meta"):
        trunk = ConvolutionalVGG()
        sides = [m.shape[-1] for m in trunk(torch.rand(1, 3, 224, 224))]
    assert sum(p.numel() for p in trunk.parameters()) == 14_714_688 + 102_764_544 + 16_781_312
    assert sides == [53, 27, 8]  # 14 of pool5, less six


@pytest.mark.parametrize("side", [1, 2, 31, 32, 33, 97])
def test_same_size_maps_cover_the_picture_at_their_strides(side: int) -> None:
    trunk = thin(SAME_SIZE)
    for level, features in zip(trunk.levels, trunk(torch.rand(1, 3, side, 7, dtype=torch.float64)), strict=True):
        assert features.shape[-2:] == (-(-side // level.stride), -(-7 // level.stride))


@pytest.mark.parametrize("paddings", [AS_PUBLISHED, SAME_SIZE, Paddings(90, 1)])
def test_centres_are_the_middles_of_what_the_cells_see(paddings: Paddings) -> None:
    """By gradients: the pixels that a cell depends on lie around its centre as far to either side."""
    torch.manual_seed(0)
    trunk = ConvolutionalVGG(DEPTHS["vgg11"], maps=MAPS, paddings=paddings, width=1 / 64, fc_width=2).double().eval()
    for place, layer in enumerate(trunk.features):
        if isinstance(layer, nn.MaxPool2d):  # every pixel of a window counts, not the largest alone
            trunk.features[place] = nn.AvgPool2d(2, 2, ceil_mode=True)
    for parameter in trunk.parameters():
        nn.init.constant_(parameter, 0.1 if parameter.ndim > 1 else 0.0)
    pixels = torch.ones(1, 3, 1, 480, dtype=torch.float64, requires_grad=True)
    for level, features in zip(trunk.levels, trunk(pixels), strict=True):
        cell = features.shape[-1] // 2
        (seen,) = torch.autograd.grad(features[0, ..., cell].sum(), pixels, retain_graph=True)
        (columns,) = torch.nonzero(seen[0].sum((0, 1)), as_tuple=True)
        middle = (int(columns[0]) + int(columns[-1])) / 2
        assert middle == trunk.centres[level.name] + level.stride * cell, level.name


@pytest.mark.parametrize("batch_norm", [False, True])
def test_one_place_of_fc7_is_the_classifiers(batch_norm: bool) -> None:
    """Check (a): fc6 and fc7 reshaped give at 224 pixels what the linear layers give."""
    torch.manual_seed(1)
    classifier = VGGClassifier(VGG(DEPTHS["vgg16"], batch_norm=batch_norm, width=1 / 16), ["a", "b"], hidden=(12, 12))
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.1)
    classifier = classifier.double().eval()
    trunk = thin(Paddings(1, 0), (), batch_norm)
    taken = trunk.own_names(classifier.state_dict())
    assert taken.keys() == trunk.state_dict().keys()
    trunk.load_state_dict(taken)
    pixels = torch.rand(1, 3, 224, 224, dtype=torch.float64)
    (fc7,) = trunk(pixels)
    last: nn.Linear = classifier.classifier[-1]  # type: ignore[assignment]
    wanted = classifier(pixels)
    assert float(wanted.detach().std()) > 1e-3
    torch.testing.assert_close(fc7[..., 0, 0] @ last.weight.T + last.bias, wanted, rtol=0, atol=1e-10)
    assert fc7.shape[-2:] == (1, 1)


def test_caffes_names_and_matrices_are_known() -> None:
    trunk = thin(maps=())
    state = {name: torch.rand_like(value) for name, value in trunk.state_dict().items()}
    named: dict[str, Tensor] = {}
    layers = [n for n, m in trunk.named_modules() if isinstance(m, nn.Conv2d)]
    names = ["conv1_1", "conv1_2", "conv2_1", "conv2_2", *(f"conv{b}_{i}" for b in (3, 4, 5) for i in (1, 2, 3))]
    for layer, name in zip(layers, [*names, "fc6", "fc7"], strict=True):
        named[f"{name}.weight"] = state[f"{layer}.weight"]
        named[f"{name}.bias"] = state[f"{layer}.bias"].view(1, 1, 1, -1)
    named["fc6.weight"] = named["fc6.weight"].reshape(1, 1, 12, -1)
    named["fc8.weight"] = torch.rand(1, 1, 1000, 12)
    found = trunk.own_names(named)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_what_does_not_fit_is_left_out() -> None:
    trunk = thin(maps=())
    state = {"conv1_2.weight": torch.rand(5, 4, 3, 3), "layer1.weight": torch.rand(1), "fc6.bias": torch.rand(13)}
    assert trunk.own_names(state) == {}


def test_first_filters_of_other_channels_are_left_to_the_loader() -> None:
    colours = torch.rand(4, 3, 3, 3)
    grey = ConvolutionalVGG(maps=(), in_channels=1, **THIN)
    assert torch.equal(grey.own_names({"conv1_1.weight": colours})["features.0.weight"], colours)


def test_maps_that_are_not_there_are_refused() -> None:
    for maps in (("pool6",), ("pool4", "pool3")):
        with pytest.raises(UsageError, match="in this order"):
            ConvolutionalVGG(maps=maps, **THIN)
