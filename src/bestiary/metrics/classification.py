"""Scores of whole-picture classes: top-k accuracy, the confusion matrix and what follows from it, and how far to
trust a probability.

Ties: among equally likely categories the one of lower index ranks first, as in `Classification.label`. A system that
says the same of every category is therefore right only where the truth is one of the first k.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.curves import PrecisionRecall
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.metrics.table import require_pairs
from bestiary.predictions import Classification
from bestiary.records import Target, require

CALIBRATION_BINS = 15
_SMALLEST = float(np.finfo(np.float32).tiny)


def ranks_of_truth(probs: Float[Tensor, "N K"], labels: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
    """Place of the true category, from 0: how many are likelier, or as likely and of lower index.

    Args:
        probs: probabilities or logits.

    Raises:
        RecordError: a NaN among them, or a label outside 0..K-1.
    """
    count = probs.shape[1]
    require(not bool(torch.isnan(probs).any()), "probs", "NaN", "numbers")
    outside = (labels < 0) | (labels >= count)
    require(not bool(outside.any()), "labels", labels[outside][:1].tolist(), f"0 to {count - 1}")
    true = probs.gather(1, labels[:, None])
    earlier = torch.arange(count, device=probs.device)[None] < labels[:, None]
    return ((probs > true) | ((probs == true) & earlier)).sum(1)


def topk_accuracy(probs: Float[Tensor, "N K"], labels: Int64[Tensor, " N"], k: int = 1) -> float:
    """Share of the N pictures whose true category is among the k likeliest; NaN for no picture."""
    if k < 1:
        raise UsageError(f"got {k}, wanted at least 1", where="k")
    return float((ranks_of_truth(probs, labels) < k).double().mean()) if len(labels) else math.nan


def confusion_matrix(
    truth: Int64[np.ndarray, " N"], predicted: Int64[np.ndarray, " N"], num_classes: int
) -> Int64[np.ndarray, "K K"]:
    """How often each true category (row) was taken for each (column).

    Raises:
        RecordError: a label outside 0..num_classes-1.
    """
    for name, labels in (("truth", truth), ("predicted", predicted)):
        bad = labels[(labels < 0) | (labels >= num_classes)]
        require(not bad.size, name, bad[:1].tolist(), f"0 to {num_classes - 1}")
    counts = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def per_class_numbers(counts: Int64[np.ndarray, "K K"]) -> dict[str, Float64[np.ndarray, " K"]]:
    """From a confusion matrix, for each category: `recall` (its own accuracy), `precision` and `f1`.

    NaN where there is nothing to measure: recall of a category without pictures, precision of one that was never
        said, f1 of one
    that is neither.
    """
    right, true, said = np.diag(counts).astype(np.float64), counts.sum(1), counts.sum(0)
    with np.errstate(invalid="ignore"):
        return {"recall": right / true, "precision": right / said, "f1": 2 * right / (true + said)}


def calibration_error(
    confidence: Float64[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int = CALIBRATION_BINS
) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error (Guo et al., ICML 2017, eq. 3) and its bins.

    The N answers go into equal bins (lower, upper] of confidence; the error is the mean over answers of |accuracy -
    confidence| of their bin. NaN for no answer.

    Returns:
        The error; of every bin that is not empty, `count`, `confidence` and `accuracy`.
    """
    if not len(right):
        return math.nan, []
    edges = np.linspace(0.0, 1.0, bins + 1)
    number = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(number, minlength=bins)
    filled = count > 0
    mean_confidence = np.bincount(number, confidence, minlength=bins)[filled] / count[filled]
    accuracy = np.bincount(number, right.astype(np.float64), minlength=bins)[filled] / count[filled]
    error = float((count[filled] * np.abs(accuracy - mean_confidence)).sum() / len(right))
    rows = zip(count[filled].tolist(), mean_confidence.tolist(), accuracy.tolist(), strict=True)
    return error, [{"count": float(n), "confidence": c, "accuracy": a} for n, c, a in rows]


class ClassificationScores:
    """Counts pictures as they come: a K x K matrix and nine bytes a picture.

    Args:
        categories: K names.
        topk: numbers k of top-k accuracy; those that every answer would pass (k >= K > 1) are left out.

    Raises:
        UsageError: no category, or a k below 1.
    """

    def __init__(self, categories: Sequence[str], topk: Sequence[int] = (1, 5)) -> None:
        if not categories or not topk or min(topk) < 1:
            raise UsageError(
                f"got {len(categories)} categories and k of {list(topk)}, wanted at least 1 of each", where="topk"
            )
        self.categories = tuple(categories)
        self.topk = tuple(k for k in sorted({1, *topk}) if k == 1 or k < len(categories))
        self.counts: Int64[np.ndarray, "K K"] = np.zeros((len(categories), len(categories)), np.int64)
        self._passed = np.zeros(len(self.topk), np.int64)
        self._log_loss = 0.0
        self._confidence: list[np.ndarray] = []
        self._right: list[np.ndarray] = []

    def update(self, predictions: Sequence[Classification], targets: Sequence[Target]) -> None:
        """Count pictures.

        Raises:
            RecordError: the lengths differ, a target has no label, a prediction is not over K categories or holds NaN.
        """
        require_pairs(predictions, targets)
        if not predictions:
            return
        labels = []
        for prediction, target in zip(predictions, targets, strict=True):
            if target.label is None:
                raise RecordError("got a target without a class", where=f"Target.label of {prediction.name!r}")
            got, wanted = len(prediction.probs), len(self.categories)
            require(got == wanted, f"probs of {prediction.name!r}", f"{got} probabilities", f"{wanted}")
            labels.append(target.label)
        probs = torch.stack([p.probs.detach().cpu() for p in predictions]).double()
        truth = torch.tensor(labels, dtype=torch.int64)
        ranks = ranks_of_truth(probs, truth).numpy()
        confidence, said = probs.max(1)
        self.counts += confusion_matrix(truth.numpy(), said.numpy(), len(self.categories))
        self._passed += np.array([(ranks < k).sum() for k in self.topk])
        self._log_loss += float(-probs.gather(1, truth[:, None]).clamp(min=_SMALLEST).log().sum())
        self._confidence.append(confidence.numpy())
        self._right.append(ranks == 0)

    def merge(self, other: "ClassificationScores") -> None:
        """Add what another accumulator of the same categories and k has counted."""
        require(other.categories == self.categories, "merge", other.categories, str(self.categories))
        require(other.topk == self.topk, "merge", f"top {other.topk}", f"top {self.topk}")
        self.counts += other.counts
        self._passed += other._passed
        self._log_loss += other._log_loss
        self._confidence += other._confidence
        self._right += other._right

    def compute(self) -> Scores:
        """Top-k accuracy (`top1` leads), means over categories of recall, precision and F1, log loss and calibration
        error.
        """
        total = int(self.counts.sum())
        confidence = np.concatenate([np.zeros(0), *self._confidence])
        right = np.concatenate([np.zeros(0, bool), *self._right])
        numbers = per_class_numbers(self.counts)
        error, bins = calibration_error(confidence, right)
        values = {
            f"top{k}": passed / total if total else math.nan for k, passed in zip(self.topk, self._passed, strict=True)
        }
        values = {name: float(value) for name, value in values.items()}
        values |= {f"mean_{name}": mean_of_measured(column) for name, column in numbers.items()}
        values |= {"log_loss": self._log_loss / total if total else math.nan, "calibration_error": error}
        per_class = {
            category: {
                **{name: float(column[k]) for name, column in numbers.items()},
                "count": float(self.counts[k].sum()),
            }
            for k, category in enumerate(self.categories)
        }
        protocol = (
            f"{total} pictures; equal probabilities rank by index; means over the categories that occur; "
            f"calibration error in {CALIBRATION_BINS} bins"
        )
        details: dict[str, Any] = {
            "task": "classification",
            "pictures": total,
            "confusion": self.counts.copy(),
            "calibration": bins,
            "thresholds": {"trust": self._trust(confidence, right)},
        }
        return Scores("top1", values, protocol, per_class, details)

    def _trust(self, confidence: Float64[np.ndarray, " N"], right: Bool[np.ndarray, " N"]) -> dict[str, Any]:
        """How sure an answer must be so that 90, 95 or 99 % of the answers kept are right; recall counts the right
        ones kept.
        """
        curve = PrecisionRecall.of(confidence, right, int(right.sum()))
        points = {f"precision_{round(100 * p)}": curve.for_precision(p) for p in (0.9, 0.95, 0.99)}
        return {name: point.to_dict() if point else None for name, point in points.items()}
