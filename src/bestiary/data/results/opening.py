"""Open predictions whatever their format: which reader, and why."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bestiary.data.results import class_table, coco, label_maps, predict_json, text_boxes
from bestiary.data.results.gathering import Results
from bestiary.data.results.truth import Truth
from bestiary.errors import DataError, UsageError
from bestiary.metrics.json_files import load_json

RESULT_FORMATS: dict[str, tuple[Callable[[Path, Truth, bool], Results], str]] = {
    "coco": (coco.read, "COCO results: a JSON list with image_id, category_id, score and bbox, mask or keypoints"),
    "predict-json": (predict_json.read, "what `bestiary predict --json` prints, with masks and keypoints"),
    "voc-classes": (text_boxes.read_voc_classes, "text, one file a class: picture score x1 y1 x2 y2"),
    "voc-pictures": (text_boxes.read_voc_pictures, "text, one file a picture: class score x1 y1 x2 y2"),
    "yolo": (text_boxes.read_yolo, "text, one file a picture: class x y width height confidence, normalised"),
    "label-maps": (label_maps.read, "a folder of label maps, one a picture"),
    "csv": (class_table.read, "a CSV of classes: name,label, or name and probabilities"),
}
"""Format -> (reader, what it looks like)."""

PANOPTIC = "coco-panoptic"
"""COCO panoptic results come in files of their own, truth and all, and are scored from them."""


def read_results(path: Path, truth: Truth, format: str | None = None, skip_unknown: bool = False) -> Results:
    """Read predictions and join them to the pictures of `truth`.

    Args:
        path: file or folder.
        truth: what they are predictions of.
        format: one of `RESULT_FORMATS`; found out if not given.
        skip_unknown: leave out, and count, results of pictures and categories that the truth does not have.

    Raises:
        DataError: nothing there, no format fits, a file is broken, or results that the truth knows nothing of.
        UsageError: an unknown format.
    """
    chosen = format or recognise(path, truth)
    if chosen not in RESULT_FORMATS:
        near = get_close_matches(chosen, RESULT_FORMATS, 1)
        mend = f"Did you mean {near[0]}?" if near else ""
        raise UsageError(f"got {chosen!r}, wanted one of {', '.join(RESULT_FORMATS)}", where="format", mend=mend)
    file = _document(path) if chosen in ("coco", "predict-json") else path
    results = RESULT_FORMATS[chosen][0](file, truth, skip_unknown)
    return replace(results, notes=[*results.notes, *_silent(results, truth)])


def recognise(path: Path, truth: Truth) -> str:
    """The format of the predictions at `path`; `DataError` if there is nothing, or nothing known."""
    if not path.exists():
        raise DataError("there is no such file or folder", where=str(path), mend="Check the path and its spelling")
    suffix = path.suffix.lower()
    if path.is_file() and suffix in (".csv", ".tsv"):
        return "csv"
    if label_maps.are_ours(path):  # whatever else was written beside them
        return "label-maps"
    file = _document(path)
    if file.is_file() and file.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return _json_format(file)
    if label_maps.recognise(path):
        return "label-maps"
    if path.is_dir() or suffix == ".txt":
        found = text_boxes.recognise(path, truth)
        if found is not None:
            return found
    known = "; ".join(f"{name}: {what}" for name, (_, what) in RESULT_FORMATS.items())
    raise DataError(f"no predictions are known in there. {known}", where=str(path))


def _document(path: Path) -> Path:
    """The one JSON file of a folder that has no other predictions; else the path itself."""
    if not path.is_dir():
        return path
    files = [f for f in sorted(path.iterdir()) if f.suffix.lower() in (".json", ".jsonl", ".ndjson")]
    return files[0] if len(files) == 1 else path


def _json_format(file: Path) -> str:
    with file.open("rb") as opened:
        start = opened.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t")
    if b'"size_hw"' in start:
        return "predict-json"
    if start.startswith(b"{"):
        document = load_json(file)
        entries = document.get("annotations") if isinstance(document, dict) else None
        if entries and isinstance(entries, list) and isinstance(entries[0], dict) and "segments_info" in entries[0]:
            return PANOPTIC
        mend = "Results are a list of objects with image_id, category_id, score and bbox"
        raise DataError("got a JSON object, wanted a list of results", where=str(file), mend=mend)
    return "coco"


def _silent(results: Results, truth: Truth) -> list[str]:
    """Pictures that nothing was said of: nothing was found in them, but a class or a map must be there."""
    silent = [i for i in range(len(truth)) if i not in results.answered]
    if not silent:
        return []
    first = truth.pictures[silent[0]].name
    text = f"{len(silent)} of {len(truth)} pictures have no prediction ({first} first)"
    if results.task == "detection":
        return [f"{text}: nothing was found in them"]
    mend = "Predict on every picture of the split, or choose another with --split"
    raise DataError(
        f"got predictions for {len(results.answered)} pictures, but {text}", where=results.format, mend=mend
    )
