"""What a network sees, as pages: the network itself, pictures looked at through it, and units over a data set."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from bestiary import zoo
from bestiary.errors import UsageError
from bestiary.heads.classification import Classifier
from bestiary.inspect.choosing import stage_layers
from bestiary.inspect.layers import find_layer
from bestiary.inspect.looking import look_at
from bestiary.inspect.pages import Figure, ModelPage, png_uri, write_model_page, write_picture_page
from bestiary.inspect.painting import first_filters
from bestiary.inspect.portrait import feature_plane, liked_patches, lively_units, maximised_pictures, measured_fields
from bestiary.inspect.table import LayerTable, layer_table
from bestiary.inspect.views import Drawn, preparation
from bestiary.pictures.encode import write_image
from bestiary.pictures.sources import Source, iterate
from bestiary.system import FittedSystem, System
from bestiary.verbs.datasets import Data, dataset_name, open_measured
from bestiary.verbs.models import create, load

PICTURE_SIZE = (480, 640)
"""Height and width of the picture that a system is tried on where it takes any size."""


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Attributes:
        layers: paths or names; the last layer of each stage if there are none.
        units: channels, looked at in every layer; the strongest if there are none.
        top: how many units and categories, where none are named.
        maximise: steps towards the pictures that excite units most, of `layers` if any are named, else of the
            categories; 0 makes none.
        plane: how the features of a data set are brought to a plane, if there is one; None leaves it out.
        most: pictures of the data set that are looked at, drawn at random.
        seed: of everything random.
    """

    layers: tuple[str, ...] = ()
    units: tuple[int, ...] = ()
    top: int = 3
    maximise: int = 0
    plane: Literal["pca", "tsne"] | None = "tsne"
    most: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.top < 1 or self.maximise < 0 or self.most < 2:
            got = f"top {self.top}, {self.maximise} steps and {self.most} pictures"
            raise UsageError(f"got {got}, wanted at least 1, 0 and 2", where="inspect")


@dataclass(frozen=True)
class Inspection:
    """What was written.

    Attributes:
        table: the network layer by layer.
        index: the page to open first.
        pages: one a picture.
        files: pictures beside the pages.
    """

    table: LayerTable
    index: Path
    pages: tuple[Path, ...]
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "index": str(self.index),
            "pages": [str(p) for p in self.pages],
            "files": [str(p) for p in self.files],
            "network": self.table.to_dict(),
        }


def open_model(model: str | Path, weights: str | Path | None = None, offline: bool = False) -> System:
    """A model of the zoo by name (fresh parameters, or `weights`), a checkpoint, or a run folder.

    Raises:
        UsageError: no such model; an exported graph, or a system without a network.
        CheckpointError: the file is missing or broken.
    """
    path = Path(model)
    if str(model) in zoo.ZOO or not (path.exists() or path.suffix or len(path.parts) > 1):
        system = create(str(model), weights=weights, offline=offline)
    else:
        opened = load(path)
        if not isinstance(opened, System):
            mend = "Name the checkpoint that it was exported from"
            raise UsageError("an exported graph has no layers to look into", where=str(model), mend=mend)
        system = opened
    if isinstance(system, FittedSystem):
        raise UsageError("the system is fitted, it has no network to look into", where=str(model))
    return system


def inspect_model(
    model: str | Path | System,
    source: Source | None = None,
    data: Data | None = None,
    out: str | Path = "runs/inspect",
    look: Look | None = None,
    weights: str | Path | None = None,
    split: str | None = None,
    offline: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Inspection:
    """Write pages of what a network sees; `index.html` in `out` leads to all of them.

    Args:
        model: a name of the zoo, a checkpoint, a run folder, or a system.
        source: pictures, each of which gets a page.
        data: a data set: patches that units like best, and the features of its pictures on a plane.
        out: folder; pages that are there are replaced.
        look: layers, units and what else; `Look()` if None.
        weights: "published" or a file, for a name of the zoo.
        split: of the data set; `test` if None, or `val` where there is none.
        offline: never fetch weights.
        say: told how far it is.

    Raises:
        UsageError: no such model, layer or unit, or a system without a network.
        DataError: no pictures there.
    """
    look = look or Look()
    system = model if isinstance(model, System) else open_model(model, weights, offline)
    for layer in look.layers:
        find_layer(system, layer)
    folder = Path(out)
    pixels = _trial_input(system)
    table = layer_table(system, tuple(pixels.shape))
    stages = stage_layers(system, pixels)
    layers = list(look.layers) or stages
    say(f"{len(table.rows)} layers; looking at {', '.join(layers)}")
    filters = first_filters(system) if any(isinstance(p, torch.nn.Conv2d) for p in system.modules()) else None
    fields, measured_on = measured_fields(system, tuple(pixels.shape), layers)
    title = system.model_name or type(system).__name__
    page = ModelPage(
        title,
        zoo.ZOO[title].paper if title in zoo.ZOO else "",
        table,
        png_uri(filters) if filters is not None else "",
        fields,
        measured_on,
    )
    files = []
    if filters is not None:
        files.append(_keep(folder / "filters.png", filters))
    pages, links = _look_at_all(system, source, folder, layers, look, say) if source is not None else ([], [])
    page = replace(page, pictures=links)
    samples = None
    if data is not None:
        opened, split = open_measured(data, split, system.task, None, system.categories, say)
        samples = Drawn(opened, look.most, look.seed)
        page = _with_data(page, system, samples, f"{dataset_name(data)}, {split}", layers, look, say)
    if look.maximise:
        say("climbing to the pictures that excite units most")
        units = {layer: _units(system, layer, samples, look) for layer in look.layers or ("",)}
        page = replace(page, maximised=maximised_pictures(system, units, look.maximise, look.seed))
    index = write_model_page(folder / "index.html", page)
    return Inspection(table, index, tuple(pages), tuple(files))


def _trial_input(system: System) -> torch.Tensor:
    """An input as the system would make it of a picture."""
    if isinstance(system, Classifier):
        return torch.zeros(1, system.in_channels, system.crop, system.crop)
    return preparation(system)(torch.zeros(system.in_channels, *PICTURE_SIZE))[:1]


def _look_at_all(
    system: System, source: Source, folder: Path, layers: list[str], look: Look, say: Callable[[str], None]
) -> tuple[list[Path], list[Figure]]:
    pages, links, taken = [], [], {"index"}
    for picture in iterate(source, on_error=lambda e: say(f"skipped: {e}")):
        path = Path(picture.name)
        short = path.name if path.is_absolute() else picture.name
        page, view = look_at(system, picture.image, short, layers, look.units, look.top)
        stem = re.sub(r"[^\w.#-]+", "_", str(Path(short).with_suffix(""))).strip("_.") or "picture"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        pages.append(write_picture_page(folder / f"{name}.html", page))
        note = ", ".join(f"{c} {p:.2f}" for c, p in page.answers[:2])
        links.append(Figure(path.name, png_uri(view.picture, 320), note, f"{name}.html".replace("#", "%23")))
        say(f"{picture.name}: {pages[-1]}")
    return pages, links


def _with_data(
    page: ModelPage,
    system: System,
    samples: Drawn,
    name: str,
    layers: list[str],
    look: Look,
    say: Callable[[str], None],
) -> ModelPage:
    say(f"looking for patches in {len(samples)} pictures of {name}")
    patches = liked_patches(system, samples, layers, look.units, look.top, say)
    protocol = (
        f"Of each of {len(samples)} pictures ({name}) the strongest position, cut to what "
        "the unit sees there, strongest first; below, the unit carried back to the same pixels by guided gradients."
    )
    page = replace(page, patches=patches, patches_protocol=protocol)
    if look.plane is None:
        return page
    say(f"arranging {len(samples)} pictures by {layers[-1]}")
    plane, _ = feature_plane(system, samples, layers[-1], look.plane, look.most, look.seed, say)
    return replace(page, plane=plane)


def _units(system: System, layer: str, samples: Drawn | None, look: Look) -> list[int]:
    if look.units or samples is None or not layer:
        return list(look.units or range(look.top))
    return lively_units(system, samples, layer, look.top)


def _keep(path: Path, picture: torch.Tensor) -> Path:
    write_image(path, picture)
    return path
