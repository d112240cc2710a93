"""Darknet's `.cfg` files, which say what a network is made of; read and written byte for byte.

Sections `[name]` with lines `key=value`, in order; `#` and `;` begin comments. Sections may share a name, and their
order is that of the layers. What Darknet takes where a key is missing, `layers_of_cfg` takes, too.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bestiary.errors import CheckpointError

Value = TypeVar("Value")

NETWORK = ("net", "network")
WITHOUT_NUMBERS = frozenset({"cost", "dropout", "softmax"})
"""Sections that neither hold numbers nor change a prediction's order of scores; softmax is the system's own."""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: without brackets.
        options: keys and values as they stand, without blanks around them.
        line: number of its first line, from 1; 0 if it is of no file.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    line: int = 0

    def read(self, key: str, kind: Callable[[str], Value], default: Value) -> Value:
        """The value of a key, the last if it stands there twice.

        Raises:
            CheckpointError: it is not of that kind.
        """
        found = dict(self.options).get(key)
        if found is None:
            return default
        try:
            return kind(found)
        except ValueError as error:
            where = f"line {self.line}, [{self.name}]"
            raise CheckpointError(f"got {key}={found}", where=where, mend="Is it a number?") from error


@dataclass(frozen=True)
class DarknetConfig:
    """A whole file.

    Attributes:
        sections: in order, the network's own first.
        text: as it stands in the file, line ends and all.
    """

    sections: tuple[Section, ...]
    text: str

    @classmethod
    def of(cls, sections: Sequence[Section]) -> "DarknetConfig":
        """Sections written as Darknet's files have them: a blank line between two, no blanks around `=`."""
        parts = ("".join([f"[{s.name}]\n", *(f"{k}={v}\n" for k, v in s.options)]) for s in sections)
        return parse_cfg("\n".join(parts))


@dataclass(frozen=True)
class CfgLayer:
    """What one section does, in numbers that two files can be compared by.

    Attributes:
        kind: name of the section.
        facts: convolutional: filters, size, stride, padding, batch norm, activation; maxpool: size, stride; route: the
            layers it joins, counted from 0; reorg: stride; region: priors and classes.
        line: of the section.
    """

    kind: str
    facts: tuple[object, ...]
    line: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CfgLayer) and (self.kind, self.facts) == (other.kind, other.facts)

    def __hash__(self) -> int:
        return hash((self.kind, self.facts))


def parse_cfg(text: str, where: str = "cfg") -> DarknetConfig:
    """Sections of a text.

    Raises:
        CheckpointError: a line that is neither a section, nor an option of one, nor a comment.
    """
    sections: list[tuple[str, list[tuple[str, str]], int]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            sections.append((line[1:-1].strip(), [], number))
            continue
        key, equals, value = line.partition("=")
        if not equals or not sections:
            got = f"got {raw!r}, wanted [section] or key=value"
            raise CheckpointError(got, where=f"{where}:{number}", mend="Is it one of Darknet's .cfg files?")
        sections[-1][1].append((key.strip(), value.strip()))
    if not sections or sections[0][0] not in NETWORK:
        raise CheckpointError("does not begin with [net]", where=where, mend="Is it one of Darknet's .cfg files?")
    return DarknetConfig(tuple(Section(name, tuple(options), line) for name, options, line in sections), text)


def read_cfg(path: str | Path) -> DarknetConfig:
    """A file.

    Raises:
        CheckpointError: no such file, or not one of these.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
    return parse_cfg(data.decode("utf-8", "surrogateescape"), str(path))


def write_cfg(path: str | Path, config: DarknetConfig) -> None:
    """Write the text; what stood at `path` is replaced only by a whole file."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(config.text.encode("utf-8", "surrogateescape"))
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"cannot be written: {error}", where=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def numbers_of(text: str) -> tuple[float, ...]:
    """Numbers with commas between them; raises `ValueError` if one is none."""
    return tuple(float(part) for part in text.split(",") if part.strip())


def layers_of_cfg(config: DarknetConfig) -> tuple[CfgLayer, ...]:
    """The layers, each with what Darknet makes of its options.

    Raises:
        CheckpointError: a value that is no number.
    """
    found: list[CfgLayer] = []
    for section in config.sections[1:]:
        if section.name not in WITHOUT_NUMBERS:
            found.append(CfgLayer(section.name, _facts(section, len(found)), section.line))
    return tuple(found)


def _facts(section: Section, index: int) -> tuple[object, ...]:
    if section.name == "convolutional":
        size = section.read("size", int, 1)
        padding = size // 2 if section.read("pad", int, 0) else section.read("padding", int, 0)
        return (
            section.read("filters", int, 1),
            size,
            section.read("stride", int, 1),
            padding,
            bool(section.read("batch_normalize", int, 0)),
            section.read("activation", str, "logistic"),
        )
    if section.name == "maxpool":
        stride = section.read("stride", int, 1)
        return section.read("size", int, stride), stride
    if section.name == "route":
        layers = section.read("layers", numbers_of, ())
        return tuple(int(n) if n >= 0 else index + int(n) for n in layers)
    if section.name == "reorg":
        return (section.read("stride", int, 1),)
    if section.name == "region":
        priors = section.read("anchors", numbers_of, ())
        return priors, section.read("classes", int, 20)
    return section.options
