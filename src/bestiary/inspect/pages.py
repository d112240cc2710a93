"""Pages of what a network sees: an index with the network itself, and one page a picture. Each is one file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bestiary.draw.colours import colour_of
from bestiary.errors import UsageError
from bestiary.inspect.table import LayerTable, by_times, row_cells
from bestiary.pictures.encode import write_bytes
from bestiary.reports.html import picture_uri


@dataclass(frozen=True)
class Figure:
    """A picture in a page.

    Attributes:
        title: beneath it.
        uri: the picture.
        note: a smaller line.
        link: page that it leads to.
    """

    title: str
    uri: str
    note: str = ""
    link: str = ""


@dataclass(frozen=True)
class UnitFigures:
    """One unit on one picture."""

    title: str
    note: str
    figures: list[Figure]


@dataclass(frozen=True)
class LayerFigures:
    """One layer on one picture.

    Attributes:
        name: of the layer.
        note: its map.
        tiles: the strongest channels as one picture; empty if it has no map.
        units: those looked at.
    """

    name: str
    note: str
    tiles: str
    units: list[UnitFigures]


@dataclass(frozen=True)
class PicturePage:
    """What a picture's page shows.

    Attributes:
        title: name of the picture.
        under: a line below.
        seen: the picture as the network sees it.
        answers: name and probability, of a classifier.
        shown: pictures in place of answers.
        maps: class maps.
        maps_protocol: how they were made.
        layers: layer by layer.
    """

    title: str
    under: str
    seen: Figure
    answers: list[tuple[str, float]]
    shown: list[Figure]
    maps: list[Figure]
    maps_protocol: str
    layers: list[LayerFigures]


@dataclass(frozen=True)
class PatchFigure:
    """A patch and the unit carried back to it."""

    name: str
    uri: str
    signal: str
    activation: float


@dataclass(frozen=True)
class UnitPatches:
    """The patches that a unit likes best."""

    title: str
    note: str
    patches: list[PatchFigure]


@dataclass(frozen=True)
class Plane:
    """Features of a data set on a plane.

    Attributes:
        svg: the points.
        legend: colour and name of each class.
        mosaic: the pictures at their places.
        protocol: how it was made.
    """

    svg: str
    legend: list[tuple[str, str]]
    mosaic: str
    protocol: str


@dataclass(frozen=True)
class ModelPage:
    """What the index shows; what is empty is left out.

    Attributes:
        title: name of the model.
        under: a line below.
        table: the layers.
        filters: the first convolution's.
        fields: receptive fields, with `measured_on`, the size of the input.
        pictures: links to their pages.
        patches: by unit, with `patches_protocol`, how they were found.
        maximised: pictures that excite a unit most.
        plane: features of a data set.
    """

    title: str
    under: str
    table: LayerTable
    filters: str = ""
    fields: list[Figure] = field(default_factory=list)
    measured_on: str = ""
    pictures: list[Figure] = field(default_factory=list)
    patches: list[UnitPatches] = field(default_factory=list)
    patches_protocol: str = ""
    maximised: list[Figure] = field(default_factory=list)
    plane: Plane | None = None


def write_model_page(path: Path, page: ModelPage) -> Path:
    """Write the index.

    Raises:
        UsageError: the file cannot be written.
    """
    table = page.table
    strides = [max(f.stride for f in row.fields) for row in table.rows if row.fields and not row.whole]
    sizes = [max(f.size for f in row.fields) for row in table.rows if row.fields and not row.whole]
    numbers = {
        "parameters": f"{table.parameters:,}",
        "multiply-adds": _in_millions(table.multiply_adds),
        "input": by_times(table.input_shape[1:]),
        "layers": str(len(table.rows)),
        "largest field": f"{max(sizes)} px" if sizes else "whole picture",
        "largest stride": f"{max((s for s in strides if s == s), default=1):g}",
    }
    content = {name: getattr(page, name) for name in page.__dataclass_fields__ if name != "table"}
    rows = [row_cells(row) for row in table.rows]
    totals = ("total", "", "", f"{table.parameters:,}", f"{table.multiply_adds:,}", "", "", "")
    return _write(
        path, "model.html.jinja", {**content, "numbers": numbers, "rows": rows, "totals": totals}, table.widened
    )


def write_picture_page(path: Path, page: PicturePage) -> Path:
    """Write one picture's page.

    Raises:
        UsageError: the file cannot be written.
    """
    return _write(path, "picture.html.jinja", {name: getattr(page, name) for name in page.__dataclass_fields__})


def _write(path: Path, template: str, content: Mapping[str, Any], widened: Sequence[str] = ()) -> Path:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("bestiary.inspect"), PackageLoader("bestiary.reports")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**content, widened=widened)
    try:
        write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"the page cannot be written: {error.strerror}", where=str(path)) from error
    return path


def png_uri(picture: UInt8[Tensor, "3 H W"], side: int = 1080) -> str:
    """The picture as it is, without loss; as JPEG, shrunk, if its longest side is above `side`."""
    import base64

    import cv2

    if max(picture.shape[1:]) > side:
        return picture_uri(picture, side)
    bgr = picture.flip(0).permute(1, 2, 0).contiguous().numpy()
    _, data = cv2.imencode(".png", bgr)
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def scatter_svg(
    plane: Float[Tensor, "N 2"], labels: Int64[Tensor, " N"], names: Sequence[str], categories: Sequence[str]
) -> str:
    """Points coloured by class, each with its picture's name; an SVG element."""
    low, high = plane.amin(0), plane.amax(0)
    places = ((plane - low) / (high - low).clamp(min=1e-12) * torch.tensor([500.0, 400.0]) + 10).tolist()
    parts = ['<svg class="plot" viewBox="0 0 520 420" role="img" aria-label="Pictures on a plane, coloured by class">']
    for (x, y), label, name in zip(places, labels.tolist(), names, strict=True):
        kind = categories[label] if 0 <= label < len(categories) else ""
        title = escape(f"{name} {kind}".strip())
        place = f'cx="{x:.1f}" cy="{420 - y:.1f}" r="4"'
        parts.append(f'<circle class="point" {place} fill="{css_colour(label)}"><title>{title}</title></circle>')
    return "".join([*parts, "</svg>"])


def css_colour(label: int) -> str:
    """The colour of a class, for a page."""
    return "rgb({}, {}, {})".format(*colour_of(label))


def _in_millions(count: int) -> str:
    if count < 1_000_000:
        return f"{count:,}"
    power = min(3, int(math.log10(count) // 3))
    return f"{count / 1000**power:.3g} {'million' if power == 2 else 'billion'}"
