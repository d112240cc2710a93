"""`inspect`: what a network sees."""

from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.model_commands import Json
from bestiary.cli.output import emit, result, say


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(inspect)


def inspect(
    model: Annotated[str, typer.Argument(help="A model's name, a checkpoint, or a run folder.")],
    pictures: Annotated[str | None, typer.Argument(help="A file, folder, glob or video: a page for each.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="A layer; repeat it. The end of each stage if none.")] = None,
    unit: Annotated[list[int] | None, typer.Option(help="A channel; repeat it. The strongest if none.")] = None,
    top: Annotated[int, typer.Option(help="How many units and categories, where none are named.")] = 3,
    data: Annotated[str | None, typer.Option(help="A data set: patches that units like best, features.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data; test, else val, if not given.")] = None,
    plane: Annotated[str, typer.Option(help="How features come to a plane: tsne, pca or none.")] = "tsne",
    maximise: Annotated[int, typer.Option(help="Steps towards the pictures that excite units most; 0: none.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the pages; older pages there are replaced.")] = Path(
        "runs/inspect"
    ),
    weights: Annotated[str | None, typer.Option(help="For a model's name: `published`, or a checkpoint file.")] = None,
    json: Json = False,
) -> None:
    """Show what a network sees: its layers, filters and receptive fields; with pictures, activations, ways back to the
    pixels and class maps; with --data, the patches that units like best."""
    from bestiary.errors import UsageError
    from bestiary.verbs.inspecting import Look, inspect_model

    if plane not in ("tsne", "pca", "none"):
        raise UsageError(f"got {plane!r}, wanted tsne, pca or none", where="--plane")
    look = Look(
        layers=tuple(layer or ()),
        units=tuple(unit or ()),
        top=top,
        maximise=maximise,
        plane=None if plane == "none" else plane,  # type: ignore[arg-type]
    )
    found = inspect_model(model, pictures, data, out, look, weights, split, say=say)
    if json:
        emit(found.to_dict())
        return
    if pictures is None:
        result(str(found.table))
    say(f"\nOpen in a browser:\n  {found.index.resolve()}")
