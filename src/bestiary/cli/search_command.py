"""`search`: pictures found again."""

from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.model_commands import Json
from bestiary.cli.output import emit, result, say, table


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(search)


def search(
    model: Annotated[Path, typer.Argument(help="A run folder or checkpoint of `bestiary train image_search`.")],
    queries: Annotated[list[str], typer.Argument(help="Pictures, folders or globs to look for.")],
    top: Annotated[int, typer.Option(help="How many answers to each.")] = 10,
    sheet: Annotated[Path | None, typer.Option(help="Write queries and answers to this picture.")] = None,
    json: Json = False,
) -> None:
    """Find the stored pictures that show what a picture shows, best first; --json prints one JSON line a query."""
    from bestiary.verbs.searching import open_search, write_sheet
    from bestiary.verbs.searching import search as run

    system = open_search(model)
    answers = []
    for answer in run(system, queries, top, say):
        if sheet is not None:
            answers.append(answer)
        if json:
            emit(answer.to_dict())
            continue
        result(f"{answer.query}:" + ("" if answer.found else " nothing found"))
        if answer.found:
            rows = [(i, f.name, f.score, f.inliers) for i, f in enumerate(answer.found, start=1)]
            result(table(("rank", "picture", "score", "inliers"), rows))
    if sheet is not None:
        write_sheet(system, answers, sheet, top)
        say(f"sheet: {sheet}")
