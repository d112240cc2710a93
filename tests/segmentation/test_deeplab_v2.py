import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary import zoo
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import VARIANTS, ResNet, Variant
from bestiary.errors import UsageError
from bestiary.layers.frozen_norm import FrozenBatchNorm2d
from bestiary.records import Target
from bestiary.segmentation.deeplab_v2 import DeepLabV2, deeplab_v2, deeplab_v2_small, deeplab_v2_vgg16


@pytest.fixture(autouse=True)
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "resnet18", Variant(BasicBlock, (1, 1, 1, 1), width=8))


def dilations(part: nn.Module) -> list[int]:
    """Of the 3x3 convolutions."""
    convolutions = [m for m in part.modules() if isinstance(m, nn.Conv2d)]
    return [m.dilation[0] for m in convolutions if m.kernel_size == (3, 3)]


def strides(part: nn.Module) -> list[tuple[int, ...]]:
    """Of the convolutions of a residual block, its shortcut last."""
    return [m.stride for m in part.modules() if isinstance(m, nn.Conv2d)]


def small(*scales: float) -> DeepLabV2:
    torch.manual_seed(0)
    return deeplab_v2_small(("sky", "road", "car"), scales=scales).eval()


def test_the_papers_networks() -> None:
    with torch.device("meta"):
        trained, frozen, vgg = deeplab_v2(frozen_norms=False), deeplab_v2(), deeplab_v2_vgg16()
        outputs = frozen.outputs(torch.empty(1, 3, 321, 321))
    counts = [sum(p.numel() for p in system.parameters()) for system in (trained, frozen, vgg)]
    assert counts == [44_048_532, 44_048_532 - 105_344, 37_877_652]
    assert dilations(frozen.aspp) == dilations(vgg.aspp) == [6, 12, 18, 24]
    trunk = frozen.backbone
    assert isinstance(trunk, ResNet)
    assert isinstance(trunk.bn1, FrozenBatchNorm2d)
    assert strides(trunk.layer2[0]) == [(2, 2), (1, 1), (1, 1), (2, 2)]  # in the first 1x1
    assert [set(dilations(stage)) for stage in (trunk.layer2, trunk.layer3, trunk.layer4)] == [{1}, {2}, {4}]
    assert outputs.logits.shape == (1, 21, 41, 41)
    sizes = {name: tuple(scores.shape[-2:]) for name, scores in outputs.auxiliary.items()}
    assert sizes == {"scale_100": (41, 41), "scale_75": (31, 31), "scale_50": (21, 21)}
    assert (frozen.geometry.grid, trained.geometry.smallest, vgg.geometry.grid) == (32, 33, 8)


@torch.inference_mode()
def test_the_largest_score_of_all_scales_is_said() -> None:
    system, pixels = small(0.75, 0.5), torch.rand(2, 3, 65, 129)
    outputs = system.outputs(pixels)
    plain, each = small(), [outputs.auxiliary["scale_100"]]
    for name, size_hw in (("scale_75", (49, 97)), ("scale_50", (33, 65))):
        smaller = F.interpolate(pixels, size=size_hw, mode="bilinear", align_corners=True)
        torch.testing.assert_close(outputs.auxiliary[name], plain.outputs(smaller).logits)
        each.append(F.interpolate(outputs.auxiliary[name], size=(5, 9), mode="bilinear", align_corners=True))
    torch.testing.assert_close(outputs.logits, torch.stack(each).amax(0))
    assert not torch.equal(outputs.logits, each[0])


@torch.inference_mode()
def test_each_scale_and_the_largest_have_a_loss_at_their_own_places() -> None:
    system, image = small(0.75, 0.5), torch.rand(3, 65, 65)
    truth = torch.randint(0, 3, (65, 65), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    terms = system.loss([image], [Target(label_map=truth)]).terms
    names = ["cross_entropy", *(f"scale_{s}_cross_entropy" for s in (100, 75, 50))]
    assert list(terms) == names
    outputs = system.outputs(system.normalize(image)[None])
    half = F.cross_entropy(outputs.auxiliary["scale_50"], truth[None, ::32, ::32].long())
    largest = F.cross_entropy(outputs.logits, truth[None, ::16, ::16].long())
    torch.testing.assert_close(terms["scale_50_cross_entropy"], half)
    torch.testing.assert_close(terms["cross_entropy"], largest)
    assert list(small().loss([image], [Target(label_map=truth)]).terms) == ["cross_entropy"]


def test_norms_stay_but_of_the_form_that_learns_from_scratch() -> None:
    with torch.device("meta"):
        frozen = deeplab_v2()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    assert not any(".bn" in name for name, _ in frozen.named_parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in small().modules())


def test_vgg_16_starts_every_branch() -> None:
    with torch.device("meta"):
        taken, line = deeplab_v2_vgg16().start_state(zoo.build("vgg16").state_dict())
    assert line.endswith("fc6 and fc7 thinned out")
    assert sorted(name for name in taken if name.startswith("aspp") and name.endswith("weight")) == [
        f"aspp.{i}.fc{n}.0.weight" for i in range(4) for n in (6, 7)
    ]


def test_a_resnet_101_is_the_start() -> None:
    with torch.device("meta"):
        system, state = deeplab_v2(), zoo.build("resnet101").state_dict()
        taken, _ = system.start_state(state)
    missing = set(system.state_dict()) - set(taken)
    assert missing == {f"aspp.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")}


@pytest.mark.parametrize("scales", [(1.0,), (0.0,), (0.5, 0.5), (-0.5,)])
def test_scales_that_cannot_be(scales: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="wanted different numbers above 0 and below 1"):
        small(*scales)
