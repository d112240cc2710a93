"""Receptive fields of any network: exactly, operator by operator, and by gradients as the empirical twin."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from bestiary.ops.dry_run import DryRun, Value, dry_run
from bestiary.ops.field_rules import Known, Reach, collapsed, everything, of_input, rule_of, seen, values_in
from bestiary.ops.shapes import Field
from bestiary.records import require


@dataclass(frozen=True)
class AxisReach:
    """Along one axis: the input pixels that can reach each output position.

    Attributes:
        first: index of the first pixel of each position; the input's size where nothing reaches it.
        last: index of the last one; -1 where nothing reaches it.
        input_size: pixels.
    """

    first: Int64[Tensor, " n"]
    last: Int64[Tensor, " n"]
    input_size: int

    @property
    def sizes(self) -> Int64[Tensor, " n"]:
        """Pixels from the first to the last, both counted, of each position; cut by the borders of the input."""
        return (self.last - self.first + 1).clamp(min=0)

    @property
    def clipped(self) -> bool:
        """Whether the middle position's field ends at a border of the input: a larger one may show more of it."""
        middle = len(self.first) // 2
        return bool(self.first[middle] <= 0 or self.last[middle] >= self.input_size - 1)

    @property
    def field(self) -> Field:
        """Of the middle position; the stride is NaN where the borders cut too many fields to tell it."""
        middle = len(self.first) // 2
        free_first, free_last = (
            (self.first > 0) & (self.last >= 0),
            (self.last < self.input_size - 1) & (self.last >= 0),
        )
        by_first, by_last = _slope(self.first, free_first), _slope(self.last, free_last)
        stride = by_first if by_first[0] >= by_last[0] else by_last
        centre = (int(self.first[middle]) + int(self.last[middle]) + 1) / 2
        return Field(int(self.sizes[middle]), stride[1], centre - middle * stride[1])


def _slope(ends: Tensor, free: Tensor) -> tuple[int, float]:
    """Steps looked at, and pixels a step, over the positions that no border cuts.

    The longest power of two of steps: fields of a map that was upsampled by such a factor repeat after that many.
    """
    at = torch.nonzero(free).flatten()
    if len(at) < 2:
        return 0, float("nan")
    start, steps = int(at[0]), 1
    while start + 2 * steps <= int(at[-1]):
        steps *= 2
    return steps, int(ends[start + steps] - ends[start]) / steps


@dataclass(frozen=True)
class ReceptiveField:
    """Of one output tensor.

    Attributes:
        shape: of the output.
        axes: one for each spatial axis of the input. A tensor without the input's axes (logits) is one position that
            sees whatever any of its values sees.
        widened: operators without a rule, taken to let everything see everything: the truth may be smaller.
    """

    shape: tuple[int, ...]
    axes: tuple[AxisReach, ...]
    widened: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels that the middle position sees, an axis."""
        return tuple(axis.field.size for axis in self.axes)

    @property
    def clipped(self) -> bool:
        """Whether the middle position's field ends at a border on any axis."""
        return any(axis.clipped for axis in self.axes)


def receptive_field(module: nn.Module, input_shape: Sequence[int]) -> tuple[ReceptiveField, ...]:
    """For each output tensor, in order, which input pixels can reach each of its positions.

    Convention: exact hulls: from the first to the last pixel that some weights could connect, over all paths (branches,
    residual additions, concatenations); holes of dilation lie inside. Padding is not input: fields end at the border,
    and `clipped` says so. For the field as papers state it, give an input larger than it: nothing is computed, so that
    (1, 3, 4096, 4096) costs little more than (1, 3, 224, 224). Normalisation over positions (group, instance) and gates
    with global pooling see the whole map, as they do in truth; batch normalisation uses its running statistics.

    Args:
        module: run once in evaluation mode, left as it was.
        input_shape: `(B, C, *spatial)`.

    Raises:
        RecordError: no spatial axis, or sizes that are not positive. What the module raises on such an input passes
            through.
    """
    require(len(input_shape) >= 3, "receptive_field(input_shape)", tuple(input_shape), "(B, C, spatial sizes)")
    run = dry_run(module, input_shape)
    known, widened = _replay(run)
    return tuple(_of_output(run, known.get(out.number), out.shape, widened) for out in run.outputs)


def _replay(run: DryRun) -> tuple[Known, tuple[str, ...]]:
    """What is known of every value, and the operators that had to be widened."""
    known: Known = {run.input.number: of_input(run.input.shape)}
    sharing: dict[int, dict[int, Value]] = {}  # number -> all values in the same memory, by number
    stale: dict[int, Reach] = {}  # values of which a part was written through another view
    widened: dict[str, None] = {}

    def refresh(value: Value) -> None:
        if value.number in stale:
            known[value.number] = stale.pop(value.number)
            widened["writing into a view"] = None

    for step in run.steps:
        values = values_in(step.args)
        for value in values:
            refresh(value)
        for out in step.outputs:
            if out.number not in sharing:
                group = sharing.get(values[0].number) if values and getattr(step.func, "is_view", False) else None
                sharing[out.number] = {} if group is None else group
                sharing[out.number][out.number] = out
        if not seen(step.args, known):
            continue
        rule = rule_of(step)
        if rule is None:
            widened[step.name] = None
        writes = bool(values) and any(out.number == values[0].number for out in step.outputs)
        before = known.get(values[0].number)
        for out, reach in zip(step.outputs, (rule or everything)(step, known), strict=False):
            known[out.number] = reach
        if writes and not _same(before, known.get(values[0].number)):
            _mark_stale(sharing.get(values[0].number, {}), values[0].number, known, stale)
    for out in run.outputs:
        refresh(out)
    return known, tuple(widened)


def _same(before: Reach | None, after: Reach | None) -> bool:
    if before is None or after is None:
        return before is after
    return all(torch.equal(collapsed(b), collapsed(a)) for b, a in zip(before, after, strict=True))


def _mark_stale(group: dict[int, Value], writer: int, known: Known, stale: dict[int, Reach]) -> None:
    """The other views of the memory that `writer` wrote to: should they be read, all of them sees all of it."""
    for value in group.values():
        if value.number != writer:
            reaches = [known[n] for n in (writer, value.number) if n in known]
            ends = [torch.stack([part.amin() for part in parts]).amin() for parts in zip(*reaches, strict=True)]
            stale[value.number] = tuple(end.expand(*value.shape) for end in ends)


def _of_output(run: DryRun, reach: Reach | None, shape: tuple[int, ...], widened: tuple[str, ...]) -> ReceptiveField:
    spatial = run.input.shape[2:]
    mapped = len(shape) == len(run.input.shape)
    axes = []
    for i, size in enumerate(spatial):
        count = shape[2 + i] if mapped else 1
        if reach is None:
            first, last = torch.full((count,), size), torch.full((count,), -1)
        else:
            others = [a for a in range(len(shape)) if not mapped or a != 2 + i]
            low, high = (part.amin(others) if others else part for part in reach[2 * i : 2 * i + 2])
            first = low.reshape(count).clamp(max=size).to(torch.int64)
            last = (-high).reshape(count).clamp(min=-1).to(torch.int64)
        axes.append(AxisReach(first, last, size))
    return ReceptiveField(shape, tuple(axes), widened)
