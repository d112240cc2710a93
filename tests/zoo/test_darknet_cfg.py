"""Darknet's networks known by their files: layers laid out here from the published tables, in Darknet's own style."""

from pathlib import Path

import pytest

import bestiary
from bestiary.backbones.darknet import Darknet19, DarknetClassifier
from bestiary.backbones.tiny_darknet import TinyDarknet
from bestiary.detection.yolo_v2 import TINY_PRIORS, VOC_PRIORS, YOLOv2, assemble
from bestiary.errors import CheckpointError, UsageError
from bestiary.weights.darknet import layers_of, write_darknet
from bestiary.weights.darknet_cfg import layers_of_cfg, parse_cfg, write_cfg
from bestiary.zoo.darknet_cfg import cfg_of, name_of_cfg, system_of_cfg

REGION = """
[region]
anchors =  {anchors}
bias_match=1
classes={classes}
coords=4
num={num}
softmax=1
jitter=.3
rescore=1

object_scale=5
noobject_scale=1
class_scale=1
coord_scale=1

absolute=1
thresh = .6
random=1
"""
DARKNET19 = "32 M 64 M 128 64 128 M 256 128 256 M 512 256 512 256 512 M 1024 512 1024 512 1024"


def convolution(filters: int, size: int) -> str:
    return f"[convolutional]\nbatch_normalize=1\nsize={size}\nstride=1\npad=1\nfilters={filters}\nactivation=leaky\n\n"


def trunk(table: str) -> str:
    """Layers of a row such as "32 M 64": 1x1 where a number is half of the one before."""
    text, before = "", 0
    for word in table.split():
        if word in ("M", "S"):
            text += f"[maxpool]\nsize=2\nstride={2 if word == 'M' else 1}\n\n"
        else:
            wide = int(word)
            text, before = text + convolution(wide, 1 if 2 * wide == before else 3), wide
    return text


def last(filters: int) -> str:
    return f"[convolutional]\nsize=1\nstride=1\npad=1\nfilters={filters}\nactivation=linear\n"


def yolo_v2_text(classes: int = 20) -> str:
    head = convolution(1024, 3) * 2 + "[route]\nlayers=-9\n\n" + convolution(64, 1) + "[reorg]\nstride=2\n\n"
    head += "[route]\nlayers=-1,-4\n\n" + convolution(1024, 3) + last(5 * (5 + classes))
    anchors = ", ".join(map(str, VOC_PRIORS))
    return (
        "[net]\nbatch=64\nheight=416\nwidth=416\n\n"
        + trunk(DARKNET19)
        + "\n#######\n\n"
        + head
        + REGION.format(anchors=anchors, classes=classes, num=5)
    )


def tiny_text(classes: int = 20) -> str:
    anchors = ",  ".join(map(str, TINY_PRIORS))
    body = trunk("16 M 32 M 64 M 128 M 256 M 512 S 1024 1024") + last(5 * (5 + classes))
    return "[net]\nwidth=416\n\n" + body + REGION.format(anchors=anchors, classes=classes, num=5)


@pytest.mark.parametrize(
    ("text", "name", "count"), [(yolo_v2_text(), "yolo_v2", 32), (tiny_text(), "tiny_yolo_v2", 16)]
)
def test_the_published_detectors_are_known(text: str, name: str, count: int) -> None:
    config = parse_cfg(text)
    found, arguments = name_of_cfg(config)
    assert found == name
    assert arguments["size"] == 416
    system = bestiary.create(found, [str(k) for k in range(20)], arguments=arguments)
    ours = cfg_of(system)
    assert layers_of_cfg(ours) == layers_of_cfg(config)
    assert len(layers_of_cfg(ours)) == count
    assert name_of_cfg(ours) == (found, arguments)


def test_a_file_of_ones_own_classes_is_built_and_filled(tmp_path: Path) -> None:
    (tmp_path / "tiny.cfg").write_text(tiny_text(2), encoding="utf-8")
    network = assemble(TinyDarknet(), ["a", "b"], TINY_PRIORS, convolutions=1, passthrough=0)
    write_darknet(tmp_path / "tiny.weights", layers_of(network))
    system = system_of_cfg(tmp_path / "tiny.cfg", ["a", "b"], tmp_path / "tiny.weights")
    assert isinstance(system, YOLOv2)
    assert system.categories == ("a", "b")
    for own, there in zip(layers_of(system.network), layers_of(network), strict=True):
        assert all((a == b).all() for a, b in zip(own.tensors, there.tensors, strict=True))
    with pytest.raises(CheckpointError, match="3 names for 2 classes"):
        system_of_cfg(tmp_path / "tiny.cfg", ["a", "b", "c"])


def test_files_of_small_systems_and_classifiers() -> None:
    small = YOLOv2(assemble(Darknet19(width=1 / 16), ["x"], VOC_PRIORS, width=64, passthrough=4), ["x"], train_sizes=())
    routes = [layer.facts for layer in layers_of_cfg(cfg_of(small)) if layer.kind == "route"]
    assert routes == [(16,), (27, 24)]
    assert name_of_cfg(cfg_of(small))[1]["train_sizes"] == ()
    classifier = DarknetClassifier(Darknet19(width=1 / 16), ["x", "y"])
    config = cfg_of(classifier)
    assert name_of_cfg(config) == ("darknet19", {"crop": 256, "resize": 256})
    assert layers_of_cfg(config)[-2].facts == (2, 1, 1, 0, False, "linear")


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"got thresh=0\.5, wanted 0\.6"):
        name_of_cfg(parse_cfg(tiny_text().replace("thresh = .6", "thresh = .5")))
    with pytest.raises(CheckpointError, match=r"ends in \[yolo\]"):
        name_of_cfg(parse_cfg("[net]\n\n[yolo]\n"))
    with pytest.raises(CheckpointError, match="1 convolutions"):
        name_of_cfg(parse_cfg("[net]\n\n" + last(7) + REGION.format(anchors="1,1", classes=2, num=1)))
    write_cfg(tmp_path / "odd.cfg", parse_cfg(tiny_text(1).replace("filters=512", "filters=500")))
    with pytest.raises(CheckpointError, match=r"got \[convolutional\] \(500, .*wanted \[convolutional\] \(512"):
        system_of_cfg(tmp_path / "odd.cfg", ["a"])
    with pytest.raises(UsageError, match="Darknet's own are"):
        cfg_of(bestiary.create("resnet18", ["a", "b"]))
