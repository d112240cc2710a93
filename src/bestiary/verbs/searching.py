"""Pictures found again in a data set by what they share with a query."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from bestiary import draw
from bestiary.classification.image_search import Found, ImageSearch
from bestiary.errors import UsageError
from bestiary.features.thumbnails import SIDE, shrink
from bestiary.pictures.encode import write_image
from bestiary.pictures.sources import Source, iterate
from bestiary.verbs.models import load


@dataclass(frozen=True, eq=False)
class Answers:
    """What one query found.

    Attributes:
        query: its name.
        image: its picture.
        found: best first.
    """

    query: str
    image: Shaped[Tensor, "C H W"]
    found: list[Found]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"query": self.query, "found": [{"rank": i + 1, **f.to_dict()} for i, f in enumerate(self.found)]}


def open_search(model: str | Path) -> ImageSearch:
    """A fitted image search from its file or run folder.

    Raises:
        UsageError: the model is none.
        CheckpointError: no such file, or it is broken.
    """
    system = load(model)
    if not isinstance(system, ImageSearch):
        name = getattr(system, "model_name", "") or type(system).__name__
        mend = "`bestiary train image_search --data FOLDER` makes one"
        raise UsageError(f"got the model {name!r}, wanted an image search", where=str(model), mend=mend)
    return system


def search(
    system: ImageSearch, queries: Source, top: int = 10, say: Callable[[str], None] = lambda _: None
) -> Iterator[Answers]:
    """The best answers to each query, one query after another; a picture that cannot be decoded is named and skipped.

    Raises:
        UsageError: `top` is below 1.
    """
    if top < 1:
        raise UsageError(f"got {top}, wanted 1 or more", where="--top")
    for picture in iterate(queries, on_error=lambda e: say(f"skipped: {e}")):
        with torch.inference_mode():
            yield Answers(picture.name, picture.image, system.search([picture.image], top)[0])


def write_sheet(system: ImageSearch, answers: list[Answers], path: str | Path, top: int = 10) -> None:
    """Each query with its answers beside it, one row a query, written as a picture.

    Raises:
        UsageError: there is no query, or the file's suffix is no picture's.
    """
    if not answers:
        raise UsageError("got no query, wanted at least one picture", where="--sheet")
    blank = torch.full((3, SIDE, SIDE), 255, dtype=torch.uint8)
    columns = 1 + max(1, min(top, max(len(a.found) for a in answers)))
    pictures, titles = [], []
    for answer in answers:
        row = [(shrink(answer.image), "query")]
        for place, found in enumerate(answer.found[: columns - 1], start=1):
            row.append((system.thumbnails.picture(found.index), f"{place}: {found.score:.2f}, {found.inliers} inliers"))
        row += [(blank, "")] * (columns - len(row))
        pictures += [picture for picture, _ in row]
        titles += [title for _, title in row]
    write_image(path, draw.grid(pictures, columns, titles))
