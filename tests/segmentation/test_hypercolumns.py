"""Hypercolumns: what they are made of, that projecting first is the same, and who classifies where."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.fcn_vgg import SAME_SIZE, ConvolutionalVGG
from bestiary.backbones.vgg import vgg11_bn_half_classifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.records import Target
from bestiary.segmentation.hypercolumns import Hypercolumns, hypercolumns, hypercolumns_small, shares
from bestiary.weights.load import load_state

CATEGORIES = ("sky", "road", "car")


def thin(grid: int = 3) -> Hypercolumns:
    torch.manual_seed(0)
    depths = DEPTHS["vgg11"]
    trunk = ConvolutionalVGG(depths, maps=("pool2", "conv4_2"), width=1 / 8, fc_width=6, paddings=SAME_SIZE)
    system = Hypercolumns(trunk, CATEGORIES, grid=grid)
    for name, parameter in system.scores.named_parameters():
        nn.init.normal_(parameter, 0, 0.3 if name.endswith("weight") else 1.0)
    return system.double().eval()


def places(height: int, width: int, stride: int) -> Tensor:
    """Middles of the cells of a map, row by row."""
    return torch.tensor(
        [(stride * (x + 0.5), stride * (y + 0.5)) for y, x in itertools.product(range(height), range(width))],
        dtype=torch.float64,
    )


def test_lengths_and_parameters() -> None:
    with torch.device("meta"):
        large, small = hypercolumns(), hypercolumns_small(CATEGORIES)
    assert (large.channels, small.channels) == (4736, 448)  # the paper's length with another net: 256 + 384 + 4096
    assert sum(p.numel() for p in large.parameters()) == 144_208_244
    assert sum(p.numel() for p in large.scores.parameters()) == 2100 * 4736 + 2100
    assert sum(p.numel() for p in small.parameters()) == 3_964_939
    assert [level.name for level in large.backbone.levels] == ["pool2", "conv4_3", "fc7"]


def test_at_the_middle_of_a_cell_the_hypercolumn_has_that_cells_features() -> None:
    system, pixels = thin(), torch.rand(2, 3, 64, 96, dtype=torch.float64)
    maps, start = system.backbone(pixels), 0
    for level, features in zip(system.backbone.levels, maps, strict=True):
        height, width = features.shape[-2:]
        found = system.hypercolumns(pixels, places(height, width, level.stride))
        part = found[..., start : start + level.channels]
        torch.testing.assert_close(part, features.flatten(2).mT, rtol=0, atol=1e-12)
        start += level.channels
    assert start == system.channels


def test_between_cells_it_is_interpolated() -> None:
    system, pixels = thin(), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    pool2 = system.backbone(pixels)[0][0]  # 8 x 8 cells of 4 pixels
    (found,) = system.hypercolumns(pixels, torch.tensor([[11.0, 18.0]], dtype=torch.float64))[0]
    wanted = 0.75 * pool2[:, 4, 2] + 0.25 * pool2[:, 4, 3]  # 11 is a quarter of the way from 10 to 14, 18 a middle
    torch.testing.assert_close(found[: len(wanted)], wanted, rtol=0, atol=1e-12)


def test_projecting_and_then_interpolating_is_classifying_hypercolumns() -> None:
    system, pixels = thin(grid=1), torch.rand(2, 3, 64, 96, dtype=torch.float64)
    columns = system.hypercolumns(pixels, places(16, 24, 4))
    weight = torch.cat([layer.weight.flatten(1) for layer in system.scores.values()], 1)  # type: ignore[operator]
    bias = system.scores["fc7"].bias
    assert isinstance(bias, Tensor)
    wanted = (columns @ weight.T + bias).mT.reshape(2, 3, 16, 24)
    found = system.cell_scores(pixels)[:, :, 0, 0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    logits = nn.functional.interpolate(wanted, (64, 96), mode="bilinear")
    torch.testing.assert_close(system(pixels), logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(system.outputs(pixels).logits, logits, rtol=0, atol=1e-10)


def test_only_the_last_projection_has_a_bias() -> None:
    assert [layer.bias is not None for layer in thin().scores.values()] == [False, False, True]  # type: ignore[union-attr]


@pytest.mark.parametrize(("places_", "cells"), [(12, 4), (12, 5), (3, 7), (40, 10), (9, 1)])
def test_shares_sum_to_one(places_: int, cells: int) -> None:
    for blended in (False, True):
        share = shares(places_, cells, blended, torch.float64)
        torch.testing.assert_close(share.sum(0), torch.ones(places_, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (share >= 0).all()
    assert (shares(places_, cells, False) == 1).sum() == places_


def test_at_a_cells_centre_its_classifier_speaks_alone_and_halfway_two_do() -> None:
    share = shares(15, 3, True, torch.float64)  # 5 places a cell; middles at 2, 7, 12
    for cell in range(3):
        assert torch.equal(share[:, 5 * cell + 2], torch.eye(3, dtype=torch.float64)[cell])
    torch.testing.assert_close(share[:, 4], torch.tensor([0.6, 0.4, 0.0], dtype=torch.float64))
    assert torch.equal(share[:, 0], share[:, 2])  # beyond the outermost centres nothing is extrapolated


def test_predictions_blend_the_classifiers_and_training_asks_each_for_its_cell() -> None:
    system, pixels = thin(grid=3), torch.rand(1, 3, 96, 96, dtype=torch.float64)
    scores = system.cell_scores(pixels)[0]  # 24 x 24 places, 8 a cell
    rows = shares(24, 3, True, torch.float64)
    blended, own = torch.zeros(3, 24, 24, dtype=torch.float64), torch.zeros(3, 24, 24, dtype=torch.float64)
    for y, x in itertools.product(range(24), range(24)):
        own[:, y, x] = scores[:, y // 8, x // 8, y, x]
        for i, j in itertools.product(range(3), range(3)):
            blended[:, y, x] += rows[i, y] * rows[j, x] * scores[:, i, j, y, x]
    for found, wanted in ((system(pixels), blended), (system.outputs(pixels).logits, own)):
        larger = nn.functional.interpolate(wanted[None], (96, 96), mode="bilinear")
        torch.testing.assert_close(found, larger, rtol=0, atol=1e-10)


def test_pixels_of_a_cell_teach_its_classifier_alone() -> None:
    system = thin(grid=2)
    labels = torch.full((64, 64), 255, dtype=torch.uint8)
    labels[4:28, 36:60] = 1  # well within the upper right cell
    system.loss([torch.rand(3, 64, 64, dtype=torch.float64)], [Target(label_map=labels)]).total.backward()
    gradient = system.scores["pool2"].weight.grad
    assert isinstance(gradient, Tensor)
    taught = gradient.unflatten(0, (3, 2, 2)).abs().sum((0, 3, 4, 5)) > 0
    assert taught.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (70, 33)])
def test_any_picture_is_predicted_and_learned(size: tuple[int, int]) -> None:
    system, image = hypercolumns_small(CATEGORIES), torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    target = Target(label_map=torch.zeros(size, dtype=torch.uint8))
    assert system.train().loss([image], [target]).total.isfinite()
    (prediction,) = system.eval().predict_images([image])
    assert prediction.label_map.shape == size


def test_a_batch_equals_single_pictures() -> None:
    system = thin()
    system.keep_probs = True
    images = [torch.rand(3, h, w, dtype=torch.float64) for h, w in ((20, 30), (40, 33), (20, 30))]
    for image, prediction in zip(images, system.predict_images(images), strict=True):
        (single,) = system.predict_images([image])
        assert torch.allclose(prediction.probs, single.probs, atol=1e-6)


def test_training_reaches_every_parameter_and_lowers_the_loss() -> None:
    torch.manual_seed(0)
    system = hypercolumns_small(CATEGORIES, grid=2).train()
    images = list(torch.rand(2, 3, 64, 64))
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[:, 20:], labels[40:] = 1, 2
    optimizer, history = torch.optim.AdamW(system.parameters(), lr=2e-3), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = system.loss(images, [Target(label_map=labels)] * 2).total
        loss.backward()
        assert [n for n, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.6 * history[0]


def test_nothing_labelled_is_a_loss_of_zero() -> None:
    target = Target(label_map=torch.full((40, 40), 255, dtype=torch.uint8))
    assert thin().loss([torch.rand(3, 40, 40, dtype=torch.float64)], [target]).total == 0


def test_it_starts_from_its_trunks_classifier_and_takes_other_categories() -> None:
    torch.manual_seed(1)
    classifier, system = vgg11_bn_half_classifier(["a", "b"]), hypercolumns_small(CATEGORIES)
    report = load_state(system, classifier.state_dict())
    assert report.summary() == "starts from a classifier: its convolutions, fc6 and fc7"
    assert set(report.loaded) == {n for n in system.state_dict() if n.startswith("backbone.")}
    two = hypercolumns_small(("a", "b"))
    found = load_state(two, system.state_dict())
    assert {m.name for m in found.new_head} == {n for n in system.state_dict() if n.startswith("scores.")}
    assert torch.equal(two.backbone.fc6.weight, system.backbone.fc6.weight)


def test_other_channels_and_a_bad_grid() -> None:
    system = hypercolumns_small(CATEGORIES, in_channels=1).eval()
    assert system.predict_logits(torch.rand(1, 3, 33, 40)).shape == (1, 3, 33, 40)
    with pytest.raises(UsageError, match="wanted 1 or more"):
        hypercolumns_small(CATEGORIES, grid=0)
