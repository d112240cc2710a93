"""What `predict` writes beyond typed options: flags wherever on the line they stand."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from bestiary.errors import UsageError

OUTPUTS = {
    "top": "how many classes of a picture are named, 5",
    "style": "how label maps are drawn: overlay, contours, colours or side_by_side",
    "colours": "also write label maps as indexed PNGs in their colours",
    "polygons": "write a LabelMe JSON of polygons a picture",
    "polygon_tolerance": "pixels by which polygons may be simplified, 0",
}
"""Further flags and what they mean."""

SWITCHES = {"colours", "polygons"}
"""Those that mean yes where nothing follows."""


def outputs_of(
    fields: MutableMapping[str, str], folder: Path | None, draw: bool, coco: bool, yolo: bool, crops: bool
) -> Any:
    """`verbs.predicting.Outputs` from typed options and the flags' texts, which are taken out of `fields`.

    Raises:
        UsageError: a text that does not fit.
    """
    from bestiary.draw import MapStyle
    from bestiary.recipes.recipe import convert
    from bestiary.verbs.predicting import Outputs

    kinds: dict[str, tuple[Any, str]] = {
        "top": (int, "5"),
        "style": (MapStyle, "overlay"),
        "colours": (bool, "no"),
        "polygons": (bool, "no"),
        "polygon_tolerance": (float, "0"),
    }
    found = {name: convert(fields.pop(name, default), kind, name) for name, (kind, default) in kinds.items()}
    tolerance = found.pop("polygon_tolerance")
    if not 0 <= tolerance < float("inf"):
        raise UsageError(f"got {tolerance}, wanted pixels, 0 or more", where="--polygon-tolerance")
    return Outputs(
        folder=folder or Path("runs/predict"),
        draw=draw,
        coco=coco,
        yolo=yolo,
        crops=crops,
        tolerance=tolerance,
        **found,
    )
