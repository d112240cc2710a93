"""How the loop runs: one frozen dataclass, whose fields are the flags of the command line."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bestiary.errors import UsageError

Optimiser = Literal["sgd", "nesterov", "adam", "adamw", "rmsprop"]
Schedule = Literal["constant", "step", "cosine", "poly"]
Precision = Literal["fp32", "bf16", "fp16", "auto"]
Balance = Literal["none", "classes", "repeat"]
OnNonfinite = Literal["stop", "skip"]

FREE_ON_RESUME = frozenset(
    {"epochs", "steps", "minutes", "patience", "checkpoint_every", "checkpoint_minutes", "keep", "workers", "device"}
    | {"on_nonfinite", "tensorboard"}
)
"""Fields that may differ between a run and its continuation; every other one would make it another run."""


CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": get_args(Optimiser),
    "schedule": get_args(Schedule),
    "precision": get_args(Precision),
    "balance": get_args(Balance),
    "on_nonfinite": get_args(OnNonfinite),
}
"""What the fields that are one of several words may say."""


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        epochs: passes over the training pictures; the schedule is laid over them. A resumed run may have more: the
            learning rate then follows the longer schedule from the step it has reached.
        steps: stop after so many optimiser steps if that comes before the epochs end; the schedule is laid over the
            shorter of the two.
        minutes: stop cleanly after so many minutes of this call; the schedule does not know of it. The run can be
            resumed.
        batch: pictures of one forward pass, on each process.
        accumulate: batches whose gradients make one step: as one batch of `batch * accumulate`, but for batch norm.
        optimizer: sgd and nesterov take `momentum`, adam and adamw `betas`, rmsprop both `momentum` and the second of
            `betas`.
        lr: learning rate at the top of the schedule.
        momentum: of sgd, nesterov and rmsprop.
        betas: decay of the running mean and of the running square.
        weight_decay: L2 penalty (adamw: decoupled).
        decay_norms: also decay biases and all other parameters of one axis (scales and shifts of norms).
        bias_lr: factor on the learning rate of biases (Caffe's recipes: 2).
        lr_factors: factors on the learning rate of parts, each written `prefix=factor` (`head=10`); the longest prefix
            counts.
        schedule: constant; step (times `gamma` at `milestones`); cosine to 0; poly, `(1 - t) ** poly_power`.
        milestones: of the step schedule: below 1 a fraction of all steps, else an epoch.
        gamma: factor at each milestone.
        poly_power: exponent of the poly schedule.
        warmup_steps: steps over which the learning rate rises in a line from `warmup_factor` to 1.
        warmup_factor: where warm-up starts.
        clip_norm: longest gradient, in the norm of all parameters together; none for no limit.
        ema: decay of the average of the weights that is then measured and saved (0.999, say); none for no averaging.
        recompute_norms: before each validation take batch norms' statistics anew, of the weights as they are, over so
            many training pictures; 0 keeps the running means.
        precision: of the forward and backward pass; auto takes bf16 or fp16 where the processor has it. Scores are
            always taken in fp32.
        device: auto, cpu, cuda, cuda:1, mps.
        workers: processes that load pictures; 0 for none.
        seed: of everything random.
        patience: stop after so many epochs without a better score; none for never.
        evaluate_every: epochs from one validation to the next; the last epoch is always validated.
        checkpoint_every: epochs from one checkpoint to the next; the last is always written.
        checkpoint_minutes: minutes after which a checkpoint is also written within an epoch.
        keep: how many epochs' weights to keep beside best and last.
        balance: none; classes (each class equally often); repeat (pictures of rare classes more often).
        freeze: parts that stay as they are, by the beginning of their parameters' names (`backbone.stem`).
        train_only: the only parts that are trained, named likewise; `head` is the layer that makes a classifier's
            logits. Everything else stays as it is, statistics of norms too.
        channels_last: keep activations with channels innermost, faster for convolutions on most processors.
        deterministic: only algorithms that give the same bits each time; an operation without one is an error.
        on_nonfinite: what to do when a loss or gradient is not finite: stop, or skip that step.
        tensorboard: write events for TensorBoard.
    """

    epochs: int = 100
    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    accumulate: int = 1
    optimizer: Optimiser = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    decay_norms: bool = True
    bias_lr: float = 1.0
    lr_factors: tuple[str, ...] = ()
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = (0.6667, 0.8889)
    gamma: float = 0.1
    poly_power: float = 0.9
    warmup_steps: int = 0
    warmup_factor: float = 0.001
    clip_norm: float | None = None
    ema: float | None = None
    recompute_norms: int = 0
    precision: Precision = "auto"
    device: str = "auto"
    workers: int = 0
    seed: int = 0
    patience: int | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 1
    checkpoint_minutes: float = 10.0
    keep: int = 0
    balance: Balance = "none"
    freeze: tuple[str, ...] = ()
    train_only: tuple[str, ...] = ()
    channels_last: bool = False
    deterministic: bool = False
    on_nonfinite: OnNonfinite = "stop"
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in CHOICES:
            _require_choice(name, getattr(self, name))
        for name in ("epochs", "batch", "accumulate", "evaluate_every", "checkpoint_every"):
            self._demand(name, getattr(self, name) >= 1, "at least 1")
        for name in ("steps", "patience"):
            value = getattr(self, name)
            self._demand(name, value is None or value >= 1, "at least 1, or none")
        for name in ("warmup_steps", "recompute_norms", "workers", "keep", "seed"):
            self._demand(name, getattr(self, name) >= 0, "0 or more")
        for name in ("lr", "gamma", "poly_power", "checkpoint_minutes"):
            self._demand(name, 0 < getattr(self, name) < math.inf, "a finite number above 0")
        for name in ("minutes", "clip_norm"):
            value = getattr(self, name)
            self._demand(name, value is None or 0 < value < math.inf, "a finite number above 0, or none")
        for name in ("weight_decay", "bias_lr"):
            self._demand(name, 0 <= getattr(self, name) < math.inf, "a finite number, 0 or more")
        self._demand("momentum", 0 <= self.momentum < 1, "0 or more and below 1")
        self._demand("momentum", self.optimizer != "nesterov" or self.momentum > 0, "above 0 for nesterov")
        self._demand("betas", all(0 <= b < 1 for b in self.betas), "two numbers, 0 or more and below 1")
        self._demand("warmup_factor", 0 <= self.warmup_factor <= 1, "between 0 and 1")
        self._demand("ema", self.ema is None or 0 < self.ema < 1, "between 0 and 1, or none")
        rising = all(a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
        self._demand("milestones", rising and all(m > 0 for m in self.milestones), "rising numbers above 0")
        self._demand("device", bool(self.device.strip()), "auto, cpu, cuda, cuda:1 or mps")
        self.part_lr_factors()

    def part_lr_factors(self) -> dict[str, float]:
        """`lr_factors` as prefix -> factor.

        Raises:
            UsageError: an entry is not of the form `prefix=factor` with a finite factor of 0 or more.
        """
        factors: dict[str, float] = {}
        for entry in self.lr_factors:
            prefix, _, number = entry.partition("=")
            try:
                factors[prefix] = float(number)
            except ValueError:
                factors[prefix] = math.nan
            fits = bool(prefix) and 0 <= factors[prefix] < math.inf
            self._demand("lr_factors", fits, "entries `prefix=factor`, such as head=10")
        return factors

    def _demand(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UsageError(f"got {getattr(self, name)!r}, wanted {wanted}", where=name)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings from plain JSON (lists become tuples); fields that are absent keep their defaults.

        Raises:
            UsageError: an unknown field (the nearest is named), or a value that does not fit.
        """
        known = {f.name: f.default for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise UsageError(f"no setting is called {name!r}", mend=nearest(name, list(known)))
        return cls(**{name: _fit(name, value, known[name]) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON of every field; `from_dict` reads it back equal."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


OPTIONAL_KINDS: dict[str, type] = {"steps": int, "patience": int, "minutes": float, "clip_norm": float, "ema": float}
"""What the fields hold that may also be None."""


def _require_choice(name: str, value: Any) -> None:
    choices = CHOICES[name]
    if value not in choices:
        wanted = ", ".join(choices)
        raise UsageError(f"got {value!r}, wanted one of {wanted}", where=name, mend=nearest(value, list(choices)))


def _fit(name: str, value: Any, default: Any) -> Any:
    if name in CHOICES:
        _require_choice(name, value)
    if value is None and name in OPTIONAL_KINDS:
        return None
    kind = OPTIONAL_KINDS.get(name, type(default))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list | tuple):
        if name in ("freeze", "train_only", "lr_factors"):
            if all(isinstance(v, str) for v in value):
                return tuple(value)
        elif name == "betas" and len(value) != 2:
            raise UsageError(f"got {value!r}, wanted two numbers", where=name)
        elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            return tuple(float(v) for v in value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UsageError(f"got {value!r}, wanted {kind.__name__}", where=name)


def nearest(name: object, choices: list[str]) -> str | None:
    """A sentence that names the choice most like `name`; None if none is like it."""
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else None
