"""What an evaluator says: numbers, the protocol they were taken by, and what lies behind them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bestiary.records import require


@dataclass(frozen=True, eq=False)
class Scores:
    """Numbers of one evaluation.

    Attributes:
        headline: the key of `values` by which models are chosen; higher is better.
        values: name -> number; NaN where there was nothing to measure (no small object, say).
        protocol: how the numbers were taken, short enough to stand beside them.
        per_class: category -> name -> number.
        details: what a report needs beyond numbers (curves, confusion matrices, thresholds); numbers, strings, lists,
            mappings, arrays.

    Raises:
        RecordError: `headline` is not a key of `values`, or the protocol is empty.
    """

    headline: str
    values: dict[str, float]
    protocol: str
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.headline in self.values, "Scores.headline", repr(self.headline), f"one of {list(self.values)}")
        require(bool(self.protocol.strip()), "Scores.protocol", "nothing", "how the numbers were taken")

    @property
    def value(self) -> float:
        """The headline's number."""
        return self.values[self.headline]

    def lines(self, per_class: bool = False) -> list[str]:
        """Plain text: the headline first, the other numbers, the classes if asked for, and the protocol last."""
        width = max(len(name) for name in self.values)
        ordered = [self.headline, *(name for name in self.values if name != self.headline)]
        lines = [f"{name:<{width}}  {format_number(self.values[name], name)}" for name in ordered]
        if per_class and self.per_class:
            wide = max(len(name) for name in self.per_class)
            for category, numbers in self.per_class.items():
                shown = "  ".join(f"{name} {format_number(number, name)}" for name, number in numbers.items())
                lines.append(f"{category:<{wide}}  {shown}")
        return [*lines, f"({self.protocol})"]

    def table(self, per_class: bool = False) -> Any:
        """A `rich.table.Table` of the numbers (or of the classes), the protocol under it."""
        from rich.table import Table

        table = Table(caption=self.protocol, caption_justify="left")
        if per_class and self.per_class:
            columns = list(dict.fromkeys(name for numbers in self.per_class.values() for name in numbers))
            table.add_column("category")
            for name in columns:
                table.add_column(name, justify="right")
            for category, numbers in self.per_class.items():
                table.add_row(category, *(format_number(numbers.get(name, math.nan), name) for name in columns))
            return table
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name in [self.headline, *(name for name in self.values if name != self.headline)]:
            table.add_row(name, format_number(self.values[name], name), style="bold" if name == self.headline else None)
        return table

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: arrays become lists, and numbers that are not finite become null."""
        return {
            "headline": self.headline,
            "values": plain(self.values),
            "protocol": self.protocol,
            "per_class": plain(self.per_class),
            "details": plain(self.details),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Scores":
        """The scores that `to_dict` wrote; null becomes NaN again, arrays stay lists."""

        def numbers(table: Mapping[str, Any]) -> dict[str, float]:
            return {name: math.nan if number is None else float(number) for name, number in table.items()}

        for name in ("headline", "values", "protocol"):
            require(name in data, f"Scores.{name}", "nothing", "a field of the saved scores")
        return cls(
            headline=data["headline"],
            values=numbers(data["values"]),
            protocol=data["protocol"],
            per_class={category: numbers(table) for category, table in data.get("per_class", {}).items()},
            details=dict(data.get("details", {})),
        )


def format_number(number: float, name: str = "") -> str:
    """Four decimals, none for a `count`, and a dash where there was nothing to measure."""
    if math.isnan(number):
        return "-"
    return f"{number:.0f}" if name == "count" else f"{number:.4f}"


def mean_of_measured(numbers: Mapping[Any, float] | np.ndarray) -> float:
    """Mean of the numbers that are not NaN; NaN if there is none."""
    array = np.asarray(list(numbers.values()) if isinstance(numbers, Mapping) else numbers, dtype=np.float64)
    measured = array[~np.isnan(array)]
    return float(measured.mean()) if measured.size else math.nan


def plain(value: Any) -> Any:
    """`value` made of what JSON knows: numbers not finite become None, arrays and tensors lists, keys and paths
    strings.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | Tensor | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"got {type(value).__name__} among the scores, wanted numbers, strings, lists, mappings or arrays")
