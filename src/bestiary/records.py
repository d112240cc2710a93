"""What flows between the parts: pictures with their truth, and losses.

All records are frozen, validated when built (what was got, what was wanted, which field) and hold torch tensors.
A field that was not annotated is None, which is not the same as annotated and empty.

Conventions (docs/conventions.md): images are RGB `[C, H, W]`; boxes are float32 `xyxy` in absolute pixels, continuous,
origin at the outer corner of the top-left pixel; labels are 0-based; sizes are (height, width), points are (x, y).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped, UInt8
from torch import Tensor

from bestiary.errors import RecordError

IGNORE_LABEL = 255
"""Value of a label map where the truth is unknown: no loss, no score."""

VISIBILITY = {"absent": 0, "hidden": 1, "visible": 2}
"""Third number of a keypoint, as in COCO: not annotated, annotated but hidden, visible."""


def require(condition: bool, where: str, got: object, wanted: str) -> None:
    """Raise `RecordError` naming field, got and wanted unless `condition` holds."""
    if not condition:
        raise RecordError(f"got {got}, wanted {wanted}", where=where)


AnyRecord = TypeVar("AnyRecord", bound="Record")
AnyRows = TypeVar("AnyRows", bound="Rows")


class Record:
    """What every record can do: move its tensors. Records nest and hold None where something was not annotated."""

    def to(self: AnyRecord, device: torch.device | str) -> AnyRecord:
        """The same record with every tensor on `device`."""
        moved = {}
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Tensor | Record):
                moved[f.name] = value.to(device)
        return dataclasses.replace(self, **moved) if moved else self  # type: ignore[type-var]


def row_field(default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field with one row an object: indexing the record indexes it."""
    return field(default=default, metadata={"rows": True})


class Rows(Record):
    """A record of N things: `len(record)`, and `record[index]` indexes every field that has one row a thing."""

    def row_names(self) -> tuple[str, ...]:
        """Names of the fields that have one row a thing and are not None."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return tuple(f.name for f in fields if f.metadata.get("rows") and getattr(self, f.name) is not None)

    def __len__(self) -> int:
        return len(getattr(self, self.row_names()[0]))

    def __getitem__(self: AnyRows, index: Tensor | slice | Sequence[int]) -> AnyRows:
        """The rows that `index` (a mask `[N]`, integer indices, or a slice) selects, in its order."""
        if not isinstance(index, Tensor | slice):
            index = torch.as_tensor(list(index), dtype=torch.int64)
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in self.row_names()})  # type: ignore[type-var]

    def require_rows(self) -> None:
        """Raise `RecordError` unless all row fields have the same number of rows."""
        names = self.row_names()
        wanted = len(getattr(self, names[0]))
        for name in names[1:]:
            got = len(getattr(self, name))
            require(got == wanted, f"{type(self).__name__}.{name}", f"{got} rows", f"{wanted}, as in {names[0]}")


def require_tensor(
    record: str, name: str, value: Tensor | None, shape: Sequence[int | None], dtype: torch.dtype
) -> None:
    """Raise `RecordError` unless `value` is None or has `dtype` and `shape` (None: any length)."""
    if value is None:
        return
    where = f"{record}.{name}"
    require(isinstance(value, Tensor), where, type(value).__name__, "a torch.Tensor")
    fits = value.ndim == len(shape) and all(w is None or g == w for g, w in zip(value.shape, shape, strict=True))
    letters = ", ".join("*" if w is None else str(w) for w in shape)
    require(fits, where, f"shape {tuple(value.shape)}", f"({letters})")
    require(value.dtype == dtype, where, str(value.dtype), str(dtype))


def require_boxes(record: str, boxes_xyxy: Tensor, name: str = "boxes_xyxy") -> None:
    """Raise `RecordError` unless all boxes are finite and neither side is negative (checked on the CPU only)."""
    require_tensor(record, name, boxes_xyxy, (None, 4), torch.float32)
    if boxes_xyxy.device.type != "cpu" or not len(boxes_xyxy) or torch.compiler.is_compiling():
        return
    bad = ~(torch.isfinite(boxes_xyxy).all(1) & (boxes_xyxy[:, 2:] >= boxes_xyxy[:, :2]).all(1))
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        require(False, f"{record}.{name}[{row}]", boxes_xyxy[row].tolist(), "finite x1 <= x2 and y1 <= y2")


@dataclass(frozen=True, eq=False)
class Objects(Rows):
    """The N annotated objects of one picture. Zero objects are legal everywhere.

    Attributes:
        boxes_xyxy: absolute pixels.
        labels: 0-based indices into the data set's categories.
        masks: which pixels belong to each object.
        keypoints: x, y in pixels and visibility (0 not annotated, 1 hidden, 2 visible).
        crowd: True where the box or mask covers a group (COCO's iscrowd): never a positive, ignored in scoring.
        difficult: True where VOC marks the object as difficult: ignored in scoring.
        areas: area in square pixels that size ranges are judged by (COCO: of the mask).
        ids: the annotation's id in its file, or its running number.
        attributes: 1.0 where an attribute holds.
        boxes_3d: centre x, y, z, then length, height, width (metres, camera frame: x right, y down, z forward) and yaw
            about the downward y axis (radians).
    """

    boxes_xyxy: Float32[Tensor, "N 4"] = row_field()
    labels: Int64[Tensor, " N"] = row_field()
    masks: Bool[Tensor, "N H W"] | None = row_field(None)
    keypoints: Float32[Tensor, "N J 3"] | None = row_field(None)
    crowd: Bool[Tensor, " N"] | None = row_field(None)
    difficult: Bool[Tensor, " N"] | None = row_field(None)
    areas: Float32[Tensor, " N"] | None = row_field(None)
    ids: Int64[Tensor, " N"] | None = row_field(None)
    attributes: Float32[Tensor, "N T"] | None = row_field(None)
    boxes_3d: Float32[Tensor, "N 7"] | None = row_field(None)

    def __post_init__(self) -> None:
        shapes: dict[str, tuple[tuple[int | None, ...], torch.dtype]] = {
            "labels": ((None,), torch.int64),
            "masks": ((None, None, None), torch.bool),
            "keypoints": ((None, None, 3), torch.float32),
            "crowd": ((None,), torch.bool),
            "difficult": ((None,), torch.bool),
            "areas": ((None,), torch.float32),
            "ids": ((None,), torch.int64),
            "attributes": ((None, None), torch.float32),
            "boxes_3d": ((None, 7), torch.float32),
        }
        require_boxes("Objects", self.boxes_xyxy)
        for name, (shape, dtype) in shapes.items():
            require_tensor("Objects", name, getattr(self, name), shape, dtype)
        self.require_rows()

    @classmethod
    def empty(cls) -> "Objects":
        """A picture that was looked at and holds no object."""
        return cls(boxes_xyxy=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))


@dataclass(frozen=True, eq=False)
class Camera(Record):
    """A pinhole camera.

    Attributes:
        intrinsics: `[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`, pixels.
        pose: camera-to-world, metres; the camera looks along +z, x right, y down.
    """

    intrinsics: Float32[Tensor, "3 3"]
    pose: Float32[Tensor, "4 4"]

    def __post_init__(self) -> None:
        require_tensor("Camera", "intrinsics", self.intrinsics, (3, 3), torch.float32)
        require_tensor("Camera", "pose", self.pose, (4, 4), torch.float32)


@dataclass(frozen=True, eq=False)
class Target(Record):
    """All that is known of one picture; what was not annotated is None.

    Attributes:
        label: the picture's class.
        objects: its objects; every spatial field of them refers to the picture's present size.
        label_map: class of each pixel, `IGNORE_LABEL` where unknown.
        weight_map: weight of each pixel in a pixel loss.
        depth: metres, 0 where unknown.
        normals: unit vectors in the camera frame.
        camera: intrinsics and pose.
        relations: rows (subject, predicate, object): indices into objects, into the predicates, into objects.
        caption: a sentence.
        proposals_xyxy: boxes that may hold objects, best first; a system that learns from them reads them here.
    """

    label: int | None = None
    objects: Objects | None = None
    label_map: UInt8[Tensor, "H W"] | None = None
    weight_map: Float32[Tensor, "H W"] | None = None
    depth: Float32[Tensor, "H W"] | None = None
    normals: Float32[Tensor, "3 H W"] | None = None
    camera: Camera | None = None
    relations: Int64[Tensor, "R 3"] | None = None
    caption: str | None = None
    proposals_xyxy: Float32[Tensor, "P 4"] | None = None

    def __post_init__(self) -> None:
        if self.proposals_xyxy is not None:
            require_boxes("Target", self.proposals_xyxy, "proposals_xyxy")
        require_tensor("Target", "label_map", self.label_map, (None, None), torch.uint8)
        require_tensor("Target", "weight_map", self.weight_map, (None, None), torch.float32)
        require_tensor("Target", "depth", self.depth, (None, None), torch.float32)
        require_tensor("Target", "normals", self.normals, (3, None, None), torch.float32)
        require_tensor("Target", "relations", self.relations, (None, 3), torch.int64)

    def class_masks(self, num_classes: int) -> tuple[Bool[Tensor, "K H W"], Bool[Tensor, "H W"]]:
        """Which pixels belong to each class, and where that is known: of the objects' masks, which may overlap, else of
        the label map. Where a label map beside objects says `IGNORE_LABEL`, nothing is known.

        Raises:
            RecordError: neither is there, or a label is no class.
        """
        known = None if self.label_map is None else self.label_map != IGNORE_LABEL
        if self.objects is not None and self.objects.masks is not None:
            masks, labels = self.objects.masks, self.objects.labels
            require_classes("Target.objects.labels", labels, num_classes)
            of_class = masks.new_zeros(num_classes, *masks.shape[-2:])
            for label, mask in zip(labels.tolist(), masks, strict=True):
                of_class[label] |= mask
            return of_class, masks.new_ones(masks.shape[-2:]) if known is None else known
        if self.label_map is None or known is None:
            wanted = "the objects' masks, or the class of every pixel"
            raise RecordError(f"got neither masks nor a label map, wanted {wanted}", where="Target")
        require_classes("Target.label_map", self.label_map[known], num_classes)
        classes = torch.arange(num_classes, dtype=torch.uint8, device=self.label_map.device)
        return self.label_map == classes[:, None, None], known


def require_classes(where: str, labels: Shaped[Tensor, "*S"], num_classes: int) -> None:
    """Raise `RecordError` unless all labels are below `num_classes`."""
    top = int(labels.max()) if labels.numel() else 0
    require(top < num_classes, where, f"label {top}", f"0..{num_classes - 1}")


@dataclass(frozen=True, eq=False)
class Sample(Record):
    """One picture and its truth: what readers yield, transforms change and the loop collates.

    Attributes:
        image: RGB (or n channels); uint8 0..255, or float32 (0..1 if it was 8 or 16 bit).
        target: what is known of it.
        name: path relative to the data set's root, with forward slashes: unique within a split.
        original_size_hw: size of the picture as it lies on disk (after EXIF rotation), before any transform.
    """

    image: Shaped[Tensor, "C H W"]
    target: Target
    name: str
    original_size_hw: tuple[int, int]

    def __post_init__(self) -> None:
        where = f"Sample({self.name!r})"
        require(
            isinstance(self.image, Tensor) and self.image.ndim == 3, where + ".image", _shape(self.image), "(C, H, W)"
        )
        require(
            self.image.dtype in (torch.uint8, torch.float32),
            where + ".image",
            str(self.image.dtype),
            "uint8 or float32",
        )
        size = tuple(self.image.shape[-2:])
        pixelwise = {name: getattr(self.target, name) for name in ("label_map", "weight_map", "depth", "normals")}
        if self.target.objects is not None:
            pixelwise["objects.masks"] = self.target.objects.masks
        for name, value in pixelwise.items():
            got = size if value is None else tuple(value.shape[-2:])
            require(got == size, f"{where}.target.{name}", f"size {got}", f"the image's, {size}")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Present (height, width)."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])


def _shape(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


@dataclass(frozen=True, eq=False)
class Losses:
    """Named scalar terms, already weighted: their sum is the objective.

    Attributes:
        terms: name -> scalar with gradient, in the order of the paper.
    """

    terms: Mapping[str, Float[Tensor, ""]]

    def __post_init__(self) -> None:
        require(len(self.terms) > 0, "Losses.terms", "no term", "at least one")
        for name, value in self.terms.items():
            require(
                isinstance(value, Tensor) and value.ndim == 0, f"Losses[{name!r}]", _shape(value), "a scalar tensor"
            )

    @property
    def total(self) -> Float[Tensor, ""]:
        """The objective."""
        return torch.stack([t.float() for t in self.terms.values()]).sum()
