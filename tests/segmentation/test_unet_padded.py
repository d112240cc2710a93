import pytest
import torch
from torch import nn

from bestiary.errors import RecordError
from bestiary.layers.overlap_tile import mirror_window
from bestiary.losses.segmentation import dice_loss
from bestiary.records import Target
from bestiary.segmentation.unet import UNetPadded, unet_padded, unet_padded_bilinear, unet_padded_small


def small(bilinear: bool = False, **told: object) -> UNetPadded:
    torch.manual_seed(0)
    net = (unet_padded_bilinear if bilinear else unet_padded)(width=4)
    net.take(told)
    for module in net.modules():  # statistics as after some training, so that evaluation mode is not the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return net.double().eval()


def test_parameter_counts_are_those_of_the_public_layout() -> None:
    counts = {}
    with torch.device("meta"):
        for build in (unet_padded, unet_padded_bilinear, unet_padded_small):
            counts[build.__name__] = sum(p.numel() for p in build().parameters())
        counts["one class"] = sum(p.numel() for p in unet_padded().parameters()) - 65
    assert counts == {
        "unet_padded": 31_037_698,
        "unet_padded_bilinear": 17_263_042,
        "unet_padded_small": 1_942_594,
        "one class": 31_037_633,
    }


def test_state_names_are_those_of_the_public_layout() -> None:
    with torch.device("meta"):
        state, bilinear = unet_padded().state_dict(), unet_padded_bilinear().state_dict()
    shapes = {
        "inc.double_conv.0.weight": (64, 3, 3, 3),
        "inc.double_conv.4.running_mean": (64,),
        "down1.maxpool_conv.1.double_conv.0.weight": (128, 64, 3, 3),
        "down4.maxpool_conv.1.double_conv.3.weight": (1024, 1024, 3, 3),
        "up1.up.weight": (1024, 512, 2, 2),
        "up1.up.bias": (512,),
        "up1.conv.double_conv.0.weight": (512, 1024, 3, 3),
        "up4.conv.double_conv.3.weight": (64, 64, 3, 3),
        "outc.conv.weight": (2, 64, 1, 1),
        "outc.conv.bias": (2,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert {name.split(".")[0] for name in state} == {"inc", "outc"} | {
        f"{w}{i}" for w in ("down", "up") for i in range(1, 5)
    }
    # 18 convolutions without bias and 18 norms of five entries, four up-convolutions and the last one with bias
    assert len(state) == 18 + 18 * 5 + 4 * 2 + 2
    assert tuple(bilinear["up1.conv.double_conv.0.weight"].shape) == (512, 1024, 3, 3)
    assert tuple(bilinear["up1.conv.double_conv.3.weight"].shape) == (256, 512, 3, 3)
    assert not [name for name in bilinear if ".up." in name]


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (17, 31), (45, 30), (64, 33)])
def test_forward_keeps_any_size(bilinear: bool, size: tuple[int, int]) -> None:
    assert small(bilinear)(torch.rand(2, 3, *size, dtype=torch.float64)).shape == (2, 2, *size)


def test_forward_refuses_what_four_poolings_would_swallow() -> None:
    with pytest.raises(RecordError, match="15 x 40, wanted at least 16 x 16"):
        small()(torch.rand(1, 3, 15, 40, dtype=torch.float64))


def test_skip_is_joined_first_and_the_raised_map_is_padded_evenly() -> None:
    up = small().up4
    seen = []
    up.conv.register_forward_pre_hook(lambda _m, got: seen.append(got[0]))
    features, skip = torch.rand(1, 8, 3, 3, dtype=torch.float64), torch.rand(1, 4, 7, 8, dtype=torch.float64)
    up(features, skip)
    raised = up.up(features)
    assert torch.equal(seen[0][:, :4], skip)
    assert torch.equal(seen[0][:, 4:, :6, 1:7], raised)
    assert seen[0][:, 4:, 6].abs().sum() == 0


@pytest.mark.parametrize("bilinear", [False, True])
def test_prediction_is_that_of_the_picture_mirrored_to_multiples_of_16(bilinear: bool) -> None:
    net = small(bilinear)
    image = torch.rand(3, 37, 50, dtype=torch.float64)
    padded = mirror_window(image, 0, 0, (48, 64))
    expected = net(padded[None])[0, :, :37, :50]
    assert torch.allclose(net.predict_logits(image[None])[0], expected, rtol=0, atol=1e-12)
    (prediction,) = net.predict_images([image])
    assert torch.equal(prediction.label_map, expected.argmax(0).to(torch.uint8))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (33, 5)])
def test_any_picture_size_is_predicted_and_learned(size: tuple[int, int]) -> None:
    net = unet_padded(width=2)
    image = torch.randint(0, 256, (1, *size), dtype=torch.uint8)  # grey for a colour net
    loss = net.train().loss([image], [Target(label_map=torch.zeros(size, dtype=torch.uint8))])
    assert torch.isfinite(loss.total)
    (prediction,) = net.eval().predict_images([image])
    assert prediction.label_map.shape == size


def test_a_batch_equals_single_pictures_in_the_order_given() -> None:
    net = small(keep_probs=True)
    images = [torch.rand(3, h, w, dtype=torch.float64) for h, w in ((20, 30), (40, 20), (20, 30))]
    for image, prediction in zip(images, net.predict_images(images), strict=True):
        (single,) = net.predict_images([image])
        assert torch.allclose(prediction.probs, single.probs, atol=1e-6)
        assert torch.equal(prediction.label_map, single.label_map)


def test_loss_terms_are_the_mean_cross_entropy_and_the_pooled_dice() -> None:
    net = small(class_weights=(1.0, 2.0))
    image = torch.rand(3, 32, 48, dtype=torch.float64)
    labels = torch.randint(0, 2, (32, 48), dtype=torch.uint8)
    labels[4:9] = 255
    losses = net.loss([image], [Target(label_map=labels)])
    assert list(losses.terms) == ["cross_entropy", "dice"]
    logits = net(image[None])
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    summed = nn.functional.cross_entropy(logits, labels[None].long(), weights, ignore_index=255, reduction="sum")
    assert torch.allclose(losses.terms["cross_entropy"], summed / (labels != 255).sum())
    assert torch.allclose(losses.terms["dice"], dice_loss(logits, labels[None]))


def test_loss_of_several_sizes_ignores_what_was_added() -> None:
    net = small()
    images = [torch.rand(3, 40, 33, dtype=torch.float64), torch.rand(3, 64, 64, dtype=torch.float64)]
    targets = [Target(label_map=torch.randint(0, 2, tuple(i.shape[-2:]), dtype=torch.uint8)) for i in images]
    both = net.loss(images, targets).terms["cross_entropy"]
    logits = net(mirror_window(images[0], 0, 0, (64, 64))[None])[..., :40, :33]
    first = nn.functional.cross_entropy(logits, targets[0].label_map[None].long(), reduction="sum")  # type: ignore[index]
    second = nn.functional.cross_entropy(net(images[1][None]), targets[1].label_map[None].long(), reduction="sum")  # type: ignore[index]
    assert torch.allclose(both, (first + second) / (40 * 33 + 64 * 64))


def test_weight_maps_weigh_and_absent_ones_count_one() -> None:
    net = small()
    images = [torch.rand(3, 32, 32, dtype=torch.float64) for _ in range(2)]
    labels = [torch.randint(0, 2, (32, 32), dtype=torch.uint8) for _ in range(2)]
    half = [Target(label_map=labels[0], weight_map=torch.full((32, 32), 3.0)), Target(label_map=labels[1])]
    plain = [net.loss([i], [Target(label_map=m)]).terms["cross_entropy"] for i, m in zip(images, labels, strict=True)]
    weighted = net.loss(images, half).terms["cross_entropy"]
    assert torch.allclose(weighted, (3 * plain[0] + plain[1]) / 2)


@pytest.mark.parametrize("build", [unet_padded, unet_padded_bilinear])
def test_loss_reaches_every_parameter_and_training_lowers_it(build) -> None:
    torch.manual_seed(0)
    net = build(["ground", "left", "right"], width=4).train()
    image = torch.rand(3, 32, 32)
    labels = torch.zeros(32, 32, dtype=torch.uint8)
    labels[:, :10], labels[:, 22:] = 1, 2
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    history = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = net.loss([image], [Target(label_map=labels)]).total
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.5 * history[0]


def test_loss_in_evaluation_mode_leaves_the_statistics_alone() -> None:
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.loss([torch.rand(3, 32, 32, dtype=torch.float64)], [Target(label_map=torch.zeros(32, 32, dtype=torch.uint8))])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_channels_last_gives_the_same() -> None:
    net = small()
    pixels = torch.rand(1, 3, 40, 33, dtype=torch.float64)
    plain = net(pixels)
    last = net.to(memory_format=torch.channels_last)(pixels.to(memory_format=torch.channels_last))
    assert torch.allclose(plain, last, rtol=0, atol=1e-12)
