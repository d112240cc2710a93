"""Every system by name: one dictionary, written by hand, a file for each task.

create("resnet50")                                         the published layout (ImageNet's 1,000 classes)
create("resnet50", categories=["cat", "dog"])              yours
create("fasterrcnn_resnet18_fpn", categories, arguments={"min_size": 320})
"""

import dataclasses
import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from bestiary.errors import UsageError
from bestiary.recipes.recipe import Field, Recipe, attribute_docs
from bestiary.system import System
from bestiary.zoo.classifiers import CLASSIFIERS
from bestiary.zoo.detectors import DETECTORS
from bestiary.zoo.entry import Entry
from bestiary.zoo.segmenters import SEGMENTERS

__all__ = ["ZOO", "Entry", "build", "find", "list_models", "nearest", "recipe_of"]

ZOO: dict[str, Entry] = {**CLASSIFIERS, **DETECTORS, **SEGMENTERS}


def nearest(name: str, choices: Sequence[str]) -> str:
    """A sentence naming the choice closest to `name`, or all of them."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(choices)}"


def find(name: str) -> Entry:
    """The entry of `name`; raises `UsageError` with the nearest name."""
    if name not in ZOO:
        raise UsageError(f"no model is called {name!r}", mend=f"{nearest(name, list(ZOO))} `bestiary models` lists all")
    return ZOO[name]


def recipe_of(name: str) -> Recipe:
    """The recipe of `name`, with what its constructor takes beside categories and sizes as further fields."""
    build, recipe = find(name).build, find(name).recipe()
    hints, docs, sizes = get_type_hints(build), attribute_docs(build, "Args:"), recipe.pictures.arguments()
    options = {
        key: Field(key, hints[key], parameter.default, docs[key])
        for key, parameter in inspect.signature(build).parameters.items()
        if key != "categories" and key not in sizes
    }
    return dataclasses.replace(recipe, options=options)


def list_models(task: str | None = None) -> list[str]:
    """Names of all models, or of those of one task."""
    tasks = sorted({entry.task for entry in ZOO.values()})
    if task is not None and task not in tasks:
        raise UsageError(f"no task is called {task!r}", mend=nearest(task, tasks))
    return [name for name, entry in ZOO.items() if task is None or entry.task == task]


def build(name: str, categories: Sequence[str] | None = None, arguments: Mapping[str, Any] | None = None) -> System:
    """Construct a model by name, freshly initialised.

    Args:
        name: a name of the zoo.
        categories: the user's; None gives the published layout.
        arguments: further arguments of the constructor, checked against its signature, and of its kind of system.
    """
    entry, given = find(name), dict(arguments or {})
    known = entry.takes()
    for key in given:
        if key not in known:
            raise UsageError(f"{name} takes no argument {key!r}", mend=nearest(key, known))
    own = {key: given[key] for key in given if key in inspect.signature(entry.build).parameters}
    system = entry.build(None if categories is None else tuple(categories), **own)
    system.take({key: value for key, value in given.items() if key not in own})
    system.model_name, system.arguments = name, given
    return system
