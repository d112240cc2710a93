"""Models told to look at pictures in another way than they were saved with."""

import pytest

from bestiary import zoo
from bestiary.detection.faster_rcnn import FasterRCNN
from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.heads.dense_crf import DENSE_CRFS
from bestiary.heads.segmentation import PixelSystem
from bestiary.verbs.models import LOOK_TYPES, look

DETECTOR = {
    "tile": "320",
    "test_scales": "0.75,1",
    "test_flip": "yes",
    "merge": "weighted",
    "suppression": "soft_linear",
}


def detector() -> FasterRCNN:
    system = zoo.build("fasterrcnn_resnet18_fpn", ("a",), {"tile_overlap": 0.4})
    assert isinstance(system, FasterRCNN)
    return system


def test_texts_become_a_detectors_looks() -> None:
    system = detector()
    assert look(system, {**DETECTOR, "tile_whole": None}) is system
    assert (system.tiling.tile, system.tiling.overlap, system.tiling.whole) == (320, 0.4, False)
    views = system.test_views
    assert (views.scales, views.flip, views.merge) == ((0.75, 1.0), True, "weighted")
    assert system.suppression.kind == "soft_linear"


def test_a_classifier_has_views_and_no_tiles() -> None:
    system = zoo.build("resnet18_cifar", ("a", "b"))
    assert isinstance(system, Classifier)
    look(system, {"views": "dense", "view_flip": "yes"})
    assert (system.views.kind, system.views.flip) == ("dense", True)
    with pytest.raises(UsageError, match="cannot be told tile"):
        look(system, {"tile": "320", "view_flip": "no"})
    assert system.views.flip, "nothing changes where something is refused"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tiel": "3"}, "Did you mean 'tile'"),
        ({"tile": "many"}, "--tile: got 'many', wanted int"),
        ({"merge": "average"}, "--merge"),
        ({"views": "dense"}, "cannot be told views.*It knows"),
    ],
)
def test_what_cannot_be_is_named(asked: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        look(detector(), asked)


def test_texts_become_a_labellers_looks() -> None:
    system = zoo.build("unet_padded_small", ("a", "b"), {"predict_size": 40})
    assert isinstance(system, PixelSystem)
    asked = {"test_scales": "0.5,1", "test_window": "64", "test_merge": "max", "crf": "plain", "predict_size": "none"}
    look(system, asked)
    views = system.test_views
    assert (views.scales, views.window, views.merge) == ((0.5, 1.0), 64, "max")
    assert system.crf == DENSE_CRFS["plain"]
    assert system.predict_size is None
    with pytest.raises(UsageError, match="cannot be told tile"):
        look(system, {"tile": "320"})


def test_every_look_is_some_systems() -> None:
    others = detector().further_arguments | Classifier.further_arguments
    assert others <= set(LOOK_TYPES) <= others | PixelSystem.further_arguments
