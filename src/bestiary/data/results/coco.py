"""COCO results: a JSON list of `image_id`, `category_id`, `score` and `bbox` (x, y, width, height), `segmentation` (run
lengths) or `keypoints`. `bestiary predict --coco` adds `file_name`, by which pictures are found if ids say nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestiary.data.results.gathering import FoundRow, Gathering, Results
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError
from bestiary.metrics.json_files import field_of, load_json
from bestiary.metrics.table import Kind

_FIELDS: dict[Kind, str] = {"boxes": "bbox", "masks": "segmentation", "keypoints": "keypoints"}


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
    first: Mapping[str, Any] = entries[0] if entries else {}
    kinds: frozenset[Kind] = frozenset(kind for kind, name in _FIELDS.items() if first.get(name) is not None)
    if entries and not kinds:
        raise DataError("got no bbox, segmentation or keypoints", where=f"{path}, entry 0")
    by_ids = by_ids and truth.coco_file is not None and not gathering.skip_unknown
    return gathering.results("coco", kinds or frozenset[Kind](["boxes"]), by_ids)


def _row(entry: Mapping[str, Any], label: int, where: str) -> FoundRow:
    score, box, rle, joints = (entry.get(name) for name in ("score", "bbox", "segmentation", "keypoints"))
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise DataError(f"got the score {score!r}, wanted a number", where=where)
    if box is not None:
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
            raise DataError(f"got bbox {box!r}, wanted x, y, width, height", where=where)
        x, y, width, height = map(float, box)
        box = (x, y, x + width, y + height)
    if rle is not None and not isinstance(rle, Mapping):
        raise DataError("got polygons, wanted run lengths (size and counts)", where=where)
    return FoundRow(label, float(score), where, box, rle, joints)
