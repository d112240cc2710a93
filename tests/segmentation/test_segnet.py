from pathlib import Path

import pytest
import torch
from labeller_checks import check_batches, check_learning, check_sizes, check_state, check_unknown_truth, noise, stirred

from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.heads.segmentation import PixelSystem
from bestiary.layers.preprocess import channel_normalize
from bestiary.layers.switched import Switches
from bestiary.losses.segmentation import count_classes, median_frequency_weights
from bestiary.pictures.decode import read_label_map
from bestiary.segmentation.segnet import (
    CAMVID_11,
    SegNet,
    segnet,
    segnet_basic,
    segnet_basic_small,
    segnet_small,
)
from bestiary.weights.load import load_state

AUTHORS = (0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614)
"""The weights in the authors' files for CamVid, in the order of their classes."""


def tiny(categories: tuple[str, ...] = ("a", "b", "c")) -> SegNet:
    torch.manual_seed(0)
    return SegNet(categories, channel_normalize(3), (1, 1, 1, 1, 2), (6, 8, 8, 8, 8))


def tiny_basic() -> PixelSystem:
    torch.manual_seed(0)
    return segnet_basic(("a", "b", "c"), width=4)


def test_parameter_counts_are_those_of_the_authors_files() -> None:
    counts = {}
    with torch.device("meta"):
        for build in (segnet, segnet_basic, segnet_small, segnet_basic_small):
            counts[build.__name__] = sum(p.numel() for p in build().parameters())
    assert counts == {
        "segnet": 29_449_355,
        "segnet_basic": 1_416_587,
        "segnet_small": 4_619_531,
        "segnet_basic_small": 201_947,
    }


def test_layers_are_those_of_the_authors_files() -> None:
    with torch.device("meta"):
        net, basic = segnet(), segnet_basic()
    shapes = {
        "encoder.conv5_3.weight": (512, 512, 3, 3),
        "decoder.conv5_3.weight": (512, 512, 3, 3),
        "decoder.conv4_3.weight": (256, 512, 3, 3),
        "decoder.conv3_3.weight": (128, 256, 3, 3),
        "decoder.conv2_2.weight": (64, 128, 3, 3),
        "decoder.conv1_1.weight": (64, 64, 3, 3),
        "classifier.weight": (11, 64, 3, 3),
    }
    assert {name: tuple(net.state_dict()[name].shape) for name in shapes} == shapes
    assert len([name for name in net.state_dict() if name.endswith("_bn.weight")]) == 25
    assert tuple(basic.classifier.weight.shape) == (11, 64, 1, 1)
    assert tuple(basic.encoder["conv1_1"].weight.shape) == (64, 3, 7, 7)
    assert basic.norm.extra_repr() == "size=5, alpha=2e-05, beta=0.75, k=1.0"


@pytest.mark.parametrize("build", [tiny, tiny_basic])
@torch.inference_mode()
def test_output_has_the_inputs_size(build) -> None:
    net = build().eval()
    for size in ((360, 480), (17, 31), (1, 1)):
        assert net(noise(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("build", [tiny, tiny_basic])
def test_it_keeps_what_every_labeller_keeps(build) -> None:
    check_sizes(build())
    check_batches(build())
    check_unknown_truth(build())
    check_state(build())


@pytest.mark.parametrize("build", [tiny, tiny_basic])
def test_one_picture_is_learned(build) -> None:
    check_learning(build(), 25, lr=0.03)


@torch.inference_mode()
def test_switches_of_the_encoder_decide_where_the_decoder_puts_values() -> None:
    net = stirred(tiny())
    assert isinstance(net, SegNet)
    features, switches = net.encoder(noise(1, 3, 32, 32))
    usual = net.decoder(features, switches)
    first = [Switches(torch.zeros_like(s.indices), s.size_hw) for s in switches]
    assert not torch.allclose(net.decoder(features, first), usual)


def test_basic_sees_bytes_normalised_over_channels() -> None:
    net = tiny_basic()
    pixels = net.prepare(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), 0, 0, (2, 2))
    torch.testing.assert_close(pixels, torch.full((1, 3, 2, 2), 255.0))
    wanted = 255 / (1 + 1e-4 / 5 * 3 * 255**2) ** 0.75
    torch.testing.assert_close(net.norm(pixels), torch.full((1, 3, 2, 2), wanted))  # type: ignore[operator]


def test_grey_and_many_channels() -> None:
    for build in (segnet_small, segnet_basic_small):
        for channels in (1, 5):
            with torch.device("meta"):
                net = build(("a", "b"), channels)
            assert net.encoder["conv1_1"].weight.shape[1] == channels


@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_starts_from_a_classifier(batch_norm: bool) -> None:
    trunk = VGG(DEPTHS["vgg11"], batch_norm=batch_norm, width=1 / 16)
    source = VGGClassifier(trunk, ("x", "y"), hidden=(4, 4))
    net = SegNet(("a", "b"), channel_normalize(3), DEPTHS["vgg11"], (4, 8, 16, 32, 32))
    fresh = net.decoder["conv1_1"] if "conv1_1" in net.decoder else net.decoder["conv2_1"]
    before = fresh.weight.detach().clone()
    report = load_state(net, source.state_dict())
    assert report.note == "starts from a classifier: its convolutions"
    last = source.features[-4 if batch_norm else -3]
    assert torch.equal(net.encoder["conv5_2"].weight, last.weight)
    if batch_norm:
        assert torch.equal(net.encoder["conv5_2_bn"].weight, source.features[-3].weight)
    assert torch.equal(fresh.weight, before)
    report = load_state(net, net.state_dict())
    assert not report.note
    assert len(report.loaded) == len(net.state_dict())


def test_class_weights_of_camvid_are_nearly_the_authors(real_data: Path) -> None:
    files = sorted((real_data / "camvid" / "labels" / "train").glob("*.png"))
    maps = [read_label_map(file) for file in files]
    assert len(maps) == 367
    # None of the authors' is 1, so their median fell between two classes: with "void" there are twelve.
    with_void = median_frequency_weights(count_classes(maps, 12))[:11]
    ratios = dict(zip(CAMVID_11, (with_void / torch.tensor(AUTHORS, dtype=torch.float64)).tolist(), strict=True))
    # Theirs were counted on other labels, in which signs are rarer.
    assert ratios.pop("sign_symbol") == pytest.approx(0.366, abs=0.005)
    assert all(0.93 < ratio < 1.11 for ratio in ratios.values()), ratios
