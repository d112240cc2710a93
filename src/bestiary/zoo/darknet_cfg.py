"""Which system a Darknet `.cfg` file is, and the file that a system would have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bestiary.backbones.darknet import Convolution, DarknetClassifier
from bestiary.detection.yolo_v2 import YOLOv2
from bestiary.errors import CheckpointError, UsageError
from bestiary.system import System
from bestiary.weights.darknet import load_darknet
from bestiary.weights.darknet_cfg import CfgLayer, DarknetConfig, Section, layers_of_cfg, numbers_of, read_cfg
from bestiary.zoo import build

RULE = (
    *(("bias_match", 1.0), ("softmax", 1.0), ("rescore", 1.0), ("thresh", 0.6)),
    *(("object_scale", 5.0), ("noobject_scale", 1.0), ("class_scale", 1.0), ("coord_scale", 1.0)),
)
"""What a region layer must say, so that YOLOv2's loss is its own."""


def cfg_of(system: System) -> DarknetConfig:
    """The file of a YOLOv2, Tiny YOLO, YOLO9000 or Darknet-19.

    Raises:
        UsageError: another system, or parts that Darknet has not.
    """
    if isinstance(system, YOLOv2):
        return DarknetConfig.of([_net(system.size), *_detector_sections(system)])
    if isinstance(system, DarknetClassifier):
        last = Section("convolutional", _convolution_options(system.classifier, "linear"))
        layers = [_section(part) for part in system.features]
        return DarknetConfig.of([_net(system.crop), *layers, last, Section("avgpool"), Section("softmax")])
    mend = "Darknet's own are yolo_v2, tiny_yolo_v2, yolo9000 and darknet19."
    raise UsageError(f"got {system.model_name or type(system).__name__}", where="cfg_of", mend=mend)


def name_of_cfg(config: DarknetConfig) -> tuple[str, dict[str, Any]]:
    """Name in the zoo and arguments of the system that a file describes, by its layers alone.

    Raises:
        CheckpointError: none of those that are known.
    """
    layers = layers_of_cfg(config)
    size = config.sections[0].read("width", int, 416)
    region = config.sections[-1]
    if region.name != "region":
        if layers[-1].kind == "avgpool":
            return "darknet19", {"crop": size, "resize": size}
        raise CheckpointError(f"ends in [{region.name}]", where=f"line {region.line}", mend=_KNOWN)
    for key, wanted in RULE:
        got = region.read(key, float, wanted)
        if got != wanted:
            raise CheckpointError(f"got {key}={got:g}, wanted {wanted:g}", where=f"line {region.line}, [region]")
    arguments: dict[str, Any] = {"size": size, "priors": region.read("anchors", numbers_of, ())}
    if not region.read("random", int, 0):
        arguments["train_sizes"] = ()
    convolutions = sum(layer.kind == "convolutional" for layer in layers)
    names = {23: "yolo_v2", 9: "tiny_yolo_v2", 19: "yolo9000"}
    if convolutions not in names:
        raise CheckpointError(f"got {convolutions} convolutions before a region layer", where="cfg", mend=_KNOWN)
    return names[convolutions], arguments


_KNOWN = "Known are yolo-voc.cfg, yolo.cfg, tiny-yolo-voc.cfg, yolo9000.cfg, darknet19.cfg and their like."


def system_of_cfg(
    path: str | Path,
    categories: Sequence[str] | None = None,
    weights: str | Path | None = None,
    tree: Sequence[str] = (),
) -> System:
    """The system that a file describes, checked layer by layer, in evaluation mode.

    Args:
        path: a `.cfg` file.
        categories: K names, as many as the file says; None numbers them.
        weights: a `.weights` file of it.
        tree: of YOLO9000: `read_tree("9k.tree").edges`.

    Raises:
        CheckpointError: a network that is none of those known, or weights that do not fit it.
    """
    config = read_cfg(path)
    name, arguments = name_of_cfg(config)
    layers = layers_of_cfg(config)
    outputs = next((int(str(la.facts[0])) for la in reversed(layers) if la.kind == "convolutional"), 0)
    count = int(str(layers[-1].facts[1])) if layers[-1].kind == "region" else outputs
    names = tuple(map(str, range(count))) if categories is None else tuple(categories)
    if len(names) != count:
        raise CheckpointError(f"got {len(names)} names for {count} classes", where=str(path))
    if name == "yolo9000":
        arguments["tree"] = tuple(tree)
    system = build(name, names, arguments).eval()
    _require_same(layers, layers_of_cfg(cfg_of(system)), str(path), name)
    if weights is not None and load_darknet(system, weights).new_head:
        raise CheckpointError(f"has another number of outputs than {path}", where=str(weights))
    return system


def _require_same(got: Sequence[CfgLayer], wanted: Sequence[CfgLayer], where: str, name: str) -> None:
    for ours, theirs in zip(wanted, got, strict=False):
        if ours != theirs:
            text = f"got [{theirs.kind}] {theirs.facts}, wanted [{ours.kind}] {ours.facts}, as {name} has"
            raise CheckpointError(text, where=f"{where}:{theirs.line}", mend=_KNOWN)
    if len(got) != len(wanted):
        raise CheckpointError(f"got {len(got)} layers, wanted {len(wanted)}, as {name} has", where=where, mend=_KNOWN)


def _net(size: int) -> Section:
    return Section("net", (("width", str(size)), ("height", str(size)), ("channels", "3")))


def _detector_sections(system: YOLOv2) -> list[Section]:
    network = system.network
    sections: list[Section] = []
    fine_at = 0
    parts = [part for part in getattr(network.trunk, "features", ()) if not isinstance(part, nn.ReplicationPad2d)]
    for part in parts:
        if isinstance(part, nn.MaxPool2d) and part.stride == 2:
            fine_at = len(sections) - 1
        sections.append(_section(part))
    sections += [_section(part) for part in network.deep]
    if network.fine is not None:
        deep_at = len(sections) - 1
        sections.append(Section("route", (("layers", str(fine_at - len(sections))),)))
        sections += [_section(network.fine), Section("reorg", (("stride", "2"),))]
        sections.append(Section("route", (("layers", f"-1,{deep_at - len(sections)}"),)))
    if network.joined is not None:
        sections.append(_section(network.joined))
    sections.append(Section("convolutional", _convolution_options(network.predictor, "linear")))
    return [*sections, _region(system)]


def _region(system: YOLOv2) -> Section:
    priors = [float(f"{number:.6g}") for number in system.priors_wh.flatten().tolist()]
    outputs = system.network.predictor.out_channels // len(system.priors_wh) - 5
    options = [("anchors", ", ".join(f"{number:g}" for number in priors)), ("classes", str(outputs)), ("coords", "4")]
    options += [("num", str(len(system.priors_wh))), ("absolute", "1"), ("random", "1" if system.train_sizes else "0")]
    return Section("region", (*options, *((key, f"{value:g}") for key, value in RULE)))


def _section(part: nn.Module) -> Section:
    if isinstance(part, nn.MaxPool2d):
        return Section("maxpool", (("size", str(part.kernel_size)), ("stride", str(part.stride))))
    if isinstance(part, Convolution):
        return Section("convolutional", (("batch_normalize", "1"), *_convolution_options(part.conv, "leaky")))
    raise UsageError(f"got a {type(part).__name__}, which Darknet has not", where="cfg_of")


def _convolution_options(conv: nn.Conv2d, activation: str) -> tuple[tuple[str, str], ...]:
    numbers = {"filters": conv.out_channels, "size": conv.kernel_size[0], "stride": conv.stride[0], "pad": 1}
    return (*((key, str(value)) for key, value in numbers.items()), ("activation", activation))
