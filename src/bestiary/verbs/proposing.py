"""Methods of proposing boxes, side by side on one data set: `bestiary proposals`."""

import inspect
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from bestiary.array_cache import ArrayCache
from bestiary.errors import DataError, UsageError
from bestiary.metrics.proposals import ProposalScores
from bestiary.metrics.scores import Scores, plain
from bestiary.pictures.encode import write_bytes
from bestiary.proposals.methods import build, find
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.recipes.recipe import convert
from bestiary.training.fitting import Samples as FitSamples
from bestiary.verbs.datasets import Data, Samples, dataset_name, open_measured, open_split
from bestiary.verbs.models import load

Say = Callable[[str], None]

PATIENCE = 5.0
"""Seconds until a line says how far it is; twice as many until the next."""


@dataclass(frozen=True)
class Measured:
    """What one method did.

    Attributes:
        name: of the method, or the path of the checkpoint.
        scores: recall by number and overlap.
        seconds: of each picture whose boxes were found now and not read from the cache.
        fit_seconds: that it learned for; None for methods that need not.
        settings: what decides its boxes.
        boxes: of each picture, by name, where they are to be saved.
    """

    name: str
    scores: Scores
    seconds: list[float]
    fit_seconds: float | None
    settings: Mapping[str, Any]
    boxes: dict[str, Proposals] = field(default_factory=dict, repr=False)

    @property
    def milliseconds(self) -> float | None:
        """Median time a picture; None where every picture came from the cache."""
        return 1e3 * statistics.median(self.seconds) if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, without the boxes."""
        details = self.scores.details
        return {
            "method": self.name,
            "settings": plain(self.settings),
            "values": plain(self.scores.values),
            "protocol": self.scores.protocol,
            "milliseconds": self.milliseconds,
            "pictures_timed": len(self.seconds),
            "fit_seconds": self.fit_seconds,
            "pictures": details["pictures"],
            "objects": details["objects"],
            "numbers": plain(details["numbers"]),
            "curves": plain(details["recall_curves"]),
        }


@dataclass(frozen=True)
class Comparison:
    """Methods side by side.

    Attributes:
        methods: in the order asked for.
        facts: data, split, and what else the numbers hang on.
    """

    methods: list[Measured]
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"facts": dict(self.facts), "methods": [measured.to_dict() for measured in self.methods]}


def compare(
    methods: Sequence[str],
    data: Data,
    *,
    split: str | None = None,
    train_split: str = "train",
    format: str | None = None,
    numbers: Sequence[int] = (10, 100, 1000),
    iou_thresholds: Sequence[int | float] = (0.5, 0.7),
    options: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    keep_boxes: bool = False,
    say: Say = lambda _: None,
) -> Comparison:
    """Recall of each method's boxes on a split, and the time that finding them takes.

    Args:
        methods: names (`bestiary.proposals.methods`), or trained systems that propose boxes by a method of their own (a
            checkpoint or a run folder).
        data: as `bestiary.verbs.datasets.open_split`.
        split: measured on; `test` if None, or `val` where there is none.
        train_split: what methods that learn are fitted to first.
        format: the reader's name; found by itself if None.
        numbers: of boxes, ascending.
        iou_thresholds: at which recall is told apart.
        options: "name" or "method.name" -> value, text or not: arguments of the methods' constructors. A bare name goes
            to every method that has it.
        cache: folder in which found boxes are kept; None keeps none.
        seed: of methods that learn.
        keep_boxes: hand out the boxes as well: `numbers[-1]` of each picture.
        say: told how far it is.

    Raises:
        UsageError: no method or option is called so, or a value does not fit.
        DataError: the data cannot be read, or have no boxes.
    """
    if not methods:
        raise UsageError("got no method, wanted at least one", mend="`bestiary proposals` alone lists them")
    proposers = _open_all(methods, options or {})
    scores = {name: ProposalScores(numbers, iou_thresholds) for name in proposers}  # errors before any work
    pictures, split = open_measured(data, split, "detection", format, None, say)
    measured = []
    for name, proposer in proposers.items():
        fit_seconds = _fitted(name, proposer, data, train_split, format, seed, say)
        proposer.cache = None if cache is None else ArrayCache(cache)
        seconds, boxes = _run(name, proposer, pictures, scores[name], keep_boxes, say)
        measured.append(Measured(name, scores[name].compute(), seconds, fit_seconds, proposer.settings(), boxes))
    facts = {"data": dataset_name(data), "split": split, "pictures": f"{len(pictures):,}"}
    if any(m.fit_seconds is not None for m in measured):
        facts["learned from"] = train_split
    return Comparison(measured, facts)


def _open_all(methods: Sequence[str], options: Mapping[str, Any]) -> dict[str, Proposer]:
    """The proposers by name, each with its options; all is checked before any work is done."""
    names = [name for name in methods if not Path(name).exists()]
    types = {name: _option_types(name) for name in names}
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, value in options.items():
        owner, dot, short = option.rpartition(".")
        if dot and owner not in names:
            wanted = ", ".join(names) or "a method's name"
            raise UsageError(f"got an option of {owner!r}, wanted one of {wanted}", where=f"--option {option}")
        takers = [owner] if dot else [name for name in names if short in types[name]]
        # Where nobody takes it, the first method says which of its options is nearest.
        for name in takers or names[:1]:
            given[name][short] = convert(value, types[name][short], option) if short in types[name] else value
    return {name: build(name, given[name]) if name in given else _of_system(name) for name in methods}


def _option_types(name: str) -> dict[str, Any]:
    """A method's options and their types."""
    method = find(name).build
    hints = get_type_hints(method.__init__ if inspect.isclass(method) else method)
    return {option: hints[option] for option in inspect.signature(method).parameters}


def _of_system(path: str) -> Proposer:
    """The proposer of a trained system."""
    proposer = getattr(load(path), "proposer", None)
    if not isinstance(proposer, Proposer):
        raise UsageError("got a system without a method of proposing boxes", where=path)
    return proposer


def _fitted(
    name: str, proposer: Proposer, data: Data, train_split: str, format: str | None, seed: int, say: Say
) -> float | None:
    """Fit a method that has to learn first; the seconds that it took."""
    if proposer.is_ready:
        return None
    training = open_split(data, train_split, "detection", format, None, say)
    say(f"{name} learns from {len(training):,} pictures of {train_split!r}")
    started = time.perf_counter()
    proposer.fit(FitSamples(training), seed, say)
    return time.perf_counter() - started


def _run(
    name: str, proposer: Proposer, pictures: Samples, scores: ProposalScores, keep_boxes: bool, say: Say
) -> tuple[list[float], dict[str, Proposals]]:
    """Boxes of all pictures into the scores; the seconds of those found now, and the boxes."""
    seconds: list[float] = []
    boxes: dict[str, Proposals] = {}
    due, patience, is_warm = time.monotonic() + PATIENCE, PATIENCE, False
    for i in range(len(pictures)):
        sample = pictures[i]
        if sample.target.objects is None:
            raise DataError("the picture has no annotated boxes", where=sample.name)
        found = proposer.kept(sample.image)
        if found is None:
            if not is_warm:  # what is compiled at the first call is no time a picture
                proposer.find(sample.image)
                is_warm = True
            started = time.perf_counter()
            found = proposer.find(sample.image)
            seconds.append(time.perf_counter() - started)
            proposer.keep(sample.image, found)
        scores.update([found.boxes_xyxy], [sample.target])
        if keep_boxes:
            boxes[sample.name] = found[: scores.numbers[-1]]
        if time.monotonic() > due and i + 1 < len(pictures):
            say(f"{name}: {i + 1:,} of {len(pictures):,} pictures")
            patience *= 2
            due = time.monotonic() + patience
    return seconds, boxes


def write_boxes(path: str | Path, comparison: Comparison) -> Path:
    """Save the boxes as JSON: {"METHOD": {"PICTURE": {"boxes_xyxy": [[x1, y1, x2, y2] ...], "scores": [...]}}}.

    Raises:
        UsageError: the file cannot be written.
    """
    document = {
        measured.name: {
            name: {
                "boxes_xyxy": [[round(v, 3) for v in box] for box in found.boxes_xyxy.tolist()],
                "scores": [round(v, 6) for v in found.scores.tolist()],
            }
            for name, found in measured.boxes.items()
        }
        for measured in comparison.methods
    }
    try:
        write_bytes(Path(path), json.dumps(document).encode())
    except OSError as error:
        raise UsageError(f"the boxes cannot be written: {error.strerror}", where=str(path)) from error
    return Path(path)
