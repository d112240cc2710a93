"""A network run without computing: every operator it calls, on tensors that have shapes but no values.

What needs no tracing works on any Python: branches, loops and shape arithmetic just run. Only a network that looks at
values (`if x.max() > 0`, suppression) is run for real.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from bestiary.records import require


@dataclass(frozen=True)
class Value:
    """A tensor that went through the network.

    Attributes:
        number: which; an operator that works in place gives its input back.
        shape: sizes.
    """

    number: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One call of an operator.

    Attributes:
        name: `aten`'s name without overload and without the underscore of the in-place form, as "max_pool2d".
        func: the operator.
        args: as handed over, tensors as `Value`.
        outputs: the tensors it gave.
        layer: dotted path of the innermost module that was running.
        multiply_adds: of a convolution, matrix product or attention; else 0.
    """

    name: str
    func: Any  # torch._ops.OpOverload, which torch does not export
    args: tuple[Any, ...]
    outputs: tuple[Value, ...]
    layer: str
    multiply_adds: int


@dataclass
class Call:
    """A module's calls: how many, and the shape of the first tensor of the last one's output."""

    times: int = 0
    output_shape: tuple[int, ...] = ()


@dataclass
class DryRun:
    """What happened, in order."""

    input: Value
    outputs: tuple[Value, ...] = ()
    steps: list[Step] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)


def dry_run(module: nn.Module, input_shape: Sequence[int]) -> DryRun:
    """Run `module` once in evaluation mode, without gradients, on an input of `input_shape` (batch included).

    The input has the dtype and device of the first floating parameter. Modes of the modules and all state are left as
    they were.

    Raises:
        RecordError: a shape that is none. What the module itself raises passes through.
    """
    shape = tuple(int(n) for n in input_shape)
    require(len(shape) > 0 and all(n > 0 for n in shape), "input_shape", input_shape, "positive sizes, batch first")
    training = [part for part in module.modules() if part.training]
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    # The fused fast path of nn.TransformerEncoderLayer is one opaque operator.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        try:
            return _run(module, shape, real=False)
        except (RuntimeError, NotImplementedError):
            return _run(module, shape, real=True)  # it needs values; or it is at fault, and says so again
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        for part in training:
            part.training = True


def _run(module: nn.Module, shape: tuple[int, ...], real: bool) -> DryRun:
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    pixels = torch.ones(shape, dtype=like.dtype, device=like.device)
    recorder = _Recorder()
    paths = {part: name for name, part in module.named_modules()}
    hooks = []
    for part in paths:
        hooks.append(part.register_forward_pre_hook(lambda m, _: recorder.enter(paths[m]), prepend=True))
        hooks.append(part.register_forward_hook(lambda m, _, out: recorder.leave(paths[m], out)))
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad():
            if real:
                with recorder:
                    run = DryRun(recorder.value(pixels))
                    out = module(pixels)
            else:
                stand_in = fake.from_tensor(pixels)
                with fake, recorder:
                    run = DryRun(recorder.value(stand_in))
                    out = module(stand_in)
        run.outputs = tuple(recorder.value(t) for t in tensors_in(out))
    finally:
        for hook in hooks:
            hook.remove()
    run.steps, run.calls = recorder.steps, recorder.calls
    return run


def tensors_in(tree: object) -> Iterable[Tensor]:
    """Tensors of nested tuples, lists, dictionaries and data classes, in order."""
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, "__dataclass_fields__"):
            yield from tensors_in([getattr(leaf, name) for name in leaf.__dataclass_fields__])


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.calls: dict[str, Call] = {}
        self._inside: list[str] = [""]
        self._numbers = WeakTensorKeyDictionary()
        self._count = 0

    def value(self, tensor: Tensor) -> Value:
        if tensor not in self._numbers:
            self._numbers[tensor] = self._count
            self._count += 1
        return Value(self._numbers[tensor], tuple(tensor.shape))

    def enter(self, path: str) -> None:
        self._inside.append(path)

    def leave(self, path: str, output: object) -> None:
        self._inside.pop()
        call = self.calls.setdefault(path, Call())
        call.times += 1
        call.output_shape = next((tuple(t.shape) for t in tensors_in(output)), ())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if func.namespace == "prim":  # questions, as for the device
            return func(*args, **kwargs)
        seen = tree_map(lambda leaf: self.value(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        out = func(*args, **kwargs)
        values = tuple(self.value(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        name = func.__name__.split(".")[0]
        name = name if name.endswith("__") else name.rstrip("_")
        if name.startswith("_scaled_dot_product"):  # torch has formulas for some of its forms only
            cost = attention_multiply_adds(*(tuple(t.shape) for t in args[:3]))
        elif packet in flop_registry:
            # torch counts a multiplication and an addition as two.
            cost = int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
        else:
            cost = 0
        self.steps.append(Step(name, func, _in_order(func, *seen), values, self._inside[-1], cost))
        return out


def attention_multiply_adds(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> int:
    """Of softmax(Q K^T) V on shapes `[..., queries, width]`, `[..., keys, width]`, `[..., keys, value width]`."""
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _in_order(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments by position, defaults filled in."""
    schema = func._schema.arguments
    rest = schema[len(args) :]
    return (*args, *(kwargs.get(argument.name, argument.default_value) for argument in rest))
