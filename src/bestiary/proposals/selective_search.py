"""Selective Search: Uijlings, van de Sande, Gevers, Smeulders, Selective Search for Object Recognition, IJCV 104, 2013.

Regions of a segmentation are grouped greedily, the two most alike neighbours first, until one is left; the boxes of all
regions that ever stood are the proposals. Many such hierarchies, over colour spaces, segmentations and measures of
likeness, make up for what each alone misses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Int32, Shaped, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.superpixels import PixelGraph, grow, pixel_graph
from bestiary.heads.fitted_classification import to_bytes
from bestiary.ops._kernels.threads import in_threads
from bestiary.proposals.colour_spaces import COLOUR_SPACES, in_colour_space
from bestiary.proposals.proposer import Proposals, Proposer
from bestiary.records import require

SIMILARITIES = "ctsf"
"""Colour, texture, size, fill."""


class SelectiveSearch(Proposer):
    """Hierarchical grouping over all colour spaces, segmentations and likenesses asked for.

    Args:
        colour_spaces: names of `bestiary.proposals.colour_spaces`.
        similarities: each some of the letters c (colour), t (texture), s (size) and f (fill), whose likenesses are
            added.
        ks: the segmentations' k, on the scale of 0..255; it is also their least number of pixels.
        sigma: of the blur before each segmentation, pixels.
        min_side: narrower and lower boxes are left out, pixels; the authors' program: 20.
        max_boxes: at most so many, best first.
        width: pictures are brought to this width before; None leaves them. R-CNN: 500.
        seed: of the random ranks.

    Raises:
        UsageError: an unknown name, or a number out of range.
    """

    name: ClassVar[str] = "selective_search"

    def __init__(
        self,
        colour_spaces: Sequence[str] = ("hsv",),
        similarities: Sequence[str] = ("ctsf",),
        ks: Sequence[int | float] = (100,),
        *,
        sigma: int | float = 0.8,
        min_side: int = 20,
        max_boxes: int = 10_000,
        width: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for space in colour_spaces:
            if space not in COLOUR_SPACES:
                wanted = f"one of {', '.join(COLOUR_SPACES)}"
                raise UsageError(f"got {space!r}, wanted {wanted}", where="colour_spaces")
        for letters in similarities:
            if not letters or set(letters) - set(SIMILARITIES) or len(set(letters)) < len(letters):
                raise UsageError(
                    f"got {letters!r}, wanted letters of {SIMILARITIES!r}, each once", where="similarities"
                )
        if not (colour_spaces and similarities and ks) or min(ks) <= 0:
            raise UsageError(f"got k {list(ks)}, wanted at least one of each, and k above 0", where="SelectiveSearch")
        if sigma < 0 or min_side < 1 or max_boxes < 1 or (width is not None and width < 1):
            got = f"got sigma {sigma}, min_side {min_side}, max_boxes {max_boxes}, width {width}"
            raise UsageError(f"{got}, wanted sigma 0 or more and the others at least 1", where="SelectiveSearch")
        self.colour_spaces, self.similarities = tuple(colour_spaces), tuple(similarities)
        self.ks, self.sigma = tuple(float(k) for k in ks), float(sigma)
        self.min_side, self.max_boxes, self.width, self.seed = min_side, max_boxes, width, seed

    def settings(self) -> Mapping[str, Any]:
        """The constructor's arguments."""
        names = ("colour_spaces", "similarities", "ks", "sigma", "min_side", "max_boxes", "width", "seed")
        return {name: getattr(self, name) for name in names}

    def find(self, image: Shaped[Tensor, "C H W"]) -> Proposals:
        """The boxes by the paper's random rank (section 3.3): a region's place in its hierarchy, the whole picture's
        being 1, times a random number between 0 and 1, small first. A score is minus that.

        Raises:
            RecordError: a picture without pixels, or of other channels than one or three.
        """
        require(image.numel() > 0, "SelectiveSearch.find(image)", f"shape {tuple(image.shape)}", "at least one pixel")
        pixels = to_bytes(image.detach().cpu()).permute(1, 2, 0).contiguous().numpy()
        height, width = pixels.shape[:2]
        pixels = _at_width(pixels, self.width)
        boxes = [hierarchy.boxes_xyxy for hierarchy in self.hierarchies(pixels)]
        rng = np.random.default_rng(self.seed)
        ranks = np.concatenate([rng.random(len(b)) * np.arange(len(b), 0, -1) for b in boxes]).astype(np.float32)
        scale = np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2)
        return self._best(np.concatenate(boxes), ranks, scale)

    def _best(
        self, boxes_xyxy: Int32[np.ndarray, "N 4"], ranks: Float32[np.ndarray, " N"], scale: Shaped[np.ndarray, "4"]
    ) -> Proposals:
        order = np.argsort(ranks, kind="stable")
        ends = boxes_xyxy.max(0).astype(np.int64) + 1
        corners = boxes_xyxy[order].astype(np.int64)
        # One whole number a box: below the square of the number of pixels, for the whole picture is a region.
        codes = np.ravel_multi_index(tuple(corners.T), (ends[2], ends[3], ends[2], ends[3]))
        order = order[np.sort(np.unique(codes, return_index=True)[1])]
        found = (boxes_xyxy[order] * scale).astype(np.float32)
        wide = ((found[:, 2:] - found[:, :2]) >= self.min_side).all(1)
        found, scores = found[wide][: self.max_boxes], -ranks[order][wide][: self.max_boxes]
        return Proposals(torch.from_numpy(found), torch.from_numpy(scores))

    def hierarchies(self, pixels: UInt8[np.ndarray, "H W 3"]) -> "list[Hierarchy]":
        """One for each colour space, k and likeness, in this order."""
        found: dict[int, list[Hierarchy]] = {}

        def search(start: int, stop: int) -> None:
            for i in range(start, stop):
                view = _view(in_colour_space(pixels, self.colour_spaces[i]), self.sigma)
                found[i] = [h for k in self.ks for h in _hierarchies(view, k, self.similarities)]

        # A thread holds one colour space at a time, which bounds the memory.
        in_threads(search, len(self.colour_spaces), torch.get_num_threads())
        return [hierarchy for i in range(len(self.colour_spaces)) for hierarchy in found[i]]


class SelectiveSearchFast(SelectiveSearch):
    """The paper's "fast" (table 5): two colour spaces, two likenesses, two segmentations: 8 hierarchies.

    Args:
        min_side: narrower and lower boxes are left out, pixels.
        max_boxes: at most so many, best first.
        width: pictures are brought to this width before; None leaves them.
        seed: of the random ranks.
    """

    name: ClassVar[str] = "selective_search_fast"

    def __init__(self, *, min_side: int = 20, max_boxes: int = 10_000, width: int | None = None, seed: int = 0) -> None:
        super().__init__(
            ("hsv", "lab"),
            ("ctsf", "tsf"),
            (50, 100),
            min_side=min_side,
            max_boxes=max_boxes,
            width=width,
            seed=seed,
        )


class SelectiveSearchQuality(SelectiveSearch):
    """The paper's "quality" (table 5): five colour spaces, four likenesses, four segmentations: 80 hierarchies.

    Args:
        min_side: narrower and lower boxes are left out, pixels.
        max_boxes: at most so many, best first.
        width: pictures are brought to this width before; None leaves them.
        seed: of the random ranks.
    """

    name: ClassVar[str] = "selective_search_quality"

    def __init__(self, *, min_side: int = 20, max_boxes: int = 10_000, width: int | None = None, seed: int = 0) -> None:
        super().__init__(
            ("hsv", "lab", "rgi", "hue", "intensity"),
            ("ctsf", "tsf", "f", "s"),
            (50, 100, 150, 300),
            min_side=min_side,
            max_boxes=max_boxes,
            width=width,
            seed=seed,
        )


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The M = 2 R - 1 regions of a grouping: R segments in reading order, then each merged one as it was made.

    Attributes:
        boxes_xyxy: whole pixels, ends excluded.
        children: the two regions that each was made of; -1 for segments.
    """

    boxes_xyxy: Int32[np.ndarray, "M 4"]
    children: Int32[np.ndarray, "M 2"]


@dataclass(frozen=True, eq=False)
class _View:
    """A picture in one colour space, as far as it does not depend on k."""

    graph: PixelGraph
    colours: UInt8[np.ndarray, "H W C"]
    slopes: UInt8[np.ndarray, "H W C 4"]


def _view(values: Float32[np.ndarray, "H W C"], sigma: float) -> _View:
    import cv2

    from bestiary.proposals._kernels.grouping import COLOURS, texture_cells

    # Derivatives of a Gaussian of sigma 1 (section 3.2).
    reach = np.arange(-4, 5, dtype=np.float64)
    smooth = np.exp(-0.5 * reach**2)
    smooth /= smooth.sum()
    derive = reach * smooth
    across = cv2.sepFilter2D(values, cv2.CV_32F, derive, smooth, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(values, cv2.CV_32F, smooth, derive, borderType=cv2.BORDER_REPLICATE)
    slopes = np.empty((*values.shape, 4), np.uint8)
    texture_cells(across.reshape(values.shape), down.reshape(values.shape), slopes)
    colours = np.minimum(values * (COLOURS / 256), COLOURS - 1).astype(np.uint8)
    return _View(pixel_graph(values, sigma), colours, slopes)


def _hierarchies(view: _View, k: float, similarities: Sequence[str]) -> list[Hierarchy]:
    from bestiary.proposals._kernels.grouping import AXES, COLOURS, STEPS, describe, group, touching

    labels, regions = grow(view.graph, k, round(k))
    channels = view.colours.shape[2]
    sizes, boxes_xyxy = np.empty(2 * regions - 1, np.int64), np.empty((2 * regions - 1, 4), np.int32)
    colour = np.empty((regions, channels * COLOURS), np.float32)
    texture = np.empty((regions, channels * 2 * AXES * STEPS), np.float32)
    describe(labels, view.colours, view.slopes, sizes[:regions], boxes_xyxy[:regions], colour, texture)
    pairs = np.empty(4 * regions, np.int64)
    count = touching(labels, regions, np.full(1 << (8 * regions).bit_length(), -1, np.int64), pairs)
    touches = np.sort(pairs[:count])
    found, area = [], np.float32(labels.size)
    for letters in similarities:
        weights = np.array([letter in letters for letter in SIMILARITIES], np.float32)
        boxes, children = boxes_xyxy.copy(), np.full((2 * regions - 1, 2), -1, np.int32)
        group(touches, sizes.copy(), boxes, colour.copy(), texture.copy(), weights, area, children)
        found.append(Hierarchy(boxes, children))
    return found


def _at_width(pixels: UInt8[np.ndarray, "H W 3"], width: int | None) -> UInt8[np.ndarray, "_h _w 3"]:
    import cv2

    if width is None or width == pixels.shape[1]:
        return pixels
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    shrinks = width < pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
