"""A model measured on a data set: scores with their protocols, and one report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bestiary.data.loader import Batch, Loader
from bestiary.metrics.coco import CocoScores
from bestiary.metrics.errors import error_split
from bestiary.metrics.scores import Scores
from bestiary.predictions import Detections, Prediction
from bestiary.records import Target
from bestiary.reports.examples import ExampleCollector
from bestiary.reports.html import write_report
from bestiary.system import Predictor, evaluation_mode
from bestiary.training.contracts import Evaluator
from bestiary.verbs.datasets import Data, dataset_name, has_learned, open_measured
from bestiary.verbs.protocols import Rules, evaluators

__all__ = ["Evaluation", "best_threshold", "evaluate", "evaluators"]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        scores: one per protocol, the chief one first.
        report: the HTML file, if one was asked for.
        images_per_second: prediction and scoring, without drawing.
    """

    scores: list[Scores]
    report: Path | None = None
    images_per_second: float = float("nan")
    facts: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "scores": [s.to_dict() for s in self.scores],
            "report": None if self.report is None else str(self.report),
            "images_per_second": self.images_per_second,
            "facts": self.facts,
        }


def evaluate(
    model: Predictor,
    data: Data,
    split: str | None = None,
    format: str | None = None,
    report: str | Path | None = None,
    batch: int = 1,
    workers: int = 0,
    facts: dict[str, str] | None = None,
    history: Sequence[dict[str, Any]] = (),
    protocols: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Predict on every picture of a split, in original pixels, and score by the usual protocols of the model's task.

    Args:
        model: a system, or an exported graph opened by `load`.
        data: folder, annotation file, `world`, or an open data set.
        split: its split; `test` if None, or `val` where there is none.
        format: the reader's name; found by itself if None.
        report: where to write the HTML report.
        batch: pictures a forward pass.
        workers: processes that decode.
        facts: further lines for the report's head.
        history: the run's epochs, for the report's curves.
        protocols: names out of `verbs.protocols.PROTOCOLS`, in place of the usual ones.
        say: told what the reader mended, and progress.
    """
    task = model.task
    dataset, split = open_measured(data, split, task, format, model.categories, say)
    known = has_learned(getattr(model, "learned", {}), data, split, format)
    if known:
        say(f"the model has learned from pictures of {split}: its scores there say little of new ones")
    measuring = evaluators(task, model.categories, protocols, report is not None)
    collector = ExampleCollector() if report is not None else None
    spent, finer_asked = 0.0, bool(protocols) and "coco" not in protocols
    loader = Loader(dataset, batch=batch, workers=workers)
    for found in loader.iterate(0):
        begin = time.perf_counter()
        with evaluation_mode(model), torch.inference_mode():
            predictions: list[Prediction] = model.predict_images(found.images)
        if not finer_asked and predictions:
            measuring += finer_evaluators(predictions, found.targets, model.categories)
            finer_asked = True
        for protocol in measuring:
            protocol.update(predictions, found.targets)
        spent += time.perf_counter() - begin
        if collector is not None:
            for image, target, prediction, name in zip(*_columns(found, predictions), strict=True):
                collector.add(replace(prediction, name=name), target, image)
    scores = [protocol.compute() for protocol in measuring]
    speed = len(dataset) / spent if spent else float("nan")
    lines = {
        "pictures": f"{len(dataset)} ({split}{', from which the model has learned' if known else ''})",
        "speed": f"{speed:.1f} pictures a second",
        **(facts or {}),
    }
    page = None
    if collector is not None and report is not None:
        title = f"{getattr(model, 'model_name', '') or task} on {dataset_name(data)}"
        page = write_report(
            report,
            title=title,
            scores=scores[0],
            extra_scores=scores[1:],
            facts=lines,
            examples=collector.examples(model.categories, best_threshold(scores[0])),
            errors=error_split(measuring[0].table()) if isinstance(measuring[0], CocoScores) else None,
            history=history,
        )
    return Evaluation(scores, page, speed, lines)


def finer_evaluators(
    predictions: Sequence[Prediction], targets: Sequence[Target], categories: Sequence[str]
) -> list[Evaluator]:
    """COCO's protocol for masks and for keypoints, where detections and their truth have them."""
    made: list[Evaluator] = []
    for kind in ("masks", "keypoints"):
        found = all(isinstance(p, Detections) and getattr(p, kind) is not None for p in predictions)
        true = all(t.objects is not None and getattr(t.objects, kind) is not None for t in targets)
        if found and true:
            made.append(CocoScores(tuple(categories), **Rules().coco(kind)))
    return made


def _columns(found: Batch, predictions: list[Prediction]) -> tuple[list[Any], ...]:
    return found.images, found.targets, predictions, found.names


def best_threshold(scores: Scores) -> float:
    """The score from which detections are worth showing: that of the highest F1, 0.5 where the protocol knows none."""
    overall = (scores.details.get("thresholds") or {}).get("overall") or {}
    best = overall.get("best_f1")
    return float(best["threshold"]) if best else 0.5
