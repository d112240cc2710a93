"""A recipe: the loop's settings and what happens to the pictures, all of it typed fields that a flag can set.

Fields have one name each across both parts, so `--lr 0.01` or `train(..., lr=0.01)` says which is meant. An unknown
name is an error that gives the nearest one; an explicit value is never overridden.
"""

import dataclasses
import difflib
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from bestiary.errors import UsageError
from bestiary.training.fitting import FitSettings
from bestiary.training.settings import Settings
from bestiary.transforms.compose import Transform


class PictureFields(Protocol):
    """What one task does to pictures. A frozen dataclass with these methods."""

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """Augmentation for training pictures."""
        ...

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments that must agree with these fields (the size a system predicts at)."""
        ...


@dataclass(frozen=True)
class Field:
    """One settable field: its name, type, default and meaning."""

    name: str
    type: Any
    default: Any
    doc: str


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        task: "classification", "detection", "segmentation".
        settings: the loop: optimiser, schedule, precision, checkpoints; or how a system without gradients is fitted.
        pictures: sizes and augmentation.
        source: the paper's or library's recipe that this one follows.
        options: further arguments that the model's constructor takes.
        arguments: those of them that were set.
    """

    task: str
    settings: Settings | FitSettings
    pictures: Any
    source: str = ""
    options: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def fields(self) -> dict[str, Field]:
        """Every settable field by name: the loop's, the pictures', the constructor's."""
        found: dict[str, Field] = {}
        for part in (self.settings, self.pictures):
            hints, docs = get_type_hints(type(part)), attribute_docs(type(part))
            own = vars(type(part)).get("__annotations__", {})
            # inherited fields after the part's own, as a reader would list them
            for f in sorted(dataclasses.fields(part), key=lambda f: f.name not in own):
                found[f.name] = Field(f.name, hints[f.name], getattr(part, f.name), docs.get(f.name, ""))
        for name, option in self.options.items():
            found[name] = dataclasses.replace(option, default=self.arguments.get(name, option.default))
        return found

    def with_fields(self, values: Mapping[str, Any]) -> "Recipe":
        """The recipe with some fields set. Text is converted to the field's type.

        Raises:
            UsageError: no such field (the nearest is named), or a value that does not fit its type.
        """
        known = self.fields()
        parts: tuple[dict[str, Any], ...] = ({}, {}, {})
        for name, value in values.items():
            if name not in known:
                close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
                flag = (
                    f"Did you mean --{close[0].replace('_', '-')}?"
                    if close
                    else "`bestiary train MODEL --help` lists them"
                )
                raise UsageError(f"no field is called {name!r}", mend=flag)
            part = 0 if hasattr(self.settings, name) else 1 if hasattr(self.pictures, name) else 2
            parts[part][name] = convert(value, known[name].type, name)
        return dataclasses.replace(
            self,
            settings=dataclasses.replace(self.settings, **parts[0]),
            pictures=dataclasses.replace(self.pictures, **parts[1]),
            arguments={**self.arguments, **parts[2]},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON of every field."""
        return {name: _plain(field.default) for name, field in self.fields().items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def attribute_docs(thing: Any, section: str = "Attributes:") -> dict[str, str]:
    """A section of the docstring of a class or function: name -> text.

    A class has its bases' too, its own first. A function that says "Arguments as `name`" has those of that function of
    its module.
    """
    docs = _section(inspect.getdoc(thing) or "", section)
    for base in inspect.getmro(thing)[1:] if inspect.isclass(thing) else ():
        docs = {**_section(inspect.cleandoc(base.__doc__ or ""), section), **docs}
    said_elsewhere = re.search(r"[Aa]rguments as `(\w+)`", inspect.getdoc(thing) or "")
    if said_elsewhere:
        docs = attribute_docs(getattr(inspect.getmodule(thing), said_elsewhere[1]), section) | docs
    return docs


def _section(text: str, section: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    name, inside = "", False
    for line in text.splitlines():
        if line.strip() == section:
            inside = True
        elif inside and line.startswith("    ") and not line.startswith("     ") and ":" in line:
            name, text = line.strip().split(":", 1)
            docs[name] = text.strip()
        elif inside and line.startswith("     ") and name:
            docs[name] += " " + line.strip()
        elif inside and line.strip():
            inside = False
    return docs


def type_name(kind: Any) -> str:
    """A type as a person writes it: "int", "sgd|adam", "float or none"."""
    if kind is type(None):
        return "none"
    if get_origin(kind) is Literal:
        return "|".join(str(a) for a in get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in get_args(kind))
    if get_origin(kind) is Sequence:
        return f"{type_name(get_args(kind)[0])},..."
    if get_origin(kind) is tuple:
        inner = [type_name(a) for a in get_args(kind) if a is not Ellipsis]
        return f"{inner[0]},..." if get_args(kind)[-1:] == (Ellipsis,) else ",".join(inner)
    return getattr(kind, "__name__", str(kind))


def convert(value: Any, kind: Any, name: str) -> Any:
    """`value` as `kind`: text from a command line is parsed, a Python value must fit.

    Raises:
        UsageError: it does not fit.
    """
    try:
        return _convert(value, kind)
    except (TypeError, ValueError, KeyError):
        raise UsageError(f"got {value!r}, wanted {type_name(kind)}", where=f"--{name.replace('_', '-')}") from None


def _convert(value: Any, kind: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args)
    if origin is Literal:
        for choice in args:
            if value == choice or str(value) == str(choice):
                return choice
        raise ValueError
    if origin in (tuple, Sequence):
        parts = [p for p in value.replace(" ", "").split(",") if p] if isinstance(value, str) else list(value)
        inner = [args[0]] * len(parts) if origin is Sequence or args[-1:] == (Ellipsis,) else list(args)
        if len(inner) != len(parts):
            raise ValueError
        return tuple(_convert(p, k) for p, k in zip(parts, inner, strict=True))
    if kind is bool:
        if isinstance(value, str):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
        if not isinstance(value, bool):
            raise TypeError
        return value
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError
    if kind in (int, float) and isinstance(value, bool):
        raise TypeError
    return kind(value)


def _convert_union(value: Any, kinds: tuple[Any, ...]) -> Any:
    if type(None) in kinds and (value is None or str(value).lower() == "none"):
        return None
    for kind in kinds:
        if kind is not type(None):
            try:
                return _convert(value, kind)
            except (TypeError, ValueError, KeyError):
                continue
    raise ValueError
