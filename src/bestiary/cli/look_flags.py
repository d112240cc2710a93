"""How a model looks at pictures: flags of `eval` and `predict`, wherever on the line they stand."""

from collections.abc import Iterable, Mapping, Sequence

from bestiary.cli.flags import sort_words
from bestiary.cli.output_flags import SWITCHES as WRITTEN
from bestiary.errors import UsageError

LOOKS = {
    "views": "what a classifier looks at: centre, ten_crop or dense",
    "view_sides": "the shorter sides that its views are scaled to, with commas",
    "view_flip": "also their mirror images",
    "tile": "a detector looks tile by tile, so many pixels a side; 0 for the whole picture",
    "tile_overlap": "least share of a side that neighbouring tiles have in common, 0.2",
    "tile_whole": "look at the whole picture, too",
    "test_scales": "a detector or labeller of pixels looks at these scales of the size that it works at: 0.75,1,1.5",
    "test_flip": "also at mirror images",
    "test_merge": "how a labeller's probabilities of several views become one: mean or max",
    "test_window": "a labeller looks through overlapping windows, so many pixels a side; 0 for the whole picture",
    "window_overlap": "least share of a side that neighbouring windows have in common, 0.333",
    "crf": "a labeller's probabilities are refined by a dense CRF: deeplab_v1, deeplab_v2, deconvnet, plain or none",
    "mask_threshold": "the probability from which a pixel belongs to a category, where categories may overlap, 0.5",
    "predict_size": "the shorter side that a labeller works at; none for the picture's own",
    "merge": "how boxes of several views become one: nms, soft_linear, soft_gaussian, matrix or weighted",
    "merge_iou": "overlap from which they are one object, 0.5",
    "suppression": "a detector's own: nms, soft_linear, soft_gaussian or matrix",
    "suppression_iou": "its overlap",
    "suppression_sigma": "of its Gaussian kinds, 0.5",
    "max_detections": "a detector's answers a picture, the best",
    "ensemble": "further checkpoints of labellers of pixels, with commas, that answer together with the first",
    "ensemble_rule": "by the mean of their probabilities, or the product of their scores: mean or product",
}
"""What each means; a trained model remembers its own, which these override."""

JOINED = {"ensemble", "ensemble_rule"}
"""Which models look, and not how."""

SWITCHES = {"view_flip", "tile_whole", "test_flip"}
"""Flags that mean yes where nothing follows."""


def epilog(flags: Mapping[str, str]) -> str:
    """The lines under a command's help."""
    listed = "; ".join(f"--{name.replace('_', '-')}: {what}" for name, what in flags.items())
    return f"Further flags, as the model's kind has them: {listed}."


def look_words(
    words: Sequence[str], wanted: Sequence[str], flags: Iterable[str], other_flags: Iterable[str], command: str
) -> tuple[list[str], dict[str, str]]:
    """The words without flags, and the flags.

    Args:
        words: of the command line, less the typed options.
        wanted: names of the words without flags, for the error.
        flags: those that may stand here.
        other_flags: the command's typed options, so that a misspelt one of them is named, too.
        command: whose help lists them.

    Raises:
        UsageError: more or fewer words than wanted, or a flag that does not exist or stands twice.
    """
    paths, fields = sort_words(words, flags, SWITCHES | WRITTEN, other_flags, command)
    if len(paths) != len(wanted):
        got = f"got {len(paths)} words without a flag ({', '.join(paths) or 'none'}), wanted {' and '.join(wanted)}"
        raise UsageError(got, mend=f"`{command} --help`")
    return paths, fields
