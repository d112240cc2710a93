"""The loop in one process: its arithmetic against plain torch, its files, its decisions."""

import csv
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_parts import Accuracy, FixedBatches, TinyClassifier, pictures, tiny, train_batches, val_batches

from bestiary.data.loader import collate
from bestiary.errors import CheckpointError, TrainingError, UsageError
from bestiary.metrics.scores import Scores
from bestiary.records import Losses
from bestiary.training.checkpoint import read_facts, read_model, read_state
from bestiary.training.events import Callback, End, Epoch, Start, Step
from bestiary.training.loop import train
from bestiary.training.run import Run
from bestiary.training.settings import Settings

pytestmark = pytest.mark.usefixtures("no_drawing")

QUICK = {"device": "cpu", "precision": "fp32", "tensorboard": False, "lr": 0.1, "epochs": 3}


def settings(**fields: Any) -> Settings:
    return Settings.from_dict({**QUICK, **fields})


def run(out: Path, system: TinyClassifier | None = None, **fields: Any) -> Run:
    return train(
        system or tiny(),
        train_batches(),
        val_batches(),
        settings(**fields),
        out=out,
        make_evaluator=Accuracy,
        quiet=True,
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_model(path)[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Listener(Callback):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_start(self, event: Start) -> None:
        self.events.append(event)

    def on_step(self, event: Step) -> None:
        self.events.append(event)

    def on_epoch(self, event: Epoch) -> None:
        self.events.append(event)

    def on_end(self, event: End) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.events.append("closed")


def test_it_is_the_plain_loop(tmp_path: Path) -> None:
    """Twelve steps of nesterov with a cosine and clipping, against the same written out in torch."""
    system, twin = tiny(norm=True), tiny(norm=True)
    fields = {"optimizer": "nesterov", "clip_norm": 0.05, "weight_decay": 0.01}
    train(system, train_batches(), None, settings(**fields), out=tmp_path, quiet=True)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    step = 0
    for epoch in range(3):
        for batch in train_batches().iterate(epoch):
            optimiser.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * step / 12))
            optimiser.zero_grad()
            twin.loss(batch.images, batch.targets).total.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.05)
            optimiser.step()
            step += 1
    for (name, a), b in zip(system.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    finished = run(tmp_path / "run", keep=2, ema=0.9)
    assert finished.stopped == "epochs"
    names = sorted(p.name for p in finished.folder.iterdir() if not p.name.endswith(".previous"))
    assert names == [
        "best.safetensors",
        "curves.png",
        "epoch-0002.safetensors",
        "epoch-0003.safetensors",
        "last.safetensors",
        "last.state.safetensors",
        "results.csv",
        "settings.json",
    ]
    rows = list(csv.DictReader((finished.folder / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == [
        *("epoch", "step", "lr", "images_per_s", "seconds"),
        *("train/loss", "train/class", "train/weights", "val/loss", "val/class", "val/weights"),
        *("score/top1", "score/pictures"),
    ]
    assert float(rows[2]["val/loss"]) == pytest.approx(finished.history[2]["val/loss"], rel=1e-6)
    saved = json.loads((finished.folder / "settings.json").read_text())
    assert Settings.from_dict(saved["settings"]) == settings(keep=2, ema=0.9)
    facts = read_facts(finished.best)
    assert facts["categories"] == ["dark", "light"]
    assert facts["epoch"] == max(finished.history, key=lambda r: r["score/top1"])["epoch"]
    assert finished.scores is not None
    assert facts["scores"]["values"] == finished.scores.values
    assert facts["averaged"] is True
    assert set(weights(finished.best)) == set(tiny().state_dict())


def test_losses_are_means_over_the_epochs_pictures(tmp_path: Path) -> None:
    """With a learning rate of almost nothing every batch meets the same weights."""
    batches = [collate(pictures(7)[a:b], range(a, b)) for a, b in ((0, 4), (4, 7))]
    system = tiny()
    finished = train(system, FixedBatches(batches), None, settings(lr=1e-30, epochs=1), out=tmp_path, quiet=True)
    everything = tiny().loss([s.image for s in pictures(7)], [s.target for s in pictures(7)])
    for name, value in everything.terms.items():
        assert finished.history[0][f"train/{name}"] == pytest.approx(float(value.detach()), rel=1e-5)


@pytest.mark.parametrize("count", [16, 14])
def test_accumulated_batches_equal_the_big_batch(tmp_path: Path, count: int) -> None:
    """Also where the last batch of an epoch is smaller, and where the last group is."""
    small = [collate(pictures(count)[a : a + 4], range(a, min(count, a + 4))) for a in range(0, count, 4)]
    big = [collate(pictures(count)[a : a + 12], range(a, min(count, a + 12))) for a in (0, 12)]
    one, other = tiny(), tiny()
    first = train(one, FixedBatches(small), None, settings(accumulate=3), out=tmp_path / "a", quiet=True)
    train(other, FixedBatches(big), None, settings(), out=tmp_path / "b", quiet=True)
    assert first.history[-1]["step"] == 6
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_evaluation_does_not_change_training(tmp_path: Path) -> None:
    every = run(tmp_path / "a", tiny(dropout=0.5, norm=True), evaluate_every=1)
    never = tiny(dropout=0.5, norm=True)
    train(never, train_batches(), None, settings(), out=tmp_path / "b", quiet=True)
    assert same(weights(every.last), never.state_dict())
    third = run(tmp_path / "c", tiny(dropout=0.5, norm=True), evaluate_every=2)
    assert same(weights(third.last), never.state_dict())
    assert ["val/loss" in row for row in third.history] == [False, True, True]


def test_workers_do_not_change_training(tmp_path: Path) -> None:
    alone, helped = tiny(dropout=0.5), tiny(dropout=0.5)
    train(alone, train_batches(), None, settings(), out=tmp_path / "a", quiet=True)
    train(helped, train_batches(workers=1), None, settings(), out=tmp_path / "b", quiet=True)
    assert same(alone.state_dict(), helped.state_dict())


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    assert not same(
        weights(run(tmp_path / "a", tiny(dropout=0.5)).last),
        weights(run(tmp_path / "b", tiny(dropout=0.5), seed=1).last),
    )


def test_saved_and_measured_weights_are_the_average(tmp_path: Path) -> None:
    system = tiny(norm=True)
    finished = run(tmp_path, system, ema=0.5, epochs=1)
    raw, _ = read_state(finished.folder / "last.state.safetensors")
    assert same({k.removeprefix("model/"): v for k, v in raw.items() if k.startswith("model/")}, system.state_dict())
    saved = weights(finished.last)
    for name, value in saved.items():
        assert torch.equal(value, raw.get(f"average/{name}", raw[f"model/{name}"]))
    assert not torch.equal(saved["head.weight"], system.head.weight)
    system.load_state_dict(saved)
    system.eval()
    samples = pictures(6)
    loss = float(system.loss([s.image for s in samples], [s.target for s in samples]).total.detach())
    assert finished.history[0]["val/loss"] == pytest.approx(loss, rel=1e-5)


def test_frozen_parts_stay_bit_for_bit_also_in_the_average(tmp_path: Path) -> None:
    start = tiny(norm=True).state_dict()
    finished = run(tmp_path, tiny(norm=True), freeze=["stem"], ema=0.9, weight_decay=0.1)
    saved = weights(finished.last)
    assert {k for k in saved if not torch.equal(saved[k], start[k])} == {"head.weight", "head.bias"}


class Steps:
    """An evaluator whose headline follows a list."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def update(self, predictions: Any, targets: Any) -> None:
        pass

    def merge(self, other: Any) -> None:
        pass

    def compute(self) -> Scores:
        return Scores("x", {"x": self.values.pop(0)}, "as told")


def scored(out: Path, values: list[float], **fields: Any) -> Run:
    told = Steps(list(values))
    return train(
        tiny(), train_batches(), val_batches(), settings(**fields), out=out, make_evaluator=lambda: told, quiet=True
    )


def test_patience_counts_epochs_since_the_best(tmp_path: Path) -> None:
    finished = scored(tmp_path, [0.1, 0.3, 0.3, 0.2, 0.9], patience=2, epochs=9)
    assert finished.stopped == "patience"
    assert len(finished.history) == 4
    assert read_facts(finished.best)["epoch"] == 2
    assert finished.scores is not None
    assert finished.scores.value == 0.3


def test_a_score_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    nan = float("nan")
    finished = scored(tmp_path / "a", [nan, 0.1, nan])
    assert read_facts(finished.best)["epoch"] == 2
    listener = Listener()
    told = Steps([nan] * 3)
    loaders = (train_batches(), val_batches(), settings())
    finished = train(
        tiny(), *loaders, out=tmp_path / "b", make_evaluator=lambda: told, quiet=True, callbacks=[listener]
    )
    assert same(weights(finished.best), weights(finished.last))
    assert finished.scores is None
    assert "holds the last weights" in listener.events[-2].notes[0]


def test_without_an_evaluator_the_validation_loss_chooses(tmp_path: Path) -> None:
    finished = train(tiny(), train_batches(), val_batches(), settings(epochs=6, lr=0.5), out=tmp_path, quiet=True)
    best = min(finished.history, key=lambda row: row["val/loss"])
    facts = read_facts(finished.best)
    assert facts["epoch"] == best["epoch"]
    assert facts["val_loss"] == best["val/loss"]
    assert facts["scores"] is None


def test_a_cap_on_steps_shortens_the_schedule(tmp_path: Path) -> None:
    listener = Listener()
    loaders = (train_batches(), val_batches(), settings(steps=6))
    finished = train(tiny(), *loaders, out=tmp_path, callbacks=[listener], quiet=True)
    assert finished.stopped == "steps"
    assert [row["step"] for row in finished.history] == [4, 6]
    steps = [e for e in listener.events if isinstance(e, Step)]
    assert [s.lr for s in steps] == pytest.approx([0.05 * (1 + math.cos(math.pi * s / 6)) for s in range(6)])


def test_callbacks_hear_everything_in_order(tmp_path: Path) -> None:
    listener = Listener()
    train(tiny(), train_batches(), val_batches(), settings(epochs=2), out=tmp_path, callbacks=[listener], quiet=True)
    kinds = [type(e).__name__ for e in listener.events]
    assert kinds == ["Start", *["Step"] * 4, "Epoch", *["Step"] * 4, "Epoch", "End", "str"]
    steps = [e for e in listener.events if isinstance(e, Step)]
    assert [(s.epoch, s.step, s.total_steps, s.images) for s in steps[3:5]] == [(1, 4, 8, 4), (2, 5, 8, 4)]
    epochs = [e for e in listener.events if isinstance(e, Epoch)]
    mean = sum(s.loss for s in steps[:4]) / 4
    assert epochs[0].row["train/loss"] == pytest.approx(mean, rel=1e-6)


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    finished = run(tmp_path, epochs=1)
    before = finished.last.read_bytes()
    with pytest.raises(UsageError, match="the folder holds a run already"):
        run(tmp_path, epochs=1)
    assert finished.last.read_bytes() == before
    with pytest.raises(CheckpointError, match="there is no run to resume"):
        train(tiny(), train_batches(), None, settings(), out=tmp_path / "new", resume=True, quiet=True)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no picture to train on"):
        train(tiny(), train_batches(0), None, settings(), out=tmp_path / "a", quiet=True)
    assert not (tmp_path / "a").exists()


class Diverging(TinyClassifier):
    """Its class loss is not a number in the batches that hold picture 005."""

    gradient_only = False

    def loss(self, images: Any, targets: Any) -> Losses:
        losses = super().loss(images, targets)
        bad = any(torch.equal(image, pictures(6)[5].image) for image in images)
        if not bad:
            return losses
        value = losses.terms["class"]
        spoiled = (value - value.detach()).sqrt() if self.gradient_only else value * float("nan")
        return Losses({**losses.terms, "class": spoiled})


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_weights_move(
    tmp_path: Path, gradient_only: bool
) -> None:
    torch.manual_seed(0)
    system = Diverging()
    system.gradient_only = gradient_only
    batches = [collate(pictures(8)[a : a + 4], range(a, a + 4)) for a in (0, 4)]
    wanted = "gradient is not finite in .*though the loss is" if gradient_only else "class is nan"
    listener = Listener()
    with pytest.raises(TrainingError, match=rf"epoch 1, step 2: .*{wanted}.*004\.png, 005\.png, 006\.png, 007\.png"):
        train(system, FixedBatches(batches), None, settings(), out=tmp_path, quiet=True, callbacks=[listener])
    assert all(torch.isfinite(p).all() for p in system.parameters())
    bundle = tmp_path / "nonfinite-step-0000002"
    assert same(weights(bundle / "model.safetensors"), system.state_dict())
    assert listener.events[-1] == "closed"
    assert not any(isinstance(e, End) for e in listener.events)


def test_skipping_goes_on_as_if_the_batch_had_not_been(tmp_path: Path) -> None:
    torch.manual_seed(0)
    system, twin = Diverging(norm=True), tiny(norm=True)
    twin.load_state_dict(system.state_dict())
    good, bad = (collate(pictures(8)[a : a + 4], range(a, a + 4)) for a in (0, 4))
    constant = {"schedule": "constant", "epochs": 2}
    listener = Listener()
    finished = train(
        system,
        FixedBatches([good, bad]),
        None,
        settings(on_nonfinite="skip", **constant),
        out=tmp_path / "a",
        quiet=True,
        callbacks=[listener],
    )
    train(twin, FixedBatches([good]), None, settings(**constant), out=tmp_path / "b", quiet=True)
    ours, theirs = system.state_dict(), twin.state_dict()
    counters = {k for k in ours if "num_batches" in k}
    assert all(torch.equal(ours[k], theirs[k]) for k in ours.keys() - counters)
    assert len(listener.events[-2].notes) == 3
    assert math.isfinite(finished.history[-1]["train/loss"])


def test_bf16_trains_and_is_scored_in_fp32(tmp_path: Path) -> None:
    kinds: set[torch.dtype] = set()

    class Watched(TinyClassifier):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            out = super().forward(pixels)
            kinds.add(out.dtype) if self.training else evaluated.add(out.dtype)
            return out

    evaluated: set[torch.dtype] = set()
    finished = run(tmp_path, Watched(), precision="bf16", epochs=1)
    assert kinds == {torch.bfloat16}
    assert evaluated == {torch.float32}
    assert all(v.dtype == torch.float32 for v in weights(finished.last).values())


def test_channels_last_gives_the_same_weights(tmp_path: Path) -> None:
    a, b = weights(run(tmp_path / "a").last), weights(run(tmp_path / "b", channels_last=True).last)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


def test_minutes_stop_within_an_epoch_measured_and_saved(tmp_path: Path) -> None:
    finished = run(tmp_path, minutes=1e-9)
    assert finished.stopped == "minutes"
    assert [row["step"] for row in finished.history] == [1]
    assert "val/loss" in finished.history[0]
    assert finished.best.exists()
    assert finished.last.exists()
    assert read_state(tmp_path / "last.state.safetensors")[1]["progress"]["history"] == []


def test_an_interrupt_ends_the_run_after_its_step(tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_step(self, event: Step) -> None:
            if event.step == 6:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    loaders = (train_batches(), val_batches(), settings())
    finished = train(tiny(), *loaders, out=tmp_path, quiet=True, callbacks=[Interrupt()])
    assert finished.stopped == "interrupted"
    assert [row["step"] for row in finished.history] == [4, 6]
    assert signal.getsignal(signal.SIGINT) is before
    whole = run(tmp_path / "whole")
    resumed = train(tiny(), *loaders, out=tmp_path, quiet=True, resume=True)
    assert same(weights(resumed.last), weights(whole.last))


def test_a_second_interrupt_is_not_held_back(tmp_path: Path) -> None:
    class Twice(Callback):
        def on_step(self, event: Step) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    # A process started in the background ignores interrupts: take Python's own handling, whatever was inherited.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), train_batches(), None, settings(), out=tmp_path, quiet=True, callbacks=[Twice()])
    finally:
        signal.signal(signal.SIGINT, inherited)


@pytest.mark.parametrize(("precision", "planes"), [("bf16", True), ("fp32", False)])
def test_dilated_layers_see_planes_where_bfloat16_would_be_wrong(
    tmp_path: Path, precision: str, planes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tiny()
    system.stem[0] = torch.nn.Conv2d(3, 4, 3, dilation=2)
    layouts: list[bool] = []
    convolve = torch.nn.Conv2d._conv_forward

    def spy(self: torch.nn.Conv2d, pixels: torch.Tensor, *rest: Any) -> torch.Tensor:
        layouts.append(pixels.is_contiguous() and self.weight.is_contiguous())
        return convolve(self, pixels, *rest)

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", spy)
    run(tmp_path / "run", system, precision=precision, channels_last=True, epochs=1)
    assert layouts
    assert all(layouts) is planes
