"""HOG + linear SVM: Dalal, Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005.

A rigid template for each category, a linear SVM over the HOG blocks of a window, is convolved with the blocks of the
picture at many sizes; overlapping windows are suppressed. It is learned from the objects and their mirror images
against random windows, and again with the windows that the first template took for objects.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.features.hog import PAPER, HogLayout, hog, window_length
from bestiary.features.hog_template import HogTemplate
from bestiary.features.image_pyramid import Level, at_scale, pyramid_scales
from bestiary.features.object_windows import Template, crop_window, template_for
from bestiary.heads.fitted_detection import Annotated, FittedDetector, Found, annotated, apart_from, boxes_by_category
from bestiary.layers.hinge_machine import separate
from bestiary.records import Sample

AREAS = (1024, 6144)
"""Least and largest area of the object in a template that is fitted to the data, square pixels: 32 x 32, and somewhat
more than the paper's person of 96 x 48."""

ROOM = 120_000_000
"""Numbers of all categories' windows together that are held while learning (4 bytes each)."""

EASY = -1.2
"""Margin below which a negative is forgotten: well beyond -1, from where it counts."""

FEWEST = 2
"""Objects of a category without which no template is learned."""


@dataclass(frozen=True)
class WindowMining:
    """Which windows stand against the objects.

    Attributes:
        random: windows of a picture, at random places and sizes.
        rounds: of hard windows; the paper has one, over all windows of pictures without any object.
        hard: of a picture and round, the worst, at most.
        apart: a window whose IoU with every object of the category is below this is no object.

    Raises:
        UsageError: a number below 0, no random window, or `apart` outside 0..1.
    """

    random: int = 10
    rounds: int = 3
    hard: int = 60
    apart: float | int = 0.3

    def __post_init__(self) -> None:
        for name, least in (("random", 1), ("rounds", 0), ("hard", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"got {getattr(self, name)}, wanted {least} or more", where=name)
        if not 0 < self.apart <= 1:
            raise UsageError(f"got {self.apart}, wanted more than 0 and at most 1", where="apart")


class HogSVM(FittedDetector):
    """A template for each category.

    Args:
        categories: K names.
        layout: of the HOG blocks.
        window: (width, height) of every template, pixels; None fits each category's to its objects.
        margin: pixels around the object in the window.
        cost: C of the SVMs.
        step: from one size of the pyramid to the next.
        enlarge: how many times larger than the picture the pyramid begins, at most; objects that would need more are
            not learned from.
        least_margin: windows below it are not looked at.
        mining: which windows stand against the objects.
        nms_overlap: of two windows of a category with a larger IoU the better one stays.
    """

    def __init__(
        self,
        categories: Sequence[str],
        layout: HogLayout = PAPER,
        window: tuple[int, int] | None = None,
        margin: int = 8,
        cost: float | int = 0.01,
        step: float | int = 1.1,
        enlarge: float | int = 2.0,
        least_margin: float | int = -1.0,
        mining: WindowMining = WindowMining(),
        nms_overlap: float | int = 0.3,
    ) -> None:
        super().__init__(categories, nms_overlap)
        for name, value, above in (("cost", cost, 0), ("step", step, 1), ("enlarge", enlarge, 0)):
            if not value > above:
                raise UsageError(f"got {value}, wanted more than {above}", where=name)
        self.layout, self.margin, self.mining = layout, margin, mining
        self.cost, self.step, self.enlarge = float(cost), float(step), float(enlarge)
        self.least_margin = float(least_margin)
        self.window = None if window is None else Template((window[1], window[0]), margin)
        if self.window is not None:
            window_length(self.window.size_hw, layout)
        self.templates = nn.ModuleList(HogTemplate() for _ in self.categories)

    def fit(self, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        """Learn the templates' shapes, the templates, and what their margins mean."""
        shaped = self._learn_shapes(samples, say)
        examples = {label: self._room(label, len(shaped)) for label in shaped}
        for index, picture in enumerate(annotated(samples, len(self.categories), say, done="cut into windows")):
            rng = np.random.default_rng([seed, index])
            for label, kept in examples.items():
                template = self._template(label).template
                objects = self._objects(picture, label, template)
                kept.add(self._described(picture.image, template.around(objects), template, mirror=True), positive=True)
                windows = self._random_windows(picture, label, rng)
                kept.add(self._described(picture.image, windows, template), positive=False)
        self._separate(examples, seed, say)
        for turn in range(self.mining.rounds):
            for picture in annotated(samples, len(self.categories), say, done=f"searched, round {turn + 1}"):
                for label, windows in self._hard_windows(picture, list(examples)).items():
                    examples[label].add(windows, positive=False)
            self._separate(examples, seed, say)
        self.calibrate(samples, say)

    def find(self, image: UInt8[Tensor, "3 H W"]) -> Found:
        """Windows above `least_margin`, of every template at every size of its objects."""
        ready = [label for label in range(len(self.categories)) if self._template(label).is_fitted]
        parts: list[Found] = []
        for level, blocks in self._pyramid(image, ready):
            for label in ready:
                template = self._template(label)
                if template.takes(level.scale, self.step):
                    margins = template(blocks)
                    places = (margins > self.least_margin).nonzero()
                    boxes = self._objects_at(places, template, level)
                    labels = torch.full((len(places),), label)
                    parts.append(Found(boxes, labels, margins[places[:, 0], places[:, 1]]))
        return Found.joined(parts)

    def _template(self, label: int) -> HogTemplate:
        return cast(HogTemplate, self.templates[label])

    def _learn_shapes(self, samples: Sequence[Sample], say: Callable[[str], None]) -> list[int]:
        """The categories with enough objects; their templates' windows are known then."""
        shaped = []
        for label, own in enumerate(boxes_by_category(samples, len(self.categories), say)):
            self.templates[label] = HogTemplate()
            if len(own) < FEWEST:
                say(f"{self.categories[label]}: {len(own)} objects are too few to learn from")
                continue
            window = self.window or template_for(own, AREAS, self.margin, self.layout.cell)
            own = own[window.scales_of(own) * self.enlarge >= 1 / self.step]
            if len(own) < FEWEST:
                mend = "Raise enlarge, or choose a smaller window"
                raise UsageError(f"the objects of {self.categories[label]} are too small", where="enlarge", mend=mend)
            self._template(label).learn_shape(window, own)
            size = f"{window.size_hw[1]} x {window.size_hw[0]}"
            say(f"{self.categories[label]}: window of {size} pixels for {len(own):,} objects")
            shaped.append(label)
        if not shaped:
            raise UsageError("got no category with two objects, wanted at least one", where="fit(samples)")
        return shaped

    def _room(self, label: int, categories: int) -> "_Examples":
        return _Examples(window_length(self._template(label).template.size_hw, self.layout), ROOM // categories)

    def _objects(self, picture: Annotated, label: int, template: Template) -> Float32[Tensor, "N 4"]:
        boxes = picture.truth.boxes_xyxy[picture.truth.labels == label]
        return boxes[template.scales_of(boxes) * self.enlarge >= 1 / self.step]

    def _described(
        self,
        image: UInt8[Tensor, "3 H W"],
        windows_xyxy: Float32[Tensor, "N 4"],
        template: Template,
        mirror: bool = False,
    ) -> list[Float32[Tensor, " D"]]:
        """Features of windows, cut out with one more cell on each side so that gradients at their borders are real."""
        height, width = (side + 2 * self.layout.cell for side in template.size_hw)
        outer = windows_xyxy.new_tensor([self.layout.cell / side for side in template.size_hw[::-1]])
        rows = []
        for window in windows_xyxy:
            reach = (window[2:] - window[:2]) * outer
            x1, y1, x2, y2 = torch.cat([window[:2] - reach, window[2:] + reach]).tolist()
            crop = crop_window(image, (x1, y1, x2, y2), (height, width))
            for picture in (crop, crop.flip(2)) if mirror else (crop,):
                rows.append(hog(picture, self.layout)[1:-1, 1:-1].flatten())
        return rows

    def _random_windows(self, picture: Annotated, label: int, rng: np.random.Generator) -> Float32[Tensor, "N 4"]:
        """Windows of the sizes that the template is looked for at, uniform in the logarithm, apart from its objects."""
        learned = self._template(label)
        template, (least, most) = learned.template, learned.sizes.tolist()
        height, width = template.size_hw
        fits = min(picture.size_hw[0] / height, picture.size_hw[1] / width)
        low, high = np.log(min(least, fits)), np.log(min(most, fits))
        scales = np.exp(rng.uniform(low, high, 3 * self.mining.random))
        left = rng.uniform(0, 1, len(scales)) * (picture.size_hw[1] - width * scales)
        top = rng.uniform(0, 1, len(scales)) * (picture.size_hw[0] - height * scales)
        corners = np.stack([left, top, left + width * scales, top + height * scales], 1)
        windows = torch.from_numpy(corners.astype(np.float32))
        return windows[apart_from(template.within(windows), picture.truth, label, self.mining.apart)][
            : self.mining.random
        ]

    def _hard_windows(self, picture: Annotated, labels: Sequence[int]) -> dict[int, list[Tensor]]:
        """Features of the windows that the templates now take for objects, the worst of each category."""
        kept: dict[int, list[tuple[Tensor, Tensor]]] = {label: [] for label in labels}
        for level, blocks in self._pyramid(picture.image, labels):
            for label in labels:
                template = self._template(label)
                if not template.takes(level.scale, self.step):
                    continue
                margins = template(blocks)
                places = (margins > -1).nonzero()
                boxes = self._objects_at(places, template, level)
                places = places[apart_from(boxes, picture.truth, label, self.mining.apart)]
                values = margins[places[:, 0], places[:, 1]]
                worst = torch.sort(values, descending=True, stable=True).indices[: self.mining.hard]
                height, width = template.weight.shape[:2]
                for (y, x), value in zip(places[worst].tolist(), values[worst], strict=True):
                    kept[label].append((value, blocks[y : y + height, x : x + width].flatten()))
        for windows in kept.values():
            windows.sort(key=lambda window: -float(window[0]))
        return {label: [row for _, row in windows[: self.mining.hard]] for label, windows in kept.items()}

    def _pyramid(
        self, image: UInt8[Tensor, "3 H W"], labels: Sequence[int]
    ) -> Iterator[tuple[Level, Float32[Tensor, "_y _x D"]]]:
        """Levels that any of the templates wants, with their blocks; each goes on by the margin beyond its border."""
        templates = [self._template(label) for label in labels]
        size_hw = (int(image.shape[1]), int(image.shape[2]))
        height, width = (max(1, min(t.template.size_hw[i] for t in templates) - 2 * self._pad) for i in range(2))
        for scale in pyramid_scales(size_hw, (height, width), self.step, self.enlarge):
            if any(template.takes(scale, self.step) for template in templates):
                level = at_scale(image, scale)
                yield level, self._blocks(level)

    @property
    def _pad(self) -> int:
        """Pixels that a level goes on beyond its border: whole cells, so that objects there have their margin."""
        return -(-(self.window.margin if self.window else self.margin) // self.layout.cell) * self.layout.cell

    def _blocks(self, level: Level) -> Float32[Tensor, "Y X D"]:
        padded = F.pad(level.image[None].float(), (self._pad,) * 4, mode="replicate")[0].to(torch.uint8)
        return hog(padded, self.layout)

    def _objects_at(self, places: Int64[Tensor, "N 2"], template: HogTemplate, level: Level) -> Float32[Tensor, "N 4"]:
        """Boxes in the picture of the objects in windows at places of a level's map."""
        windows = template.windows_xyxy(places.float(), self.layout.cell) - self._pad
        return level.to_picture(template.template.within(windows))

    def _separate(self, examples: "dict[int, _Examples]", seed: int, say: Callable[[str], None]) -> None:
        for label, kept in examples.items():
            template = self._template(label)
            rows, positives = kept.table()
            say(f"{self.categories[label]}: {positives:,} windows against {len(rows) - positives:,}")
            plane = separate(rows, positives, cost=self.cost, seed=seed)
            grid = self.layout.grid_hw(template.template.size_hw)
            template.learn("weight", plane.weight.reshape(*grid, self.layout.channels))
            template.learn("bias", torch.tensor(plane.bias))
            kept.evict(rows[positives:] @ plane.weight + plane.bias)


class _Examples:
    """Windows of one category: objects, and what is none. Of more than there is room for every second one goes."""

    def __init__(self, length: int, room: int) -> None:
        self.length, self.most = length, max(2, room // length)
        self.positives: list[Tensor] = []
        self.negatives: list[Tensor] = []

    def add(self, rows: Sequence[Float32[Tensor, " D"]], positive: bool) -> None:
        """Keep windows."""
        kept = self.positives if positive else self.negatives
        kept.extend(rows)
        if len(kept) > self.most // 2:
            del kept[::2]

    def evict(self, margins: Float32[Tensor, " N"]) -> None:
        """Make room for harder windows: negatives well outside the margin decide nothing."""
        self.negatives = [row for row, margin in zip(self.negatives, margins.tolist(), strict=True) if margin > EASY]

    def table(self) -> tuple[Float32[Tensor, "N D"], int]:
        """All of them, the positives first, and how many these are."""
        rows = [*self.positives, *self.negatives]
        return (torch.stack(rows) if rows else torch.zeros(0, self.length)), len(self.positives)


def hog_svm(
    categories: Sequence[str] | None = None,
    *,
    window: tuple[int, int] | None = None,
    margin: int = 8,
    cost: float = 0.01,
    sigma: float | None = None,
    root: bool = False,
    step: float = 1.1,
    enlarge: float = 2.0,
    random_windows: int = 10,
    rounds: int = 3,
    hard_windows: int = 60,
    nms_overlap: float = 0.3,
) -> HogSVM:
    """HOG with linear SVMs; the paper's detector of people is window 64,128 with margin 16.

    Args:
        categories: the user's; None for the paper's, people.
        window: width and height of every template in pixels, multiples of 8; None fits each category's to its objects.
        margin: pixels around the object in the window.
        cost: C of the SVMs.
        sigma: of the Gaussian that weighs a block's pixels, in block sides; None weighs all alike.
        root: gradients of the square roots of the colours.
        step: from one size of the pyramid to the next.
        enlarge: how many times larger than the picture the pyramid begins, at most.
        random_windows: of each training picture, against the objects.
        rounds: of hard windows, which the last template took for objects.
        hard_windows: of each picture and round, the worst, at most.
        nms_overlap: of two windows of a category with a larger IoU the better one stays.
    """
    mining = WindowMining(random_windows, rounds, hard_windows)
    layout = HogLayout(sigma=sigma, root=root)
    return HogSVM(
        ("person",) if categories is None else categories,
        layout,
        window,
        margin,
        cost=cost,
        step=step,
        enlarge=enlarge,
        mining=mining,
        nms_overlap=nms_overlap,
    )
