"""Edges lie where brightness or colour changes, run along it, and stand out against texture."""

import math

import pytest
import torch

from bestiary.errors import RecordError
from bestiary.features.soft_edges import SoftEdges, soft_edges


def halves(left: tuple[int, ...], right: tuple[int, ...]) -> torch.Tensor:
    image = torch.empty(3, 96, 96, dtype=torch.uint8)
    image[:, :, :48] = torch.tensor(left, dtype=torch.uint8)[:, None, None]
    image[:, :, 48:] = torch.tensor(right, dtype=torch.uint8)[:, None, None]
    return image


@pytest.mark.parametrize("colours", [((0, 0, 0), (255, 255, 255)), ((120, 120, 120), (126, 126, 126))])
def test_a_step_is_a_thin_line_along_it_however_faint(colours: tuple[tuple[int, int, int], ...]) -> None:
    edges = soft_edges(halves(*colours))
    strong = edges.strength[10:-10] > 0.5
    assert (strong.sum(1) >= 1).all()
    assert (strong.sum(1) <= 2).all()  # the step lies between two pixels
    assert strong[:, 47:49].sum() == strong.sum()
    assert edges.tangent[10:-10][strong].sub(math.pi / 2).abs().max() < 0.02


def test_colours_of_equal_brightness_make_an_edge() -> None:
    grey_of = torch.tensor([0.299, 0.587, 0.114])
    red, green = (200, 60, 60), (60, 131, 60)
    assert abs(float(grey_of @ torch.tensor(red).float() - grey_of @ torch.tensor(green).float())) < 1
    assert (soft_edges(halves(red, green)).strength[20:-20, 47:49].max(1).values > 0.5).all()


def test_a_turned_picture_has_turned_edges() -> None:
    image = halves((30, 60, 90), (200, 160, 120))
    edges, turned = soft_edges(image), soft_edges(image.transpose(1, 2).contiguous())
    torch.testing.assert_close(turned.strength, edges.strength.T, atol=1e-4, rtol=0)
    on = turned.strength > 0.5
    off_axis = torch.minimum(turned.tangent[on], math.pi - turned.tangent[on])
    assert off_axis.max() < 0.02


def test_flat_pictures_have_no_edges() -> None:
    assert soft_edges(torch.full((3, 30, 40), 77, dtype=torch.uint8)).strength.max() == 0
    assert soft_edges(torch.full((3, 1, 1), 77, dtype=torch.uint8)).strength.tolist() == [[0.0]]


def test_a_contour_stands_out_against_texture_of_the_same_contrast() -> None:
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(-30, 31, (1, 128, 128), generator=rng)
    image = (noise.expand(3, -1, -1) + 110).clone()
    image[:, 40:90, 40:90] += 60
    strength = soft_edges(image.to(torch.uint8)).strength
    contour = strength[45:85, 38:43].max(1).values.mean()
    texture = strength[100:, 100:].unfold(0, 5, 5).max(-1).values.mean()
    assert contour > 3 * texture


def test_angles_and_strengths_stay_in_their_range() -> None:
    noise = torch.randint(0, 256, (3, 50, 60), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    edges = soft_edges(noise)
    assert 0 <= edges.strength.min() <= edges.strength.max() <= 1
    assert 0 <= edges.tangent.min() <= edges.tangent.max() <= math.pi


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(RecordError, match="not empty"):
        soft_edges(torch.zeros(3, 0, 4, dtype=torch.uint8))


@pytest.mark.usefixtures("unchecked")
def test_strength_and_tangent_must_be_of_one_picture() -> None:
    with pytest.raises(RecordError, match="tangent"):
        SoftEdges(torch.zeros(2, 3), torch.zeros(3, 2))
