"""The network itself, looked at without a picture and over a data set: parts of the index page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bestiary.draw.instances import objects
from bestiary.errors import BestiaryError
from bestiary.inspect.feature_space import Features, Method, gather_features, mosaic, to_plane
from bestiary.inspect.fields import measured_field
from bestiary.inspect.layers import Tap, find_layer, frozen, strongest_units
from bestiary.inspect.looking import BOX_COLOUR
from bestiary.inspect.maximising import Prior, maximise
from bestiary.inspect.pages import Figure, PatchFigure, Plane, UnitPatches, css_colour, png_uri, scatter_svg
from bestiary.inspect.painting import enlarged, heat_picture
from bestiary.inspect.patches import top_patches
from bestiary.inspect.signals import Way
from bestiary.inspect.views import input_batches
from bestiary.layers.preprocess import Normalize
from bestiary.system import System

MEASURED_SIDE = 256
"""Side of the input, at most, on which fields are measured: that is computed indeed, in float64."""


def measured_fields(net: nn.Module, input_shape: Sequence[int], layers: Sequence[str]) -> tuple[list[Figure], str]:
    """A figure for each layer: the computed box on the measured influence; and the size of the input.

    Layers that do not run on an input of that size are left out.
    """
    shape = (1, int(input_shape[1]), *(min(int(n), MEASURED_SIDE) for n in input_shape[2:]))
    figures = []
    for layer in layers:
        try:
            found = measured_field(net, shape, layer)
        except (RuntimeError, BestiaryError):
            continue
        # Influence falls off so fast that only its logarithm shows the rim.
        share = found.influence / found.influence.max().clamp(min=1e-300)
        glow = torch.where(share > 0, 1 + share.clamp(min=1e-6).log10() / 6.5, 0.0)
        factor = max(1, -(-256 // min(glow.shape)))
        picture = enlarged(heat_picture(glow.float(), top=1.0), 256)
        box = torch.tensor([found.computed], dtype=torch.float32) * factor
        drawn = objects(picture, box, torch.full((1,), BOX_COLOUR), [""])
        (x1, y1, x2, y2), verdict = found.computed, "measured the same"
        if not found.agree:
            verdict = f"measured {found.measured[2] - found.measured[0]} x {found.measured[3] - found.measured[1]}"
        cut = " (cut by the borders)" if x1 == 0 or x2 == shape[3] else ""
        figures.append(Figure(layer, png_uri(drawn), f"{x2 - x1} x {y2 - y1} pixels{cut}, {verdict}"))
    return figures, f"{shape[3]} x {shape[2]} pixels"


def liked_patches(
    system: System,
    samples: Sequence[Any] | Any,
    layers: Sequence[str],
    units: Sequence[int],
    top: int,
    say: Callable[[str], None],
    way: Way = "guided",
) -> list[UnitPatches]:
    """Best patches of each unit, layer by layer; the units that fire most on the first pictures if none are named."""
    made = []
    for layer in layers:
        chosen = list(units) or lively_units(system, samples, layer, top)
        for unit, patches in top_patches(system, samples, layer, chosen, way=way, say=say).items():
            note = f"activations {patches[0].activation:.4g} to {patches[-1].activation:.4g}"
            shown = [PatchFigure(p.name, png_uri(p.picture), png_uri(p.signal), p.activation) for p in patches]
            made.append(UnitPatches(f"{layer}, unit {unit}", note, shown))
    return made


def lively_units(system: System, samples: Any, layer: str, top: int) -> list[int]:
    """Channels that single pictures excite far above their own mean, over the first pictures."""
    _, _, pixels = next(input_batches(system, samples, 64))
    with frozen(system), torch.inference_mode():
        (maps,) = Tap(system, [find_layer(system, layer)])(pixels)
    peaks = maps.flatten(2).amax(2) if maps.ndim > 2 else maps
    return strongest_units(((peaks.amax(0) - peaks.mean(0)) / peaks.std(0).clamp(min=1e-6))[None], top)


def maximised_pictures(system: System, units: Mapping[str, Sequence[int]], steps: int, seed: int) -> list[Figure]:
    """Pictures that excite units most: channels of each layer; of the empty name, the categories themselves."""
    normalize = next((part for part in system.modules() if isinstance(part, Normalize)), None)
    side = getattr(system, "crop", 224)
    figures = []
    for layer, channels in units.items():
        for unit in channels:
            # Larger pictures want smoother ones.
            prior = Prior(jitter=max(1, side // 16), variation_weight=0.1 * max(1.0, side / 64))
            size = (system.in_channels, side, side)
            prepare = normalize.forward if normalize is not None else None
            found = maximise(system, layer, unit, size, prepare=prepare, prior=prior, steps=steps, seed=seed)
            name = system.categories[unit] if not layer and unit < len(system.categories) else f"{layer}, unit {unit}"
            picture = enlarged(_rgb(found.picture), 256)
            figures.append(Figure(name, png_uri(picture), f"activation {found.activation:.4g}"))
    return figures


def _rgb(picture: Tensor) -> Tensor:
    three = picture if picture.shape[0] == 3 else picture[:1].expand(3, -1, -1)
    return (three * 255).round().to(torch.uint8)


def feature_plane(
    system: System, samples: Any, layer: str, method: Method, most: int, seed: int, say: Callable[[str], None]
) -> tuple[Plane, Features]:
    """The plane for the page, and the features that it was made of."""
    features = gather_features(system, samples, layer, most=most, seed=seed, say=say)
    places = to_plane(features.values, method, seed)
    svg = scatter_svg(places, features.labels, features.names, features.categories)
    present = sorted(set(features.labels.tolist()))
    legend = [(css_colour(k), features.categories[k]) for k in present if 0 <= k < len(features.categories)]
    how = {"pca": "the two principal components", "tsne": "t-SNE: neighbours stay neighbours, distances mean little"}
    protocol = f"{len(features.values)} pictures, {layer or 'outputs'} averaged over the map, {how[method]}."
    return Plane(svg, legend, png_uri(mosaic(features, places)), protocol), features
