import json
import re

import pytest

from bestiary.errors import UsageError
from bestiary.weights.registry import FILES, find_entry, is_published, published
from bestiary.zoo import ZOO


def test_every_entry_is_whole() -> None:
    for entry in FILES:
        assert re.fullmatch(r"[0-9a-f]{8}([0-9a-f]{2})?", entry.sha256_prefix), entry.file
        assert entry.urls[0] == f"https://download.pytorch.org/models/{entry.file}"
        assert entry.model in ZOO
        assert re.sub(r"[^a-z0-9]", "", entry.file).startswith(re.match(r"[a-z]+", entry.model)[0])
        assert entry.licence == "BSD-3-Clause"
        assert bool(entry.scores) == (entry.part is None)
        assert all(0 < score < 100 for score in entry.scores.values())
        said = json.loads(json.dumps(entry.to_dict()))
        assert said["training_data"] == entry.data.name
        assert said["terms"]
    assert len({entry.name for entry in FILES}) == len({entry.file for entry in FILES}) == len(FILES) == 48


def test_entries_as_published() -> None:
    entry = find_entry("resnet50.imagenet1k_v1")
    assert entry.file == "resnet50-0676ba61.pth"
    assert entry.scores == {"top1": 76.130, "top5": 92.862}
    assert (entry.resize, entry.crop) == (256, 224)
    newest = find_entry("resnet50")
    assert newest.file == "resnet50-11ad3fa6.pth"
    assert (newest.resize, newest.crop) == (232, 224)
    detector = find_entry("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    assert detector.sha256_prefix == "258fb6c6"
    assert detector.norm_eps == 0.0
    assert detector.categories == "coco-91"
    assert detector.scores == {"box_ap": 37.0}
    labeller = find_entry("deeplabv3_mobilenet_v3_large")
    assert labeller.file == "deeplabv3_mobilenet_v3_large-fc3c493d.pth"
    assert (labeller.resize, labeller.crop, labeller.categories) == (520, None, "voc-21")
    assert labeller.scores == {"mean_iou": 60.3, "pixel_accuracy": 91.2}


@pytest.mark.parametrize(
    ("name", "file", "top1", "resize"),
    [
        ("alexnet", "alexnet-owt-7be5be79.pth", 56.522, 256),
        ("vgg16", "vgg16-397923af.pth", 71.592, 256),
        ("vgg19_bn", "vgg19_bn-c79401a0.pth", 74.218, 256),
        ("googlenet", "googlenet-1378be20.pth", 69.778, 256),
        ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 58.178, 256),
        ("mobilenet_v2", "mobilenet_v2-7ebf99e0.pth", 72.154, 232),
        ("mobilenet_v3_large.imagenet1k_v1", "mobilenet_v3_large-8738ca79.pth", 74.042, 256),
        ("shufflenet_v2_x0_5", "shufflenetv2_x0.5-f707e7126e.pth", 60.552, 256),
        ("shufflenet_v2_x2_0", "shufflenetv2_x2_0-8be3c8ee.pth", 76.230, 232),
    ],
)
def test_classifiers_as_torchvision_lists_them(name: str, file: str, top1: float, resize: int) -> None:
    entry = find_entry(name)
    assert (entry.file, entry.scores["top1"], entry.resize, entry.crop) == (file, top1, resize, 224)


def test_files_whose_pixels_are_not_imagenets_say_so() -> None:
    assert {e.name for e in FILES if e.mean} == {"googlenet.imagenet1k_v1", "vgg16.imagenet1k_features"}
    features = find_entry("vgg16.imagenet1k_features")
    assert (features.part, features.std) == ("features", (1 / 255,) * 3)
    # (104, 117, 123) for blue, green and red, as Caffe has it, turned to red, green, blue
    assert [round(255 * v) for v in features.mean] == [123, 117, 104]


def test_models_with_two_trainings_have_the_older_first_and_the_newer_is_better() -> None:
    for model in {entry.model for entry in FILES}:
        entries = published(model)
        assert [e.tag for e in entries] == sorted(e.tag for e in entries)
        tops = [e.scores.get("top1", 0) for e in entries]
        assert tops == sorted(tops)
    assert published("unet") == ()
    assert is_published("resnet50.imagenet1k_v1")
    assert not is_published("resnet50")


def test_nothing_trained_on_non_commercial_data_passes_as_commercial() -> None:
    assert [entry.name for entry in FILES if entry.commercial_ok] == []
    assert "non-commercial" in find_entry("resnet18").data.terms


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        find_entry("resnet-50")
    with pytest.raises(UsageError, match=r"Did you mean 'resnet101\.imagenet1k_v2'"):
        find_entry("resnet101.imagenet1k_v3")
    with pytest.raises(UsageError, match="Published: alexnet"):
        find_entry("zzz")
