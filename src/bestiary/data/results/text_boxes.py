"""Boxes in text files: VOC's, one file a class or one a picture, and YOLO's, one file a picture.

VOC by class     `comp4_det_test_CLASS.txt` or `CLASS.txt`, lines `picture score x1 y1 x2 y2`
VOC by picture   `PICTURE.txt`, lines `class score x1 y1 x2 y2`
YOLO             `PICTURE.txt`, lines `class x_center y_center width height confidence`, the class a number from 0, the
                 box divided by the picture's width and height

VOC's boxes are 1-based pixel numbers, both ends included: `x1 y1 x2 y2` is read as x1 - 1, y1 - 1, x2, y2.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bestiary.data.results.gathering import FoundRow, Gathering, Results
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError

_SIX = 6


def text_files(path: Path) -> list[Path]:
    """The file itself, or the visible text files below the folder; not those that name classes or say what this is."""
    if path.is_file():
        return [path]
    other = {"classes", "readme", "labels", "names", "license"}
    return [f for f in sorted(path.rglob("*.txt")) if f.stem.lower() not in other and not f.name.startswith(".")]


def recognise(path: Path, truth: Truth) -> str | None:
    """Which of the three the text files are: their names and their first lines tell."""
    files = text_files(path)
    if not files:
        return None
    if any(_class_of(file, truth.categories) is not None for file in files):
        return "voc-classes"
    for file in files:
        for words, _ in _lines(file):
            numbers = [_number(word) for word in words]
            inside = all(v is not None and 0 <= v <= 1 for v in numbers[1:])
            return "yolo" if words[0].isdigit() and inside else "voc-pictures"
    return "yolo"


def read_voc_classes(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Read VOC's files, one a class."""
    gathering = Gathering(truth, skip_unknown)
    for file in text_files(path):
        name = _class_of(file, truth.categories)
        label = truth.categories.index(name) if name else gathering.category(file.stem.rsplit("_", 1)[-1], str(file))
        for words, where in _lines(file):
            picture = gathering.picture(" ".join(words[:-5]), where) if len(words) >= _SIX else None
            score, *box = _numbers(words, where, "picture score x1 y1 x2 y2")
            if picture is not None and label is not None:
                gathering.add(picture, FoundRow(label, score, where, _from_voc(box)))
    return gathering.results("voc-classes")


def read_voc_pictures(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Read files of one a picture with VOC's boxes."""

    def row(words: Sequence[str], where: str, gathering: Gathering, picture: int) -> FoundRow | None:
        score, *box = _numbers(words, where, "class score x1 y1 x2 y2")
        label = gathering.category(" ".join(words[:-5]), where)
        return None if label is None else FoundRow(label, score, where, _from_voc(box))

    return _read_pictures(path, truth, skip_unknown, "voc-pictures", row)


def read_yolo(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Read YOLO's files."""

    def row(words: Sequence[str], where: str, gathering: Gathering, picture: int) -> FoundRow | None:
        if len(words) != _SIX:
            mend = "Save the confidence with each box (save_conf=True)" if len(words) == _SIX - 1 else ""
            wanted = "class x_center y_center width height confidence"
            raise DataError(f"got {len(words)} fields, wanted {wanted}", where=where, mend=mend)
        x, y, width, height, score = _numbers(words, where, "numbers")
        # `1.0` is how some write a class.
        number = words[0].removesuffix(".0")
        by_number = number.isdigit()
        label = gathering.category_of_number(int(number), where) if by_number else gathering.category(number, where)
        high, wide = truth.size_hw(picture)
        box = ((x - width / 2) * wide, (y - height / 2) * high, (x + width / 2) * wide, (y + height / 2) * high)
        return None if label is None else FoundRow(label, score, where, box)

    return _read_pictures(path, truth, skip_unknown, "yolo", row)


def _read_pictures(
    path: Path,
    truth: Truth,
    skip_unknown: bool,
    format: str,
    row_of: Callable[[Sequence[str], str, Gathering, int], FoundRow | None],
) -> Results:
    gathering = Gathering(truth, skip_unknown)
    files: dict[int, Path] = {}
    for file in text_files(path):
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        picture = gathering.picture(name, str(file))
        if picture is None:
            continue
        if picture in files:
            got = f"got a second file for {truth.pictures[picture].name}, the first being {files[picture]}"
            raise DataError(got, where=str(file), mend="Keep one")
        files[picture] = file
        gathering.found(picture)
        for words, where in _lines(file):
            row = row_of(words, where, gathering, picture)
            if row is not None:
                gathering.add(picture, row)
    return gathering.results(format)


def _class_of(file: Path, categories: Sequence[str]) -> str | None:
    """The longest category that the file's name is, or ends in behind an underscore."""
    fitting = [name for name in categories if file.stem == name or file.stem.endswith("_" + name)]
    return max(fitting, key=len, default=None)


def _lines(file: Path) -> Iterator[tuple[list[str], str]]:
    """Words of every line that has any, and its place."""
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(file)) from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words:
            yield words, f"{file}:{number}"


def _numbers(words: Sequence[str], where: str, wanted: str) -> list[float]:
    """The last five words as numbers."""
    found = [_number(word) for word in words[-5:]]
    numbers = [number for number in found if number is not None]
    if len(words) < _SIX or len(numbers) < len(found):
        raise DataError(f"got {' '.join(words)[:80]!r}, wanted {wanted}", where=where)
    return numbers


def _number(word: str) -> float | None:
    """NaN is a number here, so that it is refused by its name."""
    try:
        return float(word)
    except ValueError:
        return math.nan if word.lower() in ("nan", "-nan") else None


def _from_voc(box: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return x1 - 1, y1 - 1, x2, y2
