"""Reading states from files that may be foreign, broken or hostile, and fitting them to a model.

Nothing is ever unpickled but tensors, and a state that does not fit leaves the model untouched.
"""

import difflib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bestiary.errors import CheckpointError
from bestiary.system import System
from bestiary.weights.converters import (
    COUNTER,
    match_norm_counters,
    rename_detector_v1,
    set_frozen_norm_eps,
    strip_prefix,
)
from bestiary.weights.first_layer import colour_filters, for_channels
from bestiary.weights.registry import Published, find_entry
from bestiary.weights.store import Progress, fetch

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts commonly put the state."""

SHOWN = 5


@dataclass(frozen=True)
class Mismatch:
    """An entry that has another shape in the file than in the model."""

    name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.file_shape} in the file, {self.model_shape} in the model"


@dataclass(frozen=True)
class LoadReport:
    """What became of every entry.

    Attributes:
        loaded: names that were copied.
        missing: names of the model that the file lacks; they keep their values.
        unexpected: names of the file that the model lacks.
        mismatched: entries of different shapes that were not copied.
        new_head: those of `mismatched` that differ in the number of categories only: they keep their initial values.
        arguments: what the model was told that is no entry of a state (epsilon of its frozen norms, size of the
            pictures that the file was measured with), by the names of its constructor. Whoever writes the model to a
            checkpoint must keep them.
        note: what was taken over from another network, where the state was of one (`System.start_state`).
        adapted: the first convolution, if it was made to fit other channels than colours (`weights.first_layer`).
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    new_head: tuple[Mismatch, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    adapted: Mismatch | None = None

    def summary(self) -> str:
        """One line for the user."""
        parts = [self.note or f"{len(self.loaded)} entries loaded"]
        if self.adapted is not None:
            here = self.adapted.model_shape[1]
            sees = "1 channel: the sum" if here == 1 else f"{here} channels: each 3/{here} of the mean"
            parts.append(f"{self.adapted.name} made to see {sees} over red, green and blue")
        if self.new_head:
            numbers = ", ".join(f"{m.name} {m.file_shape[0]} -> {m.model_shape[0]}" for m in self.new_head)
            parts.append(f"new head for other categories, at its initial values: {numbers}")
        parts += [f"{len(names)} {kind}" for kind, names in self.problems() if names]
        return "; ".join(parts)

    def problems(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What strictness does not allow: kind and entries."""
        refused = tuple(m for m in self.mismatched if m not in self.new_head)
        return [("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", refused)]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a `.safetensors` file, or of a `.pth` or `.pt` that holds nothing but tensors and plain values.

    A state under one of `WRAPPERS` is taken out of it, values that are no tensors are left out, and a `module.` before
    every name is removed. Tensors are on the CPU.

    Raises:
        CheckpointError: no such file, empty, truncated, no checkpoint, without tensors, or a pickle that would run
        code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("no such file", where=str(path))
    if path.stat().st_size == 0:
        raise CheckpointError("the file is empty", where=str(path), mend="Fetch or write it again.")
    holds = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    for key in WRAPPERS:
        inner = holds.get(key)
        if isinstance(inner, Mapping):
            holds = dict(inner)
            break
    state = {name: value for name, value in holds.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(holds)[:SHOWN])) or "nothing"
        raise CheckpointError(f"it holds no tensors (it holds {keys})", where=str(path))
    return strip_prefix(state, "module.")


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    model_name: str = "",
    new_head: bool = True,
    strict: bool = True,
    where: str = "",
) -> LoadReport:
    """Copy a state into a model; if it does not fit, the model stays as it was.

    Names of torchvision's first detectors are translated where the model has the newer ones; counters of batch norms
    may be missing or superfluous; where other categories may be, a first convolution over colours is made to fit other
    channels (`weights.first_layer`). Of another network's state that the model can start from (`System.start_state`),
    it takes that part and keeps the rest of its own.

    Args:
        model: gets the values, converted to its own types and devices.
        state: as `read_state` gives it.
        model_name: for messages.
        new_head: leave entries at their initial values whose first dimension alone differs, which is what another
            number of categories does. (An inner layer of another width differs in its neighbour's second dimension
            too, and is refused.)
        strict: refuse if anything is missing, unexpected, or differs in shape otherwise; else copy what fits and
            report.
        where: the file, for messages.

    Raises:
        CheckpointError: strictly, the state does not fit: both shapes, and the nearest name of every stray one. Not
        strictly,
            nothing at all fits.
    """
    own = model.state_dict()
    start, note = model.start_state(state) if isinstance(model, System) else (state, "")
    state = {**own, **start} if note else state
    renamed = rename_detector_v1(state)
    entries = dict(state) if set(state) <= set(own) else renamed
    adapted = None
    if new_head and (first := colour_filters(entries, own)) is not None:
        adapted = Mismatch(first, tuple(entries[first].shape), tuple(own[first].shape))
        entries = {**entries, first: for_channels(entries[first], adapted.model_shape[1])}
    report = replace(_compare(own, match_norm_counters(entries, own), new_head), adapted=adapted)
    refused = [problem for problem in report.problems() if problem[1]]
    if (strict and refused) or not report.loaded:
        message = "; ".join(_describe(kind, names, own, entries) for kind, names in refused) or "nothing in it fits"
        target = f"the model {model_name}" if model_name else "the model"
        mend = "Is it a checkpoint of another model, or one made with other arguments?"
        raise CheckpointError(f"it does not fit {target}: {message}", where=where or None, mend=mend)
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(entries[name])
    return replace(report, loaded=tuple(n for n in report.loaded if n in start), note=note) if note else report


def load_published(
    model: nn.Module, name: str, offline: bool = False, new_head: bool = True, progress: Progress | None = None
) -> LoadReport:
    """Find or fetch the published weights called `name` (`registry.find_entry`), and load them with all they ask for.

    Of a file that has numbers for one part only, the rest of the model keeps its own. A classifier or labeller that was
    not told otherwise takes over the size of pictures that the file was measured with.

    Raises:
        UsageError: nothing is called so.
        CheckpointError: the file is missing, is not the published one, or does not fit.
    """
    entry = find_entry(name)
    path = fetch(entry, offline=offline, progress=progress)
    state = read_state(path)
    if entry.part is not None:
        inside = entry.part + "."
        kept = {name: value for name, value in model.state_dict().items() if not name.startswith(inside)}
        state = {**kept, **{name: value for name, value in state.items() if name.startswith(inside)}}
    report = load_state(model, state, entry.model, new_head, where=str(path))
    return replace(report, arguments=_tell(model, entry))


def _tell(model: nn.Module, entry: Published) -> dict[str, Any]:
    """Tell the model what its file asks for beside the numbers, and say what that was."""
    told = dict(entry.arguments)
    if entry.norm_eps is not None:
        set_frozen_norm_eps(model, entry.norm_eps)
        told["norm_eps"] = entry.norm_eps
    chosen: Mapping[str, Any] = getattr(model, "arguments", {})
    if entry.crop is not None and hasattr(model, "crop") and not {"resize", "crop"} & set(chosen):
        told |= {"resize": entry.resize, "crop": entry.crop}
    if entry.crop is None and entry.resize is not None and "predict_size" not in chosen:
        told["predict_size"] = entry.resize
    for name, value in told.items():
        if hasattr(model, name):
            setattr(model, name, value)
    return told


def _compare(own: Mapping[str, Tensor], entries: Mapping[str, Tensor], new_head: bool) -> LoadReport:
    common = [name for name in own if name in entries]
    pairs = {name: (tuple(entries[name].shape), tuple(own[name].shape)) for name in common}
    mismatched = tuple(Mismatch(name, there, here) for name, (there, here) in pairs.items() if there != here)
    heads = tuple(m for m in mismatched if new_head and _is_head(m))
    return LoadReport(
        loaded=tuple(name for name, (there, here) in pairs.items() if there == here),
        missing=tuple(name for name in own if name not in entries and not name.endswith(COUNTER)),
        unexpected=tuple(name for name in entries if name not in own),
        mismatched=mismatched,
        new_head=heads if len(heads) == len(mismatched) else (),
    )


def _is_head(mismatch: Mismatch) -> bool:
    there, here = mismatch.file_shape, mismatch.model_shape
    return len(there) == len(here) > 0 and there[1:] == here[1:]


def _describe(
    kind: str, names: Sequence[str | Mismatch], own: Mapping[str, Tensor], entries: Mapping[str, Tensor]
) -> str:
    """ "3 missing (fc.weight (1000, 512), nearest in the file head.weight (1000, 512); ...)" """
    others, where = (entries, "in the file") if kind == "missing" else (own, "in the model")
    source = own if kind == "missing" else entries
    texts = []
    for name in names[:SHOWN]:
        text = str(name)
        if isinstance(name, str):
            text += f" {tuple(source[name].shape)}"
            close = difflib.get_close_matches(name, list(others), n=1, cutoff=0.6)
            text += f", nearest {where}: {close[0]} {tuple(others[close[0]].shape)}" if close else ""
        texts.append(text)
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {kind} ({'; '.join(texts)}{more})"


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise _broken(path, str(error)) from error


def _read_pickled(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():  # torch tells of old pickle protocols, which is nothing that a user could mend
            warnings.simplefilter("ignore")
            holds = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)|Unsupported class (\S+)", str(error))
        if blocked is None:
            raise _broken(path, "nothing that torch.save wrote") from error
        raise CheckpointError(
            f"it is a pickle that wants to run code ({blocked.group(1) or blocked.group(2)}), which is never done",
            where=str(path),
            mend="Ask its author for a state dict of tensors, or save model.state_dict() yourself where you trust it.",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _broken(path, str(error).split("\n")[0] or type(error).__name__) from error
    if not isinstance(holds, Mapping):
        raise CheckpointError(
            f"it holds a {type(holds).__name__}, wanted a mapping of names to tensors", where=str(path)
        )
    return dict(holds)


def _broken(path: Path, reason: str) -> CheckpointError:
    size = path.stat().st_size
    mend = "It is truncated, damaged or no checkpoint: fetch or write it again."
    return CheckpointError(f"cannot be read ({reason}; {size:,} bytes)", where=str(path), mend=mend)
