"""What every detector does around its method: tiles, views, limits, the validation loss."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import get_type_hints

import pytest
import torch
from blob_detector import BlobDetector, picture, rows_of
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.geometry.boxes import scale_boxes
from bestiary.heads.detection import Detector
from bestiary.predictions import Detections
from bestiary.records import Losses, Objects, Target
from bestiary.system import Images
from bestiary.zoo.detectors import DETECTORS

IMAGE = picture((100, 160), (5, 5, 15, 17, 0.5), (75, 40, 88, 52, 0.9), (140, 80, 150, 95, 0.7))


def told(**arguments: object) -> BlobDetector:
    system = BlobDetector()
    system.take(arguments)
    return system


def test_without_tiles_and_views_the_method_speaks_alone() -> None:
    system = BlobDetector()
    (alone,) = system.detect_images([IMAGE])
    (found,) = system.predict_images([IMAGE])
    assert rows_of(found) == rows_of(alone)
    assert system.calls == [[(100, 160)]] * 2


@pytest.mark.parametrize("arguments", [{"tile": 160}, {"tile": 5000, "tile_whole": True}, {"test_scales": [1.0]}])
def test_what_changes_nothing_gives_the_same(arguments: dict[str, object]) -> None:
    system = told(**arguments)
    assert rows_of(system.predict_images([IMAGE])[0]) == rows_of(BlobDetector().predict_images([IMAGE])[0])
    assert system.calls == [[(100, 160)]], "and looks only once"


@pytest.mark.parametrize("tile", [32, 50, 64, 99, 120])
@pytest.mark.parametrize("whole", [False, True])
def test_tiles_find_what_the_whole_picture_shows(tile: int, whole: bool) -> None:
    system = told(tile=tile, tile_overlap=0.5, tile_whole=whole)
    assert rows_of(system.predict_images([IMAGE])[0]) == rows_of(BlobDetector().predict_images([IMAGE])[0])


def test_small_objects_that_the_whole_picture_loses_are_found_in_tiles() -> None:
    class Shrinking(BlobDetector):
        """Sees pictures at 40 pixels, as a network sees them at a size of its own."""

        def detect_images(self, images: Sequence[Tensor]) -> list[Detections]:
            small = [nn.functional.interpolate(i[None], (40, 40), mode="area")[0] for i in images]
            found = super().detect_images([(image - 0.4).clamp(min=0) for image in small])
            sizes = [(int(i.shape[-2]), int(i.shape[-1])) for i in images]
            return [
                replace(part, boxes_xyxy=scale_boxes(part.boxes_xyxy, (40, 40), size_hw), size_hw=size_hw)
                for part, size_hw in zip(found, sizes, strict=True)
            ]

    image = picture((200, 200), (22, 30, 25, 33, 0.9), (96, 98, 100, 102, 0.9), (120, 20, 170, 70, 0.9))
    system = Shrinking()
    assert len(system.predict_images([image])[0]) == 1  # type: ignore[arg-type]
    system.take({"tile": 40, "tile_overlap": 0.25})
    (found,) = system.predict_images([image])
    assert isinstance(found, Detections)
    assert sorted(found.boxes_xyxy.tolist()) == [[22, 30, 25, 33], [96, 98, 100, 102], [120, 20, 170, 70]]


def test_tiles_share_a_call_by_as_many_as_pictures() -> None:
    system = told(tile=50, tile_overlap=0.2)
    system.predict_images([IMAGE] * 3)
    assert {len(call) for call in system.calls} <= {1, 2, 3}
    assert max(len(call) for call in system.calls) == 3
    assert {size for call in system.calls for size in call} == {(50, 50)}


def test_the_limit_is_the_pictures_not_the_tiles() -> None:
    image = picture((60, 400), *((20 * i + 5, 20, 20 * i + 12, 28, 0.3 + i / 50) for i in range(20)))
    assert len(told(tile=100, tile_overlap=0.3).predict_images([image])[0]) == 20  # type: ignore[arg-type]
    limited = told(tile=100, tile_overlap=0.3, max_detections=7).predict_images([image])[0]
    assert rows_of(limited) == rows_of(BlobDetector(7).predict_images([image])[0])


def test_a_mirror_image_says_the_same_of_a_symmetric_detector() -> None:
    system = told(test_flip=True)
    assert rows_of(system.predict_images([IMAGE])[0]) == rows_of(BlobDetector().predict_images([IMAGE])[0])
    assert len(system.calls) == 2
    tiled = told(test_flip=True, tile=64, tile_overlap=0.5)
    assert rows_of(tiled.predict_images([IMAGE])[0]) == rows_of(BlobDetector().predict_images([IMAGE])[0])


@pytest.mark.parametrize("merge", ["nms", "soft_linear", "weighted"])
def test_scales_are_mapped_back_and_merged(merge: str) -> None:
    system = told(test_scales=[2, 1], merge=merge)
    (found,) = system.predict_images([IMAGE])
    assert system.calls == [[(200, 320)], [(100, 160)]]
    first = rows_of(BlobDetector().predict_images([IMAGE])[0])
    assert isinstance(found, Detections)
    best = found[:3]
    order = torch.sort(best.boxes_xyxy[:, 0]).indices
    wanted = torch.tensor(sorted(row[:4] for row in first))
    torch.testing.assert_close(best.boxes_xyxy[order], wanted, atol=1.5, rtol=0)


def test_a_detector_of_a_size_of_its_own_is_asked_for_a_scale() -> None:
    class Fixed(BlobDetector):
        def detect_scaled(self, images: Sequence[Tensor], scale: float) -> list[Detections]:
            self.scales = (*getattr(self, "scales", ()), scale)
            return self.detect_images(images)

    system = Fixed()
    system.take({"test_scales": [0.5, 1.5], "test_flip": True})
    system.predict_images([IMAGE])
    assert system.scales == (0.5, 0.5, 1.5, 1.5)
    assert {size for call in system.calls for size in call} == {(100, 160)}


def test_suppression_is_taken() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0])
    kept, same = told().suppress(boxes, scores, labels, 0.5)
    assert kept.tolist() == [0, 2]
    assert torch.equal(same, scores[kept])
    kept, lowered = told(suppression="soft_gaussian").suppress(boxes, scores, labels, 0.5)
    assert kept.tolist() == [0, 2, 1]
    assert float(lowered[2]) == pytest.approx(0.8 * torch.tensor(-(0.9**2) / 0.5).exp().item())
    assert told(suppression_iou=0.95).suppress(boxes, scores, labels, 0.5)[0].tolist() == [0, 1, 2]


def test_take_keeps_what_it_is_not_told() -> None:
    system = told(tile=64, merge="weighted", suppression="matrix", max_detections=5)
    system.take({"tile_overlap": 0.4, "test_flip": True})
    assert (system.tiling.tile, system.tiling.overlap) == (64, 0.4)
    assert (system.test_views.merge, system.test_views.flip) == ("weighted", True)
    assert (system.suppression.kind, system.max_detections) == ("matrix", 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tile": -1}, "tile"),
        ({"tile_overlap": 0.95}, "tile_overlap"),
        ({"test_scales": [0.0]}, "test_scales"),
        ({"test_scales": [1, 1]}, "only once"),
        ({"merge_iou": 2.0}, "merge_iou"),
        ({"suppression_sigma": 0}, "suppression_sigma"),
        ({"suppression_iou": -0.1}, "suppression_iou"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_what_cannot_be_is_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        told(**arguments)


def test_a_detector_needs_a_category() -> None:
    with pytest.raises(UsageError, match="categories"):
        Detector(())


class Counting(BlobDetector):
    """A loss that says what it saw."""

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        self.calls.append([(int(i.shape[-2]), int(i.shape[-1])) for i in images])
        objects = [t.objects for t in targets]
        singles = sum(int((~o.crowd).sum()) if o.crowd is not None else len(o) for o in objects if o is not None)
        return Losses({"objects": torch.tensor(singles / len(images))})


def test_the_validation_loss_sees_the_tiles_of_prediction() -> None:
    whole = Objects(torch.tensor([[5.0, 5, 15, 17], [140, 80, 150, 95]]), torch.tensor([0, 0]))
    images, targets = [IMAGE, IMAGE], [Target(objects=whole), Target(objects=Objects.empty())]
    system = Counting()
    assert float(system.validation_loss(images, targets).total) == 1.0
    assert system.calls == [[(100, 160)] * 2]
    system.calls.clear()
    system.take({"tile": 80, "tile_overlap": 0.2})
    # 2 x 3 tiles each; the first object lies in one of them, the second in one
    assert float(system.validation_loss(images, targets).total) == pytest.approx(2 / 12)
    assert system.calls == [[(80, 80)] * 2] * 6


@pytest.mark.parametrize("name", list(DETECTORS))
def test_every_detector_has_tiles_and_views(name: str) -> None:
    build = DETECTORS[name].build
    made = build if isinstance(build, type) else get_type_hints(build)["return"]
    assert issubclass(made, Detector)
    assert made.predict_images is Detector.predict_images
    assert Detector.further_arguments <= made.further_arguments
    if {"min_size", "resize"} & set(inspect.signature(build).parameters):
        assert made.detect_scaled is not Detector.detect_scaled, "a picture enlarged beforehand is only brought back"
