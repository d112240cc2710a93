import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bestiary.errors import RecordError, UsageError
from bestiary.records import Target
from bestiary.segmentation.unet import CATEGORIES, UNet, unet


def small(tile_output: int = 388, **told: object) -> UNet:
    """A thin paper net in double precision, so that equality is not a matter of rounding."""
    torch.manual_seed(0)
    net = unet(width=4, tile_output=tile_output).double().eval()
    net.take(told)
    return net


def whole(net: UNet, image: Tensor) -> Tensor:
    """Logits of the picture in one pass, without tiles."""
    height, width = image.shape[-2:]
    size_hw = (net.geometry.covering(height) + 184, net.geometry.covering(width) + 184)
    return net(net.prepare(image[None], -92, -92, size_hw))[0, :, :height, :width]


def test_the_paper_net_has_the_papers_size() -> None:
    with torch.device("meta"):
        net = unet()
        assert net(torch.rand(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert sum(p.numel() for p in net.parameters()) == 31_030_658
    assert net.categories == CATEGORIES == ("background", "cell")
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convs) == 23
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(not any(c.padding) for c in convs)


def test_skips_are_cropped_as_the_figure_says() -> None:
    net = small()
    shapes = []
    for block in [*net.contracting, *net.expanding]:
        block.register_forward_hook(lambda _m, got, out: shapes.append((got[0].shape[-1], out.shape[-1])))
    net(torch.zeros(1, 1, 572, 572, dtype=torch.float64))
    down = [(572, 568), (284, 280), (140, 136), (68, 64), (32, 28)]
    up = [(56, 52), (104, 100), (200, 196), (392, 388)]
    assert shapes == down + up


@pytest.mark.parametrize("side", [187, 189, 200, 570, 100])
def test_illegal_sizes_are_refused_with_the_nearest_legal_ones(side: int) -> None:
    with pytest.raises(RecordError, match="The nearest legal height is") as caught:
        small()(torch.zeros(1, 1, side, 188, dtype=torch.float64))
    legal = caught.value.mend
    assert legal is not None
    below = 188 + (side - 188) // 16 * 16
    assert str(below + 16 if below >= 188 else 188) in legal


@pytest.mark.parametrize(("size", "tile_output"), [((60, 83), 20), ((100, 37), 52), ((33, 130), 100)])
def test_tiled_prediction_equals_the_whole_picture(size: tuple[int, int], tile_output: int) -> None:
    net = small(tile_output=tile_output)
    image = torch.rand(1, *size, dtype=torch.float64)
    assert len(list(net.logit_windows(image[None]))) > 1
    tiled = net.predict_logits(image[None])[0]
    assert tiled.shape == (2, *size)
    assert torch.allclose(tiled, whole(net, image), rtol=0, atol=1e-12)


def tiled_by(net: nn.Module, pixels: Tensor, step: int, tile: int, margin: int) -> Tensor:
    """Output of `net` on windows of `pixels` whose outputs stand `step` apart."""
    side = pixels.shape[-1] - 2 * margin
    out = torch.full((1, 2, side, side), torch.nan, dtype=pixels.dtype)
    origins = [*range(0, side - tile, step), side - tile]
    for top, left in itertools.product(origins, origins):
        window = pixels[..., top : top + tile + 2 * margin, left : left + tile + 2 * margin]
        out[..., top : top + tile, left : left + tile] = net(window)
    return out


def test_tiles_off_the_pooling_grid_do_not_equal_the_whole_picture() -> None:
    net = small()
    pixels = torch.rand(1, 1, 68 + 184, 68 + 184, dtype=torch.float64)
    at_once = net(pixels)
    assert torch.allclose(tiled_by(net, pixels, 16, 20, 92), at_once, rtol=0, atol=1e-12)
    assert not torch.allclose(tiled_by(net, pixels, 20, 20, 92), at_once, rtol=0, atol=1e-3)


def test_a_padded_net_cannot_be_tiled_without_a_seam_even_on_the_grid() -> None:
    torch.manual_seed(0)
    toy = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1))
    toy = nn.Sequential(*toy, nn.ConvTranspose2d(8, 2, 2, stride=2)).double()
    pixels = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    assert not torch.allclose(tiled_by(toy, pixels, 16, 16, 0), toy(pixels), rtol=0, atol=1e-3)


def test_outside_the_picture_lies_its_mirror_image() -> None:
    net = small()
    image = torch.rand(1, 36, 20, dtype=torch.float64)
    extended = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (92, 92), (92, 92)), mode="reflect"))
    assert torch.allclose(net.predict_logits(image[None]), net((extended[None] - 0.5) / 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 2), (4, 5), (23, 41)])
def test_any_picture_size_is_predicted(size: tuple[int, int]) -> None:
    net = unet(width=2).eval()
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.inference_mode():
        (prediction,) = net.predict_images([image])
    assert prediction.label_map.shape == size
    assert prediction.size_hw == size


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(RecordError, match="0 x 5, wanted at least one pixel"):
        unet(width=2).predict_images([torch.zeros(1, 0, 5)])


def test_a_batch_equals_single_pictures() -> None:
    net = small(keep_probs=True, tile_output=36)
    images = [torch.rand(1, h, w, dtype=torch.float64) for h, w in ((30, 20), (12, 50), (30, 20))]
    together = net.predict_images(images)
    for image, prediction in zip(images, together, strict=True):
        (single,) = net.predict_images([image])
        assert torch.equal(single.label_map, prediction.label_map)
        assert torch.allclose(single.probs, prediction.probs, atol=1e-6)
        assert torch.allclose(prediction.probs.sum(0), torch.ones(prediction.size_hw))
        assert torch.equal(prediction.probs.argmax(0).to(torch.uint8), prediction.label_map)
    assert net.predict_images([]) == []


def test_label_maps_are_the_same_with_and_without_probs() -> None:
    image = torch.rand(1, 40, 33, dtype=torch.float64)
    (with_probs,) = small(keep_probs=True).predict_images([image])
    (without,) = small().predict_images([image])
    assert torch.equal(with_probs.label_map, without.label_map)
    assert without.probs is None


def test_predict_size_resizes_and_comes_back() -> None:
    image = torch.rand(1, 40, 60, dtype=torch.float64)
    (native,) = small(predict_size=40).predict_images([image])
    (plain,) = small().predict_images([image])
    assert torch.equal(native.label_map, plain.label_map)
    half = small(predict_size=20, keep_probs=True)
    (found,) = half.predict_images([image])
    assert found.label_map.shape == (40, 60)
    scaled = nn.functional.interpolate(image[None], size=(20, 30), mode="bilinear", antialias=True)
    logits = nn.functional.interpolate(half.predict_logits(scaled), size=(40, 60), mode="bilinear")
    assert torch.allclose(found.probs.double(), logits.softmax(1)[0], atol=1e-6)


def test_loss_is_the_hand_made_mean_over_labelled_pixels() -> None:
    net = small(class_weights=(1.0, 3.0))
    image = torch.rand(1, 20, 31, dtype=torch.float64)
    labels = (torch.rand(20, 31) > 0.5).to(torch.uint8)
    labels[:3] = 255
    weights = torch.rand(20, 31) + 0.5
    losses = net.loss([image], [Target(label_map=labels, weight_map=weights)])
    assert list(losses.terms) == ["cross_entropy"]
    log_probs = whole(net, image).log_softmax(0).detach()
    total, count = 0.0, 0
    for y, x in itertools.product(range(20), range(31)):
        label = int(labels[y, x])
        if label != 255:
            total -= float(log_probs[label, y, x]) * float(weights[y, x]) * (1, 3)[label]
            count += 1
    assert float(losses.total.detach()) == pytest.approx(total / count, rel=1e-6)


def test_loss_of_pictures_of_several_sizes_is_the_mean_over_all_their_pixels() -> None:
    net = small()
    sizes = [(20, 20), (9, 30), (20, 20)]
    images = [torch.rand(1, *size, dtype=torch.float64) for size in sizes]
    targets = [Target(label_map=torch.randint(0, 2, size, dtype=torch.uint8)) for size in sizes]
    together = net.loss(images, targets).total
    singles = [net.loss([i], [t]).total * i.numel() for i, t in zip(images, targets, strict=True)]
    assert torch.allclose(together, sum(singles) / sum(i.numel() for i in images))


def test_dropout_stands_at_the_end_of_the_contracting_path_only() -> None:
    net = small().train()
    seen = []
    net.dropout.register_forward_hook(lambda _m, got, out: seen.append(got[0].shape[1]))
    net(torch.zeros(1, 1, 188, 188, dtype=torch.float64))
    assert seen == [32, 64]  # the last two of 4, 8, 16, 32, 64


def test_loss_reaches_every_parameter_and_a_step_lowers_it() -> None:
    torch.manual_seed(1)
    net = unet(width=4).eval()
    image = torch.rand(1, 20, 20)
    target = Target(label_map=(image[0] > 0.5).to(torch.uint8))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    history = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = net.loss([image], [target]).total
        loss.backward()
        history.append(float(loss.detach()))
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
    assert history[-1] < 0.9 * history[0]


def test_initial_weights_are_hes() -> None:
    torch.manual_seed(0)
    net = unet(width=32)
    conv = net.contracting[2][2]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    up = net.upward[0]
    assert float(up.weight.detach().std()) == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith("bias"))


def test_colour_pictures_become_grey_and_channel_counts_are_parts() -> None:
    net = small()
    grey = torch.rand(1, 12, 12, dtype=torch.float64)
    assert torch.allclose(
        net.predict_logits(grey.expand(3, -1, -1)[None]), net.predict_logits(grey[None]), rtol=0, atol=1e-6
    )
    five = unet(["a", "b", "c"], in_channels=5, width=2).eval()
    assert five.in_channels == 5
    assert five.predict_logits(torch.rand(1, 5, 6, 6)).shape == (1, 3, 6, 6)
    with pytest.raises(RecordError, match="3 channels, wanted 5"):
        five.predict_images([torch.rand(3, 6, 6)])


def test_bad_arguments_are_named() -> None:
    for bad, words in (
        ({"categories": ["cell"] * 256}, "256 categories, wanted 2 to 255"),
        ({"tile_output": 10}, "tiles of 10 pixels, wanted at least 20"),
    ):
        with pytest.raises(UsageError, match=words):
            unet(width=2, **bad)
    for bad, words in (
        ({"class_weights": [1.0]}, "1 weights for 2 categories"),
        ({"class_weights": [1.0, -1.0]}, "wanted no negative weight"),
        ({"predict_size": 0}, "predict_size"),
    ):
        with pytest.raises(UsageError, match=words):
            unet(width=2).take(bad)
    with pytest.raises(UsageError, match="1 categories, wanted 2 to 255"):
        unet(["cell"], width=2).take({})


def test_bad_targets_are_named() -> None:
    net = unet(width=2)
    image = torch.rand(1, 8, 8)
    for targets, words in (
        ([], "1 pictures and 0 targets"),
        ([Target()], r"targets\[0\].label_map"),
        ([Target(label_map=torch.zeros(8, 9, dtype=torch.uint8))], r"size \(8, 9\), wanted the picture's, \(8, 8\)"),
        ([Target(label_map=torch.full((8, 8), 2, dtype=torch.uint8))], "label 2"),
    ):
        with pytest.raises(RecordError, match=words):
            net.loss([image], targets)


def test_nothing_labelled_is_a_loss_of_zero() -> None:
    net = unet(width=2)
    target = Target(label_map=torch.full((8, 8), 255, dtype=torch.uint8))
    losses = net.loss([torch.rand(1, 8, 8)], [target])
    assert losses.total == 0
    losses.total.backward()


def test_channels_last_gives_the_same() -> None:
    net = small()
    pixels = torch.rand(1, 1, 188, 204, dtype=torch.float64)
    plain = net(pixels)
    last = net.to(memory_format=torch.channels_last)(pixels.to(memory_format=torch.channels_last))
    assert torch.allclose(plain, last, rtol=0, atol=1e-12)
