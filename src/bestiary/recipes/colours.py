"""The colour changes that every task's pictures can have."""

from dataclasses import dataclass

from bestiary.transforms.colour import ColourJitter
from bestiary.transforms.compose import Transform


@dataclass(frozen=True, kw_only=True)
class ColourFields:
    """How far colours may move.

    Attributes:
        brightness: largest change, as a share.
        contrast: largest change, as a share.
        saturation: largest change, as a share.
        hue: largest change, as a share of the colour circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def colour_steps(self) -> list[Transform]:
        """The jitter, or nothing if no colour may move."""
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            return []
        return [ColourJitter(self.brightness, self.contrast, self.saturation, self.hue)]
