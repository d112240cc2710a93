"""Small systems with answers worth comparing, and how they are exported while the tests run."""

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import torch

from bestiary import zoo
from bestiary.system import System


def small_system(name: str) -> System:
    """A tiny member of each kind, with weights that make its answers differ from place to place."""
    torch.manual_seed(3)
    if name == "fasterrcnn_resnet18_fpn":
        system = zoo.build(name, ("cat", "dog", "bird"), {"min_size": 96, "max_size": 160})
        with torch.no_grad():
            # Random weights say "background, perhaps" everywhere: a steeper classifier finds things.
            system.get_parameter("roi_heads.box_predictor.cls_score.weight").mul_(6)
    elif name == "resnet18_cifar":
        system = zoo.build(name, ("cat", "dog", "bird"))
    else:
        system = zoo.build(name, ("background", "cell"), {"width": 4})
    return system.eval()


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the shape checks of the tests: the exporter's symbolic sizes are no numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
