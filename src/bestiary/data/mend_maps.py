"""Mending label maps: values that name no class become unknown; pictures whose map cannot be used are dropped."""

from pathlib import Path

import torch

from bestiary.data.check.maps import class_of_value
from bestiary.data.check.report import Report
from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import relative_name
from bestiary.pictures.decode import read_label_map
from bestiary.pictures.encode import write_map
from bestiary.records import IGNORE_LABEL


def mend_maps(index: Index, report: Report, scratch: Path, gone: set[Path], lines: list[str]) -> dict[Path, Path]:
    """Old map -> the file that takes its place; pictures without a usable map are taken out of `index` into `gone`.

    Args:
        index: changed in place.
        report: of the original.
        scratch: folder for new maps.
        gone: files that are not to be copied.
        lines: gets one line for each change.
    """
    replaced: dict[Path, Path] = {}
    for split, pictures in index.splits.items():
        kept = []
        for picture in pictures:
            why = _unusable(picture, report)
            if why:
                lines.append(f"{relative_name(index.root, picture.path)}: left out, {why}")
                gone |= {m for m in (picture.path, picture.label_map, picture.instance_map) if m is not None}
                continue
            kept.append(picture)
            if picture.label_map is not None and "label_colors" not in picture.extra:
                _mend_values(index, picture, report, scratch / f"map{len(replaced)}.png", replaced, lines)
        index.splits[split] = kept
    return replaced


def _unusable(picture: RawPicture, report: Report) -> str | None:
    probe = report.maps.get(picture.name)
    if probe is None:
        return None
    if probe.broken:
        return f"its map cannot be read: {next(iter(probe.broken.values()))}"
    found = report.probes.get(picture.path)
    size = found.size_hw if found is not None else None
    for path, size_hw in probe.sizes_hw.items():
        if size is not None and size_hw != size:
            return f"{path.name} is {size_hw[1]}x{size_hw[0]}, the picture {size[1]}x{size[0]}"
    return None


def _mend_values(
    index: Index, picture: RawPicture, report: Report, new: Path, replaced: dict[Path, Path], lines: list[str]
) -> None:
    probe = report.maps.get(picture.name)
    names = class_of_value(index, picture)
    strange = [v for v in probe.values if v not in names] if probe is not None else []
    if not strange or picture.label_map is None:
        return
    unknown = IGNORE_LABEL if index.ignore_label is None else index.ignore_label
    values = read_label_map(picture.label_map)
    values[torch.isin(values, torch.tensor(strange, dtype=torch.uint8))] = unknown
    write_map(new, values)
    replaced[picture.label_map] = new
    where = relative_name(index.root, picture.label_map)
    lines.append(f"{where}: values {', '.join(map(str, strange))} became {unknown} (unknown)")
