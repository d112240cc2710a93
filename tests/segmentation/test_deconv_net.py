from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from labeller_checks import check_batches, check_learning, check_sizes, check_state, check_unknown_truth, noise, stirred
from torch.nn import functional as F

from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.errors import RecordError, UsageError
from bestiary.layers.preprocess import channel_normalize
from bestiary.layers.switched import start_by_inputs
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import IGNORE_LABEL, Losses, Objects, Target
from bestiary.segmentation.deconv_net import (
    CROP,
    DeconvNet,
    WindowRules,
    cropped_at_random,
    deconv_net,
    deconv_net_small,
)
from bestiary.weights.load import load_state

DEPTHS = (1, 1, 1, 1, 1)
WIDTHS = (4, 6, 8, 8, 8)


class Given(Proposer):
    """The boxes that it is made with."""

    name: ClassVar[str] = "given"

    def __init__(self, *boxes_xyxy: tuple[float, float, float, float]) -> None:
        super().__init__()
        self.boxes_xyxy = torch.tensor(boxes_xyxy, dtype=torch.float32).view(-1, 4)

    def settings(self) -> Mapping[str, Any]:
        return {}

    def find(self, image: torch.Tensor) -> Proposals:
        return Proposals(self.boxes_xyxy, torch.linspace(1, 0.5, len(self.boxes_xyxy)))


def tiny(*boxes: tuple[float, float, float, float], cells: int = 1, **rules: Any) -> DeconvNet:
    torch.manual_seed(0)
    return DeconvNet(
        ("background", "a", "b"),
        channel_normalize(3),
        Given(*boxes),
        depths=DEPTHS,
        widths=WIDTHS,
        hidden=12,
        cells=cells,
        rules=WindowRules(**{"crops": 2, "least_side": 8, **rules}),
    )


def test_parameter_counts_and_layers_are_those_of_the_authors_file() -> None:
    with torch.device("meta"):
        net, small = deconv_net(), deconv_net_small()
    assert sum(p.numel() for p in net.parameters()) == 251_805_653
    assert sum(p.numel() for p in small.parameters()) == 5_873_845
    shapes = {
        "fc6.weight": (4096, 512, 7, 7),
        "fc7.weight": (4096, 4096, 1, 1),
        "fc6_deconv.weight": (4096, 512, 7, 7),
        "decoder.conv5_3.weight": (512, 512, 3, 3),
        "decoder.conv4_3.weight": (512, 256, 3, 3),
        "decoder.conv3_3.weight": (256, 128, 3, 3),
        "decoder.conv2_2.weight": (128, 64, 3, 3),
        "decoder.conv1_2.weight": (64, 64, 3, 3),
        "classifier.weight": (21, 64, 1, 1),
    }
    assert {name: tuple(net.state_dict()[name].shape) for name in shapes} == shapes
    assert (net.side, net.geometry.grid, net.rules) == (224, 32, WindowRules(4, 1.2, 0.5, 50, 112))


def test_sides_are_224_and_steps_of_32() -> None:
    with torch.device("meta"):
        net = deconv_net()
        assert net(torch.empty(1, 3, 224, 288)).shape == (1, 21, 224, 288)
    assert [net.geometry.covering(side) for side in (1, 224, 225, 500)] == [224, 224, 256, 512]


@torch.inference_mode()
def test_the_way_up_from_a_single_place_is_vector_times_kernel() -> None:
    net = tiny(cells=3)
    vector = noise(1, 12, 1, 1)
    wanted = torch.einsum("bi,iokl->bokl", vector[..., 0, 0], net.fc6_deconv.weight)
    torch.testing.assert_close(F.conv_transpose2d(vector, net.fc6_deconv.weight), wanted)
    assert net.fc6_deconv(vector).shape == (1, 8, 3, 3)


@torch.inference_mode()
def test_where_the_encoder_found_its_maxima_decides_the_output() -> None:
    """Turning each 2x2 cell of a picture moves maxima but changes no pooled value of the picture itself."""
    net = stirred(tiny())
    pixels = noise(1, 3, 32, 32)
    features, switches = net.encoder(pixels)  # type: ignore[operator]
    usual = net.decoder(features, switches)  # type: ignore[operator]
    turned = [type(s)(s.indices.flip(0, 2), s.size_hw) for s in switches]
    assert not torch.allclose(net.decoder(features, turned), usual)  # type: ignore[operator]


def test_it_keeps_what_every_labeller_keeps() -> None:
    boxes = ((0.0, 0, 20, 20), (8.0, 4, 30, 24))
    check_sizes(tiny())
    check_batches(tiny(*boxes))
    check_unknown_truth(tiny(*boxes))
    check_state(tiny(*boxes))
    check_batches(tiny(proposals=0))


def test_one_picture_is_learned() -> None:
    net = tiny()
    net.begin_stage("proposals")
    check_learning(net, 40, lr=0.03)


@torch.inference_mode()
def test_scores_of_windows_are_joined_by_their_maximum_in_any_order() -> None:
    net = stirred(tiny((0, 0, 20, 16), (10, 4, 34, 30)))
    assert isinstance(net, DeconvNet)
    start_by_inputs(net)  # the authors' start says nearly the same everywhere
    image = noise(1, 3, 36, 44)[0]
    windows = net.windows_of(image)
    assert windows == [(0, 0, 44, 36), (-2, -2, 22, 18), (7, 1, 37, 33)]
    found = net.aggregate(image, windows)
    assert torch.equal(net.predict_logits(image[None])[0], found)
    assert found.min() >= 0
    torch.testing.assert_close(net.aggregate(image, windows[::-1]), found, rtol=0, atol=1e-6)
    alone = net.aggregate(image, windows[:1])
    assert (found >= alone - 1e-6).all()
    assert (found[:, 20:30, 25:35] > alone[:, 20:30, 25:35] + 1e-4).any()


def test_small_proposals_are_not_looked_at_and_only_the_best_are() -> None:
    net = tiny((0, 0, 40, 7), (0, 0, 20, 20), (5, 5, 25, 25), (9, 9, 30, 30), proposals=2)
    assert net.windows_of(noise(1, 3, 40, 40)[0])[1:] == [(-2, -2, 22, 22), (3, 3, 27, 27)]


@torch.inference_mode()
def test_without_proposals_the_picture_is_seen_at_once() -> None:
    net = stirred(tiny(proposals=0))
    assert isinstance(net, DeconvNet)
    pixels = noise(1, 3, 40, 50)
    wanted = net(net.prepare(pixels, 0, 0, (64, 64)))[..., :40, :50]
    assert torch.equal(net.predict_logits(pixels), wanted)
    padded = net.prepare(pixels, 0, 0, (64, 64))
    assert padded[..., 40:, :].abs().sum() == padded[..., 50:].abs().sum() == 0


def scene() -> tuple[torch.Tensor, Target]:
    label_map = torch.zeros(40, 60, dtype=torch.uint8)
    label_map[4:20, 4:20] = 1
    label_map[22:38, 30:56] = 2
    label_map[0] = IGNORE_LABEL
    return noise(1, 3, 40, 60)[0], Target(label_map=label_map)


def learned_from(net: DeconvNet, target: Target, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Target]:
    """The truths of the windows that a loss is taken of."""
    seen: list[Target] = []

    def watch(_net: object, _images: object, targets: list[Target]) -> Losses:
        seen.extend(targets)
        return Losses({"none": torch.zeros(())})

    monkeypatch.setattr("bestiary.segmentation.deconv_net.WholePicture.loss", watch)
    for seed in range(6):
        torch.manual_seed(seed)
        net.loss([image], [target])
    return seen


def test_the_first_stage_calls_everything_but_one_object_background(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (image, target) = tiny(), scene()
    net.begin_stage("objects")
    found = [set(t.label_map.unique().tolist()) - {IGNORE_LABEL} for t in learned_from(net, target, image, monkeypatch)]  # type: ignore[union-attr]
    assert {0, 1} in found
    assert {0, 2} in found
    assert not [labels for labels in found if {1, 2} <= labels]


def test_the_second_stage_draws_proposals_near_objects_and_keeps_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (image, target) = tiny(), scene()
    boxes = torch.tensor([[3.0, 3, 21, 21], [30.0, 0, 40, 5], [0.0, 0, 60, 40]])
    target = Target(label_map=target.label_map, proposals_xyxy=boxes)
    drawn = {tuple(net.draw_box(net._objects(image, target), target)[0].tolist()) for _ in range(60)}
    assert drawn == {(3.0, 3.0, 21.0, 21.0), (0.0, 0.0, 60.0, 40.0)}
    found = [set(t.label_map.unique().tolist()) for t in learned_from(net, target, image, monkeypatch)]  # type: ignore[union-attr]
    assert [labels for labels in found if {0, 1, 2} <= labels]


def test_classes_are_drawn_evenly_however_many_objects_each_has() -> None:
    net = tiny()
    net.begin_stage("objects")
    label_map = torch.zeros(40, 60, dtype=torch.uint8)
    for i in range(6):
        label_map[2:8, 10 * i : 10 * i + 6] = 1
    label_map[20:30, 20:30] = 2
    image, target = noise(1, 3, 40, 60)[0], Target(label_map=label_map)
    objects = net._objects(image, target)
    torch.manual_seed(0)
    numbers = [net.draw_box(objects, target)[1] for _ in range(200)]
    assert 70 <= sum(number == 6 for number in numbers) <= 130


def test_without_a_background_the_first_stage_keeps_all_labels() -> None:
    net, (_, target) = tiny(), scene()
    net.categories = ("sky", "road", "car")
    assert net.background is None
    objects = net._objects(noise(1, 3, 40, 60)[0], target)
    assert objects.labels.unique().tolist() == [0, 1, 2]
    assert net._single_object(target, objects, 0) is target


def test_overlapping_classes_are_learned_from_their_masks() -> None:
    net = tiny()
    net.take({"multi_label": True})
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 5:30, 5:30], masks[1, 20:38, 20:50] = True, True
    boxes = torch.tensor([[5.0, 5, 30, 30], [20.0, 20, 50, 38]])
    target = Target(objects=Objects(boxes, torch.tensor([1, 2]), masks=masks))
    net.begin_stage("objects")
    assert torch.isfinite(net.loss([noise(1, 3, 40, 60)[0]], [target]).total)


def test_crops_are_224_of_250_and_lie_inside() -> None:
    torch.manual_seed(0)
    box = torch.tensor([10.0, 20.0, 60.0, 45.0])
    crops = torch.stack([cropped_at_random(box) for _ in range(50)])
    torch.testing.assert_close(crops[:, 2:] - crops[:, :2], torch.tensor([50 * CROP, 25 * CROP]).expand(50, 2))
    assert (crops[:, :2] >= box[:2]).all()
    assert (crops[:, 2:] <= box[2:] + 1e-4).all()
    assert crops[:, 0].std() > 1


def test_it_starts_from_a_classifier_with_its_fully_connected_layers() -> None:
    source = VGGClassifier(VGG((1, 1, 2, 2, 2), width=1 / 16), ("x", "y"), hidden=(12, 12))
    net = DeconvNet(
        ("background", "a"), channel_normalize(3), Given(), depths=(1, 1, 2, 2, 2), widths=(4, 8, 16, 32, 32), hidden=12
    )
    report = load_state(net, source.state_dict())
    assert report.note == "starts from a classifier: its convolutions, fc6, fc7"
    assert torch.equal(net.fc6.weight.flatten(1), source.classifier[0].weight)
    assert torch.equal(net.encoder["conv5_2"].weight, source.features[18].weight)


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="objects, proposals"):
        tiny().begin_stage("other")
    with pytest.raises(UsageError, match="a crop at least"):
        WindowRules(crops=0)
    with pytest.raises(UsageError, match="proposal_count"):
        deconv_net_small(proposal_count=0)
    with pytest.raises(RecordError, match="label_map"):
        tiny().loss([noise(1, 3, 8, 8)[0]], [Target()])
