import pytest
import torch

from bestiary.errors import RecordError, UsageError
from bestiary.heads.pixel_sampling import WindowSampling, as_row, sample_pixels, turned, windows_at
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.records import Objects, Target


class Middle(WholePicture):
    """Each window's middle pixel is its only feature."""

    geometry = InputGeometry(margin=2)

    def __init__(self) -> None:
        super().__init__(("a", "b", "c"), Normalize([0.0], [1.0]))

    def outputs(self, pixels: torch.Tensor) -> PixelOutputs:
        return PixelOutputs(pixels[..., 2:-2, 2:-2].expand(-1, 3, -1, -1))


def rare() -> torch.Tensor:
    label_map = torch.zeros(20, 30, dtype=torch.uint8)
    label_map[:, 15:] = 255
    label_map[3, 4] = 2
    return label_map


def test_classes_are_drawn_equally_often_or_as_they_come() -> None:
    torch.manual_seed(0)
    label_map = rare()
    ys, xs = sample_pixels(label_map, 101, "balanced").unbind(1)
    counts = label_map[ys, xs].bincount(minlength=3).tolist()
    assert sorted(counts) == [0, 50, 51]
    ys, xs = sample_pixels(label_map, 3000, "natural").unbind(1)
    counts = label_map[ys, xs].bincount(minlength=3).tolist()
    assert sum(counts) == 3000
    assert 1 <= counts[2] <= 40
    assert len(set(zip(ys.tolist(), xs.tolist(), strict=True))) > 250


def test_without_a_label_unlabelled_pixels_are_drawn() -> None:
    nothing = torch.full((4, 5), 255, dtype=torch.uint8)
    places = sample_pixels(nothing, 7, "balanced")
    assert places.shape == (7, 2)
    assert (places < torch.tensor([4, 5])).all()


def test_windows_stand_where_they_were_asked_for() -> None:
    plane = torch.arange(2 * 7 * 9).view(2, 7, 9).float()
    found = windows_at(plane, torch.tensor([[0, 0], [4, 6], [2, 3]]), 3)
    for window, (y, x) in zip(found, [(0, 0), (4, 6), (2, 3)], strict=True):
        assert torch.equal(window, plane[:, y : y + 3, x : x + 3])


def test_windows_are_turned_in_eight_ways() -> None:
    torch.manual_seed(0)
    window = torch.arange(9.0).view(1, 1, 3, 3)
    found = turned(window.expand(200, 1, 3, 3))
    ways = {tuple(one.flatten().tolist()) for one in found}
    wanted = {
        tuple(flat.flatten().tolist())
        for k in range(4)
        for flat in (window.rot90(k, (-2, -1)), window.rot90(k, (-2, -1)).flip(-1))
    }
    assert ways == wanted
    assert len(wanted) == 8


def test_drawn_windows_and_their_truth_belong_together() -> None:
    torch.manual_seed(0)
    images = [torch.rand(1, 6, 8), torch.rand(1, 5, 5)]
    targets = [
        Target(label_map=(image[0] * 3).to(torch.uint8), weight_map=image[0] + 1 if i else None)
        for i, image in enumerate(images)
    ]
    windows, truth = WindowSampling(40, "natural").draw(Middle(), images, targets)
    middles = windows[:, 0, 2, 2]
    assert windows.shape == (80, 1, 5, 5)
    assert torch.equal((middles * 3).to(torch.uint8), truth.label_maps.flatten())
    assert truth.weight_maps is not None
    assert torch.allclose(truth.weight_maps.flatten(), torch.cat([torch.ones(40), middles[40:] + 1]))
    assert truth.class_masks is None
    rows = as_row(windows[:, :, 2, 2].expand(-1, 3))
    assert rows.shape == (1, 3, 1, 80)
    assert torch.equal(rows[0, 1, 0], middles)


def test_overlapping_classes_are_drawn_as_masks() -> None:
    net = Middle()
    net.take({"multi_label": True})
    masks = torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[0, :4], masks[1, 2:] = True, True
    objects = Objects(torch.tensor([[0.0, 0, 6, 4], [0, 2, 6, 6]]), torch.tensor([0, 2]), masks=masks)
    image = torch.arange(6.0)[:, None].expand(1, 6, 6) / 10
    windows, truth = WindowSampling(50).draw(net, [image], [Target(objects=objects)])
    rows = (windows[:, 0, 2, 2] * 10).round()
    assert truth.class_masks is not None
    assert truth.class_masks.shape == (1, 3, 1, 50)
    assert torch.equal(truth.class_masks[0, 0, 0], rows < 4)
    assert torch.equal(truth.class_masks[0, 2, 0], rows >= 2)
    assert not truth.class_masks[0, 1].any()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UsageError, match="wanted at least 1 a picture"):
        WindowSampling(0)
    with pytest.raises(RecordError, match="0 pictures and 0 targets"):
        WindowSampling(1).draw(Middle(), [], [])
    with pytest.raises(RecordError, match="label_map"):
        WindowSampling(1).draw(Middle(), [torch.zeros(1, 2, 2)], [Target()])
