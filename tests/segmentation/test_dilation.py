import pytest
import torch
from labeller_checks import check_batches, check_learning, check_sizes, check_state, check_unknown_truth, noise, stirred
from torch import nn
from torch.nn import functional as F

from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.heads.segmentation import PixelSystem
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import channel_normalize
from bestiary.segmentation.dilation import (
    CONTEXTS,
    ContextModule,
    Dilation,
    FrontEnd,
    dilation,
    dilation10,
    dilation_front_end,
    dilation_large,
    dilation_small,
)
from bestiary.weights.load import load_state

NAMES = ("a", "b", "c")


def front_end(padded: bool = False, depths: tuple[int, ...] = (1, 1, 1, 1, 1), fc_size: int = 3) -> FrontEnd:
    torch.manual_seed(0)
    return FrontEnd(
        3,
        3,
        depths=depths,
        widths=(4, 6, 8, 8, 8),
        hidden=8,
        fc_size=fc_size,
        padded=padded,
        batch_norm=padded,
        dropout=0.0,
    )


def tiny(padded: bool = False, context: str | None = "basic") -> Dilation:
    plan = None if context is None else CONTEXTS[context]  # type: ignore[index]
    return Dilation(NAMES, channel_normalize(3), front_end(padded), None if plan is None else ContextModule(3, plan))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_those_of_the_authors_files() -> None:
    with torch.device("meta"):
        assert parameters(dilation_front_end()) == 134_346_581
        for build, context in ((dilation, 28_392), (dilation_large, 6_803_139), (dilation10, 36_372)):
            net = build()
            assert parameters(net.context) == context  # type: ignore[arg-type]
            assert parameters(net) == 134_346_581 + context
        assert parameters(dilation_small()) == 2_999_677
        assert parameters(dilation(NAMES)) - parameters(dilation_front_end(NAMES)) == 7 * (9 * 9 + 3) + 12


def test_an_input_of_900_gives_scores_of_66_and_the_margin_is_186() -> None:
    with torch.device("meta"):
        net = dilation_front_end()
        assert net.front_end(torch.empty(1, 3, 900, 900)).shape == (1, 21, 66, 66)
        assert net(torch.empty(1, 3, 900, 500)).shape == (1, 21, 528, 128)
    assert net.geometry == InputGeometry(margin=186, grid=8, smallest=8)
    assert dilation_small(NAMES).geometry == InputGeometry(margin=0, grid=8, smallest=8)


def test_layers_are_those_of_the_authors_files() -> None:
    with torch.device("meta"):
        front, large = dilation_front_end().front_end, dilation_large().context
    told = {
        name: (m.kernel_size[0], m.dilation[0], m.padding[0])
        for name, m in front.named_modules()
        if isinstance(m, nn.Conv2d)
    }
    assert told.pop("fc6") == (7, 4, 0)
    assert [told.pop(name) for name in ("conv5_1", "conv5_2", "conv5_3")] == [(3, 2, 0)] * 3
    assert [told.pop(name) for name in ("fc7", "final")] == [(1, 1, 0)] * 2
    assert set(told.values()) == {(3, 1, 0)}
    assert [name for name, m in front.named_modules() if isinstance(m, nn.MaxPool2d)] == ["pool1", "pool2", "pool3"]
    assert large is not None
    convolutions = [m for m in large if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [42, 42, 84, 168, 336, 672, 672, 21]
    assert [m.dilation[0] for m in convolutions] == [1, 1, 2, 4, 8, 16, 1, 1]
    assert [m.padding[0] for m in convolutions] == [33, *[0] * 7]
    assert [m.padding[0] for m in ContextModule(3, CONTEXTS["ten"]) if isinstance(m, nn.Conv2d)] == [  # type: ignore[arg-type]
        1, 1, 2, 4, 8, 16, 32, 64, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "tolerance"), [("basic", 0.0), ("ten", 0.0), ("large", 0.15)])
@torch.inference_mode()
def test_a_fresh_context_module_passes_on_what_is_positive(kind: str, tolerance: float) -> None:
    torch.manual_seed(0)
    context = ContextModule(3, CONTEXTS[kind])  # type: ignore[arg-type, index]
    scores = noise(1, 3, 20, 24) * 2 - 0.5
    assert float((context(scores) - scores.relu()).abs().max()) <= tolerance
    assert context(scores).shape == scores.shape


def test_without_noise_the_large_module_is_the_identity_too() -> None:
    context = ContextModule(2, CONTEXTS["large"])  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in context:
            if isinstance(layer, nn.Conv2d):
                share = 2 / layer.out_channels
                layer.weight.copy_(torch.where(layer.weight == share, share, 0.0))
    scores = noise(1, 2, 12, 12)
    torch.testing.assert_close(context(scores), scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "reach"), [("basic", 33), ("large", 33), ("ten", 129)])
def test_the_receptive_field_is_that_of_table_1(kind: str, reach: int) -> None:
    context = ContextModule(2, CONTEXTS[kind]).double()  # type: ignore[arg-type, index]
    with torch.no_grad():
        for parameter in context.parameters():
            parameter.fill_(0.01)
    side = 2 * reach + 9
    scores = torch.ones(1, 2, side, side, dtype=torch.float64, requires_grad=True)
    context(scores)[0, 0, side // 2, side // 2].backward()
    rows = (scores.grad[0].abs().sum((0, 2)) > 0).nonzero()[:, 0]  # type: ignore[index]
    assert (int(rows.min()), int(rows.max())) == (side // 2 - reach, side // 2 + reach)


@torch.inference_mode()
def test_dilating_instead_of_pooling_gives_the_strided_networks_answers_in_between() -> None:
    """Section 4's ablation in small: a pooling of stride 1 before a dilated convolution, seen at every second place."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)
    pixels = noise(1, 3, 30, 26)
    strided = second(F.max_pool2d(first(pixels), 2, 2))
    dense = F.conv2d(F.max_pool2d(first(pixels), 2, 1), second.weight, second.bias, dilation=2)
    torch.testing.assert_close(dense[..., ::2, ::2][..., : strided.shape[-2], : strided.shape[-1]], strided)


@torch.inference_mode()
def test_every_output_pixel_has_seen_the_surroundings_of_its_place_alone() -> None:
    net = tiny(context=None).eval()
    nn.init.normal_(net.front_end.final.weight)
    margin = net.front_end.margin
    pixels = noise(1, 3, 2 * margin + 8, 2 * margin + 40)
    moved = pixels[..., 16:]
    torch.testing.assert_close(net(moved)[..., 4:-4], net(pixels)[..., 20:-4])


@torch.inference_mode()
def test_pictures_are_mirrored_around_unless_layers_pad() -> None:
    net = stirred(tiny(context=None))
    image = noise(1, 3, 21, 30)
    margin = net.geometry.margin
    pixels = net.prepare(image, -margin, -margin, (24 + 2 * margin, 32 + 2 * margin))
    assert torch.equal(
        pixels[..., margin - 1, margin:-margin][..., :30], pixels[..., margin + 1, margin:-margin][..., :30]
    )
    assert torch.equal(net.predict_logits(image), net(pixels)[..., :21, :30])


def test_scores_are_brought_back_by_the_fixed_filler() -> None:
    net = tiny(padded=True, context=None).eval()
    assert not [name for name, _ in net.named_parameters() if "up" in name]
    scores = net.front_end(noise(1, 3, 24, 32))
    up = nn.ConvTranspose2d(3, 3, 16, 8, 4, groups=3, bias=False)
    line = 1 - (torch.arange(16) - 7.5).abs() / 8
    up.weight.data = (line[:, None] * line).expand(3, 1, 16, 16)
    torch.testing.assert_close(net(noise(1, 3, 24, 32)), up(scores))


def test_stages_say_what_is_learned() -> None:
    net = tiny(padded=True)
    assert net.context is not None
    with torch.no_grad():
        for parameter in net.context.parameters():
            parameter.add_(0.05)
    pixels = noise(1, 3, 16, 24)
    plain = Dilation(NAMES, channel_normalize(3), net.front_end, None).eval()
    net.eval().begin_stage("front_end")
    assert torch.equal(net(pixels), plain(pixels))
    for stage in ("context", "joint"):
        net.begin_stage(stage)
        assert not torch.allclose(net(pixels), plain(pixels))
    with pytest.raises(UsageError, match="front_end, context, joint"):
        net.begin_stage("svm")


@pytest.mark.parametrize("padded", [False, True])
def test_it_keeps_what_every_labeller_keeps(padded: bool) -> None:
    check_sizes(tiny(padded))
    check_batches(tiny(padded))
    check_unknown_truth(tiny(padded))
    check_state(tiny(padded))


def strong() -> PixelSystem:
    net = tiny(padded=True)
    nn.init.normal_(net.front_end.final.weight)
    nn.init.constant_(net.front_end.final.bias, 1.0)  # type: ignore[arg-type]
    return net


def test_one_picture_is_learned() -> None:
    check_learning(strong(), 25, lr=0.03)


def test_it_starts_from_vgg16_with_fc6_and_fc7() -> None:
    source = VGGClassifier(VGG(DEPTHS["vgg16"], width=1 / 16), ("x", "y"), hidden=(12, 10))
    front = FrontEnd(3, 2, widths=(4, 8, 16, 32, 32), hidden=12)
    net = Dilation(("a", "b"), channel_normalize(3), front, ContextModule(2, CONTEXTS["basic"]))  # type: ignore[arg-type]
    report = load_state(net, source.state_dict())
    assert report.note == "starts from a classifier: its convolutions, fc6"  # fc7 is of another width here
    assert torch.equal(front.get_parameter("conv5_3.weight"), source.features[28].weight)
    assert torch.equal(front.get_parameter("fc6.weight").flatten(1), source.classifier[0].weight)


def test_a_context_module_starts_on_a_trained_front_end() -> None:
    alone, whole = tiny(padded=True, context=None), tiny(padded=True)
    nn.init.normal_(alone.front_end.final.weight)
    assert whole.context is not None
    before = [p.clone() for p in whole.context.parameters()]
    report = load_state(whole, alone.state_dict())
    assert report.note == "starts from a front end; the context module starts as the identity"
    assert torch.equal(whole.front_end.final.weight, alone.front_end.final.weight)
    assert all(torch.equal(p, b) for p, b in zip(whole.context.parameters(), before, strict=True))


def test_with_other_categories_only_the_scores_start_anew() -> None:
    source = tiny(padded=True)
    context = ContextModule(2, CONTEXTS["basic"])  # type: ignore[arg-type]
    front = FrontEnd(
        3, 2, depths=(1, 1, 1, 1, 1), widths=(4, 6, 8, 8, 8), hidden=8, fc_size=3, padded=True, batch_norm=True
    )
    net = Dilation(("x", "y"), channel_normalize(3), front, context)
    report = load_state(net, source.state_dict())
    assert report.note.endswith("the class scores start anew")
    assert torch.equal(front.get_parameter("fc7.weight"), source.front_end.get_parameter("fc7.weight"))
    assert not load_state(source, tiny(padded=True).state_dict()).note


def test_what_there_is_not(unchecked: None) -> None:
    with pytest.raises(UsageError, match="basic, large, ten, none"):
        dilation_small(NAMES, context="huge")  # type: ignore[arg-type]
    assert dilation_small(NAMES, in_channels=5).front_end.get_parameter("conv1_1.weight").shape[1] == 5
