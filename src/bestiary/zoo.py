"""Every system by name: one dictionary, written by hand.

create("resnet50")                                         the published layout (ImageNet's 1,000 classes)
create("resnet50", categories=["cat", "dog"])              yours
create("fasterrcnn_resnet18_fpn", categories, arguments={"min_size": 320})
"""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from bestiary.backbones import resnet
from bestiary.detection import faster_rcnn
from bestiary.errors import UsageError
from bestiary.recipes import classification, detection, segmentation
from bestiary.recipes.recipe import Field, Recipe, attribute_docs
from bestiary.segmentation import unet
from bestiary.system import System


@dataclass(frozen=True)
class Entry:
    """One name of the zoo.

    Attributes:
        build: the constructor; takes `categories` and its own further arguments.
        paper: authors, title, venue.
        recipe: how it is trained by default.
        note: which variant this is.
    """

    build: Callable[..., System]
    paper: str
    recipe: Callable[[], Recipe]
    note: str = ""

    @property
    def task(self) -> str:
        """What the system recognises: "classification", "detection", "segmentation"."""
        return self.recipe().task


RESNET = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016"
RESNEXT = "Xie, Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017"
WIDE_RESNET = "Zagoruyko, Komodakis: Wide Residual Networks, BMVC 2016"
FASTER_RCNN = "Ren, He, Girshick, Sun: Faster R-CNN, NIPS 2015; with Lin et al.: Feature Pyramid Networks, CVPR 2017"
UNET = "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015"

ZOO: dict[str, Entry] = {
    "resnet18": Entry(resnet.resnet18, RESNET, classification.resnet),
    "resnet34": Entry(resnet.resnet34, RESNET, classification.resnet),
    "resnet50": Entry(resnet.resnet50, RESNET, classification.resnet, "stride on the 3x3 convolution"),
    "resnet101": Entry(resnet.resnet101, RESNET, classification.resnet, "stride on the 3x3 convolution"),
    "resnet152": Entry(resnet.resnet152, RESNET, classification.resnet, "stride on the 3x3 convolution"),
    "resnet18_cifar": Entry(
        resnet.resnet18_cifar, RESNET, classification.resnet_small_pictures, "3x3 stem, no pooling, for 32x32 pictures"
    ),
    "resnext50_32x4d": Entry(resnet.resnext50_32x4d, RESNEXT, classification.resnet),
    "resnext101_32x8d": Entry(resnet.resnext101_32x8d, RESNEXT, classification.resnet),
    "resnext101_64x4d": Entry(resnet.resnext101_64x4d, RESNEXT, classification.resnet),
    "wide_resnet50_2": Entry(resnet.wide_resnet50_2, WIDE_RESNET, classification.resnet),
    "wide_resnet101_2": Entry(resnet.wide_resnet101_2, WIDE_RESNET, classification.resnet),
    "fasterrcnn_resnet18_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet18_fpn, FASTER_RCNN, detection.faster_rcnn_from_scratch, "trainable batch norm"
    ),
    "fasterrcnn_resnet34_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet34_fpn, FASTER_RCNN, detection.faster_rcnn_from_scratch, "trainable batch norm"
    ),
    "fasterrcnn_resnet50_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet50_fpn, FASTER_RCNN, detection.faster_rcnn, "frozen batch norm, as published"
    ),
    "fasterrcnn_resnet101_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet101_fpn, FASTER_RCNN, detection.faster_rcnn, "frozen batch norm"
    ),
    "unet": Entry(unet.unet, UNET, segmentation.unet_paper, "the paper's valid convolutions, overlap-tile"),
    "unet_padded": Entry(unet.unet_padded, UNET, segmentation.unet_padded, "padded convolutions and batch norm"),
    "unet_padded_bilinear": Entry(
        unet.unet_padded_bilinear, UNET, segmentation.unet_padded, "padded, bilinear upsampling"
    ),
    "unet_padded_small": Entry(unet.unet_padded_small, UNET, segmentation.unet_padded, "padded, a quarter as wide"),
}


def nearest(name: str, choices: Sequence[str]) -> str:
    """A sentence naming the choice closest to `name`, or all of them."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(choices)}"


def find(name: str) -> Entry:
    """The entry of `name`; raises `UsageError` with the nearest name."""
    if name not in ZOO:
        raise UsageError(f"no model is called {name!r}", mend=f"{nearest(name, list(ZOO))} `bestiary models` lists all")
    return ZOO[name]


def recipe_of(name: str) -> Recipe:
    """The recipe of `name`, with what its constructor takes beside categories and sizes as further fields."""
    build, recipe = find(name).build, find(name).recipe()
    hints, docs, sizes = get_type_hints(build), attribute_docs(build, "Args:"), recipe.pictures.arguments()
    options = {
        key: Field(key, hints[key], parameter.default, docs[key])
        for key, parameter in inspect.signature(build).parameters.items()
        if key != "categories" and key not in sizes
    }
    return dataclasses.replace(recipe, options=options)


def list_models(task: str | None = None) -> list[str]:
    """Names of all models, or of those of one task."""
    tasks = sorted({entry.task for entry in ZOO.values()})
    if task is not None and task not in tasks:
        raise UsageError(f"no task is called {task!r}", mend=nearest(task, tasks))
    return [name for name, entry in ZOO.items() if task is None or entry.task == task]


def build(name: str, categories: Sequence[str] | None = None, arguments: Mapping[str, Any] | None = None) -> System:
    """Construct a model by name, freshly initialised.

    Args:
        name: a name of the zoo.
        categories: the user's; None gives the published layout.
        arguments: further arguments of the constructor, checked against its signature.
    """
    entry = find(name)
    known = [p for p in inspect.signature(entry.build).parameters if p != "categories"]
    for key in arguments or {}:
        if key not in known:
            raise UsageError(f"{name} takes no argument {key!r}", mend=nearest(key, known))
    system = entry.build(None if categories is None else tuple(categories), **dict(arguments or {}))
    system.model_name, system.arguments = name, dict(arguments or {})
    return system
