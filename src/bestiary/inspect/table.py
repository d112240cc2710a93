"""A network layer by layer: what it gives, what it costs and how much of the picture it sees."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bestiary.inspect.layers import Tap
from bestiary.layers.response_norm import LocalResponseNorm
from bestiary.ops.costs import network_costs
from bestiary.ops.receptive_fields import ReceptiveField, receptive_field
from bestiary.ops.shapes import Field

FIELD_SIDES = (512, 2048)
"""Sides of pictures on which fields are found: the first that cuts none by its borders, else the last."""


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: dotted path; empty for what the network does itself.
        kind: its class.
        output_shape: batch first, of its first run; empty if it does not run in `forward`.
        parameters: its own.
        multiply_adds: on one picture, of all its runs.
        fields: along height and width, of the middle position far from borders; None for layers without a map.
        whole: it sees the whole picture, however large (or more than the last of `FIELD_SIDES`).
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    fields: tuple[Field, ...] | None
    whole: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        spatial = self.fields is not None and not self.whole
        return {
            "name": self.name,
            "kind": self.kind,
            "output_shape": list(self.output_shape),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "field_size": [f.size for f in self.fields or ()] if spatial else ("whole" if self.whole else None),
            "stride": [f.stride for f in self.fields or ()] if spatial else None,
            "first_centre": [f.offset for f in self.fields or ()] if spatial else None,
        }


@dataclass(frozen=True)
class LayerTable:
    """All layers that have no further parts, and those that calculate themselves, in the order in which they run.

    Attributes:
        input_shape: that shapes and multiply-adds belong to.
        rows: the layers.
        widened: operators of which the table does not know what they see, taken to see everything.
    """

    input_shape: tuple[int, ...]
    rows: tuple[LayerRow, ...]
    widened: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Of the network, each once."""
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Of one pass over `input_shape`."""
        return sum(row.multiply_adds for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "input_shape": list(self.input_shape),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "layers": [row.to_dict() for row in self.rows],
            "widened": list(self.widened),
        }

    def __str__(self) -> str:
        head = ("layer", "kind", "output", "parameters", "multiply-adds", "sees", "stride", "first centre")
        lines = [head, *(row_cells(row) for row in self.rows)]
        shape = by_times(self.input_shape[1:])
        lines.append(("total", "", f"of {shape}", f"{self.parameters:,}", f"{self.multiply_adds:,}", "", "", ""))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        left = 2  # names to the left, numbers to the right
        text = []
        for line in lines:
            cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
            text.append("  ".join(cells).rstrip())
        return "\n".join(text)


def layer_table(net: nn.Module, input_shape: Sequence[int]) -> LayerTable:
    """Every layer of a network, with what it costs on `input_shape` and what it sees.

    Receptive fields are exact over all paths (`ops.receptive_fields`) and found on larger pictures
    (`FIELD_SIDES`), without computing. Layers that those do not reach, and maps of one size whatever the picture's
    (adaptive pooling), are looked at on `input_shape`.

    Args:
        net: any network; left as it was.
        input_shape: `(B, C, H, W)`.

    Raises:
        RecordError: no such shape. What the network raises on such an input passes through.
    """
    shape = tuple(int(n) for n in input_shape)
    costs = {layer.name: layer for layer in network_costs(net, shape).layers}
    parts = {name: part for name, part in net.named_modules() if name in costs or not any(part.children())}
    native, order = _fields(net, list(parts), shape)
    large = _unclipped(net, list(parts), shape, native)
    rows = []
    for name in (*order, *(n for n in costs if n not in order)):
        cost, found, far = costs.get(name), native.get(name), large.get(name, native.get(name))
        mapped = found is not None and len(found.shape) == len(shape) and max(found.shape[2:]) > 1
        rows.append(
            LayerRow(
                name,
                type(parts[name]).__name__,
                found.shape if found else (),
                cost.parameters if cost else 0,
                cost.multiply_adds if cost else 0,
                tuple(axis.field for axis in far.axes) if far is not None and mapped else None,
                far is not None and all(axis.clipped for axis in far.axes),
            )
        )
    widened = dict.fromkeys(word for found in (native, large) for field in found.values() for word in field.widened)
    return LayerTable(shape, tuple(rows), tuple(widened))


def _unclipped(
    net: nn.Module, paths: list[str], shape: tuple[int, ...], native: dict[str, ReceptiveField]
) -> dict[str, ReceptiveField]:
    """Field of each layer whose map grows with the picture, on one large enough."""
    grown: dict[str, ReceptiveField] = {}
    for side in FIELD_SIDES:
        found, _ = _fields(net, paths, (1, shape[1], *(max(side, n) for n in shape[2:])))
        grown = {
            name: field
            for name, field in found.items()
            if name not in native or field.shape[2:] != native[name].shape[2:]
        }
        if not any(field.clipped for field in grown.values()):
            break
    return grown


def _fields(net: nn.Module, paths: list[str], shape: tuple[int, ...]) -> tuple[dict[str, ReceptiveField], list[str]]:
    """Field of each layer that is reached, and their order."""
    tap = Tap(net, paths, lenient=True)
    with _neighbours_by_channel(net):
        fields = receptive_field(tap, shape)
    return dict(zip(tap.reached, fields, strict=True)), list(tap.reached)


@contextmanager
def _neighbours_by_channel(net: nn.Module) -> Iterator[None]:
    """Response normalisation passed over: it looks at other channels of the same position, which see the same, but
    written as sums over shifted channels it would be followed channel by channel, in gigabytes."""
    parts = [part for part in net.modules() if isinstance(part, LocalResponseNorm)]
    for part in parts:
        part.forward = torch.clone  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def by_times(numbers: Sequence[int]) -> str:
    """Sizes as people write them: 64x56x56."""
    return "x".join(map(str, numbers))


def equal_or_both(numbers: Sequence[int | float]) -> str:
    """One number where height and width agree, else both; a dash where it cannot be told."""
    texts = ["–" if n != n else f"{n:g}" for n in numbers]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def row_cells(row: LayerRow) -> tuple[str, ...]:
    """One line of the table, as text."""
    fields = row.fields if row.fields is not None and not row.whole else None
    return (
        row.name or "(itself)",
        row.kind,
        by_times(row.output_shape[1:]) if row.output_shape else "not run",
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.multiply_adds:,}" if row.multiply_adds else "",
        equal_or_both([f.size for f in fields]) if fields else ("all" if row.whole else ""),
        equal_or_both([f.stride for f in fields]) if fields else "",
        equal_or_both([f.offset for f in fields]) if fields else "",
    )
