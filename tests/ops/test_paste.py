import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.geometry.masks import encode_rle
from bestiary.ops import paste
from bestiary.ops.paste import paste_masks, paste_masks_continuous, paste_to_rles


def resized_and_placed(masks: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """The rule in words of torch's own resizing, one mask at a time, one pixel at a time."""
    out = torch.zeros(len(masks), *size_hw, dtype=masks.dtype)
    scale = (masks.shape[-1] + 2) / masks.shape[-1]
    for n, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        half_w, half_h = (box[2] - box[0]) * 0.5 * scale, (box[3] - box[1]) * 0.5 * scale
        middle_x, middle_y = (box[2] + box[0]) * 0.5, (box[3] + box[1]) * 0.5
        x1, x2, y1, y2 = (int(v) for v in (middle_x - half_w, middle_x + half_w, middle_y - half_h, middle_y + half_h))
        if x2 < x1 or y2 < y1:
            continue
        grown = F.interpolate(F.pad(mask[None], (1, 1, 1, 1)), (y2 - y1 + 1, x2 - x1 + 1), mode="bilinear")[0, 0]
        for y in range(max(y1, 0), min(y2 + 1, size_hw[0])):
            left, right = max(x1, 0), min(x2 + 1, size_hw[1])
            if left < right:
                out[n, y, left:right] = grown[y - y1, left - x1 : right - x1]
    return out


def sampled(masks: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """The continuous rule in words of torch's own grid sampling."""
    y, x = torch.arange(size_hw[0]) + 0.5, torch.arange(size_hw[1]) + 0.5
    x1, y1, x2, y2 = boxes.to(masks.dtype)[:, :, None].unbind(1)
    across = ((x - x1) / (x2 - x1) * 2 - 1)[:, None].expand(-1, len(y), -1)
    down = ((y - y1) / (y2 - y1) * 2 - 1)[:, :, None].expand(-1, -1, len(x))
    return F.grid_sample(masks, torch.stack([across, down], dim=-1).to(masks.dtype), align_corners=False)[:, 0]


def scenes(count: int = 40, samples: int = 28, size_hw: tuple[int, int] = (150, 210)) -> tuple[Tensor, Tensor]:
    """Boxes of 1 to 200 pixels inside, across borders, and around the picture."""
    g = torch.Generator().manual_seed(count)
    masks = torch.rand(count, 1, samples, samples, generator=g)
    centre = torch.rand(count, 2, generator=g) * torch.tensor(size_hw[::-1])
    extent = torch.exp(torch.rand(count, 2, generator=g) * 5.3)
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1)
    boxes[0] = torch.tensor([-50.0, -40, 260, 190])
    return masks, boxes


def test_pixels_are_torchvisions() -> None:
    # Of torchvision 0.28.0, roi_heads.paste_masks_in_image: pixels above 0.5 as bits, sums, and a row of values.
    masks = (torch.arange(4 * 25).reshape(4, 1, 5, 5) * 37 % 100).float() / 100
    boxes = torch.tensor([[2.3, 1.7, 9.6, 8.2], [-3, -2.5, 4, 5], [8, 6, 18, 13], [5, 5, 5, 5]])
    bits = ["18023808e02100e4019c00000000000", "300080018006001800000000000000000000000", "1e003000e001c003", "0"]
    sums = [29.722583988681436, 11.17613685876131, 15.818182123824954, 0.1899999976158142]
    row = [0.0, 0.28218749165534973, 0.721145749092102, 0.4112500548362732, 0.16875001788139343, 0.38458332419395447]
    row += [
        0.6004166007041931,
        0.8162499070167542,
        0.5737501978874207,
        0.22281256318092346,
        0.0871875137090683,
        0,
        0,
        0,
    ]
    above = paste_masks(masks, boxes, (11, 14))
    assert [format(int("".join(map(str, a.int().flatten().tolist())), 2), "x") for a in above] == bits
    values = paste_masks(masks, boxes, (11, 14), threshold=None)
    torch.testing.assert_close(values.double().sum((1, 2)).tolist(), sums, rtol=1e-6, atol=0)
    torch.testing.assert_close(values[0, 4], torch.tensor(row), rtol=0, atol=2e-7)


@pytest.mark.parametrize("samples", [1, 14, 28, 56])
def test_values_are_those_of_torchs_own_resizing(samples: int) -> None:
    size_hw = (150, 210)
    masks, boxes = scenes(samples=samples, size_hw=size_hw)
    wanted = resized_and_placed(masks, boxes, size_hw)
    got = paste_masks(masks, boxes, size_hw, threshold=None)
    torch.testing.assert_close(got, wanted, rtol=0, atol=2.5e-7)
    assert torch.equal(paste_masks(masks, boxes, size_hw), got > 0.5)
    # Torch's rounding follows the machine's instructions; with fused ones it is ours to the last bit.
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        assert torch.equal(got, wanted)


def test_run_lengths_are_those_of_the_pictures_on_any_number_of_threads() -> None:
    masks, boxes = scenes()
    wanted = [encode_rle(m) for m in paste_masks(masks, boxes, (150, 210), 0.6)]
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            assert paste_to_rles(masks, boxes, (150, 210), 0.6) == wanted
            assert [encode_rle(m) for m in paste_masks(masks, boxes, (150, 210), 0.6)] == wanted
        finally:
            torch.set_num_threads(before)
    assert paste_to_rles(masks[:0], boxes[:0], (5, 6)) == []


def test_the_continuous_rule_is_grid_sampling() -> None:
    masks, boxes = scenes()
    wanted = sampled(masks.double(), boxes.double(), (150, 210))
    got = paste_masks_continuous(masks, boxes, (150, 210), threshold=None)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-4)
    exact = paste_masks_continuous(masks.double(), boxes.double(), (150, 210), threshold=None)
    torch.testing.assert_close(exact, wanted, rtol=0, atol=1e-11)
    above = paste_masks_continuous(masks, boxes, (150, 210))
    assert torch.equal(above, got >= 0.5)


def test_exactly_at_the_threshold_the_rules_part() -> None:
    masks, boxes = torch.full((1, 1, 4, 4), 0.5), torch.tensor([[2.0, 2.0, 10.0, 10.0]])
    assert paste_masks(masks, boxes, (12, 12), None).max() == 0.5
    assert not paste_masks(masks, boxes, (12, 12)).any()
    assert paste_masks_continuous(masks, boxes, (12, 12))[0, 3:9, 3:9].all()
    assert paste_masks_continuous(masks, boxes, (12, 12), 0.1).sum() > 36
    tenth = torch.full((1, 1, 4, 4), 0.1)
    assert paste_masks_continuous(tenth, boxes, (12, 12), float(torch.tensor(0.1)))[0, 3:9, 3:9].all()


def test_a_full_mask_fills_its_box_within_one_pixel() -> None:
    boxes = torch.tensor([[3.0, 4.0, 13.0, 9.0]])
    for rule in (paste_masks, paste_masks_continuous):
        found = rule(torch.ones(1, 1, 28, 28), boxes, (20, 20))[0]
        assert found[5:8, 4:12].all()
        found[3:10, 2:14] = False
        assert not found.any()
    assert paste_masks_continuous(torch.ones(1, 1, 28, 28), boxes, (20, 20)).sum() == 50


def test_boxes_that_have_no_pixels_leave_the_picture_empty() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor(
        [[50.0, 50, 60, 60], [-60, -60, -50, -50], [5, 5, 1, 1], [nan, 0, 5, 5], [0, 0, inf, 5], [0, 0, 5, 1e30]]
    )
    masks = torch.ones(len(boxes), 1, 7, 7)
    for rule in (paste_masks, paste_masks_continuous):
        assert not rule(masks, boxes, (20, 20)).any()
        assert not rule(masks, boxes, (20, 20), None).any()
        assert rule(masks, boxes, (0, 20)).shape == (6, 0, 20)
        assert rule(masks[:0], boxes[:0], (20, 21)).shape == (0, 20, 21)
    assert {r.area() for r in paste_to_rles(masks, boxes, (20, 20))} == {0}


def test_plain_torch_equals_the_kernel() -> None:
    masks, boxes = scenes(12)
    for plan in (paste._whole_pixel_plan(boxes, 28, (150, 210)), paste._continuous_plan(boxes, 28, (150, 210))):
        soft = F.pad(masks, (1, 1, 1, 1))[:, 0]
        plain = paste._pasted_in_torch(soft, plan, None, torch.float32)
        kernel = paste._pasted(soft, plan, None, torch.float32)
        torch.testing.assert_close(plain, kernel, rtol=0, atol=2.5e-7)
        sure = (kernel - 0.5).abs() > 1e-6
        assert torch.equal(paste._pasted_in_torch(soft, plan, 0.5, torch.float32)[sure], (kernel > 0.5)[sure])


def test_half_precision_and_any_layout() -> None:
    masks, boxes = scenes(5)
    half = paste_masks(masks.half(), boxes, (150, 210), None)
    assert half.dtype == torch.float16
    assert torch.equal(half, paste_masks(masks.half().float(), boxes, (150, 210), None).half())
    turned = masks.transpose(2, 3).contiguous().transpose(2, 3).contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        paste_masks(turned, boxes.t().contiguous().t(), (150, 210)), paste_masks(masks, boxes, (150, 210))
    )


def test_gradients_flow() -> None:
    g = torch.Generator().manual_seed(1)
    masks = torch.rand(2, 1, 3, 3, generator=g, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[1.3, 0.6, 5.2, 4.9], [-1.4, 2.2, 3.3, 7.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: paste_masks(m, boxes.detach(), (6, 7), None), masks)
    assert torch.autograd.gradcheck(lambda m, b: paste_masks_continuous(m, b, (6, 7), None), (masks, boxes))
    single = masks.detach().float().requires_grad_()
    paste_masks(single, boxes.detach().float(), (6, 7), None).sum().backward()
    assert single.grad is not None
    assert (single.grad != 0).any()
    assert not paste_masks(single, boxes.detach().float(), (6, 7)).requires_grad


@pytest.mark.usefixtures("unchecked")
def test_compiled_and_exported_graphs_are_whole_and_equal() -> None:
    masks, boxes = scenes(4)

    class Paste(torch.nn.Module):
        def forward(self, m: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return paste_masks(m, b, (150, 210)), paste_masks_continuous(m, b, (150, 210), None)

    wanted = Paste()(masks, boxes)
    compiled = torch.compile(Paste(), fullgraph=True, backend="aot_eager")(masks, boxes)
    exported = torch.export.export(Paste(), (masks, boxes)).module()(masks, boxes)
    for got in (compiled, exported):
        assert (got[0] != wanted[0]).float().mean() < 1e-5
        torch.testing.assert_close(got[1], wanted[1], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_shapes_are_named() -> None:
    masks, boxes = scenes(3)
    for bad, words in ((masks[:, 0], "N, 1, M, M"), (masks[..., :5], "N, 1, M, M"), (masks[:2], "3 boxes, wanted 2")):
        with pytest.raises(RecordError, match=words):
            paste_masks(bad, boxes, (5, 5))
    with pytest.raises(RecordError, match="boxes_xyxy"):
        paste_to_rles(masks, boxes[:, :3], (5, 5))


def test_the_operator_is_registered_in_full() -> None:
    masks, boxes = scenes(3)
    plan = paste._whole_pixel_plan(boxes, 28, (30, 40))
    flat = [*plan.columns, *plan.rows, plan.at_once]
    for threshold in (None, 0.5):
        torch.library.opcheck(paste._paste, (F.pad(masks, (1, 1, 1, 1))[:, 0], flat, threshold))


def test_arrays_of_the_kernels_are_what_they_are_compiled_for() -> None:
    masks, boxes = scenes(3)
    _, columns, rows, at_once = paste._arrays(masks[:, 0], paste._continuous_plan(boxes, 28, (30, 40)))
    assert [a.dtype for a in (*columns, *rows)] == [np.int32, np.float32, np.int64] * 2
    assert at_once.dtype == np.bool_
