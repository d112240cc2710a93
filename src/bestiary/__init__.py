"""Bestiary: every system of the deep visual-recognition lineage, trainable on your own data.

import bestiary

model = bestiary.create("fasterrcnn_resnet18_fpn", categories=["cat", "dog"])
run = bestiary.train("fasterrcnn_resnet18_fpn", data="my_pictures")
model = bestiary.load(run.best)
for prediction in model.stream("holiday/*.jpg"):
    prediction.above(0.5).draw()
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_VERBS = ("create", "cut", "embed", "evaluate", "export", "list_models", "load", "score", "train")
__all__ = ["__version__", "create", "cut", "embed", "evaluate", "export", "list_models", "load", "score", "train"]


def __getattr__(name: str) -> Any:
    """The verbs are imported when first used, so that `import bestiary` costs nothing."""
    if name in _VERBS:
        return getattr(import_module("bestiary.verbs"), name)
    raise AttributeError(f"module 'bestiary' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_VERBS])
