"""The check itself: read the index, look at every file once, judge files, sizes, objects, names, maps and splits."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from bestiary.data.check.files import Probe, Progress, probe_files
from bestiary.data.check.leakage import judge_near_twins, judge_twins
from bestiary.data.check.maps import MapProbe, count_pixels, has_map, judge_maps, probe_maps
from bestiary.data.check.names import (
    count_examples,
    judge_categories,
    judge_listing,
    orphan_labels,
    split_rows,
    unlisted_pictures,
)
from bestiary.data.check.objects import SizeOf, judge_objects
from bestiary.data.check.report import Note, Report
from bestiary.data.index import Defect, Index, RawPicture
from bestiary.data.opening import open_and_say
from bestiary.data.readers.findings import Findings, relative_name
from bestiary.errors import DataError

SMALL, LONG = 32, 5
"""Pixels of the shorter side, and ratio of the sides, from which a picture is noted as odd."""

_GREY_TAIL = 0.02
_EXAMPLES = 3


def check(
    path: str | Path,
    format: str | None = None,
    decode: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Find everything wrong with the data set at `path`.

    Args:
        path: a folder or an annotation file.
        format: its format; found out if not given.
        decode: decode every picture and map; otherwise only headers are read, and what needs pixels is left out.
        progress: called with (done, total) for every file.

    Raises:
        DataError: nothing there, or no format fits, or not one picture could be read.
        UsageError: an unknown format.
    """
    opened = open_and_say(path, format)
    return check_index(opened.index, opened.why, decode, progress)


def check_index(index: Index, why: str = "", decode: bool = True, progress: Progress | None = None) -> Report:
    """As `check`, for what a reader has read. `index` is not changed."""
    started = time.perf_counter()
    findings = Findings(index.root)
    present = [p for pictures in index.splits.values() for p in pictures if not p.extra.get("missing")]
    probes = probe_files([p.path for p in present], decode, progress)

    def size_of(picture: RawPicture) -> tuple[int, int] | None:
        probe = probes.get(picture.path)
        return probe.size_hw if probe is not None and probe.size_hw is not None else picture.size_hw

    report = Report(index, why, decoded=decode, probes=probes)
    _judge_files(present, probes, findings)
    judge_listing(index, findings)
    judge_objects(index, size_of, findings)
    mapped = [p for p in present if has_map(p)] if decode else []
    map_probes = probe_maps(mapped, progress)
    judge_maps(index, mapped, map_probes, size_of, findings)
    report.maps = {p.name: probe for p, probe in zip(mapped, map_probes, strict=True)}
    _count(report, mapped, map_probes)
    if decode or report.unit != "pixels":
        judge_categories(index, report.counts, findings)
    judge_twins(index, probes, findings)
    left_out = judge_near_twins(index, probes, findings) if decode else None
    for label in orphan_labels(index):
        mend = "Add the picture or delete the file"
        findings.error("missing-picture", findings.place(label), "no such picture", "a picture", mend, "left out")
    report.notes = _notes(index, present, probes, left_out, decode)
    report.defects = _merged(index, findings)
    report.loading = _loading(index, size_of, probes)
    report.seconds = time.perf_counter() - started
    return report


def _judge_files(present: Iterable[RawPicture], probes: dict[Path, Probe], findings: Findings) -> None:
    seen: set[Path] = set()
    for picture in present:
        probe = probes[picture.path]
        place = findings.place(picture.path)
        if probe.rule is not None and picture.path not in seen:
            got, _, wanted = probe.got.removeprefix("got ").partition(", wanted ")
            findings.error(probe.rule, place, got, wanted or "a picture", probe.mend, "loading stops there")
        elif probe.grey_rows >= _GREY_TAIL and picture.path not in seen:
            got = f"{100 * probe.grey_rows:.0f} % of the rows at the bottom are blank grey"
            mend = "Look at it: this is how a JPEG with lost data decodes"
            findings.warn("grey-tail", place, got, "a whole picture", mend, "kept")
        if probe.rule is None and picture.size_hw not in (None, probe.size_hw):
            _note_size(picture, probe, findings)
        seen.add(picture.path)


def _note_size(picture: RawPicture, probe: Probe, findings: Findings) -> None:
    claimed, real = picture.size_hw, probe.size_hw
    if claimed is None or real is None:
        return
    mend = "Write the real size; if the picture was resized afterwards, scale its boxes as well"
    if probe.header is not None and claimed == probe.header.size_hw:
        mend = "The size is that before the Exif rotation: if the boxes are too, turn them, or write the pixels upright"
    got, wanted = f"{claimed[1]}x{claimed[0]}", f"{real[1]}x{real[0]}, as {picture.name}"
    findings.error("size-mismatch", picture.where, got, wanted, mend, "the picture's own size is taken")


def _count(report: Report, mapped: list[RawPicture], map_probes: list[MapProbe]) -> None:
    index = report.index
    report.splits = split_rows(index)
    report.counts = count_examples(index)
    pictures = [p for listed in index.splits.values() for p in listed]
    if any(p.label_map for p in pictures) and not any(report.counts.values()):
        report.counts, report.unit = count_pixels(index, mapped, map_probes), "pixels"
    elif any(p.label is not None for p in pictures):
        report.unit = "pictures"


def _merged(index: Index, findings: Findings) -> list[Defect]:
    """The reader's defects and ours; the reader's word counts where both name one place by one rule."""
    known = {(d.rule, d.where) for d in index.defects}
    return [*index.defects, *(d for d in findings.defects if (d.rule, d.where) not in known)]


def _notes(
    index: Index, present: list[RawPicture], probes: dict[Path, Probe], left_out: str | None, decode: bool
) -> list[Note]:
    notes: list[Note] = []
    root = index.root

    def note(rule: str, text: str, names: list[str]) -> None:
        if names:
            notes.append(Note(rule, len(names), f"{len(names):,} {text}", tuple(names[:_EXAMPLES])))

    whole = {path: p for path, p in probes.items() if p.rule is None}

    def files(holds: Callable[[Probe], object]) -> list[str]:
        return [relative_name(root, path) for path, p in whole.items() if holds(p)]

    note("negatives", "pictures without objects, kept as negatives", [p.name for p in present if p.objects == []])
    turned = files(lambda p: p.header is not None and p.header.orientation != 1)
    note("exif-rotation", "pictures are turned as their Exif data says; boxes must be those of the turned one", turned)
    note("wrong-suffix", "files hold another format than their name says", files(lambda p: p.real_kind))
    grey = files(lambda p: p.channels == 1 and not (p.header is not None and p.header.palette))
    if 0 < len(grey) < len(whole):
        note("grey-picture", "grey pictures among colour ones, served with three equal channels", grey)
    deep = files(lambda p: p.header is not None and p.header.bits >= 16)
    note("deep-picture", "pictures of 16 or more bits a channel, served as float 0..1", deep)
    see_through = files(lambda p: p.header is not None and p.header.alpha)
    note("transparent-picture", "pictures with transparency, laid over white", see_through)
    note("other-channels", "pictures with neither 1, 3 nor 4 channels", files(lambda p: p.channels not in (1, 2, 3, 4)))
    small = files(lambda p: p.size_hw is not None and min(p.size_hw) < SMALL)
    note("small-picture", f"pictures with a side below {SMALL} pixels", small)
    long = files(lambda p: p.size_hw is not None and max(p.size_hw) > LONG * min(p.size_hw))
    note("long-picture", f"pictures more than {LONG} times as long as wide", long)
    _note_sizes(whole, notes)
    objects = [o for p in present for o in p.objects or []]
    for rule, count, text in (
        ("crowd", sum(o.crowd for o in objects), "objects mark a crowd: never learned, never scored"),
        ("difficult", sum(o.difficult for o in objects), "objects are marked difficult: not scored"),
    ):
        if count:
            notes.append(Note(rule, count, f"{count:,} {text}"))
    unlisted = [relative_name(root, p) for p in unlisted_pictures(index)]
    note("unlisted-picture", "picture files that no annotation names, not used", unlisted)
    if "val" not in index.splits and index.format not in ("views", "stereo", "pictures"):
        said = "no validation split: training sets a part aside by name (the same on every machine)"
        notes.append(Note("no-validation", 1, said))
    if left_out or not decode:
        said = left_out or "pixels were not decoded: broken data, maps, equal pictures were not looked for"
        notes.append(Note("not-decoded", 1, said))
    return notes


def _note_sizes(whole: dict[Path, Probe], notes: list[Note]) -> None:
    sizes = Counter(p.size_hw for p in whole.values() if p.size_hw is not None)
    if len(sizes) > 1:
        small, large = min(sizes, key=_extent), max(sizes, key=_extent)
        common, count = sizes.most_common(1)[0]
        span = f"from {small[1]}x{small[0]} to {large[1]}x{large[0]}, most often {common[1]}x{common[0]} ({count:,})"
        notes.append(Note("mixed-sizes", len(sizes), f"{len(sizes):,} sizes, {span}"))


def _extent(size_hw: tuple[int, int]) -> tuple[int, int]:
    return size_hw[0] * size_hw[1], size_hw[0]


def _loading(index: Index, size_of: SizeOf, probes: dict[Path, Probe]) -> list[str]:
    """What `Dataset` itself says when it serves this index, split by split, with the real sizes of the pictures."""
    from bestiary.data.dataset import Dataset

    sized = {s: [replace(p, size_hw=size_of(p)) for p in pictures] for s, pictures in index.splits.items()}
    index = replace(index, splits=sized)

    said: list[str] = []
    told = tuple(f"{d.where}: " for d in index.defects)  # these stand above, in full
    for split in index.splits:
        try:
            data = Dataset(index, split)
        except DataError as error:
            said.append(f"{split}: cannot be loaded: {error.message}")
            continue
        notes = [n.removesuffix(": run bestiary check") for n in data.notes if not n.startswith(told)]
        notes = [n for n in notes if "met while reading" not in n]
        served = f"{split}: serves {len(data):,} of {len(index.splits[split]):,} pictures"
        said.append("; ".join([served, *notes]))
    broken = sum(p.rule is not None for p in probes.values())
    if broken:
        said.append(f"{broken:,} of these cannot be decoded: training stops with the name of the first that it meets")
    return said
