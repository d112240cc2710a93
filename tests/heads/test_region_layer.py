"""The region layer against Darknet's rules written as loops over single numbers: boxes, places and every gradient."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bestiary.geometry.boxes import pairwise_iou
from bestiary.heads.region_layer import (
    Layout,
    RegionRule,
    assign_places,
    decode_places,
    holds_nothing,
    objectness_losses,
    region_losses,
    split_raw,
)
from bestiary.heads.truth import Truth

PRIORS = torch.tensor([[1.0, 1.5], [3.0, 2.0], [2.0, 4.0]])
GRID, CLASSES = (4, 5), 3
PER = 5 + CLASSES


def truth_of(*rows: tuple[float, float, float, float, int], crowds: Tensor | None = None) -> Truth:
    """Objects by centre, size and label, in cells."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    x, y, w, h = table[:, :4].unbind(1)
    boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    return Truth(boxes, table[:, 4].long(), torch.zeros(0, 4) if crowds is None else crowds)


def maps(seed: int = 0, batch: int = 2, scale: float = 1.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, len(PRIORS) * PER, *GRID, generator=rng)


def losses(raw: Tensor, truths: list[Truth], rule: RegionRule, pull: bool = False, direct: bool = True) -> Tensor:
    terms = region_losses(
        split_raw(raw, len(PRIORS)),
        truths,
        Layout(PRIORS, GRID, direct),
        lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
        rule,
        pull,
    )
    return torch.stack(list(terms.values())).sum()


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU of boxes by centre and size."""
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def darknets_delta(raw: Tensor, objects: list[tuple[float, float, float, float, int]], pull: bool) -> Tensor:
    """What Darknet adds to its weights for one picture: minus the gradient of each number, `[D, H, W]`."""
    delta = torch.zeros_like(raw)
    height, width = GRID

    def numbers(n: int, j: int, i: int) -> list[float]:
        return raw[n * PER : (n + 1) * PER, j, i].tolist()

    def write(n: int, j: int, i: int, first: int, values: list[float]) -> None:
        delta[n * PER + first : n * PER + first + len(values), j, i] = torch.tensor(values)

    def box_of(n: int, j: int, i: int) -> tuple[float, ...]:
        x, y, w, h = numbers(n, j, i)[:4]
        return i + sigmoid(x), j + sigmoid(y), PRIORS[n, 0].item() * math.exp(w), PRIORS[n, 1].item() * math.exp(h)

    def box_delta(n: int, j: int, i: int, wanted: tuple[float, ...], scale: float) -> None:
        x, y, w, h = numbers(n, j, i)[:4]
        sx, sy = sigmoid(x), sigmoid(y)
        sides = math.log(wanted[2] / PRIORS[n, 0].item()) - w, math.log(wanted[3] / PRIORS[n, 1].item()) - h
        centre = (wanted[0] - i - sx) * sx * (1 - sx), (wanted[1] - j - sy) * sy * (1 - sy)
        write(n, j, i, 0, [scale * v for v in (*centre, *sides)])

    for j in range(height):
        for i in range(width):
            for n in range(len(PRIORS)):
                there = sigmoid(numbers(n, j, i)[4])
                best = max((overlap(box_of(n, j, i), o) for o in objects), default=0.0)
                write(n, j, i, 4, [0.0 if best > 0.6 else (0 - there) * there * (1 - there)])
                if pull:
                    box_delta(n, j, i, (i + 0.5, j + 0.5, PRIORS[n, 0].item(), PRIORS[n, 1].item()), 0.01)
    for x, y, w, h, label in objects:
        i, j = int(x), int(y)
        fits = [overlap((0, 0, w, h), (0, 0, *PRIORS[n].tolist())) for n in range(len(PRIORS))]
        n = fits.index(max(fits))
        iou, there = overlap(box_of(n, j, i), (x, y, w, h)), sigmoid(numbers(n, j, i)[4])
        box_delta(n, j, i, (x, y, w, h), 1.0 * (2 - w * h / (width * height)))
        write(n, j, i, 4, [5 * (iou - there) * there * (1 - there)])
        probs = torch.tensor(numbers(n, j, i)[5:]).softmax(0).tolist()
        write(n, j, i, 5, [float(k == label) - p for k, p in enumerate(probs)])
    return delta


OBJECTS = [
    [(1.3, 2.6, 1.2, 1.4, 0), (3.5, 1.2, 2.5, 2.0, 2), (2.9, 3.9, 1.8, 4.4, 1), (1.4, 2.2, 0.9, 1.7, 1)],
    [(0.2, 0.1, 3.3, 2.2, 2)],
]
"""The last object of the first picture wants the place of the first one, and gets it."""


@pytest.mark.parametrize("pull", [False, True])
def test_every_gradient_is_darknets_delta(pull: bool) -> None:
    raw = maps(scale=0.7).requires_grad_()
    losses(raw, [truth_of(*rows) for rows in OBJECTS], RegionRule(), pull).backward()
    wanted = torch.stack([darknets_delta(raw[b].detach(), rows, pull) for b, rows in enumerate(OBJECTS)])
    assert raw.grad is not None
    torch.testing.assert_close(-2 * raw.grad, wanted, atol=2e-6, rtol=1e-4)  # Darknet divides by the batch later
    assert (wanted != 0).float().mean() > (0.9 if pull else 0.1) * 5 / PER


def test_a_box_that_fits_is_not_told_that_there_is_nothing() -> None:
    raw = torch.zeros(1, len(PRIORS) * PER, *GRID)
    raw[0, 2 * PER + 2 : 2 * PER + 4] = -9.0  # the third prior is a point everywhere
    truth = truth_of((2.5, 1.5, 3.0, 2.0, 0), (2.5, 1.5, 1.0, 1.5, 1))
    boxes = decode_places(split_raw(raw, 3).offsets[0], Layout(PRIORS, GRID))
    empty = holds_nothing(boxes, truth, 0.6).view(*GRID, 3)
    assert (~empty).nonzero().tolist() == [[1, 2, 0], [1, 2, 1]]
    assert holds_nothing(boxes, truth_of(), 0.6).all()


def test_boxes_on_a_crowd_are_ignored() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [3, 3, 4, 4], [1.5, 0, 2.5, 1]])
    crowd = torch.tensor([[0.0, 0, 1.9, 2]])
    assert holds_nothing(boxes, truth_of(crowds=crowd), 0.6).tolist() == [False, True, True]


def test_decoded_centres_stay_in_their_cells_for_any_numbers() -> None:
    offsets = split_raw(maps(scale=30), 3).offsets
    layout = Layout(PRIORS, GRID)
    boxes = decode_places(offsets, layout)
    centres = (boxes[..., :2].double() + boxes[..., 2:].double()) / 2
    small = (boxes[..., 2:] - boxes[..., :2]).amax(-1) < 100
    within = centres - layout.corners()
    assert small.sum() > 20
    assert within[small].min() >= -1e-3
    assert within[small].max() <= 1 + 1e-3
    assert torch.isfinite(boxes).all()


def test_anchors_without_direct_location_move_by_their_own_size() -> None:
    raw = torch.zeros(1, len(PRIORS) * PER, *GRID)
    raw[0, 1 * PER, 2, 3] = 2.0
    boxes = decode_places(split_raw(raw, 3).offsets[0], Layout(PRIORS, GRID, False)).view(*GRID, 3, 4)
    assert boxes[2, 3, 1].tolist() == [3.5 + 2 * 3 - 1.5, 1.5, 3.5 + 2 * 3 + 1.5, 3.5]
    assert boxes[2, 3, 0].tolist() == [3.0, 1.75, 4.0, 3.25]


@pytest.mark.parametrize("direct", [True, False])
def test_a_perfect_answer_has_no_loss(direct: bool) -> None:
    truth, layout = truth_of((1.25, 2.6, 1.2, 1.4, 0), (3.5, 1.2, 2.5, 2.0, 2)), Layout(PRIORS, GRID, direct)
    raw = torch.zeros(1, *GRID, 3, PER)
    raw[..., 4] = -40.0
    targets = assign_places(truth, layout)
    rows = raw.view(-1, PER)
    for place, box, label in zip(targets.places.tolist(), targets.boxes_xyxy, targets.labels.tolist(), strict=True):
        corner, prior = layout.corners()[place], layout.sizes()[place]
        centre = (box[:2] + box[2:]) / 2 - corner
        rows[place, :2] = torch.logit(centre) if direct else (centre - 0.5) / prior
        rows[place, 2:4] = ((box[2:] - box[:2]) / prior).log()
        rows[place, 4], rows[place, 5 + label] = 40.0, 60.0
    flat = raw.permute(0, 3, 4, 1, 2).reshape(1, -1, *GRID)
    assert losses(flat, [truth], RegionRule(), direct=direct).item() == pytest.approx(0, abs=1e-9)
    found = decode_places(split_raw(flat, 3).offsets[0], layout)[targets.places]
    assert pairwise_iou(found, targets.boxes_xyxy).diag().min() > 0.9999


def test_each_weight_counts_for_its_own_term() -> None:
    raw, truths = maps(), [truth_of(*rows) for rows in OBJECTS]
    layout, rule = Layout(PRIORS, GRID), RegionRule()

    def terms(changed: RegionRule) -> dict[str, float]:
        parts = split_raw(raw, 3)
        found = region_losses(
            parts, truths, layout, lambda a, b: F.cross_entropy(a, b, reduction="none"), changed, True
        )
        return {name: value.item() for name, value in found.items()}

    before = terms(rule)
    assert min(before.values()) > 0
    for field, name in {"no_object": "no_object", "object": "object", "box": "box", "classes": "class"}.items():
        after = terms(replace(rule, **{field: 3 * getattr(rule, field)}))
        assert after.pop(name) == pytest.approx(3 * before[name])
        assert after == {key: value for key, value in before.items() if key != name}


def test_cross_entropy_has_the_gradient_without_the_slope() -> None:
    logits, wanted = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True), torch.tensor([0.0, 0.7, 1.0])
    objectness_losses(logits, wanted, True).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, logits.detach().sigmoid() - wanted)


def test_pictures_without_objects_learn_only_that() -> None:
    raw = maps(batch=1).requires_grad_()
    loss = losses(raw, [truth_of()], RegionRule())
    loss.backward()
    assert raw.grad is not None
    assert {n % PER for n in raw.grad.nonzero()[:, 1].tolist()} == {4}
