"""The same picture twice: in two splits (scores then praise what was learned by heart), or under two labels.

Equal means equal decoded pixels, whatever the files are called and however they are compressed without loss. Nearly
equal is judged on grey thumbnails of 16x16: their correlation does not change with brightness, contrast, size or
recompression.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from bestiary.data.check.files import Probe
from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import Findings

NEAR = 0.995
"""Correlation of thumbnails from which two pictures are called nearly equal."""

_CONTRAST = 4.0
"""Standard deviation of a thumbnail (0..255) below which it says too little to be compared."""

_MOST_PAIRS = 400_000_000
_ROWS = 2048

Placed = tuple[str, RawPicture]
"""(split, picture)."""


def judge_twins(index: Index, probes: dict[Path, Probe], findings: Findings) -> None:
    """Note pictures that are in several splits or several times in one."""
    for group in same_pictures(index, probes):
        splits = list(dict.fromkeys(split for split, _ in group))
        if len(splits) > 1:
            _note_leak(group, findings)
        if len({p.path for _, p in group}) > 1:
            _note_copies(group, len(splits) > 1, findings)


def same_pictures(index: Index, probes: dict[Path, Probe]) -> list[list[Placed]]:
    """Groups of pictures with one content (or one file, where nothing was decoded)."""
    groups: dict[bytes | Path, list[Placed]] = defaultdict(list)
    for split, pictures in index.splits.items():
        for picture in pictures:
            probe = probes.get(picture.path)
            if probe is not None and probe.rule is None:
                groups[probe.digest or picture.path].append((split, picture))
    return [g for g in groups.values() if len(g) > 1]


def _note_leak(group: list[Placed], findings: Findings) -> None:
    split, first = group[0]
    for other, picture in group[1:]:
        if other == split:
            continue
        what = "the same file" if picture.path == first.path else f"the same pixels as {first.name}"
        got = f"{what} in {split} and {other}"
        mend = "Keep it in one of them"
        where = findings.place(picture.path)
        findings.error("split-leakage", where, got, "every picture in one split", mend, "kept in both")


def _note_copies(group: list[Placed], leaked: bool, findings: Findings) -> None:
    labels = sorted({p.label for _, p in group if p.label is not None})
    if len(labels) > 1:
        where, got = findings.place(group[0][1].path), ", ".join(f"{p.name}: {p.label}" for _, p in group[:6])
        findings.warn("conflicting-labels", where, got, "one label", "Delete the wrong one", "all kept")
        return
    first = group[0][1]
    for _, picture in group[1:]:
        if not leaked and picture.path != first.path:
            where, mend = findings.place(picture.path), "Delete one, with its annotations"
            findings.warn("duplicate-picture", where, f"the same pixels as {first.name}", "one copy", mend, "both kept")


def judge_near_twins(index: Index, probes: dict[Path, Probe], findings: Findings) -> str | None:
    """Note pictures of different splits that are nearly equal. Returns why it was left out, if it was."""
    splits = [_stacked(pictures, probes) for pictures in index.splits.values()]
    names = list(index.splits)
    pairs = sum(len(a[0]) * len(b[0]) for i, a in enumerate(splits) for b in splits[i + 1 :])
    if pairs > _MOST_PAIRS:
        return f"near duplicates between splits were not looked for: {pairs:,} pairs"
    for i, (pictures, thumbs) in enumerate(splits):
        for j in range(i + 1, len(splits)):
            for a, b, likeness in _near(thumbs, splits[j][1]):
                one, two = pictures[a], splits[j][0][b]
                if probes[one.path].digest == probes[two.path].digest:
                    continue
                where, got = findings.place(two.path), f"like {one.name} of {names[i]} (correlation {likeness:.4f})"
                mend = "Look at both; keep pictures of one scene in one split"
                findings.warn("near-duplicate", where, got, f"another scene in {names[j]}", mend, "both kept")
    return None


def _stacked(
    pictures: list[RawPicture], probes: dict[Path, Probe]
) -> tuple[list[RawPicture], Float32[np.ndarray, "N 256"]]:
    """Pictures worth comparing, and their thumbnails with mean 0 and length 1."""
    kept, rows = [], []
    for picture in pictures:
        probe = probes.get(picture.path)
        if probe is None or probe.thumb is None:
            continue
        values = probe.thumb.astype(np.float32).ravel()
        spread = float(values.std())
        if spread >= _CONTRAST:
            kept.append(picture)
            rows.append((values - values.mean()) / (spread * np.sqrt(np.float32(values.size))))
    return kept, np.stack(rows).astype(np.float32) if rows else np.zeros((0, 256), np.float32)


def _near(a: Float32[np.ndarray, "N 256"], b: Float32[np.ndarray, "M 256"]) -> list[tuple[int, int, float]]:
    """For each row of `b` that has one, the row of `a` that is most like it, if it is like enough."""
    if not len(a) or not len(b):
        return []
    best = np.full(len(b), -1.0, np.float32)
    which: Int64[np.ndarray, " M"] = np.zeros(len(b), np.int64)
    for start in range(0, len(a), _ROWS):
        likeness = a[start : start + _ROWS] @ b.T
        top = likeness.argmax(0)
        value = likeness[top, np.arange(len(b))]
        better = value > best
        best[better], which[better] = value[better], top[better] + start
    return [(int(which[k]), int(k), float(best[k])) for k in np.flatnonzero(best >= NEAR)]
