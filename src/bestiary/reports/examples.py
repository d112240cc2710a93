"""Which pictures a report shows: the worst, some drawn at random, and the best, found in one pass with few pictures
in memory.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from bestiary import draw
from bestiary.errors import UsageError
from bestiary.metrics.class_masks import ClassMaskScores
from bestiary.predictions import Classification, Detections, Prediction, Segmentation
from bestiary.records import IGNORE_LABEL, Target

Group = Literal["worst", "typical", "best"]
Cost = Callable[[Prediction, Target], float]
"""How badly a picture went, higher is worse."""

ReadPicture = Callable[[], Tensor | None]
"""Reads a picture when it is drawn; None if there is none to be read after all."""


@dataclass(frozen=True, eq=False)
class Example:
    """One picture of a report.

    Attributes:
        name: of the picture.
        truth_picture: the truth drawn on it. prediction_picture: the prediction drawn on it.
        caption: what went wrong, in words.
        cost: how badly, higher is worse.
        group: why it is shown.
        mistakes_picture: where they differ, of label maps.
    """

    name: str
    truth_picture: UInt8[Tensor, "3 H W"]
    prediction_picture: UInt8[Tensor, "3 H W"]
    caption: str
    cost: float
    group: Group = "worst"
    mistakes_picture: UInt8[Tensor, "3 H W"] | None = None


@dataclass(frozen=True, eq=False)
class _Kept:
    prediction: Prediction
    target: Target
    image: Tensor | ReadPicture
    cost: float


class ExampleCollector:
    """Keeps the pictures of highest and lowest cost, and a fair draw from all of them.

    Args:
        worst, typical, best: how many of each at most; memory holds that many pictures.
        cost: how badly a picture went; `picture_cost` if not given.
        seed: of the draw.
    """

    def __init__(
        self, worst: int = 12, typical: int = 4, best: int = 4, cost: Cost | None = None, seed: int = 0
    ) -> None:
        if min(worst, typical, best) < 0:
            raise UsageError(f"got {worst}, {typical} and {best}, wanted none below 0", where="ExampleCollector")
        self.limits = {"worst": worst, "typical": typical, "best": best}
        self.cost: Cost = cost or picture_cost
        self.seen = 0
        self._rng = np.random.default_rng(seed)
        self._worst: list[tuple[float, int, _Kept]] = []
        self._best: list[tuple[float, int, _Kept]] = []
        self._drawn: list[_Kept] = []

    def add(
        self, prediction: Prediction, target: Target, image: Shaped[Tensor, "C H W"] | ReadPicture | None = None
    ) -> None:
        """Consider a picture: `image`, or what reads it, or the one that the prediction keeps.

        Raises:
            UsageError: there is no picture, or the target lacks what the cost needs.
        """
        picture = image if image is not None else prediction.image
        if picture is None:
            raise UsageError(
                "got a prediction without its picture", where=prediction.name, mend="Hand the picture to add()"
            )
        cost = float(self.cost(prediction, target))
        kept = _Kept(replace(prediction, image=None), target, picture, cost)
        # Of equals the earlier picture stays.
        for heap, key, limit in ((self._worst, cost, self.limits["worst"]), (self._best, -cost, self.limits["best"])):
            entry = (key, -self.seen, kept)
            if len(heap) < limit:
                heapq.heappush(heap, entry)
            elif limit and entry > heap[0]:
                heapq.heapreplace(heap, entry)
        if len(self._drawn) < self.limits["typical"]:
            self._drawn.append(kept)
        elif self._drawn and (place := int(self._rng.integers(0, self.seen + 1))) < len(self._drawn):
            self._drawn[place] = kept
        self.seen += 1

    def examples(self, categories: Sequence[str], threshold: float = 0.3) -> list[Example]:
        """The pictures drawn: worst first, then the draw in the order of cost, then the best; each picture once.

        Args:
            categories: names for the truth.
            threshold: detections below it are not drawn and not counted in captions.
        """
        groups: list[tuple[Group, list[_Kept]]] = [
            ("worst", [kept for *_, kept in sorted(self._worst, reverse=True)]),
            ("best", [kept for *_, kept in sorted(self._best, reverse=True)]),
            ("typical", sorted(self._drawn, key=lambda kept: -kept.cost)),
        ]
        shown: set[int] = set()
        made: dict[Group, list[Example]] = {}
        for group, several in groups:
            made[group] = []
            for kept in several:
                image = kept.image if isinstance(kept.image, Tensor) else kept.image()
                if id(kept) not in shown and image is not None:
                    shown.add(id(kept))
                    made[group].append(_draw(kept, image, group, categories, threshold))
        return [*made["worst"], *made["typical"], *made["best"]]


def collect_examples(
    pictures: Iterable[tuple[Prediction, Target]],
    categories: Sequence[str],
    worst: int = 12,
    typical: int = 4,
    best: int = 4,
    threshold: float = 0.3,
) -> list[Example]:
    """Run through predictions that keep their picture, and draw the worst, a few at random and the best."""
    collector = ExampleCollector(worst, typical, best)
    for prediction, target in pictures:
        collector.add(prediction, target)
    return collector.examples(categories, threshold)


def picture_cost(prediction: Prediction, target: Target) -> float:
    """How badly a picture went.

    Detection: for every truth 1 minus the score of its hit (1 if missed), and for every false alarm its score.
        Classification: the highest
    probability of a wrong class minus that of the right one, so that the most confident mistakes come first.
    Segmentation: 1 minus the mean IoU of the classes present.

    Raises:
        UsageError: the target lacks what the prediction is judged by.
    """
    if isinstance(prediction, Detections):
        hits, alarms, missed = match_picture(prediction, target)
        scores = prediction.scores.double()
        return float((1 - scores[hits]).sum() + scores[alarms].sum() + missed)
    if isinstance(prediction, Classification):
        if target.label is None or not 0 <= target.label < len(prediction.probs):
            raise UsageError(f"got label {target.label}, wanted a class of the prediction", where=prediction.name)
        wrong = prediction.probs.clone()
        wrong[target.label] = 0
        return float(wrong.max() - prediction.probs[target.label])
    return 1 - picture_iou(prediction, target)


def match_picture(prediction: Detections, target: Target, threshold: float = 0.0) -> tuple[list[int], list[int], int]:
    """Hits and false alarms (rows of detections from `threshold` on) and how many truths are missed, at IoU 0.5, best
    score first.

    Crowds and difficult objects need not be found, and what overlaps them is no false alarm.
    """
    if target.objects is None:
        raise UsageError("got a target without objects", where=prediction.name)
    truth = target.objects
    ignored = torch.zeros(len(truth), dtype=torch.bool)
    for marked in (truth.crowd, truth.difficult):
        ignored = ignored if marked is None else ignored | marked.cpu()
    overlaps = _overlaps(prediction.boxes_xyxy.cpu(), truth.boxes_xyxy.cpu())
    overlaps = overlaps * (prediction.labels.cpu()[:, None] == truth.labels.cpu()[None])
    free = ~ignored
    hits, alarms = [], []
    for row in torch.argsort(prediction.scores.cpu(), descending=True, stable=True).tolist():
        if prediction.scores[row] < threshold:
            continue
        here = overlaps[row] * free if len(truth) else overlaps[row]
        best = int(here.argmax()) if len(truth) else -1
        if best >= 0 and here[best] >= 0.5:
            free[best] = False
            hits.append(row)
        elif not bool((overlaps[row][ignored] >= 0.5).any()):
            alarms.append(row)
    return hits, alarms, int(free.sum())


def picture_iou(prediction: Segmentation, target: Target) -> float:
    """Mean IoU, in one picture, of the classes in truth or prediction where the truth is known; 1 if it is known
    nowhere.
    """
    if prediction.class_masks is not None:
        scores = ClassMaskScores([str(k) for k in range(len(prediction.class_masks))])
        scores.update([prediction], [target])
        value = scores.compute().value
        return 1.0 if math.isnan(value) else value
    if target.label_map is None:
        raise UsageError("got a target without label map", where=prediction.name)
    known = target.label_map != IGNORE_LABEL
    truth, said = target.label_map[known].long(), prediction.label_map[known].long()
    both = torch.bincount(truth[truth == said], minlength=256).double()
    either = torch.bincount(truth, minlength=256) + torch.bincount(said, minlength=256) - both
    present = either > 0
    return float((both[present] / either[present]).mean()) if present.any() else 1.0


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes xyxy, `[A, B]`; 0 where both are without area."""
    sides = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(min=0)
    both = sides.prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    return both / (area_a[:, None] + area_b[None] - both).clamp(min=torch.finfo().tiny)


def _draw(kept: _Kept, image: Tensor, group: Group, categories: Sequence[str], threshold: float) -> Example:
    prediction, target = kept.prediction, kept.target
    if isinstance(prediction, Detections):
        hits, alarms, missed = match_picture(prediction, target, threshold)
        caption = f"{_count(len(hits), 'hit')}, {missed} missed, {_count(len(alarms), 'false alarm')}"
        prediction = prediction.above(threshold)
    elif isinstance(prediction, Classification):
        said, prob = prediction.top(1)[0]
        label = target.label or 0
        right = prediction.label == target.label
        name = categories[label] if label < len(categories) else str(label)
        caption = f"{said}, {prob:.2f}" + (
            ": right" if right else f"; it is {name} ({float(prediction.probs[label]):.2f})"
        )
    elif target.label_map is not None and prediction.class_masks is None:
        # The page has the legend, where it hides nothing.
        truth, said = target.label_map.cpu(), prediction.label_map.cpu()
        return Example(
            name=prediction.name,
            truth_picture=draw.label_map(image, truth, categories, legend=False),
            prediction_picture=draw.label_map(image, said, categories, legend=False),
            caption=_mistakes(truth, said, categories, picture_iou(prediction, target)),
            cost=kept.cost,
            group=group,
            mistakes_picture=draw.mistake_map(image, truth, said),
        )
    else:
        caption = f"mean IoU {picture_iou(prediction, target):.2f}"
    return Example(
        name=prediction.name,
        truth_picture=draw.target(image, target, categories),
        prediction_picture=prediction.draw(image),
        caption=caption,
        cost=kept.cost,
        group=group,
    )


def _mistakes(truth: Tensor, said: Tensor, categories: Sequence[str], iou: float) -> str:
    """Mean IoU, the share of wrong pixels, and the two commonest mistakes."""
    wrong = (truth != said) & (truth != IGNORE_LABEL)
    known = max(1, int((truth != IGNORE_LABEL).sum()))
    pairs = torch.bincount(truth[wrong].long() * 256 + said[wrong].long(), minlength=65536)
    parts = []
    for pair in pairs.topk(2).indices.tolist():
        if pairs[pair] >= 0.005 * known:
            names = [categories[k] if k < len(categories) else str(k) for k in divmod(pair, 256)]
            parts.append(f"{names[0]} taken for {names[1]} {100 * int(pairs[pair]) / known:.0f} %")
    share = 100 * int(wrong.sum()) / known
    return f"mean IoU {iou:.2f}, {share:.1f} % of the pixels wrong" + (f": {', '.join(parts)}" if parts else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
