"""How long each part of a prediction took: proposals, features, heads."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class PartTimes:
    """Seconds by part, added up until `clear`.

        with times.of("features"):
            maps = self.backbone(pixels)

    Work that an accelerator has not finished counts for the part that queued it: both borders of a part wait for the
    device. A part within a part counts for both.

    Attributes:
        seconds: name -> seconds, in the order in which the parts first ran.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def clear(self) -> None:
        """Forget what was measured."""
        self.seconds.clear()

    @contextmanager
    def of(self, name: str, module: nn.Module | None = None) -> Iterator[None]:
        """Add the time of the block to `name`; also if it fails.

        Args:
            name: of the part.
            module: whose device is waited for; None for work on the processor.
        """
        wait_for(module)
        begun = time.perf_counter()
        try:
            yield
        finally:
            wait_for(module)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def wait_for(module: nn.Module | None) -> None:
    """Until the device of the module's parameters has done what was queued; at once on a processor."""
    parameter = None if module is None else next(module.parameters(), None)
    if parameter is not None and parameter.device.type == "cuda":
        torch.cuda.synchronize(parameter.device)
