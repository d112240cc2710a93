"""YOLO text labels: `data.yaml` or `images/` beside `labels/`, one line an object.

A line is `class x_center y_center width height`, divided by the picture's size, or `class x1 y1 x2 y2 x3 y3 ...`, a
polygon. A missing or empty text file is a picture without objects; where more than half have none at all, the index
says so. Paths in the yaml are relative to `path:`, that relative to the yaml; only a yaml that is opened by name may
lead elsewhere.
"""

from pathlib import Path
from typing import Any

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.findings import (
    Findings,
    has_files,
    in_split_order,
    lies_below,
    names_file,
    nothing_read,
    relative_name,
    split_folders,
)
from bestiary.errors import PictureError
from bestiary.pictures.decode import read_size
from bestiary.pictures.sources import list_pictures

_MOSTLY = 0.5
"""Share of pictures without a label file above which the index warns that labels are probably elsewhere."""


def recognise(root: Path) -> str | None:
    """A yaml with `names` and `train`/`val`, or `labels/*.txt` beside `images/`."""
    yaml_file = _yaml_file(root)
    if yaml_file is not None:
        return f"{yaml_file.name} names the classes and splits"
    if not root.is_dir():
        return None
    pairs = _folder_pairs(root)
    return f"{relative_name(root, pairs[0][1])} beside {relative_name(root, pairs[0][2])}" if pairs else None


def read(path: Path) -> Index:
    """Read a YOLO folder or its yaml.

    Raises:
        DataError: not one picture.
    """
    yaml_file = _yaml_file(path)
    root = path if path.is_dir() else path.parent
    findings = Findings(root)
    names: list[str] | None = None
    splits: dict[str, list[tuple[Path, Path]]] = {}
    if yaml_file is not None:
        settings = _settings(yaml_file, findings)
        names = _names(settings, yaml_file, findings)
        findings.root = root = _home(settings, yaml_file, opened=path.is_file(), findings=findings)
        splits = _splits(settings, yaml_file, findings)
    if not splits:
        for split, pictures, labels in _folder_pairs(root):
            rows = splits.setdefault(split, [])
            rows += [(p, labels / p.relative_to(pictures).with_suffix(".txt")) for p in list_pictures(pictures)]
    if names is None:
        named = names_file(root) or names_file(root / "labels")
        names = named[1] if named else None
    used: set[int] = set()
    read_splits = {
        split: [_picture(picture, label, names, findings, used) for picture, label in rows]
        for split, rows in splits.items()
    }
    if not any(read_splits.values()):
        raise nothing_read(path, "YOLO", findings)
    if names is None:
        names = [str(i) for i in range(max(used, default=-1) + 1)]
        wanted, mend = "names in data.yaml or classes.txt", "Write classes.txt, one name a line, in label order"
        findings.warn("unnamed-categories", findings.place(root), f"{len(names)} classes by number", wanted, mend)
    _judge_missing(splits, findings)
    return Index(root, "yolo", names, in_split_order(read_splits), defects=findings.defects)


def _yaml_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml") else None
    candidates = [path / "data.yaml", path / "data.yml", path / "dataset.yaml", *sorted(path.glob("*.y*ml"))]
    for file in dict.fromkeys(candidates):
        if file.is_file():
            text = file.read_text(encoding="utf-8-sig", errors="replace")
            lines = [line.split(":")[0].strip() for line in text.splitlines()]
            if "names" in lines and ("train" in lines or "val" in lines):
                return file
    return None


def _settings(file: Path, findings: Findings) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(findings.text(file) or "")
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        findings.error("bad-yaml", findings.place(file, line), str(error).split("\n")[0], "valid YAML", "Correct it")
        return {}
    return content if isinstance(content, dict) else {}


def _names(settings: dict[str, Any], file: Path, findings: Findings) -> list[str] | None:
    names = settings.get("names")
    if isinstance(names, dict):
        keys = sorted(int(k) for k in names if str(k).isdigit())
        gaps = [k for k in range(max(keys, default=-1) + 1) if k not in keys]
        if gaps:
            got, wanted = f"names without {gaps[:5]}", "one name a number from 0"
            findings.error("bad-names", findings.place(file), got, wanted, "Add them", "named by number")
        found = [str(names.get(i, names.get(str(i), i))) for i in range(max(keys, default=-1) + 1)]
    elif isinstance(names, list):
        found = [str(n) for n in names]
    else:
        return None
    count = settings.get("nc")
    if isinstance(count, int) and count != len(found):
        where = findings.place(file)
        findings.error(
            "bad-names", where, f"nc: {count} and {len(found)} names", "as many names", "Correct nc", "nc ignored"
        )
    return found


def _home(settings: dict[str, Any], file: Path, opened: bool, findings: Findings) -> Path:
    """The folder that splits are relative to: `path:` if it exists and may be followed, else the yaml's folder."""
    text = settings.get("path")
    if not isinstance(text, str) or not text.strip():
        return file.parent
    home = Path(text).expanduser()
    home = home if home.is_absolute() else file.parent / home
    if not home.is_dir():
        where, mend = findings.place(file), "Write a path relative to the yaml"
        findings.warn("missing-folder", where, f"path: {text}", "a folder", mend, "the yaml's folder taken")
        return file.parent
    if opened or findings.inside(home, findings.place(file)):
        return home.resolve()
    return file.parent


def _splits(settings: dict[str, Any], file: Path, findings: Findings) -> dict[str, list[tuple[Path, Path]]]:
    splits: dict[str, list[tuple[Path, Path]]] = {}
    for key, split in (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test")):
        value = settings.get(key)
        entries = value if isinstance(value, list) else [value] if isinstance(value, str) and value.strip() else []
        for entry in entries:
            found = _resolve(str(entry), file, findings)
            if found is not None:
                rows = splits.setdefault(split, [])
                rows += [(p, _label_of(p, findings.root)) for p in _listed(found, findings)]
    return splits


def _resolve(entry: str, file: Path, findings: Findings) -> Path | None:
    """A split's folder or list. Roboflow writes `../train/images` for `train/images` beside the yaml: tried if all
    else fails.
    """
    where = findings.place(file)
    plain = entry
    while plain.startswith(("../", "..\\")):
        plain = plain[3:]
    bases = [findings.root, file.parent]
    for base, text in [(b, entry) for b in bases] + [(b, plain) for b in bases]:
        path = base / text
        outside = ".." in path.relative_to(base).parts if not Path(text).is_absolute() else False
        if path.exists() and not outside and _below(path, bases):
            return path
    if (findings.root / entry).exists() and not findings.inside(entry, where):
        return None
    wanted = f"a folder or list at {findings.root / entry}"
    findings.error(
        "missing-folder", where, f"{entry!r}: nothing there", wanted, "Correct the path in the yaml", "left out"
    )
    return None


def _below(path: Path, bases: list[Path]) -> bool:
    return any(lies_below(base, path) for base in bases)


def _listed(found: Path, findings: Findings) -> list[Path]:
    if found.is_dir():
        return list_pictures(found)
    pictures = []
    for number, line in enumerate((findings.text(found) or "").splitlines(), 1):
        name = line.strip()
        where = findings.place(found, number)
        if not name:
            continue
        near = found.parent / name
        path = near if near.is_file() else findings.root / name
        if not findings.inside(path, where):
            continue
        if path.is_file():
            pictures.append(path)
        else:
            findings.error(
                "missing-picture", where, f"{name}: no such file", "a picture", "Add it or delete the line", "left out"
            )
    return pictures


def _label_of(picture: Path, root: Path) -> Path:
    """The text file of a picture: the last folder `images` of its path becomes `labels`; else beside the picture."""
    parts = list(picture.relative_to(root).parts) if root in picture.parents else list(picture.parts)
    home = root if root in picture.parents else Path()
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() == "images":
            parts[i] = "labels"
            return (home / Path(*parts)).with_suffix(".txt")
    beside = picture.with_suffix(".txt")
    under = picture.parent.parent / "labels" / picture.parent.name / beside.name
    return under if under.is_file() else beside


def _folder_pairs(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, folder of pictures, folder of labels) for `images/train` + `labels/train`, `train/images` +
    `train/labels`, flat.
    """
    pairs: list[tuple[str, Path, Path]] = []
    images, labels = root / "images", root / "labels"
    if images.is_dir() and labels.is_dir():
        inner = split_folders(images)
        pairs = [(s, f, labels / f.name) for s, f in inner.items() if (labels / f.name).is_dir()] or [
            ("all", images, labels)
        ]
    else:
        for split, folder in split_folders(root).items():
            if (folder / "images").is_dir() and (folder / "labels").is_dir():
                pairs.append((split, folder / "images", folder / "labels"))
    return pairs if any(has_files(labels, (".txt",)) for _, _, labels in pairs) else []


def _picture(picture: Path, label: Path, names: list[str] | None, findings: Findings, used: set[int]) -> RawPicture:
    where = findings.place(label)
    extra: dict[str, Any] = {}
    size = None
    try:
        size = read_size(picture)
    except PictureError as error:
        mend = error.mend or "Replace it"
        findings.error("broken-picture", findings.place(picture), error.message, "a picture", mend, "left out")
        extra["missing"] = True
    objects: list[RawObject] = []
    text = findings.text(label) if label.is_file() else None
    if text is None:
        extra["unlabelled"] = True
    for number, line in enumerate((text or "").splitlines(), 1):
        if line.strip() and size is not None:
            found = _object(line.split(), findings.place(label, number), size, names, findings, used)
            if found:
                objects.append(found)
    return RawPicture(picture, relative_name(findings.root, picture), where, size, objects, extra=extra)


def _object(
    words: list[str], where: Any, size_hw: tuple[int, int], names: list[str] | None, findings: Findings, used: set[int]
) -> RawObject | None:
    try:
        values = [float(w) for w in words]
        number = int(values[0])
        whole = number == values[0] and number >= 0
    except (ValueError, OverflowError):
        values, number, whole = [], -1, False
    polygon = len(values) > 6 and len(values) % 2 == 1
    if not whole or not (len(values) in (5, 6) or polygon):
        wanted = "class x_center y_center width height, or class and at least 3 points"
        findings.error("bad-line", where, repr(" ".join(words)[:80]), wanted, "Correct or delete the line", "left out")
        return None
    used.add(number)
    category = str(number) if names is None else names[number] if number < len(names) else None
    if category is None and names is not None:
        wanted = f"0 to {len(names) - 1} ({', '.join(names[:6])}{' ...' if len(names) > 6 else ''})"
        findings.error("unknown-category", where, f"class {number}", wanted, "Add a name or correct it", "left out")
    height, width = size_hw
    if polygon:
        xs, ys = [x * width for x in values[1::2]], [y * height for y in values[2::2]]
        points = [v for xy in zip(xs, ys, strict=True) for v in xy]
        return RawObject(category, where, (min(xs), min(ys), max(xs), max(ys)), polygons=[points])
    x, y, w, h = values[1:5]
    box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    extra = {"score": values[5]} if len(values) == 6 else {}
    return RawObject(category, where, box, extra=extra)


def _judge_missing(splits: dict[str, list[tuple[Path, Path]]], findings: Findings) -> None:
    for split, rows in splits.items():
        missing = [label for _, label in rows if not label.is_file()]
        if rows and len(missing) > _MOSTLY * len(rows):
            findings.warn(
                "missing-labels",
                findings.place(missing[0]),
                f"{len(missing)} of {len(rows)} pictures of {split!r} have no label file",
                "a text file for most pictures",
                "If they hold objects, put the labels where this path says",
                "taken as pictures without objects",
            )
