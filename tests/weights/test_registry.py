import json
import re

import pytest

from bestiary.errors import UsageError
from bestiary.weights.registry import FILES, find_entry, published


def test_every_entry_is_whole() -> None:
    for entry in FILES:
        assert re.fullmatch(r"[0-9a-f]{8}", entry.sha256_prefix), entry.file
        assert entry.urls[0] == f"https://download.pytorch.org/models/{entry.file}"
        assert entry.file.startswith(entry.model)
        assert entry.licence == "BSD-3-Clause"
        assert entry.scores
        assert all(0 < score < 100 for score in entry.scores.values())
        said = json.loads(json.dumps(entry.to_dict()))
        assert said["training_data"] == entry.data.name
        assert said["terms"]
    assert len({entry.name for entry in FILES}) == len({entry.file for entry in FILES}) == len(FILES) == 18


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


def test_models_with_two_trainings_have_the_older_first_and_the_newer_is_better() -> None:
    for model in {entry.model for entry in FILES}:
        entries = published(model)
        assert [e.tag for e in entries] == sorted(e.tag for e in entries)
        tops = [e.scores.get("top1", 0) for e in entries]
        assert tops == sorted(tops)
    assert published("unet") == ()


def test_nothing_trained_on_non_commercial_data_passes_as_commercial() -> None:
    assert [entry.name for entry in FILES if entry.commercial_ok] == []
    assert "non-commercial" in find_entry("resnet18").data.terms


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet50'"):
        find_entry("resnet-50")
    with pytest.raises(UsageError, match=r"Did you mean 'resnet101\.imagenet1k_v2'"):
        find_entry("resnet101.imagenet1k_v3")
    with pytest.raises(UsageError, match="Published: resnet18"):
        find_entry("zzz")
