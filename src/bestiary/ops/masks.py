"""Many masks at once: run lengths, overlaps and boxes, in torch's number of threads.

Convention: masks are [N, H, W]; run lengths are COCO's (`geometry.rle`). On the CPU 64 pixels are handled at a time.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped
from torch import Tensor

from bestiary.geometry.masks import Rle
from bestiary.geometry.rle import joined_counts, one_size
from bestiary.ops.exporting import exporting
from bestiary.records import require

__all__ = ["decode_rles", "encode_rles", "mask_iou", "masks_to_boxes"]


def encode_rles(masks: Bool[Tensor, "N H W"]) -> list[Rle]:
    """Run lengths of each mask, canonical; `Rle.to_coco` gives COCO's text.

    Args:
        masks: on any device, of any layout; run lengths live on the CPU.

    Raises:
        RecordError: not [N, H, W], or not bool.
    """
    from bestiary.geometry._kernels.pixels import encode
    from bestiary.ops._kernels.threads import in_threads

    _require_masks("encode_rles(masks)", masks)
    count, height, width = masks.shape
    pixels = masks.detach().cpu().contiguous().numpy().view(np.uint8)
    if not height * width:
        return [Rle.trusted((height, width), np.zeros(1, np.int32)) for _ in range(count)]
    corner = np.zeros((1, 2), np.int64)
    found: dict[int, list[Rle]] = {}

    def work(start: int, stop: int) -> None:
        counts, starts = encode(pixels, corner, start, stop, height, width)
        # Copies: one mask must not keep the counts of all alive.
        found[start] = [Rle.trusted((height, width), counts[a:b].copy()) for a, b in itertools.pairwise(starts)]

    in_threads(work, count, torch.get_num_threads())
    return [rle for start in sorted(found) for rle in found[start]]


def decode_rles(rles: Sequence[Rle], size_hw: tuple[int, int] | None = None) -> Bool[Tensor, "N H W"]:
    """Masks, pixel by pixel, on the CPU.

    Args:
        rles: of one size.
        size_hw: theirs; needed only where there may be none, which gives [0, 0, 0] without it.

    Raises:
        RecordError: different sizes.
    """
    from bestiary.geometry._kernels.pixels import decode
    from bestiary.ops._kernels.threads import in_threads

    found = one_size(rles, "decode_rles")
    size_hw = size_hw or found
    require(not rles or tuple(size_hw) == found, "decode_rles(size_hw)", size_hw, f"{found}, that of the masks")
    masks = torch.empty(len(rles), *size_hw, dtype=torch.bool)
    if masks.numel():
        counts, starts = joined_counts(rles)
        pixels = masks.numpy().view(np.uint8)
        in_threads(lambda a, b: decode(counts, starts, a, b, pixels), len(rles), torch.get_num_threads())
    return masks


def mask_iou(
    masks: Bool[Tensor, "N H W"], truths: Bool[Tensor, "M H W"], crowd: Bool[Tensor, " M"] | None = None
) -> Float[Tensor, "N M"]:
    """Overlap of each pair of masks: intersection over union, or, with a crowd, over the found mask's own area.

    Convention: float32, 0..1; 0 where there is nothing to divide by. Areas are exact up to 2^24 pixels.

    Args:
        masks: N found masks.
        truths: M true masks of the same size.
        crowd: whether each truth covers a group (COCO's iscrowd); none if not given.

    Raises:
        RecordError: shapes do not fit, or not bool.
    """
    _require_masks("mask_iou(masks)", masks)
    _require_masks("mask_iou(truths)", truths)
    require(
        masks.shape[1:] == truths.shape[1:],
        "mask_iou(truths)",
        f"shape {tuple(truths.shape)}",
        f"masks of {tuple(masks.shape[1:])}",
    )
    fits = crowd is None or crowd.shape == truths.shape[:1]
    require(fits, "mask_iou(crowd)", f"shape {None if crowd is None else tuple(crowd.shape)}", f"({truths.shape[0]},)")
    shared, area, truth_area = _common_in_torch(masks, truths) if exporting() else _common_pixels(masks, truths)
    below = area[:, None] + truth_area[None] - shared
    if crowd is not None:
        below = torch.where(crowd[None], area[:, None], below)
    return shared / below.clamp(min=1)


def _common_in_torch(
    masks: Bool[Tensor, "N H W"], truths: Bool[Tensor, "M H W"]
) -> tuple[Float[Tensor, "N M"], Float[Tensor, " N"], Float[Tensor, " M"]]:
    """Shared areas by one matrix product, and the masks' own."""
    flat, true = masks.flatten(1).float(), truths.flatten(1).float()
    return flat @ true.t(), flat.sum(dim=1), true.sum(dim=1)


@torch.library.custom_op("bestiary::common_pixels", mutates_args=())
def _common_pixels(masks: Tensor, truths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if masks.device.type != "cpu":
        return _common_in_torch(masks, truths)
    from bestiary.ops._kernels.masks import common_pixels, count_pixels, pack
    from bestiary.ops._kernels.threads import in_threads

    threads = torch.get_num_threads()

    def packed(some: Tensor) -> np.ndarray:
        pixels = (
            some.detach().contiguous().numpy().view(np.uint8).reshape(len(some), some[:1].numel() if len(some) else 0)
        )
        words = np.empty((len(some), -(-pixels.shape[1] // 64)), np.uint64)
        in_threads(lambda a, b: pack(pixels, a, b, words), len(some), threads)
        return words

    first, second = packed(masks), packed(truths)
    shared = np.zeros((len(masks), len(truths)), np.int64)
    if shared.size:
        in_threads(lambda a, b: common_pixels(first, second, a, b, shared), len(masks), threads)
    areas = [torch.from_numpy(count_pixels(words)).float() for words in (first, second)]
    return torch.from_numpy(shared).float(), areas[0], areas[1]


@_common_pixels.register_fake
def _(masks: Tensor, truths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    new = [masks.new_empty(s, dtype=torch.float32) for s in ((len(masks), len(truths)), (len(masks),), (len(truths),))]
    return new[0], new[1], new[2]


def masks_to_boxes(masks: Shaped[Tensor, "N H W"], inclusive: bool = True) -> Float32[Tensor, "N 4"]:
    """The smallest box around the pixels of each mask that are not zero.

    Convention: as torchvision, the ends are indices of the outermost pixels, so that a mask of one pixel gives an empty
    box; with `inclusive` False, the continuous box that those pixels cover, as everywhere else in the library. A mask
    without a pixel gives (0, 0, 0, 0) in both.

    Args:
        masks: of any type.
        inclusive: whether the last row and column are given by their index.

    Raises:
        RecordError: masks are not [N, H, W].
    """
    require(masks.ndim == 3, "masks_to_boxes(masks)", f"shape {tuple(masks.shape)}", "(N, H, W)")
    pixels = masks if masks.dtype == torch.bool else masks != 0
    boxes = _bounds_in_torch(pixels) if exporting() else _bounds(pixels)
    if inclusive:
        return boxes
    beyond = pixels.flatten(1).any(dim=1, keepdim=True).float()
    return boxes + torch.cat([torch.zeros_like(beyond).expand(-1, 2), beyond.expand(-1, 2)], dim=1)


def _bounds_in_torch(masks: Bool[Tensor, "N H W"]) -> Float32[Tensor, "N 4"]:
    if not masks.numel():
        return torch.zeros(masks.shape[0], 4, device=masks.device)
    sides = []
    for line in (masks.any(dim=1).to(torch.int32), masks.any(dim=2).to(torch.int32)):
        sides += [line.argmax(dim=1), line.shape[1] - 1 - line.flip(1).argmax(dim=1)]
    boxes = torch.stack([sides[0], sides[2], sides[1], sides[3]], dim=1)
    return (boxes * masks.flatten(1).any(dim=1, keepdim=True)).float()


@torch.library.custom_op("bestiary::mask_bounds", mutates_args=())
def _bounds(masks: Tensor) -> Tensor:
    if masks.device.type != "cpu" or not masks.numel():
        return _bounds_in_torch(masks)
    from bestiary.ops._kernels.masks import bounds
    from bestiary.ops._kernels.threads import in_threads

    pixels = masks.detach().contiguous().numpy().view(np.uint8)
    boxes = np.empty((len(masks), 4), np.int64)
    in_threads(lambda a, b: bounds(pixels, a, b, boxes), len(masks), torch.get_num_threads())
    return torch.from_numpy(boxes).clamp_(min=0).float()


@_bounds.register_fake
def _(masks: Tensor) -> Tensor:
    return masks.new_empty((masks.shape[0], 4), dtype=torch.float32)


def _require_masks(where: str, masks: Tensor) -> None:
    require(masks.ndim == 3, where, f"shape {tuple(masks.shape)}", "(N, H, W)")
    require(masks.dtype == torch.bool, where, str(masks.dtype), "torch.bool")
