"""Mirrors, turns and random affine maps."""

from dataclasses import dataclass, replace

import numpy as np

from bestiary.transforms.keep import KEEP, Keep
from bestiary.transforms.transform import Geometric, require_argument, require_probability, require_range
from bestiary.transforms.warp import MEAN_COLOUR, Fill, Pairs, Warp


@dataclass(frozen=True, repr=False)
class RandomHorizontalFlip(Geometric):
    """Left becomes right.

    Attributes:
        p: probability.
        joint_pairs: joints that are each other's mirror image ("left knee", "right knee"); a data set knows its own.
        predicate_pairs: predicates of relations that are each other's mirror image ("left of", "right of").
    """

    p: float = 0.5
    joint_pairs: Pairs = ()
    predicate_pairs: Pairs = ()

    def __post_init__(self) -> None:
        require_probability(self.p, "RandomHorizontalFlip(p)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """A mirror or nothing."""
        if rng.random() >= self.p:
            return Warp.identity(size_hw)
        warp = Warp.whole(np.array([[-1.0, 0, size_hw[1]], [0, 1.0, 0]]), size_hw, size_hw)
        return replace(warp, joint_swaps=self.joint_pairs, predicate_swaps=self.predicate_pairs)


@dataclass(frozen=True, repr=False)
class RandomVerticalFlip(Geometric):
    """Top becomes bottom: for pictures without an up, as from above or through a microscope.

    Attributes:
        p: probability.
        joint_pairs: see `RandomHorizontalFlip`; any mirror exchanges left and right limbs.
        predicate_pairs: such as ("above", "below").
    """

    p: float = 0.5
    joint_pairs: Pairs = ()
    predicate_pairs: Pairs = ()

    def __post_init__(self) -> None:
        require_probability(self.p, "RandomVerticalFlip(p)")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """A mirror or nothing."""
        if rng.random() >= self.p:
            return Warp.identity(size_hw)
        warp = Warp.whole(np.array([[1.0, 0, 0], [0, -1.0, size_hw[0]]]), size_hw, size_hw)
        return replace(warp, joint_swaps=self.joint_pairs, predicate_swaps=self.predicate_pairs)


@dataclass(frozen=True, repr=False)
class RandomQuarterTurn(Geometric):
    """Turned counter-clockwise by 0, 90, 180 or 270 degrees, no pixel lost.

    Attributes:
        turns: numbers of quarter turns to choose from, equally likely.
    """

    turns: tuple[int, ...] = (0, 1, 2, 3)

    def __post_init__(self) -> None:
        require_argument(len(self.turns) > 0, "RandomQuarterTurn(turns)", "none", "at least one number of turns")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """One of the turns."""
        height, width = size_hw
        turns = self.turns[rng.integers(len(self.turns))] % 4
        matrices = (
            [[1.0, 0, 0], [0, 1.0, 0]],
            [[0, 1.0, 0], [-1.0, 0, width]],
            [[-1.0, 0, width], [0, -1.0, height]],
            [[0, -1.0, height], [1.0, 0, 0]],
        )
        return Warp.whole(np.array(matrices[turns]), size_hw, (width, height) if turns % 2 else size_hw)


@dataclass(frozen=True, repr=False)
class RandomAffine(Geometric):
    """Rotation, shear, zoom and shift about the picture's centre, in one interpolation; the size stays.

    Attributes:
        degrees: rotation drawn from -degrees..degrees, counter-clockwise.
        translate: shift drawn from -translate..translate, as a fraction of each side.
        scale: range of the zoom, drawn evenly in its logarithm, so that 0.5 is as likely as 2.
        shear: drawn from -shear..shear degrees, along x.
        fill: colour outside.
        keep: which objects stay.
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    fill: Fill = MEAN_COLOUR
    keep: Keep = KEEP

    def __post_init__(self) -> None:
        require_range((0.0, self.degrees), 0.0, "RandomAffine(degrees)")
        require_range((0.0, self.translate), 0.0, "RandomAffine(translate)")
        require_range(self.scale, 1e-3, "RandomAffine(scale)")
        require_argument(0 <= self.shear < 90, "RandomAffine(shear)", self.shear, "degrees, 0 up to but not 90")

    def plan(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Warp:
        """The drawn map."""
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees))
        shear = np.tan(np.deg2rad(rng.uniform(-self.shear, self.shear)))
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        shift = rng.uniform(-self.translate, self.translate, 2) * size_hw[::-1]
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        linear = zoom * turn @ np.array([[1.0, shear], [0, 1.0]])
        centre = np.array(size_hw[::-1]) / 2
        matrix = np.column_stack([linear, centre + shift - linear @ centre])
        return replace(Warp.whole(matrix, size_hw, size_hw, self.fill), keep=self.keep)
