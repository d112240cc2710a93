"""What is learned without gradients: buffers whose shapes the data decide."""

from collections.abc import Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor, nn


class Learned(nn.Module):
    """A part (a vocabulary, an SVM, a subspace) that is filled by fitting. It is saved and loaded as any module.

    The constructor says `self.declare("centres")`; fitting says `self.learn("centres", tensor)`.
    """

    def declare(self, *names: str) -> None:
        """Make room for what will be learned: buffers that are empty until `learn`."""
        for name in names:
            self.register_buffer(name, torch.zeros(0))
            self._declared = (*self.declared, name)

    @property
    def declared(self) -> tuple[str, ...]:
        """Names of this part's own declared buffers."""
        return tuple(self.__dict__.get("_declared", ()))

    def learn(self, name: str, value: Shaped[Tensor, "..."]) -> None:
        """Fill a declared buffer; `KeyError` if it was not declared."""
        if name not in self.declared:
            raise KeyError(name)
        self._buffers[name] = value.detach().clone()

    @property
    def is_fitted(self) -> bool:
        """Whether anything was learned, here or in a part of it."""
        parts = [module for module in self.modules() if isinstance(module, Learned)]
        return any(getattr(part, name).numel() for part in parts for name in part.declared)


def make_room(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give every declared buffer in `module` the shape and type that it has in `state`, so that the state can be copied
    in.
    """
    for prefix, part in module.named_modules():
        for name in part.declared if isinstance(part, Learned) else ():
            value = state.get(f"{prefix}.{name}" if prefix else name)
            if value is not None:
                part._buffers[name] = torch.empty_like(value)
