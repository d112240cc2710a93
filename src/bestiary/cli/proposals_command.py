"""`proposals`: methods of proposing boxes, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.model_commands import Json
from bestiary.cli.output import emit, result, say, table
from bestiary.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(proposals)


def proposals(
    methods: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD...", help="Names, or trained systems that propose boxes; none lists the names."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A data set with boxes: folder, file, or `world`.")] = None,
    split: Annotated[str | None, typer.Option(help="Measured on this split; test, else val, if not given.")] = None,
    train_split: Annotated[str, typer.Option(help="Methods that learn learn from this split first.")] = "train",
    counts: Annotated[str, typer.Option(help="Numbers of boxes a picture, with commas.")] = "10,100,1000",
    iou: Annotated[str, typer.Option(help="Overlaps at which recall is told apart, with commas.")] = "0.5,0.7",
    option: Annotated[
        list[str] | None, typer.Option(help="name=value or METHOD.name=value, of the methods; may be repeated.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of found boxes; in the user's cache if not given.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Find every box anew, and keep none.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write the table and the curves to this page.")] = None,
    out: Annotated[Path | None, typer.Option(help="Save the boxes as JSON.")] = None,
    json: Json = False,
) -> None:
    """Find boxes that may hold objects, by several methods; tell how many objects are among the first so many, and how
    long it takes."""
    if not methods and data is None:
        _list_methods(json)
        return
    if not methods or data is None:
        missing = "METHOD" if not methods else "--data"
        raise UsageError(f"{missing} is missing", mend="`bestiary proposals` alone lists the methods")
    from bestiary.array_cache import cache_folder
    from bestiary.verbs.proposing import compare, write_boxes

    found = compare(
        methods,
        data,
        split=split,
        train_split=train_split,
        numbers=[int(number) for number in _numbers(counts, "--counts")],
        iou_thresholds=_numbers(iou, "--iou"),
        options=_options(option or []),
        cache=None if no_cache else cache or cache_folder(),
        keep_boxes=out is not None,
        say=say,
    )
    if report is not None:
        from bestiary.reports.proposals_page import MethodRow, write_proposals_page

        rows = [MethodRow(m.name, m.scores, m.milliseconds) for m in found.methods]
        say(f"report: {write_proposals_page(report, rows, found.facts)}")
    if out is not None:
        say(f"boxes: {write_boxes(out, found)}")
    if json:
        emit(found.to_dict())
        return
    columns = list(found.methods[0].scores.values)
    shown = [
        (m.name, *(m.scores.values[name] for name in columns), m.milliseconds if m.seconds else "cached")
        for m in found.methods
    ]
    result(table(("method", *columns, "ms"), shown))
    say(f"\n{found.methods[0].scores.protocol}; ms: median of the pictures whose boxes were found now")


def _list_methods(as_json: bool) -> None:
    from bestiary.proposals.methods import METHODS

    if as_json:
        emit([{"name": n, "paper": m.paper, "note": m.note, "learns": m.learns} for n, m in METHODS.items()])
        return
    rows = [(name, "yes" if m.learns else "", m.note, m.paper) for name, m in METHODS.items()]
    result(table(("method", "learns", "what it does", "paper"), rows))


def _numbers(text: str, flag: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"got {text!r}, wanted numbers with commas", where=flag) from None


def _options(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"got {text!r}, wanted name=value", where="--option")
        found[name.strip().replace("-", "_")] = value.strip()
    return found
