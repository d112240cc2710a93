"""Records onto pictures.

Every function takes a picture `[C, H, W]` (uint8, or floating 0..1; 1, 3 or n channels), leaves it as it is and gives
a new uint8 RGB picture. Lines and letters scale with the picture; text that does not fit is made smaller, cut, or
left out.
"""

from bestiary.draw.colours import TABLE, colour_of, ink_on
from bestiary.draw.instances import objects
from bestiary.draw.maps import MapStyle, depth_map, label_map, mistake_map, normal_map
from bestiary.draw.overlapping import class_masks
from bestiary.draw.sheets import grid, side_by_side
from bestiary.draw.skeletons import COCO_LIMBS, LSP_LIMBS, MPII_LIMBS, limbs_of
from bestiary.draw.text import text_lines
from bestiary.draw.truth import target, truth_sheet

__all__ = [
    "COCO_LIMBS", "LSP_LIMBS", "MPII_LIMBS", "TABLE", "MapStyle", "class_masks", "colour_of", "depth_map", "grid",
    "ink_on", "label_map", "limbs_of", "mistake_map", "normal_map", "objects", "side_by_side", "target", "text_lines",
    "truth_sheet",
]  # fmt: skip
