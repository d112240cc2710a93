"""JSON documents that users hand in: what is missing or broken is said with its place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestiary.errors import DataError


def load_json(path: Path) -> Any:
    """The file's document.

    Raises:
        DataError: it is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError("got no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}", where=str(path)) from error


def field_of(entry: Any, name: str, where: str) -> Any:
    """The field `name` of an object; `DataError` if it is not there."""
    if not isinstance(entry, Mapping) or name not in entry:
        raise DataError(f"got no {name!r}", where=where)
    return entry[name]
