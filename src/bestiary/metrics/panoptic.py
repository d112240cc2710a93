"""Panoptic quality (Kirillov, He, Girshick, Rother, Dollár, CVPR 2019, section 4).

panoptic_tallies      the pure function: what one picture adds to each category
PanopticScores        accumulator: segments in, PQ = SQ x RQ out, for all categories, things and stuff

`bestiary.metrics.panoptic_files.panoptic_from_files` takes them from COCO's JSON and PNG files.

Convention: a predicted and a true segment of one category match if IoU > 0.5 (strictly, so that no segment has two
partners). Pixels that the truth leaves void count nowhere: the union is without those of the prediction. Crowds of the
truth are no misses. A predicted segment without partner is no false alarm if more than half of it lies on void or on
crowds of its own category. Areas are counted in the maps, whatever a file says of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from bestiary.errors import UsageError
from bestiary.metrics.scores import Scores, mean_of_measured
from bestiary.metrics.segmentation import require_mergeable
from bestiary.records import Objects, require

VOID = 0
"""Id of pixels that belong to no segment."""


@dataclass(frozen=True, eq=False)
class Segments:
    """A picture divided into S segments.

    Attributes:
        ids: of the segment that each pixel belongs to; 0 for none.
        segment_ids: of the segments, all different, above 0.
        labels: 0-based category of each.
        crowd: which cover a group; None for no segment.
        name: of the picture.

    Raises:
        RecordError: the lengths differ, or an id is not above 0 or there twice.
    """

    ids: Shaped[np.ndarray, "H W"]
    segment_ids: Int64[np.ndarray, " S"]
    labels: Int64[np.ndarray, " S"]
    crowd: Bool[np.ndarray, " S"] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        where, count = f"Segments({self.name!r})", len(self.segment_ids)
        crowds = count if self.crowd is None else len(self.crowd)
        got = f"{len(self.labels)} labels and {crowds} crowd marks"
        require(len(self.labels) == crowds == count, where, got, f"{count} of each, as ids")
        listed, times = np.unique(self.segment_ids, return_counts=True)
        require(bool((times == 1).all()), where, f"id {int(listed[times.argmax()]) if count else 0} twice", "once")
        low = int(listed.min(initial=1))
        require(low > VOID, where, f"a segment of id {low}", "ids above 0, which marks pixels without segment")

    @classmethod
    def from_objects(cls, objects: Objects, size_hw: tuple[int, int], name: str = "") -> "Segments":
        """Segments 1, 2, 3 ... from objects with masks; where masks overlap the earlier object has the pixel.

        Raises:
            RecordError: the objects have no masks, or of another size.
        """
        require(objects.masks is not None, f"Segments({name!r})", "objects without masks", "masks")
        ids = np.zeros(size_hw, np.int32)
        masks = objects.masks.cpu().numpy() if objects.masks is not None else np.zeros((0, *size_hw), bool)
        require(masks.shape[1:] == tuple(size_hw), f"Segments({name!r})", f"masks {masks.shape[1:]}", f"{size_hw}")
        for number in range(len(masks), 0, -1):
            ids[masks[number - 1]] = number
        crowd = None if objects.crowd is None else objects.crowd.cpu().numpy()
        return cls(ids, np.arange(1, len(masks) + 1), objects.labels.cpu().numpy(), crowd, name)


def panoptic_tallies(truth: Segments, predicted: Segments, num_classes: int) -> Float64[np.ndarray, "K 4"]:
    """What a picture adds to every category: the sum of the matches' IoU, matches, false alarms, misses.

    Raises:
        RecordError: sizes differ, a label is no category, a map has an id that is not listed, or a listed segment has
            no pixel.
    """
    shared, true_order, said_order = _shared_pixels(truth, predicted, num_classes)
    true_labels, said_labels = truth.labels[true_order], predicted.labels[said_order]
    crowd = np.zeros(len(true_labels), bool) if truth.crowd is None else truth.crowd[true_order]
    inside, void = shared[1:, 1:], shared[0, 1:]
    true_area, said_area = shared[1:].sum(1), shared[:, 1:].sum(0)
    both = (true_labels[:, None] == said_labels[None]) & ~crowd[:, None]
    union = true_area[:, None] + said_area[None] - inside - void[None]
    # Twice the intersection against the union: exact at a half.
    match = both & (2 * inside > union)
    rows, columns = np.nonzero(match)
    missed = np.setdiff1d(np.flatnonzero(~crowd), rows)
    alarms = np.setdiff1d(np.arange(len(said_labels)), columns)
    on_crowds = (inside * (crowd[:, None] & (true_labels[:, None] == said_labels[None]))).sum(0)
    excused = 2 * (void + on_crowds) > said_area
    tallies = np.zeros((num_classes, 4))
    np.add.at(tallies[:, 0], true_labels[rows], inside[rows, columns] / union[rows, columns])
    for column, labels in (
        (1, true_labels[rows]),
        (2, said_labels[alarms[~excused[alarms]]]),
        (3, true_labels[missed]),
    ):
        tallies[:, column] = np.bincount(labels, minlength=num_classes)
    return tallies


def _shared_pixels(
    truth: Segments, predicted: Segments, num_classes: int
) -> tuple[Int64[np.ndarray, "T P"], Int64[np.ndarray, " t"], Int64[np.ndarray, " p"]]:
    """Pixels of each pair of segments, void first, and the order of the segments in rows and columns."""
    from bestiary.metrics._kernels import segments

    where = truth.name or predicted.name or "segments"
    sizes = f"a map of {predicted.ids.shape} for a truth of {truth.ids.shape}"
    require(truth.ids.shape == predicted.ids.shape, where, sizes, "equal sizes")
    orders, listed = [], []
    for kind, these in (("truth", truth), ("prediction", predicted)):
        outside = (these.labels < 0) | (these.labels >= num_classes)
        got = f"label {int(these.labels[outside.argmax()]) if outside.any() else 0} in the {kind}"
        require(not outside.any(), where, got, f"0..{num_classes - 1}")
        orders.append(np.argsort(these.segment_ids))
        listed.append(np.concatenate([[VOID], these.segment_ids[orders[-1]]]))
    counts = np.zeros((len(listed[0]), len(listed[1])), np.int64)
    flat = [np.ascontiguousarray(these.ids, np.int64).reshape(-1) for these in (truth, predicted)]
    at = segments.shared_pixels(flat[0], flat[1], listed[0], listed[1], counts)
    if at >= 0:
        kind, pixel = ("truth", flat[0][at]) if flat[0][at] not in listed[0] else ("prediction", flat[1][at])
        y, x = divmod(int(at), truth.ids.shape[1])
        require(False, where, f"id {int(pixel)} in the {kind}'s map at x {x}, y {y}", "0 or the id of a segment")
    for axis, kind in ((1, "truth"), (0, "prediction")):
        empty = (counts.sum(axis) == 0) & (listed[1 - axis] != VOID)
        got = f"segment {int(listed[1 - axis][empty.argmax()])} of the {kind}, which has no pixel in its map"
        require(not empty.any(), where, got, "at least one pixel")
    return counts, orders[0], orders[1]


class PanopticScores:
    """Panoptic quality, gathered picture by picture; memory is four numbers a category.

    Args:
        categories: names of the K categories.
        things: which of them are things (countable), the rest being stuff; None if that is not known, and only the
            number over all is given.

    Raises:
        UsageError: no category, or as many marks as there are not categories.
    """

    def __init__(self, categories: Sequence[str], things: Sequence[bool] | None = None) -> None:
        if not categories or (things is not None and len(things) != len(categories)):
            got = f"{len(categories)} categories and {len(things or ())} marks"
            raise UsageError(f"got {got}, wanted one mark a category", where="things")
        self.categories = tuple(categories)
        self.things = None if things is None else tuple(bool(t) for t in things)
        self.tallies: Float64[np.ndarray, "K 4"] = np.zeros((len(categories), 4))
        self.pictures = 0

    def update(self, predictions: Sequence[Segments], targets: Sequence[Segments]) -> None:
        """Add pictures; `RecordError` as in `panoptic_tallies`, or if the numbers differ."""
        numbers = f"{len(predictions)} predictions and {len(targets)} targets"
        require(len(predictions) == len(targets), "update", numbers, "as many")
        for predicted, truth in zip(predictions, targets, strict=True):
            self.tallies += panoptic_tallies(truth, predicted, len(self.categories))
            self.pictures += 1

    def merge(self, other: "PanopticScores") -> None:
        """Add what another accumulator of the same categories has counted."""
        require_mergeable(self, other, ("categories", "things"))
        self.tallies += other.tallies
        self.pictures += other.pictures

    def compute(self) -> Scores:
        """`PQ` leads; PQ, SQ and RQ are means over the categories that occur in truth or prediction."""
        table = quality(self.tallies)
        values: dict[str, float] = {}
        things = np.array(self.things if self.things is not None else [], bool)
        kinds = {"": np.ones(len(self.categories), bool)}
        kinds |= {"_things": things, "_stuff": ~things} if self.things is not None else {}
        for ending, chosen in kinds.items():
            for column, name in enumerate(("PQ", "SQ", "RQ")):
                values[name + ending] = mean_of_measured(table[chosen, column])
        per_class = {}
        for k, category in enumerate(self.categories):
            numbers = dict(zip(("PQ", "SQ", "RQ"), table[k].tolist(), strict=True))
            per_class[category] = {**numbers, "count": float(self.tallies[k, 1] + self.tallies[k, 3])}
        measured = int((~np.isnan(table[:, 0])).sum())
        protocol = (
            f"panoptic quality, IoU > 0.5, void and crowds excused; {self.pictures} pictures; means over the "
            f"{measured} categories that occur"
        )
        counts = self.tallies[:, 1:].sum(0).astype(np.int64).tolist()
        details: dict[str, Any] = {"pictures": self.pictures}
        details |= dict(zip(("matches", "false alarms", "misses"), counts, strict=True))
        return Scores("PQ", values, protocol, per_class, details)


def quality(tallies: Float64[np.ndarray, "K 4"]) -> Float64[np.ndarray, "K 3"]:
    """PQ, SQ and RQ of each category: PQ = sum IoU / (TP + FP/2 + FN/2), SQ = sum IoU / TP, RQ their quotient.

    NaN for categories that occur nowhere; SQ is 0, as the reference tool has it, where nothing matches.
    """
    iou, matches, alarms, misses = tallies.T
    whole = matches + (alarms + misses) / 2
    nan = np.full(len(tallies), math.nan)
    pq, rq = (np.divide(part, whole, out=nan.copy(), where=whole > 0) for part in (iou, matches))
    sq = np.divide(iou, matches, out=np.where(whole > 0, 0.0, math.nan), where=matches > 0)
    return np.stack([pq, sq, rq], 1)
