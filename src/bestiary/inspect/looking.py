"""One picture looked at through a network: its page."""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from bestiary.draw.instances import objects
from bestiary.errors import UsageError
from bestiary.inspect.class_maps import class_map
from bestiary.inspect.fields import field_box, layer_field
from bestiary.inspect.layers import activations, channel_of, strongest_positions, strongest_units
from bestiary.inspect.pages import Figure, LayerFigures, PicturePage, UnitFigures, png_uri
from bestiary.inspect.painting import activation_tiles, heat_picture, signal_picture
from bestiary.inspect.signals import Way, project, saliency
from bestiary.inspect.table import by_times
from bestiary.inspect.views import View, view_of
from bestiary.predictions import Classification, Detections, Prediction
from bestiary.system import System, evaluation_mode

TILES = 24
"""Channels shown of a layer."""

BOX_COLOUR = 11
"""A label whose colour, cyan, no heat map has."""

WAY_NAMES: dict[Way, str] = {"gradient": "Gradient", "guided": "Guided gradient", "deconvnet": "Deconvnet"}


def look_at(
    system: System, image: Shaped[Tensor, "C H W"], name: str, layers: Sequence[str], units: Sequence[int], top: int
) -> tuple[PicturePage, View]:
    """Everything that the page of one picture shows.

    Args:
        system: any system with a network.
        image: the picture.
        name: its name.
        layers: paths or names.
        units: channels, looked at in every layer; none for the strongest of each.
        top: how many categories, and how many units where none are named.

    Raises:
        UsageError: no such layer or unit.
    """
    view = view_of(system, image, name)
    with evaluation_mode(system), torch.inference_mode():
        prediction = system.predict_images([image])[0]
    maps = activations(system, view.pixels, layers)
    pages = [_layer(system, view, layer, maps[layer].detach(), units, top) for layer in layers]
    seen = Figure("What the network sees", png_uri(view.picture), _region(view))
    answers = prediction.top(max(top, 5)) if isinstance(prediction, Classification) else []
    found, protocol = _class_maps(system, view, prediction, top) if answers else ([], "")
    shown = [] if answers else [seen, Figure("What it says", png_uri(_drawn(prediction, image)))]
    size = f"{image.shape[2]} x {image.shape[1]} pixels"
    under = f"{size}, seen by {system.model_name or 'the network'} as {by_times(view.pixels.shape[1:])}"
    return PicturePage(name, under, seen, answers, shown, found, protocol, pages), view


def _region(view: View) -> str:
    x1, y1, x2, y2 = (round(v) for v in view.region_xyxy)
    return f"pixels {x1} to {x2} across, {y1} to {y2} down"


def _drawn(prediction: Prediction, image: Tensor) -> Tensor:
    return (prediction.above(0.25) if isinstance(prediction, Detections) else prediction).draw(image)


def _class_maps(system: System, view: View, prediction: Prediction, top: int) -> tuple[list[Figure], str]:
    """One figure for each of the likeliest categories; none for networks without a map."""
    probs = prediction.probs if isinstance(prediction, Classification) else torch.zeros(0)
    order = probs.sort(descending=True, stable=True).indices[:top].tolist()
    figures, said = [], ""
    for category in order:
        try:
            found = class_map(system, view.pixels, category)
        except UsageError:
            return [], ""
        heat = view.on_picture(found.heat[None])[0]
        note = f"probability {float(probs[category]):.3f}"
        figures.append(Figure(system.categories[category], png_uri(heat_picture(heat, view.picture)), note))
        how = {
            "CAM": "Class activation map (Zhou et al. 2016): the logit is its mean, plus the bias; what speaks against "
            "the class is not shown",
            "Grad-CAM": "Grad-CAM (Selvaraju et al. 2017)",
        }[found.method]
        said = f"{how}. Of {found.layer}, {by_times(found.heat.shape)} positions; each picture on its own scale."
    heat = view.on_picture(saliency(system, view.pixels, order[0]), "nearest" if view.scale > 1 else "bilinear")[0]
    name = f"{system.categories[order[0]]}: saliency"
    figures.append(Figure(name, png_uri(heat_picture(heat)), "pixels that move its logit most (Simonyan et al. 2014)"))
    return figures, said


def _layer(system: System, view: View, layer: str, maps: Tensor, units: Sequence[int], top: int) -> LayerFigures:
    spatial = maps.ndim == 4
    tiles = png_uri(activation_tiles(maps[0], strongest_units(maps, TILES))) if spatial else ""
    size = by_times(maps.shape[1:])
    note = f"{size} values. The {min(TILES, maps.shape[1])} strongest channels" if spatial else f"{size} values"
    chosen = list(units) or strongest_units(maps, top)
    return LayerFigures(layer, note, tiles, [_unit(system, view, layer, maps, unit) for unit in chosen])


def _unit(system: System, view: View, layer: str, maps: Tensor, unit: int) -> UnitFigures:
    (place,) = strongest_positions(maps, unit)
    box = field_box(layer_field(system, view.pixels.shape, layer), place)
    shown = torch.tensor([view.box_on_picture(box)])
    label = torch.full((1,), BOX_COLOUR)
    figures = []
    if maps.ndim == 4:
        heat = heat_picture(view.on_picture(maps[:, unit])[0], view.picture)
        where = f"strongest at row {place[0]}, column {place[1]}; the box is what it sees there"
        figures.append(Figure("Activation", png_uri(objects(heat, shown, label, [""])), where))
    for way, name in WAY_NAMES.items():
        projection = project(system, view.pixels, layer, (unit, *place), way)
        signal = view.on_picture(projection.signal[0], "nearest" if view.scale > 1 else "bilinear")
        figures.append(Figure(name, png_uri(signal_picture(signal))))
    value = float(maps[(0, channel_of(unit), *place)])
    return UnitFigures(f"Unit {unit}", f"activation {value:.4g}", figures)
