"""What `bestiary predict --json` prints: one JSON object a picture (a line each, or a list)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bestiary.data.results.gathering import FoundRow, Gathering, Results
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError
from bestiary.metrics.json_files import field_of
from bestiary.predictions import Classification


def read(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Read detections or classes.

    Raises:
        DataError: it is broken, or speaks of pictures or categories that the truth does not have.
    """
    entries = _entries(path)
    gathering = Gathering(truth, skip_unknown)
    probs: dict[int, torch.Tensor] = {}
    seen: set[int] = set()
    partial = False
    for entry, where in entries:
        picture = gathering.picture(str(field_of(entry, "name", where)), where)
        if picture is None:
            continue
        if picture in seen:
            raise DataError(f"got {truth.pictures[picture].name} a second time", where=where, mend="Keep one")
        seen.add(picture)
        if "objects" in entry:
            gathering.found(picture)
            for found in entry["objects"]:
                label = gathering.category(str(field_of(found, "category", where)), where)
                if label is not None:
                    x1, y1, x2, y2 = map(float, field_of(found, "box_xyxy", where))
                    gathering.add(picture, FoundRow(label, float(found["score"]), where, (x1, y1, x2, y2)))
        elif "top" in entry:
            probs[picture] = _probs(entry, gathering, where)
            partial = partial or len(entry["top"]) < len(truth.categories)
        else:
            mend = "Score the label maps (NAME.labels.png) that bestiary predict writes into its folder"
            raise DataError("got shares of classes, which cannot be scored", where=where, mend=mend)
    if not probs:
        return gathering.results("predict-json")

    def predict(i: int) -> Classification:
        return Classification(probs[i], truth.size_hw(i), truth.categories, truth.pictures[i].name)

    notes = gathering.notes()
    return Results("predict-json", "classification", frozenset(probs), predict, notes=notes, partial=partial)


def _entries(path: Path) -> list[tuple[Mapping[str, Any], str]]:
    """Objects and their places."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    try:
        whole = json.loads(text)
        entries = whole if isinstance(whole, list) else [whole]
        return [(entry, f"{path}, entry {number}") for number, entry in enumerate(entries)]
    except (ValueError, RecursionError):
        pass  # more than one document: a line each
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append((json.loads(line), f"{path}:{number}"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"is not JSON: {error}", where=f"{path}:{number}") from error
    return found


def _probs(entry: Mapping[str, Any], gathering: Gathering, where: str) -> torch.Tensor:
    probs = torch.zeros(len(gathering.truth.categories))
    for answer in entry["top"]:
        label = gathering.category(str(field_of(answer, "category", where)), where)
        if label is not None:
            probs[label] = float(field_of(answer, "prob", where))
    return probs
