"""Farabet's network: its widths, one set of weights for three scales, superpixels."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.features.superpixels import felzenszwalb_segments
from bestiary.records import Target
from bestiary.segmentation.farabet import YUV, Farabet, farabet, farabet_small, mean_over


def small(**parts: object) -> Farabet:
    torch.manual_seed(0)
    return farabet_small(("a", "b", "c"), **parts).eval()  # type: ignore[arg-type]


def test_parameters_are_those_of_the_connections() -> None:
    net = farabet()
    features = (10 * 1 + 6 * 2) * 49 + 16 + 64 * 8 * 49 + 64 + 256 * 16 * 49 + 256
    assert sum(p.numel() for p in net.features.parameters()) == features
    assert sum(p.numel() for p in net.parameters()) == features + 768 * 1024 + 1024 + 1024 * 8 + 8 == 1_022_862
    assert len(net.categories) == 8


def test_brightness_and_colour_go_their_ways() -> None:
    weight = farabet().features[0].full_weight().detach()  # type: ignore[union-attr, operator]
    sees = (weight.abs().sum((2, 3)) > 0).tolist()
    assert sees == [[True, False, False]] * 10 + [[False, True, True]] * 6
    grey = farabet(in_channels=1).features[0].full_weight()  # type: ignore[union-attr, operator]
    assert (grey.abs().sum((1, 2, 3)) > 0).all()
    rows = torch.tensor(YUV)
    assert torch.allclose(rows.sum(1), torch.tensor([1.0, 0.0, 0.0]), atol=1e-4)


def test_the_scales_share_their_weights() -> None:
    net = small()
    pixels = torch.rand(1, 3, 112, 128)
    levels = net.pyramid(pixels)
    weights = list(net.features.parameters())

    def gradients(*chosen: int) -> list[torch.Tensor]:
        features = [net.scale_features(level) for level in levels]
        seen = [f if i in chosen else f.detach() for i, f in enumerate(features)]
        logits = net.classifier(net.stack(iter(seen)))
        return list(torch.autograd.grad(logits.square().mean(), weights))

    apart = [gradients(i) for i in range(3)]
    for whole, *parts in zip(gradients(0, 1, 2), *apart, strict=True):
        assert torch.allclose(whole, sum(parts), atol=1e-6)  # type: ignore[arg-type]
        assert all(part.abs().sum() > 0 for part in parts)


@torch.inference_mode()
def test_every_place_sees_46_pixels_of_each_level() -> None:
    net = small().double()
    level = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    found = net.scale_features(level)
    assert found.shape[-2:] == (16, 16)
    # the place (8, 9) sees rows 32 - 21 .. 32 + 25
    alone = net.features(level[..., 11:57, 15:61])
    assert torch.allclose(alone[..., 0, 0], found[..., 8, 9], atol=1e-12)


@torch.inference_mode()
def test_superpixels_have_one_answer_each() -> None:
    net = small()
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 60, 80), 9, 1, 4)
    segments = felzenszwalb_segments(image[0] * 255, net.grain, 0.8, 20)
    assert int(segments.max()) > 5
    averaged = net.predict_logits(image)
    net.superpixels = False
    probs = net.predict_logits(image).softmax(1)
    for number in range(int(segments.max()) + 1):
        inside = averaged[0][:, segments == number].exp()
        wanted = probs[0][:, segments == number].mean(1, keepdim=True)
        assert torch.allclose(inside, wanted.expand_as(inside), atol=1e-5)


def test_means_over_segments_by_hand() -> None:
    maps = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    segments = torch.tensor([[0, 1], [1, 1]])
    assert torch.allclose(mean_over(maps, segments), torch.tensor([[[1.0, 5.0], [5.0, 5.0]]]))


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (113, 60)])
@torch.inference_mode()
def test_any_picture_is_named_whole(size: tuple[int, int]) -> None:
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(2)]
    net = small()
    for image, found in zip(images, net.predict_images(images), strict=True):
        assert found.label_map.shape == size
        assert torch.equal(net.predict_images([image])[0].label_map, found.label_map)


def test_one_picture_is_learned_by_all_parameters() -> None:
    net = small(superpixels=False).train()
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 96, 96), 15, 1, 7)[0]
    label_map = (image[0] > image[0].median()).to(torch.uint8) + (image[1] > image[1].median()).to(torch.uint8)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = net.loss([image], [Target(label_map=label_map)]).total
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_without_any_label_the_loss_is_nothing() -> None:
    unknown = Target(label_map=torch.full((20, 20), 255, dtype=torch.uint8))
    assert float(small().loss([torch.rand(3, 20, 20)], [unknown]).total.detach()) == 0


def test_several_classes_a_pixel_keep_their_mean_probability() -> None:
    net = small(grain=1e6)
    net.take({"multi_label": True, "keep_probs": True})
    image = torch.rand(3, 40, 40)
    with torch.inference_mode():
        (found,) = net.predict_images([image])
        net.superpixels = False
        plain = net.predict_logits(image[None]).sigmoid()[0].mean((1, 2))
    assert found.probs is not None
    assert torch.allclose(found.probs[:, 0, 0], plain, atol=1e-4)


def test_the_state_comes_back_whole_and_numbers_that_cannot_be_do_not() -> None:
    one, other = small(), farabet_small(("a", "b", "c")).eval()
    other.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 20, 20)
    assert torch.equal(one.predict_logits(image), other.predict_logits(image))
    with pytest.raises(UsageError, match="grain of 0 or more"):
        farabet(grain=-1.0)
