"""A second device without one: tensors that say they are elsewhere, with their values kept in CPU memory.

What a GPU would refuse is refused: operators over tensors of both devices, `numpy()`, CPU kernels that read a pointer.
Operators of this project ("bestiary::...") are entered as they would be there, with tensors that are not on the CPU, so
that their plain path runs, and its answers can be compared with the kernel's. What cannot be seen so is what the real
device's own kernels compute, and how fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "second"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
CPU = torch.device("cpu")
ACROSS = ("aten::_to_copy", "aten::copy_")
"""What may read one device and write the other."""
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
"""What takes positions from the CPU wherever the values are."""


class Elsewhere(Tensor):
    """A tensor on the second device."""

    content: Tensor

    @staticmethod
    def __new__(cls, content: Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            content.shape,
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=DEVICE,
        )
        made.content = content
        return made

    def tolist(self) -> Any:
        """Read back, as a GPU's is: torch refuses it for classes of one's own."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Elsewhere({self.content!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operator: on the CPU's values, if they are all of one device."""
    name = func._schema.name
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in tensors if isinstance(x, Elsewhere)]
    asked = kwargs.get("device")
    there = bool(ours) if asked is None else torch.device(asked).type == DEVICE.type
    if name.startswith("bestiary::"):
        with SecondDevice():
            return OPDEFS[name]._backend_fns[None](*args, **kwargs)
    if func.has_kernel_for_dispatch_key(
        torch._C.DispatchKey.CompositeImplicitAutograd
    ):  # in inference mode they arrive whole
        with SecondDevice():
            return func.decompose(*args, **kwargs)
    if ours and len(ours) < len(tensors) and name not in ACROSS:
        first = args[0] if args else None
        others = [x for x in tensors if not isinstance(x, Elsewhere) and x.dim()]
        if others and not (name in INDEXING and isinstance(first, Elsewhere) and all(x is not first for x in others)):
            raise RuntimeError(f"{name}: tensors on {DEVICE} and on the CPU: {[tuple(x.shape) for x in others]}")
    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}

    def unwrap(x: Any) -> Any:
        return x.content if isinstance(x, Elsewhere) else x

    with _disable_current_modes():
        found = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if name == "aten::copy_":
        there = isinstance(args[0], Elsewhere)
    if not there:
        return found
    known = {id(x.content): x for x in ours}

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x)

    return return_and_correct_aliasing(func, args, kwargs, tree_map(wrap, found))


ATEN = torch.library.Library("aten", "IMPL", "PrivateUse1")
for overload in ("empty_strided", "empty.memory_format", "copy_"):
    # What `torch.tensor(values, device=...)` calls where the modes do not see it.
    operator, _, which = overload.partition(".")
    found = getattr(getattr(torch.ops.aten, operator), which or "default")
    ATEN.impl(overload, lambda *args, func=found, **kwargs: run(func, args, kwargs))


class SecondDevice(TorchDispatchMode):
    """Within it tensors can be made on the second device and sent there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


@contextmanager
def second_device() -> Iterator[torch.device]:
    """The device to send things to."""
    with SecondDevice():
        yield DEVICE


def there(value: Any, device: torch.device = DEVICE) -> Any:
    """All tensors of a structure, sent to a device."""
    return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, value)


def here(value: Any) -> Any:
    """All tensors of a structure, brought back."""
    return tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, value)
