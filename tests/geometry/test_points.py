import cv2
import numpy as np
import pytest
import torch

from bestiary.errors import RecordError
from bestiary.geometry import points

BODY = torch.tensor([[[1.0, 2.0, 2.0], [3.0, 4.0, 1.0], [0.0, 0.0, 0.0]]])


def test_flip_mirrors_about_the_middle_of_the_picture() -> None:
    flipped = points.flip_points(torch.tensor([[0.5, 1.0], [10.0, 2.0]]), 10)
    assert flipped.tolist() == [[9.5, 1.0], [0.0, 2.0]]


def test_keypoints_swap_sides_and_keep_the_unannotated_at_zero() -> None:
    flipped = points.flip_keypoints(BODY, 10, [(0, 1)])
    assert flipped.tolist() == [[[7.0, 4.0, 1.0], [9.0, 2.0, 2.0], [0.0, 0.0, 0.0]]]
    swapped = points.flip_keypoints(BODY, 10, [(1, 2)])
    assert swapped.tolist() == [[[9.0, 2.0, 2.0], [0.0, 0.0, 0.0], [7.0, 4.0, 1.0]]]


def test_flipping_twice_is_the_identity() -> None:
    joints = torch.rand(3, 5, 3) + 0.1
    assert torch.allclose(
        points.flip_keypoints(points.flip_keypoints(joints, 7, [(0, 4), (1, 2)]), 7, [(0, 4), (1, 2)]), joints
    )
    assert points.flip_keypoints(torch.zeros(0, 5, 3), 7, []).shape == (0, 5, 3)


@pytest.mark.parametrize("pairs", [[(0, 3)], [(-1, 0)], [(0, 1), (1, 2)], [(1, 1)]])
def test_pairs_that_make_no_sense_are_refused(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(RecordError, match="joint_pairs"):
        points.flip_keypoints(BODY, 10, pairs)


def test_affine_map_of_hand_worked_points() -> None:
    matrix = torch.tensor([[2.0, 0.0, 1.0], [1.0, -1.0, 5.0]])
    assert points.transform_points(torch.tensor([[1.0, 2.0]]), matrix).tolist() == [[3.0, 4.0]]
    moved = points.transform_keypoints(BODY, matrix)
    assert moved.tolist() == [[[3.0, 4.0, 2.0], [7.0, 4.0, 1.0], [0.0, 0.0, 0.0]]]


def test_opencv_warps_a_picture_to_where_the_points_go() -> None:
    picture = np.zeros((40, 40), dtype=np.float32)
    picture[11, 17] = 1.0  # its centre is (17.5, 11.5)
    matrix = torch.tensor([[1.5, 0.0, 3.0], [0.0, 1.5, 2.0]], dtype=torch.float64)
    warped = cv2.warpAffine(picture, points.shift_map(matrix).numpy(), (70, 70))
    rows, columns = np.indices(warped.shape)
    centre = [float((warped * (axis + 0.5)).sum() / warped.sum()) for axis in (columns, rows)]
    expected = points.transform_points(torch.tensor([[17.5, 11.5]], dtype=torch.float64), matrix)[0].tolist()
    assert centre == pytest.approx(expected, abs=0.05)


def test_joints_outside_become_not_annotated_and_those_on_the_edge_stay() -> None:
    joints = torch.tensor([[[0.0, 0.0, 2.0], [10.0, 5.0, 1.0], [10.01, 5.0, 2.0], [3.0, -0.01, 2.0], [4.0, 4.0, 0.0]]])
    clipped = points.clip_keypoints(joints, (5, 10))
    assert torch.equal(clipped[0, :2], joints[0, :2])
    assert torch.equal(clipped[0, 2:], torch.zeros(3, 3))
