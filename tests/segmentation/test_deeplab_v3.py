"""DeepLab v3 and v3+: the papers' networks, their strides and stages, and the decoder."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bestiary import zoo
from bestiary.backbones.atrous import AtrousResNet
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import VARIANTS, Variant
from bestiary.errors import UsageError
from bestiary.heads.atrous_encoder import FIRST, SECOND, AtrousLabeller
from bestiary.records import Target
from bestiary.segmentation import deeplab_v3, deeplab_v3_plus
from bestiary.segmentation.deeplab_v3 import deeplab_v3_resnet18, deeplabv3_mobilenet_v3_large
from bestiary.segmentation.deeplab_v3_plus import deeplab_v3_plus_resnet18

COUNTS = {
    "deeplab_v3_resnet50": 39_048_533,
    "deeplab_v3_resnet101": 58_040_661,
    "deeplab_v3_plus_resnet50": 40_352_181,
    "deeplab_v3_plus_resnet101": 59_344_309,
    "deeplabv3_resnet50": 42_004_074,
    "deeplabv3_resnet101": 60_996_202,
    "deeplabv3_mobilenet_v3_large": 11_029_328,
}
NAMES = ("sky", "road", "car")
Build = Callable[..., AtrousLabeller]
BOTH = pytest.mark.parametrize("build", [deeplab_v3_resnet18, deeplab_v3_plus_resnet18])


@pytest.fixture(autouse=True)
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "resnet18", Variant(BasicBlock, (1, 1, 1, 2), width=8))


def dilations(part: nn.Module) -> list[int]:
    """Of the 3x3 convolutions."""
    convolutions = [m for m in part.modules() if isinstance(m, nn.Conv2d)]
    return [m.dilation[0] for m in convolutions if m.kernel_size == (3, 3)]


def norms_of(system: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in system.modules() if isinstance(m, nn.BatchNorm2d)]


def statistics(norm: nn.BatchNorm2d) -> torch.Tensor:
    assert norm.running_mean is not None
    return norm.running_mean.clone()


def made(build: Build, **arguments: object) -> AtrousLabeller:
    torch.manual_seed(0)
    return build(NAMES, **arguments)


@pytest.mark.parametrize("name", list(COUNTS))
def test_the_published_networks(name: str) -> None:
    with torch.device("meta"):
        system = getattr(deeplab_v3_plus if "plus" in name else deeplab_v3, name)()
        logits = system.eval()(torch.empty(1, 3, 49, 65))
    assert sum(p.numel() for p in system.parameters()) == COUNTS[name]
    assert logits.shape == (1, 21, 49, 65)


@pytest.mark.parametrize(
    ("name", "parameters"), [("deeplabv3_resnet50", 39_638_869), ("deeplabv3_resnet101", 58_630_997)]
)
def test_without_the_auxiliary_classifier(name: str, parameters: int) -> None:
    with torch.device("meta"):
        system = zoo.build(name, None, {"auxiliary": False})
    assert sum(p.numel() for p in system.parameters()) == parameters


def test_the_papers_dilations_at_both_strides() -> None:
    with torch.device("meta"):
        encoder = deeplab_v3.deeplab_v3_resnet101().encoder
        assert isinstance(encoder.backbone, AtrousResNet)
        early, features = encoder.train()(torch.empty(2, 3, 513, 513))
        assert (early.shape, features.shape) == ((2, 256, 129, 129), (2, 256, 33, 33))
        assert dilations(encoder.backbone.layer4) == [2, 4, 8]
        assert dilations(encoder.aspp) == [6, 12, 18]
        assert encoder.eval()(torch.empty(1, 3, 513, 513))[1].shape[-1] == 65
    assert set(dilations(encoder.backbone.layer3)) == {2}
    assert dilations(encoder.backbone.layer4) == [4, 8, 16]
    assert dilations(encoder.aspp) == [12, 24, 36]


def test_on_xception_all_3x3_convolutions_behind_it_are_separable() -> None:
    with torch.device("meta"):
        system = deeplab_v3_plus.deeplab_v3_plus_xception65()
        early, features = system.encoder.train()(torch.empty(2, 3, 257, 257))
        logits = system.eval()(torch.empty(1, 3, 257, 257))
    assert (early.shape, features.shape, logits.shape) == ((2, 256, 65, 65), (2, 256, 17, 17), (1, 21, 257, 257))
    assert system.encoder.backbone.levels[-1].stride == 8
    behind = [m for part in (system.encoder.aspp, system.decoder) for m in part.modules() if isinstance(m, nn.Conv2d)]
    assert {m.groups == m.in_channels for m in behind if m.kernel_size == (3, 3)} == {True}
    assert dilations(system.encoder.aspp) == [12, 24, 36]
    assert 40_000_000 < sum(p.numel() for p in system.parameters()) < 42_000_000


@BOTH
@torch.inference_mode()
def test_predicting_at_8_is_the_network_of_stride_8(build: Build) -> None:
    learns_at_16, at_8, at_16 = made(build, predict_stride=8), made(build, output_stride=8), made(build)
    image = torch.rand(1, 3, 49, 65)
    torch.testing.assert_close(learns_at_16.eval().predict_logits(image), at_8.eval()(at_8.normalize(image)))
    assert not torch.allclose(learns_at_16(image), at_16.eval()(image))
    # parts that are set to training one by one, as after a prediction in the middle of it, follow too
    for part in learns_at_16.modules():
        part.training = True
    learns_at_16.encoder(image)
    assert learns_at_16.encoder.backbone.levels[-1].stride == 16


@BOTH
def test_in_the_second_stage_norms_rest_and_the_stride_is_8(build: Build) -> None:
    system = made(build)
    norms = norms_of(system)
    image, target = torch.rand(3, 49, 65), Target(label_map=torch.zeros(49, 65, dtype=torch.uint8))
    system.begin_stage(SECOND)
    system.train()
    before = [statistics(m) for m in norms]
    system.loss([image] * 2, [target] * 2).total.backward()
    assert system.encoder.backbone.levels[-1].stride == 8
    assert all(torch.equal(statistics(m), b) for m, b in zip(norms, before, strict=True))
    assert all(p.grad is None for m in norms for p in m.parameters())
    assert system.encoder.get_parameter("backbone.conv1.weight").grad is not None
    assert system.training
    assert not norms[0].training
    system.begin_stage(FIRST)
    system.train()
    system.loss([image] * 2, [target] * 2)
    assert system.encoder.backbone.levels[-1].stride == 16
    assert all(m.training and m.weight.requires_grad for m in norms)
    assert not torch.equal(statistics(norms[0]), before[0])


@BOTH
@torch.inference_mode()
def test_corners_stay_corners(build: Build) -> None:
    system, pixels = made(build).eval(), torch.rand(1, 3, 65, 97)
    logits, seen = system(pixels), []
    system.get_submodule("score").register_forward_hook(lambda _m, _got, said: seen.append(said))
    system(pixels)
    step = 64 // (seen[0].shape[-2] - 1)
    assert step == (4 if build is deeplab_v3_plus_resnet18 else 16)
    torch.testing.assert_close(logits[..., ::step, ::step], seen[0], rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_the_decoder_sees_the_early_map_and_the_features() -> None:
    system, pixels = deeplab_v3_plus_resnet18(NAMES).eval(), torch.rand(1, 3, 65, 65)
    joined: list[torch.Tensor] = []
    system.decoder.register_forward_pre_hook(lambda _m, got: joined.append(got[0]))
    system(pixels)
    c2, features = system.encoder(pixels)
    assert joined[0].shape == (1, 16 + 64, 17, 17)
    torch.testing.assert_close(joined[0][:, :16], system.reduce(c2))
    torch.testing.assert_close(joined[0][:, 16:, ::4, ::4], features, rtol=1e-5, atol=1e-6)


def test_torchvisions_auxiliary_loss_counts_half() -> None:
    torch.manual_seed(0)
    system = deeplabv3_mobilenet_v3_large(NAMES).eval()
    image, target = torch.rand(3, 40, 40), Target(label_map=torch.zeros(40, 40, dtype=torch.uint8))
    with torch.inference_mode():
        terms = system.loss([image], [target]).terms
        early = system.outputs(system.normalize(image)[None]).auxiliary["aux"]
        assert early.shape[-2:] == (5, 5)
        resized = nn.functional.interpolate(early, size=(40, 40), mode="bilinear")
        wanted = nn.functional.cross_entropy(resized, torch.zeros(1, 40, 40, dtype=torch.long))
    torch.testing.assert_close(terms["aux_cross_entropy"], 0.5 * wanted)


def test_strides_that_cannot_be(unchecked: None) -> None:
    with pytest.raises(UsageError, match="got 4, wanted 8, 16, 32 or none"):
        made(deeplab_v3_resnet18, predict_stride=4)
    with pytest.raises(UsageError, match="wanted one factor or 2, each at least 1"):
        made(deeplab_v3_resnet18, multi_grid=(1, 2, 4))
