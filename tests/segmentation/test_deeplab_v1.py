import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bestiary import zoo
from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.heads.coarse_scores import at_places
from bestiary.heads.whole_picture import PixelOutputs, PixelTruth
from bestiary.layers.preprocess import Normalize
from bestiary.records import Target
from bestiary.segmentation.deeplab_v1 import (
    DeepLabV1,
    DeepLabV1MultiScale,
    deeplab_v1,
    deeplab_v1_multi_scale,
    deeplab_v1_small,
)
from bestiary.weights.load import load_state


def small() -> DeepLabV1:
    torch.manual_seed(0)
    return deeplab_v1_small(("sky", "road", "car")).eval()


def labels(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 3, (height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_the_papers_network() -> None:
    with torch.device("meta"):
        system = deeplab_v1()
        scores = system.outputs(torch.empty(1, 3, 321, 513)).logits
        wide = system(torch.empty(1, 3, 41, 33))
    assert sum(p.numel() for p in system.parameters()) == 20_505_429
    assert scores.shape == (1, 21, 41, 65)
    assert wide.shape == (1, 21, 41, 33)
    layers = [m for m in system.large_fov.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.dilation[0], m.out_channels) for m in layers] == [(12, 1024), (1, 1024), (1, 21)]
    assert sum(p.numel() for p in deeplab_v1_small(("a", "b")).parameters()) < 3_000_000


def test_pixels_as_the_authors_files_want_them() -> None:
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1.0
    seen = deeplab_v1_small(("a", "b"), pixels="caffe").normalize(red)[0, :, 0, 0]
    torch.testing.assert_close(seen, torch.tensor([-104.008, -116.669, 255 - 122.675]))
    assert deeplab_v1_small(("a", "b"), 5, pixels="caffe").normalize.channel_order == "rgb"


def test_fc6_looks_from_place_to_place_as_far_as_fc6_of_vgg_did() -> None:
    # 7x7 places at stride 32 have their outer taps 192 pixels apart: 24 places of stride 8, 12 to either side
    head = deeplab_v1_small(("a", "b"), rate=12).large_fov.eval()
    maps = torch.rand(1, 256, 33, 33, generator=torch.Generator().manual_seed(0)).requires_grad_()
    head(maps)[0, 0, 16, 16].backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum((0, 1, 3)).nonzero().flatten().tolist() == [4, 16, 28]


def test_places_are_every_eighth_pixel_and_corners_stay_corners() -> None:
    maps = torch.arange(17 * 25, dtype=torch.uint8).reshape(1, 17, 25)
    picked = at_places(PixelTruth(maps, maps.float()), torch.zeros(1, 2, 3, 4))
    assert torch.equal(picked.label_maps, maps[:, ::8, ::8])
    assert picked.weight_maps is not None
    assert torch.equal(picked.weight_maps, maps[:, ::8, ::8].float())
    uneven = at_places(PixelTruth(maps), torch.zeros(1, 2, 3, 3))
    assert torch.equal(uneven.label_maps, maps[:, ::8, ::12])
    assert torch.equal(at_places(PixelTruth(maps), torch.zeros(1, 2, 1, 1)).label_maps, maps[:, :1, :1])


def test_masks_of_classes_that_overlap_are_taken_at_the_same_places() -> None:
    masks = torch.rand(1, 3, 17, 25, generator=torch.Generator().manual_seed(0)) > 0.5
    picked = at_places(PixelTruth(torch.zeros(1, 17, 25, dtype=torch.uint8), None, masks), torch.zeros(1, 3, 3, 4))
    assert picked.class_masks is not None
    assert torch.equal(picked.class_masks, masks[..., ::8, ::8])
    assert picked.weight_maps is None


def test_side_branches_see_the_picture_and_the_first_four_pools() -> None:
    with torch.device("meta"):
        paper = deeplab_v1_multi_scale()
        scores = paper.outputs(torch.empty(1, 3, 321, 65)).logits
    assert scores.shape == (1, 21, 41, 9)
    firsts = [next(m for m in side.modules() if isinstance(m, nn.Conv2d)) for side in paper.sides]
    assert [(c.in_channels, c.out_channels, c.stride[0]) for c in firsts] == [
        (3, 128, 8),
        (64, 128, 4),
        (128, 128, 2),
        (256, 128, 1),
        (512, 128, 1),
    ]
    further = sum(i * 128 * 9 + 128 + 128 * 128 + 128 + 128 * 21 + 21 for i in (3, 64, 128, 256, 512))
    assert sum(p.numel() for p in paper.parameters()) == 20_505_429 + further


@torch.inference_mode()
def test_side_branches_are_added_to_the_network_they_start_from() -> None:
    torch.manual_seed(0)
    names = ("sky", "road", "car")
    first = DeepLabV1(names, Normalize(), VGG(DEPTHS["vgg11"], output_stride=8, maps=("C5",), width=1 / 16), 8).eval()
    trunk = VGG(DEPTHS["vgg11"], output_stride=8, maps=("C5",), width=1 / 16)
    second = DeepLabV1MultiScale(names, Normalize(), trunk, 8).eval()
    report = load_state(second, first.state_dict())
    assert report.note == "starts from DeepLab v1; the side branches start fresh"
    pixels = torch.rand(1, 3, 41, 33)
    plain, pools = first.outputs(pixels).logits, []
    for layer in second.backbone.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda _m, _got, said: pools.append(said))
    for side in second.sides:
        for parameter in side.parameters():
            parameter.add_(0.1)
    found = second.outputs(pixels).logits
    added = sum(side(tap) for side, tap in zip(second.sides, [pixels, *pools[:4]], strict=True))
    torch.testing.assert_close(found, plain + added)
    assert len(pools) == 5
    assert second.start_state(second.state_dict())[1] == ""


@torch.inference_mode()
def test_logits_at_those_pixels_are_the_scores() -> None:
    system, pixels = small(), torch.rand(2, 3, 41, 33)
    torch.testing.assert_close(system(pixels)[..., ::8, ::8], system.outputs(pixels).logits, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_the_loss_is_the_mean_over_every_eighth_label() -> None:
    system, image = small(), torch.rand(3, 41, 33)
    truth = labels(41, 33)
    truth[8, 16] = 255
    (term,) = system.loss([image], [Target(label_map=truth)]).terms.items()
    scores = system.outputs(system.normalize(image)[None]).logits
    wanted = F.cross_entropy(scores, truth[None, ::8, ::8].long(), ignore_index=255)
    assert term[0] == "cross_entropy"
    torch.testing.assert_close(term[1], wanted)
    weights = torch.rand(41, 33)
    weighted = system.loss([image], [Target(label_map=truth, weight_map=weights)]).terms["cross_entropy"]
    each = F.cross_entropy(scores, truth[None, ::8, ::8].long(), ignore_index=255, reduction="none")
    torch.testing.assert_close(weighted, (each * weights[None, ::8, ::8]).sum() / 29)


@torch.inference_mode()
def test_smaller_pictures_are_padded_with_the_mean_colour() -> None:
    system, image = small(), torch.rand(3, 30, 20)
    padded = torch.zeros(1, 3, 33, 25)
    padded[..., :30, :20] = system.normalize(image)
    torch.testing.assert_close(system.predict_logits(image[None]), system(padded)[..., :30, :20])


def test_a_vgg_16_is_the_start_with_its_fully_connected_layers_thinned() -> None:
    with torch.device("meta"):
        state = dict(zoo.build("vgg16").state_dict())
        system = deeplab_v1()
    state["classifier.0.bias"] = torch.arange(4096.0)
    taken, line = system.start_state(state)
    assert line == "starts from a classifier: its convolutions, and fc6 and fc7 thinned out"
    own = system.state_dict()
    assert set(own) - set(taken) == {"large_fov.score.weight", "large_fov.score.bias"}
    assert {name: value.shape for name, value in taken.items()} == {name: own[name].shape for name in taken}
    assert torch.equal(taken["large_fov.fc6.0.bias"], torch.arange(0.0, 4096, 4))


def test_a_thin_net_takes_no_fully_connected_layers() -> None:
    with torch.device("meta"):
        state = zoo.build("vgg16").state_dict()
        system = DeepLabV1(("a", "b"), Normalize(), deeplab_v1().backbone, width=64)
        _, line = system.start_state(state)
    assert line == "starts from a classifier: its convolutions"


def test_the_objective_may_be_another() -> None:
    system = small()
    system.take({"losses": ["dice", "cross_entropy=0.5"]})
    outputs, truth = system.outputs(torch.rand(1, 3, 41, 33)), PixelTruth(labels(41, 33)[None])
    assert isinstance(outputs, PixelOutputs)
    assert set(system.loss_terms(outputs, truth)) == {"dice", "cross_entropy"}


@pytest.mark.parametrize("size_hw", [(1, 1), (16, 17), (18, 40)])
def test_sides_are_8_n_plus_1(size_hw: tuple[int, int]) -> None:
    system, seen = small(), []
    system.backbone.register_forward_pre_hook(lambda _m, got: seen.append(tuple(got[0].shape[-2:])))
    with torch.inference_mode():
        system.predict_images([torch.rand(3, *size_hw)])
    assert seen == [tuple(max(17, -(-(side - 1) // 8) * 8 + 1) for side in size_hw)]
