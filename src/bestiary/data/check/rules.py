"""Every rule that a data set can break: what it is called in reports, and how bad it is.

The names are stable (they are in `Report.to_dict()`); docs/check.md explains each. A rule that a reader finds while
reading stands here beside those that `check` finds afterwards.
"""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        level: "error": data is wrong or lost; "warning": suspicious; "note": legal, good to know.
        title: what breaks it, in the plural, for the heading of its group.
    """

    level: Level
    title: str


RULES: dict[str, Rule] = {
    # files
    "missing-picture": Rule("error", "annotations whose picture is missing"),
    "empty-picture": Rule("error", "picture files of 0 bytes"),
    "truncated-picture": Rule("error", "picture files that were cut off"),
    "oversized-picture": Rule("error", "pictures above the limit of pixels"),
    "broken-picture": Rule("error", "pictures that cannot be decoded"),
    "unreadable-file": Rule("error", "files that cannot be read"),
    "path-outside": Rule("error", "paths that lead out of the data set's folder"),
    "missing-folder": Rule("error", "folders that are not there"),
    "bad-json": Rule("error", "broken JSON"),
    "bad-xml": Rule("error", "broken or dangerous XML"),
    "bad-yaml": Rule("error", "broken YAML"),
    "bad-line": Rule("error", "lines that are not annotations"),
    "bad-number": Rule("error", "coordinates that are not numbers"),
    "bad-picture": Rule("error", "broken entries of pictures"),
    "bad-annotation": Rule("error", "broken entries of annotations"),
    "bad-category": Rule("error", "broken entries of categories"),
    "bad-name": Rule("error", "names that do not say what they should"),
    "bad-matrix": Rule("error", "broken matrices"),
    "missing-annotation": Rule("error", "listed pictures without their annotation file"),
    "missing-calibration": Rule("error", "pictures without calibration"),
    "missing-homography": Rule("error", "views without a homography"),
    "grey-tail": Rule("warning", "pictures whose lower part is blank grey"),
    "stray-picture": Rule("warning", "pictures outside every class folder"),
    "odd-pair": Rule("warning", "pairs that are not twice as wide as high"),
    # sizes and ids
    "size-mismatch": Rule("error", "pictures of another size than their annotations say"),
    "duplicate-id": Rule("error", "ids used twice"),
    "unknown-picture": Rule("error", "annotations of pictures that are not listed"),
    "repeated-picture": Rule("error", "picture files listed more than once in a split"),
    "shared-annotation": Rule("warning", "annotation files that belong to several pictures"),
    # categories
    "unknown-category": Rule("error", "objects of unknown category"),
    "missing-name": Rule("error", "objects without a category"),
    "bad-names": Rule("error", "class lists that do not add up"),
    "category-spelling": Rule("error", "categories spelt in two ways"),
    "similar-categories": Rule("warning", "categories with similar names that never share a split"),
    "unnamed-categories": Rule("warning", "classes without names"),
    "empty-category": Rule("warning", "categories without any example"),
    "rare-category": Rule("warning", "categories with fewer than 10 examples"),
    "one-split-category": Rule("warning", "categories that a split lacks"),
    "imbalance": Rule("warning", "one category a hundred times as frequent as another"),
    # boxes, masks, joints
    "boxes-normalised": Rule("error", "boxes in fractions of the picture, where pixels are wanted"),
    "box-not-finite": Rule("error", "boxes with NaN or infinite numbers"),
    "box-inverted": Rule("error", "boxes with their corners exchanged"),
    "box-empty": Rule("error", "boxes without area"),
    "box-outside": Rule("error", "boxes wholly outside their picture"),
    "box-mostly-outside": Rule("error", "boxes more than half outside their picture"),
    "box-beyond-edge": Rule("warning", "boxes that cross the picture's edge"),
    "box-point": Rule("error", "boxes of a single pixel"),
    "box-tiny": Rule("warning", "boxes with a side below one pixel"),
    "missing-box": Rule("error", "objects with neither box nor mask"),
    "duplicate-object": Rule("warning", "objects annotated twice"),
    "bad-mask": Rule("error", "masks that cannot be read"),
    "mask-size": Rule("error", "masks of another size than their picture"),
    "empty-mask": Rule("error", "masks without a pixel"),
    "mask-beyond-edge": Rule("warning", "polygons that leave their picture"),
    "mask-off-box": Rule("warning", "masks that lie elsewhere than their box"),
    "bad-keypoints": Rule("error", "joints of the wrong number or not finite"),
    "keypoint-outside": Rule("warning", "visible joints outside their picture"),
    "bad-visibility": Rule("warning", "joints whose visibility is not 0, 1 or 2"),
    "no-joints": Rule("warning", "people without a visible joint"),
    # maps
    "missing-map": Rule("error", "pictures without a map"),
    "broken-map": Rule("error", "maps that cannot be decoded"),
    "map-size": Rule("error", "maps of another size than their picture"),
    "unknown-map-value": Rule("error", "maps with values that name no class"),
    "missing-mask": Rule("error", "objects without pixels in their map"),
    "unlisted-mask": Rule("warning", "masks in a map that no annotation names"),
    "void-map": Rule("warning", "maps without one known pixel"),
    # the whole
    "split-leakage": Rule("error", "pictures in more than one split"),
    "near-duplicate": Rule("warning", "nearly equal pictures in different splits"),
    "duplicate-picture": Rule("warning", "equal pictures under different names"),
    "conflicting-labels": Rule("warning", "equal pictures with different labels"),
    "missing-labels": Rule("warning", "splits in which most pictures have no label file"),
    "mostly-empty": Rule("warning", "splits in which most pictures have no object"),
    "not-annotated": Rule("warning", "pictures that nobody annotated"),
    "no-objects": Rule("warning", "annotations that list no object"),
    "empty-split": Rule("warning", "splits without pictures"),
    # notes
    "negatives": Rule("note", "pictures without objects, kept as negatives"),
    "exif-rotation": Rule("note", "pictures turned as their Exif data says"),
    "wrong-suffix": Rule("note", "pictures whose name says another format"),
    "grey-picture": Rule("note", "grey pictures among colour ones, served with three equal channels"),
    "deep-picture": Rule("note", "pictures of 16 or more bits a channel, served as float 0..1"),
    "transparent-picture": Rule("note", "pictures with transparency, laid over white"),
    "other-channels": Rule("note", "pictures with neither 1, 3 nor 4 channels"),
    "small-picture": Rule("note", "pictures with a side below 32 pixels"),
    "long-picture": Rule("note", "pictures more than five times as long as wide"),
    "mixed-sizes": Rule("note", "pictures of several sizes"),
    "crowd": Rule("note", "objects that mark a crowd: never learned, never scored"),
    "difficult": Rule("note", "objects marked difficult: not scored"),
    "unlisted-picture": Rule("note", "picture files that no annotation names"),
    "no-validation": Rule("note", "data sets without a validation split"),
    "not-decoded": Rule("note", "checks that need decoded pictures and were left out"),
}


def rank(rule: str) -> tuple[int, int]:
    """Order of a rule in reports: errors, warnings, notes; within each as listed above."""
    levels = ["error", "warning", "note"]
    names = list(RULES)
    level = RULES[rule].level if rule in RULES else "error"
    return levels.index(level), names.index(rule) if rule in RULES else len(names)
