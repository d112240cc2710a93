"""Masks as run lengths.

Convention: COCO's. Column by column, starting with the number of zeros (maybe 0), zeros and ones in turn. What is made
here is canonical: no run but the first is empty. Text, areas, boxes, unions and overlaps agree with pycocotools to the
last bit. Boxes are `xyxy` at the pixels' outer edges; an empty mask has area 0 and the box (0, 0, 0, 0).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.records import require


@dataclass(frozen=True, eq=False)
class Rle:
    """A mask as run lengths.

    Attributes:
        size_hw: of the mask.
        counts: lengths of the runs of zeros and ones in turn, column-major; they sum to height x width.
    """

    size_hw: tuple[int, int]
    counts: Int32[np.ndarray, " K"]

    def __post_init__(self) -> None:
        height, width = self.size_hw
        require(height >= 0 and width >= 0, "Rle.size_hw", self.size_hw, "two numbers of pixels")
        require(len(self.counts) > 0, "Rle.counts", "no run", "at least one")
        low, total = int(self.counts.min()), int(self.counts.sum(dtype=np.int64))
        require(low >= 0, "Rle.counts", f"a run of {low} pixels", "0 or more")
        require(total == height * width, "Rle.counts", f"{total} pixels", f"{height} x {width} = {height * width}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rle) and self.size_hw == other.size_hw and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.size_hw, self.counts.tobytes()))

    @classmethod
    def trusted(cls, size_hw: tuple[int, int], counts: Int32[np.ndarray, " K"]) -> "Rle":
        """Unchecked: of counts that a kernel made: checking them would take as long as making them."""
        made = object.__new__(cls)
        object.__setattr__(made, "size_hw", size_hw)
        object.__setattr__(made, "counts", counts)
        return made

    @classmethod
    def from_coco(cls, coco: Mapping[str, Any]) -> "Rle":
        """From COCO's dictionary: `size` [height, width] and `counts`, a text, bytes, or a list of lengths.

        Raises:
            RecordError: a key is missing, or the counts are no run lengths of a mask of that size.
        """
        for key in ("size", "counts"):
            require(key in coco, "Rle.from_coco", f"keys {sorted(map(str, coco))}", f"also {key!r}")
        try:
            height, width = (int(side) for side in coco["size"])
        except (TypeError, ValueError) as error:
            raise RecordError(f"got {coco['size']!r}, wanted [height, width]", where="Rle.from_coco(size)") from error
        counts = coco["counts"]
        if isinstance(counts, str | bytes):
            return cls((height, width), _read_text(counts))
        try:
            lengths = np.asarray(counts, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RecordError(f"got {counts!r}, wanted whole numbers", where="Rle.from_coco(counts)") from error
        whole = lengths.ndim == 1 and bool((lengths == np.floor(lengths)).all()) and bool((lengths < 2**31).all())
        require(whole, "Rle.from_coco(counts)", shortened(counts), "a list of whole numbers below 2^31, or COCO's text")
        return cls((height, width), lengths.astype(np.int32))

    def to_coco(self) -> dict[str, Any]:
        """COCO's dictionary with compressed text: `{"size": [height, width], "counts": text}`."""
        from bestiary.geometry._kernels.runs import to_text

        return {"size": list(self.size_hw), "counts": to_text(self.counts).tobytes().decode("ascii")}

    def decode(self) -> Bool[Tensor, "H W"]:
        """The mask, pixel by pixel."""
        from bestiary.geometry._kernels.pixels import decode

        pixels = np.empty((1, *self.size_hw), np.uint8)
        if pixels.size:
            decode(self.counts, np.array([0, len(self.counts)]), 0, 1, pixels)
        return torch.from_numpy(pixels[0].view(np.bool_))

    def area(self) -> int:
        """Number of pixels in the mask."""
        return int(self.counts[1::2].sum(dtype=np.int64))

    def box_xyxy(self) -> Float32[Tensor, " 4"]:
        """The smallest box around the mask's pixels; all zeros for an empty mask."""
        return rle_boxes_xyxy([self])[0]


def _read_text(text: str | bytes) -> Int32[np.ndarray, " K"]:
    from bestiary.geometry._kernels.runs import BAD_CHARACTER, BAD_END, from_text

    raw = text.encode("latin-1", "replace") if isinstance(text, str) else text
    counts = np.zeros(max(1, len(raw)), np.int64)
    used = from_text(np.frombuffer(raw, np.uint8), counts)
    where, wanted = "Rle.from_coco(counts)", 'COCO\'s text (characters "0" to "o")'
    require(used != BAD_CHARACTER, where, shortened(text), wanted)
    require(used != BAD_END, where, f"{shortened(text)}, which ends within a number", wanted)
    counts = counts[:used]
    fits = not used or bool((counts < 2**31).all() and (counts >= 0).all())
    require(
        fits, where, f"runs of {counts.min() if used else 0} to {counts.max() if used else 0} pixels", "0 to 2^31 - 1"
    )
    return counts.astype(np.int32)


def shortened(value: object) -> str:
    """`repr`, cut to a line's worth for messages."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def encode_rle(mask: Bool[Tensor, "H W"]) -> Rle:
    """Run lengths of a mask, pixel by pixel, canonical.

    `ops.encode_rles` encodes many, in threads.
    """
    from bestiary.geometry._kernels.pixels import encode

    height, width = mask.shape
    pixels = mask.detach().cpu().contiguous().numpy().view(np.uint8)
    if not pixels.size:
        return Rle.trusted((height, width), np.zeros(1, np.int32))
    counts, _ = encode(pixels[None], np.zeros((1, 2), np.int64), 0, 1, height, width)
    return Rle.trusted((height, width), counts)


def joined_counts(masks: Sequence[Rle]) -> tuple[Int32[np.ndarray, " K"], Int64[np.ndarray, " N1"]]:
    """The counts of all masks, one after the other, and where each mask's begin (and the last's end)."""
    if len(masks) == 1:
        return masks[0].counts, np.array([0, len(masks[0].counts)], np.int64)
    starts = list(itertools.accumulate((len(m.counts) for m in masks), initial=0))
    counts = np.concatenate([m.counts for m in masks]) if masks else np.zeros(0, np.int32)
    return counts, np.array(starts, np.int64)


def one_size(masks: Sequence[Rle], where: str) -> tuple[int, int]:
    """The size of all masks, (0, 0) of none; `RecordError` naming `where` if they differ."""
    size_hw = masks[0].size_hw if masks else (0, 0)
    for mask in masks:
        if mask.size_hw != size_hw:  # the message is made only when it is needed
            require(False, where, f"a mask of size {mask.size_hw}", f"{size_hw}, as the first")
    return size_hw


def rle_areas(masks: Sequence[Rle]) -> Int64[Tensor, " N"]:
    """Number of pixels in each mask; the masks may differ in size."""
    from bestiary.geometry._kernels.runs import run_areas

    return torch.from_numpy(run_areas(*joined_counts(masks)))


def rle_boxes_xyxy(masks: Sequence[Rle]) -> Float32[Tensor, "N 4"]:
    """The smallest box around each mask's pixels, outer edges; zeros for an empty mask.

    Raises:
        RecordError: different sizes.
    """
    from bestiary.geometry._kernels.runs import measure

    height, _ = one_size(masks, "rle_boxes_xyxy")
    areas, boxes = np.empty(len(masks), np.int64), np.empty((len(masks), 4), np.float32)
    measure(*joined_counts(masks), height, areas, boxes)
    return torch.from_numpy(boxes)


def rle_union(masks: Sequence[Rle]) -> Rle:
    """The pixels that belong to any of the masks.

    Raises:
        RecordError: no mask, or different sizes.
    """
    return _merged(masks, "rle_union", intersect=False)


def rle_intersection(masks: Sequence[Rle]) -> Rle:
    """The pixels that belong to all of the masks.

    Raises:
        RecordError: no mask, or different sizes.
    """
    return _merged(masks, "rle_intersection", intersect=True)


def _merged(masks: Sequence[Rle], where: str, intersect: bool) -> Rle:
    from bestiary.geometry._kernels.bits import merge

    require(len(masks) > 0, where, "no mask", "at least one")
    size_hw = one_size(masks, where)
    return Rle.trusted(size_hw, merge(*joined_counts(masks), intersect))


def rle_iou(masks: Sequence[Rle], truths: Sequence[Rle], crowd: Sequence[bool] | None = None) -> Float64[Tensor, "N M"]:
    """Overlap of found masks with true ones: intersection over union, or, with a crowd, over the found mask's own area.

    Args:
        masks: N found masks.
        truths: M true masks, all of one size.
        crowd: whether each truth covers a group (COCO's iscrowd); none if not given.

    Raises:
        RecordError: sizes differ.
    """
    from bestiary.geometry._kernels.runs import overlap_of_two, overlaps

    height, _ = one_size((*masks, *truths), "rle_iou")
    given = [False] * len(truths) if crowd is None else list(crowd)
    require(len(given) == len(truths), "rle_iou(crowd)", f"{len(given)} entries", f"{len(truths)}, one a truth")
    if len(masks) == len(truths) == 1:
        return torch.from_numpy(overlap_of_two(masks[0].counts, truths[0].counts, bool(given[0])))
    group = np.array(given, np.bool_)
    return torch.from_numpy(overlaps(*joined_counts(masks), *joined_counts(truths), height, group))
