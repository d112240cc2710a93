"""COCO results: a JSON list of `image_id`, `category_id`, `score` and `bbox` (x, y, width, height), `segmentation` (run
lengths) or `keypoints`. `bestiary predict --coco` adds `file_name`, by which pictures are found if ids say nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestiary.data.results.gathering import FoundRow, Gathering, Results
from bestiary.data.results.json_entries import corners_of, joints_of, list_of, number_of, runs_of
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError
from bestiary.metrics.json_files import field_of, load_json


def read(path: Path, truth: Truth, skip_unknown: bool = False) -> Results:
    """Read a file of results.

    Raises:
        DataError: it is broken, or speaks of pictures or categories that the truth does not have.
    """
    entries = load_json(path)
    if not isinstance(entries, list):
        raise DataError(f"got {type(entries).__name__}, wanted a list of results", where=str(path))
    gathering = Gathering(truth, skip_unknown)
    by_ids = True
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        key, category = field_of(entry, "image_id", where), field_of(entry, "category_id", where)
        name = entry.get("file_name")
        if isinstance(name, str):
            picture, by_ids = gathering.picture(name, where), False
        else:
            picture = gathering.picture_of_id(key, where)
            by_ids = by_ids and gathering.names.by_id(key) is not None
        label = gathering.category_of_id(category, where)
        if picture is not None and label is not None:
            gathering.add(picture, _row(entry, label, where))
    return gathering.results("coco", by_ids and truth.coco_file is not None and not gathering.skip_unknown)


def _row(entry: Mapping[str, Any], label: int, where: str) -> FoundRow:
    box, rle, joints = (entry.get(name) for name in ("bbox", "segmentation", "keypoints"))
    if box is not None:
        x, y, width, height = corners_of(box, "bbox", "x, y, width, height", where)
        box = (x, y, x + width, y + height)
    if rle is not None:
        rle = runs_of(rle, "segmentation", where)
    if joints is not None:
        joints = joints_of(list_of(entry, "keypoints", where), where)
    return FoundRow(label, number_of(entry, "score", where), where, box, rle, joints)
