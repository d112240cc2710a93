"""Placements against brute force, what moving a part costs, mirror images, and features that give the scores back."""

import itertools

import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.dpm_hog import dpm_features, feature_pyramid
from bestiary.features.part_models import PART, Component, Hits, Scores, Templates, placed


def component(tall: int = 5, wide: int = 4, parts: int = 3, seed: int = 0) -> Component:
    generator = torch.Generator().manual_seed(seed)
    anchors = [torch.randint(0, 2 * side - PART + 1, (parts,), generator=generator) for side in (wide, tall)]
    costs = torch.rand(parts, 4, generator=generator) * torch.tensor([0.2, 0.2, 0.1, 0.1])
    return Component(
        0.2 * torch.randn(32, tall, wide, generator=generator),
        0.2 * torch.randn(parts, 32, PART, PART, generator=generator),
        torch.stack(anchors, 1),
        costs + torch.tensor([-0.1, -0.1, 0.02, 0.02]),
        torch.tensor(-0.3),
    )


def picture(height: int = 90, width: int = 100, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 10, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 255)


def scored(components: list[Component], level: int = 0) -> Scores:
    return Templates(components).score(feature_pyramid(picture(), 2)[level])


@pytest.mark.parametrize("seed", range(6))
def test_parts_are_placed_as_brute_force_places_them(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    responses = torch.randn(2, 13, 16, generator=generator)
    costs = torch.tensor([[0.1, -0.2, 0.05, 0.3], [-0.3, 0.0, 0.4, 0.02]]) * (
        0.2 + torch.rand(2, 4, generator=generator)
    )
    anchors = torch.tensor([[1, 0], [3, 2]])
    best, places = placed(responses, costs, anchors, (5, 6))
    for n, y, x in itertools.product(range(2), range(5), range(6)):
        dx = torch.arange(16.0)[None, :] - 2 * x - anchors[n, 0]
        dy = torch.arange(13.0)[:, None] - 2 * y - anchors[n, 1]
        every = responses[n] - (costs[n, 0] * dx + costs[n, 1] * dy + costs[n, 2] * dx**2 + costs[n, 3] * dy**2)
        assert float(best[n, y, x]) == pytest.approx(float(every.max()), abs=1e-5)
        row, column = np.unravel_index(int(every.argmax()), every.shape)
        assert places[n, y, x].tolist() == [column, row]


def test_maps_too_small_for_the_roots_are_refused() -> None:
    with pytest.raises(RecordError, match="placed"):
        placed(torch.zeros(1, 5, 5), torch.ones(1, 4), torch.tensor([[0, 0]]), (4, 2))


def test_scores_equal_brute_force_over_all_places_of_all_parts() -> None:
    models = [component(5, 4, seed=1), component(4, 6, seed=2)]
    scores = scored(models)
    top, left = scores.border
    generator = torch.Generator().manual_seed(0)
    for template, model in enumerate(scores.templates.all):
        tall, wide = model.size_hw
        places = (scores.margins[template] > -torch.inf).nonzero()
        for y, x in places[torch.randint(len(places), (12,), generator=generator)].tolist():
            wanted = float((scores.coarse[:, y : y + tall, x : x + wide] * model.root).sum() + model.bias)
            for part, anchor, cost in zip(model.parts, model.anchors, model.deformations, strict=True):
                responses = torch.nn.functional.conv2d(scores.fine[None], part[None])[0, 0]
                dx = torch.arange(float(responses.shape[1]))[None, :] - 2 * x - anchor[0]
                dy = torch.arange(float(responses.shape[0]))[:, None] - 2 * y - anchor[1]
                moved = torch.stack(torch.broadcast_tensors(dx, dy, dx**2, dy**2), -1) @ cost
                wanted += float((responses - moved).max())
            assert float(scores.margins[template, y, x]) == pytest.approx(wanted, abs=2e-4)
    assert (top, left) == (3, 3)


def test_a_root_alone_is_a_rigid_template() -> None:
    model = component()
    rigid = Component.of_root(model.root, 0.25)
    image = picture()
    scores = Templates([rigid]).score(feature_pyramid(image, 1)[0])
    inner = torch.nn.functional.conv2d(dpm_features(image)[None], rigid.root[None])[0, 0] + 0.25
    top, left = scores.border[0] + 1, scores.border[1] + 1
    seen = scores.margins[0, top : top + inner.shape[0], left : left + inner.shape[1]]
    torch.testing.assert_close(seen, inner, atol=1e-5, rtol=1e-5)


def test_parts_that_cannot_move_are_a_rigid_template() -> None:
    model = component(parts=2)
    stiff = Component(model.root, model.parts, model.anchors, torch.tensor([[0.0, 0.0, 1e5, 1e5]] * 2), model.bias)
    scores = scored([stiff])
    hits = scores.at((scores.margins > -torch.inf).nonzero())
    away = (
        hits.places_xy
        - 2 * hits.roots_xy[:, None]
        - torch.stack([t.anchors for t in scores.templates.all])[hits.templates]
    )
    assert not away.any()


def test_moving_a_part_costs_its_deformation_exactly() -> None:
    """One part responds at one place alone: where the root is elsewhere, the score falls by the cost of the way."""
    responses = torch.full((1, 21, 21), -100.0)
    responses[0, 10, 10] = 7.0
    costs = torch.tensor([[0.03, -0.02, 0.05, 0.07]])
    best, places = placed(responses, costs, torch.tensor([[2, 4]]), (6, 7))
    for y, x in itertools.product(range(6), range(7)):
        dx, dy = 10 - 2 * x - 2, 10 - 2 * y - 4
        wanted = 7 - (0.03 * dx - 0.02 * dy + 0.05 * dx**2 + 0.07 * dy**2)
        assert float(best[0, y, x]) == pytest.approx(wanted, abs=1e-5)
        assert places[0, y, x].tolist() == [10, 10]


def test_features_times_weights_are_the_scores_also_of_mirror_images() -> None:
    models = [component(5, 4, seed=3), component(6, 5, seed=4)]
    scores = scored(models, level=1)
    every = scores.at((scores.margins > -torch.inf).nonzero())
    hits = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:40]]
    assert set(hits.templates.tolist()) == {0, 1, 2, 3}
    for number, model in enumerate(models):
        mine = hits[hits.templates // 2 == number]
        torch.testing.assert_close(scores.vectors(mine) @ model.vector(), mine.margins, atol=1e-4, rtol=1e-4)


def test_a_mirrored_picture_scores_as_mirrored_templates() -> None:
    image = picture(96, 112)  # whole cells: the mirror maps cells to cells
    templates = Templates([component(seed=5)])
    plain, turned = (templates.score(feature_pyramid(i, 1)[0]).margins for i in (image, image.flip(-1)))
    inner = slice(None), slice(4, -4)
    torch.testing.assert_close(plain[0].flip(-1)[inner], turned[1][inner], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain[1].flip(-1)[inner], turned[0][inner], atol=1e-4, rtol=1e-4)


def test_a_mirror_twice_is_no_mirror() -> None:
    model = component(parts=4, seed=6)
    again = model.mirrored().mirrored()
    for name in ("root", "parts", "anchors", "deformations", "bias"):
        assert torch.equal(getattr(model, name), getattr(again, name)), name


def test_vectors_and_components_are_one_another() -> None:
    model = component()
    again = model.with_vector(2 * model.vector())
    torch.testing.assert_close(again.vector(), 2 * model.vector())
    assert torch.equal(again.anchors, model.anchors)
    assert len(Component.of_root(model.root).vector()) == model.root.numel() + 1


def test_boxes_of_roots_and_parts_stand_where_their_cells_are() -> None:
    model = component(5, 4, parts=2)
    scores = scored([model])
    index = torch.tensor([[0, scores.border[0] + 2, scores.border[1] + 1]])
    hits: Hits = scores.at(index)
    down, across = scores.pair.coarse.cell_hw
    assert hits.boxes_xyxy[0].tolist() == pytest.approx([across, 2 * down, 5 * across, 7 * down])
    x, y = (hits.places_xy[0, 0] - torch.tensor([2 * scores.border[1], 2 * scores.border[0]])).tolist()
    fine_down, fine_across = scores.pair.fine.cell_hw
    wanted = [x * fine_across, y * fine_down, (x + PART) * fine_across, (y + PART) * fine_down]
    assert hits.parts_xyxy[0, 0].tolist() == pytest.approx(wanted)
    grid = scores.root_boxes((10_000, 10_000))
    torch.testing.assert_close(grid[0, index[0, 1], index[0, 2]], hits.boxes_xyxy[0])


def test_the_best_allowed_placement() -> None:
    scores = scored([component()])
    nowhere = torch.zeros_like(scores.margins, dtype=torch.bool)
    assert len(scores.best_where(nowhere)) == 0
    somewhere = nowhere.clone()
    somewhere[1, 3, 4] = somewhere[0, 2, 2] = True
    best = scores.best_where(somewhere)
    assert float(best.margins) == float(torch.maximum(scores.margins[1, 3, 4], scores.margins[0, 2, 2]))


def test_roots_of_different_sizes_end_at_the_same_border() -> None:
    scores = scored([component(7, 3, seed=1), component(4, 6, seed=2)])
    rows, columns = scores.pair.coarse.features.shape[1:]
    for template, (tall, wide) in enumerate(scores.templates.sizes_hw.tolist()):
        last = (scores.margins[template] > -torch.inf).nonzero().amax(0)
        assert last.tolist() == [rows + 2 * scores.border[0] - tall, columns + 2 * scores.border[1] - wide]


def test_components_must_fit_together_and_cost_something() -> None:
    with pytest.raises(RecordError, match="as many parts"):
        Templates([component(parts=2), component(parts=3)])
    with pytest.raises(RecordError, match="at least one"):
        Templates([])
    model = component(parts=1)
    with pytest.raises(RecordError, match="more than 0"):
        Component(model.root, model.parts, model.anchors, torch.tensor([[0.0, 0.0, 0.1, 0.0]]), model.bias)
