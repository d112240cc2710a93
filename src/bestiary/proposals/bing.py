"""BING: Cheng, Zhang, Lin, Torr, BING: Binarized Normed Gradients for Objectness Estimation at 300fps, CVPR 2014.

An object's outline, shrunk to 8 x 8 pixels, looks much like any other object's: a ring of strong gradients. One linear
template over the norms of the gradients finds such rings in every size and shape, and the template and the gradients
are so coarse that bit operations do it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.geometry.boxes import box_overlap_ratio
from bestiary.heads.fitted_classification import to_bytes
from bestiary.ops._kernels.threads import in_threads
from bestiary.proposals._kernels.bing import SIDE
from bestiary.proposals.learning import OVERLAP, shows_object, truth_of
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import Sample

SIZES = (10, 20, 40, 80, 160, 320)
"""Widths and heights of the windows, pixels: each twice the one before."""

RADIUS = 2
"""A window stays if none better that stays lies within so many template pixels (the authors' number)."""

BACKGROUND = 100
"""Windows without object that are drawn from a picture."""

LEAST_SHARE = 1e-3
"""A size is looked for if at least this share of the positive windows has it: of VOC's, 50, the authors' number."""


class Axis(NamedTuple):
    """One direction of the pyramid: a level for each window size that fits the picture.

    Attributes:
        lengths: pixels of the level.
        scales: pixels of the picture to one of the level; 8 of them are the window.
    """

    lengths: tuple[int, ...]
    scales: tuple[float, ...]


def axis_of(length: int, sizes: Sequence[int]) -> Axis:
    """The levels along a side of `length` pixels.

    The first is the picture shrunk by 8 / sizes[0], the others are halved. Windows larger than the picture, but less
    than twice as large, are cut to the whole side: one last level of exactly 8 pixels.
    """
    lengths, scales = [max(SIDE, round(length * SIDE / sizes[0]))], []
    scales.append(length / lengths[0])
    for _ in sizes[1:]:
        half = lengths[-1] // 2
        if lengths[-1] == SIDE:
            break
        lengths.append(max(half, SIDE))
        scales.append(2 * scales[-1] if half >= SIDE else length / SIDE)
    return Axis(tuple(lengths), tuple(scales))


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A picture's normed gradients at every window size.

    Attributes:
        maps: by (row size, column size), numbers of the window's height and width in the list of sizes.
        down, across: the levels of either direction.
        size_hw: of the picture.
    """

    maps: dict[tuple[int, int], UInt8[np.ndarray, "_h _w"]]
    down: Axis
    across: Axis
    size_hw: tuple[int, int]

    def boxes(
        self, level: tuple[int, int], y: Int64[np.ndarray, " N"], x: Int64[np.ndarray, " N"]
    ) -> Float32[np.ndarray, "N 4"]:
        """The windows at these positions of a level, in pixels of the picture."""
        tall, wide = self.down.scales[level[0]], self.across.scales[level[1]]
        boxes = np.stack([x * wide, y * tall, (x + SIDE) * wide, (y + SIDE) * tall], 1)
        height, width = self.size_hw
        return np.minimum(boxes, [width, height, width, height]).astype(np.float32)


class Bing(Proposer):
    """The 8 x 8 template, learned by a linear SVM (stage I), and for each size how much its score says (stage II).

    Deviations. Windows are learned from on the same grid of positions and sizes that is searched, so that training sees
    what prediction sees; the authors cut out each truth and resize it. Sizes halve by averages of two pixels instead
    of a new bilinear resize of the picture for each, which sees every pixel at coarse sizes too. Both SVMs are fitted
    in the primal with the squared hinge and an L2 norm (the released code has an L1 norm in stage I).

    Args:
        sizes: widths and heights of windows, each twice the one before.
        per_size: most windows of a size.
        approximations: binary vectors that stand for the template (N_w).
        bits: of the gradients' eight, the highest that count (N_g).
        is_binary: False scores by the template as it is, for comparison.
        cost: of the SVMs.

    Attributes:
        weight: the template, row by row, for gradients 0..255.
        active: which sizes are looked for: rows (height, width), numbers in `sizes`.
        slopes, offsets: of each active size: objectness = slope * score + offset.

    Raises:
        UsageError: a setting out of range.
    """

    name: ClassVar[str] = "bing"
    version: ClassVar[int] = 1
    weight: Tensor
    active: Tensor
    slopes: Tensor
    offsets: Tensor

    def __init__(
        self,
        sizes: Sequence[int] = SIZES,
        per_size: int = 130,
        approximations: int = 2,
        bits: int = 4,
        is_binary: bool = True,
        cost: float | int = 10.0,
    ) -> None:
        super().__init__()
        if not sizes or sizes[0] < 1 or any(b != 2 * a for a, b in pairwise(sizes)):
            raise UsageError(f"got {list(sizes)}, wanted each twice the one before", where="sizes")
        if per_size < 1 or approximations < 1 or not 1 <= bits <= 8 or not cost > 0:
            got = f"got per_size {per_size}, approximations {approximations}, bits {bits}, cost {cost}"
            raise UsageError(f"{got}, wanted 1 or more, 1 or more, 1 to 8, above 0", where=self.name)
        self.sizes, self.per_size, self.cost = tuple(sizes), per_size, float(cost)
        self.approximations, self.bits, self.is_binary = approximations, bits, is_binary
        self.declare("weight", "active", "slopes", "offsets")

    def settings(self) -> Mapping[str, Any]:
        """The constructor's arguments that matter after fitting."""
        names = ("sizes", "per_size", "approximations", "bits", "is_binary")
        return {name: getattr(self, name) for name in names}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """At most `per_size` windows of every active size, by objectness."""
        pyramid = self.pyramid(image)
        levels = [(int(h), int(w)) for h, w in self.active.tolist()]
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))]
        found *= len(levels)
        slopes, offsets = self.slopes.numpy(), self.offsets.numpy()

        def several(start: int, stop: int) -> None:
            for i in range(start, stop):
                if levels[i] in pyramid.maps:
                    boxes, scores = self._windows(pyramid, levels[i])
                    found[i] = boxes, scores * slopes[i] + offsets[i]

        in_threads(several, len(levels), torch.get_num_threads())
        boxes = np.concatenate([b for b, _ in found])
        scores = np.concatenate([s for _, s in found])
        # Windows larger than a side are cut to it, so that two sizes may give the same box: the better one stays.
        order = np.argsort(-scores, kind="stable")
        _, first = np.unique(boxes[order], axis=0, return_index=True)
        order = order[np.sort(first)]
        return Proposals(torch.from_numpy(boxes[order]), torch.from_numpy(scores[order].astype(np.float32)))

    def pyramid(self, image: Shaped[Tensor, "C H W"], only: Sequence[tuple[int, int]] | None = None) -> Pyramid:
        """Normed gradients at the active sizes, or those of `only`."""
        import cv2

        from bestiary.proposals._kernels.bing import halve_columns, halve_rows, normed_gradients

        wanted = {(int(h), int(w)) for h, w in (self.active.tolist() if only is None else only)}
        planes = np.ascontiguousarray(to_bytes(image).numpy())
        height, width = planes.shape[1:]
        down, across = axis_of(height, self.sizes), axis_of(width, self.sizes)

        def resized(several: np.ndarray, rows: int, columns: int) -> np.ndarray:
            return np.stack([cv2.resize(p, (columns, rows), interpolation=cv2.INTER_LINEAR) for p in several])

        maps: dict[tuple[int, int], np.ndarray] = {}
        first = resized(planes, down.lengths[0], across.lengths[0])
        for h, rows in enumerate(down.lengths):
            if h:
                first = halve_rows(first) if rows == first.shape[1] // 2 else resized(first, rows, first.shape[2])
            level = first
            for w, columns in enumerate(across.lengths):
                if w:
                    is_half = columns == level.shape[2] // 2
                    level = halve_columns(level) if is_half else resized(level, rows, columns)
                if (h, w) in wanted:
                    maps[h, w] = normed_gradients(level)
        return Pyramid(maps, down, across, (height, width))

    def scores(self, gradients: UInt8[np.ndarray, "H W"]) -> Float32[np.ndarray, "H2 W2"]:
        """The template's score at every position of a level."""
        from bestiary.proposals._kernels.bing import binary_scores, exact_scores

        weight = self.weight.numpy()
        if not self.is_binary:
            return exact_scores(gradients, weight.reshape(SIDE, SIDE))
        masks, factors = binarise(weight, self.approximations)
        return binary_scores(gradients, masks, factors, self.bits)

    def _windows(
        self, pyramid: Pyramid, level: tuple[int, int]
    ) -> tuple[Float32[np.ndarray, "N 4"], Float32[np.ndarray, " N"]]:
        from bestiary.proposals._kernels.bing import suppress

        scores = self.scores(pyramid.maps[level])
        places = suppress(scores, RADIUS, self.per_size)
        y, x = np.divmod(places, scores.shape[1])
        return pyramid.boxes(level, y, x), scores.ravel()[places]

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn template and sizes from annotated boxes; crowds are not learned from.

        Raises:
            UsageError: no picture with an object.
        """
        rng = np.random.default_rng(seed)
        features, labels, levels = [], [], []
        for i in range(len(samples)):
            sample = samples[i]
            got = self._examples(sample.image, truth_of(sample), rng)
            features.append(got[0])
            labels.append(got[1])
            levels.append(got[2])
        positive = np.concatenate(labels) if labels else np.zeros(0, bool)
        if not positive.any():
            mend = "Fit on pictures with annotated boxes of 5 pixels or more"
            raise UsageError("got no picture with an object", where=f"{self.name}.fit", mend=mend)
        weight, _ = _separate(np.concatenate(features).astype(np.float64) / 255, positive, self.cost)
        self.learn("weight", torch.from_numpy((weight / 255).astype(np.float32)))
        sizes, counts = np.unique(np.concatenate(levels)[positive], axis=0, return_counts=True)
        active = sizes[counts >= LEAST_SHARE * positive.sum()]
        self.learn("active", torch.from_numpy(active.astype(np.int64)))
        say(f"{self.name}: template from {int(positive.sum()):,} windows of objects, {len(active)} sizes")
        self._calibrate(samples)

    def _examples(
        self, image: Shaped[Tensor, "C H W"], truth: Float32[Tensor, "G 4"], rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "N 64"], Bool[np.ndarray, " N"], Int64[np.ndarray, "N 2"]]:
        """Windows of a picture: for each object and size the nearest one if it shows the object, and its mirror image;
        and windows drawn at random that show none.
        """
        height, width = int(image.shape[-2]), int(image.shape[-1])
        every = [(h, w) for h in range(len(self.sizes)) for w in range(len(self.sizes))]
        pyramid = self.pyramid(image, every)
        windows: list[np.ndarray] = []
        labels: list[bool] = []
        levels: list[tuple[int, int]] = []
        for level, gradients in pyramid.maps.items():
            y, x = _nearest(pyramid, level, truth.numpy().astype(np.float64), gradients.shape)
            overlaps = box_overlap_ratio(torch.from_numpy(pyramid.boxes(level, y, x)), truth).numpy()
            for i in np.flatnonzero(overlaps >= OVERLAP):
                window = gradients[y[i] : y[i] + SIDE, x[i] : x[i] + SIDE]
                windows += [window.ravel(), window[:, ::-1].ravel()]
                labels += [True, True]
                levels += [level, level]
        corners = rng.uniform(0, 1, (BACKGROUND, 2, 2)) * [width, height]
        places = [_place_of(box, self.sizes, pyramid) for box in np.concatenate([corners.min(1), corners.max(1)], 1)]
        drawn = np.concatenate([pyramid.boxes(level, y, x) for level, y, x in places])
        for i in np.flatnonzero(~shows_object(drawn, truth)):
            level, (y,), (x,) = places[i]
            windows.append(pyramid.maps[level][y : y + SIDE, x : x + SIDE].ravel())
            labels.append(False)
            levels.append(level)
        return np.stack(windows), np.array(labels), np.array(levels, np.int64)

    def _calibrate(self, samples: Sequence[Sample]) -> None:
        """Stage II: for each size, a linear SVM over one number says how far a score speaks for an object."""
        levels = [(int(h), int(w)) for h, w in self.active.tolist()]
        scores: list[list[np.ndarray]] = [[] for _ in levels]
        labels: list[list[np.ndarray]] = [[] for _ in levels]
        for i in range(len(samples)):
            sample = samples[i]
            truth = truth_of(sample)
            pyramid = self.pyramid(sample.image)
            for k, level in enumerate(levels):
                if level in pyramid.maps:
                    boxes, found = self._windows(pyramid, level)
                    scores[k].append(found)
                    labels[k].append(shows_object(boxes, truth))
        lines = [_line(np.concatenate(s), np.concatenate(t), self.cost) for s, t in zip(scores, labels, strict=True)]
        self.learn("slopes", torch.tensor([slope for slope, _ in lines]))
        self.learn("offsets", torch.tensor([offset for _, offset in lines]))


def binarise(
    weight: Float32[np.ndarray, " D"], count: int
) -> tuple[Shaped[np.ndarray, " N"], Float32[np.ndarray, " N"]]:
    """The template as a sum of `count` binary vectors -1, +1 times factors (algorithm 1): each takes the signs of what
    the ones before left over.

    Returns:
        For each vector the 64 bits that are set where it is +1 (row by row, the first pixel highest), and its factor.
    """
    rest = weight.astype(np.float64)
    masks, factors = np.zeros(count, np.uint64), np.zeros(count, np.float32)
    for j in range(count):
        signs = np.where(rest >= 0, 1.0, -1.0)
        factors[j] = signs @ rest / len(rest)
        masks[j] = int("".join("1" if sign > 0 else "0" for sign in signs), 2)
        rest = rest - factors[j] * signs
    return masks, factors


def _nearest(
    pyramid: Pyramid, level: tuple[int, int], boxes_xyxy: Float64[np.ndarray, "N 4"], shape: tuple[int, ...]
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Row and column of the window of a level whose centre is nearest to each box's."""
    tall, wide = pyramid.down.scales[level[0]], pyramid.across.scales[level[1]]
    y = np.rint((boxes_xyxy[:, 1] + boxes_xyxy[:, 3]) / 2 / tall - SIDE / 2)
    x = np.rint((boxes_xyxy[:, 0] + boxes_xyxy[:, 2]) / 2 / wide - SIDE / 2)
    rows, columns = shape[0] - SIDE, shape[1] - SIDE
    return np.clip(y, 0, rows).astype(np.int64), np.clip(x, 0, columns).astype(np.int64)


def _place_of(
    box_xyxy: Float64[np.ndarray, " 4"], sizes: Sequence[int], pyramid: Pyramid
) -> tuple[tuple[int, int], Int64[np.ndarray, " 1"], Int64[np.ndarray, " 1"]]:
    """The size nearest to a box's, in octaves, and row and column of the window nearest to it."""
    steps = [np.log2(max(box_xyxy[i + 2] - box_xyxy[i], 1.0) / sizes[0]) for i in (1, 0)]
    last = (len(pyramid.down.lengths) - 1, len(pyramid.across.lengths) - 1)
    rows, columns = (int(np.clip(np.rint(step), 0, most)) for step, most in zip(steps, last, strict=True))
    return (rows, columns), *_nearest(pyramid, (rows, columns), box_xyxy[None], pyramid.maps[rows, columns].shape)


def _separate(
    features: Float64[np.ndarray, "N D"], positive: Bool[np.ndarray, " N"], cost: float
) -> tuple[Float64[np.ndarray, " D"], float]:
    """A linear SVM's weights and bias, in the primal: there are many windows and few features."""
    from sklearn.svm import LinearSVC

    solver: Any = LinearSVC(C=cost, dual=False, tol=1e-4, max_iter=1000)  # type: ignore[arg-type]
    solver.fit(features, positive)
    return solver.coef_[0], float(solver.intercept_[0])


def _line(scores: Float32[np.ndarray, " N"], positive: Bool[np.ndarray, " N"], cost: float) -> tuple[float, float]:
    """Slope and offset of a size; where all its windows are alike, they say so whatever the score."""
    if positive.all() or not positive.any():
        return 0.0, 1.0 if positive.any() else -1.0
    spread = float(scores.std()) or 1.0
    weight, bias = _separate(scores[:, None].astype(np.float64) / spread, positive, cost)
    return float(weight[0]) / spread, bias
