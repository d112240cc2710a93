"""The features of deformable part models, and pyramids of them.

Felzenszwalb, Girshick, McAllester, Ramanan: Object Detection with Discriminatively Trained Part-Based Models, TPAMI
2010, section 6, in the form of its published release: 18 signed and 9 unsigned directions, 4 textures, and 1 number
that says whether the cell lies outside the picture.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from bestiary.records import Record, require

CHANNELS = 32
OUTSIDE = 31
"""The feature that is 1 in cells outside the picture or at its border, where all others are 0."""

CELL = 8
"""Pixels along a cell's side."""

MIRRORED = (
    *((9 - o) % 18 for o in range(18)),
    *(18 + (9 - o) % 9 for o in range(9)),
    29, 30, 27, 28, OUTSIDE,
)  # fmt: skip
"""The feature that each one becomes in a picture seen in a mirror."""

LEAST_CELLS = 5
"""Cells along the shorter side of the coarsest level."""


@dataclass(frozen=True, eq=False)
class Edges(Record):
    """Gradients of a picture, no more than once for all cell sizes.

    Attributes:
        lengths: of the strongest channel's central difference, in grey levels 0..255.
        directions: 0 to 17, of 20 degrees each.
    """

    lengths: Float32[Tensor, "H W"]
    directions: UInt8[Tensor, "H W"]


def edges_of(image: Shaped[Tensor, "3 H W"]) -> Edges:
    """Gradients; 0 along the border.

    Args:
        image: numbers 0..255 of any type, on the CPU.

    Raises:
        RecordError: not of three channels.
    """
    from bestiary.features._kernels.dpm_hog import edges
    from bestiary.ops._kernels.threads import in_threads

    require(image.ndim == 3 and image.shape[0] == 3, "edges_of(image)", f"shape {tuple(image.shape)}", "(3, H, W)")
    pixels = image.detach().float().contiguous().numpy()
    height, width = pixels.shape[1:]
    lengths, directions = np.empty((height, width), np.float32), np.empty((height, width), np.uint8)
    in_threads(lambda a, b: edges(pixels, a, b, lengths, directions), height, torch.get_num_threads(), grain=32)
    return Edges(torch.from_numpy(lengths), torch.from_numpy(directions))


def features_of_edges(found: Edges, cell: int = CELL) -> Float32[Tensor, "32 h w"]:
    """Features of the inner cells: round(H / cell) - 2 rows, round(W / cell) - 2 columns.

    Each pixel votes for the nearest four cells; a cell is divided by the energies of the four blocks of 2 x 2 cells it
    belongs to (each quotient cut at 0.2), and the four results are added: 18 signed directions, 9 unsigned ones, and
    the sums of the four quotients over the directions. Cells at the border lack a neighbour and are left out.

    Args:
        found: of one picture.
        cell: pixels along a cell's side.

    Raises:
        RecordError: no cell size.
    """
    from bestiary.features._kernels.dpm_hog import normalise, votes
    from bestiary.ops._kernels.threads import in_threads

    require(cell >= 1, "features_of_edges(cell)", cell, "1 or more")
    lengths, directions = found.lengths.numpy(), found.directions.numpy()
    rows, columns = (math.floor(side / cell + 0.5) for side in lengths.shape)
    if min(rows, columns) < 3 or min(lengths.shape) < 3:
        return torch.zeros(CHANNELS, max(rows - 2, 0), max(columns - 2, 0))
    histograms = np.empty((rows, columns, 18), np.float32)
    energies = np.empty((rows, columns), np.float32)
    features = np.empty((CHANNELS, rows - 2, columns - 2), np.float32)
    threads = torch.get_num_threads()
    in_threads(lambda a, b: votes(lengths, directions, cell, a, b, histograms, energies), rows, threads, grain=4)
    in_threads(lambda a, b: normalise(histograms, energies, a, b, features), rows - 2, threads, grain=4)
    return torch.from_numpy(features)


def dpm_features(image: Shaped[Tensor, "3 H W"], cell: int = CELL) -> Float32[Tensor, "32 h w"]:
    """Features of a picture's inner cells, see `edges_of` and `features_of_edges`."""
    return features_of_edges(edges_of(image), cell)


def mirrored_features(features: Float32[Tensor, "*N 32 h w"]) -> Float32[Tensor, "*N 32 h w"]:
    """What a mirror makes of features or filters: columns in the opposite order, directions turned round."""
    return features.flip(-1).index_select(-3, torch.tensor(MIRRORED, device=features.device))


def bordered(
    features: Float32[Tensor, "32 h w"], top: int, left: int, bottom: int, right: int
) -> Float32[Tensor, "32 h2 w2"]:
    """Cells outside the picture added: 0 but for the last feature, which is 1."""
    wide = F.pad(features, (left, right, top, bottom))
    outside = wide[OUTSIDE]
    outside[:top], outside[:, :left] = 1, 1
    outside[outside.shape[0] - bottom :], outside[:, outside.shape[1] - right :] = 1, 1
    return wide


@dataclass(frozen=True, eq=False)
class Level(Record):
    """One scale of a picture.

    Attributes:
        features: of all cells, those at the border counted as outside; cell (0, 0) starts at the picture's corner.
        cell_hw: height and width of a cell, in pixels of the picture.
    """

    features: Float32[Tensor, "32 h w"]
    cell_hw: tuple[float, float]


@dataclass(frozen=True, eq=False)
class LevelPair(Record):
    """What a root and its parts are looked for in.

    Attributes:
        index: 0 for the finest pair.
        coarse: where the root is.
        fine: where the parts are: one octave finer.
    """

    index: int
    coarse: Level
    fine: Level


def number_of_levels(size_hw: tuple[int, int], per_octave: int = 10, finest: int = 1) -> int:
    """Levels where a root is looked for, from cells of 8 / finest pixels up to a side of `LEAST_CELLS` cells."""
    octaves = math.log2(max(min(size_hw) * finest / (LEAST_CELLS * CELL), 1))
    return 1 + math.floor(octaves * per_octave)


def level_scale(index: int, per_octave: int = 10, finest: int = 1) -> float:
    """Of a root's level: its cells have 8 / scale pixels."""
    return finest * 2 ** (-index / per_octave)


def feature_pyramid(
    image: Shaped[Tensor, "3 H W"],
    per_octave: int = 10,
    finest: int = 1,
    wanted: Collection[int] | None = None,
) -> list[LevelPair]:
    """A picture's features at scales a factor of 2 ** (1 / per_octave) apart, finest first.

    The picture is never enlarged: above scale 1 cells have 4 pixels (2 above scale 2), as in the release.

    Args:
        image: numbers 0..255.
        per_octave: levels from one scale to half of it.
        finest: scale of the first pair; 2 for objects too small for cells of 8 pixels.
        wanted: indices of the pairs to be made, also of coarser ones than a picture of this size has; None for all.

    Raises:
        RecordError: `per_octave` below 1, or a finest scale other than 1 or 2.
    """
    require(per_octave >= 1, "feature_pyramid(per_octave)", per_octave, "1 or more")
    require(finest in (1, 2), "feature_pyramid(finest)", finest, "1 or 2")
    height, width = int(image.shape[1]), int(image.shape[2])
    indices = range(number_of_levels((height, width), per_octave, finest)) if wanted is None else sorted(wanted)
    pictures: dict[int, Shaped[Tensor, "3 _h _w"]] = {}
    found: dict[int, Edges] = {}
    levels: dict[int, Level] = {}
    top = round(math.log2(finest)) * per_octave

    def picture_at(step: int) -> Shaped[Tensor, "3 _h _w"]:
        """The picture at scale 2 ** (-step / per_octave)."""
        if step not in pictures:
            scale = 2 ** (-step / per_octave)
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            source = image.float() if step < per_octave else picture_at(step - per_octave)
            pictures[step] = resized(source, size)
        return pictures[step]

    def level_at(step: int) -> Level:
        """Cells of 8 * 2 ** (step / per_octave) pixels; negative steps are finer than the picture at 8 pixels."""
        if step not in levels:
            halvings = max(0, -(step // per_octave))
            shown = step + halvings * per_octave
            if shown not in found:
                found[shown] = edges_of(picture_at(shown))
            cell, (rows, columns) = CELL >> halvings, found[shown].lengths.shape
            features = _with_border(features_of_edges(found[shown], cell), rows / cell, columns / cell)
            levels[step] = Level(features, (cell * height / rows, cell * width / columns))
        return levels[step]

    return [LevelPair(i, level_at(i - top), level_at(i - top - per_octave)) for i in indices]


def _with_border(features: Float32[Tensor, "32 h w"], rows: float, columns: float) -> Float32[Tensor, "32 h2 w2"]:
    if features.numel():
        return bordered(features, 1, 1, 1, 1)
    outside = features.new_zeros(CHANNELS, max(1, math.floor(rows + 0.5)), max(1, math.floor(columns + 0.5)))
    outside[OUTSIDE] = 1
    return outside


def resized(image: Float32[Tensor, "C _h _w"], size_hw: tuple[int, int]) -> Float32[Tensor, "C _h2 _w2"]:
    """Means over the area of each new pixel; bilinear where a side grows."""
    if tuple(image.shape[-2:]) == tuple(size_hw):
        return image
    import cv2

    height, width = size_hw
    grows = height > image.shape[-2] or width > image.shape[-1]
    how = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    planes = [cv2.resize(plane, (width, height), interpolation=how) for plane in image.contiguous().numpy()]
    return torch.from_numpy(np.stack(planes))
