"""What a classifier looks at when it predicts: crops, mirror images, scales, the dense map."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary import zoo
from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.heads.views import Views, batches_of_views, class_map, ten_crop
from bestiary.layers.scaling import centre_crop, resize_short_side
from bestiary.predictions import Classification
from bestiary.verbs.models import load, save

CATEGORIES = ("ant", "bee", "crab")


class Weighted(Classifier):
    """Logits depend on where things are: each colour times a ramp."""

    def forward(self, pixels: Tensor) -> Tensor:
        ramp = torch.linspace(0, 3, pixels.shape[-1]) + torch.linspace(0, 1, pixels.shape[-2])[:, None]
        return (pixels * ramp).mean((2, 3)) * 4


def build(**arguments: object) -> Weighted:
    system = Weighted(CATEGORIES, resize=12, crop=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    system.take(arguments)
    return system.eval()


def probs(system: Classifier, image: Tensor) -> Tensor:
    (found,) = system.predict_images([image])
    assert isinstance(found, Classification)
    return found.probs


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1))


def test_ten_crops_are_corners_and_centre_and_their_mirror_images() -> None:
    image = torch.arange(2 * 5 * 7.0).view(2, 5, 7)
    crops = ten_crop(image, 3)
    wanted = [image[:, :3, :3], image[:, :3, 4:], image[:, 2:, :3], image[:, 2:, 4:], image[:, 1:4, 2:5]]
    for crop, part in zip(crops, wanted + [part.flip(-1) for part in wanted], strict=True):
        assert torch.equal(crop, part)


def test_ten_crops_of_a_symmetric_picture_are_five_pairs() -> None:
    half = torch.rand(3, 9, 6)
    crops = ten_crop(torch.cat([half, half.flip(-1)], -1), 5)
    # a left corner is the mirror image of the right one; the middle of an even width is its own only if it is even
    pairs = [(0, 6), (1, 5), (2, 8), (3, 7)]
    for one, other in pairs:
        assert torch.equal(crops[one], crops[other])
    even = ten_crop(torch.cat([half, half.flip(-1)], -1), 4)
    assert torch.equal(even[4], even[9])


def test_ten_crop_prediction_is_the_mean_of_ten_by_hand(image: Tensor) -> None:
    system = build(views="ten_crop")
    scaled = resize_short_side(image, 12)
    by_hand = torch.stack([system(crop[None])[0].softmax(0) for crop in ten_crop(scaled, 8)]).mean(0)
    torch.testing.assert_close(probs(system, image), by_hand)
    assert not torch.allclose(by_hand, probs(build(), image), atol=1e-3), "the crop alone says something else"


def test_scales_and_mirror_images_are_averaged(image: Tensor) -> None:
    system = build(view_sides=[9, 14], view_flip=True)
    views = [centre_crop(resize_short_side(image, side), 8) for side in (9, 14)]
    by_hand = torch.stack([system(v[None])[0].softmax(0) for view in views for v in (view, view.flip(-1))]).mean(0)
    torch.testing.assert_close(probs(system, image), by_hand)


def test_dense_views_are_the_whole_picture(image: Tensor) -> None:
    system = build(views="dense")
    torch.testing.assert_close(probs(system, image), system(resize_short_side(image, 12)[None])[0].softmax(0))


@pytest.mark.parametrize("views", ["centre", "ten_crop", "dense"])
def test_many_pictures_predict_as_one_by_one(views: str, image: Tensor) -> None:
    system = build(views=views, view_flip=True)
    images = [image, image[:, :, :17], image.flip(-1), image[:, 3:, :]]
    together = system.predict_images(images)
    for alone, found in zip(images, together, strict=True):
        assert isinstance(found, Classification)
        torch.testing.assert_close(found.probs, probs(system, alone))


def test_no_stack_is_larger_than_the_batch() -> None:
    views = [[torch.zeros(1, 4, 4)] * 10 for _ in range(3)]
    stacks = list(batches_of_views(views, 3))
    assert max(len(stack) for _, stack in stacks) == 3
    assert sorted(picture for pictures, _ in stacks for picture in pictures) == [0] * 10 + [1] * 10 + [2] * 10


def test_fully_connected_layers_run_as_convolutions() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4 * 9, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 5)).eval()
    maps = torch.rand(2, 4, 5, 6)
    found = class_map(maps, layers, 3)
    assert found.shape == (2, 5, 3, 4)
    for y in range(3):
        for x in range(4):
            torch.testing.assert_close(found[:, :, y, x], layers(maps[:, :, y : y + 3, x : x + 3].flatten(1)))
    with pytest.raises(UsageError, match="wanted at least 3 a side"):
        class_map(maps[:, :, :2], layers, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": "eleven_crop"}, "wanted one of centre, ten_crop, dense"),
        ({"view_sides": (7,)}, "got 7, wanted at least 8 for centre views"),
        ({"views": "ten_crop", "view_sides": (20, 7)}, "at least 8 for ten_crop"),
    ],
)
def test_views_that_cannot_be_are_errors(arguments: dict[str, object], message: str, unchecked: None) -> None:
    with pytest.raises(UsageError, match=message):
        build(**arguments)


def test_dense_sides_may_be_smaller_than_the_crop_but_not_than_the_network() -> None:
    assert build(views="dense", view_sides=(4,)).views == Views("dense", (4,))
    with pytest.raises(UsageError, match="at least 32 for dense"):
        zoo.build("vgg11_bn_cifar", CATEGORIES, {"views": "dense", "view_sides": (31,)})


def test_a_saved_model_remembers_its_views(tmp_path: Path) -> None:
    views = {"views": "ten_crop", "view_sides": (34, 40), "view_flip": True}
    system = zoo.build("darknet19_cifar", CATEGORIES, views).eval()
    assert isinstance(system, Classifier)
    again = load(save(system, tmp_path / "model.safetensors"))
    assert isinstance(again, Classifier)
    assert again.views == Views("ten_crop", (34, 40), True)
    picture = torch.rand(3, 40, 50)
    torch.testing.assert_close(probs(again, picture), probs(system, picture))


def test_every_classifier_takes_views_and_no_other_system_does() -> None:
    with pytest.raises(UsageError, match="takes no argument 'views'"):
        zoo.build("unet_padded_small", ("cell",), {"views": "ten_crop"})
    assert zoo.find("resnet18").takes()[-3:] == ("view_flip", "view_sides", "views")


def test_dense_logits_of_a_global_mean_are_the_networks_own() -> None:
    system = zoo.build("darknet19_cifar", CATEGORIES).eval()
    assert isinstance(system, Classifier)
    pixels = torch.rand(1, 3, 40, 36)
    torch.testing.assert_close(system.dense_logits(pixels), system(pixels))
    assert F.softmax(system(pixels), 1).sum().item() == pytest.approx(1)
