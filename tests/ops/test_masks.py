import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.geometry.masks import Rle, encode_rle, mask_to_box_xyxy
from bestiary.geometry.masks import mask_iou as plain_mask_iou
from bestiary.ops import masks as ops_masks
from bestiary.ops.masks import decode_rles, encode_rles, mask_iou, masks_to_boxes


def scenes(count: int = 9, height: int = 75, width: int = 139) -> Tensor:
    """Ellipses, noise, everything, nothing, single pixels in two corners."""
    g = torch.Generator().manual_seed(3)
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    centre, radius = (
        torch.rand(count, 2, generator=g) * torch.tensor([height, width]),
        torch.rand(count, 2, generator=g),
    )
    masks = torch.stack(
        [
            ((y - c[0]) / (3 + 40 * r[0])) ** 2 + ((x - c[1]) / (3 + 60 * r[1])) ** 2 < 1
            for c, r in zip(centre, radius, strict=True)
        ]
    )
    masks[0] = torch.rand(height, width, generator=g) < 0.5
    masks[1], masks[2], masks[3], masks[4] = True, False, False, False
    masks[3, 0, 0] = masks[4, -1, -1] = True
    return masks


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_equal_single_masks_and_pycocotools_on_any_number_of_threads(threads: int) -> None:
    masks, before = scenes(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rles = encode_rles(masks)
        assert torch.equal(decode_rles(rles), masks)
    finally:
        torch.set_num_threads(before)
    assert rles == [encode_rle(m) for m in masks]
    theirs = coco.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy().astype(np.uint8)))
    assert [r.to_coco()["counts"] for r in rles] == [t["counts"].decode() for t in theirs]


def test_any_layout_and_no_masks() -> None:
    masks = scenes()
    assert encode_rles(masks.permute(2, 0, 1).contiguous().permute(1, 2, 0)) == encode_rles(masks)
    assert encode_rles(masks[::2]) == encode_rles(masks)[::2]
    assert encode_rles(masks[:0]) == []
    assert decode_rles([]).shape == (0, 0, 0)
    assert decode_rles([], (4, 5)).shape == (0, 4, 5)
    assert [r.counts.tolist() for r in encode_rles(torch.zeros(2, 0, 3).bool())] == [[0], [0]]


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named() -> None:
    masks = scenes()
    with pytest.raises(RecordError, match=r"wanted torch\.bool"):
        encode_rles(masks.float())
    with pytest.raises(RecordError, match=r"wanted \(N, H, W\)"):
        masks_to_boxes(masks[0])
    with pytest.raises(RecordError, match="masks of"):
        mask_iou(masks, masks[:, 1:])
    with pytest.raises(RecordError, match="crowd"):
        mask_iou(masks, masks, torch.zeros(2).bool())
    with pytest.raises(RecordError, match="as the first"):
        decode_rles([encode_rle(masks[0]), encode_rle(masks[0, :5])])
    with pytest.raises(RecordError, match="that of the masks"):
        decode_rles([encode_rle(masks[0])], (3, 3))


def test_overlaps_equal_the_matrix_product_and_hand_worked_numbers() -> None:
    masks = scenes()
    crowd = torch.arange(5) % 2 == 0
    assert torch.equal(mask_iou(masks, masks[:5], crowd), plain_mask_iou(masks, masks[:5], crowd))
    assert torch.equal(mask_iou(masks, masks), plain_mask_iou(masks, masks))
    a, b = torch.zeros(1, 3, 3).bool(), torch.zeros(1, 3, 3).bool()
    a[0, :2], b[0, 1:] = True, True
    assert mask_iou(a, b).item() == pytest.approx(3 / 9)
    assert mask_iou(a, b, torch.tensor([True])).item() == pytest.approx(3 / 6)
    assert mask_iou(a & ~a, b & ~b).item() == 0
    assert mask_iou(a[:0], b).shape == (0, 1)
    assert mask_iou(a, b[:0]).shape == (1, 0)


def test_boxes_are_torchvisions() -> None:
    masks = scenes()
    got = masks_to_boxes(masks)
    for mask, box in zip(masks, got, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        wanted = [x.min(), y.min(), x.max(), y.max()] if len(x) else [0, 0, 0, 0]
        assert box.tolist() == wanted
        if len(x):
            assert torch.equal(mask_to_box_xyxy(mask), box + torch.tensor([0, 0, 1, 1]))
    assert torch.equal(got, ops_masks._bounds_in_torch(masks))
    assert torch.equal(masks_to_boxes(masks * 0.25), got)
    assert torch.equal(masks_to_boxes(masks.to(torch.uint8) * 8), got)
    assert masks_to_boxes(masks[:0]).shape == (0, 4)
    assert masks_to_boxes(torch.zeros(2, 0, 3).bool()).tolist() == [[0.0] * 4] * 2


@pytest.mark.usefixtures("unchecked")
def test_compiled_and_exported_graphs_are_whole_and_equal() -> None:
    masks = scenes()
    both = lambda m: (mask_iou(m, m[:4]), masks_to_boxes(m))  # noqa: E731
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(masks), both(masks), strict=True):
        assert torch.equal(got, wanted)

    class Both(torch.nn.Module):
        def forward(self, m: Tensor) -> tuple[Tensor, Tensor]:
            return both(m)

    exported = torch.export.export(Both(), (masks,)).module()
    for got, wanted in zip(exported(masks), both(masks), strict=True):
        assert torch.equal(got, wanted)


def test_operators_are_registered_in_full() -> None:
    masks = scenes()
    torch.library.opcheck(ops_masks._bounds, (masks,))
    torch.library.opcheck(ops_masks._common_pixels, (masks, masks[:2]))


def test_decoded_masks_do_not_share_memory() -> None:
    rle = Rle((2, 2), np.array([0, 4], np.int32))
    first, second = decode_rles([rle, rle])
    first[:] = False
    assert second.all()


def test_masks_to_boxes_of_the_reference_and_continuous() -> None:
    masks = torch.zeros(3, 5, 6)
    masks[0, 1:3, 2:5], masks[1, 4, 0] = 1, 2
    assert masks_to_boxes(masks).tolist() == [[2, 1, 4, 2], [0, 4, 0, 4], [0, 0, 0, 0]]
    assert masks_to_boxes(masks, inclusive=False).tolist() == [[2, 1, 5, 3], [0, 4, 1, 5], [0, 0, 0, 0]]
    assert torch.equal(masks_to_boxes(masks.bool()), masks_to_boxes(masks))
    assert masks_to_boxes(masks[:0]).shape == (0, 4)
    assert masks_to_boxes(torch.zeros(2, 0, 5)).tolist() == [[0, 0, 0, 0]] * 2
    with pytest.raises(Exception, match="masks"):
        masks_to_boxes(masks[0])
