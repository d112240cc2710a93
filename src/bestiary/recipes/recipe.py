"""A recipe: the loop's settings and what happens to the pictures, all of it typed fields that a flag can set.

Fields have one name each across both parts, so `--lr 0.01` or `train(..., lr=0.01)` says which is meant. An unknown
name is an error that gives the nearest one; an explicit value is never overridden. Of a recipe with several stages
`--lr 0.01` is meant for each that has such a field, and `--finetune.lr 0.01` for the stage of that name.
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
class Stage:
    """One of several steps that a system is trained in, each from where the one before ended.

    Attributes:
        name: what `System.begin_stage` and `System.fit_stage` know it by.
        settings: of its loop, or of its fitting.
        note: what is learned in it.
        is_scored: predictions mean something after it, so validation scores them; otherwise the loss chooses.
    """

    name: str
    settings: Settings | FitSettings
    note: str = ""
    is_scored: bool = True


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        task: "classification", "detection", "segmentation" ...; where the pictures' fields can change it, theirs.
        settings: the loop: optimiser, schedule, precision, checkpoints; or how a system without gradients is fitted.
            Of a recipe with stages, the first one's.
        pictures: sizes and augmentation.
        source: the paper's or library's recipe that this one follows.
        options: further arguments that the model's constructor takes.
        arguments: those of them that were set.
        stages: the steps of the training, one after the other; none if there is only one.
    """

    task: str
    settings: Settings | FitSettings
    pictures: Any
    source: str = ""
    options: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise UsageError(f"got {', '.join(names)}, wanted a name each", where="Recipe.stages")
        if self.stages:
            object.__setattr__(self, "settings", self.stages[0].settings)
        object.__setattr__(self, "task", getattr(self.pictures, "task", self.task))

    def fields(self) -> dict[str, Field]:
        """Every settable field by name: the loop's, the pictures', the constructor's, and each stage's as
        `stage.name`.
        """
        found: dict[str, Field] = {}
        for part in (self.settings, self.pictures, *(stage.settings for stage in self.stages)):
            found |= {name: field for name, field in _fields_of(part).items() if name not in found}
        for name, option in self.options.items():
            found[name] = dataclasses.replace(option, default=self.arguments.get(name, option.default))
        for stage in self.stages:
            for name, field in _fields_of(stage.settings).items():
                own = f"{stage.name}.{name}"
                found[own] = dataclasses.replace(field, name=own)
        return found

    def fields_apart(self) -> dict[str, Field]:
        """The fields without those of stages that say no more than the field of the plain name."""
        found = self.fields()
        return {name: field for name, field in found.items() if "." not in name or _says_more(found, name)}

    def with_fields(self, values: Mapping[str, Any]) -> "Recipe":
        """The recipe with some fields set. Text is converted to the field's type.

        Raises:
            UsageError: no such field (the nearest is named), or a value that does not fit its type.
        """
        known = self.fields()
        parts: tuple[dict[str, Any], ...] = ({}, {}, {})
        of_stages: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
                flag = (
                    f"Did you mean --{close[0].replace('_', '-')}?"
                    if close
                    else "`bestiary train MODEL --help` lists them"
                )
                raise UsageError(f"no field is called {name!r}", mend=flag)
            part = 0 if self._is_setting(name) else 1 if hasattr(self.pictures, name) else 2
            converted = convert(value, known[name].type, name)
            (of_stages if "." in name else parts[part])[name] = converted
        return dataclasses.replace(
            self,
            settings=self.settings if self.stages else dataclasses.replace(self.settings, **parts[0]),
            pictures=dataclasses.replace(self.pictures, **parts[1]),
            arguments={**self.arguments, **parts[2]},
            stages=tuple(_stage_with(stage, parts[0], of_stages) for stage in self.stages),
        )

    def _is_setting(self, name: str) -> bool:
        return any(hasattr(part, name) for part in (self.settings, *(stage.settings for stage in self.stages)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON of every field; of the stages', those that differ from the field of the plain name."""
        return {name: _plain(field.default) for name, field in self.fields_apart().items()}


def _fields_of(part: Any) -> dict[str, Field]:
    hints, docs = get_type_hints(type(part)), attribute_docs(type(part))
    own = vars(type(part)).get("__annotations__", {})
    # inherited fields after the part's own, as a reader would list them
    fields = sorted(dataclasses.fields(part), key=lambda f: f.name not in own)
    return {f.name: Field(f.name, hints[f.name], getattr(part, f.name), docs.get(f.name, "")) for f in fields}


def _says_more(found: Mapping[str, Field], name: str) -> bool:
    plain = found.get(name.split(".", 1)[1])
    return plain is None or plain.default != found[name].default


def _stage_with(stage: Stage, shared: Mapping[str, Any], of_stages: Mapping[str, Any]) -> Stage:
    """A stage with the shared fields that it has, and its own, which count for more."""
    fields = {name: value for name, value in shared.items() if hasattr(stage.settings, name)}
    own = {name.split(".", 1)[1]: value for name, value in of_stages.items() if name.split(".", 1)[0] == stage.name}
    return dataclasses.replace(stage, settings=dataclasses.replace(stage.settings, **{**fields, **own}))


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
