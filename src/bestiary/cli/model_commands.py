"""`models`, `info`, `export`: what there is, what it is, and how it leaves."""

from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.output import emit, result, say, table
from bestiary.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(models)
    app.command()(info)
    app.command()(export)


def models(
    task: Annotated[str | None, typer.Option(help="Only models of this task.")] = None,
    json: Json = False,
) -> None:
    """List every model by name, with its task and paper."""
    from bestiary import zoo

    rows = [(name, zoo.ZOO[name].task, zoo.ZOO[name].paper, zoo.ZOO[name].note) for name in zoo.list_models(task)]
    if json:
        emit([dict(zip(("name", "task", "paper", "variant"), row, strict=True)) for row in rows])
        return
    result(table(("model", "task", "variant"), [(name, kind, note) for name, kind, _, note in rows]))
    say(f"\n{len(rows)} models. `bestiary info MODEL` tells more; `bestiary train MODEL --data FOLDER` trains one.")


def info(
    model: Annotated[str, typer.Argument(help="A model's name, a checkpoint, or a run folder.")],
    commercial_only: Annotated[bool, typer.Option(help="List only weights whose terms allow commercial use.")] = False,
    json: Json = False,
) -> None:
    """Tell what a model or a checkpoint is: paper, size, categories, recipe, published weights and their licence."""
    from bestiary.verbs.models import describe

    facts = describe(model).facts
    weights = facts.get("published weights")
    if commercial_only and weights is not None:
        facts["published weights"] = [w for w in weights if w.get("commercial_ok")]
    if json:
        emit(facts)
        return
    for key, value in facts.items():
        result(f"{key}: {_readable(value)}")


def _readable(value: object, indent: str = "  ") -> str:
    if isinstance(value, dict):
        return "".join(f"\n{indent}{k}: {_readable(v, indent + '  ')}" for k, v in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "".join(f"\n{indent}-{_readable(v, indent + '  ')}" for v in value)
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:12]))
        return shown + (f" ... ({len(value)} in all)" if len(value) > 12 else "") if value else "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint or a run folder.")],
    to: Annotated[Path | None, typer.Option(help="The graph's file; beside the checkpoint if not given.")] = None,
    runtimes: Annotated[
        str, typer.Option(help="Runtimes the parity check runs in, with commas.")
    ] = "onnxruntime,openvino",
    picture: Annotated[Path | None, typer.Option(help="A picture of yours to check parity on too.")] = None,
    nms: Annotated[
        str, typer.Option(help="A detector's suppression: inside the graph, or outside (one-stage detectors).")
    ] = "inside",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also in eight bits, and what that and bfloat16 cost on --data.")
    ] = False,
    data: Annotated[str, typer.Option(help="For --int8: your data, or world.")] = "",
    calibrate: Annotated[str, typer.Option(help="For --int8: the split whose pictures give the ranges.")] = "train",
    split: Annotated[str, typer.Option(help="For --int8: the split that is measured on.")] = "val",
    json: Json = False,
) -> None:
    """Export a trained model to ONNX and check that the graph gives what the model gives; the result is written beside
    it."""
    from bestiary.verbs.exporting import export as run
    from bestiary.verbs.quantizing import quantize

    if int8 and not data:
        raise UsageError("got --int8 without --data", where="export", mend="Name your data: --data PATH")
    report = run(checkpoint, to, runtimes=tuple(r for r in runtimes.split(",") if r), picture=picture, nms=nms)  # type: ignore[arg-type]
    if not json:
        result(report.table())
        say(f"graph: {report.path}\nparity: {report.parity_path}")
    smaller = quantize(report.path, data, calibrate, split, say=say) if int8 else None
    if json:
        emit({**report.to_dict(), **({"int8": smaller.to_dict()} if smaller else {})})
    elif smaller is not None:
        result(smaller.table())
        say(f"int8 graph: {smaller.path}\naccuracy: {smaller.accuracy_path}")
