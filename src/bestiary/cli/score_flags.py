"""What `score` is told beyond typed options: the rules of a protocol, wherever on the line they stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.cli.flags import sort_words
from bestiary.cli.output import emit, result, table
from bestiary.errors import UsageError

RULES = {
    "kind": "of detections, with commas: boxes, masks, keypoints",
    "iou": "overlaps from which an object is found: 0.5 or 0.5,0.75",
    "max_detections": "the best of a category in a picture: 100 or 1,10,100",
    "classes": "score these categories alone: cat,dog",
    "ignore_label": "do not score pixels that truly are of these: sky,road",
    "sigmas": "of the joints, in place of COCO's 17: 0.026,0.025 and so on, one each",
    "results_format": "of the predictions; found by itself if not given (--list shows them)",
    "skip_unknown": "leave out, and count, results of pictures and categories that the truth does not have",
}
"""Further flags and what they mean. `skip_unknown` takes no value."""

FLAGS = ("--protocol", "--list", "--split", "--format", "--task", "--per-class", "--report", "--json")
EPILOG = "Further flags: " + "; ".join(f"--{name.replace('_', '-')}: {what}" for name, what in RULES.items()) + "."


def list_protocols(as_json: bool) -> None:
    """Print every protocol and every format of predictions."""
    from bestiary.data.results.opening import PANOPTIC, RESULT_FORMATS
    from bestiary.verbs.protocols import PROTOCOLS

    formats = {name: about for name, (_, about) in RESULT_FORMATS.items()}
    formats[PANOPTIC] = "COCO panoptic JSON beside its folder of PNG maps"
    if as_json:
        protocols = [{"name": n, "task": p.task, "about": p.about, "usual": p.usual} for n, p in PROTOCOLS.items()]
        emit({"protocols": protocols, "formats": formats})
        return
    rows = [(name, p.task, "yes" if p.usual else "", p.about) for name, p in PROTOCOLS.items()]
    result(table(("protocol", "task", "usual", "measures"), rows))
    result("")
    result(table(("format of predictions", "what it is"), list(formats.items())))


def sorted_words(words: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """Paths, and the further flags, wherever between the paths they stand."""
    return sort_words(words, RULES, {"skip_unknown"}, FLAGS, "bestiary score")


def listed(texts: Sequence[str]) -> list[str]:
    """Names between commas."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def rules_of(fields: Mapping[str, str]) -> Any:
    """`verbs.protocols.Rules` from the flags' texts."""
    from bestiary.verbs.protocols import Rules

    return Rules(
        kinds=_kinds(fields),
        iou_thresholds=_numbers(fields, "iou", float),
        max_detections=_numbers(fields, "max_detections", int),
        classes=listed([fields.get("classes", "")]),
        ignore=listed([fields.get("ignore_label", "")]),
        sigmas=_numbers(fields, "sigmas", float),
    )


def _kinds(fields: Mapping[str, str]) -> list[Any]:
    kinds = listed([fields.get("kind", "")])
    wrong = [kind for kind in kinds if kind not in ("boxes", "masks", "keypoints")]
    if wrong:
        raise UsageError(f"got {wrong[0]!r}, wanted boxes, masks or keypoints", where="--kind")
    return kinds


def _numbers(fields: Mapping[str, str], name: str, kind: type[float] | type[int]) -> list[Any]:
    try:
        return [kind(text) for text in listed([fields.get(name, "")])]
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        where = f"--{name.replace('_', '-')}"
        raise UsageError(f"got {fields[name]!r}, wanted {wanted} with commas", where=where) from None
