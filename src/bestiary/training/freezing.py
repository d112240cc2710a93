"""Parts that stay bit for bit as they are: their parameters get no gradient and their buffers no update."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from bestiary.errors import UsageError
from bestiary.training.settings import nearest


@dataclass(frozen=True)
class Frozen:
    """What `freeze` froze.

    Attributes:
        modules: the frozen parts, with all inside them.
        names: names of the frozen parameters.
    """

    modules: tuple[nn.Module, ...]
    names: tuple[str, ...]

    def hold(self) -> None:
        """Put the frozen parts into evaluation mode: norms use and keep their statistics, dropout is off.

        To be called after every `system.train()`, which would wake them.
        """
        for module in self.modules:
            module.eval()


def freeze(module: nn.Module, prefixes: Sequence[str]) -> Frozen:
    """Freeze the parts of `module` that `prefixes` name: modules (`backbone.stem`) or single parameters (`head.bias`).

    Raises:
        UsageError: a prefix names nothing; the known ones are listed.
    """
    require_known(module, prefixes, "freeze")
    frozen = []
    for name, parameter in module.named_parameters():
        if any(is_within(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(False)
            frozen.append(name)
    parts = dict(module.named_modules())
    return Frozen(tuple(parts[prefix] for prefix in prefixes if prefix in parts), tuple(frozen))


def is_within(name: str, prefix: str) -> bool:
    """Whether the parameter `name` is `prefix` or belongs to the part of that name (whole words between dots)."""
    return name == prefix or name.startswith(prefix + ".")


def require_known(module: nn.Module, prefixes: Sequence[str], where: str) -> None:
    """Raise `UsageError`, listing the parts, unless every prefix names a part or a parameter of `module`.

    A part is known if a parameter stands in it; the list goes two names deep (`backbone`, `backbone.stem`).
    """
    names = [name for name, _ in module.named_parameters()]
    for prefix in prefixes:
        if not any(is_within(name, prefix) for name in names):
            parts = list(
                dict.fromkeys(
                    ".".join(n.split(".")[:depth]) for n in names for depth in (1, 2) if n.count(".") >= depth
                )
            )
            close = nearest(prefix, parts)
            listed = ", ".join(parts or names)
            raise UsageError(
                f"no part is called {prefix!r}", where=where, mend=f"{close or ''} Known parts: {listed}".strip()
            )
