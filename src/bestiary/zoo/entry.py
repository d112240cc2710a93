"""What the zoo says of one name."""

from collections.abc import Callable
from dataclasses import dataclass

from bestiary.recipes.recipe import Recipe
from bestiary.system import System


@dataclass(frozen=True)
class Entry:
    """One name of the zoo.

    Attributes:
        build: the constructor; takes `categories` and its own further arguments.
        paper: authors, title, venue.
        recipe: how it is trained by default.
        note: which variant this is.
    """

    build: Callable[..., System]
    paper: str
    recipe: Callable[[], Recipe]
    note: str = ""

    @property
    def task(self) -> str:
        """What the system recognises: "classification", "detection", "segmentation"."""
        return self.recipe().task
