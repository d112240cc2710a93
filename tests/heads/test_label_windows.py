import pytest
import torch

from bestiary.heads.label_windows import (
    cut_window,
    objects_of,
    put_maximum,
    whole_pixels,
    widened,
    window_warp,
)
from bestiary.records import IGNORE_LABEL, Target
from bestiary.transforms.moving import move_target


def ramp(height: int, width: int) -> torch.Tensor:
    """A picture whose channels say where they are."""
    rows = torch.arange(height).float()[:, None].expand(height, width)
    columns = torch.arange(width).float().expand(height, width)
    return torch.stack([rows, columns, torch.ones(height, width)])


def test_objects_are_the_connected_parts_of_each_class_but_the_background() -> None:
    label_map = torch.zeros(10, 20, dtype=torch.uint8)
    label_map[1:4, 2:6] = 2
    label_map[6:9, 2:6] = 2
    label_map[1:4, 6:9] = 1
    label_map[0, 19] = 1  # too small
    label_map[9] = IGNORE_LABEL
    found = objects_of(label_map, background=0, least_share=0.01)
    assert found.labels.tolist() == [1, 2, 2]
    assert found.boxes_xyxy.tolist() == [[6, 1, 9, 4], [2, 1, 6, 4], [2, 6, 6, 9]]
    assert [int((found.numbers == n).sum()) for n in range(4)] == [200 - 33, 9, 12, 12]
    assert int(found.numbers[2, 3]) == 2
    everything = objects_of(label_map, least_share=0.01)
    assert everything.labels.tolist() == [0, 1, 2, 2]


def test_no_object_where_nothing_is_known() -> None:
    found = objects_of(torch.full((4, 5), IGNORE_LABEL, dtype=torch.uint8))
    assert (found.boxes_xyxy.shape, found.labels.shape) == ((0, 4), (0,))
    assert found.numbers.sum() == 0


def test_boxes_grow_about_their_centre_to_whole_pixels() -> None:
    assert widened(torch.tensor([10.0, 20, 20, 40]), 1.2).tolist() == [9, 18, 21, 42]
    assert whole_pixels(torch.tensor([1.2, -0.5, 3.1, 2.0])) == (1, -1, 4, 2)
    assert whole_pixels(torch.tensor([3.0, 3.0, 3.0, 3.0])) == (3, 3, 4, 4)


def test_a_window_of_its_own_size_is_cut_as_it_is_and_black_beyond_the_picture() -> None:
    image = ramp(6, 8)
    assert torch.equal(cut_window(image, (2, 1, 6, 5), 4), image[:, 1:5, 2:6])
    corner = cut_window(image, (-1, -2, 3, 2), 4)
    assert torch.equal(corner[:, 2:, 1:], image[:, :2, :3])
    assert corner[:, :2].sum() == corner[:, :, :1].sum() == 0
    far = cut_window(image, (6, 4, 10, 8), 4)
    assert torch.equal(far[:, :2, :2], image[:, 4:, 6:])
    assert far[2].sum() == 4


def test_bytes_become_0_to_1() -> None:
    assert torch.equal(cut_window(torch.full((1, 2, 2), 255, dtype=torch.uint8), (0, 0, 2, 2), 2), torch.ones(1, 2, 2))


@pytest.mark.parametrize("window", [(2, 1, 6, 5), (-1, -2, 7, 6), (0, 0, 8, 6), (4, 3, 12, 11)])
def test_truth_goes_where_the_pixels_go(window: tuple[int, int, int, int]) -> None:
    label_map = torch.arange(48, dtype=torch.uint8).view(6, 8)
    moved = move_target(Target(label_map=label_map), window_warp((6, 8), window, 4)).label_map
    assert moved is not None
    left, top, right, bottom = window
    for i in range(4):
        for j in range(4):
            y, x = int(top + (i + 0.5) / 4 * (bottom - top)), int(left + (j + 0.5) / 4 * (right - left))
            inside = top + (i + 0.5) / 4 * (bottom - top) >= 0 and left + (j + 0.5) / 4 * (right - left) >= 0
            known = inside and y < 6 and x < 8
            assert int(moved[i, j]) == (int(label_map[y, x]) if known else IGNORE_LABEL)


def test_scores_raise_the_canvas_and_never_lower_it() -> None:
    canvas = torch.zeros(2, 4, 6)
    canvas[0, 1, 1] = 5
    scores = torch.stack([torch.full((2, 2), 3.0), torch.full((2, 2), -1.0)])
    put_maximum(canvas, scores, (1, 1, 5, 3))
    assert canvas[0, 1].tolist() == [0, 5, 3, 3, 3, 0]
    assert canvas[0, 0].sum() == canvas[0, 3].sum() == canvas[1].sum() == 0


def test_windows_that_reach_out_are_cut_and_their_order_is_all_the_same() -> None:
    g = torch.Generator().manual_seed(0)
    windows = [(-2, -1, 4, 3), (3, 1, 9, 8), (1, 0, 5, 6), (20, 20, 22, 22)]
    scores = [torch.randn(3, 4, 4, generator=g) for _ in windows]
    canvases = []
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)):
        canvas = torch.zeros(3, 6, 7)
        for i in order:
            put_maximum(canvas, scores[i], windows[i])
        canvases.append(canvas)
    assert torch.equal(canvases[0], canvases[1])
    assert torch.equal(canvases[0], canvases[2])
    assert canvases[0].min() == 0
