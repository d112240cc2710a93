import pytest
import torch

from bestiary.errors import RecordError
from bestiary.geometry.sampling import farthest_points, sample_triangles


def test_farthest_points_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert farthest_points(line, 3).tolist() == [0, 3, 2]
    assert farthest_points(line, 2, start=3).tolist() == [3, 0]
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    # both neighbours are equally far from the two corners: the lower index
    assert farthest_points(square, 3).tolist() == [0, 3, 1]


def test_farthest_points_are_those_of_a_loop() -> None:
    clouds = torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(0))
    got = farthest_points(clouds, 12, start=5)
    for cloud, row in zip(clouds, got.tolist(), strict=True):
        chosen = [5]
        while len(chosen) < 12:
            distances = torch.cdist(cloud[None], cloud[None, chosen])[0].amin(1)
            chosen.append(int(distances.argmax()))
        assert row == chosen


def test_places_repeat_once_all_are_taken() -> None:
    assert farthest_points(torch.zeros(3, 2), 3).tolist() == [0, 0, 0]
    with pytest.raises(RecordError, match="1 to 3"):
        farthest_points(torch.zeros(3, 2), 4)


def test_a_triangle_is_covered_evenly() -> None:
    vertices = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [9.0, 9.0, 9.0]])
    points, which = sample_triangles(vertices, torch.tensor([[0, 1, 2]]), 30_000, torch.Generator().manual_seed(0))
    assert which.unique().tolist() == [0]
    assert (points[:, 2] == 0).all()
    assert ((points[:, :2] >= 0).all(1) & (points[:, :2].sum(1) <= 3 + 1e-5)).all()
    # the corner triangle of half the side has a quarter of the area; five standard errors are 0.0125
    for near in (points[:, :2].sum(1) < 1.5, points[:, 0] > 1.5, points[:, 1] > 1.5):
        assert abs(float(near.float().mean()) - 0.25) < 0.0125


def test_faces_are_drawn_by_area_and_gradients_reach_their_corners() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [3, 0, 0], [0, 0, 1]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 3, 2], [0, 0, 1]])
    points, which = sample_triangles(vertices, faces, 20_000, torch.Generator().manual_seed(0))
    assert abs(float((which == 1).float().mean()) - 0.75) < 0.016
    assert not (which == 2).any()
    points.sum().backward()
    assert vertices.grad is not None
    # each point is a mean of its corners: the gradients of one coordinate add up to the number of points
    assert torch.allclose(vertices.grad.sum(0), torch.tensor(20_000.0).expand(3), rtol=1e-4)
    assert (vertices.grad[4] == 0).all()


def test_broken_meshes_are_said() -> None:
    with pytest.raises(RecordError, match="a vertex that does not exist"):
        sample_triangles(torch.zeros(3, 3), torch.tensor([[0, 1, 3]]), 5)
    with pytest.raises(RecordError, match="no area"):
        sample_triangles(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]), 5)
