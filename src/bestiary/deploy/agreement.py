"""Whether two runtimes say the same: what may differ, and by how much, for each kind of answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.predictions import Classification, Detections, Prediction, Segmentation


@dataclass(frozen=True)
class Tolerances:
    """Largest differences of a float32 graph from its model.

    Attributes:
        prob: of a probability or score.
        logit_share: of a logit, divided by the largest absolute logit of the answer.
        box_pixels: of a box's side.
        unmatched_share: of the boxes that have no partner, rounded down: rounding may turn a suppression around. Boxes
            whose score is within `prob` of the cut (the least score, or the last place of the most boxes) do not count.
        pixel_share: of the pixels that have another class.
        tied_count_share: by which the numbers of boxes may differ where equal scores make the choice arbitrary.
    """

    prob: float = 1e-3
    logit_share: float = 1e-3
    box_pixels: float = 0.1
    unmatched_share: float = 0.02
    pixel_share: float = 1e-3
    tied_count_share: float = 0.1


@dataclass(frozen=True)
class Agreement:
    """How two answers compare.

    Attributes:
        passed: all within the tolerances.
        max_abs: largest difference of a compared number: probability, logit, box side in pixels.
        max_rel: that of a number divided by the largest absolute number of its answer.
        max_score: largest difference of the scores of partners, for boxes.
        boxes: how many the model and the graph gave, for boxes.
        unmatched: boxes without partner that count.
        compared: numbers, boxes or pixels that were laid side by side.
        why: what is out of tolerance.
    """

    passed: bool
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_score: float | None = None
    boxes: tuple[int, int] | None = None
    unmatched: int = 0
    compared: int = 0
    why: str = ""


def compare_values(
    wanted: Shaped[Tensor, "..."], got: Shaped[Tensor, "..."], limit: float, relative: bool
) -> Agreement:
    """Numbers side by side; `limit` is of the difference, or of its share of the largest wanted number."""
    if wanted.shape != got.shape:
        return Agreement(False, why=f"shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}")
    if not wanted.numel():
        return Agreement(True)
    largest = float((wanted.double() - got.double()).abs().max())
    share = largest / max(float(wanted.double().abs().max()), 1e-12)
    judged = share if relative else largest
    passed = judged <= limit  # False for NaN
    why = "" if passed else f"differs by {judged:.3g}, at most {limit:g} is allowed"
    return Agreement(passed, largest, share, compared=wanted.numel(), why=why)


def compare_boxes(
    wanted: Detections, got: Detections, tolerances: Tolerances, cut: float, most: int, tied: bool = False
) -> Agreement:
    """Boxes of one picture: each wanted one looks for a partner of its label, score and place.

    Args:
        wanted: of the model.
        got: of the graph.
        tolerances: what a partner may differ by, and how many may be without.
        cut: least score of an answer.
        most: most answers a picture.
        tied: many boxes have equal scores, so that which of them stay is rounding's choice: then only which
            scores there are and the number of boxes are compared.
    """
    counts = (len(wanted), len(got))
    if tied:
        return _compare_tied(wanted, got, tolerances, cut, most)
    pairs = _partners(wanted, got, tolerances)
    left_wanted = torch.ones(counts[0], dtype=torch.bool)
    left_got = torch.ones(counts[1], dtype=torch.bool)
    far = near = 0.0
    for i, j in pairs:
        left_wanted[i], left_got[j] = False, False
        far = max(far, float((wanted.boxes_xyxy[i] - got.boxes_xyxy[j]).abs().max()))
        near = max(near, abs(float(wanted.scores[i]) - float(got.scores[j])))
    alone = sum(
        int((side.scores[left] > _cut_of(side, cut, most) + tolerances.prob).sum())
        for side, left in ((wanted, left_wanted), (got, left_got))
    )
    allowed = int(tolerances.unmatched_share * max(counts))
    passed = alone <= allowed and bool(torch.isfinite(got.scores).all())
    why = "" if passed else f"{alone} boxes without partner, at most {allowed} of {max(counts)} are allowed"
    scale = max(1.0, float(wanted.boxes_xyxy.abs().max())) if counts[0] else 1.0
    return Agreement(passed, far, far / scale, near, counts, alone, len(pairs), why)


def _partners(wanted: Detections, got: Detections, tolerances: Tolerances) -> list[tuple[int, int]]:
    """Best first, each wanted box takes the nearest free one within the tolerances."""
    if not len(wanted) or not len(got):
        return []
    far = (wanted.boxes_xyxy[:, None] - got.boxes_xyxy[None]).abs().amax(-1)
    fits = (wanted.scores[:, None] - got.scores[None]).abs() <= tolerances.prob
    fits &= (wanted.labels[:, None] == got.labels[None]) & (far <= tolerances.box_pixels)
    far = torch.where(fits, far, torch.inf)
    pairs = []
    for i in range(len(wanted)):
        j = int(far[i].argmin())
        if torch.isfinite(far[i, j]):
            pairs.append((i, j))
            far[:, j] = torch.inf
    return pairs


def _cut_of(side: Detections, cut: float, most: int) -> float:
    return max(cut, float(side.scores.min())) if len(side) >= most else cut


def _compare_tied(wanted: Detections, got: Detections, tolerances: Tolerances, cut: float, most: int) -> Agreement:
    """Each score of one side is a score of the other, how often does not count: which of equal boxes stay decides how
    many of their neighbours do.
    """
    counts = (len(wanted), len(got))
    allowed = int(tolerances.tied_count_share * max(counts))
    apart = max(_farthest(one, other, cut, most, tolerances.prob) for one, other in ((wanted, got), (got, wanted)))
    passed = apart <= tolerances.prob and counts[0] - counts[1] in range(-allowed, allowed + 1)
    wrong = f"a score that the other side has not, by {apart:.3g}" if apart > tolerances.prob else ""
    why = "" if passed else wrong or f"{counts[1]} boxes, wanted {counts[0]} give or take {allowed}"
    return Agreement(passed, 0.0, 0.0, apart if min(counts) else None, counts, 0, min(counts), why)


def _farthest(one: Detections, other: Detections, cut: float, most: int, near: float) -> float:
    """The largest distance of a score from the other side's nearest, but for those at the other side's cut."""
    scores = one.scores[one.scores > _cut_of(other, cut, most) + near]
    if not len(scores):
        return 0.0
    if not len(other):
        return float("inf")
    return float((scores[:, None] - other.scores).abs().amin(1).max())


def compare_predictions(
    wanted: Prediction, got: Prediction, tolerances: Tolerances, cut: float = 0.0, most: int = 0, tied: bool = False
) -> Agreement:
    """Whole predictions of one picture, in its own pixels; `cut`, `most` and `tied` as in `compare_boxes`."""
    if isinstance(wanted, Classification) and isinstance(got, Classification):
        return compare_values(wanted.probs, got.probs, tolerances.prob, relative=False)
    if isinstance(wanted, Detections) and isinstance(got, Detections):
        return compare_boxes(wanted, got, tolerances, cut, most, tied)
    if isinstance(wanted, Segmentation) and isinstance(got, Segmentation):
        return _compare_maps(wanted.label_map, got.label_map, tolerances)
    return Agreement(False, why=f"a {type(got).__name__}, wanted a {type(wanted).__name__}")


def _compare_maps(wanted: Shaped[Tensor, "H W"], got: Shaped[Tensor, "H2 W2"], tolerances: Tolerances) -> Agreement:
    if wanted.shape != got.shape:
        return Agreement(False, why=f"size {tuple(got.shape)}, wanted {tuple(wanted.shape)}")
    share = float((wanted != got).double().mean())
    passed = share <= tolerances.pixel_share
    why = "" if passed else f"{100 * share:.3g} % of the pixels differ, at most {100 * tolerances.pixel_share:g} % may"
    return Agreement(passed, share, share, compared=wanted.numel(), why=why)


def join(parts: Sequence[Agreement]) -> Agreement:
    """Several pictures as one: the largest differences, the sums of the counts."""
    whole = Agreement(True)
    for part in parts:
        boxes = whole.boxes
        if part.boxes is not None:
            before = boxes or (0, 0)
            boxes = (before[0] + part.boxes[0], before[1] + part.boxes[1])
        scores = [s for s in (whole.max_score, part.max_score) if s is not None]
        whole = replace(
            whole,
            passed=whole.passed and part.passed,
            max_abs=_larger(whole.max_abs, part.max_abs),
            max_rel=_larger(whole.max_rel, part.max_rel),
            max_score=max(scores) if scores else None,
            boxes=boxes,
            unmatched=whole.unmatched + part.unmatched,
            compared=whole.compared + part.compared,
            why=whole.why or part.why,
        )
    return whole


def _larger(one: float, other: float) -> float:
    """The larger one; NaN if either is."""
    values: Float[Tensor, " 2"] = torch.tensor([one, other], dtype=torch.float64)
    return float(values.max())
