"""An exponential moving average of a system's weights, for measuring and saving."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def ema_decay(updates: int, decay: float) -> float:
    """Decay at update number `updates` (0-based): `min(decay, (1 + n) / (10 + n))`.

    The ramp lets the average forget the first weights, which are far from any good; it reaches 0.99 after 890 updates.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """Average of every floating-point tensor of a system's state (parameters and running statistics); others are
    copied.

    While the learning rate warms up the average only follows (a copy), as in torchvision's recipes, and its ramp begins
    after that.

    Attributes:
        averages: name -> average, for the floating-point entries of the state.
        updates: how many updates it has had after warm-up.
    """

    def __init__(self, module: nn.Module, decay: float, warmup_steps: int = 0) -> None:
        self.decay = decay
        self.warmup_steps = warmup_steps
        self.updates = 0
        self._live = {
            name: value.detach() for name, value in module.state_dict(keep_vars=True).items() if _averaged(value)
        }
        self.averages = {name: value.clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step number `step` (0-based)."""
        averages, live = list(self.averages.values()), list(self._live.values())
        if step < self.warmup_steps:
            torch._foreach_copy_(averages, live)
            return
        torch._foreach_lerp_(averages, live, 1.0 - ema_decay(self.updates, self.decay))
        self.updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The system holds the averages inside the block, and its own weights, bit for bit, after it."""
        live = list(self._live.values())
        with torch.no_grad():
            kept = [value.clone() for value in live]
            torch._foreach_copy_(live, list(self.averages.values()))
            try:
                yield
            finally:
                torch._foreach_copy_(live, kept)

    def adopt(self, names: Iterable[str]) -> None:
        """Take these entries as the system has them now."""
        with torch.no_grad():
            for name in names:
                self.averages[name].copy_(self._live[name])

    def load(self, averages: Mapping[str, Tensor], updates: int) -> None:
        """Go on from saved averages, whose names must be those of this average."""
        for name, value in self.averages.items():
            value.copy_(averages[name])
        self.updates = updates


def _averaged(value: Tensor) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
