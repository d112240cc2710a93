"""Published checkpoint files: address, digest, licence, training data and the numbers their publishers report.

Entries are torchvision's (names, digests and accuracies as in its model pages). The digest is the first eight (of some
files: ten) digits of the file's SHA-256, which its name carries. The files are under BSD-3-Clause; what they were
trained on has terms of its own, and `commercial_ok` is true only where neither leaves a doubt. It is information, not
legal advice.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from bestiary.errors import UsageError

CategoriesKind = Literal["imagenet-1k", "coco-91", "voc-21"]
ADDRESS = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class TrainingData:
    """A data set that checkpoints were trained on.

    Attributes:
        name: as its publishers write it.
        terms: what its licence allows, in one sentence.
        commercial_ok: whether the terms allow commercial use without a doubt.
    """

    name: str
    terms: str
    commercial_ok: bool


IMAGENET = TrainingData(
    "ImageNet-1K (ILSVRC 2012)",
    "access is granted for non-commercial research and educational use; the pictures belong to their owners",
    commercial_ok=False,
)
COCO = TrainingData(
    "COCO 2017 (backbone first trained on ImageNet-1K)",
    "annotations CC BY 4.0; the pictures are under their owners' Flickr licences, some of them non-commercial",
    commercial_ok=False,
)


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
        model: name in the zoo.
        tag: which training it comes from, such as "imagenet1k_v2".
        file: file name; the digits between its last hyphen and the suffix are `sha256_prefix`.
        data: what it was trained on.
        scores: what the publisher reports, percent: "top1" and "top5" on the ImageNet validation set, "box_ap" on COCO
            val2017, "mean_iou" and "pixel_accuracy" on val2017 with VOC's classes.
        resize: side that the shorter side is resized to, of classifiers before the centre crop.
        crop: side of the centre crop that the scores were taken with.
        mean: of the pixels it was trained with (RGB, 0..1), where that is not ImageNet's.
        std: likewise.
        arguments: what the model's constructor must be told for this file.
        part: the only part of the model that the file has values for, if not all: the rest keeps its own.
        categories: layout of the outputs.
        norm_eps: epsilon of the frozen norms it was trained with, where that is not the default of 1e-5.
        licence: of the file.
        mirrors: further addresses, tried in order.
    """

    model: str
    tag: str
    file: str
    data: TrainingData
    scores: Mapping[str, float] = field(hash=False)
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    part: str | None = None
    categories: CategoriesKind = "imagenet-1k"
    norm_eps: float | None = None
    licence: str = "BSD-3-Clause"
    mirrors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`model.tag`, by which this one file can be asked for."""
        return f"{self.model}.{self.tag}"

    @property
    def sha256_prefix(self) -> str:
        """The first digits of the file's SHA-256."""
        return self.file.rsplit("-", 1)[1].split(".")[0]

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it can be had, the publisher's address first."""
        return (ADDRESS + self.file, *self.mirrors)

    @property
    def commercial_ok(self) -> bool:
        """Whether the terms of the file and of its training data both allow commercial use without a doubt."""
        return self.data.commercial_ok and self.licence in ("BSD-3-Clause", "Apache-2.0", "MIT")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name,
            "file": self.file,
            "url": self.urls[0],
            "sha256_prefix": self.sha256_prefix,
            "licence": self.licence,
            "training_data": self.data.name,
            "terms": self.data.terms,
            "commercial_ok": self.commercial_ok,
            "categories": self.categories,
            "scores": dict(self.scores),
            **({"part": self.part} if self.part else {}),
        }


def _classifier(
    model: str, version: int, digest: str, top1: float, top5: float, resize: int = 256, stem: str = ""
) -> Published:
    scores = MappingProxyType({"top1": top1, "top5": top5})
    return Published(model, f"imagenet1k_v{version}", f"{stem or model}-{digest}.pth", IMAGENET, scores, resize, 224)


GOOGLENET = replace(
    _classifier("googlenet", 1, "1378be20", 69.778, 89.530),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    arguments=MappingProxyType({"transform_input": True}),
)
"""It was trained by another library with pixels of -1..1, which the net makes of ImageNet's normalisation by itself."""

VGG16_FEATURES = Published(
    "vgg16",
    "imagenet1k_features",
    "vgg16_features-amdegroot-88682ab5.pth",
    IMAGENET,
    MappingProxyType({}),
    256,
    224,
    mean=(0.48235, 0.45882, 0.40784),
    std=(1 / 255,) * 3,
    part="features",
)
"""The paper's own convolutions, from Caffe and turned to RGB, from which SSD starts; its classifier is empty."""


def _labeller(model: str, digest: str, mean_iou: float, pixel_accuracy: float, stem: str = "") -> Published:
    scores = MappingProxyType({"mean_iou": mean_iou, "pixel_accuracy": pixel_accuracy})
    file = f"{stem or model + '_coco'}-{digest}.pth"
    return Published(model, "coco_voc_v1", file, COCO, scores, resize=520, categories="voc-21")


FILES: tuple[Published, ...] = (
    _classifier("alexnet", 1, "7be5be79", 56.522, 79.066, stem="alexnet-owt"),
    _classifier("vgg11", 1, "8a719046", 69.020, 88.628),
    _classifier("vgg13", 1, "19584684", 69.928, 89.246),
    VGG16_FEATURES,
    _classifier("vgg16", 1, "397923af", 71.592, 90.382),
    _classifier("vgg19", 1, "dcbb9e9d", 72.376, 90.876),
    _classifier("vgg11_bn", 1, "6002323d", 70.370, 89.810),
    _classifier("vgg13_bn", 1, "abd245e5", 71.586, 90.374),
    _classifier("vgg16_bn", 1, "6c64b313", 73.360, 91.516),
    _classifier("vgg19_bn", 1, "c79401a0", 74.218, 91.842),
    GOOGLENET,
    _classifier("resnet18", 1, "f37072fd", 69.758, 89.078),
    _classifier("resnet34", 1, "b627a593", 73.314, 91.420),
    _classifier("resnet50", 1, "0676ba61", 76.130, 92.862),
    _classifier("resnet50", 2, "11ad3fa6", 80.858, 95.434, 232),
    _classifier("resnet101", 1, "63fe2227", 77.374, 93.546),
    _classifier("resnet101", 2, "cd907fc2", 81.886, 95.780, 232),
    _classifier("resnet152", 1, "394f9c45", 78.312, 94.046),
    _classifier("resnet152", 2, "f82ba261", 82.284, 96.002, 232),
    _classifier("resnext50_32x4d", 1, "7cdf4587", 77.618, 93.698),
    _classifier("resnext50_32x4d", 2, "1a0047aa", 81.198, 95.340, 232),
    _classifier("resnext101_32x8d", 1, "8ba56ff5", 79.312, 94.526),
    _classifier("resnext101_32x8d", 2, "110c445d", 82.834, 96.228, 232),
    _classifier("resnext101_64x4d", 1, "173b62eb", 83.246, 96.454, 232),
    _classifier("wide_resnet50_2", 1, "95faca4d", 78.468, 94.086),
    _classifier("wide_resnet50_2", 2, "9ba9bcbe", 81.602, 95.758, 232),
    _classifier("wide_resnet101_2", 1, "32ee1156", 78.848, 94.284),
    _classifier("wide_resnet101_2", 2, "d733dc28", 82.510, 96.020, 232),
    _classifier("squeezenet1_0", 1, "b66bff10", 58.092, 80.420),
    _classifier("squeezenet1_1", 1, "b8a52dc0", 58.178, 80.624),
    _classifier("mobilenet_v2", 1, "b0353104", 71.878, 90.286),
    _classifier("mobilenet_v2", 2, "7ebf99e0", 72.154, 90.822, 232),
    _classifier("mobilenet_v3_large", 1, "8738ca79", 74.042, 91.340),
    _classifier("mobilenet_v3_large", 2, "5c1a4163", 75.274, 92.566, 232),
    _classifier("mobilenet_v3_small", 1, "047dcff4", 67.668, 87.402),
    _classifier("shufflenet_v2_x0_5", 1, "f707e7126e", 60.552, 81.746, stem="shufflenetv2_x0.5"),
    _classifier("shufflenet_v2_x1_0", 1, "5666bf0f80", 69.362, 88.316, stem="shufflenetv2_x1"),
    _classifier("shufflenet_v2_x1_5", 1, "3c479a10", 72.996, 91.086, 232, "shufflenetv2_x1_5"),
    _classifier("shufflenet_v2_x2_0", 1, "8be3c8ee", 76.230, 93.006, 232, "shufflenetv2_x2_0"),
    Published(
        "fasterrcnn_resnet50_fpn",
        "coco_v1",
        "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        COCO,
        MappingProxyType({"box_ap": 37.0}),
        categories="coco-91",
        norm_eps=0.0,
    ),
    Published(
        "retinanet_resnet50_fpn",
        "coco_v1",
        "retinanet_resnet50_fpn_coco-eeacb38b.pth",
        COCO,
        MappingProxyType({"box_ap": 36.4}),
        categories="coco-91",
        norm_eps=0.0,
    ),
    Published(
        "retinanet_resnet50_fpn_v2",
        "coco_v1",
        "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
        COCO,
        MappingProxyType({"box_ap": 41.5}),
        categories="coco-91",
    ),
    Published(
        "ssd300_vgg16",
        "coco_v1",
        "ssd300_vgg16_coco-b556d3b4.pth",
        COCO,
        MappingProxyType({"box_ap": 25.1}),
        categories="coco-91",
    ),
    _labeller("fcn_resnet50", "1167a1af", 60.5, 91.4),
    _labeller("fcn_resnet101", "7ecb50ca", 63.7, 91.9),
    _labeller("deeplabv3_resnet50", "cd0a2569", 66.4, 92.4),
    _labeller("deeplabv3_resnet101", "586e9e4e", 67.4, 92.4),
    _labeller("deeplabv3_mobilenet_v3_large", "fc3c493d", 60.3, 91.2, "deeplabv3_mobilenet_v3_large"),
)
"""Every file, those of one model oldest first."""


def published(model: str) -> tuple[Published, ...]:
    """The files of one model, oldest first; empty if none was published."""
    return tuple(entry for entry in FILES if entry.model == model)


def is_published(name: str) -> bool:
    """Whether `name` is one of the files: "resnet50.imagenet1k_v1"."""
    return any(entry.name == name for entry in FILES)


def find_entry(name: str) -> Published:
    """The entry called `name`: "resnet50.imagenet1k_v1", a file name, or a model, of which the newest file is taken.

    Raises:
        UsageError: nothing is called so; the nearest name is given.
    """
    of_model = published(name)
    if of_model:
        return of_model[-1]
    for entry in FILES:
        if name in (entry.name, entry.file):
            return entry
    names = [*dict.fromkeys(entry.model for entry in FILES), *(entry.name for entry in FILES)]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    mend = f"Did you mean {close[0]!r}?" if close else f"Published: {', '.join(names)}."
    raise UsageError(f"no published weights are called {name!r}", mend=mend)
