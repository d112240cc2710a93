import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.layers.overlap_tile import InputGeometry
from bestiary.losses.segmentation import count_labelled, pixel_cross_entropy_loss
from bestiary.recipes.segmenters.psp_net import psp_net
from bestiary.records import Target
from bestiary.segmentation.psp_net import (
    BINS,
    PSPNet,
    PyramidPooling,
    from_caffe_order,
    psp_net_resnet18,
    psp_net_resnet50,
    psp_net_resnet101,
)
from bestiary.training.schedules import lr_factor
from bestiary.training.settings import Settings
from bestiary.weights.load import load_state

AUTHORS_STATE = {
    "layer0.0.weight": (64, 3, 3, 3),
    "layer0.1.running_var": (64,),
    "layer0.3.weight": (64, 64, 3, 3),
    "layer0.4.bias": (64,),
    "layer0.6.weight": (128, 64, 3, 3),
    "layer0.7.weight": (128,),
    "layer1.0.conv1.weight": (64, 128, 1, 1),
    "layer1.0.downsample.0.weight": (256, 128, 1, 1),
    "layer3.5.bn3.bias": (1024,),
    "layer4.2.conv3.weight": (2048, 512, 1, 1),
    "ppm.features.0.1.weight": (512, 2048, 1, 1),
    "ppm.features.3.2.running_mean": (512,),
    "cls.0.weight": (512, 4096, 3, 3),
    "cls.1.num_batches_tracked": (),
    "cls.4.weight": (21, 512, 1, 1),
    "cls.4.bias": (21,),
    "aux.0.weight": (256, 1024, 3, 3),
    "aux.4.bias": (21,),
}


def small(**arguments: object) -> PSPNet:
    torch.manual_seed(0)
    return psp_net_resnet18(("a", "b"), width=8, **arguments)  # type: ignore[arg-type]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_those_of_the_authors_layout() -> None:
    with torch.device("meta"):
        nets = [psp_net_resnet50(), psp_net_resnet101()]
        small_form = psp_net_resnet18([str(i) for i in range(11)])
    assert [count(net) - count(net.aux) for net in nets] == [46_716_373, 65_708_501]
    assert [count(net.aux) for net in nets] == [2_365_205] * 2
    assert count(small_form) == 12_769_302


def test_the_authors_names_load() -> None:
    with torch.device("meta"):
        net = psp_net_resnet50()
    own = net.state_dict()
    authors = {_authors_name(name): value for name, value in own.items()}
    assert {name: tuple(authors[name].shape) for name in AUTHORS_STATE} == AUTHORS_STATE
    assert {re.split(r"\.", name)[0] for name in authors} == {
        *(f"layer{i}" for i in range(5)),
        *("ppm", "cls", "aux"),
    }
    renamed, line = net.start_state(authors)
    assert set(renamed) == set(own)
    assert "authors" in line


def _authors_name(name: str) -> str:
    name = re.sub(r"^backbone\.conv1\.", "layer0.", name)
    name = re.sub(r"^backbone\.bn1\.", "layer0.7.", name)
    return name.removeprefix("backbone.")


def test_a_file_of_other_classes_loads_but_for_both_last_layers() -> None:
    net, other = small(), psp_net_resnet18(("a", "b", "c"), width=8)
    report = load_state(other, net.state_dict())
    assert {m.name for m in report.new_head} == {f"{head}.{p}" for head in net.head_names for p in ("weight", "bias")}


def test_every_block_of_the_last_two_stages_dilates() -> None:
    with torch.device("meta"):
        net = psp_net_resnet50()
    rates = [
        [block.conv2.dilation[0] for block in getattr(net.backbone, f"layer{i}")]  # type: ignore[union-attr]
        for i in range(1, 5)
    ]
    assert rates == [[1] * 3, [1] * 4, [2] * 6, [4] * 3]
    assert [level.stride for level in net.backbone.levels] == [4, 8, 8, 8]


@pytest.mark.parametrize(("side", "cells"), [(473, 60), (713, 90), (9, 2)])
def test_a_side_of_8n_plus_1_pixels_has_n_plus_1_cells_corner_on_corner(side: int, cells: int) -> None:
    with torch.device("meta"):
        net = psp_net_resnet50()
        maps = net.backbone(torch.empty(1, 3, side, side))
    assert net.geometry == InputGeometry(grid=8, smallest=9)
    assert net.geometry.fits(side)
    assert maps[-1].shape[-1] == cells
    assert (cells - 1) * 8 + 1 == side


def test_a_cells_score_stands_on_the_pixel_it_was_taken_at() -> None:
    net = small(output_stride=8).eval()
    pixels = torch.randn(1, 3, 41, 57)
    with torch.inference_mode():
        coarse = net.cls(net.ppm(net.backbone(pixels)[-1]))
        torch.testing.assert_close(net(pixels)[..., ::8, ::8], coarse, atol=1e-5, rtol=0)


def test_the_single_bins_branch_is_constant_and_the_projection_of_the_mean() -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, 2).eval()
    features = torch.randn(2, 8, 13, 10)
    with torch.inference_mode():
        pooled = pyramid(features)
        mean = pyramid.features[0][1:](features.mean((2, 3), keepdim=True))  # type: ignore[index,operator]
    assert pooled.shape == (2, 16, 13, 10)
    assert torch.equal(pooled[:, :8], features)
    torch.testing.assert_close(pooled[:, 8:10], mean.expand(2, 2, 13, 10))


def test_each_branch_is_adaptive_pooling_projected_and_enlarged_corner_on_corner() -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, 2).eval()
    features = torch.randn(1, 8, 7, 9)
    with torch.inference_mode():
        pooled = pyramid(features)
        for i, (bins, branch) in enumerate(zip(BINS, pyramid.features, strict=True)):
            small_map = F.relu(branch[2](branch[1](F.adaptive_avg_pool2d(features, bins))))  # type: ignore[index,operator]
            wanted = F.interpolate(small_map, size=(7, 9), mode="bilinear", align_corners=True)
            torch.testing.assert_close(pooled[:, 8 + 2 * i : 10 + 2 * i], wanted)


def test_caffes_order_of_the_pyramid_is_turned_round() -> None:
    net = small().eval()
    state = net.state_dict()
    own = state["cls.0.weight"]
    width = own.shape[1] // 8
    # [map, 1, 2, 3, 6] as Caffe would have it: [map, 6, 3, 2, 1]
    parts = [own[:, : 4 * width], *(own[:, (4 + i) * width : (5 + i) * width] for i in (3, 2, 1, 0))]
    caffe = {**state, "cls.0.weight": torch.cat(parts, dim=1)}
    assert not torch.equal(caffe["cls.0.weight"], own)
    turned = from_caffe_order(caffe)
    assert all(torch.equal(turned[name], value) for name, value in state.items())


def test_the_auxiliary_loss_counts_four_tenths() -> None:
    net = small().eval()
    image = torch.rand(3, 33, 49)
    labels = torch.randint(0, 2, (33, 49), dtype=torch.uint8)
    terms = net.loss([image], [Target(label_map=labels)]).terms
    with torch.inference_mode():
        outputs = net.outputs(net.normalize(image[None]))
    known = count_labelled(labels[None])
    wanted = [pixel_cross_entropy_loss(x, labels[None], known) for x in (outputs.logits, outputs.auxiliary["aux"])]
    torch.testing.assert_close(terms["cross_entropy"].detach(), wanted[0])
    torch.testing.assert_close(terms["aux_cross_entropy"].detach(), 0.4 * wanted[1])


def test_pictures_are_extended_with_the_mean_colour() -> None:
    net = small().eval()
    image = torch.rand(3, 30, 40)
    filled = F.pad(net.normalize(image[None]), [0, 9, 0, 3])
    with torch.inference_mode():
        assert torch.equal(net.predict_logits(image[None]), net(filled)[..., :30, :40])


def test_one_picture_is_enough_to_learn_from() -> None:
    net = small().train()
    before = net.ppm.features[0][2].running_mean.clone()  # type: ignore[index,union-attr]
    net.loss([torch.rand(3, 40, 40)], [Target(label_map=torch.zeros(40, 40, dtype=torch.uint8))])
    assert torch.equal(net.ppm.features[0][2].running_mean, before)  # type: ignore[index,union-attr]
    assert not torch.equal(net.ppm.features[1][2].running_mean, before)  # type: ignore[index,union-attr]


def test_the_recipe_is_the_authors() -> None:
    recipe = psp_net()
    settings = recipe.settings
    assert isinstance(settings, Settings)
    assert settings.part_lr_factors() == {"ppm": 10, "cls": 10, "aux": 10}
    assert (recipe.pictures.crop - 1) % 8 == 0
    rates = [lr_factor(step, 100, 10, settings) for step in (0, 50, 75)]
    assert rates == pytest.approx([1, 0.5**0.9, 0.25**0.9])
