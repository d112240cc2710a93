"""The truth of a picture onto it."""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from bestiary.draw.canvas import close_canvas, open_canvas
from bestiary.draw.instances import objects
from bestiary.draw.maps import depth_map, label_map, normal_map
from bestiary.draw.sheets import grid
from bestiary.draw.text import text_lines
from bestiary.records import Objects, Sample, Target


def _name(categories: Sequence[str], label: int) -> str:
    return categories[label] if 0 <= label < len(categories) else str(label)


def target(image: Shaped[Tensor, "C H W"], target: Target, categories: Sequence[str]) -> UInt8[Tensor, "3 H W"]:
    """The richest truth there is, drawn on the picture at its size: the objects; else the label map; else the depth;
    else the class's name.

    Args:
        image: uint8 or floating 0..1.
        target: what is known of it.
        categories: names of the labels: of the objects, or of the label map where there are no objects.
    """
    if target.objects is not None:
        return _draw_objects(image, target.objects, categories)
    if target.label_map is not None:
        return label_map(image, target.label_map, categories)
    if target.depth is not None:
        return depth_map(target.depth)
    if target.label is not None:
        return text_lines(image, [_name(categories, target.label)])
    return close_canvas(open_canvas(image))


def _draw_objects(image: Tensor, truth: Objects, categories: Sequence[str]) -> Tensor:
    """Boxes, masks and joints with category names; crowds and difficult objects say so."""
    texts = [_name(categories, label) for label in truth.labels.tolist()]
    for field, word in ((truth.crowd, "crowd"), (truth.difficult, "difficult")):
        if field is not None:
            texts = [f"{text} ({word})" if marked else text for text, marked in zip(texts, field.tolist(), strict=True)]
    return objects(image, truth.boxes_xyxy, truth.labels, texts, masks=truth.masks, keypoints=truth.keypoints)


def truth_sheet(
    sample: Sample, categories: Sequence[str], label_map_categories: Sequence[str] | None = None, columns: int = 5
) -> UInt8[Tensor, "3 H2 W2"]:
    """Everything that is known of a sample, one picture each on a titled grid: the picture, objects, label map,
    depth, normals.

    Args:
        sample: any sample.
        categories: names of the objects' labels and of the picture's class.
        label_map_categories: names of the label map's values, where they are not `categories`.
        columns: of the grid.
    """
    known, image = sample.target, sample.image
    title = "picture" if known.label is None else f"picture: {_name(categories, known.label)}"
    pictures, titles = [close_canvas(open_canvas(image))], [title]
    if known.objects is not None:
        pictures.append(_draw_objects(image, known.objects, categories))
        titles.append("objects")
    if known.label_map is not None:
        pictures.append(label_map(image, known.label_map, label_map_categories or categories))
        titles.append("label map")
    if known.depth is not None:
        pictures.append(depth_map(known.depth))
        titles.append("depth")
    if known.normals is not None:
        pictures.append(normal_map(known.normals))
        titles.append("normals")
    if known.weight_map is not None:
        weights = known.weight_map.clamp(min=0)
        pictures.append(close_canvas(open_canvas((weights / weights.max().clamp(min=torch.finfo().tiny))[None])))
        titles.append("weights")
    return grid(pictures, columns, titles)
