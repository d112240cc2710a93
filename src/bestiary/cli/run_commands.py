"""`train`, `eval`, `score`, `predict`, `demo`: the main job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bestiary.cli.flags import parse_fields
from bestiary.cli.look_flags import JOINED, LOOKS, epilog, look_words
from bestiary.cli.model_commands import Json
from bestiary.cli.output import INTERRUPTED, emit, result, say, table
from bestiary.cli.output_flags import OUTPUTS, outputs_of
from bestiary.cli.score_flags import EPILOG, list_protocols, listed, rules_of, sorted_words

RUNTIMES = "torch, onnxruntime, openvino, or openvino:bfloat16, which is faster and good to 2-3 digits."
LABEL_DATA = "label_data"
"""A further flag, of systems that learn from labels, too."""
TRAIN_FLAGS = (
    "--data",
    "--format",
    "--out",
    "--weights",
    "--train-split",
    "--val-split",
    "--test-split",
    "--offline",
    "--resume",
    "--json",
)

EVAL_FLAGS = (
    "--data",
    "--split",
    "--format",
    "--protocol",
    "--per-class",
    "--report",
    "--runtime",
    "--batch",
    "--json",
)
PER_CLASS = "Also every class's numbers."
PREDICT_FLAGS = ("--out", "--threshold", "--draw", "--coco", "--yolo", "--crops", "--runtime", "--batch", "--json")
PREDICT_LOOKS = {**LOOKS, **OUTPUTS}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    extra = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=extra)(train)
    further: dict[str, Any] = {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}
    app.command(name="eval", **further, epilog=epilog(LOOKS))(evaluate)
    app.command(**further, epilog=EPILOG)(score)
    app.command(**further, epilog=epilog(PREDICT_LOOKS))(predict)
    app.command()(demo)


def train(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model's name; `bestiary models` lists them.")] = "",
    data: Annotated[str | None, typer.Option(help="The data set: a folder, an annotation file, or `world`.")] = None,
    format: Annotated[str | None, typer.Option(help="Its format; found by itself if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/TASK/MODEL, numbered, if not given.")] = None,
    weights: Annotated[str | None, typer.Option(help="Start from: `published`, or a checkpoint file.")] = None,
    train_split: Annotated[str, typer.Option(help="Split to train on; `train+val` joins two.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split to choose the best checkpoint by; `none` for none.")] = "val",
    test_split: Annotated[str, typer.Option(help="Split to measure at the end; `none` for none.")] = "test",
    offline: Annotated[
        bool, typer.Option("--offline", help="Never fetch published weights; say where to put them.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, exactly where it stopped.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model on your data. Every field of its recipe is a flag: `bestiary train MODEL --help` lists them."""
    if not model or model.startswith("-") or {"--help", "-h"} & set(context.args):
        _train_help(context, model)
        return
    from bestiary import zoo
    from bestiary.errors import UsageError
    from bestiary.verbs.training import Splits
    from bestiary.verbs.training import train as run

    recipe = zoo.recipe_of(model)
    fields: dict[str, Any] = dict(parse_fields(context.args, [*recipe.fields(), LABEL_DATA], TRAIN_FLAGS))
    labels = fields.pop(LABEL_DATA, None)
    if data is None:
        raise UsageError("no data was given", mend="Add --data FOLDER (or --data world for the built-in pictures)")
    splits = Splits(train=train_split, val=_none(val_split), test=_none(test_split), labels=labels)
    finished = run(
        model,
        data,
        format=format,
        out=out,
        weights=weights,
        offline=offline,
        splits=splits,
        resume=resume,
        say=say,
        **fields,
    )
    if json:
        emit(finished.to_dict())
    else:
        for scores in finished.scores:
            result(str(scores) + "\n")
        say(f"best checkpoint: {finished.best}" + (f"\nreport: {finished.report}" if finished.report else ""))
    if finished.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _none(split: str) -> str | None:
    return None if split == "none" else split


def _train_help(context: typer.Context, model: str) -> None:
    result(context.get_help())
    if not model or model.startswith("-"):
        return
    from bestiary import zoo
    from bestiary.recipes.recipe import type_name

    recipe = zoo.recipe_of(model)
    rows = [
        (f"--{f.name.replace('_', '-')}", type_name(f.type), _default(f.default), f.doc)
        for f in recipe.fields_apart().values()
    ]
    if zoo.find(model).made().learns_from_labels:
        what = "also pictures with a class and no boxes: a folder of folders, say; the categories are those of both"
        rows.insert(0, ("--label-data", "path", "none", what))
    result(f"\nFields of {model}'s recipe ({recipe.source}):\n")
    result(table(("flag", "type", "default", "meaning"), rows))


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "()"
    return "none" if value is None else str(value)


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A checkpoint, a run folder, or an exported graph.")],
    data: Annotated[str, typer.Option(help="The data set: a folder, an annotation file, or `world`.")],
    split: Annotated[
        str | None, typer.Option(help="Split to measure on; `val+test` joins two; test, else val, if not given.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Its format; found by itself if not given.")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="Protocols, with commas or repeated.")] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help=PER_CLASS)] = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    runtime: Annotated[str, typer.Option(help=RUNTIMES)] = "torch",
    batch: Annotated[int, typer.Option(help="Pictures a forward pass.")] = 1,
    json: Json = False,
) -> None:
    """Measure a model on a data set; every number is printed with its protocol."""
    words = [model, *context.args]
    (path,), looks = look_words(words, ("MODEL",), LOOKS, EVAL_FLAGS, "bestiary eval")
    from bestiary.verbs.evaluating import evaluate as run

    opened = _opened(path, runtime, looks)
    measured = run(
        opened,
        data,
        split=split,
        format=format,
        report=report,
        batch=batch,
        facts=looks,
        protocols=listed(protocol or ()),
        say=say,
    )
    if json:
        emit(measured.to_dict())
        return
    for scores in measured.scores:
        result("\n".join(scores.lines(per_class)) + "\n")
    if measured.report is not None:
        say(f"report: {measured.report}")


def score(
    context: typer.Context,
    truth: Annotated[str, typer.Argument(help="The data set: a folder or an annotation file.")] = "",
    predictions: Annotated[str, typer.Argument(help="The predictions: a file or a folder.")] = "",
    protocol: Annotated[list[str] | None, typer.Option(help="Protocols, with commas or repeated.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List protocols and formats of predictions.")] = False,
    split: Annotated[str | None, typer.Option(help="Split of the truth; `val+test` joins two.")] = None,
    format: Annotated[str | None, typer.Option(help="The truth's format; found by itself if not given.")] = None,
    task: Annotated[str | None, typer.Option(help="Refuse predictions of another task.")] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help=PER_CLASS)] = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    json: Json = False,
) -> None:
    """Score predictions that any program made; every number is printed with its protocol."""
    if list_all:
        list_protocols(json)
        return
    words, fields = sorted_words([truth, predictions, *context.args])
    if len(words) != 2:
        from bestiary.errors import UsageError

        raise UsageError(f"got {len(words)} of the two paths TRUTH and PREDICTIONS", mend="bestiary score --help")
    from bestiary.verbs.scoring import Formats
    from bestiary.verbs.scoring import score as run

    measured = run(
        words[0],
        words[1],
        listed(protocol or ()),
        rules=rules_of(fields),
        formats=Formats(format, fields.get("results_format"), split, task, "skip_unknown" in fields),
        report=report,
        say=say,
    )
    if json:
        emit(measured.to_dict())
        return
    for scores in measured.scores:
        result("\n".join(scores.lines(per_class)) + "\n")
    if measured.report is not None:
        say(f"report: {measured.report}")


def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A checkpoint, a run folder, or an exported graph.")],
    source: Annotated[str, typer.Argument(help="A file, folder, glob, video, or `webcam`.")],
    out: Annotated[Path | None, typer.Option(help="Folder for what is written; runs/predict if anything is.")] = None,
    threshold: Annotated[float, typer.Option(help="Lowest score of a detection.")] = 0.25,
    draw: Annotated[bool, typer.Option(help="Write pictures with the predictions drawn on them.")] = True,
    coco: Annotated[bool, typer.Option("--coco", help="Write COCO results to predictions.coco.json.")] = False,
    yolo: Annotated[bool, typer.Option("--yolo", help="Write one YOLO text file a picture.")] = False,
    crops: Annotated[bool, typer.Option("--crops", help="Write a crop of every detection.")] = False,
    runtime: Annotated[str, typer.Option(help=RUNTIMES)] = "torch",
    batch: Annotated[int, typer.Option(help="Pictures a forward pass.")] = 1,
    json: Json = False,
) -> None:
    """Predict on pictures or a video, one by one in constant memory; --json prints one JSON line a picture."""
    words = [model, source, *context.args]
    (path, pictures), looks = look_words(words, ("MODEL", "SOURCE"), PREDICT_LOOKS, PREDICT_FLAGS, "bestiary predict")
    from bestiary.pictures.video import frame_of
    from bestiary.verbs.predicting import FrameRate, Timing, predict_source

    outputs = outputs_of(looks, out, draw, coco, yolo, crops)
    count, timing, rate = 0, Timing(), FrameRate()
    predictor = _opened(path, runtime, looks)
    for prediction in predict_source(predictor, pictures, outputs, threshold, batch, say, timing):
        count += 1
        if json:
            emit(outputs.document(prediction))
        else:
            now = rate.tick() if frame_of(prediction.name) else None
            speed = "" if now is None else f" ({now:.1f} frames a second)"
            result(f"{prediction.name}: {outputs.summary(prediction)}{speed}")
    if not json:
        say(f"{count} pictures" + (f", written to {outputs.folder}" if outputs.writes else ""))
        say(timing.summary())


def _opened(model: str, runtime: str, looks: Mapping[str, str]) -> Any:
    """A checkpoint or graph, or several joined, told how to look; a precision may stand behind the runtime's name and a
    colon.
    """
    from bestiary.errors import UsageError
    from bestiary.verbs.models import join, load, look

    name, _, precision = runtime.partition(":")
    further = listed([looks["ensemble"]]) if "ensemble" in looks else []
    if not further and JOINED & set(looks):
        raise UsageError(
            "there is nothing to join", where="ensemble", mend="Name further checkpoints: --ensemble RUN,RUN"
        )
    models = [load(Path(path), name, precision=precision or "float32") for path in (model, *further)]
    opened = join(models, looks.get("ensemble_rule", "mean")) if further else models[0]
    return look(opened, {key: value for key, value in looks.items() if key not in JOINED})


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run and its report.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="Training time.")] = 2.0,
    json: Json = False,
) -> None:
    """Draw a little world, train a detector on it, measure it, predict on unseen pictures, write a report."""
    from bestiary.verbs.demo import demo as run

    finished = run(out, minutes=minutes, say=say)
    if json:
        emit(finished.to_dict())
        return
    for scores in finished.scores:
        result(str(scores) + "\n")
    say(f"\nOpen the report in a browser:\n  {finished.report.resolve()}")
