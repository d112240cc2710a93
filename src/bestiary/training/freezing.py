"""Parts that stay bit for bit as they are: their parameters get no gradient and their buffers no update."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from bestiary.errors import UsageError
from bestiary.heads.last_layer import head_names
from bestiary.system import System
from bestiary.training.settings import nearest

HEAD = "head"
"""In `train_only`: whatever part makes the system's answers."""


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


def freeze(module: nn.Module, prefixes: Sequence[str], train_only: Sequence[str] = ()) -> Frozen:
    """Freeze parts of `module`, named as modules (`backbone.stem`) or single parameters (`head.bias`).

    Args:
        module: its parameters' `requires_grad` is set.
        prefixes: parts to freeze.
        train_only: if any, all but these are frozen; `head`, where no part has that name, is a system's head. Dropout
            outside them is off too: the trained parts see what prediction will show them.

    Raises:
        UsageError: a prefix names nothing; the known ones are listed. `train_only` holds nothing to train.
    """
    require_known(module, prefixes, "freeze")
    trained = _trained(module, train_only)
    frozen = []
    for name, parameter in module.named_parameters():
        left_out = bool(trained) and not any(is_within(name, part) for part in trained)
        if left_out or any(is_within(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(False)
            frozen.append(name)
    parts = dict(module.named_modules())
    held = [parts[prefix] for prefix in prefixes if prefix in parts]
    return Frozen((*held, *(_outside(module, trained) if trained else ())), tuple(frozen))


def _trained(module: nn.Module, train_only: Sequence[str]) -> tuple[str, ...]:
    names: list[str] = []
    for part in train_only:
        has_it = any(is_within(name, HEAD) for name, _ in module.named_parameters())
        names += head_names(module) if part == HEAD and not has_it and isinstance(module, System) else (part,)
    require_known(module, names, "train_only")
    return tuple(names)


def _outside(module: nn.Module, trained: Sequence[str], prefix: str = "") -> Iterator[nn.Module]:
    """The largest parts that hold nothing trained."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if any(is_within(path, part) for part in trained):
            continue
        if any(is_within(part, path) for part in trained):
            yield from _outside(child, trained, path + ".")
        else:
            yield child


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
