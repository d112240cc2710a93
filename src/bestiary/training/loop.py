"""The loop: data, loss, optimiser, schedule, averaging, validation, checkpoint. It knows no model and no reader."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from bestiary.data.loader import Batch
from bestiary.errors import TrainingError
from bestiary.layers.planes import see_planes
from bestiary.metrics.scores import Scores
from bestiary.system import System
from bestiary.training import events
from bestiary.training.bundle import Played
from bestiary.training.console import Console, run_facts
from bestiary.training.contracts import Batches, MakeEvaluator
from bestiary.training.ema import WeightAverage
from bestiary.training.engine import Objective, deterministic_algorithms, rank_and_world, start_engine
from bestiary.training.evaluation import validate
from bestiary.training.freezing import freeze
from bestiary.training.guard import Guard
from bestiary.training.keeping import Keeper
from bestiary.training.logs import Curves, ResultsCsv, TensorBoardLog
from bestiary.training.norms import recompute_norms
from bestiary.training.optimisers import build_optimiser, set_lr
from bestiary.training.progress import Progress, plain_scores
from bestiary.training.run import Run, RunFolder
from bestiary.training.schedules import lr_factor
from bestiary.training.seeding import TRAINING, batch_seed, seed_generators
from bestiary.training.settings import Settings
from bestiary.training.stopping import StopRequest


def train(
    system: System,
    train_loader: Batches,
    val_loader: Batches | None,
    settings: Settings,
    *,
    out: Path,
    make_evaluator: MakeEvaluator | None = None,
    identity: Mapping[str, Any] | None = None,
    resume: bool = False,
    callbacks: Sequence[events.Callback] = (),
    quiet: bool = False,
) -> Run:
    """Train `system` on the pictures of `train_loader`.

    A run that is killed at any moment and resumed ends with the same bits as one that was not; resuming one that is at
    its end only completes its files. With several processes
    (torchrun) the gradient is the mean over processes, each taking the mean over its batch; the loaders must deal the
    pictures out. Batch norm then sees each process's own batch, and the first process's statistics are kept.

    Args:
        system: trained in place; afterwards it holds the last weights, not the best.
        train_loader: pictures at network scale, augmented.
        val_loader: pictures as they lie on disk; None for no validation: the last weights are then called the best.
        settings: see `Settings`.
        out: the run's folder; must not hold a run unless `resume`.
        make_evaluator: of the headline score by which the best weights are chosen; None chooses by the validation loss.
        identity: what a checkpoint must say to rebuild the system; None takes it from the system.
        resume: go on with the run in `out`.
        callbacks: told of every step and epoch, beside results.csv, curves.png and TensorBoard.
        quiet: print nothing.

    Raises:
        UsageError: the folder holds a run, or none to resume; settings that do not fit system, device or resumed run.
        CheckpointError: a file cannot be written, or the resumed state is broken or of another model.
        TrainingError: no pictures, out of memory, or a loss that is not finite.
    """
    if len(train_loader) == 0:
        raise TrainingError("there is no picture to train on", mend="Is the split empty, or `drop_last` set?")
    described = {"model": system.model_name, "task": system.task, "arguments": dict(system.arguments)}
    identity = dict(identity) if identity is not None else described
    identity.setdefault("categories", list(system.categories))
    folder = RunFolder(out)
    if rank_and_world()[0] == 0:
        folder.claim(resume)
    loop = _Loop(system, train_loader, val_loader, settings, folder, make_evaluator, identity)
    logs: list[events.Callback] = [ResultsCsv(), Curves()]
    logs += ([TensorBoardLog()] if settings.tensorboard else []) + ([] if quiet else [Console()])
    loop.callbacks = [*logs, *callbacks] if loop.engine.is_first else []
    try:
        with deterministic_algorithms(settings.deterministic), loop.stop.listening():
            return loop.run(resume)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # torch's signal handler raises it wherever the loop happens to be
            raise
        mend = f"The run goes on with resume from {folder.state}; if memory ran out, use fewer workers"
        raise TrainingError("a process that loads pictures was killed", mend=mend) from error
    finally:
        for callback in loop.callbacks:
            callback.close()


class _Loop:
    """One run: its parts and how far it has come."""

    def __init__(
        self,
        system: System,
        train_loader: Batches,
        val_loader: Batches | None,
        settings: Settings,
        folder: RunFolder,
        make_evaluator: MakeEvaluator | None,
        identity: dict[str, Any],
    ) -> None:
        self.system, self.train_loader, self.val_loader = system, train_loader, val_loader
        self.settings, self.folder, self.make_evaluator, self.identity = settings, folder, make_evaluator, identity
        self.engine = start_engine(settings)
        system.to(self.engine.device)
        if settings.channels_last:
            system.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.engine.precision == "bf16" and self.engine.device.type == "cpu":
            see_planes(system)
        self.frozen = freeze(system, settings.freeze, settings.train_only)
        self.optimiser = build_optimiser(system, settings)
        self.average = WeightAverage(system, settings.ema, settings.warmup_steps) if settings.ema else None
        self.objective = self.engine.accelerator.prepare_model(Objective(system))
        # Only a scaler needs accelerate's wrapper, which looks for optional packages on disk in every step.
        scaled = self.engine.accelerator.scaler is not None
        self.stepper = self.engine.accelerator.prepare_optimizer(self.optimiser) if scaled else self.optimiser
        self.trainable = [p for p in system.parameters() if p.requires_grad]
        self.guard = Guard(settings, folder.path, identity)
        parts = (folder, settings, identity, self.engine, system, self.optimiser, self.average, len(train_loader))
        self.keeper = Keeper(*parts)
        self.progress = Progress()
        self.best_scores: Scores | None = None
        self.callbacks: list[events.Callback] = []
        self.steps_per_epoch = -(-len(train_loader) // settings.accumulate)
        whole = settings.epochs * self.steps_per_epoch
        self.total_steps = whole if settings.steps is None else min(whole, settings.steps)
        self.stop = StopRequest()
        self.stopping: Literal["", "minutes", "interrupted"] = ""
        self.saved_at = self.begun = time.monotonic()

    def run(self, resume: bool) -> Run:
        """From the first step, or the saved one, to the end."""
        if resume:
            self.progress = self.keeper.restore()
            if self.reason_to_end():  # killed between its last checkpoint and its end, or resumed without need
                self.guard.notes.append("the run was at its end already; to go on, give it more epochs or patience")
        else:
            self.keeper.write_state(self.progress)  # so that a run killed before its first checkpoint can be resumed
        steps = (self.progress.step, self.total_steps, self.steps_per_epoch)
        facts = run_facts(self.system, self.identity, self.engine, *steps)
        if self.engine.is_first:
            self.folder.write_settings(self.settings.to_dict(), self.identity, facts)
        history = list(self.progress.history)
        about = (self.folder.path, self.settings, self.identity, facts, history, self.progress.step, self.total_steps)
        self.tell("on_start", events.Start(*about))
        history = self.progress.history
        while not self.stopping and not self.reason_to_end():
            self.play_epoch()
            if self.epoch_is_done():
                self.close_epoch()
            else:
                history = self.stop_within_epoch()
        return self.end(history)

    def play_epoch(self) -> None:
        """The batches of the running epoch that are still to come, or as many as there is time for."""
        progress, accumulate = self.progress, self.settings.accumulate
        self.system.train()
        self.frozen.hold()
        begun = time.monotonic()
        for group in _groups(self.train_loader.iterate(progress.epoch, progress.batch), accumulate):
            self.take_step(group)
            now = time.monotonic()
            progress.seconds += now - begun
            begun = now
            self.heed_the_clock()
            if self.stopping or self.epoch_is_done():
                return

    def take_step(self, group: list[Batch]) -> None:
        """One optimiser step on the mean loss over the pictures of `group`."""
        progress, settings, engine = self.progress, self.settings, self.engine
        self.guard.before(self.system)
        images = sum(len(batch) for batch in group)
        played: list[Played] = []
        for number, batch in enumerate(group):
            last = number == len(group) - 1
            played.append(self.play_batch(batch, progress.batch + number, len(batch) / images, last))
        norm = self.gradient_norm()
        terms = [(name, len(one.batch)) for one in played for name in one.terms]
        values = [value.float() for one in played for value in one.terms.values()]
        length, *numbers = torch.stack([norm, *values]).tolist()  # the step's only wait for the device
        scaled = engine.accelerator.scaler is not None  # which watches over its gradients itself
        bad = not all(map(math.isfinite, numbers)) or not (scaled or math.isfinite(length))
        lr = settings.lr * lr_factor(progress.step, self.total_steps, self.steps_per_epoch, settings)
        if engine.any_of([bad])[0]:
            self.guard.bad_step(self.system, played, progress.epoch + 1, progress.step + 1, writes=bad)
        else:
            self.guard.good_step()
            if settings.clip_norm is not None:
                clip_grads_with_norm_(self.trainable, settings.clip_norm, norm)
            set_lr(self.optimiser, lr)
            self.stepper.step()
            if self.average is not None:
                self.average.update(progress.step)
            progress.add_terms(terms, numbers)
            progress.weight += images
        self.optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        progress.batch += len(group)
        progress.images += images * engine.world
        loss = sum(value * pictures for (_, pictures), value in zip(terms, numbers, strict=True)) / images
        about = (progress.epoch + 1, progress.step, self.total_steps, loss, lr, length, images * engine.world)
        self.tell("on_step", events.Step(*about))

    def play_batch(self, batch: Batch, number: int, share: float, last: bool) -> Played:
        """Forward and backward pass of one batch, which is `share` of its step."""
        engine = self.engine
        seed = batch_seed(self.settings.seed, TRAINING, self.progress.epoch, number, engine.rank)
        seed_generators(seed, engine.device)
        if engine.device.type != "cpu":
            batch = batch.to(engine.device)
        try:
            with engine.shared_gradients(self.objective, last):
                terms = self.objective(batch.images, batch.targets)
                total = torch.stack([value.float() for value in terms.values()]).sum()
                engine.accelerator.backward(total if share == 1 else total * share)
        except torch.OutOfMemoryError as error:
            mend = "Use a smaller batch (accumulate makes up for it), smaller pictures, or precision bf16"
            raise TrainingError(f"out of memory on {engine.device}: {error}", mend=mend) from error
        return Played(batch, {name: value.detach() for name, value in terms.items()}, seed)

    def gradient_norm(self) -> Float[Tensor, ""]:
        """Length of the gradient of all parameters together."""
        if self.engine.accelerator.scaler is not None:
            self.engine.accelerator.unscale_gradients(self.stepper)
        return get_total_norm([p.grad for p in self.trainable if p.grad is not None]).float()

    def heed_the_clock(self) -> None:
        """Save within an epoch, or stop, when it is time: all processes together."""
        now, minutes = time.monotonic(), self.settings.minutes
        late = minutes is not None and now - self.begun >= 60 * minutes
        due = now - self.saved_at >= 60 * self.settings.checkpoint_minutes
        late, interrupted, due = self.engine.any_of([late, self.stop.asked, due])
        self.stopping = "interrupted" if interrupted else "minutes" if late else ""
        if due and not self.stopping and not self.epoch_is_done():
            self.keeper.write_state(self.progress)
            self.saved_at = now

    def epoch_is_done(self) -> bool:
        """Whether the running epoch has no batch left, or the run no step."""
        return self.progress.batch >= len(self.train_loader) or self.progress.step >= self.total_steps

    def close_epoch(self) -> None:
        """Validate if it is due, keep the best, save, tell."""
        progress, settings = self.progress, self.settings
        epoch = progress.epoch + 1
        row = self.row()
        ends = self.stopping == "minutes" or epoch >= settings.epochs or progress.step >= self.total_steps
        better = (ends or epoch % settings.evaluate_every == 0) and self.validate(row)
        progress.close_epoch(row)
        if ends or self.stopping or self.reason_to_end() or epoch % settings.checkpoint_every == 0:
            self.save()
        self.keeper.keep_epoch(progress)
        self.tell("on_epoch", events.Epoch(row, progress.step, better, list(progress.history)))

    def stop_within_epoch(self) -> list[dict[str, Any]]:
        """Stop where the run stands. The unfinished epoch gets a row now, and another once it is finished."""
        row = self.row()
        better = self.stopping == "minutes" and self.validate(row)  # who interrupts does not want to wait
        self.save()
        history = [*self.progress.history, row]
        self.tell("on_epoch", events.Epoch(row, self.progress.step, better, history))
        return history

    def reason_to_end(self) -> str:
        """Why the run is at its end; "" if it is not."""
        progress, patience = self.progress, self.settings.patience
        if progress.step >= self.total_steps and progress.batch == 0:
            return "steps" if self.total_steps == self.settings.steps else "epochs"
        if progress.epoch >= self.settings.epochs:
            return "epochs"
        waited = progress.epoch - progress.best_epoch
        return "patience" if self.val_loader is not None and patience is not None and waited >= patience else ""

    def row(self) -> dict[str, Any]:
        """What results.csv says of the running epoch so far."""
        progress = self.progress
        totals = self.engine.totals({**progress.sums, "": float(progress.weight)})
        weight = max(1.0, totals.pop(""))
        means = {f"train/{name}": value / weight for name, value in totals.items()}
        speed = progress.images / progress.seconds if progress.seconds else 0.0
        lr = float(self.optimiser.param_groups[0]["lr"]) / (self.optimiser.param_groups[0]["lr_factor"] or 1.0)
        about = {"epoch": progress.epoch + 1, "step": progress.step, "lr": lr, "images_per_s": speed}
        return {**about, "seconds": progress.seconds, "train/loss": sum(means.values()) if means else math.nan, **means}

    def validate(self, row: dict[str, Any]) -> bool:
        """Measure the weights that would be saved, add the numbers to `row`, keep the weights if best."""
        self.refresh_norms()
        if self.val_loader is None:
            return False
        with self.keeper.measured_weights():
            self.engine.share_buffers(self.system)
            found = validate(self.system, self.val_loader, self.engine, self.settings.seed, self.make_evaluator)
        row |= {"val/loss": found.loss, **{f"val/{name}": value for name, value in found.terms.items()}}
        if found.scores is not None:
            names = [found.scores.headline, *found.scores.values]  # the headline stands first
            row |= {f"score/{name}": found.scores.values[name] for name in names}
        better = found.value > self.progress.best_value
        if better:
            self.progress.best_value, self.progress.best_epoch = found.value, row["epoch"]
            self.progress.best_scores = plain_scores(found.scores)
            self.best_scores = found.scores
            self.keeper.write_weights(self.folder.best, self.progress, found)
        return better

    def refresh_norms(self) -> None:
        """Statistics of batch norms anew, of the weights that would be measured; training itself does not use them."""
        settings, system = self.settings, self.system
        if not settings.recompute_norms:
            return
        system.train()
        self.frozen.hold()
        epoch = self.progress.epoch
        with self.keeper.measured_weights():
            names = recompute_norms(
                system,
                self.train_loader,
                settings.recompute_norms,
                self.engine,
                batch=settings.batch,
                seed=settings.seed,
                epoch=epoch,
            )
            if self.average is not None:
                self.average.adopt(names)

    def save(self) -> None:
        """Write the last weights and the state."""
        self.keeper.write_weights(self.folder.last, self.progress, None)
        self.keeper.write_state(self.progress)
        self.saved_at = time.monotonic()

    def end(self, history: list[dict[str, Any]]) -> Run:
        """Close the run's books."""
        progress, folder = self.progress, self.folder
        notes = list(self.guard.notes)
        if not progress.best_epoch:
            self.keeper.write_weights(folder.best, progress, None)
            notes += [f"{folder.best.name} holds the last weights: no validation gave a number to choose by"]
        why = self.stopping or self.reason_to_end()
        self.tell("on_end", events.End(why, history, notes))
        if self.best_scores is None and progress.best_scores is not None:
            self.best_scores = Scores.from_dict(progress.best_scores)
        return Run(folder.path, folder.best, folder.last, history, self.best_scores, why)

    def tell(self, what: Literal["on_start", "on_step", "on_epoch", "on_end"], event: object) -> None:
        """Pass an event to the callbacks."""
        for callback in self.callbacks:
            getattr(callback, what)(event)


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """`size` batches at a time; the last group may be smaller."""
    while group := list(islice(batches, size)):
        yield group
