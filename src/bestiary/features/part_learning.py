"""Latent SVMs of part models: where everything is, and what it should weigh, by turns.

Felzenszwalb, Girshick, McAllester, Ramanan, TPAMI 2010, sections 4 and 5: positives are placed by the present weights,
at any scale and place that overlaps the annotated box by at least 0.7; hard negatives are mined into a bounded cache;
the weights are those that minimise the convex objective.

The paper mines pictures without an object of the category. Here all pictures are mined, since those of most users hold
an object each: placements near an object of the category, or on a crowd, are neither positive nor negative.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.features.dpm_hog import LevelPair, feature_pyramid, mirrored_features
from bestiary.features.latent_svm import ExampleCache, WeightRules
from bestiary.features.part_models import Component, Hits, Scores, Templates
from bestiary.features.part_placing import PartSettings, Picture, best_placement, is_background
from bestiary.features.part_starts import face_alike, root_size, split_by_aspect, warped, with_parts
from bestiary.records import Record

NEGATIVE_LEVELS = 4
"""Levels an octave in which negatives are mined, as in the release."""

BIAS_WEIGHING, DEFORMATION_WEIGHING = 0.01, 10.0
"""How strongly biases and deformations are held down, beside 1 for filters: the release's, which frees biases."""

LEAST_COST = 0.001
"""Of the square of a displacement: the release's bound."""

PER_PICTURE = 200
"""Hard negatives of one picture in one pass, the hardest."""

WAITING = 400
"""New negatives for which the weights are found anew."""

STEADY = 0.02
"""Mining ends when a pass adds less than this share to the objective."""


@dataclass(frozen=True, eq=False)
class Placed(Record):
    """Positives where the present weights put them.

    Attributes:
        hits: in their pictures' pixels.
        truth_xyxy: the annotated boxes.
        vectors: features, zero beyond a component's own length.
        which: index of each among the positives.
    """

    hits: Hits
    truth_xyxy: Float32[Tensor, "N 4"]
    vectors: Float32[Tensor, "N D"]
    which: Int64[Tensor, " N"]


@dataclass
class Alternation:
    """What a learner saw, for whoever wants to follow it.

    Attributes:
        before: the objective of the examples at hand, before the positives were placed anew;
        placed: after it;
        solved: after the weights were found, hard negatives mined in between.
        found: positives that could be placed.
    """

    before: float
    placed: float
    solved: float
    found: int


@dataclass
class MixtureLearner:
    """One category's mixture, learned step by step.

    Args:
        pictures: each access decodes one.
        positives: (picture, number of the box) of every object to be learned from; at least one.
        mined: pictures that negatives are taken from.
        settings: see `PartSettings`.
        rng: of all that is random.
        say: told how far it is.

    Attributes:
        history: one entry an alternation.
    """

    pictures: Sequence[Picture]
    positives: Sequence[tuple[int, int]]
    mined: Sequence[int]
    settings: PartSettings
    rng: np.random.Generator
    say: Callable[[str], None] = lambda _: None
    history: list[Alternation] = field(default_factory=list)

    def learn(self) -> tuple[list[Component], Placed | None]:
        """All phases: roots, their mixture, parts. Also where the positives are in the end; None if nowhere."""
        components = self.alternate(self.roots(), self.settings.root_rounds)
        components = [with_parts(c, self.settings.parts, self.rng) for c in components]
        components = self.alternate(components, self.settings.rounds)
        return components, self.place(Templates(components))

    def roots(self) -> list[Component]:
        """Phase 1: a root for each group of aspects, from warped positives and random negatives."""
        boxes = self._positive_boxes()
        groups = split_by_aspect(boxes, self.settings.components)
        sizes = [root_size(boxes[group], self.settings.areas) for group in groups]
        seen: list[list[Tensor]] = [[] for _ in groups]
        home = {int(row): g for g, group in enumerate(groups) for row in group}
        for index, rows in self._by_picture().items():
            picture = self.pictures[index]
            for row in rows:
                seen[home[row]].append(warped(picture.image, boxes[row], sizes[home[row]]))
        background = self._random_windows(sizes)
        found = []
        for features, windows, size in zip(seen, background, sizes, strict=True):
            stacked = torch.stack(features)
            turned = face_alike(stacked, self.rng)
            start = Component.of_root(torch.zeros(stacked.shape[1:]))
            alike = torch.where(turned[:, None, None, None], mirrored_features(stacked), stacked)
            found.append(self._fit_root(start, alike, windows))
            self.say(f"a root of {size[0]} x {size[1]} cells from {len(stacked):,} objects")
        return found

    def _fit_root(
        self, start: Component, positives: Float32[Tensor, "N 32 h w"], negatives: Float32[Tensor, "M 32 h w"]
    ) -> Component:
        cache = ExampleCache(rules_of([start]), len(positives) + len(negatives), self.settings.cost)
        for sign, rows in ((1, positives), (-1, negatives)):
            vectors = torch.cat([rows.flatten(1), torch.ones(len(rows), 1)], 1)
            numbers = torch.arange(len(rows))
            keys = torch.stack([torch.full_like(numbers, sign), numbers, numbers * 0, numbers * 0], 1)
            cache.add(vectors, torch.zeros_like(numbers), sign, keys)
        cache.solve()
        return start.with_vector(cache.weights[0])

    def _random_windows(self, sizes: Sequence[tuple[int, int]]) -> list[Float32[Tensor, "N 32 h w"]]:
        """Background at random places and scales, some from each picture, for roots of each size."""
        wanted = max(200, 2 * len(self.positives))
        each = -(-wanted // max(1, len(self.mined)))
        found: list[list[Tensor]] = [[] for _ in sizes]
        for index in self.mined:
            picture = self.pictures[index]
            pairs = feature_pyramid(picture.image, 1, self.settings.finest)
            for windows, size in zip(found, sizes, strict=True):
                windows += self._windows_of(picture, pairs, size, each)
        empty = [torch.zeros(0, 32, *size) for size in sizes]
        return [torch.stack(w) if w else e for w, e in zip(found, empty, strict=True)]

    def _windows_of(
        self, picture: Picture, pairs: Sequence[LevelPair], size_hw: tuple[int, int], count: int
    ) -> list[Tensor]:
        tall, wide = size_hw
        fitting = [p for p in pairs if p.coarse.features.shape[1] >= tall and p.coarse.features.shape[2] >= wide]
        found = []
        for _ in range(count if fitting else 0):
            pair = fitting[int(self.rng.integers(len(fitting)))]
            features, (down, across) = pair.coarse.features, pair.coarse.cell_hw
            y = int(self.rng.integers(features.shape[1] - tall + 1))
            x = int(self.rng.integers(features.shape[2] - wide + 1))
            box = torch.tensor([[x * across, y * down, (x + wide) * across, (y + tall) * down]])
            if bool(is_background(box, picture)[0]):
                found.append(features[:, y : y + tall, x : x + wide])
        return found

    def alternate(self, components: Sequence[Component], rounds: int) -> list[Component]:
        """`rounds` times: place the positives, then find weights and hard negatives until they no longer change."""
        if not rounds:
            return list(components)
        rules = rules_of(components)
        capacity = int(self.settings.cache_mb * 1e6 / 4 / rules.floors.shape[1])
        cache = ExampleCache(rules, max(capacity, 2 * len(self.positives) + 2 * PER_PICTURE), self.settings.cost)
        cache.start_from(weights_of(components, rules.floors.shape[1]))
        current = list(components)
        for turn in range(rounds):
            placed = self.place(Templates(current))
            before = cache.objective()
            if placed is None:
                self.say("no object can be placed: all are smaller than the roots, or of other aspects")
                return current
            cache.drop_positives()
            keys = torch.stack([-torch.ones_like(placed.which), placed.which, placed.which * 0, placed.which * 0], 1)
            cache.add(placed.vectors, placed.hits.templates // 2, 1, keys)
            after = cache.objective()
            current = self._mine(current, cache, turn)
            self.history.append(Alternation(before, after, cache.objective(), len(placed.which)))
            self.say(
                f"round {turn + 1} of {rounds}: {len(placed.which):,} of {len(self.positives):,} objects placed,"
                f" {len(cache) - cache.num_positives:,} hard negatives, objective {self.history[-1].solved:.4f}"
            )
        return current

    def _mine(self, components: Sequence[Component], cache: ExampleCache, turn: int) -> list[Component]:
        """Hard negatives and weights by turns, until a pass over the pictures finds hardly any.

        Weights are found anew whenever enough new negatives have come, so that the next pictures are asked what is hard
        for them; easy negatives make room when the cache is full.
        """
        current = self._solved(components, cache) if turn else list(components)
        for number in range(self.settings.passes):
            templates, new, waiting = Templates(current), 0.0, 0
            for index in self.rng.permutation(np.asarray(self.mined)).tolist():
                if waiting >= WAITING or cache.room < PER_PICTURE:
                    current, waiting = self._solved(current, cache), 0
                    templates = Templates(current)
                    if cache.room < PER_PICTURE:
                        cache.drop_easy()
                    if cache.room < PER_PICTURE:
                        self.say("the cache is full of hard negatives: raise cache_mb for more")
                        return current
                size = len(cache)
                new += self._mine_picture(index, templates, cache)
                waiting += len(cache) - size
            current = self._solved(current, cache)
            # The first pass of all judges by weights that owe nothing to the cache.
            if new <= STEADY * cache.objective() and number + turn > 0:
                break
        cache.drop_easy()
        return current

    def _solved(self, components: Sequence[Component], cache: ExampleCache) -> list[Component]:
        cache.solve(int(self.rng.integers(2**31)))
        return [c.with_vector(w[: len(c.vector())]) for c, w in zip(components, cache.weights, strict=True)]

    def _mine_picture(self, index: int, templates: Templates, cache: ExampleCache) -> float:
        """Add a picture's hard negatives; what those that are new add to the objective."""
        picture = self.pictures[index]
        found: list[tuple[Scores, Hits]] = []
        for pair in feature_pyramid(picture.image, NEGATIVE_LEVELS, self.settings.finest):
            scores = templates.score(pair)
            hits = scores.above(-1)
            found.append((scores, hits[is_background(hits.boxes_xyxy, picture)]))
        margins = torch.cat([hits.margins for _, hits in found])
        floor = float(margins.topk(PER_PICTURE).values[-1]) if len(margins) > PER_PICTURE else -torch.inf
        new = 0.0
        for scores, hits in found:
            hard = hits[hits.margins >= floor]
            for component in range(len(templates.components)):
                mine = hard[hard.templates // 2 == component]
                if not len(mine):
                    continue
                blocks = torch.full_like(mine.templates, component)
                keys = torch.stack([torch.full_like(blocks, index), mine.levels, *mine.roots_xy.unbind(1)], 1)
                added = cache.add(scores.vectors(mine), blocks, -1, keys)
                new += added / len(mine) * self.settings.cost * float((1 + mine.margins).sum())
        return new

    def place(self, templates: Templates) -> Placed | None:
        """Every positive at its best place among those that overlap its box enough; left out where there is none."""
        width = max(len(c.vector()) for c in templates.components)
        boxes = self._positive_boxes()
        hits, vectors, which = [], [], []
        for index, rows in self._by_picture().items():
            image = self.pictures[index].image
            for row in rows:
                found = best_placement(image, boxes[row], templates, self.settings)
                if found is not None:
                    hits.append(found[0])
                    vectors.append(torch.nn.functional.pad(found[1], (0, width - found[1].shape[1])))
                    which.append(row)
        if not hits:
            return None
        rows = torch.tensor(which)
        return Placed(Hits.joined(hits), boxes[rows], torch.cat(vectors), rows)

    def _by_picture(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for row, (picture, _) in enumerate(self.positives):
            found.setdefault(picture, []).append(row)
        return found

    def _positive_boxes(self) -> Float32[Tensor, "N 4"]:
        if not hasattr(self, "_boxes"):
            self._boxes = torch.zeros(len(self.positives), 4)
            for index, rows in self._by_picture().items():
                numbers = [self.positives[row][1] for row in rows]
                self._boxes[rows] = self.pictures[index].boxes_xyxy[numbers]
        return self._boxes


def rules_of(components: Sequence[Component]) -> WeightRules:
    """How the numbers of a mixture are held down, and the bounds of its deformations."""
    lengths = [len(c.vector()) for c in components]
    weighing = torch.ones(len(components), max(lengths))
    floors = torch.full_like(weighing, -torch.inf)
    for row, component in enumerate(components):
        end, count = lengths[row], component.deformations.numel()
        weighing[row, end - 1] = BIAS_WEIGHING
        weighing[row, end - 1 - count : end - 1] = DEFORMATION_WEIGHING
        floors[row, end - 1 - count : end - 1].view(-1, 4)[:, 2:] = LEAST_COST
        # Beyond a component's own numbers nothing is learned.
        floors[row, end:] = 0
    return WeightRules(weighing, floors)


def weights_of(components: Sequence[Component], width: int) -> Float32[Tensor, "B D"]:
    """The numbers of a mixture as rows of one matrix."""
    rows = torch.zeros(len(components), width)
    for row, component in zip(rows, components, strict=True):
        row[: len(component.vector())] = component.vector()
    return rows
