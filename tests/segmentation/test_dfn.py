import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.losses.classification import sigmoid_focal_loss
from bestiary.recipes.segmenters.dfn import dfn
from bestiary.records import Objects, Target
from bestiary.segmentation.dfn import (
    DFN,
    BorderNetwork,
    ChannelAttention,
    RefinementResidual,
    ScoreHead,
    border_maps,
    dfn_resnet18,
    dfn_resnet101,
)
from bestiary.training.settings import Settings


def small(**arguments: float) -> DFN:
    torch.manual_seed(0)
    return dfn_resnet18(("a", "b", "c"), width=8, **arguments)  # type: ignore[arg-type]


def naive_borders(labels: Tensor, window: int) -> Tensor:
    """By the definition, pixel by pixel."""
    classes, reach = torch.where(labels == 255, 0, labels), window // 2
    out = torch.zeros(labels.shape, dtype=torch.bool)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            around = classes[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            out[y, x] = bool((around != classes[y, x]).any())
    return out


def test_parameter_counts() -> None:
    """By hand; ResNet-101 has 42,500,160 without its last layer."""
    with torch.device("meta"):
        net, small_form = dfn_resnet101(), dfn_resnet18([str(i) for i in range(11)])

    def block(inputs: int, outputs: int) -> int:
        return inputs * outputs + 2 * 9 * outputs**2 + 2 * outputs

    def head(width: int, outputs: int) -> int:
        return block(width, 9 * outputs) + 9 * outputs * outputs + outputs

    channels = (2048, 1024, 512, 256)
    attention = 2 * 512 * 512 + 512 + 512 * 512 + 512
    smooth = 2048 * 512 + 2 * 512 + sum(block(c, 512) for c in channels)
    smooth += 4 * (attention + block(512, 512) + head(512, 21))
    border = sum(block(c, 21) for c in channels) + 3 * block(21, 21) + 4 * head(21, 1)
    assert sum(p.numel() for p in net.smooth.parameters()) == smooth
    assert sum(p.numel() for p in net.border.parameters()) == border == 144_523
    # three convolutions for one, and a first block that reads twice the channels
    deep = 9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * (64 + 64 + 128) - (49 * 3 * 64 + 2 * 64) + 64 * (64 + 256)
    assert sum(p.numel() for p in net.parameters()) == smooth + border + 42_500_160 + deep == 90_715_923
    assert sum(p.numel() for p in small_form.parameters()) == 12_747_995


def test_attention_of_zeros_takes_half_of_the_finer_and_all_of_the_coarser() -> None:
    attention = ChannelAttention(4)
    for layer in (attention.fc1, attention.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    finer, coarser = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(attention(finer, coarser), 0.5 * finer + coarser)


def test_attention_by_its_formula_and_of_a_context_of_one_cell() -> None:
    torch.manual_seed(0)
    attention, finer, coarser = ChannelAttention(3), torch.randn(1, 3, 4, 5), torch.randn(1, 3, 1, 1)
    means = torch.cat([finer.mean((2, 3)), coarser.mean((2, 3))], dim=1)
    w1, w2 = attention.fc1.weight[..., 0, 0], attention.fc2.weight[..., 0, 0]
    gate = torch.sigmoid((means @ w1.T + attention.fc1.bias).clamp(min=0) @ w2.T + attention.fc2.bias)
    torch.testing.assert_close(attention(finer, coarser), gate[..., None, None] * finer + coarser)


def test_a_refinement_block_of_a_zero_branch_is_its_projection() -> None:
    torch.manual_seed(0)
    block, x = RefinementResidual(3, 5), torch.randn(1, 3, 4, 4)
    nn.init.zeros_(block.conv2.weight)
    torch.testing.assert_close(block(x), block.project(x).clamp(min=0))
    head = ScoreHead(3, 2)
    assert head[0].project.out_channels == 18  # type: ignore[union-attr]
    assert not head[0].ends_with_relu


@pytest.mark.parametrize("window", [3, 7])
def test_borders_are_those_of_the_definition(window: int) -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (5, 6), generator=draw, dtype=torch.uint8).repeat_interleave(4, 0)
    labels = labels.repeat_interleave(5, 1)
    labels[3:5, 4:9] = 255
    got = border_maps(labels[None], window=window)[0]
    assert torch.equal(got, naive_borders(labels, window))


def test_overlapping_classes_have_the_borders_of_each() -> None:
    masks = torch.zeros(1, 2, 20, 30, dtype=torch.bool)
    masks[0, 0, :, :10], masks[0, 1, :, 5:] = True, True
    known = torch.zeros(1, 20, 30, dtype=torch.uint8)
    columns = border_maps(known, masks, window=3)[0, 7].nonzero().flatten().tolist()
    assert columns == [4, 5, 9, 10]


def test_several_classes_a_pixel_are_learned_too() -> None:
    net = small().eval()
    net.take({"multi_label": True})
    image, masks = torch.rand(3, 40, 40), torch.zeros(1, 40, 40, dtype=torch.bool)
    masks[0, 10:30] = True
    objects = Objects(torch.tensor([[0.0, 10.0, 40.0, 30.0]]), torch.tensor([1]), masks=masks)
    terms = net.loss([image], [Target(objects=objects)]).terms
    assert torch.isfinite(terms["cross_entropy"])
    assert terms["border"] > 0


def test_a_straight_border_is_as_wide_as_its_window_less_one() -> None:
    labels = torch.zeros(1, 20, 20, dtype=torch.uint8)
    labels[..., 10:] = 4
    assert border_maps(labels)[0, 5].nonzero().flatten().tolist() == [7, 8, 9, 10, 11, 12]


def test_padding_and_maps_of_one_class_have_no_border() -> None:
    labels = torch.full((3, 30, 40), 255, dtype=torch.uint8)
    labels[0, :20, :25] = 2
    labels[1] = 1
    assert not border_maps(labels).any()


def test_borders_lie_where_cannys_dilated_edges_do() -> None:
    """The first author's code: Canny(5, 5, aperture 7) of the label map, dilated 7 x 7. Away from corners they differ
    by a pixel.
    """
    import cv2

    labels = np.zeros((60, 80), np.uint8)
    labels[10:40, 20:50] = 7
    labels[25:55, 40:70] = 12
    edges = cv2.dilate(cv2.Canny(labels, 5, 5, apertureSize=7), np.ones((7, 7), np.uint8)) > 0
    ours = border_maps(torch.from_numpy(labels)[None])[0].numpy()
    assert (cv2.erode(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)[ours].mean() > 0.75
    assert (edges & ours).sum() / (edges | ours).sum() > 0.8


def test_the_border_term_is_the_focal_loss_of_four_maps_over_the_labelled_pixels() -> None:
    net = small(border_weight=0.25).eval()
    torch.nn.init.normal_(net.border.heads[2][-1].weight)  # type: ignore[index,union-attr]
    image = torch.rand(3, 64, 64)
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[20:, 30:] = 2
    labels[:10] = 255
    terms = net.loss([image], [Target(label_map=labels)]).terms
    with torch.inference_mode():
        outputs = net.outputs(net.normalize(image[None]))
        wanted = border_maps(labels[None])[0].float()
        logits = [outputs.auxiliary[f"border{i}"][0, 0] for i in range(2, 6)]
        each = [sigmoid_focal_loss(x, wanted)[labels != 255].mean() for x in logits]
    torch.testing.assert_close(terms["border"].detach(), 0.25 * torch.stack(each).sum())
    assert set(terms) == {"cross_entropy", *(f"smooth{i}_cross_entropy" for i in (3, 4, 5)), "border"}


def test_the_first_loss_is_that_of_even_odds() -> None:
    labels = torch.randint(0, 3, (64, 64), dtype=torch.uint8)
    terms = small().train().loss([torch.rand(3, 64, 64)], [Target(label_map=labels)]).terms
    for name in ("cross_entropy", "smooth3_cross_entropy", "smooth4_cross_entropy", "smooth5_cross_entropy"):
        assert float(terms[name].detach()) == pytest.approx(math.log(3), abs=0.05)


@torch.inference_mode()
def test_every_stage_of_both_networks_is_scored_at_the_pictures_size() -> None:
    outputs = small().eval().outputs(torch.randn(1, 3, 64, 96))
    shapes = {name: tuple(logits.shape) for name, logits in outputs.auxiliary.items()}
    assert shapes == {
        **{f"smooth{i}": (1, 3, 64, 96) for i in (3, 4, 5)},
        **{f"border{i}": (1, 1, 64, 96) for i in (2, 3, 4, 5)},
    }


@torch.inference_mode()
def test_the_border_network_goes_from_fine_to_coarse() -> None:
    torch.manual_seed(0)
    network = BorderNetwork((3, 4, 5), 2).eval()
    maps = [torch.randn(1, c, 16 // 2**i, 16 // 2**i) for i, c in enumerate((3, 4, 5))]
    plain = network(maps)
    assert [tuple(scores.shape) for scores in plain] == [(1, 1, 16, 16)] * 3
    changed = network([*maps[:2], maps[2] + 1])
    assert [torch.equal(a, b) for a, b in zip(plain, changed, strict=True)] == [True, True, False]


@torch.inference_mode()
def test_the_smooth_network_knows_the_whole_picture_at_its_coarsest_stage() -> None:
    net = small().eval()
    net.smooth.attention[0].fc1.weight[:, :8] = 0  # of the finer half of its input, so that the context alone speaks
    maps = net.backbone(torch.randn(1, 3, 64, 64))
    before = net.smooth(maps[::-1])[0]
    context = net.smooth.context(maps[-1].mean((2, 3), keepdim=True))
    own = net.smooth.before[0](maps[-1])
    torch.testing.assert_close(before, net.smooth.after[0](net.smooth.attention[0](own, context)))


def test_the_recipe_names_parts_that_there_are() -> None:
    settings = dfn().settings
    assert isinstance(settings, Settings)
    names = [name for name, _ in small().named_parameters()]
    assert all(any(name.startswith(prefix) for name in names) for prefix in settings.part_lr_factors())
    assert settings.batch * settings.accumulate == 32


def test_focal_loss_without_focus_is_a_quarter_and_three_quarters_of_cross_entropy() -> None:
    logits, wanted = torch.randn(50), (torch.arange(50) % 2).float()
    plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, wanted, gamma=0), plain * (0.25 * wanted + 0.75 * (1 - wanted))
    )
