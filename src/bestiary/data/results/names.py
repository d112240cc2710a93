"""Which picture of the truth a result speaks of, by whatever the program that wrote it called it."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath

from bestiary.data.index import RawPicture
from bestiary.errors import DataError

_SEVERAL = -1
_MOST_COMPARED = 5000
"""Names that a misspelt one is compared with."""


class PictureNames:
    """Finds pictures by their id in the annotation file, or by as much of their path as is unique, with or without
    suffix.

    `a/b/1.jpg`, `b/1.jpg`, `1.jpg`, `b/1` and `1` all mean the picture `a/b/1.jpg`, if no other answers to them.

    Args:
        pictures: of the truth.
    """

    def __init__(self, pictures: Sequence[RawPicture]) -> None:
        self.pictures = pictures
        self._ids = {p.extra["id"]: i for i, p in enumerate(pictures) if isinstance(p.extra.get("id"), int | str)}
        self._names: dict[str, int] = {}
        for i, picture in enumerate(pictures):
            for tail in _tails(picture.name):
                self._names[tail] = i if self._names.get(tail, i) == i else _SEVERAL

    def by_id(self, key: object) -> int | None:
        """The picture with this id in its annotation file."""
        return self._ids.get(key) if isinstance(key, int | str) else None

    def by_name(self, name: str, where: str) -> int | None:
        """The picture that `name` means; None if none does.

        Raises:
            DataError: several pictures answer to it.
        """
        wanted = name.replace("\\", "/").strip("/")
        parts = wanted.split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for text in (tail, _stem(tail)):
                found = self._names.get(text)
                if found == _SEVERAL:
                    same = [p.name for p in self.pictures if text in _tails(p.name)]
                    mend = "Name results by the path of the picture, as far as it takes to tell them apart"
                    raise DataError(f"{name!r} may mean {same[0]} or {same[1]}", where=where, mend=mend)
                if found is not None:
                    return found
        return None

    def nearest(self, name: object) -> str | None:
        """The picture whose name is most like `name`, for a message."""
        names = {_stem(p.name.rsplit("/", 1)[-1]): p.name for p in self.pictures[:_MOST_COMPARED]}
        close = get_close_matches(_stem(str(name).rsplit("/", 1)[-1]), names, 1, 0.6)
        return names[close[0]] if close else None


def _stem(path: str) -> str:
    """Without the suffix, where what follows the last dot looks like one."""
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{0,4}", suffix) else path


def _tails(name: str) -> list[str]:
    """Everything that a picture answers to."""
    parts = name.split("/")
    whole = ["/".join(parts[start:]) for start in range(len(parts))]
    return list(dict.fromkeys([*whole, *map(_stem, whole)]))
