"""What `bestiary predict --json` prints: one JSON object a picture (a line each, or a list).

Each of its `objects` has `category`, `score` and `box_xyxy`; `mask_rle` (COCO's run lengths) and `keypoints` (x, y,
score of each joint) where they were predicted.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bestiary.data.results.gathering import FoundRow, Gathering, Results
from bestiary.data.results.json_entries import corners_of, joints_of, list_of, number_of, runs_of
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError
from bestiary.metrics.json_files import field_of
from bestiary.predictions import Classification


def read(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Read detections or classes.

    Raises:
        DataError: it is broken, or speaks of pictures or categories that the truth does not have.
    """
    gathering = Gathering(truth, skip_unknown)
    probs: dict[int, torch.Tensor] = {}
    seen: set[int] = set()
    partial = False
    for entry, where in _entries(path):
        if not isinstance(entry, Mapping):
            raise DataError(f"got {repr(entry)[:60]}, wanted an object with a name", where=where)
        picture = gathering.picture(str(field_of(entry, "name", where)), where)
        if picture is None:
            continue
        if picture in seen:
            raise DataError(f"got {truth.pictures[picture].name} a second time", where=where, mend="Keep one")
        seen.add(picture)
        if "objects" in entry:
            gathering.found(picture)
            for found in list_of(entry, "objects", where):
                label = gathering.category(str(field_of(found, "category", where)), where)
                if label is not None:
                    gathering.add(picture, _row(found, label, where))
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


def _row(found: Mapping[str, Any], label: int, where: str) -> FoundRow:
    box = corners_of(field_of(found, "box_xyxy", where), "box_xyxy", "x1, y1, x2, y2", where)
    rle = runs_of(found["mask_rle"], "mask_rle", where) if found.get("mask_rle") is not None else None
    flat = None
    if found.get("keypoints") is not None:
        joints = list_of(found, "keypoints", where)
        if not all(isinstance(joint, list) and len(joint) == 3 for joint in joints):
            raise DataError("got keypoints that are no lists of x, y, score", where=where)
        flat = joints_of([value for joint in joints for value in joint], where)
    return FoundRow(label, number_of(found, "score", where), where, box, rle, flat)


def _entries(path: Path) -> list[tuple[Any, str]]:
    """What was written of each picture, and its place."""
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
    for answer in list_of(entry, "top", where):
        label = gathering.category(str(field_of(answer, "category", where)), where)
        prob = number_of(answer, "prob", where)
        if label is not None:
            probs[label] = prob
    return probs
