"""Edge groups, their affinities, the score of a box against brute force, and the search for boxes."""

import heapq
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.proposals.proposal_scenes import recall, scene

from bestiary.data.dataset import Dataset
from bestiary.data.opening import open_index
from bestiary.errors import UsageError
from bestiary.features.soft_edges import SoftEdges, soft_edges
from bestiary.geometry.boxes import box_area, pairwise_iou
from bestiary.proposals.edge_boxes import EdgeBoxes, refine_windows, score_windows, windows
from bestiary.proposals.edge_graph import EdgeGraph, edge_graph, edge_groups
from bestiary.proposals.sliding_windows import SlidingWindows


def drawn(
    points: list[tuple[int, int, float]], size_hw: tuple[int, int] = (24, 30), strength: float = 1.0
) -> SoftEdges:
    """Edges at (x, y, tangent)."""
    edges = SoftEdges(torch.zeros(size_hw), torch.zeros(size_hw))
    for x, y, tangent in points:
        edges.strength[y, x], edges.tangent[y, x] = strength, tangent
    return edges


def outline(x1: int, y1: int, x2: int, y2: int) -> list[tuple[int, int, float]]:
    """A closed rectangle, ends excluded."""
    level = [(x, y, 0.0) for x in range(x1, x2) for y in (y1, y2 - 1)]
    return level + [(x, y, math.pi / 2) for y in range(y1 + 1, y2 - 1) for x in (x1, x2 - 1)]


def graph_of(edges: SoftEdges) -> EdgeGraph:
    return edge_graph(edges, edge_groups(edges))


def naive_score(edges: SoftEdges, box: tuple[int, int, int, int], kappa: float = 1.5) -> float:
    """h_in by equations 1 to 4 and Dijkstra's search, from the pixels of the groups."""
    groups, strength = edge_groups(edges), edges.strength.numpy().astype(np.float64)
    x1, y1, x2, y2 = box
    numbers = range(int(groups.max()) + 1)
    spots = [np.argwhere(groups == g) for g in numbers]
    mass = [sum(strength[y, x] for y, x in s) for s in spots]
    centre = [sum(strength[y, x] * np.array([x, y]) for y, x in s) / m for s, m in zip(spots, mass, strict=True)]
    double = [sum(strength[y, x] * np.exp(2j * edges.tangent[y, x].item()) for y, x in s) for s in spots]

    def affinity(a: int, b: int) -> float:
        if min(np.abs(p - q).max() for p in spots[a] for q in spots[b]) > 2:
            return 0.0
        dx, dy = np.subtract(centre[b], centre[a])
        between = math.atan2(dy, dx)
        value = abs(math.cos(np.angle(double[a]) / 2 - between) * math.cos(np.angle(double[b]) / 2 - between)) ** 2
        return value if value > 0.05 else 0.0

    def crosses(g: int) -> bool:
        return any(
            x1 <= x < x2 and y1 <= y < y2 and (x in (x1, x2 - 1) or y in (y1, y2 - 1)) for y, x in spots[g].tolist()
        )

    def inside(g: int) -> bool:
        x, y = np.rint(centre[g])
        return bool(x1 <= x < x2 and y1 <= y < y2)

    near = {g: 1.0 for g in numbers if crosses(g)}
    queue = [(-1.0, g) for g in near]
    while queue:
        value, g = heapq.heappop(queue)
        for other in numbers:
            if other != g and inside(other) and -value * affinity(g, other) > near.get(other, 0.0):
                near[other] = -value * affinity(g, other)
                heapq.heappush(queue, (-near[other], other))
    total = sum(mass[g] * (1 - near.get(g, 0.0)) for g in numbers if inside(g))
    across, down = (x2 - x1) // 4, (y2 - y1) // 4
    middle = np.where(groups >= 0, strength, 0)[y1 + down : y2 - down, x1 + across : x2 - across].sum()
    return max(0.0, (total - middle) / (2 * (x2 - x1 + y2 - y1) ** kappa))


def test_a_straight_line_is_one_group_and_a_circle_is_four_or_more() -> None:
    line = edge_groups(drawn([(x, 5, 0.0) for x in range(3, 25)]))
    assert (line >= 0).sum() == 22
    assert line.max() == 0
    turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    circle = {(round(15 + 9 * np.cos(a)), round(12 + 9 * np.sin(a))): (a + np.pi / 2) % np.pi for a in turns}
    groups = edge_groups(drawn([(x, y, float(a)) for (x, y), a in circle.items()]))
    assert 4 <= groups.max() + 1 <= 8


def test_no_group_turns_by_more_than_asked_for() -> None:
    edges = soft_edges(scene(0, (70, 80), 1).image)
    for most in (0.4, math.pi / 2):
        groups = edge_groups(edges, max_turn=most, min_mass=0)
        for g in range(int(groups.max()) + 1):
            angles = 2 * edges.tangent.numpy()[groups == g]
            # A group's lines all lie within its turns of its first one.
            spread = np.abs(np.angle(np.exp(1j * (angles[:, None] - angles)))).min(0).max() / 2
            assert spread <= most + 1e-5


def test_light_groups_go_to_the_neighbour_they_turn_least_from_or_to_none() -> None:
    points = [(x, 5, 0.0) for x in range(3, 12)]
    edges = drawn([*points, (12, 6, 1.0), (13, 7, 1.0), (25, 20, 0.0)], strength=0.2)
    groups = edge_groups(edges, max_turn=0.5, min_mass=0.5)
    assert groups[5, 3] == groups[6, 12] == groups[7, 13] == 0
    assert groups[20, 25] == -1
    assert edge_groups(edges, max_turn=0.5, min_mass=0).max() == 2


def test_affinities_of_lines_that_go_on_turn_aside_or_lie_apart() -> None:
    def between(points: list[tuple[int, int, float]]) -> list[float]:
        edges = drawn(points)
        groups = edge_groups(edges, max_turn=0.1)
        assert groups.max() == 1
        return edge_graph(edges, groups).affinities.tolist()

    line = [(x, 5, 0.0) for x in range(3, 10)]
    assert between(line + [(x, 5, 0.0) for x in range(11, 18)]) == pytest.approx([1.0, 1.0])
    assert between(line + [(x, 5, 0.0) for x in range(12, 18)]) == []  # three pixels apart
    corner = [(9, y, math.pi / 2) for y in range(6, 13)]
    angle = math.atan2(9 - 5, 9 - 6)
    assert between(line + corner) == pytest.approx([(math.cos(angle) * math.sin(angle)) ** 2] * 2, rel=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_scores_are_those_of_brute_force(seed: int) -> None:
    edges = soft_edges(scene(seed, (64, 72), 1).image)
    boxes = windows((64, 72), 0.65, 300)
    ranked = np.argsort(-score_windows(graph_of(edges), boxes), kind="stable")
    boxes = boxes[np.concatenate([ranked[:15], np.random.default_rng(seed).choice(ranked[15:], 25)])]
    wanted = [naive_score(edges, tuple(box)) for box in boxes.tolist()]
    assert np.count_nonzero(wanted) >= 15
    found = score_windows(graph_of(edges), boxes)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    least = float(np.sort(wanted)[-8]) * 1.0001
    judged = score_windows(graph_of(edges), boxes, least)
    np.testing.assert_allclose(judged, np.where(found > least, found, 0), atol=1e-6)


def test_a_box_around_a_closed_contour_beats_boxes_that_cut_it() -> None:
    graph = graph_of(drawn(outline(10, 8, 22, 18), (30, 34)))
    around = np.array([[8, 6, 24, 20]])
    cutting = np.array([[12, 6, 28, 20], [8, 10, 24, 24], [14, 6, 30, 20], [8, 2, 24, 16]])
    assert score_windows(graph, around)[0] > 4 * score_windows(graph, cutting).max()
    loose = np.array([[6, 4, 26, 22]])
    assert score_windows(graph, around)[0] > score_windows(graph, loose)[0] > 0


def test_what_lies_in_the_middle_does_not_count() -> None:
    hollow, filled = outline(6, 4, 26, 24), [(x, 14, 0.0) for x in range(13, 19)]
    box = np.array([[4, 2, 28, 26]])
    found = [score_windows(graph_of(drawn(points, (30, 34))), box)[0] for points in (hollow, hollow + filled)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 0.65, 0.75])
def test_windows_are_a_step_of_alpha_apart(alpha: float) -> None:
    found = torch.from_numpy(windows((200, 260), alpha, 2000, 3)).float()
    sides = found[:, 2:] - found[:, :2]
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2] <= 260).all()
    assert (found[:, 3] <= 200).all()
    assert (sides.prod(1) > 1900).all()
    assert (sides[:, 0] / sides[:, 1]).max() < 3.1
    few = torch.arange(0, len(found), len(found) // 50)
    overlap = pairwise_iou(found[few], found)
    overlap[torch.arange(len(few)), few] = 0
    assert overlap.max(1).values.min() > alpha - 0.05
    # Whatever box of a fitting shape: a window lies at least half a step of every kind from it.
    rng = torch.Generator().manual_seed(0)
    some = torch.rand(200, 4, generator=rng) * torch.tensor([150.0, 100.0, 50.0, 50.0]) + torch.tensor([0.0, 0, 55, 45])
    some[:, 2:] += some[:, :2]
    assert pairwise_iou(some, found).max(1).values.min() > alpha**1.5


def test_windows_that_do_not_fit_the_picture_are_none() -> None:
    assert len(windows((20, 30))) == 0
    assert len(EdgeBoxes().find(torch.zeros(3, 20, 30, dtype=torch.uint8))) == 0


def test_refining_raises_scores_and_keeps_them_true() -> None:
    edges = soft_edges(scene(2).image)
    graph = graph_of(edges)
    boxes = windows((120, 160))
    scores = score_windows(graph, boxes, 0.01)
    boxes, scores = boxes[scores > 0], scores[scores > 0]
    refined, better = refine_windows(graph, boxes, scores, 0.65)
    assert (better >= scores).all()
    assert (better > scores).mean() > 0.5
    np.testing.assert_allclose(score_windows(graph, refined), better, rtol=1e-5)
    assert refined.min() >= 0
    assert (refined.max(0) <= [160, 120, 160, 120]).all()


@pytest.mark.parametrize(("beta", "eta"), [(0.6, 1.0), (0.9, 0.99)])
def test_no_two_boxes_overlap_by_more_than_beta_allows(beta: float, eta: float) -> None:
    found = EdgeBoxes(beta=beta, eta=eta).find(scene(3).image)
    overlap = pairwise_iou(found.boxes_xyxy, found.boxes_xyxy).tril(-1).max(1).values
    allowed = [beta]  # for each box, after those that stay before it
    for _ in overlap[1:]:
        allowed.append(allowed[-1] * eta if allowed[-1] > 0.5 else allowed[-1])
    assert (overlap <= torch.tensor(allowed) + 1e-6).all()
    assert overlap.max() > beta - 0.2


def test_eta_near_one_is_the_plain_suppression() -> None:
    image = scene(3).image
    plain = EdgeBoxes(beta=0.7511).find(image)  # no IoU of such boxes equals it
    nearly = EdgeBoxes(beta=0.7511, eta=1 - 1e-12).find(image)
    assert torch.equal(plain.boxes_xyxy, nearly.boxes_xyxy)
    assert torch.equal(EdgeBoxes(beta=0.7511, max_boxes=5, eta=1 - 1e-12).find(image).scores, plain.scores[:5])


def test_objects_are_found_and_sooner_than_by_windows_alone() -> None:
    samples = [scene(seed) for seed in range(20, 26)]
    method, blind = EdgeBoxes(min_box_area=300), SlidingWindows(count=200)
    assert recall(method, samples, 200) == 1.0
    assert recall(method, samples, 10) > 0.6
    assert recall(method, samples, 200, 0.7) > recall(blind, samples, 200, 0.7) + 0.4


def test_real_pedestrians_are_found(real_data: Path) -> None:
    pictures = Dataset(open_index(real_data / "pennfudan"))
    samples = [pictures[i] for i in range(0, len(pictures), len(pictures) // 4)]
    assert recall(EdgeBoxes(), samples, 1000) > 0.9


def test_the_answer_does_not_depend_on_the_number_of_threads() -> None:
    image, threads = scene(4).image, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = EdgeBoxes().find(image)
        torch.set_num_threads(3)
        three = EdgeBoxes().find(image)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.boxes_xyxy, three.boxes_xyxy)
    assert torch.equal(one.scores, three.scores)


def test_areas_and_scores_of_what_is_found() -> None:
    found = EdgeBoxes(min_box_area=2000, min_score=0.02).find(scene(5).image)
    assert found.scores.min() > 0.02
    assert box_area(found.boxes_xyxy).median() > 1500


def test_settings_out_of_range_are_said() -> None:
    wrong: list[dict[str, Any]] = [{"alpha": 1.0}, {"beta": 1.5}, {"eta": 0.0}, {"max_boxes": 0}, {"max_aspect": 0.5}]
    for options in wrong:
        with pytest.raises(UsageError, match=next(iter(options))):
            EdgeBoxes(**options)
    assert EdgeBoxes().settings() == {
        "alpha": 0.65,
        "beta": 0.75,
        "eta": 1.0,
        "min_score": 0.01,
        "max_boxes": 10_000,
        "edge_min_strength": 0.1,
        "edge_merge_turn": 0.5,
        "cluster_min_mass": 0.5,
        "max_aspect": 3.0,
        "min_box_area": 1000.0,
        "gamma": 2.0,
        "kappa": 1.5,
    }
