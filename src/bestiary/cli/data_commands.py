"""`check` and `convert`: a data set before anything is trained on it."""

from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.model_commands import Json
from bestiary.cli.output import emit, result, say

CHECK_FAILED = 8


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(check)
    app.command()(convert)


def check(
    path: Annotated[Path, typer.Argument(help="The data set: a folder or an annotation file.")],
    format: Annotated[str | None, typer.Option(help="Its format; found by itself if not given.")] = None,
    fix: Annotated[Path | None, typer.Option(help="Write a mended copy of the data set into this new folder.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not decode the pictures.")] = False,
    most: Annotated[int, typer.Option(help="How many defects of a kind to print.")] = 10,
    json: Json = False,
) -> None:
    """Find everything wrong with a data set: file, line or annotation, value, what was expected, how to mend it."""
    from bestiary.data.check import check as run

    report = run(path, format=format, decode=not quick)
    if json:
        emit(report.to_dict())
    else:
        result(report.text(most))
    if fix is not None:
        from bestiary.data.mend import write_mended

        for line in write_mended(report, fix):
            say(line)
    if report.errors and fix is None:
        raise typer.Exit(CHECK_FAILED)


def convert(
    path: Annotated[Path, typer.Argument(help="The data set: a folder or an annotation file.")],
    to: Annotated[str, typer.Option(help="coco, voc or yolo.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    format: Annotated[str | None, typer.Option(help="Its present format; found by itself if not given.")] = None,
    copy: Annotated[bool, typer.Option(help="Copy the pictures; --no-copy links to them.")] = True,
    json: Json = False,
) -> None:
    """Write a data set in another format, and say what that format cannot hold."""
    from bestiary.data.convert import convert as run

    report = run(path, to=to, out=out, format=format, copy=copy)
    if json:
        emit(report.to_dict())
    else:
        result(report.text())
