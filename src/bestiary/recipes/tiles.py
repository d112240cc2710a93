"""The tiles that every detector can be trained on, and then predicts by."""

from dataclasses import dataclass
from typing import Any

from bestiary.transforms.compose import Transform
from bestiary.transforms.tiling import RandomTile

WHOLE_SHARE = 0.5
"""Share of training pictures that stay whole where prediction also looks at the whole picture."""


@dataclass(frozen=True, kw_only=True)
class TileFields:
    """Tiles of large pictures with small objects.

    Attributes:
        tile: pixels a side of the tiles that training cuts out, and that validation and prediction cut pictures into; 0
            for none. Objects then reach the network enlarged: the tile, not the picture, is scaled to its size.
        tile_overlap: least share of a side that neighbouring tiles have in common in prediction; let it be larger than
            the usual object.
        tile_whole: half of the training pictures stay whole, and prediction also looks at the whole picture.
    """

    tile: int = 0
    tile_overlap: float = 0.2
    tile_whole: bool = False

    def tile_steps(self) -> list[Transform]:
        """The random tile, or nothing; the first step, as tiles are measured in pixels of the picture."""
        return [RandomTile(self.tile, whole=WHOLE_SHARE if self.tile_whole else 0.0)] if self.tile else []

    def tile_arguments(self) -> dict[str, Any]:
        """What the system is told, so that it predicts by the same tiles."""
        if not self.tile:
            return {}
        return {"tile": self.tile, "tile_overlap": self.tile_overlap, "tile_whole": self.tile_whole}
