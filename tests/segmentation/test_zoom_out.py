"""Zoom-out: 12,416 values a superpixel, what they are made of, what learns."""

import pytest
import torch
from torch import Tensor

from bestiary import zoo
from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.features.superpixel_pooling import superpixel_means
from bestiary.records import Objects, Target
from bestiary.segmentation.zoom_out import FullyConnectedContext, MapContext, ZoomOut, zoom_out, zoom_out_small


def small(categories: tuple[str, ...] = ("a", "b", "c"), superpixels: int = 20) -> ZoomOut:
    torch.manual_seed(0)
    return zoom_out_small(categories, superpixels=superpixels).eval()


def smooth(height: int = 40, width: int = 56) -> Tensor:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.avg_pool2d(noise, 11, 1, 5)[0]


def test_widths_and_parameters() -> None:
    with torch.device("meta"):
        net, little = zoom_out(), zoom_out_small()
    assert net.feature_width == 4224 + 2 * 4096 == 12_416
    assert sum(p.numel() for p in net.backbone.parameters()) == 14_714_688
    assert sum(p.numel() for p in net.context.parameters()) == 102_764_544 + 16_781_312
    assert sum(p.numel() for p in net.labeller.parameters()) == 12_416 * 1024 + 1024 + 1024 * 1025 + 1024 * 21 + 21
    assert {p.requires_grad for p in net.backbone.parameters()} == {False}
    assert little.feature_width == 32 + 64 + 2 * 128 + 4 * 256 + 2 * 256 == 1888
    assert sum(p.numel() for p in little.backbone.parameters()) == 2_308_992


@torch.inference_mode()
def test_features_are_the_means_of_every_convolutions_map() -> None:
    net, image = small(), smooth()
    segments = net.segments(image)
    count = int(segments.max()) + 1
    found = net.features(image, segments)
    features = net.prepare(image[None], 0, 0, (64, 64))
    maps: list[Tensor] = []
    for layer in net.backbone.features:
        features = layer(features)
        if isinstance(layer, torch.nn.ReLU):
            maps.append(features[0].clone())
    wanted = torch.cat([superpixel_means(m, segments, count, (64, 64)) for m in maps], dim=1)
    assert torch.allclose(found[:, : wanted.shape[1]], wanted, atol=1e-5)
    # of the last map, 4 x 4 cells of 16 pixels, the picture covers three rows and all columns
    assert torch.allclose(found[:, -256:], maps[-1][:, :3, :4].mean((1, 2)).expand(count, -1), atol=1e-5)


@torch.inference_mode()
def test_numbers_of_superpixels_do_not_matter() -> None:
    net, image = small(), smooth()
    segments = net.segments(image)
    order = torch.randperm(int(segments.max()) + 1)
    renamed = net.features(image, order[segments.long()].int())
    assert torch.allclose(renamed[order], net.features(image, segments), atol=1e-5)


@torch.inference_mode()
def test_a_superpixel_has_one_answer() -> None:
    net, image = small(), smooth()
    logits, segments = net.predict_logits(image[None])[0], net.segments(image)
    for number in range(int(segments.max()) + 1):
        inside = logits[:, segments == number]
        assert torch.equal(inside, inside[:, :1].expand_as(inside))
    assert logits.flatten(1).unique(dim=1).shape[1] > 5


@torch.inference_mode()
def test_the_context_of_boxes_is_the_mean_of_the_cells_that_they_touch() -> None:
    last = torch.rand(5, 4, 6)
    boxes = torch.tensor([[0, 0, 96, 64], [17, 3, 33, 16], [95, 63, 96, 64]])
    found = MapContext(5)(VGG(DEPTHS["vgg11"]), torch.zeros(3, 64, 96), last, boxes)
    wanted = [last.mean((1, 2)), last[:, 0, 1:3].mean(1), last[:, 3, 5]]
    assert torch.allclose(found, torch.stack(wanted), atol=1e-6)


@torch.inference_mode()
def test_fc7_of_boxes_is_that_of_each_crop() -> None:
    class Thin(FullyConnectedContext):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.classifier = torch.nn.Sequential(torch.nn.Linear(49 * 8, 6), torch.nn.ReLU())
            self.chunk, self.width = 2, 6

    torch.manual_seed(0)
    trunk, context = VGG((1, 1, 1, 1, 1), width=1 / 64, maps=("C5",)).eval(), Thin()
    pixels = torch.rand(3, 40, 50)
    boxes = torch.tensor([[0, 0, 50, 40], [10, 5, 30, 25], [49, 39, 50, 40]])
    found = context(trunk, pixels, torch.zeros(8, 1, 1), boxes)
    crop = torch.nn.functional.interpolate(pixels[None, :, 5:25, 10:30], size=(224, 224), mode="bilinear")
    assert found.shape == (3, 6)
    assert torch.allclose(found[1], context.classifier(trunk(crop)[-1].flatten(1))[0], atol=1e-5)


def test_one_picture_is_learned_by_all_parameters() -> None:
    net, image = small(("a", "b")).train(), smooth()
    label_map = (image[0] > image[0].median()).to(torch.uint8)
    target = Target(label_map=label_map, weight_map=torch.ones(40, 56))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = net.loss([image, image.flip(-1)], [target, Target(label_map=label_map.flip(-1))]).total
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_is_the_mean_over_superpixels_by_class_weights() -> None:
    net, image = small(), smooth()
    net.take({"class_weights": [1.0, 2.0, 5.0]})
    segments = net.segments(image)
    count = int(segments.max()) + 1
    labels = torch.arange(count) % 3
    label_map = labels[segments.long()].to(torch.uint8)
    loss = net.loss([image], [Target(label_map=label_map)]).total
    log_probs = net.label(net.features(image, segments))[0, :, 0].log_softmax(0)
    each = -log_probs[labels, torch.arange(count)] * torch.tensor([1.0, 2.0, 5.0])[labels]
    assert torch.allclose(loss, each.mean(), atol=1e-5)


def test_a_trunk_that_does_not_learn_stays_as_it_is() -> None:
    torch.manual_seed(0)
    trunk = VGG((1, 1, 1, 1, 1), width=1 / 16, batch_norm=True, maps=("C4",))
    net = ZoomOut(trunk, MapContext(32), ("a", "b"), hidden=8, superpixels=10).train()
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    image = smooth()
    net.loss([image], [Target(label_map=torch.zeros(40, 56, dtype=torch.uint8))]).total.backward()
    assert all(torch.equal(before[name], value) for name, value in net.backbone.state_dict().items())
    assert all(p.grad is None for p in net.backbone.parameters())
    assert all(p.grad is not None for p in net.labeller.parameters())
    assert net.standardise.num_batches_tracked == 1


@pytest.mark.parametrize("size", [(1, 1), (17, 31)])
def test_any_picture_is_named_and_trains(size: tuple[int, int]) -> None:
    net = small()
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(2)]
    with torch.inference_mode():
        for image, found in zip(images, net.predict_images(images), strict=True):
            assert found.label_map.shape == size
            assert torch.equal(net.predict_images([image])[0].label_map, found.label_map)
    unknown = Target(label_map=torch.full(size, 255, dtype=torch.uint8))
    assert float(net.train().loss(images[:1], [unknown]).total.detach()) == 0


def test_several_classes_a_superpixel() -> None:
    net, image = small(), smooth()
    net.take({"multi_label": True})
    masks = torch.zeros(2, 40, 56, dtype=torch.bool)
    masks[0, :25], masks[1, 10:] = True, True
    objects = Objects(torch.tensor([[0.0, 0, 56, 25], [0, 10, 56, 40]]), torch.tensor([0, 2]), masks=masks)
    assert net.loss([image], [Target(objects=objects)]).total.isfinite()
    with torch.inference_mode():
        (found,) = net.predict_images([image])
    assert found.class_masks is not None


def test_it_starts_from_a_classifier() -> None:
    with torch.device("meta"):
        net, vgg = zoom_out(), zoo.build("vgg16")
    taken, line = net.start_state(vgg.state_dict())
    assert line == "starts from a classifier: its convolutions, fc6 and fc7"
    own = net.state_dict()
    assert set(taken) == {name for name in own if name.startswith(("backbone.", "context."))}
    assert {name: value.shape for name, value in taken.items()} == {name: own[name].shape for name in taken}
    assert net.start_state(own) == (own, "")


def test_numbers_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="wanted at least 1 each"):
        zoom_out_small(superpixels=0)
