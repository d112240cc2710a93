import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary.recipes.segmenters.exfuse import exfuse
from bestiary.records import Target
from bestiary.segmentation.exfuse import (
    NO_REMEDIES,
    BoundaryRefinement,
    ExFuse,
    GlobalConvolution,
    SemanticEmbedding,
    SubPixel,
    average_votes,
    exfuse_resnet18,
    exfuse_resnext101,
)
from bestiary.training.settings import Settings

SWITCHES = ("semantic_supervision", "semantic_embedding", "channel_resolution", "adjacent_prediction")


def small(**switches: bool) -> ExFuse:
    torch.manual_seed(0)
    return exfuse_resnet18(("a", "b", "c"), width=8, **switches)  # type: ignore[arg-type]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_by_hand() -> None:
    with torch.device("meta"):
        net, plain = exfuse_resnext101(), exfuse_resnext101(None, 3, True, False, False, False, False)
        small_form = exfuse_resnet18([str(i) for i in range(11)])
    channels, k = (256, 512, 1024, 2048), 21
    refinement = 2 * (9 * k * k + k)
    scores = sum(2 * (15 * c * k + k + 15 * k * k + k) + refinement for c in channels)
    embeddings = sum(9 * channels[j] * channels[i] + channels[i] for i in range(3) for j in range(i + 1, 4))
    adjacent, doubling = 9 * 9 * k * k + 9 * k, 16 * k * k
    heads = sum(9 * c * (c // 4) + 2 * (c // 4) + c // 4 * k + k for c in channels[:3])
    assert count(plain.scores) + count(plain.refine) == scores + 5 * refinement
    assert count(plain) - count(plain.backbone) == scores + 5 * (refinement + doubling)
    more = embeddings + adjacent + heads + (4 * 9 * k * k + 4 * k - doubling)
    assert count(net) - count(net.backbone) == count(plain) - count(plain.backbone) + more
    assert count(net) == 97_354_289
    assert count(small_form) == 14_149_357


def test_layer_rearrangement_is_the_trunks_depths() -> None:
    with torch.device("meta"):
        nets = exfuse_resnext101(), exfuse_resnext101(layer_rearrangement=False)
    depths = [[len(getattr(net.backbone, f"layer{i}")) for i in range(1, 5)] for net in nets]
    assert depths == [[8, 8, 9, 8], [3, 4, 23, 3]]
    assert nets[0].backbone.layer1[0].conv2.groups == 32  # type: ignore[index,union-attr]


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_remedy_is_a_switch(switch: str) -> None:
    full, without = small(), small(**{switch: False})
    parts = {
        "semantic_supervision": "stage_heads",
        "semantic_embedding": "embeddings",
        "adjacent_prediction": "adjacent",
    }
    own, left = set(full.state_dict()), set(without.state_dict())
    if switch in parts:
        assert {name.split(".")[0] for name in own ^ left} == {parts[switch]}
    else:
        assert {name for name in own ^ left if not name.startswith("enlarge.0.")} == set()
    names = {"semantic_supervision": {"resolution"}, "channel_resolution": {"stage2", "stage3", "stage4"}}
    auxiliary = without.eval().outputs(torch.randn(1, 3, 64, 64)).auxiliary
    assert set(auxiliary) == names.get(switch, {"resolution", "stage2", "stage3", "stage4"})


def test_without_any_it_is_gcn() -> None:
    net = small(**dict.fromkeys(SWITCHES, False))
    assert net.remedies == NO_REMEDIES
    assert {name for name, part in net.named_children() if count(part)} == {"backbone", "scores", "enlarge", "refine"}
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    assert set(net.loss([torch.rand(3, 64, 64)], [Target(label_map=labels)]).terms) == {"cross_entropy"}


def test_auxiliary_losses_count_four_tenths() -> None:
    net = small().eval()
    image, labels = torch.rand(3, 64, 64), torch.randint(0, 3, (64, 64), dtype=torch.uint8)
    terms = net.loss([image], [Target(label_map=labels)]).terms
    with torch.inference_mode():
        outputs = net.outputs(net.normalize(image[None]))
        for name, logits in outputs.auxiliary.items():
            larger = F.interpolate(logits, size=(64, 64), mode="bilinear")
            wanted = F.cross_entropy(larger, labels[None].long())
            torch.testing.assert_close(terms[f"{name}_cross_entropy"].detach(), 0.4 * wanted)
    assert tuple(outputs.auxiliary["resolution"].shape) == (1, 3, 4, 4)  # stride 16, from 32


def test_a_global_convolution_is_the_sum_of_two_separable_kernels() -> None:
    torch.manual_seed(0)
    layer, x = GlobalConvolution(2, 3, 5), torch.randn(1, 2, 9, 11)
    for part in (layer.left, layer.right):
        for convolution in part:
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    column, row = (part.weight for part in layer.left)
    across, down = (part.weight for part in layer.right)
    left = torch.einsum("mcy,omx->ocyx", column[..., 0], row[:, :, 0])  # type: ignore[index]
    right = torch.einsum("mcx,omy->ocyx", across[:, :, 0], down[..., 0])  # type: ignore[index]
    # inside, where the two halves see the same zeros as one kernel would
    got, wanted = layer(x)[..., 2:-2, 2:-2], F.conv2d(x, left + right)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_refinement_of_zeros_is_the_identity() -> None:
    block, scores = BoundaryRefinement(3), torch.randn(1, 3, 4, 5)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)  # type: ignore[arg-type]
    assert torch.equal(block(scores), scores)


def test_embedding_multiplies_by_each_coarser_map_and_starts_near_one() -> None:
    torch.manual_seed(0)
    embedding = SemanticEmbedding(2, (3, 4))
    fine, coarser = torch.rand(1, 2, 8, 8), [torch.rand(1, 3, 4, 4), torch.rand(1, 4, 2, 2)]
    factors = [
        F.interpolate(convolution(x), size=(8, 8), mode="bilinear")
        for convolution, x in zip(embedding, coarser, strict=True)
    ]
    torch.testing.assert_close(embedding(fine, coarser), fine * factors[0] * factors[1])
    assert (embedding(fine, coarser) / fine - 1).abs().max() < 0.5
    for convolution in embedding:
        nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]
    assert torch.equal(embedding(fine, coarser), fine)


def test_votes_are_the_mean_of_nine_shifted_groups() -> None:
    votes = torch.zeros(1, 18, 5, 6)
    for group in range(9):
        votes[0, 2 * group, 2, 3] = group + 1.0  # class 0; class 1 stays without a vote
    got = average_votes(votes)
    wanted = torch.zeros(5, 6)
    for group in range(9):
        wanted[2 - (group // 3 - 1), 3 - (group % 3 - 1)] = (group + 1) / 9
    torch.testing.assert_close(got[0, 0], wanted)
    assert not got[0, 1].any()


def test_equal_votes_keep_the_inside_and_the_border_counts_who_is_missing() -> None:
    got = average_votes(torch.ones(1, 9, 4, 4))
    torch.testing.assert_close(got[0, 0, 1:-1, 1:-1], torch.ones(2, 2))
    assert got[0, 0, 0, 0] == pytest.approx(4 / 9)


def test_sub_pixel_enlargement_starts_without_a_checkerboard() -> None:
    torch.manual_seed(0)
    layer = SubPixel(3)
    nn.init.zeros_(layer.spread.bias)  # type: ignore[arg-type]
    with torch.inference_mode():
        larger = layer(torch.randn(1, 3, 4, 5))
    assert tuple(larger.shape) == (1, 3, 8, 10)
    assert torch.equal(larger[..., ::2, ::2], larger[..., 1::2, 1::2])


def test_enlargements_start_as_bilinear() -> None:
    net = small(channel_resolution=False)
    flat = torch.ones(1, 3, 4, 4)
    with torch.inference_mode():
        for layer in net.enlarge:
            torch.testing.assert_close(layer(flat)[..., 1:-1, 1:-1], torch.ones(1, 3, 6, 6))


def test_the_recipe_names_parts_that_there_are() -> None:
    settings = exfuse().settings
    assert isinstance(settings, Settings)
    assert settings.part_lr_factors() == {"backbone": 0.1}
    assert any(name.startswith("backbone") for name, _ in small().named_parameters())
