"""What a reader found, before anything is decoded or believed: one neutral index for every format.

Readers fill it with numbers as they stand in the files (a box may be NaN or inverted) and with the defects they met;
`check` judges it, `convert` writes it in another format, `dataset` mends and serves it as samples. Nothing here is
dropped silently.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a data set: file, line (1-based) or annotation id."""

    file: str
    line: int | None = None
    annotation: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        return f"{place} (annotation {self.annotation})" if self.annotation is not None else place


@dataclass(frozen=True)
class Defect:
    """One thing wrong: where, what was found, what was expected, and how to mend it.

    `rule` is a stable kebab-case name (docs/check.md lists them); `mended` says what loading does about it on its own.
    """

    rule: str
    severity: Severity
    where: Where
    got: str
    wanted: str
    mend: str
    mended: str = ""


@dataclass(slots=True)
class RawObject:
    """One annotation as it stands in its file, boxes already continuous `xyxy` in pixels.

    Attributes:
        category: name; None where the file gave an id that has no name.
        box_xyxy: four floats, possibly bad; None if there was none.
        polygons: flat x, y lists, pixels.
        rle: COCO's dictionary (`size`, `counts`).
        mask_id: value of this object's pixels in the picture's instance mask.
        keypoints: flat x, y, visibility.
        extra: fields of the file that have no place above (kept for lossless conversion: pose, occluded, attributes
            ...).
    """

    category: str | None
    where: Where
    box_xyxy: tuple[float, float, float, float] | None = None
    polygons: list[list[float]] | None = None
    rle: dict[str, Any] | None = None
    mask_id: int | None = None
    keypoints: list[float] | None = None
    crowd: bool = False
    difficult: bool = False
    truncated: bool = False
    area: float | None = None
    id: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class RawPicture:
    """One picture as its annotations describe it.

    Attributes:
        path: the file.
        name: path relative to the root, forward slashes.
        where: where the annotations of this picture stand.
        size_hw: as the annotations claim; None if they do not say.
        objects: None if the format has no objects; an empty list is a picture known to hold none.
        label: class name of the whole picture.
        label_map: file of class ids.
        instance_map: file of instance ids.
        depth: file of depths.
        extra: anything else a reader keeps (depth scale, pose, id in the file ...).
    """

    path: Path
    name: str
    where: Where
    size_hw: tuple[int, int] | None = None
    objects: list[RawObject] | None = None
    label: str | None = None
    label_map: Path | None = None
    instance_map: Path | None = None
    depth: Path | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Index:
    """All pictures of one data set, by split.

    Attributes:
        root: the folder or file that was opened.
        format: "coco", "voc", "yolo", "folders", "label-masks", "instance-masks", "csv" ...
        categories: names in label order.
        splits: split name ("train", "val", "test", or "all" if the data set has none) -> pictures.
        category_ids: the file's own id of each category, where it has ids.
        joint_names: names of the joints where there are keypoints.
        joint_pairs: pairs of joints that swap in a mirror image.
        ignore_label: value in label maps that means unknown.
        defects: what the reader itself met (broken files, unknown ids ...).
    """

    root: Path
    format: str
    categories: list[str]
    splits: dict[str, list[RawPicture]]
    category_ids: list[int] | None = None
    joint_names: list[str] | None = None
    joint_pairs: list[tuple[int, int]] | None = None
    ignore_label: int | None = None
    defects: list[Defect] = field(default_factory=list)
