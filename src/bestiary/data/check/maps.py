"""Rules for maps beside pictures: class ids, instance ids, depths. Each map is decoded once, in threads."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bestiary.data.check.files import Progress, in_threads
from bestiary.data.check.objects import SizeOf
from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import Findings
from bestiary.errors import PictureError
from bestiary.pictures.decode import read_depth, read_instance_map, read_label_map
from bestiary.records import IGNORE_LABEL


@dataclass(frozen=True)
class MapProbe:
    """What the maps of one picture hold.

    Attributes:
        sizes_hw: file -> size, of those that can be decoded.
        broken: file -> what the decoder said.
        values: stored class id -> pixels.
        instances: ids in the instance map.
    """

    sizes_hw: dict[Path, tuple[int, int]] = field(default_factory=dict)
    broken: dict[Path, str] = field(default_factory=dict)
    values: Counter[int] = field(default_factory=Counter)
    instances: frozenset[int] | None = None


def has_map(picture: RawPicture) -> bool:
    """Whether the picture has a file of pixels that belongs to its truth."""
    return not picture.extra.get("missing") and any((picture.label_map, picture.instance_map, picture.depth))


def probe_maps(pictures: list[RawPicture], progress: Progress | None) -> list[MapProbe]:
    """Decode the maps of every picture, several at a time."""
    return list(in_threads(_probe, pictures, progress))


def _probe(picture: RawPicture) -> MapProbe:
    found = MapProbe()
    instances = None
    for kind, path in (("label", picture.label_map), ("instance", picture.instance_map), ("depth", picture.depth)):
        if path is None:
            continue
        try:
            if kind == "label":
                stored = read_label_map(path, picture.extra.get("label_colors")).numpy()
                counts = np.bincount(stored.ravel(), minlength=256)
                found.values.update({int(v): int(counts[v]) for v in np.flatnonzero(counts)})
            elif kind == "instance":
                stored = read_instance_map(path).numpy()
                instances = frozenset(int(v) for v in np.unique(stored))
            else:
                stored = read_depth(path, float(picture.extra.get("depth_scale", 1))).numpy()
            found.sizes_hw[path] = int(stored.shape[0]), int(stored.shape[1])
        except PictureError as error:
            found.broken[path] = error.message
    return MapProbe(found.sizes_hw, found.broken, found.values, instances)


def judge_maps(
    index: Index, pictures: list[RawPicture], probes: list[MapProbe], size_of: SizeOf, findings: Findings
) -> None:
    """Note maps that are broken, of another size, void, or hold values without a name."""
    told = {d.where for d in index.defects if d.rule == "broken-map"}
    for picture, probe in zip(pictures, probes, strict=True):
        for path, said in probe.broken.items():
            where = findings.place(path)
            if where not in told:
                mend = "Write it again as an 8-bit grey PNG of ids"
                findings.error("broken-map", where, said, "a map", mend, "loading stops there")
        size = size_of(picture)
        for path, size_hw in probe.sizes_hw.items():
            if size is not None and size_hw != size:
                got, wanted = f"{size_hw[1]}x{size_hw[0]}", f"{size[1]}x{size[0]}, as {picture.name}"
                mend = "Make it again in the picture's size"
                findings.error("map-size", findings.place(path), got, wanted, mend, "loading stops there")
        if probe.values and picture.label_map is not None:
            _note_values(index, picture, probe.values, findings)
        if probe.instances is not None and picture.objects is not None and picture.instance_map is not None:
            _note_instances(picture, probe.instances, findings)


def class_of_value(index: Index, picture: RawPicture) -> dict[int, str | None]:
    """Stored value -> category; None for values that mean unknown."""
    if "label_colors" in picture.extra:
        values = {v: v for v in picture.extra["label_colors"].values() if v != IGNORE_LABEL}
        unknown = {IGNORE_LABEL} if IGNORE_LABEL in picture.extra["label_colors"].values() else set()
    else:
        values = picture.extra.get("label_values") or {i: i for i in range(len(index.categories))}
        unknown = {IGNORE_LABEL} if index.ignore_label is None else {IGNORE_LABEL, index.ignore_label}
    named: dict[int, str | None] = {v: index.categories[c] for v, c in values.items() if c < len(index.categories)}
    return {**dict.fromkeys(unknown), **named}


def count_pixels(index: Index, pictures: list[RawPicture], probes: list[MapProbe]) -> dict[str, Counter[str]]:
    """Split -> category -> pixels of label maps."""
    by_id = {id(p): probe for p, probe in zip(pictures, probes, strict=True)}
    counts: dict[str, Counter[str]] = {}
    for split, listed in index.splits.items():
        counts[split] = Counter()
        for picture in listed:
            probe = by_id.get(id(picture))
            if probe is None or picture.label_map is None:
                continue
            names = class_of_value(index, picture)
            for value, pixels in probe.values.items():
                name = names.get(value)
                if name is not None:
                    counts[split][name] += pixels
    return counts


def _note_values(index: Index, picture: RawPicture, values: Counter[int], findings: Findings) -> None:
    names = class_of_value(index, picture)
    where = findings.place(picture.label_map or picture.path)
    total = values.total()
    strange = {v: n for v, n in values.items() if v not in names}
    if strange:
        what = "colours that the table lacks" if "label_colors" in picture.extra else ", ".join(map(str, strange))
        got = f"{what} ({100 * sum(strange.values()) / total:.2g} % of the pixels)"
        known = [v for v, n in names.items() if n is not None]
        wanted = f"{min(known)} to {max(known)}, or {IGNORE_LABEL} for unknown" if known else "named classes"
        findings.error("unknown-map-value", where, got, wanted, "Name the class or correct the map", "taken as unknown")
    if all(names.get(v) is None for v in values):
        mend = "Delete the picture, or draw its map"
        findings.warn("void-map", where, "only unknown pixels", "pixels of some class", mend, "kept, teaches nothing")


def _note_instances(picture: RawPicture, there: frozenset[int], findings: Findings) -> None:
    named = {o.mask_id for o in picture.objects or [] if o.mask_id is not None}
    for found in picture.objects or []:
        if found.mask_id is not None and found.mask_id not in there:
            got, mend = f"no pixel of id {found.mask_id}", "Correct the id or delete the object"
            findings.error(
                "missing-mask", found.where, got, "pixels in the map", mend, "dropped where masks are asked for"
            )
    extra = sorted(v for v in there - named if v != 0)
    if extra:
        where = findings.place(picture.instance_map or picture.path)
        got = f"ids {', '.join(map(str, extra[:8]))}{' ...' if len(extra) > 8 else ''}"
        findings.warn("unlisted-mask", where, got, "an annotation for each", "Annotate or erase them", "ignored")
