"""Deformable part models.

Felzenszwalb, Girshick, McAllester, Ramanan: Object Detection with Discriminatively Trained Part-Based Models, TPAMI
2010, with what the fifth release of its code added (Girshick, Felzenszwalb, McAllester: Discriminatively Trained
Deformable Part Models, Release 5, 2012): the feature of cells outside the picture, and components in mirrored pairs
whose sides are found without labels.

An object is a root and eight parts at twice its resolution; each part may leave its place at a cost. Where the parts
are is never annotated: a latent SVM finds it out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped, UInt8
from torch import Tensor

from bestiary import draw
from bestiary.assign.matcher import IGNORE, POSITIVE
from bestiary.errors import UsageError
from bestiary.features.context_scores import ContextScores
from bestiary.features.dpm_hog import feature_pyramid
from bestiary.features.part_boxes import fit_boxes, said_boxes
from bestiary.features.part_learning import MixtureLearner
from bestiary.features.part_mixture import PartMixture
from bestiary.features.part_models import Component, Hits
from bestiary.features.part_placing import PartSettings, Picture
from bestiary.heads.fitted_classification import to_bytes
from bestiary.heads.fitted_detection import FittedDetector, Found, annotated, judged
from bestiary.heads.published import VOC_20
from bestiary.heads.suppression import HARD
from bestiary.records import Sample

WINDOWS = 2000
"""Placements of a picture, the best, that are looked at further."""

LARGEST_AREA = 5000.0
"""Of a root, in square pixels: the release's."""

CALIBRATED = 40
"""Pictures that the meaning of scores is learned from."""


class DPM(FittedDetector):
    """Mixtures of deformable part models, one for each category.

    Args:
        categories: K names.
        settings: how mixtures are learned.
        per_octave: levels of the pyramid an octave when objects are looked for.
        threshold: placements that score less are nothing.
        context: judge every detection anew by what else the picture holds.
        coverage: of two boxes of a category, the worse one goes if more than this share of it lies in the better one.
        positives: objects of a category that are learned from, at most, picked at random.
        pictures: that hard negatives are mined from, at most, picked at random.

    Raises:
        UsageError: an argument out of range.
    """

    def __init__(
        self,
        categories: Sequence[str],
        settings: PartSettings,
        *,
        per_octave: int = 10,
        threshold: float | int = -1.0,
        context: bool = False,
        coverage: float | int = 0.5,
        positives: int = 1_000_000,
        pictures: int = 2000,
    ) -> None:
        super().__init__(categories)
        for name, value in (("per_octave", per_octave), ("positives", positives), ("pictures", pictures)):
            if value < 1:
                raise UsageError(f"got {value}, wanted 1 or more", where=name)
        if not 0 <= coverage <= 1:
            raise UsageError(f"got {coverage}, wanted 0 to 1", where="coverage")
        self.settings, self.per_octave, self.threshold = settings, per_octave, float(threshold)
        self.coverage, self.positives, self.pictures = float(coverage), positives, pictures
        self.mixture = PartMixture()
        self.context = ContextScores(len(self.categories)) if context else None

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn the mixture of each category that has objects.

        Raises:
            UsageError: no object, or none that a root can be placed on.
        """
        counts = [p.truth.labels.clone() for p in annotated(samples, len(self.categories), say)]
        kept: list[tuple[int, Component, Tensor]] = []
        for label, name in enumerate(self.categories):
            positives = [
                (picture, number)
                for picture, labels in enumerate(counts)
                for number in range(int((labels == label).sum()))
            ]
            if not positives:
                say(f"{name}: no object, it will never be found")
                continue
            kept += self._fit_category(_Album(samples, label, len(self.categories)), positives, label, seed, say)
        if not kept:
            mend = "Are all objects smaller than the roots? Lower least_area, or set finest to 2"
            raise UsageError("no object could be learned from", where="fit(samples)", mend=mend)
        self.mixture.keep(kept)
        if self.context is not None:
            self.context.forget()
            self._fit_context(self.context, samples, seed, say)
        self.calibrate(samples, say, CALIBRATED)

    def _fit_category(
        self,
        album: "_Album",
        positives: list[tuple[int, int]],
        label: int,
        seed: int,
        say: Callable[[str], None],
    ) -> list[tuple[int, Component, Float32[Tensor, "F 4"]]]:
        name = self.categories[label]
        rng = np.random.default_rng((seed, label))
        chosen = np.sort(rng.permutation(len(positives))[: self.positives])
        mined = np.sort(rng.permutation(len(album))[: self.pictures]).tolist()
        learner = MixtureLearner(
            album, [positives[i] for i in chosen], mined, self.settings, rng, lambda line: say(f"{name}: {line}")
        )
        components, placed = learner.learn()
        if placed is None:
            return []
        boxes = fit_boxes(placed.hits, placed.truth_xyxy, len(components))
        return [(label, component, weights) for component, weights in zip(components, boxes, strict=True)]

    def _fit_context(
        self, context: ContextScores, samples: Sequence[Sample], seed: int, say: Callable[[str], None]
    ) -> None:
        found, sizes, kinds = [], [], []
        for picture in annotated(samples, len(self.categories), say, done="looked at for their context"):
            windows = self._thinned(self.find(picture.image))
            found.append(windows)
            sizes.append(picture.size_hw)
            kinds.append(judged(windows, picture.truth))
        vectors = [context.vectors(w.boxes_xyxy, w.labels, w.margins, s) for w, s in zip(found, sizes, strict=True)]
        known = torch.cat(kinds) != IGNORE
        every = Found.joined(found)
        context.fit(torch.cat(vectors)[known], every.labels[known], torch.cat(kinds)[known] == POSITIVE, seed)

    def placements(self, image: UInt8[Tensor, "3 H W"]) -> Hits:
        """The placements of all components above the threshold, in any order, the best `WINDOWS` of them."""
        templates = self.mixture.templates()
        found: list[Hits] = []
        for pair in feature_pyramid(image, self.per_octave, self.settings.finest):
            found.append(templates.score(pair).above(self.threshold))
        hits = Hits.joined(found)
        return hits[torch.sort(hits.margins, descending=True, stable=True).indices[:WINDOWS]]

    def find(self, image: UInt8[Tensor, "3 H W"]) -> Found:
        """Boxes said by the placements of one picture, judged by their context if that was learned."""
        hits = self.placements(image)
        boxes, labels = said_boxes(hits, self.mixture.box_weights), self.mixture.labels[hits.templates // 2]
        found = Found(boxes, labels, hits.margins)
        if self.context is None or not self.context.is_fitted:
            return found
        found = self._thinned(found)
        size_hw = (int(image.shape[1]), int(image.shape[2]))
        return replace(found, margins=self.context(found.boxes_xyxy, found.labels, found.margins, size_hw))

    def merge(self, found: Found) -> Found:
        """The paper's suppression: best first, a box goes if a better one of its category covers too much of it.

        Left out where the user asked for another rule, and where it came before the judgement by context.
        """
        return found if self.context is not None and self.context.is_fitted else self._thinned(found)

    def _thinned(self, found: Found) -> Found:
        if self.suppression != HARD:
            return found
        return found[uncovered(found.boxes_xyxy, found.labels, found.margins, self.coverage)]

    def find_parts(self, image: Shaped[Tensor, "C _h _w"]) -> tuple[Found, Float32[Tensor, "N P 4"]]:
        """The objects of a picture, best first, and the boxes of their parts.

        Raises:
            UsageError: nothing was learned yet.
        """
        self.require_fitted()
        hits = self.placements(to_bytes(image))
        boxes, labels = said_boxes(hits, self.mixture.box_weights), self.mixture.labels[hits.templates // 2]
        stay = uncovered(boxes, labels, hits.margins, self.coverage)
        return Found(boxes, labels, hits.margins)[stay], hits.parts_xyxy[stay]

    def draw_parts(self, image: Shaped[Tensor, "C H W"], threshold: float | int = 0.0) -> UInt8[Tensor, "3 H W"]:
        """The picture with all objects that score more than `threshold`, and their parts."""
        found, parts = self.find_parts(image)
        sure = found.margins > threshold
        boxes = torch.cat([parts[sure].flatten(0, 1), found.boxes_xyxy[sure]])
        labels = torch.cat([found.labels[sure].repeat_interleave(parts.shape[1]), found.labels[sure]])
        names = [self.categories[k] for k in found.labels[sure].tolist()]
        return draw.objects(to_bytes(image), boxes, labels, [""] * (len(boxes) - len(names)) + names)


class _Album(Sequence[Picture]):
    """The samples as one category sees them; each access decodes a picture."""

    def __init__(self, samples: Sequence[Sample], label: int, num_categories: int) -> None:
        self.samples, self.label, self.num_categories = samples, label, num_categories

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Picture:  # type: ignore[override]
        """One picture."""
        picture = next(iter(annotated(self.samples, self.num_categories, chosen=[index])))
        truth = picture.truth
        return Picture(picture.image, truth.boxes_xyxy[truth.labels == self.label], truth.crowds_xyxy)


def uncovered(
    boxes_xyxy: Float32[Tensor, "N 4"],
    labels: Int64[Tensor, " N"],
    margins: Float32[Tensor, " N"],
    coverage: float | int,
) -> Int64[Tensor, " K"]:
    """Indices, best first, of the boxes of which no better one of their category that stays covers more than that."""
    order = torch.sort(margins, descending=True, stable=True).indices
    boxes, kinds = boxes_xyxy[order].double().numpy(), labels[order].numpy()
    areas = np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1e-9)
    stays = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if not stays[i]:
            continue
        rest = slice(i + 1, None)
        across = np.minimum(boxes[i, 2], boxes[rest, 2]) - np.maximum(boxes[i, 0], boxes[rest, 0])
        down = np.minimum(boxes[i, 3], boxes[rest, 3]) - np.maximum(boxes[i, 1], boxes[rest, 1])
        inside = np.maximum(across, 0) * np.maximum(down, 0)
        stays[rest] &= (inside <= coverage * areas[rest]) | (kinds[rest] != kinds[i])
    return order[torch.from_numpy(np.flatnonzero(stays))]


def dpm(
    categories: Sequence[str] | None = None,
    *,
    components: int = 1,
    parts: int = 8,
    rounds: int = 3,
    passes: int = 2,
    per_octave: int = 5,
    cost: float = 0.01,
    least_area: float = 1500.0,
    finest: int = 1,
    positives: int = 400,
    pictures: int = 100,
    context: bool = False,
) -> DPM:
    """Deformable part models, for minutes of a small machine. The release's numbers stand behind each argument.

    Args:
        categories: the user's; None for the 20 of PASCAL VOC.
        components: of a mixture, by aspect; each counts twice, with its mirror image. 3.
        parts: of a component. 8.
        rounds: times that all positives are placed anew, with parts. 8.
        passes: over the pictures for hard negatives, in each round, at most. 10.
        per_octave: levels an octave when objects are looked for. 10.
        cost: C. 0.001.
        least_area: of a root, in square pixels, of at most 5000; objects must be about as large. 3000.
        finest: scale of the finest level; 2 finds objects half as large, four times as slowly. 1, 2 for INRIA people.
        positives: objects of a category that are learned from, at most. All.
        pictures: that hard negatives are mined from, at most. 200, in the last round 2000.
        context: judge detections anew by what else the picture holds. The paper has numbers for both.
    """
    settings = PartSettings(
        components=components, parts=parts, cost=cost, areas=(least_area, LARGEST_AREA), finest=finest, rounds=rounds,
        passes=passes, cache_mb=400,
    )  # fmt: skip
    names = VOC_20 if categories is None else categories
    return DPM(names, settings, per_octave=per_octave, positives=positives, pictures=pictures, context=context)
