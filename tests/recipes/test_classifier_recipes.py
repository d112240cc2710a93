"""Scale jitter, test views and the other fields of the classifiers' pictures."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import bestiary
from bestiary import zoo
from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.heads.views import Views
from bestiary.recipes.classification import ClassificationPictures
from bestiary.records import Sample, Target
from bestiary.transforms.compose import Compose
from bestiary.transforms.crops import RandomCrop, RandomResizedCrop
from bestiary.transforms.geometry import RandomAffine
from bestiary.transforms.resizing import RandomShortSide
from bestiary.verbs.models import load, load_weights, save
from bestiary.verbs.training import Splits


def steps(pictures: ClassificationPictures) -> tuple[object, ...]:
    transform = pictures.train_transform()
    assert isinstance(transform, Compose)
    return tuple(transform.transforms)


def test_the_shorter_side_is_drawn_from_the_range_both_ends_included() -> None:
    pictures = ClassificationPictures(resize_range=(30, 33), crop=30, area=None)
    resize, crop = steps(pictures)[:2]
    assert isinstance(resize, RandomShortSide)
    assert crop == RandomCrop((30, 30))
    draw = np.random.default_rng(0)
    sides = Counter(min(resize.plan((90, 60), draw).size_hw) for _ in range(400))
    assert set(sides) == {30, 31, 32, 33}
    assert min(sides.values()) > 60, "each equally likely"


def test_a_random_scale_is_an_area_or_a_range_of_sides() -> None:
    assert isinstance(steps(ClassificationPictures())[0], RandomResizedCrop)
    with pytest.raises(UsageError, match="--area none, or --resize-range none"):
        ClassificationPictures(resize_range=(256, 512))
    with pytest.raises(UsageError, match="got 200,512, wanted two sides from the crop's 224 on"):
        ClassificationPictures(resize_range=(200, 512), area=None)


def test_rotation_comes_before_the_crop() -> None:
    assert isinstance(steps(ClassificationPictures(turn=7.0))[0], RandomAffine)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "vgg11_bn_cifar", "darknet19", "darknet19_448"])
def test_recipes_make_pictures_of_their_crop(name: str) -> None:
    recipe = zoo.recipe_of(name)
    image = torch.randint(0, 256, (3, 300, 420), dtype=torch.uint8)
    sample = recipe.pictures.train_transform()(
        Sample(image, Target(label=0), "a", (300, 420)), np.random.default_rng(0)
    )
    assert sample.image.shape == (3, recipe.pictures.crop, recipe.pictures.crop)


def test_papers_numbers() -> None:
    vgg, darknet = zoo.recipe_of("vgg16"), zoo.recipe_of("darknet19")
    assert vgg.pictures.resize_range == (256, 512)
    assert vgg.settings.lr / vgg.settings.batch == pytest.approx(0.01 / 256)  # type: ignore[union-attr]
    assert len(vgg.settings.milestones) == 3  # type: ignore[union-attr]
    assert darknet.settings.lr / darknet.settings.batch == pytest.approx(0.1 / 128)  # type: ignore[union-attr]
    assert darknet.settings.poly_power == 4  # type: ignore[union-attr]


def test_views_flow_from_the_flag_to_the_saved_model_and_what_it_predicts(tmp_path: Path) -> None:
    flags = {"views": "ten_crop", "view_sides": "34,40", "view_flip": "yes", "steps": "1", "batch": "4", "epochs": "1"}
    data = Tiny()
    run = bestiary.train(
        "darknet19_cifar", data, validation=data, out=tmp_path / "run", splits=Splits(test=None), **flags
    )
    system = load(run.last)
    assert isinstance(system, Classifier)
    assert system.views == Views("ten_crop", (34, 40), True)


class Tiny:
    """Four flat pictures of two classes."""

    categories = ("dark", "light")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        image = torch.full((3, 48, 40), 60 + 40 * index, dtype=torch.uint8)
        return Sample(image, Target(label=index // 2), f"{index}.png", (48, 40))


def test_a_deep_net_starts_from_the_saved_net_a(tmp_path: Path) -> None:
    def narrow(name: str) -> VGGClassifier:
        return VGGClassifier(VGG(DEPTHS[name]), Tiny.categories, hidden=(8, 8), grid=1, resize=32, crop=32)

    first = narrow("vgg11")
    first.model_name = "vgg11"
    path = save(first, tmp_path / "vgg11.safetensors")
    deep = narrow("vgg16")
    report = load_weights(deep, path)
    assert report.summary().startswith("starts from net A (VGG-11): conv1_1, conv2_1, conv3_1, conv3_2 and")
    assert torch.equal(deep.get_parameter("features.0.weight"), first.get_parameter("features.0.weight"))
