"""Other sizes, all or most of the picture kept."""

from dataclasses import dataclass, replace

import numpy as np

from bestiary.transforms.keep import KEEP, Keep
from bestiary.transforms.transform import Geometric, require_argument, require_range, require_size
from bestiary.transforms.warp import MEAN_COLOUR, Fill, Warp


@dataclass(frozen=True, repr=False)
class Resize(Geometric):
    """To an exact size, whatever becomes of the proportions."""

    size_hw: tuple[int, int]

    def __post_init__(self) -> None:
        require_size(self.size_hw, "Resize(size_hw)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The resize."""
        return Warp.resize(size_hw, self.size_hw)


@dataclass(frozen=True, repr=False)
class ResizeShortSide(Geometric):
    """The shorter side to `short`, unless the longer would exceed `longest`: then that to `longest`. Proportions
    stay.
    """

    short: int
    longest: int | None = None

    def __post_init__(self) -> None:
        _require_sides((self.short,), self.longest, "ResizeShortSide")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The resize."""
        return Warp.resize(size_hw, short_side_size(size_hw, self.short, self.longest))


@dataclass(frozen=True, repr=False)
class ResizeLongSide(Geometric):
    """The longer side to `longest`; proportions stay."""

    longest: int

    def __post_init__(self) -> None:
        _require_sides((self.longest,), None, "ResizeLongSide")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The resize."""
        return Warp.resize(size_hw, scaled_size(size_hw, self.longest / max(size_hw)))


@dataclass(frozen=True, repr=False)
class RandomShortSide(Geometric):
    """Scale augmentation of VGG, Faster R-CNN and others: `ResizeShortSide` with a drawn length.

    Attributes:
        short: lengths to choose from, equally likely; two lengths are a choice of two, not a range (`range(480, 801)`
            is one).
        longest: limit of the longer side.
    """

    short: tuple[int, ...] | range
    longest: int | None = None

    def __post_init__(self) -> None:
        _require_sides(self.short, self.longest, "RandomShortSide")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The resize to one of the lengths."""
        short = self.short[int(rng.integers(len(self.short)))]
        return Warp.resize(size_hw, short_side_size(size_hw, short, self.longest))


@dataclass(frozen=True, repr=False)
class Letterbox(Geometric):
    """As large as fits into `size_hw` with proportions kept, centred, margins in one colour."""

    size_hw: tuple[int, int]
    fill: Fill = MEAN_COLOUR

    def __post_init__(self) -> None:
        require_size(self.size_hw, "Letterbox(size_hw)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """Resize and pad as one map."""
        (height, width), (new_height, new_width) = self.size_hw, fitting_size(size_hw, self.size_hw)
        left, top = (width - new_width) // 2, (height - new_height) // 2
        matrix = np.array([[new_width / size_hw[1], 0, left], [0, new_height / size_hw[0], top]])
        return Warp.whole(matrix, size_hw, self.size_hw, self.fill)


@dataclass(frozen=True, repr=False)
class ScaleJitter(Geometric):
    """Large-scale jitter (Ghiasi et al., Simple Copy-Paste, CVPR 2021, section 3): zoom by a drawn factor, then cut
    or pad to a fixed size.

    Attributes:
        scale: range of the factor, 1 being the picture that just fits into `size_hw`; the paper's is 0.1..2, its
            "standard" jitter 0.8..1.25.
        size_hw: size that comes out: a random part of a larger picture, or all of a smaller one in the top-left
            corner. None: the picture is zoomed as it is, neither cut nor padded.
        fill: colour of the padding.
        keep: which objects stay.
    """

    scale: tuple[float, float] = (0.1, 2.0)
    size_hw: tuple[int, int] | None = None
    fill: Fill = MEAN_COLOUR
    keep: Keep = KEEP

    def __post_init__(self) -> None:
        require_range(self.scale, 1e-3, "ScaleJitter(scale)")
        require_size(self.size_hw or (1, 1), "ScaleJitter(size_hw)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """Zoom, cut and pad as one map."""
        factor = rng.uniform(*self.scale)
        if self.size_hw is None:
            return replace(Warp.resize(size_hw, scaled_size(size_hw, factor)), keep=self.keep)
        fit = min(self.size_hw[0] / size_hw[0], self.size_hw[1] / size_hw[1])
        new = scaled_size(size_hw, fit * factor)
        spare = max(0, new[0] - self.size_hw[0]), max(0, new[1] - self.size_hw[1])
        top, left = rng.integers(0, spare[0], endpoint=True), rng.integers(0, spare[1], endpoint=True)
        matrix = np.array([[new[1] / size_hw[1], 0, -left], [0, new[0] / size_hw[0], -top]])
        return replace(Warp.whole(matrix, size_hw, self.size_hw, self.fill), keep=self.keep)


def scaled_size(size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """Both sides times `scale`, rounded, at least 1."""
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def fitting_size(size_hw: tuple[int, int], room_hw: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same proportions within `room_hw`."""
    height, width = scaled_size(size_hw, min(room_hw[0] / size_hw[0], room_hw[1] / size_hw[1]))
    return min(height, room_hw[0]), min(width, room_hw[1])


def short_side_size(size_hw: tuple[int, int], short: int, longest: int | None) -> tuple[int, int]:
    """Size with the shorter side `short`, or the longer one `longest` where it would exceed that."""
    scale = short / min(size_hw)
    if longest is not None and max(size_hw) * scale > longest:
        scale = longest / max(size_hw)
    return scaled_size(size_hw, scale)


def _require_sides(short: tuple[int, ...] | range, longest: int | None, where: str) -> None:
    require_argument(len(short) > 0 and min(short) >= 1, where, short, "lengths of at least 1")
    require_argument(longest is None or longest >= 1, f"{where}(longest)", longest, "at least 1")
