"""Rules for what is named: categories and their spellings, how often they occur, pictures listed twice, files that
nothing names.
"""

from collections import Counter, defaultdict
from difflib import SequenceMatcher
from pathlib import Path

from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import Findings, in_split_order
from bestiary.pictures.sources import list_pictures

RARE = 10
"""Examples below which a category can hardly be learned or measured."""

IMBALANCE = 100
_SIMILAR = 0.85
_MOSTLY_EMPTY = 0.5


def count_examples(index: Index) -> dict[str, Counter[str]]:
    """Split -> category -> objects (of classification: pictures). Categories that the index does not list too."""
    counts: dict[str, Counter[str]] = {}
    for split, pictures in index.splits.items():
        counts[split] = Counter()
        for picture in pictures:
            if picture.label is not None:
                counts[split][picture.label] += 1
            counts[split].update(o.category for o in picture.objects or [] if o.category is not None)
    return counts


def plain_name(name: str) -> str:
    """What two spellings of a name have in common: case, spaces, `_`, `-` left out."""
    return "".join(c for c in name.casefold() if c not in " _-.")


def spellings(index: Index) -> dict[str, str]:
    """Category -> the spelling that most objects use, for those that are spelt in several ways."""
    totals = sum(count_examples(index).values(), Counter())
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys([*index.categories, *totals]):
        groups[plain_name(name)].append(name)
    table = {}
    for names in groups.values():
        best = max(names, key=lambda n: totals[n])
        table.update({n: best for n in names if n != best})
    return table


def judge_categories(index: Index, counts: dict[str, Counter[str]], findings: Findings) -> None:
    """Spellings, similar names, rare and missing categories. `counts` may be of pixels for label maps."""
    where = findings.place(index.root)
    names = list(dict.fromkeys([*index.categories, *(n for c in counts.values() for n in c)]))
    other = spellings(index)
    for name, best in other.items():
        seen = ", ".join(f"{n} in {s}" for s, c in counts.items() if (n := c[name])) or "none"
        got, wanted = f"{name!r} ({seen})", f"one spelling: {best!r}"
        findings.error("category-spelling", where, got, wanted, "Rename one of them", "two categories")
    for name in {n for n in index.categories if index.categories.count(n) > 1}:
        findings.error("bad-names", where, f"{name!r} twice", "every name once", "Rename one", "the first is taken")
    homes = {n: {s for s, c in counts.items() if c[n]} for n in names}
    _note_similar([n for n in names if n not in other], homes, findings)
    if index.format != "reid":  # people of training and test are different people
        _note_rare(index, names, homes, counts, findings)


def _note_similar(names: list[str], homes: dict[str, set[str]], findings: Findings) -> None:
    for i, a in enumerate(names if len(names) <= 500 else []):
        for b in names[i + 1 :]:
            if not homes[a] or not homes[b] or homes[a] & homes[b]:
                continue
            if SequenceMatcher(None, a.casefold(), b.casefold()).ratio() >= _SIMILAR:
                got = f"{a!r} in {', '.join(sorted(homes[a]))}, {b!r} in {', '.join(sorted(homes[b]))}"
                mend = "If they are the same, rename one"
                findings.warn(
                    "similar-categories", findings.place(findings.root), got, "one name", mend, "two categories"
                )


def _note_rare(
    index: Index, names: list[str], homes: dict[str, set[str]], counts: dict[str, Counter[str]], findings: Findings
) -> None:
    where = findings.place(index.root)
    totals = sum(counts.values(), Counter())
    filled = [split for split, c in counts.items() if c]
    told = {d.where.file for d in index.defects if d.rule == "empty-category"}
    for name in names:
        if totals[name] == 0:
            if not any(file.split("/")[-1] == name for file in told):
                mend = "Add examples, or take it out of the list"
                findings.warn("empty-category", where, f"{name!r}: none", "examples", mend, "kept, never learned")
            continue
        if totals[name] < RARE:
            mend = "Add examples, or join it to another category"
            findings.warn("rare-category", where, f"{name!r}: {totals[name]}", f"at least {RARE}", mend, "kept")
        lacking = [s for s in filled if s not in homes[name]]
        if lacking:
            effect = "it cannot be learned" if "train" in lacking else "it cannot be measured there"
            got = f"{name!r}: none in {', '.join(lacking)}"
            findings.warn("one-split-category", where, got, "examples in every split", "Divide it anew", effect)
    common = totals.most_common()
    if len(common) > 1 and common[-1][1] > 0 and common[0][1] >= IMBALANCE * common[-1][1]:
        got = f"{common[0][0]!r} {common[0][1]:,}, {common[-1][0]!r} {common[-1][1]:,}"
        mend = "Consider balanced sampling or a focal loss"
        findings.warn("imbalance", where, got, f"less than {IMBALANCE} to 1", mend, "kept")


def judge_listing(index: Index, findings: Findings) -> None:
    """Pictures listed twice or without truth, annotation files shared, splits empty or mostly without objects."""
    annotated = any(_has_truth(p) for pictures in index.splits.values() for p in pictures)
    own_files = index.format in ("voc", "yolo")
    told = {d.where for d in index.defects if d.rule in ("missing-map", "missing-annotation", "broken-map")}
    for split, pictures in index.splits.items():
        if not pictures:
            where = findings.place(index.root)
            findings.warn("empty-split", where, f"{split!r} without pictures", "pictures", "Fill or delete it")
        first: dict[Path, RawPicture] = {}
        owners: dict[str, RawPicture] = {}
        for picture in pictures:
            if picture.path in first and index.format != "stereo":
                mend, mended = "List it once, with all its objects", "served twice"
                got = f"{picture.name} again, first at {first[picture.path].where}"
                findings.error("repeated-picture", picture.where, got, "every picture once", mend, mended)
            elif own_files and picture.where.file in owners:
                got = f"{owners[picture.where.file].name} and {picture.name}"
                mend = "Give each picture its own file"
                findings.warn("shared-annotation", picture.where, got, "one picture a file", mend, "both get it")
            first.setdefault(picture.path, picture)
            owners.setdefault(picture.where.file, picture)
            if annotated and not _has_truth(picture) and picture.where not in told:
                got, mend = "no annotation", "Annotate it or delete it"
                findings.warn("not-annotated", picture.where, f"{picture.name}: {got}", "truth", mend, "left out")
        _note_empty(index, split, pictures, findings)


def _note_empty(index: Index, split: str, pictures: list[RawPicture], findings: Findings) -> None:
    with_list = [p for p in pictures if p.objects is not None]
    empty = [p for p in with_list if not p.objects]
    told = any(d.rule == "missing-labels" and repr(split) in d.got for d in index.defects)
    if with_list and len(empty) > _MOSTLY_EMPTY * len(with_list) and not told:
        declared = sum(not p.extra.get("unlabelled") for p in empty) if index.format == "yolo" else 0
        if declared < len(empty):
            got = f"{len(empty)} of {len(with_list)} pictures of {split!r} have no object"
            mend = "If they hold objects, annotate them: otherwise the model learns to overlook them"
            findings.warn("mostly-empty", empty[0].where, got, "objects in most pictures", mend, "kept as negatives")


def unlisted_pictures(index: Index) -> list[Path]:
    """Pictures below the root that the index does not name: of COCO, VOC, CSV and pose data."""
    if index.format not in ("coco", "voc", "csv", "poses") or not index.root.is_dir():
        return []
    listed = {p.path for pictures in index.splits.values() for p in pictures}
    return [p for p in list_pictures(index.root) if p not in listed]


def orphan_labels(index: Index) -> list[Path]:
    """YOLO label files beside those that were read which belong to no picture."""
    if index.format != "yolo":
        return []
    files = {p.where.file for pictures in index.splits.values() for p in pictures}
    folders = sorted({(index.root / f).parent for f in files})
    found = [t for folder in folders if folder.name != "" and folder.is_dir() for t in sorted(folder.glob("*.txt"))]
    lists = {"classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt", "names.txt", "notes.txt", "readme.txt"}
    named = {str(index.root / f) for f in files}
    return [t for t in found if str(t) not in named and t.name.lower() not in lists]


def split_rows(index: Index) -> dict[str, dict[str, int]]:
    """Split -> pictures, negatives, objects: the head of the summary."""
    rows = {}
    for split, pictures in in_split_order(index.splits).items():
        listed = [p for p in pictures if p.objects is not None]
        rows[split] = {
            "pictures": len(pictures),
            "negatives": sum(not p.objects for p in listed),
            "objects": sum(len(p.objects or []) for p in listed),
        }
    return rows


def _has_truth(picture: RawPicture) -> bool:
    truths = (picture.objects, picture.label, picture.label_map, picture.instance_map, picture.depth)
    return any(t is not None for t in truths)
