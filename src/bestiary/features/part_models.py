"""Deformable part models: a root, parts at twice its resolution, and what it costs to move them.

Felzenszwalb, Girshick, McAllester, Ramanan, TPAMI 2010, sections 3 and 4. The score of a placement is

    root . features + sum over parts of (part . features - d . (dx, dy, dx^2, dy^2)) + bias

where (dx, dy) is how far a part is, in its own cells, from its anchor at 2 (x, y) of the root. Every component of a
mixture stands twice: as it is, and as a mirror shows it, with the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int16, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.features.dpm_hog import CHANNELS, LevelPair, bordered, mirrored_features
from bestiary.geometry.boxes import clip_boxes
from bestiary.records import Record, Rows, require, require_tensor, row_field

PART = 6
"""Cells along a part's side."""

DEFORMATION = 4
"""Numbers of a deformation: of dx, dy, dx^2, dy^2."""


@dataclass(frozen=True, eq=False)
class Component(Record):
    """One component of a mixture.

    Attributes:
        root: filter, in cells of 8 pixels.
        parts: P filters, in cells half as large.
        anchors: (x, y) of each part's upper left cell, measured from the root's, in the parts' cells.
        deformations: of (dx, dy, dx^2, dy^2); the last two above 0.
        bias: added to the score, a scalar.
    """

    root: Float32[Tensor, "32 h w"]
    parts: Float32[Tensor, "P 32 6 6"]
    anchors: Int64[Tensor, "P 2"]
    deformations: Float32[Tensor, "P 4"]
    bias: Float32[Tensor, ""]

    def __post_init__(self) -> None:
        require_tensor("Component", "root", self.root, (CHANNELS, None, None), torch.float32)
        count = len(self.parts)
        require_tensor("Component", "parts", self.parts, (count, CHANNELS, PART, PART), torch.float32)
        require_tensor("Component", "anchors", self.anchors, (count, 2), torch.int64)
        require_tensor("Component", "deformations", self.deformations, (count, DEFORMATION), torch.float32)
        require_tensor("Component", "bias", self.bias, (), torch.float32)
        bends = self.deformations[:, 2:]
        require(bool((bends > 0).all()), "Component.deformations", bends.tolist(), "squares that cost more than 0")

    @classmethod
    def of_root(cls, root: Float32[Tensor, "32 h w"], bias: float | int = 0.0) -> "Component":
        """One without parts."""
        parts, anchors = torch.zeros(0, CHANNELS, PART, PART), torch.zeros(0, 2, dtype=torch.int64)
        return cls(root, parts, anchors, torch.zeros(0, DEFORMATION), torch.tensor(float(bias)))

    @property
    def size_hw(self) -> tuple[int, int]:
        """Cells of the root."""
        return int(self.root.shape[1]), int(self.root.shape[2])

    def mirrored(self) -> "Component":
        """As a mirror shows it."""
        anchors, deformations = self.anchors.clone(), self.deformations.clone()
        anchors[:, 0] = 2 * self.size_hw[1] - PART - anchors[:, 0]
        deformations[:, 0] *= -1
        return Component(mirrored_features(self.root), mirrored_features(self.parts), anchors, deformations, self.bias)

    def vector(self) -> Float32[Tensor, " D"]:
        """All learned numbers: root, parts, deformations, bias. A placement's score is its product with
        `Scores.vectors`.
        """
        return torch.cat([self.root.flatten(), self.parts.flatten(), self.deformations.flatten(), self.bias[None]])

    def with_vector(self, vector: Float[Tensor, " D"]) -> "Component":
        """The same arrangement with other numbers."""
        sizes = [self.root.numel(), self.parts.numel(), self.deformations.numel(), 1]
        root, parts, deformations, bias = vector.float().split(sizes)
        return Component(
            root.view_as(self.root).clone(),
            parts.view_as(self.parts).clone(),
            self.anchors,
            deformations.view_as(self.deformations).clone(),
            bias[0].clone(),
        )


@dataclass(frozen=True, eq=False)
class Hits(Rows):
    """N placements of one model in one picture.

    Attributes:
        margins: scores.
        templates: 2 c for component c, 2 c + 1 for its mirror image.
        levels: index of the pyramid's pair.
        roots_xy: column and row in `Scores.margins`.
        places_xy: of the parts, columns and rows in `Scores.fine`.
        boxes_xyxy: the root's box in the picture's pixels; may reach beyond the picture.
        parts_xyxy: the parts' boxes.
    """

    margins: Float32[Tensor, " N"] = row_field()
    templates: Int64[Tensor, " N"] = row_field()
    levels: Int64[Tensor, " N"] = row_field()
    roots_xy: Int64[Tensor, "N 2"] = row_field()
    places_xy: Int64[Tensor, "N P 2"] = row_field()
    boxes_xyxy: Float32[Tensor, "N 4"] = row_field()
    parts_xyxy: Float32[Tensor, "N P 4"] = row_field()

    @classmethod
    def joined(cls, found: Sequence["Hits"]) -> "Hits":
        """All of them; at least one record, since the number of parts is its."""
        names = found[0].row_names()
        return cls(**{name: torch.cat([getattr(hits, name) for hits in found]) for name in names})


class Templates:
    """A mixture ready to be looked for: every component and its mirror image.

    Args:
        components: at least one, all with the same number of parts.
    """

    def __init__(self, components: Sequence[Component]) -> None:
        require(len(components) > 0, "Templates(components)", "none", "at least one")
        counts = sorted({len(c.parts) for c in components})
        require(len(counts) == 1, "Templates(components)", f"{counts} parts", "as many parts in each")
        self.components = tuple(components)
        self.all = tuple(t for c in components for t in (c, c.mirrored()))
        self.num_parts = counts[0]
        self.sizes_hw = torch.tensor([t.size_hw for t in self.all])
        self.largest_hw = tuple(int(side) for side in self.sizes_hw.amax(0))
        height, width = self.largest_hw
        self.roots = torch.stack([F.pad(t.root, (0, width - t.size_hw[1], 0, height - t.size_hw[0])) for t in self.all])
        self.parts = torch.cat([t.parts for t in self.all])
        self.anchors = torch.cat([t.anchors for t in self.all])
        self.deformations = torch.cat([t.deformations for t in self.all])
        self.biases = torch.stack([t.bias for t in self.all])

    def score(self, pair: LevelPair) -> "Scores":
        """Scores of all templates for every place of the root at one scale.

        A root may lie up to half of the largest root's size outside the picture.
        """
        (height, width), (least_h, least_w) = self.largest_hw, (int(s) for s in self.sizes_hw.amin(0))
        top, left = (height + 1) // 2, (width + 1) // 2
        coarse = bordered(pair.coarse.features, top, left, top + height - least_h, left + width - least_w)
        margins = F.conv2d(coarse[None], self.roots)[0] + self.biases[:, None, None]
        rows, columns = margins.shape[1:]
        for template, (tall, wide) in enumerate(self.sizes_hw.tolist()):
            # The shortest root decides how far places go; longer ones end earlier.
            margins[template, rows - (tall - least_h) :] = -torch.inf
            margins[template, :, columns - (wide - least_w) :] = -torch.inf
        places = torch.zeros(len(self.all), 0, rows, columns, 2, dtype=torch.int16)
        fine = pair.fine.features
        if self.num_parts:
            far_x, far_y = (int(a) for a in self.anchors.amax(0))
            needed_h, needed_w = 2 * (rows - 1) + far_y + PART, 2 * (columns - 1) + far_x + PART
            missing_h, missing_w = needed_h - 2 * top - fine.shape[1], needed_w - 2 * left - fine.shape[2]
            fine = bordered(fine, 2 * top, 2 * left, max(0, missing_h), max(0, missing_w))
            responses = F.conv2d(fine[None], self.parts)[0]
            best, places = placed(responses, self.deformations, self.anchors, (int(rows), int(columns)))
            margins += best.view(len(self.all), self.num_parts, rows, columns).sum(1)
            places = places.view(len(self.all), self.num_parts, rows, columns, 2)
        return Scores(self, pair, margins, places, coarse, fine, (top, left))


def placed(
    responses: Float32[Tensor, "N R Q"],
    deformations: Float32[Tensor, "N 4"],
    anchors: Int64[Tensor, "N 2"],
    size_hw: tuple[int, int],
) -> tuple[Float32[Tensor, "N h w"], Int16[Tensor, "N h w 2"]]:
    """For each root (x, y) of a map of `size_hw` the highest responses[q] - d . (dx, dy, dx^2, dy^2), and q as (x, y).

    (dx, dy) = q - 2 (x, y) - anchor; anchors must lie inside the map of responses for every root.

    Raises:
        RecordError: a map of responses too small for its anchors.
    """
    from bestiary.features._kernels.part_models import place
    from bestiary.ops._kernels.threads import in_threads

    height, width = size_hw
    count, rows, columns = responses.shape
    if count:
        far = [2 * (side - 1) + int(a) for side, a in zip((width, height), anchors.amax(0), strict=True)]
        inside = far[0] < columns and far[1] < rows and int(anchors.min()) >= 0
        require(
            inside, "placed(responses)", f"{rows} x {columns}", f"more than {far[1]} x {far[0]}, and anchors from 0"
        )
    best = np.empty((count, height, width), np.float32)
    places = np.empty((count, height, width, 2), np.int16)
    maps, costs, corners = responses.contiguous().numpy(), deformations.double().numpy(), anchors.contiguous().numpy()
    in_threads(lambda a, b: place(maps, costs, corners, a, b, best, places), count, torch.get_num_threads())
    return torch.from_numpy(best), torch.from_numpy(places)


@dataclass(frozen=True, eq=False)
class Scores:
    """One scale of a picture, scored.

    Attributes:
        templates: what was looked for.
        pair: where.
        margins: for every place of the root; -inf where a template does not reach.
        places: of the parts.
        coarse: features with the cells outside the picture that roots may cover.
        fine: likewise, of the parts.
        border: rows and columns of `coarse` before the picture's first; twice as many of `fine`.
    """

    templates: Templates
    pair: LevelPair
    margins: Float32[Tensor, "T h w"]
    places: Int16[Tensor, "T P h w 2"]
    coarse: Float32[Tensor, "32 _h _w"]
    fine: Float32[Tensor, "32 _h2 _w2"]
    border: tuple[int, int]

    def above(self, threshold: float | int) -> Hits:
        """All placements that score more than `threshold`."""
        return self.at((self.margins > threshold).nonzero())

    def best_where(self, allowed: Bool[Tensor, "T h w"]) -> Hits:
        """The best placement of those allowed; none if there is none."""
        margins = torch.where(allowed, self.margins, -torch.inf)
        flat = int(margins.argmax())
        place = torch.tensor(np.unravel_index(flat, margins.shape))
        return self.at(place[None] if bool(margins.flatten()[flat] > -torch.inf) else place.new_zeros(0, 3))

    def at(self, index: Int64[Tensor, "N 3"]) -> Hits:
        """The placements of templates with their roots at (template, row, column)."""
        template, row, column = index.unbind(1)
        places = self.places[template, :, row, column].long()
        top, left = self.border
        corner = torch.stack([column - left, row - top], 1)
        sizes = self.templates.sizes_hw[template].flip(1)
        boxes = _boxes(corner, sizes, self.pair.coarse.cell_hw)
        parts = _boxes(places - torch.tensor([2 * left, 2 * top]), torch.tensor(PART), self.pair.fine.cell_hw)
        levels = torch.full_like(template, self.pair.index)
        roots = torch.stack([column, row], 1)
        return Hits(self.margins[template, row, column], template, levels, roots, places, boxes, parts)

    def root_boxes(self, size_hw: tuple[int, int]) -> Float32[Tensor, "T h w 4"]:
        """The root's box for every place, clipped to a picture of that size."""
        top, left = self.border
        rows, columns = (torch.arange(int(side)) for side in self.margins.shape[1:])
        corners = torch.stack([columns[None, :] - left + 0 * rows[:, None], rows[:, None] - top + 0 * columns], -1)
        sizes = self.templates.sizes_hw.flip(1)[:, None, None]
        return clip_boxes(
            _boxes(corners[None].expand(len(sizes), -1, -1, -1), sizes, self.pair.coarse.cell_hw), size_hw
        )

    def vectors(self, hits: Hits) -> Float32[Tensor, "N D"]:
        """Features of placements of one component, for the component's own numbers: those of its mirror image are
        turned round. The product with `Component.vector` is the placement's score.
        """
        return torch.stack([self._vector(hits[i : i + 1]) for i in range(len(hits))])

    def _vector(self, hit: Hits) -> Float32[Tensor, " D"]:
        template = self.templates.all[int(hit.templates)]
        tall, wide = template.size_hw
        column, row = hit.roots_xy[0].tolist()
        root = self.coarse[:, row : row + tall, column : column + wide]
        corners = hit.places_xy[0].tolist()
        parts = [self.fine[:, y : y + PART, x : x + PART] for x, y in corners]
        seen = torch.stack(parts) if parts else self.fine.new_zeros(0, CHANNELS, PART, PART)
        moved = (hit.places_xy[0] - 2 * hit.roots_xy - template.anchors).float()
        if int(hit.templates) % 2:
            root, seen = mirrored_features(root), mirrored_features(seen)
            moved = moved * torch.tensor([-1.0, 1.0])
        return torch.cat([root.flatten(), seen.flatten(), -torch.cat([moved, moved**2], 1).flatten(), torch.ones(1)])


def _boxes(
    corners_xy: Int64[Tensor, "*N 2"], sizes_wh: Int64[Tensor, "..."], cell_hw: tuple[float, float]
) -> Float32[Tensor, "*N 4"]:
    cell = torch.tensor([cell_hw[1], cell_hw[0]], dtype=torch.float64)
    return torch.cat([corners_xy * cell, (corners_xy + sizes_wh) * cell], -1).float()
