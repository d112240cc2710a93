"""What YOLO's recipes do to pictures."""

from dataclasses import dataclass
from typing import Any

from bestiary.recipes.tiles import TileFields
from bestiary.transforms.compose import Compose, Transform
from bestiary.transforms.darknet import HSVJitter, RandomFrame
from bestiary.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip


@dataclass(frozen=True)
class DarknetPictures(TileFields):
    """What happens to pictures that a network sees as squares of one size.

    Attributes:
        size: side of the square that every picture is stretched to.
        jitter: share of a side by which each edge of the frame moves in or out.
        hue: largest turn, as a fraction of the colour circle.
        saturation: largest factor on it, and its inverse.
        exposure: largest factor on the brightness, and its inverse.
        flip: chance of a mirror image.
        vertical_flip: chance of an upside-down image (microscopes and satellites have no up).
    """

    size: int = 448
    jitter: float = 0.2
    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5
    flip: float = 0.5
    vertical_flip: float = 0.0

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """A tile if tiles are wanted, the moved frame, mirror image, colours."""
        steps: list[Transform] = [
            *self.tile_steps(),
            RandomFrame((self.size, self.size), self.jitter),
            RandomHorizontalFlip(self.flip, joint_pairs=joint_pairs),
            RandomVerticalFlip(self.vertical_flip, joint_pairs=joint_pairs),
        ]
        if self.hue or self.saturation > 1 or self.exposure > 1:
            steps.append(HSVJitter(self.hue, self.saturation, self.exposure))
        return Compose(tuple(steps))

    def arguments(self) -> dict[str, Any]:
        """The size that prediction works at, and its tiles."""
        return {"size": self.size, **self.tile_arguments()}
