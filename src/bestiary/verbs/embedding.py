"""What a net says of pictures before its last layer: features in memory or on disk, by layer."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary import zoo
from bestiary.backbones.cutting import cut, cut_before, layers_of
from bestiary.data.feature_files import UNKNOWN, Features, FeatureWriter, read_features
from bestiary.data.loader import Loader
from bestiary.errors import PictureError, UsageError
from bestiary.heads.classification import Classifier
from bestiary.heads.last_layer import head_names
from bestiary.pictures.sources import Source, iterate_batches
from bestiary.system import FittedSystem, Predictor, System, evaluation_mode
from bestiary.verbs.datasets import Data, open_split, splits_of
from bestiary.verbs.models import create, load

Pool = Literal["mean", "max", "none"]
Rows = tuple[Float[Tensor, "B ..."], list[str], list[int | None]]


class Embedder:
    """A classifier cut at a layer: pictures as people hold them in, features out.

    Args:
        system: a classifier that learns by gradients.
        layer: where to cut, as `cut` takes it; None for what its last layer sees.
        pool: "mean" or "max" over each map's positions; "none" keeps maps as they are. Of vectors there is nothing to
            pool.

    Raises:
        UsageError: another kind of system, or no such layer.
    """

    def __init__(self, system: Predictor, layer: str | None = None, pool: Pool = "mean") -> None:
        if not isinstance(system, Classifier) or isinstance(system, FittedSystem):
            kind = getattr(system, "model_name", "") or type(system).__name__
            mend = "Cut its backbone by bestiary.cut for maps of pixels that you prepare yourself"
            raise UsageError(f"features are taken of classifiers, and {kind} is none with layers", mend=mend)
        if pool not in get_args(Pool):
            raise UsageError(f"got {pool!r}, wanted one of {', '.join(get_args(Pool))}", where="pool")
        self.system, self.pool = system, pool
        self.layer = layer or f"before {head_names(system)[-1]}"
        self.net = cut(system, layer) if layer else cut_before(system, head_names(system)[-1])

    def __call__(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> Float[Tensor, "B ..."]:
        """Features of pictures of any sizes, resized and cropped as for prediction."""
        place = next(self.net.parameters(), torch.zeros(0)).device
        with evaluation_mode(self.system), torch.inference_mode():
            scaled, _ = self.system.to_network_scale([image.to(place) for image in images], [])
            self.net.eval()
            maps: Tensor = self.net(self.system.normalize(torch.stack(list(scaled)))).float()
        if maps.ndim > 2 and self.pool == "mean":
            maps = maps.flatten(2).mean(2)
        elif maps.ndim > 2 and self.pool == "max":
            maps = maps.flatten(2).amax(2)
        return maps.cpu()


def embed(
    model: System | str | Path,
    source: Source | None = None,
    layer: str | None = None,
    *,
    data: Data | None = None,
    split: str | None = None,
    format: str | None = None,
    pool: Pool = "mean",
    out: str | Path | None = None,
    batch: int = 16,
    offline: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Features:
    """Features of pictures, or of a data set with its classes.

    Args:
        model: a classifier; a checkpoint or run; or a name of the zoo, then with its published weights.
        source: pictures, as `predict` takes them; or
        data: a data set.
        layer: where the net is cut (`cut` says which names there are); None for what its last layer sees.
        split: of the data set; `train+test` joins two. `test` if None, or all of it where there is none.
        format: of the data set; found by itself if None.
        pool: "mean" or "max" over each map's positions, "none" for whole maps.
        out: `.npz` or `.npy` (with a `.json` beside it, mapped and not read): written picture by picture in constant
            memory. None keeps all in memory.
        batch: pictures a forward pass.
        offline: never fetch published weights.
        say: told what was left out, and how far it is.

    Raises:
        UsageError: no such layer; a system without layers; both or none of `source` and `data`.
        DataError: no picture.
    """
    if (source is None) == (data is None):
        raise UsageError("got both or none of pictures and a data set, wanted one of them", where="embed")
    system = model if isinstance(model, System) else _open(model, offline)
    embedder = Embedder(system, layer, pool)
    facts = {"model": getattr(system, "model_name", ""), "layer": embedder.layer, "pool": pool}
    if data is None:
        categories: tuple[str, ...] = ()
        rows = _of_pictures(embedder, source, batch, say)
    else:
        if split is None:
            there = splits_of(data, format)
            split = "test" if "test" in there else "+".join(there)
        opened = open_split(data, split, "classification", format, None, say)
        categories = tuple(opened.categories)
        loader = Loader(opened, batch=batch)
        rows = (
            (embedder(found.images), found.names, [target.label for target in found.targets])
            for found in loader.iterate(0)
        )
    if out is not None:
        with FeatureWriter(Path(out), categories, facts) as writer:
            for values, names, labels in rows:
                writer.add(values.numpy(), names, labels)
        return read_features(out)
    kept = list(rows)
    if not kept:
        raise UsageError("there was no picture to take features of", where="embed")
    labels = [UNKNOWN if label is None else label for _, _, some in kept for label in some]
    values = torch.cat([some for some, _, _ in kept]).numpy()
    names = tuple(name for _, some, _ in kept for name in some)
    return Features(values, names, np.array(labels, dtype=np.int64), categories, facts)


def list_layers(model: str | Path) -> list[str]:
    """Names at which a model of the zoo or a checkpoint can be cut: the papers' first, then paths of modules.

    Raises:
        UsageError: the model has no layers, or cannot be traced.
    """
    system = zoo.build(str(model)) if str(model) in zoo.ZOO and not Path(model).exists() else load(model)
    if not isinstance(system, torch.nn.Module):
        raise UsageError("got a graph, wanted a checkpoint", where=str(model))
    return [*getattr(system, "layer_names", {}), *layers_of(system)]


def _open(model: str | Path, offline: bool) -> Predictor:
    if str(model) in zoo.ZOO and not Path(model).exists():
        return create(str(model), weights="published", offline=offline)
    return load(model)


def _of_pictures(embedder: Embedder, source: Source, batch: int, say: Callable[[str], None]) -> Iterator[Rows]:
    def skip(error: PictureError) -> None:
        say(f"skipped: {error}")

    for pictures in iterate_batches(source, batch, skip):
        yield (
            embedder([picture.image for picture in pictures]),
            [picture.name for picture in pictures],
            [None] * len(pictures),
        )
