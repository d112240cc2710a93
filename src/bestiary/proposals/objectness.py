"""Objectness: Alexe, Deselaers, Ferrari, Measuring the Objectness of Image Windows, PAMI 34(11), 2012.

How likely a window holds an object of any kind, from cues that each say a little: whether it is salient, differs in
colour from what is around it, has edges along its border, cuts no superpixel, and lies where objects lie. A naive Bayes
model learned from annotated boxes puts them together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.ops._kernels.threads import in_threads
from bestiary.ops.suppression import nms
from bestiary.proposals.learning import shows_object, truth_of
from bestiary.proposals.objectness_cues import SALIENCE_SIDES, SmallPicture
from bestiary.proposals.objectness_model import Places, Table, relative
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import Sample

Cue = Literal["salience", "contrast", "edges", "segments", "place"]
CUES: tuple[Cue, ...] = get_args(Cue)

PARAMETERS: dict[Cue, tuple[float, ...]] = {
    "contrast": (1.0, 1.25, 1.5, 2.0),
    "edges": (0.05, 0.1, 0.17, 0.3, 0.5, 0.8),
    "segments": (150.0, 250.0, 450.0, 800.0),
}
"""What each cue's parameter is chosen from; the paper's choices are 1, 0.17 and 450."""

THRESHOLDS = (0.04, 0.1, 0.16, 0.22, 0.28, 0.34, 0.43)
"""What the thresholds of salience are chosen from; the paper's choices are 0.26 to 0.43."""

THRESHOLD_PICTURES = 15
"""Pictures that they are chosen by: five numbers need no more."""

LEAST_SIDE = 10
"""Of windows, pixels."""

CANDIDATES = 20_000
"""Best windows that are thinned out."""

JITTERED = 10
"""Windows drawn around each training box, besides those drawn anywhere."""


class _Drawn(NamedTuple):
    """Windows drawn by salience: boxes of the full picture, the number of each one's scale, its score there."""

    boxes: Float64[np.ndarray, "N 4"]
    scales: Int64[np.ndarray, " N"]
    scores: Float32[np.ndarray, " N"]


class _Lesson(NamedTuple):
    """A training picture and its objects."""

    picture: SmallPicture
    truth: Float32[Tensor, "G 4"]


class Objectness(Proposer):
    """Windows drawn where a picture is salient, ranked by all cues, and thinned out.

    Deviations. The cues see the picture with its longest side at 256 pixels, so that the time does not depend on its
    size. Likelihoods have 32 cells that follow the training windows, where the authors have some hundred fixed ones:
    a user's fifty pictures fill them. The thresholds of salience are chosen by how well windows drawn by them cover the
    objects, where the authors take local maxima among all windows. Some training windows are drawn around the objects,
    as few drawn anywhere hit a small one; the prior does not count those.

    Args:
        count: most boxes.
        overlap: boxes that overlap a better one by more than this IoU are dropped; below 1. The paper's 0.5 covers most
            objects with few boxes, 0.7 or more places them better.
        windows: drawn by salience and scored.
        cues: those that count. The authors' program has salience, contrast and segments.
        side: longest side of the small copy, pixels.
        training_pictures: learned from, drawn at random.
        training_windows: drawn from each of them.

    Raises:
        UsageError: a setting out of range.
    """

    name: ClassVar[str] = "objectness"
    version: ClassVar[int] = 1
    thresholds: Tensor
    chosen: Tensor
    edges: Tensor
    ratios: Tensor
    prior: Tensor
    centres: Tensor
    reaches: Tensor

    def __init__(
        self,
        count: int = 1000,
        overlap: float | int = 0.5,
        windows: int = 100_000,
        cues: Sequence[Cue] = CUES,
        side: int = 256,
        training_pictures: int = 50,
        training_windows: int = 5000,
    ) -> None:
        super().__init__()
        if min(count, windows, side, training_pictures, training_windows) < 1 or not 0 < overlap < 1:
            got = f"got count {count}, overlap {overlap}, windows {windows}, side {side}"
            raise UsageError(f"{got}, wanted at least 1, and an overlap between 0 and 1", where=self.name)
        if not cues or any(cue not in CUES for cue in cues):
            raise UsageError(f"got {list(cues)}, wanted some of {', '.join(CUES)}", where=f"{self.name}.cues")
        self.count, self.overlap, self.windows, self.side = count, float(overlap), windows, side
        self.cues = tuple(cue for cue in CUES if cue in cues)
        self.training_pictures, self.training_windows = training_pictures, training_windows
        # A row of the tables for the salience of each scale, then one for each of the other cues.
        self.declare("thresholds", "chosen", "edges", "ratios", "prior", "centres", "reaches")

    def settings(self) -> Mapping[str, Any]:
        """The constructor's arguments that matter after fitting."""
        return {name: getattr(self, name) for name in ("count", "overlap", "windows", "cues", "side")}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """The best windows, by the probability that they hold an object."""
        picture = SmallPicture.of(image, self.side)
        drawn = self._draw(picture, self.thresholds.numpy(), self.windows)
        if not len(drawn.boxes):  # nothing is salient in a picture of one colour
            height, width = picture.full_hw
            whole = np.array([[0, 0, width, height]], np.float64)
            drawn = _Drawn(whole, np.zeros(1, np.int64), np.zeros(1, np.float32))
        odds = torch.from_numpy(self._odds(picture, drawn))
        boxes = torch.from_numpy(drawn.boxes.astype(np.float32))
        best = torch.sort(odds, descending=True, stable=True).indices[:CANDIDATES]
        kept = best[nms(boxes[best], odds[best], self.overlap)][: self.count]
        return Proposals(boxes[kept], odds[kept].sigmoid())

    def _draw(self, picture: SmallPicture, thresholds: Float32[np.ndarray, " S"], number: int) -> _Drawn:
        """About `number` windows, as many from each scale and colour channel, by their salience."""
        from bestiary.proposals._kernels.objectness import draw_salient, integral

        height, width = picture.full_hw
        maps = [(i, m) for i, side in enumerate(SALIENCE_SIDES) for m in picture.salience(side)]
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros((0, 4)), np.zeros(0, np.float32))] * len(maps)

        def several(start: int, stop: int) -> None:
            for j in range(start, stop):
                scale, salience = maps[j]
                side = SALIENCE_SIDES[scale]
                tall, wide = (min(side, max(2, round(LEAST_SIDE * side / length))) for length in (height, width))
                above = salience >= thresholds[scale]
                mass, ones = integral(salience * above), integral(above.astype(np.float64))
                windows, scores = draw_salient(mass, ones, (tall, wide), -(-number // len(maps)), 0.5)
                found[j] = windows * (np.array([width, height, width, height]) / side), scores

        in_threads(several, len(maps), torch.get_num_threads())
        scales = [np.full(len(scores), scale) for (scale, _), (_, scores) in zip(maps, found, strict=True)]
        boxes, scores = (np.concatenate([f[k] for f in found]) for k in (0, 1))
        return _Drawn(boxes, np.concatenate(scales).astype(np.int64), scores)

    def _odds(self, picture: SmallPicture, drawn: _Drawn) -> Float32[np.ndarray, " N"]:
        """log p(object | cues) - log p(background | cues)."""
        tables = [Table(e, r) for e, r in zip(self.edges.numpy(), self.ratios.numpy(), strict=True)]
        odds = np.full(len(drawn.boxes), float(self.prior), np.float32)
        if "salience" in self.cues:
            for scale in range(len(SALIENCE_SIDES)):
                here = drawn.scales == scale
                odds[here] += tables[scale].of(drawn.scores[here])
        values = dict(zip(PARAMETERS, self.chosen.tolist(), strict=True))
        for row, cue in enumerate(CUES[1:], start=len(SALIENCE_SIDES)):
            if cue in self.cues:
                odds += tables[row].of(self._values(cue, picture, drawn.boxes, values.get(cue, 0.0)))
        return odds

    def _values(
        self, cue: Cue, picture: SmallPicture, boxes: Float64[np.ndarray, "N 4"], parameter: float
    ) -> Float32[np.ndarray, " N"]:
        """A cue of windows anywhere."""
        if cue == "place":
            return Places(self.centres.numpy(), self.reaches.numpy()).densities(relative(boxes, picture.full_hw))
        windows = picture.windows(boxes)
        if cue == "contrast":
            return picture.contrast(windows, parameter)
        return picture.edge_density(windows, parameter) if cue == "edges" else picture.straddling(windows, parameter)

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn thresholds, parameters, likelihoods and places from annotated boxes; crowds are not learned from.

        Raises:
            UsageError: no picture with an object, or none of the windows drawn shows one.
        """
        rng = np.random.default_rng(seed)
        lessons, places = self._lessons(samples, rng)
        if not lessons:
            mend = "Fit on pictures with annotated boxes"
            raise UsageError("got no picture with an object", where=f"{self.name}.fit", mend=mend)
        thresholds = self._best_thresholds(lessons)
        say(f"{self.name}: thresholds of salience {', '.join(f'{t:g}' for t in thresholds)}")
        found = Places.fitted(places, rng)
        self.learn("thresholds", torch.from_numpy(thresholds))
        self.learn("centres", torch.from_numpy(found.centres))
        self.learn("reaches", torch.from_numpy(found.reaches))
        tables, share = self._salience_tables(lessons, thresholds)
        others, parameters = self._other_tables(lessons, rng)
        tables += others
        self.learn("chosen", torch.tensor(parameters))
        self.learn("edges", torch.from_numpy(np.stack([t.edges for t in tables])))
        self.learn("ratios", torch.from_numpy(np.stack([t.ratios for t in tables])))
        self.learn("prior", torch.tensor(float(np.log(share / (1 - share)))))
        said = ", ".join(f"{cue} {value:g}" for cue, value in zip(PARAMETERS, parameters, strict=True))
        say(f"{self.name}: {len(lessons)} pictures; {said}; one drawn window in {1 / share:.0f} shows an object")

    def _lessons(
        self, samples: Sequence[Sample], rng: np.random.Generator
    ) -> tuple[list[_Lesson], Float64[np.ndarray, "N 4"]]:
        """The pictures to learn from, small, and the places of all their objects."""
        lessons: list[_Lesson] = []
        places = [np.zeros((0, 4))]
        for i in rng.permutation(len(samples)).tolist():
            sample = samples[i]
            truth = truth_of(sample)
            if len(truth):
                lessons.append(_Lesson(SmallPicture.of(sample.image, self.side), truth))
                places.append(relative(truth.numpy().astype(np.float64), sample.size_hw))
            if len(lessons) == self.training_pictures:
                break
        return lessons, np.concatenate(places)

    def _best_thresholds(self, lessons: Sequence[_Lesson]) -> Float32[np.ndarray, " S"]:
        """For each scale the threshold whose windows cover the objects best (mean of the best IoU)."""
        from bestiary.geometry.boxes import pairwise_iou

        covered = np.zeros((len(THRESHOLDS), len(SALIENCE_SIDES)))
        for lesson in lessons[:THRESHOLD_PICTURES]:
            for t, threshold in enumerate(THRESHOLDS):
                even = np.full(len(SALIENCE_SIDES), threshold, np.float32)
                drawn = self._draw(lesson.picture, even, self.training_windows)
                boxes = torch.from_numpy(drawn.boxes.astype(np.float32))
                for scale in np.unique(drawn.scales):
                    overlaps = pairwise_iou(boxes[torch.from_numpy(drawn.scales == scale)], lesson.truth)
                    covered[t, scale] += float(overlaps.amax(0).sum())
        return np.array(THRESHOLDS, np.float32)[covered.argmax(0)]

    def _salience_tables(
        self, lessons: Sequence[_Lesson], thresholds: Float32[np.ndarray, " S"]
    ) -> tuple[list[Table], float]:
        """How salience speaks at each scale, and the share of drawn windows that show an object."""
        drawn = [self._draw(lesson.picture, thresholds, self.training_windows) for lesson in lessons]
        labels = [
            shows_object(d.boxes.astype(np.float32), lesson.truth) for d, lesson in zip(drawn, lessons, strict=True)
        ]
        scales, scores = np.concatenate([d.scales for d in drawn]), np.concatenate([d.scores for d in drawn])
        positive = np.concatenate(labels)
        tables = []
        for scale in range(len(SALIENCE_SIDES)):
            here = scales == scale
            both = positive[here].any() and not positive[here].all()
            tables.append(Table.fitted(scores[here], positive[here]) if both else Table.silent())
        return tables, float((positive.sum() + 1) / (len(positive) + 2))

    def _other_tables(self, lessons: Sequence[_Lesson], rng: np.random.Generator) -> tuple[list[Table], list[float]]:
        """The tables of the cues beside salience, each at the parameter that tells objects best."""
        values: dict[tuple[Cue, float], list[np.ndarray]] = {}
        labels: list[Bool[np.ndarray, " N"]] = []
        for lesson in lessons:
            picture = SmallPicture(lesson.picture.pixels, lesson.picture.full_hw)  # forgets its counts afterwards
            boxes = _training_windows(lesson, self.training_windows, rng)
            labels.append(shows_object(boxes.astype(np.float32), lesson.truth))
            for cue in CUES[1:]:
                for parameter in PARAMETERS.get(cue, (0.0,)):
                    values.setdefault((cue, parameter), []).append(self._values(cue, picture, boxes, parameter))
        positive = np.concatenate(labels)
        if not positive.any() or positive.all():
            raise UsageError("no window shows an object, or all do", where=f"{self.name}.fit", mend="Add pictures")
        tables, chosen = [], []
        for cue in CUES[1:]:
            fitted = []
            for parameter in PARAMETERS.get(cue, (0.0,)):
                found = np.concatenate(values[cue, parameter])
                table = Table.fitted(found, positive)
                fitted.append((table.certainty(found, positive), parameter, table))
            _, parameter, table = max(fitted, key=lambda entry: entry[0])
            tables.append(table)
            if cue in PARAMETERS:
                chosen.append(parameter)
        return tables, chosen


def _training_windows(lesson: _Lesson, number: int, rng: np.random.Generator) -> Float64[np.ndarray, "N 4"]:
    """Windows drawn anywhere, and `JITTERED` around each object."""
    height, width = lesson.picture.full_hw
    corners = rng.uniform(0, 1, (number, 2, 2)) * [width, height]
    anywhere = np.concatenate([corners.min(1), corners.max(1)], 1)
    truth = np.repeat(lesson.truth.numpy().astype(np.float64), JITTERED, 0)
    sides = np.tile(truth[:, 2:] - truth[:, :2], 2)
    around = truth + rng.uniform(-0.25, 0.25, truth.shape) * sides
    return np.clip(np.concatenate([anywhere, around]), 0, [width, height, width, height])
