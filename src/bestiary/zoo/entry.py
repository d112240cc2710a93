"""What the zoo says of one name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_type_hints

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

    def takes(self) -> tuple[str, ...]:
        """Names of the arguments beside the categories: the constructor's, and those that every system of the kind that
        it makes takes.
        """
        own = [name for name in inspect.signature(self.build).parameters if name != "categories"]
        return (*own, *sorted(self.made().further_arguments - set(own)))

    def made(self) -> type[System]:
        """The class of what the constructor makes."""
        return self.build if isinstance(self.build, type) else get_type_hints(self.build)["return"]
