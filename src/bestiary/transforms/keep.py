"""Which objects are still there when a picture has been cut."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from bestiary.errors import UsageError


@dataclass(frozen=True)
class Keep:
    """An object stays if all three hold; the rest of it (box, mask, joints) is cut to the picture. None staying is
    legal.

    Attributes:
        min_visible: fraction of the moved box's area that lies inside the picture. The default leaves out slivers, of
            which nobody could tell what they are. A box without area counts as visible if its centre is.
        min_side: pixels that both sides of the cut box have at least, in the new picture.
        centre_inside: the centre of the moved box, before cutting, lies inside the picture (SSD's rule for crops).
    """

    min_visible: float = 0.1
    min_side: float = 1.0
    centre_inside: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_visible <= 1 or self.min_side < 0:
            got = f"min_visible {self.min_visible}, min_side {self.min_side}"
            raise UsageError(f"got {got}, wanted a fraction and a length", where="Keep")

    def strictest(self, other: "Keep") -> "Keep":
        """The rule that asks for all that both ask for."""
        return Keep(
            max(self.min_visible, other.min_visible),
            max(self.min_side, other.min_side),
            self.centre_inside or other.centre_inside,
        )

    def judge(
        self, moved_xyxy: Float64[np.ndarray, "N 4"], cut_xyxy: Float64[np.ndarray, "N 4"], size_hw: tuple[int, int]
    ) -> Bool[np.ndarray, " N"]:
        """Which of the boxes stay, from each before and after cutting to the picture."""
        height, width = size_hw
        stays = visible_fraction(moved_xyxy, cut_xyxy, size_hw) >= self.min_visible
        for low, high, side in ((0, 2, width), (1, 3, height)):
            x1, x2 = cut_xyxy[:, low], cut_xyxy[:, high]
            stays &= (x2 - x1 >= self.min_side - 1e-6) & (x1 < side) & (x2 > 0)  # float32 boxes of just min_side stay
        return stays & _centre_inside(moved_xyxy, size_hw) if self.centre_inside else stays


def visible_fraction(
    moved_xyxy: Float64[np.ndarray, "N 4"], cut_xyxy: Float64[np.ndarray, "N 4"], size_hw: tuple[int, int]
) -> Float64[np.ndarray, " N"]:
    """Area left over area before; of a box without area, 1 if its centre is in the picture, else 0."""
    before = (moved_xyxy[:, 2:] - moved_xyxy[:, :2]).prod(1)
    after = (cut_xyxy[:, 2:] - cut_xyxy[:, :2]).prod(1)
    return np.where(before > 0, after / np.where(before > 0, before, 1), _centre_inside(moved_xyxy, size_hw))


def _centre_inside(boxes_xyxy: Float64[np.ndarray, "N 4"], size_hw: tuple[int, int]) -> Bool[np.ndarray, " N"]:
    x, y = (boxes_xyxy[:, 0] + boxes_xyxy[:, 2]) / 2, (boxes_xyxy[:, 1] + boxes_xyxy[:, 3]) / 2
    return (x >= 0) & (x < size_hw[1]) & (y >= 0) & (y < size_hw[0])


KEEP = Keep()
"""The default rule."""

KEEP_ALL = Keep(min_visible=0.0, min_side=0.0)
"""Every object of which a pixel may be left."""
