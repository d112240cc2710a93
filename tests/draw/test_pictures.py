import numpy as np
import pytest
import torch

from bestiary import draw
from bestiary.draw.canvas import line_width, open_canvas
from bestiary.draw.text import chip_size_hw, fit_text, set_text
from bestiary.errors import RecordError
from bestiary.records import Objects, Sample, Target


def grey(height: int, width: int, value: int = 100) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def boxes(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bool])
def test_any_picture_becomes_rgb_and_stays_as_it_was(channels: int, dtype: torch.dtype) -> None:
    image = (torch.arange(channels * 12).reshape(channels, 3, 4) % 2).to(dtype)
    before = image.clone()
    drawn = draw.objects(image, boxes([0, 0, 4, 3]), torch.tensor([0]), ["x"])
    assert drawn.shape == (3, 3, 4)
    assert drawn.dtype == torch.uint8
    assert torch.equal(image, before)


def test_floats_are_scaled_clipped_and_rounded() -> None:
    image = torch.tensor([[[0.0, 1.0, 0.5, -3.0, 7.0, float("nan")]]])
    assert open_canvas(image)[0, :, 0].tolist() == [0, 255, 128, 0, 255, 0]
    channels = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1)
    assert open_canvas(channels)[0, 0].tolist() == [0, 1, 2]
    assert open_canvas(channels[:2])[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [torch.zeros(3, 4, 4, dtype=torch.int32), torch.zeros(0, 4, 4)])
def test_other_pictures_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(RecordError, match="image"):
        draw.text_lines(bad, ["x"])


def test_a_box_is_drawn_on_the_pixels_inside_its_edges() -> None:
    drawn = draw.objects(grey(40, 40), boxes([10, 12, 20, 30]), torch.tensor([1]), [""])
    changed = (drawn != 100).any(0)
    expected = torch.zeros(40, 40, dtype=torch.bool)
    expected[12:30, 10:20] = True
    expected[13:29, 11:19] = False
    assert torch.equal(changed, expected)
    assert tuple(drawn[:, 12, 10].tolist()) == draw.colour_of(1)


def test_boxes_beyond_the_picture_or_not_finite_do_no_harm() -> None:
    rows = boxes([-50, -50, 900, 900], [float("nan"), 0, 1, 1], [5, 5, 5, 5], [1e30, 1e30, 2e30, 2e30])
    drawn = draw.objects(grey(64, 64), rows, torch.tensor([0, 1, 2, 3]), ["a", "b", "c", "d"])
    assert drawn.shape == (3, 64, 64)


def test_masks_are_mixed_with_the_label_colour_and_have_a_solid_contour() -> None:
    mask = torch.zeros(1, 60, 60, dtype=torch.bool)
    mask[0, 10:40, 10:40] = True
    drawn = draw.objects(grey(60, 60), boxes([0, 0, 60, 60]), torch.tensor([2]), [""], masks=mask)
    colour = torch.tensor(draw.colour_of(2))
    assert torch.equal(drawn[:, 25, 25].int(), (100 + (colour - 100) * 0.4 + 0.5).int())
    assert torch.equal(drawn[:, 10, 25].int(), colour.int())
    assert torch.equal(drawn[:, 50, 50], torch.tensor([100, 100, 100], dtype=torch.uint8))


def test_small_objects_lie_above_large_ones_whatever_the_order() -> None:
    rows = boxes([10, 10, 20, 20], [5, 5, 55, 55])
    masks = torch.zeros(2, 60, 60, dtype=torch.bool)
    masks[0, 10:20, 10:20], masks[1, 5:55, 5:55] = True, True
    one = draw.objects(grey(60, 60), rows, torch.tensor([0, 1]), ["", ""], masks=masks)
    other = draw.objects(grey(60, 60), rows.flip(0), torch.tensor([1, 0]), ["", ""], masks=masks.flip(0))
    assert torch.equal(one, other)
    assert tuple(one[:, 10, 15].tolist()) == draw.colour_of(0)


def test_joints_are_joined_by_limbs_and_absent_ones_left_out() -> None:
    points = torch.tensor([[[10.5, 10.5, 2.0], [40.5, 10.5, 1.0], [20.0, 40.0, 0.0]]])
    blank = draw.objects(grey(60, 60), boxes([0, 0, 1, 1]), torch.tensor([0]), [""])
    drawn = draw.objects(
        grey(60, 60), boxes([0, 0, 1, 1]), torch.tensor([0]), [""], keypoints=points, limbs=[(0, 1), (1, 2)]
    )
    changed = (drawn != blank).any(0)
    assert changed[10, 10:41].all()
    assert drawn[:, 10, 10].tolist() == [255, 255, 255]
    # The line is antialiased: its middle is nearly all of the colour.
    assert drawn[:, 10, 25].tolist() == pytest.approx(draw.colour_of(0), abs=15)
    assert not changed[20:].any()


def test_known_layouts_bring_their_limbs() -> None:
    assert draw.limbs_of(17) == draw.COCO_LIMBS
    assert draw.limbs_of(5) == ()
    for number in (14, 16, 17):
        joints = {joint for limb in draw.limbs_of(number) for joint in limb}
        assert joints == set(range(number))


def test_chips_do_not_cover_one_another_where_there_is_room() -> None:
    rows = boxes([30, 60, 120, 150], [30, 60, 120, 150], [32, 61, 120, 150])
    drawn = draw.objects(grey(200, 200), rows, torch.tensor([0, 1, 2]), ["ball", "ball", "ball"])
    height, width = chip_size_hw("ball", 9)
    for label in range(3):
        colour = torch.tensor(draw.colour_of(label), dtype=torch.uint8)[:, None, None]
        same = (drawn == colour).all(0).double()[None, None]
        filled = torch.nn.functional.avg_pool2d(same, (height, width), stride=1).max()
        assert filled > 0.5, f"the chip of label {label} is covered"


def test_texts_must_be_as_many_as_boxes() -> None:
    with pytest.raises(RecordError, match="texts"):
        draw.objects(grey(60, 60), boxes([0, 0, 5, 5]), torch.tensor([0]), [])
    empty = draw.objects(grey(60, 60), boxes(), torch.zeros(0, dtype=torch.int64), [])
    assert torch.equal(empty, grey(60, 60))


def test_tiny_pictures_keep_their_size_and_have_no_text() -> None:
    rows, labels = boxes([2, 2, 30, 30]), torch.tensor([0])
    with_text = draw.objects(grey(32, 32), rows, labels, ["walker 0.98"])
    assert torch.equal(with_text, draw.objects(grey(32, 32), rows, labels, [""]))
    assert draw.text_lines(grey(5, 5), ["cat"]).equal(grey(5, 5))


def test_lines_and_letters_grow_with_the_picture() -> None:
    assert [line_width(np.zeros((s, 2 * s, 3), np.uint8)) for s in (32, 299, 400, 1000)] == [1, 1, 2, 5]
    small, large = (chip_size_hw("cat", h)[0] for h in (9, 30))
    assert large > 2.5 * small


def test_long_texts_shrink_then_are_cut_then_left_out() -> None:
    assert fit_text("cat", 12, 500) == ("cat", 12)
    shrunk = fit_text("category", 12, chip_size_hw("category", 8)[1])
    assert shrunk == ("category", 8)
    cut = fit_text("a rather long category", 12, 50)
    assert cut is not None
    assert cut[0].endswith("…")
    assert cut[1] == 7
    assert chip_size_hw(*cut)[1] <= 50
    assert fit_text("category", 12, 6) is None


def test_letters_outside_ascii_are_set() -> None:
    pictures = [set_text(text, 20) for text in ("кошка", "ошибка", "Straße", "ñandú")]
    tofu = set_text("\U0010fffe", 20)
    for picture in pictures:
        assert picture.max() == 255
        assert picture.shape[1] > 2 * tofu.shape[1]
    assert not np.array_equal(pictures[0][:, :20], pictures[1][:, :20])


def test_text_lines_stack_in_the_corner_until_there_is_no_room() -> None:
    drawn = draw.text_lines(grey(64, 200), ["one", "two"])
    row = chip_size_hw("one", 9)[0]
    assert (drawn[:, : 2 * row, 0] == 0).all()
    assert (drawn[:, 2 * row :] == 100).all()
    many = draw.text_lines(grey(64, 200), ["line"] * 50)
    assert (many[:, 64 // row * row :] == 100).all()


def test_label_maps_are_mixed_background_stays_and_unknown_is_hatched() -> None:
    labels = torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8).repeat_interleave(30, 0).repeat_interleave(30, 1)
    drawn = draw.label_map(grey(60, 60), labels, ["background", "cell"], legend=False)
    assert (drawn[:, :30, :30] == 100).all()
    expected = [int(100 + (c - 100) * 0.5 + 0.5) for c in draw.colour_of(1)]
    assert drawn[:, 10, 40].tolist() == expected
    hatched = (drawn[0, 30:, 30:] != 100).double().mean()
    assert 0.45 < hatched < 0.55
    whole = draw.label_map(grey(60, 60), labels, ["background", "cell"], opacity=1.0, legend=False)
    assert tuple(whole[:, 40, 10].tolist()) == draw.colour_of(2)
    assert torch.equal(draw.label_map(grey(60, 60), labels, [], opacity=0.0, legend=False), grey(60, 60))


def test_the_legend_stays_in_the_lower_left_half() -> None:
    labels = torch.arange(120, dtype=torch.uint8)[:, None].expand(120, 120) // 12
    names = [f"class {k}" for k in range(10)]
    plain, legend = (draw.label_map(grey(120, 120), labels, names, legend=b) for b in (False, True))
    rows = (plain != legend).any(0).any(1).nonzero()
    assert rows.min() >= 60
    assert rows.max() == 119


def test_label_maps_refuse_wrong_numbers_and_sizes() -> None:
    labels = torch.zeros(6, 6, dtype=torch.uint8)
    with pytest.raises(RecordError, match="opacity"):
        draw.label_map(grey(6, 6), labels, ["a"], opacity=1.5)


def test_depth_is_red_near_blue_far_black_unknown() -> None:
    depth = torch.cat([torch.linspace(1, 10, 98), torch.tensor([0.0, float("inf")])])[None]
    near, far, unknown, endless = (draw.depth_map(depth)[:, 0, i].int().tolist() for i in (0, 97, 98, 99))
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert unknown == endless == [0, 0, 0]
    assert (draw.depth_map(torch.zeros(3, 3)) == 0).all()
    assert draw.depth_map(torch.full((2, 2), 4.0)).shape == (3, 2, 2)


def test_normals_of_hand_worked_directions() -> None:
    vectors = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, 0]]).T[:, None, :]
    assert draw.normal_map(vectors)[:, 0].T.tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255], [0, 0, 0]]


def test_grids_align_pictures_of_different_sizes() -> None:
    sheet = draw.grid([grey(10, 20, 1), grey(6, 8, 2), grey(10, 20, 3)], 2, gap=3)
    assert sheet.shape == (3, 23, 43)
    assert (sheet[:, :10, :20] == 1).all()
    assert (sheet[:, :6, 23:31] == 2).all()
    assert (sheet[:, 13:, :20] == 3).all()
    assert (sheet[:, 6:10, 23:] == 255).all()
    assert draw.grid([grey(4, 4)], 5).shape == (3, 4, 4)
    for pictures, columns, titles in (([], 2, []), ([grey(4, 4)], 0, []), ([grey(4, 4)], 1, ["a", "b"])):
        with pytest.raises(RecordError, match="grid"):
            draw.grid(pictures, columns, titles)


def test_side_by_side_writes_titles_above() -> None:
    sheet = draw.side_by_side(grey(20, 60, 10), grey(20, 60, 20), ("truth", "prediction"))
    strip = sheet.shape[1] - 20
    assert strip == chip_size_hw("Ag", 9)[0]
    assert (sheet[:, strip:, :60] == 10).all()
    assert (sheet[:, strip:, 64:] == 20).all()
    assert (sheet[:, :strip, :60] < 128).any()
    assert draw.side_by_side(grey(4, 4), grey(4, 4)).shape == (3, 4, 12)


def test_truth_is_drawn_from_the_richest_annotation() -> None:
    image, size = grey(64, 64), (64, 64)
    found = Objects(boxes([8, 8, 40, 40]), torch.tensor([1]))
    labels = torch.ones(64, 64, dtype=torch.uint8)
    depth = torch.full((64, 64), 2.0)
    expected = draw.objects(image, found.boxes_xyxy, found.labels, ["cat"])
    assert torch.equal(draw.target(image, Target(label=0, objects=found, label_map=labels), ["dog", "cat"]), expected)
    assert torch.equal(
        draw.target(image, Target(label_map=labels, depth=depth), ["a", "b"]), draw.label_map(image, labels, ["a", "b"])
    )
    assert torch.equal(draw.target(image, Target(depth=depth), []), draw.depth_map(depth))
    assert torch.equal(draw.target(image, Target(label=1), ["dog", "cat"]), draw.text_lines(image, ["cat"]))
    assert torch.equal(draw.target(image, Target(), []), image)
    sheet = draw.truth_sheet(
        Sample(image, Target(0, found, labels, torch.rand(64, 64), depth), "x", size), ["dog", "cat"], columns=5
    )
    assert sheet.shape == (3, 64 + chip_size_hw("Ag", 9)[0], 5 * 64 + 4 * 4)


def test_styles_of_label_maps() -> None:
    labels = torch.zeros(40, 60, dtype=torch.uint8)
    labels[:, 20:40] = 1
    labels[:, 50:] = 255
    names, cell = ["background", "cell"], torch.tensor(draw.colour_of(1), dtype=torch.uint8)[:, None, None]
    lines = draw.label_map(grey(40, 60), labels, names, legend=False, style="contours")
    changed = (lines != 100).any(0)
    assert changed.any(0).nonzero()[:, 0].tolist() == [20, 39]
    assert (lines[:, :, [20, 39]] == cell).all()
    plain = draw.label_map(grey(40, 60), labels, names, legend=False, style="colours")
    assert (plain[:, :, 20:40] == cell).all()
    assert (plain[:, :, :20] == 0).all()
    beside = draw.label_map(grey(40, 60), labels, names, style="side_by_side")
    assert torch.equal(beside[..., :60], grey(40, 60))
    assert torch.equal(beside[..., 60:], draw.label_map(grey(40, 60), labels, names))


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(RecordError, match="got 'wild', wanted overlay"):
        draw.label_map(grey(4, 4), torch.zeros(4, 4, dtype=torch.uint8), ["a"], style="wild")  # type: ignore[arg-type]


def test_contours_grow_with_the_picture_and_stay_within_their_region() -> None:
    for side, width in ((40, 1), (600, 3)):
        labels = torch.zeros(side, side, dtype=torch.uint8)
        labels[:, side // 2 :] = 1
        lines = draw.label_map(grey(side, side), labels, ["a", "b"], legend=False, style="contours")
        for k, inside in ((0, slice(side // 2 - width, side // 2)), (1, slice(side // 2, side // 2 + width))):
            assert (lines[:, :, inside] == torch.tensor(draw.colour_of(k), dtype=torch.uint8)[:, None, None]).all()
        assert int((lines != 100).any(0).sum()) == 2 * width * side
