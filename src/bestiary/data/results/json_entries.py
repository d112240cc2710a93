"""Fields of one detection in a JSON document of results, checked; what is wrong is said with its place."""

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.errors import DataError
from bestiary.metrics.json_files import field_of


def number_of(entry: Mapping[str, Any], name: str, where: str) -> float:
    """The number under `name`; `DataError` if there is none."""
    value = field_of(entry, name, where)
    if not _is_number(value):
        raise DataError(f"got the {name} {value!r}, wanted a number", where=where)
    return float(value)


def list_of(entry: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """The list under `name`; `DataError` if there is none."""
    value = field_of(entry, name, where)
    if not isinstance(value, list):
        raise DataError(f"got {name} that is no list", where=where)
    return value


def corners_of(value: Any, name: str, wanted: str, where: str) -> tuple[float, float, float, float]:
    """A box's four numbers.

    Args:
        value: as it was written.
        name: of its field.
        wanted: what the four are, for the message.
        where: file and entry.

    Raises:
        DataError: no list of four numbers.
    """
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise DataError(f"got {name} {value!r}, wanted {wanted}", where=where)
    a, b, c, d = map(float, value)
    return a, b, c, d


def joints_of(values: Sequence[Any], where: str) -> list[int | float]:
    """Numbers in threes, flat; `DataError` if they are not."""
    if not all(map(_is_number, values)) or len(values) % 3 or not values:
        raise DataError(f"got keypoints {repr(list(values))[:60]}, wanted three numbers a joint", where=where)
    return list(values)


def runs_of(value: Any, name: str, where: str) -> Mapping[str, Any]:
    """COCO's run lengths, not yet decoded; `DataError` if it is something else, such as polygons."""
    if not isinstance(value, Mapping):
        raise DataError(f"got {name} that is no object, wanted run lengths (size and counts)", where=where)
    return value


def _is_number(value: Any) -> bool:
    """NaN is a number here, so that it is refused by its name; a whole number that no float holds is none."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)
