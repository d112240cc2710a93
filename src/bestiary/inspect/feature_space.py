"""How a network arranges a data set: features of its pictures, brought to a plane."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bestiary.draw.colours import colour_of
from bestiary.errors import UsageError
from bestiary.inspect.layers import Tap, find_layer, frozen
from bestiary.inspect.views import Drawn, input_batches
from bestiary.layers.scaling import as_float, centre_crop, resize_short_side
from bestiary.records import Sample
from bestiary.system import System

Method = Literal["pca", "tsne"]


@dataclass(frozen=True, eq=False)
class Features:
    """Of some pictures.

    Attributes:
        values: one row a picture: the layer's channels, averaged over their maps.
        labels: class of each picture, -1 where it has none.
        names: of the pictures.
        thumbnails: small squares of them.
        categories: names of the classes.
    """

    values: Float[Tensor, "N C"]
    labels: Int64[Tensor, " N"]
    names: tuple[str, ...]
    thumbnails: UInt8[Tensor, "N 3 S S"]
    categories: tuple[str, ...]


def gather_features(
    system: System,
    samples: Sequence[Sample] | Any,
    layer: str,
    most: int = 1000,
    seed: int = 0,
    thumbnail: int = 32,
    batch: int = 32,
    say: Callable[[str], None] = lambda _: None,
) -> Features:
    """Features of `most` pictures of a data set, drawn at random where it holds more.

    Args:
        system: its preparation of pictures is used.
        samples: map-style, with `categories` if it has classes.
        layer: path or name; empty for the network's output.
        most: pictures.
        seed: of the draw.
        thumbnail: side of the small squares.
        batch: pictures a forward pass, where they are of one size.
        say: told how far it is.

    Raises:
        UsageError: no such layer, or fewer than two pictures.
    """
    path, chosen = find_layer(system, layer), Drawn(samples, most, seed)
    if len(chosen) < 2:
        raise UsageError(f"got {len(chosen)} pictures, wanted two at least", where="gather_features")
    tap, rows, labels, names, squares = Tap(system, [path]), [], [], [], []
    for indices, taken, pixels in input_batches(system, chosen, batch):
        with frozen(system), torch.inference_mode():
            (maps,) = tap(pixels)
        rows.append((maps.flatten(2).mean(2) if maps.ndim > 2 else maps).float().clone())
        labels += [-1 if sample.target.label is None else sample.target.label for sample in taken]
        names += [sample.name for sample in taken]
        squares += [_square(sample.image, thumbnail) for sample in taken]
        if (indices[-1] + 1) // 1000 > indices[0] // 1000:
            say(f"features of {indices[-1] + 1} of {len(chosen)} pictures")
    return Features(torch.cat(rows), torch.tensor(labels), tuple(names), torch.stack(squares), chosen.categories)


def to_plane(values: Float[Tensor, "N C"], method: Method = "tsne", seed: int = 0) -> Float[Tensor, "N 2"]:
    """Two coordinates a row.

    Args:
        values: features.
        method: "pca": the two directions of the largest spread; "tsne": neighbours stay neighbours, distances between
            groups mean nothing (van der Maaten, Hinton, JMLR 2008; of the 50 first principal components, perplexity 30
            or a quarter of the rows).
        seed: of t-SNE.

    Raises:
        UsageError: fewer than two rows.
    """
    if len(values) < 2:
        raise UsageError(f"got {len(values)} rows, wanted two at least", where="to_plane(values)")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = values.double().cpu().numpy()
    components = min(50 if method == "tsne" else 2, *rows.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(rows)
    if method == "tsne" and len(rows) > 3:
        perplexity = min(30.0, len(rows) / 4)
        reduced = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    plane = np.zeros((len(rows), 2), dtype=np.float64)
    plane[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    return torch.from_numpy(plane).float()


def mosaic(features: Features, plane: Float[Tensor, "N 2"], side: int = 1000) -> UInt8[Tensor, "3 side side"]:
    """Small pictures laid out by the plane, framed in the colour of their class."""
    size = features.thumbnails.shape[-1] + 2
    sheet = torch.full((3, side, side), 255, dtype=torch.uint8)
    spots = (_unit_square(plane) * (side - size)).round().long()
    for square, label, (x, y) in zip(features.thumbnails, features.labels.tolist(), spots.tolist(), strict=True):
        top = side - size - y
        frame = torch.tensor(colour_of(label), dtype=torch.uint8).view(3, 1, 1)
        sheet[:, top : top + size, x : x + size] = frame
        sheet[:, top + 1 : top + size - 1, x + 1 : x + size - 1] = square
    return sheet


def _unit_square(plane: Tensor) -> Tensor:
    """Coordinates 0..1, each axis by itself."""
    low, high = plane.amin(0), plane.amax(0)
    return (plane - low) / (high - low).clamp(min=1e-12)


def _square(image: Tensor, side: int) -> Tensor:
    """The middle square of a picture, small."""
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    small = centre_crop(resize_short_side(as_float(rgb).float(), side), side)
    return (small.clamp(0, 1) * 255).round().to(torch.uint8)
