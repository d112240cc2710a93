"""Viola, Jones, Rapid Object Detection using a Boosted Cascade of Simple Features, CVPR 2001; Robust Real-Time Face
Detection, IJCV 2004.

A cascade for each category: integral images, Haar-like features chosen by AdaBoost, and stages that each learn from
what those before still take for objects. The features are scaled over the picture; overlapping answers are averaged.
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.features.cascade import Cascade, disjoint_groups
from bestiary.features.cascade_learning import StageGoals, every_fourth, learn_stage
from bestiary.features.haar import normalised_integrals
from bestiary.features.integral import grey_bytes, integral_images
from bestiary.features.object_windows import Template, crop_window, template_for
from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.fitted_detection import Annotated, FittedDetector, Found, annotated, apart_from, boxes_by_category
from bestiary.records import Sample

DEFAULT_GOALS = StageGoals()
"""A stage passes 98 % of the objects' windows, of which several stand for each object, and half of the rest."""

AREA = 576
"""Of a window that is fitted to the data: the paper's 24 x 24 pixels, in the shape of the objects."""

APART = 0.3
"""A window whose IoU with every object of the category is below this is no object."""

FEWEST = 2
"""Objects of a category without which no cascade is learned."""

MOST_WINDOWS = 2000
"""Of a category and picture, the best, that are merged: all pairs of them are compared."""


class ViolaJones(FittedDetector):
    """A cascade for each category.

    Args:
        categories: K names.
        window: (width, height) at scale 1, pixels; None fits each category's to its objects.
        goals: what stages are to reach.
        cuts: windows that are cut around each object, all but the first a little shifted and scaled; every second one
            is mirrored.
        factor: from one size of the scan to the next.
        step: from window to window, in pixels of the window at scale 1.
        lenient: windows that miss so many of the last stages are still told of, with lower scores: the paper has 0.
        merge_overlap: windows of a category with a larger IoU are of one object; the paper joins all that touch.
        least_windows: an object is told of if so many windows found it.
        nms_overlap: of two merged windows of a category with a larger IoU the better one stays.
    """

    def __init__(
        self,
        categories: Sequence[str],
        window: tuple[int, int] | None = None,
        goals: StageGoals = DEFAULT_GOALS,
        cuts: int = 4,
        factor: float | int = 1.25,
        step: float | int = 1.0,
        lenient: int = 0,
        merge_overlap: float | int = 0.75,
        least_windows: int = 1,
        nms_overlap: float | int = 0.3,
    ) -> None:
        super().__init__(categories, nms_overlap)
        for name, value, least in (("cuts", cuts, 1), ("lenient", lenient, 0), ("least_windows", least_windows, 1)):
            if value < least:
                raise UsageError(f"got {value}, wanted {least} or more", where=name)
        for name, value, above in (("factor", factor, 1), ("step", step, 0)):
            if not value > above:
                raise UsageError(f"got {value}, wanted more than {above}", where=name)
        if window is not None and min(window) < 8:
            raise UsageError(f"got {window[0]} x {window[1]}, wanted 8 x 8 or more", where="window")
        self.window = None if window is None else Template((window[1], window[0]))
        self.goals, self.cuts, self.lenient = goals, cuts, lenient
        self.factor, self.step = float(factor), float(step)
        self.merge_overlap, self.least_windows = float(merge_overlap), least_windows
        self.cascades = nn.ModuleList(Cascade() for _ in self.categories)

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn each category's window, its stages one after the other, and what the answers' margins mean."""
        self.cascades = nn.ModuleList(Cascade() for _ in self.categories)
        objects = self._cut_objects(samples, seed, say)
        if not objects:
            raise UsageError("got no category with two objects, wanted at least one", where="fit(samples)")
        for label, windows in objects.items():
            self._learn_cascade(label, windows, samples, np.random.default_rng([seed, label]), say)
        self.calibrate(samples, say)

    def find(self, image: UInt8[Tensor, "3 H W"]) -> Found:
        """Windows that pass the cascade, or all but its last `lenient` stages, of every category at every size."""
        sums, squares = integral_images(torch.from_numpy(grey_bytes(image)))
        parts: list[Found] = []
        for label in range(len(self.categories)):
            cascade = self.cascade(label)
            if not cascade.stages:
                continue
            least = max(1, cascade.stages - self.lenient)
            for scale in cascade.scales((int(image.shape[1]), int(image.shape[2])), self.factor):
                scan = cascade.scan(sums, squares, scale, self.step, least)
                places = (scan.margins >= 0).nonzero()
                margins = 2 * scan.evidence[places[:, 0], places[:, 1]]  # the log odds
                boxes = cascade.template.within(scan.windows_xyxy(places))
                parts.append(Found(boxes, torch.full((len(places),), label), margins))
        return Found.joined(parts)

    def merge(self, found: Found) -> Found:
        """The mean window of each set of overlapping ones; the odds of all of them add up to its margin."""
        parts = []
        for label in found.labels.unique().tolist():
            mine = found[found.labels == label]
            mine = mine[torch.sort(mine.margins, descending=True, stable=True).indices[:MOST_WINDOWS]]
            boxes = mine.boxes_xyxy
            group = disjoint_groups(pairwise_iou(boxes, boxes) > self.merge_overlap)
            count = torch.bincount(group)
            mean = torch.zeros(len(count), 4).index_add_(0, group, boxes) / count[:, None]
            highest = torch.full((len(count),), -torch.inf).scatter_reduce_(0, group, mine.margins, "amax")
            odds = torch.zeros(len(count)).index_add_(0, group, (mine.margins - highest[group]).exp())
            merged = Found(mean, torch.full((len(count),), label), highest + odds.log())
            parts.append(merged[count >= self.least_windows])
        return Found.joined(parts)

    def cascade(self, label: int) -> Cascade:
        """A category's cascade; without stages where there were too few objects."""
        return cast(Cascade, self.cascades[label])

    def _cut_objects(
        self, samples: Sequence[Sample], seed: int, say: Callable[[str], None]
    ) -> dict[int, Float32[np.ndarray, "_n _a"]]:
        """Integral images of the objects' windows by category; the cascades' windows are known then."""
        shapes: dict[int, Template] = {}
        for label, own in enumerate(boxes_by_category(samples, len(self.categories), say)):
            if len(own) < FEWEST:
                say(f"{self.categories[label]}: {len(own)} objects are too few to learn from")
                continue
            shapes[label] = template = self.window or template_for(own, (AREA, AREA))
            sizes = template.scales_of(own).quantile(torch.tensor([0.01, 0.99]))
            self.cascade(label).learn_shape(template, sizes)
            size = f"{template.size_hw[1]} x {template.size_hw[0]}"
            say(f"{self.categories[label]}: window of {size} pixels for {len(own):,} objects")
        cut: dict[int, list[np.ndarray]] = {label: [] for label in shapes}
        for index, picture in enumerate(annotated(samples, len(self.categories), say, done="cut into windows")):
            rng = np.random.default_rng([seed, index])
            for label, template in shapes.items():
                own = picture.truth.boxes_xyxy[picture.truth.labels == label]
                cut[label] += self._cut(picture.image, template.around(own), template, rng)
        return {label: normalised_integrals(np.stack(windows)) for label, windows in cut.items()}

    def _cut(
        self,
        image: UInt8[Tensor, "3 H W"],
        windows_xyxy: Float32[Tensor, "N 4"],
        template: Template,
        rng: np.random.Generator,
    ) -> list[Float32[np.ndarray, "_h _w"]]:
        """Grey windows, `cuts` of each: shifted by up to a 24th of their sides, as far as the scan's grid is off, and
        scaled by up to half its factor.
        """
        grey = torch.from_numpy(grey_bytes(image))[None]
        cut = []
        for window in windows_xyxy.double().numpy():
            centre, sides = (window[:2] + window[2:]) / 2, window[2:] - window[:2]
            for number in range(self.cuts):
                shift = rng.uniform(-1, 1, 2) * sides / 24 if number else 0.0
                scale = self.factor ** (rng.uniform(-0.25, 0.25) if number else 0.0)
                corners = np.concatenate([centre + shift - sides * scale / 2, centre + shift + sides * scale / 2])
                x1, y1, x2, y2 = corners.tolist()
                part = crop_window(grey, (x1, y1, x2, y2), template.size_hw)[0].float().numpy()
                cut.append(part[:, ::-1] if number % 2 else part)
        return cut

    def _learn_cascade(
        self,
        label: int,
        positives: Float32[np.ndarray, "P A"],
        samples: Sequence[Sample],
        rng: np.random.Generator,
        say: Callable[[str], None],
    ) -> None:
        """Stage after stage, until there are enough or nothing is left to reject."""
        cascade, name = self.cascade(label), self.categories[label]
        total, aside = len(positives), every_fourth(len(positives), together=self.cuts)
        for stage in range(self.goals.stages):
            negatives = self._negatives(label, samples, rng, say)
            if len(negatives) < max(10, self.goals.negatives // 20):
                say(f"{name}: only {len(negatives)} windows are still taken for it: enough stages")
                break
            rates = learn_stage(cascade, positives, negatives, self.goals, rng, aside)
            left = cascade.passed(positives) == cascade.stages
            positives, aside = positives[left], aside[left]
            say(
                f"{name}, stage {stage + 1}: {rates.features} features pass {rates.detection:.1%} of objects and "
                f"{rates.false:.1%} of {len(negatives):,} others; {len(positives) / total:.1%} of objects left"
            )

    def _negatives(
        self, label: int, samples: Sequence[Sample], rng: np.random.Generator, say: Callable[[str], None]
    ) -> Float32[np.ndarray, "M A"]:
        """Windows apart from all objects that every stage so far passes, from pictures in random order."""
        cascade, kept = self.cascade(label), []
        each = max(10, 4 * self.goals.negatives // len(samples))
        order = rng.permutation(len(samples)).tolist()
        for picture in annotated(samples, len(self.categories), say, order, f"searched, stage {cascade.stages + 1}"):
            windows = self._passing(picture, cascade, label)
            chosen = windows[torch.from_numpy(rng.permutation(len(windows))[:each])]
            grey = torch.from_numpy(grey_bytes(picture.image))[None]
            for x1, y1, x2, y2 in chosen.tolist():
                kept.append(crop_window(grey, (x1, y1, x2, y2), cascade.template.size_hw)[0].float().numpy())
            if len(kept) >= self.goals.negatives:
                break
        size = cascade.template.size_hw
        stacked = np.stack(kept[: self.goals.negatives]) if kept else np.zeros((0, *size), np.float32)
        return normalised_integrals(stacked)

    def _passing(self, picture: Annotated, cascade: Cascade, label: int) -> Float32[Tensor, "N 4"]:
        """Windows of a picture that pass, apart from its objects."""
        sums, squares = integral_images(torch.from_numpy(grey_bytes(picture.image)))
        parts = [torch.zeros(0, 4)]
        for scale in cascade.scales(picture.size_hw, self.factor):
            # The first stages pass nearly all there is: they need not look everywhere.
            step = self.step * max(1, 4 - cascade.stages)
            scan = cascade.scan(sums, squares, scale, step)
            parts.append(scan.windows_xyxy((scan.margins >= 0).nonzero()))
        windows = torch.cat(parts)
        return windows[apart_from(cascade.template.within(windows), picture.truth, label, APART)]


def viola_jones(
    categories: Sequence[str] | None = None,
    *,
    window: tuple[int, int] | None = None,
    stages: int = 15,
    detection_rate: float = 0.98,
    false_rate: float = 0.5,
    most_features: int = 80,
    pool: int | None = 4000,
    negatives: int = 2000,
    cuts: int = 4,
    factor: float = 1.25,
    lenient: int = 0,
    merge_overlap: float = 0.75,
) -> ViolaJones:
    """Boosted cascades of Haar-like features; the paper's detector of faces is window 24,24, pool none and 38 stages.

    Args:
        categories: the user's; None for the paper's, faces.
        window: width and height of every window at scale 1, pixels; None fits each category's to its objects.
        stages: of a cascade, at most.
        detection_rate: least share of the objects that a stage passes.
        false_rate: largest share of other windows that a stage passes, unless `most_features` are not enough.
        most_features: of a stage.
        pool: features, drawn anew for each stage, that it chooses from; none for all of the window's.
        negatives: windows that the stages before took for objects, that a stage learns from.
        cuts: windows that are cut around each object, all but the first a little shifted and scaled.
        factor: from one size of the scan to the next.
        lenient: windows that miss so many of the last stages are still told of, with lower scores.
        merge_overlap: windows of a category with a larger IoU are of one object.
    """
    goals = StageGoals(stages, detection_rate, false_rate, most_features, pool, negatives)
    return ViolaJones(
        ("face",) if categories is None else categories,
        window,
        goals,
        cuts,
        factor,
        lenient=lenient,
        merge_overlap=merge_overlap,
    )
