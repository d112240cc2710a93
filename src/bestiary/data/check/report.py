"""What `check` found, as text for a terminal and as a dictionary for machines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bestiary.data.check.files import Probe
from bestiary.data.check.maps import MapProbe
from bestiary.data.check.rules import RULES, rank
from bestiary.data.index import Defect, Index, Where

_MOST_CATEGORIES = 40


@dataclass(frozen=True)
class Note:
    """Something legal that is good to know.

    Attributes:
        rule: a rule of level "note".
        count: how many.
        text: in one sentence.
        examples: names of the first few.
    """

    rule: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


@dataclass
class Report:
    """Everything that `check` found.

    Attributes:
        index: the data set as its reader left it.
        why: the format and what it was recognised by.
        defects: errors and warnings, worst rules first.
        notes: what is legal and good to know.
        splits: split -> pictures, negatives, objects.
        counts: split -> category -> objects, pictures (classification) or pixels (label maps).
        unit: what `counts` counts.
        loading: what training does about all this on its own, one sentence each.
        decoded: whether pictures were decoded.
        seconds: how long it took.
        probes: what each picture file is.
        maps: what the maps of each picture hold, by the picture's name.
    """

    index: Index
    why: str
    defects: list[Defect] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    unit: str = "objects"
    loading: list[str] = field(default_factory=list)
    decoded: bool = True
    seconds: float = 0.0
    probes: dict[Path, Probe] = field(default_factory=dict, repr=False)
    maps: dict[str, MapProbe] = field(default_factory=dict, repr=False)

    @property
    def errors(self) -> list[Defect]:
        """Defects that make data wrong or lose it."""
        return [d for d in self.defects if d.severity == "error"]

    @property
    def warnings(self) -> list[Defect]:
        """Defects that are suspicious."""
        return [d for d in self.defects if d.severity == "warning"]

    def by_rule(self) -> dict[str, list[Defect]]:
        """Defects by rule, worst first."""
        groups: dict[str, list[Defect]] = {}
        for defect in sorted(self.defects, key=lambda d: (d.severity, rank(d.rule))):
            groups.setdefault(defect.rule, []).append(defect)
        return groups

    def text(self, most: int = 10) -> str:
        """The report for a terminal, with at most `most` examples of a rule."""
        parts = [self._head(), *(_group(rule, found, most) for rule, found in self.by_rule().items())]
        if self.notes:
            width = max(len(n.rule) for n in self.notes)
            lines = [f"  {n.rule.ljust(width)}  {n.text}{_such_as(n.examples)}" for n in self.notes]
            parts.append("\n".join(["Good to know", *lines]))
        parts += [self._summary(), "\n".join(["What training does on its own", *(f"  {s}" for s in self.loading)])]
        return "\n\n".join([*parts, self._verdict()])

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "path": str(self.index.root),
            "format": self.index.format,
            "why": self.why,
            "decoded": self.decoded,
            "seconds": round(self.seconds, 3),
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "rules": {rule: len(found) for rule, found in self.by_rule().items()},
            "defects": [asdict(d) for group in self.by_rule().values() for d in group],
            "notes": [asdict(n) for n in self.notes],
            "categories": list(self.index.categories),
            "splits": self.splits,
            "unit": self.unit,
            "counts": {split: dict(counts) for split, counts in self.counts.items()},
            "loading": list(self.loading),
        }

    def _head(self) -> str:
        pictures = sum(row["pictures"] for row in self.splits.values())
        objects = sum(row["objects"] for row in self.splits.values())
        held = f"{objects:,} objects of " if objects else ""
        kinds = _many(len(self.index.categories), "category", "categories")
        looked = "decoded" if self.decoded else "judged by their headers"
        size = f"{pictures:,} pictures, {held}{kinds}; {looked} in {self.seconds:.1f} s"
        return f"{self.index.root}\n{self.why}\n{size}"

    def _summary(self) -> str:
        splits = list(self.splits)
        rows: list[list[str]] = []
        for key in ("pictures", "negatives", "objects"):
            if key == "pictures" or any(self.splits[s][key] for s in splits):
                rows.append([key, *(f"{self.splits[s][key]:,}" for s in splits)])
        totals = sum(self.counts.values(), Counter())
        names = sorted(totals, key=lambda n: -totals[n])
        for name in names[:_MOST_CATEGORIES]:
            rows.append([f"  {name}", *(self._cell(s, name) for s in splits)])
        said = {"pixels": ", share of known pixels", "pictures": ", pictures of each class"}.get(self.unit, "")
        rest = len(names) - _MOST_CATEGORIES
        more = [f"  ... and {_many(rest, 'category', 'categories')} more"] if rest > 0 else []
        return "\n".join([f"Summary{said if names else ''}", *_columns([["", *splits], *rows]), *more])

    def _cell(self, split: str, name: str) -> str:
        counts = self.counts.get(split, Counter())
        if self.unit == "pixels":
            return f"{100 * counts[name] / total:.2f} %" if (total := counts.total()) else "-"
        return f"{counts[name]:,}"

    def _verdict(self) -> str:
        errors, warnings = len(self.errors), len(self.warnings)
        if not errors and not warnings:
            return "Nothing is wrong."
        said = f"{_many(errors, 'error')}, {_many(warnings, 'warning')}."
        return said + (" A mended copy: bestiary check PATH --fix NEW_FOLDER" if errors else "")


def _group(rule: str, found: Sequence[Defect], most: int) -> str:
    title = RULES[rule].title if rule in RULES else rule
    lines = [f"{found[0].severity.upper()}  {title} [{rule}]: {len(found):,}"]
    shared = len({(d.mend, d.mended) for d in found}) == 1
    for defect in found[: max(most, 0)]:
        lines.append(f"  {_place(defect.where)}: got {defect.got}, wanted {defect.wanted}")
        if not shared:
            lines += [f"    {line}" for line in _advice(defect)]
    if len(found) > most:
        lines.append(f"  ... and {len(found) - max(most, 0):,} more")
    if shared:
        lines += [f"  {line}" for line in _advice(found[0])]
    return "\n".join(lines)


def _advice(defect: Defect) -> list[str]:
    lines = [f"to mend: {defect.mend}"] if defect.mend else []
    return lines + ([f"as it is: {defect.mended}"] if defect.mended else [])


def _place(where: Where) -> str:
    return "the data set" if where.file == "." and where.line is None and where.annotation is None else str(where)


def _such_as(examples: Sequence[str]) -> str:
    return f" ({', '.join(examples)}{' ...' if len(examples) > 2 else ''})" if examples else ""


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
