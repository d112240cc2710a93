"""A mended copy of a data set: what can be mended without guessing is, every change is listed, the original stays.

COCO, VOC and YOLO are written anew in their own format (CSV and pose files as COCO); everything else is copied file by
file, without what is broken. docs/check.md says for each rule what is done.
"""

import copy
import shutil
import tempfile
from pathlib import Path

from bestiary.data.check.files import Probe, blank_rows
from bestiary.data.check.leakage import same_pictures
from bestiary.data.check.names import spellings
from bestiary.data.check.report import Report
from bestiary.data.convert import WRITERS, writer_of
from bestiary.data.index import Index, RawPicture
from bestiary.data.mend_maps import mend_maps
from bestiary.data.mend_objects import mend_objects
from bestiary.data.readers.findings import relative_name
from bestiary.data.writers.placing import make_new
from bestiary.errors import PictureError
from bestiary.pictures.decode import read_image
from bestiary.pictures.encode import write_image

_AS_COCO = ("csv", "poses")
_NEEDS_MAP = ("label-masks", "instance-masks")
_WHOLE_ENOUGH = 0.1
"""Share of a truncated picture that may be missing at the bottom for the rest to be kept."""


def write_mended(report: Report, folder: str | Path) -> list[str]:
    """Write a mended copy of the checked data set.

    Args:
        report: of `check`, with decoded pictures if broken ones shall be mended.
        folder: new or empty.

    Returns:
        One line for every change, and a last one that sums up.

    Raises:
        UsageError: `folder` holds something already.
    """
    target = Path(folder).expanduser().absolute()
    make_new(target)
    index = copy.deepcopy(report.index)
    lines = [
        f"{d.where}: {d.got}: {d.mended or 'left out'}"
        for d in report.index.defects
        if d.severity == "error" and d.rule != "missing-picture"
    ]
    with tempfile.TemporaryDirectory(prefix=".bestiary-mend-", dir=target.parent) as scratch:
        gone = _drop_pictures(index, report.probes, Path(scratch), lines)
        _split_leaks(index, report.probes, gone, lines)
        if index.format in WRITERS or index.format in _AS_COCO:
            _rewrite(index, report.probes, target, lines)
        else:
            _copy(index, report, target, gone, Path(scratch), lines)
    pictures = sum(len(p) for p in index.splits.values())
    lines.append(f"{target}: {pictures:,} pictures, {len(lines):,} changes")
    return lines


def _rewrite(index: Index, probes: dict[Path, Probe], target: Path, lines: list[str]) -> None:
    def size_of(picture: RawPicture) -> tuple[int, int] | None:
        probe = probes.get(picture.path)
        return probe.size_hw if probe is not None and probe.size_hw is not None else picture.size_hw

    _join_repeated(index, lines)
    _join_spellings(index, lines)
    mend_objects(index, size_of, lines)
    for pictures in index.splits.values():
        for picture in pictures:
            real = size_of(picture)
            if picture.size_hw is not None and real is not None and picture.size_hw != real:
                old = picture.size_hw
                lines.append(f"{picture.where}: size {old[1]}x{old[0]} corrected to {real[1]}x{real[0]}")
    to = "coco" if index.format in _AS_COCO else index.format
    if to != index.format:
        lines.append(f"{index.root}: {index.format} has no writer: written as {to}")
    writer_of(to)(index, target, True)


def _drop_pictures(index: Index, probes: dict[Path, Probe], scratch: Path, lines: list[str]) -> set[Path]:
    """Take out pictures that cannot be used; re-encode those of which nearly everything is there."""
    gone: set[Path] = set()
    saved: dict[Path, Path] = {}
    for split, pictures in index.splits.items():
        kept = []
        for picture in pictures:
            probe = probes.get(picture.path)
            place = relative_name(index.root, picture.path)
            if picture.extra.get("missing") or probe is None:
                lines.append(f"{picture.where}: {place} is missing or broken: its annotations left out")
                gone.add(picture.path)
            elif index.format in _NEEDS_MAP and picture.label_map is None and picture.instance_map is None:
                lines.append(f"{place}: left out, it has no map")
                gone.add(picture.path)
            elif probe.rule is None:
                kept.append(picture)
            elif probe.rule == "truncated-picture" and (new := _whole(picture.path, scratch, saved)) is not None:
                lines.append(f"{place}: was cut off near its end: what is there encoded anew")
                picture.path = new
                kept.append(picture)
            else:
                lines.append(f"{place}: left out with its annotations: {probe.got}")
                gone.add(picture.path)
        index.splits[split] = kept
    return gone


def _whole(path: Path, scratch: Path, saved: dict[Path, Path]) -> Path | None:
    """A whole file of what is left of a truncated one; None if too much is missing."""
    if path in saved:
        return saved[path]
    try:
        image = read_image(path, allow_truncated=True)
    except PictureError:
        return None
    if blank_rows(image.permute(1, 2, 0).numpy()) > _WHOLE_ENOUGH:
        return None
    suffix = path.suffix.lower() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp") else ""
    if not suffix:
        return None
    new = scratch / str(len(saved)) / path.name
    write_image(new.with_suffix(suffix), image)
    saved[path] = new.with_suffix(suffix)
    return saved[path]


def _split_leaks(index: Index, probes: dict[Path, Probe], gone: set[Path], lines: list[str]) -> None:
    """Keep a picture that is in several splits in one: where it is measured, unless that would empty a split."""
    groups = [g for g in same_pictures(index, probes) if len({split for split, _ in g}) > 1]
    if not groups:
        return
    for order in (("test", "val", "train"), ("train", "val", "test")):
        place = {split: order.index(split) if split in order else len(order) for split in index.splits}
        dropped: dict[int, tuple[str, str, RawPicture]] = {}
        for group in groups:
            home = min((split for split, _ in group), key=lambda s: place[s])
            dropped.update({id(p): (split, home, p) for split, p in group if split != home})
        left = {s: sum(id(p) not in dropped for p in pictures) for s, pictures in index.splits.items()}
        if all(left[s] or not index.splits[s] for s in index.splits):
            break
    else:
        lines.append(f"{index.root}: pictures in several splits are left: one split would be empty")
        return
    for split, pictures in index.splits.items():
        index.splits[split] = [p for p in pictures if id(p) not in dropped]
    stay = {p.path for pictures in index.splits.values() for p in pictures}
    for split, home, picture in dropped.values():
        lines.append(f"{relative_name(index.root, picture.path)}: taken out of {split}: it is in {home} too")
        if picture.path not in stay:
            gone.add(picture.path)


def _join_repeated(index: Index, lines: list[str]) -> None:
    for pictures in index.splits.values():
        first: dict[Path, RawPicture] = {}
        for picture in pictures:
            before = first.setdefault(picture.path, picture)
            if before is not picture:
                if picture.objects:
                    before.objects = [*(before.objects or []), *picture.objects]
                lines.append(f"{picture.where}: {picture.name} is listed twice: joined with {before.where}")
        pictures[:] = list(first.values())


def _join_spellings(index: Index, lines: list[str]) -> None:
    table = spellings(index)
    for name, best in table.items():
        lines.append(f"{index.root}: category {name!r} renamed to {best!r}")
    kept = [i for i, name in enumerate(index.categories) if name not in table]
    if index.category_ids is not None:
        index.category_ids = [index.category_ids[i] for i in kept]
    index.categories = [index.categories[i] for i in kept]
    for picture in (p for pictures in index.splits.values() for p in pictures):
        for found in picture.objects or []:
            found.category = table.get(found.category or "", found.category)


def _copy(index: Index, report: Report, target: Path, gone: set[Path], scratch: Path, lines: list[str]) -> None:
    """Copy every file but those of dropped pictures; maps that were mended and pictures encoded anew take the place of
    the old.
    """
    original = {p.name: p for pictures in report.index.splits.values() for p in pictures}
    replaced = mend_maps(index, report, scratch, gone, lines)
    for pictures in index.splits.values():
        for picture in pictures:
            replaced.setdefault(original[picture.name].path, picture.path)
    for picture in (p for p in original.values() if p.path in gone):
        gone |= {m for m in (picture.label_map, picture.instance_map, picture.depth) if m is not None}
    table = spellings(index) if index.format == "folders" else {}
    for name, best in table.items():
        lines.append(f"{index.root}: folder {name!r} joined to {best!r}")
    for source in sorted(index.root.rglob("*")):
        inside = target in (source, *source.parents) or scratch in source.parents
        if inside or source in gone or not source.is_file():
            continue
        parts = [table.get(part, part) for part in source.relative_to(index.root).parent.parts]
        place = target.joinpath(*parts) / source.name
        while place.exists():
            place = place.with_name(f"{place.stem}_{place.suffix}")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(replaced.get(source, source), place)
    rewritable = {"missing-mask", "bad-line", "bad-number", "bad-keypoints", "missing-calibration", "bad-matrix"}
    left = [d for d in report.errors if d.rule in rewritable or d.rule.startswith("box-")]
    lines += [f"{d.where}: {d.got}: left as it is, {index.format} annotations are not rewritten" for d in left]
