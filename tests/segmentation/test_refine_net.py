import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.recipes.segmenters.refine_net import refine_net
from bestiary.records import Target
from bestiary.segmentation.refine_net import (
    ChainedResidualPooling,
    RefineNet,
    RefinePath,
    ResidualConvUnit,
    refine_net_resnet18,
    refine_net_resnet101,
)
from bestiary.training.settings import Settings

PORT_STATE = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.running_mean": (64,),
    "layer3.22.conv3.weight": (1024, 256, 1, 1),
    "p_ims1d2_outl1_dimred.weight": (512, 2048, 3, 3),
    "adapt_stage1_b.0.1_conv.weight": (512, 512, 3, 3),
    "adapt_stage1_b.0.1_conv.bias": (512,),
    "adapt_stage1_b.0.2_conv_relu_varout_dimred.weight": (512, 512, 3, 3),
    "mflow_conv_g1_pool.0.4_outvar_dimred.weight": (512, 512, 3, 3),
    "mflow_conv_g1_b.0.3_conv.bias": (512,),
    "mflow_conv_g1_b3_joint_varout_dimred.weight": (256, 512, 3, 3),
    "p_ims1d2_outl2_dimred.weight": (256, 1024, 3, 3),
    "adapt_stage2_b2_joint_varout_dimred.weight": (256, 256, 3, 3),
    "mflow_conv_g3_b3_joint_varout_dimred.weight": (256, 256, 3, 3),
    "adapt_stage4_b2_joint_varout_dimred.weight": (256, 256, 3, 3),
    "mflow_conv_g4_b.0.3_conv_relu_varout_dimred.weight": (256, 256, 3, 3),
    "clf_conv.weight": (21, 256, 3, 3),
    "clf_conv.bias": (21,),
}


def small() -> RefineNet:
    torch.manual_seed(0)
    return refine_net_resnet18(("a", "b"), width=8)


def zeroed(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def ports_name(name: str) -> str:
    """The public port's, written down from its code and not from our table."""
    name = re.sub(r"^backbone\.", "", name)
    found = re.match(r"^paths\.(\d)\.(\w+)\.(.*)$", name)
    if found is None:
        return name.replace("classifier", "clf_conv")
    number, part, rest = int(found[1]) + 1, found[2], found[3]
    if part == "reduce":
        return f"p_ims1d2_outl{number}_dimred.{rest}"
    if part == "join":
        return f"adapt_stage{number}_b2_joint_varout_dimred.{rest}"
    if part == "leave":
        return f"mflow_conv_g{number}_b3_joint_varout_dimred.{rest}"
    place, *_, kind = rest.split(".")
    if part == "pool":
        return f"mflow_conv_g{number}_pool.0.{int(place) + 1}_outvar_dimred.{kind}"
    stem = f"adapt_stage{number}_b" if part == "adapt" else f"mflow_conv_g{number}_b"
    convolution = "conv" if ".conv1." in f".{rest}" else "conv_relu_varout_dimred"
    return f"{stem}.0.{int(place) + 1}_{convolution}.{kind}"


def test_parameter_counts_are_those_of_the_published_form() -> None:
    with torch.device("meta"):
        net, small_form = refine_net_resnet101(), refine_net_resnet18([str(i) for i in range(11)])
    assert sum(p.numel() for p in net.parameters()) == 118_052_437
    assert sum(p.numel() for p in small_form.parameters()) == 15_903_051


def test_the_ports_names_load() -> None:
    with torch.device("meta"):
        net = refine_net_resnet101()
    own = net.state_dict()
    port = {ports_name(name): value for name, value in own.items()}
    assert len(port) == len(own)
    assert {name: tuple(port[name].shape) for name in PORT_STATE} == PORT_STATE
    renamed, line = net.start_state(port)
    assert {name: tuple(value.shape) for name, value in renamed.items()} == {n: tuple(v.shape) for n, v in own.items()}
    assert "port" in line


def test_only_first_convolutions_of_units_and_the_classifier_have_a_bias() -> None:
    with torch.device("meta"):
        net = refine_net_resnet101()
    biases = [name for name, _ in net.named_parameters() if name.endswith("bias") and not name.startswith("backbone")]
    assert len(biases) == 4 * (2 + 3) + 1
    assert all(name.endswith("conv1.bias") for name in biases if name != "classifier.bias")


@pytest.mark.parametrize("kind", [ResidualConvUnit, ChainedResidualPooling])
def test_units_and_chains_of_zeros_are_the_identity(kind: type[nn.Module]) -> None:
    features = torch.randn(1, 4, 6, 7)
    kept = features.clone()
    assert torch.equal(zeroed(kind(4))(features), features)  # type: ignore[call-arg]
    assert torch.equal(features, kept)


def test_a_unit_by_its_formula() -> None:
    torch.manual_seed(0)
    unit, x = ResidualConvUnit(3), torch.randn(1, 3, 5, 5)
    with torch.inference_mode():
        wanted = x + F.conv2d(unit.conv1(x.clamp(min=0)).clamp(min=0), unit.conv2.weight, padding=1)
        torch.testing.assert_close(unit(x), wanted)


def test_each_link_of_a_chain_pools_what_the_one_before_it_gave() -> None:
    chain = ChainedResidualPooling(1, links=3)
    for convolution in chain:
        zeroed(convolution)
        convolution.weight.data[0, 0, 1, 1] = 0.5  # type: ignore[index,operator,union-attr]
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 8.0
    with torch.inference_mode():
        row = chain(x)[0, 0, 7]
    # one link reaches 2 pixels further and halves: 8, then 4, 2, 1 where each reaches
    wanted = [0, 1, 1, 3, 3, 7, 7, 15, 7, 7, 3, 3, 1, 1, 0]
    assert row.tolist() == wanted


def test_a_path_adds_the_coarser_one_corner_on_corner() -> None:
    torch.manual_seed(0)
    path = RefinePath(3, 4, None, is_first=False)
    for part in (path.reduce, path.adapt, path.join, path.pool, path.refine):
        zeroed(part)  # type: ignore[arg-type]
    coarser = torch.rand(1, 4, 3, 4)
    with torch.inference_mode():
        got = path(torch.randn(1, 3, 5, 7), coarser)
    torch.testing.assert_close(got, F.interpolate(coarser, size=(5, 7), mode="bilinear", align_corners=True))
    assert torch.equal(got[..., ::2, ::2], coarser)


def test_scores_have_stride_4_and_are_enlarged() -> None:
    net = small().eval()
    seen: list[torch.Tensor] = []
    net.classifier.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.inference_mode():
        logits = net(torch.randn(1, 3, 64, 96))
    assert tuple(seen[0].shape) == (1, 2, 16, 24)
    torch.testing.assert_close(logits, F.interpolate(seen[0], size=(64, 96), mode="bilinear"))


def test_the_gradient_reaches_the_first_stage_with_the_coarser_paths_cut() -> None:
    net = small().train()
    zeroed(net.paths[2].leave)  # type: ignore[arg-type]
    image, labels = torch.rand(3, 64, 64), torch.zeros(64, 64, dtype=torch.uint8)
    net.loss([image], [Target(label_map=labels)]).total.backward()
    assert net.backbone.layer1[0].conv1.weight.grad.abs().sum() > 0  # type: ignore[index,union-attr]
    assert not net.backbone.layer4[0].conv1.weight.grad.any()  # type: ignore[index,union-attr]


def test_the_recipe_names_parts_that_there_are() -> None:
    settings = refine_net().settings
    assert isinstance(settings, Settings)
    names = [name for name, _ in small().named_parameters()]
    assert all(any(name.startswith(prefix) for name in names) for prefix in settings.part_lr_factors())
