"""Boxes said from placements: exact where they are linear in them, and the same in a mirror."""

from dataclasses import replace

import torch

from bestiary.features.part_boxes import fit_boxes, said_boxes
from bestiary.features.part_models import Hits


def placements(count: int = 40, parts: int = 3, seed: int = 0) -> Hits:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 200
    scale = 1 + 2 * torch.rand(count, 1, generator=generator)
    roots = torch.cat([corner, corner + scale * torch.tensor([40.0, 80.0])], 1)
    offsets = torch.rand(count, parts, 2, generator=generator) * scale[:, None] * torch.tensor([20.0, 50.0])
    starts = corner[:, None] + offsets
    boxes = torch.cat([starts, starts + scale[:, None] * 24], 2)
    nothing = torch.zeros(count, 2, dtype=torch.int64)
    templates = torch.arange(count) % 4
    return replace_mirrored(
        Hits(torch.zeros(count), templates, templates, nothing, nothing[:, None].repeat(1, parts, 1), roots, boxes)
    )


def replace_mirrored(hits: Hits) -> Hits:
    """Odd templates seen in a mirror about x = 0."""
    odd = hits.templates % 2 == 1

    def flip(boxes: torch.Tensor) -> torch.Tensor:
        return boxes[..., [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])

    roots = torch.where(odd[:, None], flip(hits.boxes_xyxy), hits.boxes_xyxy)
    parts = torch.where(odd[:, None, None], flip(hits.parts_xyxy), hits.parts_xyxy)
    return replace(hits, boxes_xyxy=roots, parts_xyxy=parts)


def truth_of(hits: Hits) -> torch.Tensor:
    """From the second part's corner to below the root, as each component's own side shows it."""
    upright = replace_mirrored(hits)
    width = upright.boxes_xyxy[:, 2] - upright.boxes_xyxy[:, 0]
    sides = [upright.parts_xyxy[:, 1, 0], upright.parts_xyxy[:, 1, 1], upright.boxes_xyxy[:, 2] + 0.3 * width,
             upright.boxes_xyxy[:, 3] + 0.1 * width]  # fmt: skip
    return replace_mirrored(replace(upright, boxes_xyxy=torch.stack(sides, 1))).boxes_xyxy


def test_what_is_linear_in_the_placement_is_learned_and_holds_elsewhere() -> None:
    hits, new = placements(2000), placements(40, seed=1)
    weights = fit_boxes(hits, truth_of(hits), 2)
    assert weights.shape == (2, 7, 4)
    torch.testing.assert_close(said_boxes(new, weights), truth_of(new), atol=0.5, rtol=0)


def test_few_placements_do_not_lead_far_from_the_root() -> None:
    hits = placements(1)
    weights = fit_boxes(hits, truth_of(hits), 2)
    torch.testing.assert_close(said_boxes(hits, weights), truth_of(hits), atol=0.01, rtol=0)
    other = said_boxes(placements(40, seed=2)[torch.arange(0, 40, 4)], weights)
    assert torch.isfinite(other).all()
    # Nothing is known of how parts matter: the same change of the root everywhere.
    assert float(weights[0, :-1].abs().max()) == 0


def test_a_component_without_placements_says_its_root() -> None:
    hits = placements(40)
    only = hits[torch.arange(0, 40, 4)]
    weights = fit_boxes(only, truth_of(only), 2)
    other = hits[torch.arange(2, 40, 4)]
    torch.testing.assert_close(said_boxes(other, weights), other.boxes_xyxy, atol=1e-3, rtol=0)


def test_sides_never_cross_and_roots_alone_have_boxes_too() -> None:
    hits = placements(8, parts=0)
    weights = torch.zeros(2, 1, 4)
    weights[:, 0, 0] = 5  # the left side far beyond the right one
    said = said_boxes(hits, weights)
    assert (said[:, 2:] >= said[:, :2]).all()
    assert fit_boxes(hits, hits.boxes_xyxy, 2).shape == (2, 1, 4)
