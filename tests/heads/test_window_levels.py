"""Which windows lie on a picture, and how many."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.heads.window_levels import WindowLevels


def test_the_count_is_the_formula() -> None:
    windows = WindowLevels(64, 16, (32, 128), (1.0,))
    # 32: axes of 320 and 240 become 640 and 480, (640 - 64) / 16 = 36 and (480 - 64) / 16 = 26
    # 128: 160 and 120: 6, and 56 / 16 = 3.5 -> 4 (to even)
    assert [level.places_hw for level in windows.levels((240, 320))] == [(27, 37), (5, 7)]
    assert windows.count((240, 320)) == 27 * 37 + 5 * 7


def test_windows_are_squares_of_a_level_and_flush_with_its_ends() -> None:
    windows = WindowLevels(64, 16, (30, 75), (0.5, 1.0, 2.0))
    levels = windows.levels((200, 330))
    boxes = windows.boxes(levels, (200, 330))
    assert len(boxes) == windows.count((200, 330)) == sum(level.count for level in levels)
    for level, own in zip(levels, boxes.split([level.count for level in levels]), strict=True):
        assert level.size_hw == tuple(64 + 16 * (places - 1) for places in level.places_hw)
        assert own.amin(0)[:2].tolist() == [0, 0]
        torch.testing.assert_close(own.amax(0)[2:], torch.tensor([330.0, 200.0]))
        ratio = torch.tensor([level.size_hw[1] / 330, level.size_hw[0] / 200])
        torch.testing.assert_close((own[:, 2:] - own[:, :2]) * ratio, torch.full((len(own), 2), 64.0))


def test_windows_have_about_the_size_and_shape_asked_for() -> None:
    windows = WindowLevels(64, 16, (48,), (0.5, 2.0))
    levels = windows.levels((240, 320))
    for level, (width, height) in zip(levels, [(34, 68), (68, 34)], strict=True):
        box = windows.boxes([level], (240, 320))[0]
        assert float(box[2] - box[0]) == pytest.approx(width, rel=0.05)
        assert float(box[3] - box[1]) == pytest.approx(height, rel=0.05)


def test_a_picture_smaller_than_all_windows_is_one_window() -> None:
    windows = WindowLevels(64, 16, (100, 200, 400))
    assert windows.count((20, 30)) == 1
    assert windows.boxes(windows.levels((20, 30)), (20, 30)).tolist() == [[0, 0, 30, 20]]


def test_numbers_that_cannot_be_are_named() -> None:
    for wrong, words in (((64, 0, (8,)), "window"), ((8, 16, (8,)), "window"), ((64, 16, ()), "window_sides")):
        with pytest.raises(UsageError, match=words):
            WindowLevels(*wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="aspects"):
        WindowLevels(64, 16, (8,), (0.0,))
