"""Classes of whole pictures in a CSV: `name,label`, or `name` and a column of probabilities for every category.

Labels are names of categories, or numbers from 0. Columns may be called as people call them; without a header the first
two count.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from bestiary.data.results.gathering import Gathering, Results
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError
from bestiary.predictions import Classification

_NAMES = ("name", "image", "image_id", "file", "filename", "file_name", "path", "picture", "id")
_LABELS = ("label", "class", "category", "prediction", "predicted", "pred", "class_name", "predicted_class")
_SLACK = 1e-3
"""How far probabilities may be from adding up to 1."""


def read(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Read the table.

    Raises:
        DataError: no such columns, an unknown picture or category, a picture twice, or numbers that are no
            probabilities.
    """
    rows = _rows(path)
    header = [cell.strip() for cell in rows[0]]
    folded = [cell.casefold() for cell in header]
    name_at = next((folded.index(name) for name in _NAMES if name in folded), None)
    gathering = Gathering(truth, skip_unknown)
    columns = _probability_columns(header, truth.categories)
    label_at = next((folded.index(name) for name in _LABELS if name in folded), None)
    if name_at is None:
        name_at, label_at, columns, body = 0, 1, {}, list(enumerate(rows, 1))
        if len(header) < 2 or gathering.names.by_name(header[0], str(path)) is None:
            wanted = f"a header with {_NAMES[0]} and {_LABELS[0]}, or with a column for every category"
            raise DataError(f"got the first line {','.join(header)[:80]!r}, wanted {wanted}", where=str(path))
    else:
        body = list(enumerate(rows[1:], 2))
    missing = [name for name in truth.categories if name not in columns]
    if label_at is None and missing:
        got = f"got no column {_LABELS[0]!r}, and none for {', '.join(missing)[:120]}"
        raise DataError(got, where=f"{path}:1", mend="Give each category a column of probabilities")
    found: dict[int, torch.Tensor] = {}
    for number, row in body:
        where = f"{path}:{number}"
        if len(row) < len(header):
            raise DataError(f"got {len(row)} cells, wanted {len(header)}", where=where)
        picture = gathering.picture(row[name_at].strip(), where)
        if missing:
            label = gathering.category(row[label_at or 0].strip(), where)
            probs = None if label is None else torch.eye(len(truth.categories))[label]
        else:
            probs = _probs([row[columns[name]] for name in truth.categories], where)
        if picture is None or probs is None:
            continue
        if picture in found:
            raise DataError(f"got {truth.pictures[picture].name} a second time", where=where, mend="Keep one")
        found[picture] = probs

    def predict(i: int) -> Classification:
        return Classification(found[i], truth.size_hw(i), truth.categories, truth.pictures[i].name)

    notes = gathering.notes()
    return Results("csv", "classification", frozenset(found), predict, notes=notes, labels_only=bool(missing))


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in text.split("\n", 1)[0] else ","
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    if not rows:
        raise DataError("there is nothing in it", where=str(path))
    return rows


def _probability_columns(header: Sequence[str], categories: Sequence[str]) -> Mapping[str, int]:
    """Category -> column called as it is, or with `prob_` or `p_` before it."""
    found: dict[str, int] = {}
    for category in categories:
        for name in (category, f"prob_{category}", f"p_{category}"):
            if name in header:
                found.setdefault(category, header.index(name))
    return found


def _probs(cells: Sequence[str], where: str) -> torch.Tensor:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        raise DataError(f"got {', '.join(cells)[:80]!r}, wanted probabilities", where=where) from None
    if not all(math.isfinite(v) and v >= 0 for v in numbers) or abs(sum(numbers) - 1) > _SLACK:
        raise DataError(f"got numbers that add up to {sum(numbers):.6g}, wanted probabilities", where=where)
    return torch.tensor(numbers, dtype=torch.float32)
