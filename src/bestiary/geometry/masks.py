"""Masks as run lengths, polygons and pixels.

Run lengths are COCO's: column by column, starting with the number of zeros (maybe 0), zeros and ones in turn. Text,
areas, boxes, overlaps and polygons agree with pycocotools to the last bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32
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
        require(
            whole, "Rle.from_coco(counts)", _shortened(counts), "a list of whole numbers below 2^31, or COCO's text"
        )
        return cls((height, width), lengths.astype(np.int32))

    def to_coco(self) -> dict[str, Any]:
        """COCO's dictionary with compressed text: `{"size": [height, width], "counts": text}`."""
        from bestiary.geometry._kernels.runs import to_text

        return {"size": list(self.size_hw), "counts": to_text(self.counts).tobytes().decode("ascii")}

    def decode(self) -> Bool[Tensor, "H W"]:
        """The mask, pixel by pixel."""
        height, width = self.size_hw
        values = np.zeros(len(self.counts), np.bool_)
        values[1::2] = True
        columns = np.repeat(values, self.counts).reshape(width, height)
        return torch.from_numpy(np.ascontiguousarray(columns.T))

    def area(self) -> int:
        """Number of pixels in the mask."""
        return int(self.counts[1::2].sum(dtype=np.int64))

    def box_xyxy(self) -> Float32[Tensor, " 4"]:
        """The smallest box around the mask's pixels; all zeros for an empty mask."""
        height = self.size_hw[0]
        ends = np.cumsum(self.counts, dtype=np.int64)
        first, last = ends[:-1:2], ends[1::2] - 1
        first, last = first[: len(last)][last >= first[: len(last)]], last[last >= first[: len(last)]]
        if not len(first):
            return torch.zeros(4)
        # A run that goes on in the next column covers the bottom of the one and the top of the other.
        spans = bool((first // height != last // height).any())
        top, bottom = (0, height) if spans else (int((first % height).min()), int((last % height).max()) + 1)
        return torch.tensor([int(first[0]) // height, top, int(last[-1]) // height + 1, bottom], dtype=torch.float32)


def _read_text(text: str | bytes) -> Int32[np.ndarray, " K"]:
    from bestiary.geometry._kernels.runs import BAD_CHARACTER, BAD_END, from_text

    raw = text.encode("latin-1", "replace") if isinstance(text, str) else text
    counts = np.zeros(max(1, len(raw)), np.int64)
    used = from_text(np.frombuffer(raw, np.uint8), counts)
    where, wanted = "Rle.from_coco(counts)", 'COCO\'s text (characters "0" to "o")'
    require(used != BAD_CHARACTER, where, _shortened(text), wanted)
    require(used != BAD_END, where, f"{_shortened(text)}, which ends within a number", wanted)
    counts = counts[:used]
    fits = not used or bool((counts < 2**31).all() and (counts >= 0).all())
    require(
        fits, where, f"runs of {counts.min() if used else 0} to {counts.max() if used else 0} pixels", "0 to 2^31 - 1"
    )
    return counts.astype(np.int32)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def encode_rle(mask: Bool[Tensor, "H W"]) -> Rle:
    """Run lengths of a mask, canonical: no run but the first is empty."""
    height, width = mask.shape
    columns = mask.detach().cpu().t().contiguous().numpy().reshape(-1)
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    begin = [0, 0] if len(columns) and columns[0] else [0]
    ends = np.concatenate([begin, changes, [len(columns)]])
    return Rle((height, width), np.diff(ends).astype(np.int32))


def rle_union(masks: Sequence[Rle]) -> Rle:
    """The pixels that belong to any of the masks.

    Raises:
        RecordError: no mask, or different sizes.
    """
    from bestiary.geometry._kernels.runs import union

    require(len(masks) > 0, "rle_union", "no mask", "at least one")
    counts = masks[0].counts
    for mask in masks:
        require(
            mask.size_hw == masks[0].size_hw, "rle_union", f"size {mask.size_hw}", f"{masks[0].size_hw}, as the first"
        )
        counts = union(counts, mask.counts)
    return Rle(masks[0].size_hw, counts)


def polygons_to_rle(polygons: Sequence[Sequence[int | float] | np.ndarray], size_hw: tuple[int, int]) -> Rle:
    """The union of polygons, each filled by the even-odd rule, as COCO rasterises them.

    Args:
        polygons: each flat x, y, x, y ...; continuous pixels; at least three points; may leave the picture.
        size_hw: of the mask.

    Raises:
        RecordError: no polygon, or one with fewer points, half a point, or numbers that are not finite or beyond 10^8.
    """
    from bestiary.geometry._kernels.runs import polygon_toggles, toggles_to_counts

    height, width = size_hw
    require(len(polygons) > 0, "polygons", "none", "at least one")
    parts = []
    for i, polygon in enumerate(polygons):
        points = _points(polygon, f"polygons[{i}]")
        toggles = np.empty(1024, np.int64)
        used = polygon_toggles(points, height, width, toggles)
        if used > len(toggles):
            toggles = np.empty(used, np.int64)
            polygon_toggles(points, height, width, toggles)
        parts.append(Rle(size_hw, toggles_to_counts(np.sort(toggles[:used]), height * width)))
    return rle_union(parts)


def polygons_to_mask(
    polygons: Sequence[Sequence[int | float] | np.ndarray], size_hw: tuple[int, int]
) -> Bool[Tensor, "H W"]:
    """`polygons_to_rle`, pixel by pixel."""
    return polygons_to_rle(polygons, size_hw).decode()


def _points(polygon: Sequence[int | float] | np.ndarray, where: str) -> Float64[np.ndarray, "P 2"]:
    try:
        flat = np.asarray(polygon, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise RecordError(f"got {_shortened(polygon)}, wanted numbers x, y, x, y ...", where=where) from error
    fits = len(flat) >= 6 and len(flat) % 2 == 0
    require(fits, where, f"{len(flat)} numbers", "x, y of at least three points")
    # Beyond, the fine grid's integers would overflow before the polygon could matter to any picture.
    sane = bool((np.abs(flat) <= 1e8).all())
    require(sane, where, _shortened(flat.tolist()), "finite numbers within 10^8")
    return flat.reshape(-1, 2)


def mask_to_polygons(mask: Bool[Tensor, "H W"]) -> list[Float64[np.ndarray, " P2"]]:
    """Outlines of a mask's connected parts, flat x, y in continuous pixels, largest first.

    Only outer outlines are given, as polygon formats have no holes. Parts touch at corners (8-connected); outlines run
    a quarter of a pixel inside the pixels' borders. `polygons_to_mask` of the result is the mask with its holes filled,
    exactly.
    """
    import cv2

    pixels = mask.detach().cpu().numpy().astype(np.uint8)
    # Twice the size: each pixel is 2 x 2, and the outline's centres can be moved to the pixels' outer borders.
    doubled = pixels.repeat(2, axis=0).repeat(2, axis=1)
    outlines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = sorted(outlines, key=cv2.contourArea, reverse=True)
    return [(o.reshape(-1, 2).astype(np.float64) * 0.5 + 0.25).reshape(-1) for o in found if len(o) >= 3]


def mask_to_box_xyxy(mask: Bool[Tensor, "H W"]) -> Float32[Tensor, " 4"]:
    """The smallest box around the mask's pixels; all zeros for an empty mask."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return torch.zeros(4, device=mask.device)
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def rle_iou(masks: Sequence[Rle], truths: Sequence[Rle], crowd: Sequence[bool] | None = None) -> Float64[Tensor, "N M"]:
    """Overlap of found masks with true ones: intersection over union, or, with a crowd, over the found mask's own area.

    Args:
        masks: N found masks.
        truths: M true masks, all of one size.
        crowd: whether each truth covers a group (COCO's iscrowd); none if not given.

    Raises:
        RecordError: sizes differ.
    """
    from bestiary.geometry._kernels.runs import shared_areas

    sizes = {m.size_hw for m in (*masks, *truths)}
    require(len(sizes) <= 1, "rle_iou", f"masks of the sizes {sorted(sizes)}", "one size")
    crowd = [False] * len(truths) if crowd is None else crowd
    require(len(crowd) == len(truths), "rle_iou(crowd)", f"{len(crowd)} entries", f"{len(truths)}, one a truth")
    inter = np.zeros((len(masks), len(truths)))
    if inter.size:
        shared_areas(*_flattened(masks), *_flattened(truths), inter)
    area, truth_area = np.array([m.area() for m in masks]), np.array([m.area() for m in truths])
    group = np.array(crowd, np.bool_)[None]
    below = np.where(group, area[:, None], area[:, None] + truth_area[None] - inter)
    return torch.from_numpy(np.divide(inter, below, out=np.zeros_like(inter), where=inter > 0))


def _flattened(masks: Sequence[Rle]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All counts in a row, where each mask's begin, and the boxes around the masks."""
    starts = np.cumsum([0, *(len(m.counts) for m in masks)])
    boxes = torch.stack([m.box_xyxy() for m in masks]).numpy()
    return np.concatenate([m.counts for m in masks]), starts, boxes


def mask_iou(
    masks: Bool[Tensor, "N H W"], truths: Bool[Tensor, "M H W"], crowd: Bool[Tensor, " M"] | None = None
) -> Float[Tensor, "N M"]:
    """`rle_iou` of masks given pixel by pixel, on any device; 0 where there is nothing to divide by.

    One matrix product; sums of up to 2^24 pixels (4096 x 4096) are exact.
    """
    flat, true = masks.flatten(1).float(), truths.flatten(1).float()
    inter = flat @ true.t()
    area, truth_area = flat.sum(dim=1), true.sum(dim=1)
    below = area[:, None] + truth_area[None] - inter
    if crowd is not None:
        below = torch.where(crowd[None], area[:, None], below)
    return inter / below.clamp(min=1)
