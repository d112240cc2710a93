"""`features`: what a trained net says of pictures before its last layer, to a file."""

from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.model_commands import Json
from bestiary.cli.output import emit, result, say


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(features)


def features(
    model: Annotated[str, typer.Argument(help="A checkpoint, a run folder, or a model's name (published weights).")],
    source: Annotated[str | None, typer.Argument(help="Pictures: a file, folder, glob or video.")] = None,
    data: Annotated[str | None, typer.Option(help="Instead of pictures: a data set, whose classes are kept.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the data; `train+test` joins two; test, else all, if not given.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="The data set's format; found by itself if not given.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Where to cut the net; what its last layer sees if not given.")
    ] = None,
    pool: Annotated[str, typer.Option(help="mean, max, or none for whole maps.")] = "mean",
    out: Annotated[Path, typer.Option(help="File to write: .npz, or .npy with a .json beside it.")] = Path(
        "features.npz"
    ),
    batch: Annotated[int, typer.Option(help="Pictures a forward pass.")] = 16,
    layers: Annotated[bool, typer.Option("--layers", help="List the layers and stop.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never fetch published weights.")] = False,
    json: Json = False,
) -> None:
    """Write features of pictures, or of a data set with its classes, in constant memory."""
    if layers:
        _list_layers(model, json)
        return
    from bestiary.verbs.embedding import embed

    found = embed(
        model,
        source,
        layer,
        data=data,
        split=split,
        format=format,
        pool=pool,  # type: ignore[arg-type]
        out=out,
        batch=batch,
        offline=offline,
        say=say,
    )
    shape, layer_name = list(found.values.shape), found.facts["layer"]
    if json:
        emit({"path": str(found.path), "shape": shape, "layer": layer_name, "categories": list(found.categories)})
        return
    say(f"{len(found)} pictures, features {shape} of {layer_name!r}: {found.path}")


def _list_layers(model: str, json: bool) -> None:
    from bestiary.verbs.embedding import list_layers

    names = list_layers(model)
    if json:
        emit(names)
        return
    result("\n".join(names))
