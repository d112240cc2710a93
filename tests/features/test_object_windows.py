"""Windows around objects and back, a template's shape from the data, and pixels cut out."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.features.object_windows import Template, crop_window, template_for

BOXES = torch.tensor([[10.0, 20, 58, 116], [0, 0, 96, 48], [5, 5, 101, 197]])
PERSON = Template((128, 64), 16)


def test_the_papers_person_is_32_x_96() -> None:
    assert PERSON.object_hw == (96, 32)
    torch.testing.assert_close(PERSON.scales_of(BOXES), torch.tensor([1.5, 1.5, 6.0]).sqrt())


def test_windows_have_the_boxes_centres_and_areas() -> None:
    windows = PERSON.around(BOXES)
    sides = windows[:, 2:] - windows[:, :2]
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.full((3,), 2.0))
    torch.testing.assert_close(windows[:, :2] + windows[:, 2:], BOXES[:, :2] + BOXES[:, 2:])
    objects = PERSON.within(windows)
    torch.testing.assert_close((objects[:, 2:] - objects[:, :2]).prod(1), (BOXES[:, 2:] - BOXES[:, :2]).prod(1))


def test_a_box_of_the_templates_shape_comes_back() -> None:
    box = torch.tensor([[7.0, 11, 7 + 64, 11 + 192]])
    torch.testing.assert_close(PERSON.within(PERSON.around(box)), box)


def test_a_template_takes_the_objects_aspect_and_a_size_that_most_exceed() -> None:
    sides = torch.tensor([[20.0, 40], [30, 60], [40, 80], [50, 100], [60, 120], [200, 100]])
    boxes = torch.cat([torch.zeros(6, 2), sides], dim=1)
    template = template_for(boxes, (100, 10_000))
    assert template.size_hw[0] / template.size_hw[1] == pytest.approx(2, rel=0.05)
    area = template.size_hw[0] * template.size_hw[1]
    assert int((sides.prod(1) >= area * 0.97).sum()) == 5
    held = template_for(boxes, (1024, 1024), margin=8, multiple=8)
    assert held.size_hw == (64, 40)
    assert template_for(boxes, (400, 400)).object_hw == (28, 14)


def test_an_aspect_is_held_within_a_quarter_and_four() -> None:
    assert template_for(torch.tensor([[0.0, 0, 400, 10]]), (400, 400)).object_hw == (10, 40)


def test_a_window_of_whole_pixels_is_cut_out_as_it_is() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    assert torch.equal(crop_window(image, (4.0, 5.0, 16.0, 15.0), (10, 12)), image[:, 5:15, 4:16])
    halved = crop_window(image, (4.0, 4.0, 16.0, 16.0), (6, 6)).float()
    means = image[:, 4:16, 4:16].float().reshape(3, 6, 2, 6, 2).mean((2, 4))
    assert (halved - means).abs().max() <= 0.51


def test_beyond_the_border_the_last_pixels_go_on() -> None:
    image = torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8)
    crop = crop_window(image, (-3.0, -2.0, 5.0, 6.0), (8, 8))
    assert torch.equal(crop[:, 2:, 3:], image[:, :6, :5])
    assert torch.equal(crop[:, 0, 3:], image[:, 0, :5])
    assert (crop[:, 5, :3] == image[:, 3, 0]).all()


def test_a_margin_leaves_room_for_the_object() -> None:
    with pytest.raises(UsageError, match="margin"):
        Template((32, 16), 8)
