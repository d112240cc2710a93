"""Masks of a whole data set as compressed run lengths: a few bytes a run, in one array of characters.

Overlap is exact and needs no pixels. Convention: COCO's run lengths, column by column, starting with zeros; boxes
around masks are x, y, width, height.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int32, Int64, UInt8
from torch import Tensor

from bestiary.errors import DataError, RecordError
from bestiary.geometry.masks import Rle, encode_rle, polygons_to_rle
from bestiary.metrics.coco_entries import Entries, MaskColumns
from bestiary.ops._kernels.threads import in_threads

_GRAIN = 64


@dataclass(frozen=True, eq=False)
class RunTexts:
    """N masks.

    Attributes:
        text: all run lengths in COCO's compressed form.
        starts: where each mask's begin, and where the last ends.
        sizes_hw: of the pictures.
        areas: pixels in each mask.
        boxes_xywh: around each mask, zeros around an empty one.
    """

    text: UInt8[np.ndarray, " L"]
    starts: Int64[np.ndarray, " bounds"]
    sizes_hw: Int32[np.ndarray, "N 2"]
    areas: Float64[np.ndarray, " N"]
    boxes_xywh: Float64[np.ndarray, "N 4"]

    def __len__(self) -> int:
        return len(self.areas)

    @classmethod
    def of(
        cls, text: UInt8[np.ndarray, " L"], starts: Int64[np.ndarray, " bounds"], sizes_hw: Int32[np.ndarray, "N 2"]
    ) -> "RunTexts":
        """Measure the masks.

        Raises:
            RecordError: a text is no mask of its size.
        """
        from bestiary.metrics._kernels import masks

        areas, boxes = np.zeros(len(sizes_hw)), np.zeros((len(sizes_hw), 4))
        bad: list[int] = []

        def work(first: int, last: int) -> None:
            row = masks.measure(text, starts, sizes_hw, first, last, areas, boxes)
            if row >= 0:
                bad.append(row)

        in_threads(work, len(sizes_hw), torch.get_num_threads(), _GRAIN)
        if bad:
            row = min(bad)
            counts = text[starts[row] : starts[row + 1]].tobytes()
            try:
                Rle.from_coco({"size": sizes_hw[row].tolist(), "counts": counts})
            except RecordError as error:
                raise RecordError(error.message, where=f"mask {row}") from error
        return cls(text, starts, sizes_hw, areas, boxes)

    @classmethod
    def joined(
        cls, texts: Sequence[UInt8[np.ndarray, " _"]], sizes_hw: Sequence[tuple[int, int]] | Int32[np.ndarray, "N 2"]
    ) -> "RunTexts":
        """Masks given one by one."""
        starts = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)
        sizes = np.array(sizes_hw, np.int32).reshape(-1, 2)
        return cls.of(np.concatenate([np.zeros(0, np.uint8), *texts]), starts, sizes)

    def take(self, rows: Int64[np.ndarray, " M"]) -> "RunTexts":
        """The masks of `rows`, in that order."""
        from bestiary.metrics._kernels import masks

        starts = np.concatenate([[0], np.cumsum(np.diff(self.starts)[rows])]).astype(np.int64)
        text = np.empty(int(starts[-1]), np.uint8)
        masks.gather(self.text, self.starts, rows, text, starts)
        return RunTexts(text, starts, self.sizes_hw[rows], self.areas[rows], self.boxes_xywh[rows])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Text, starts, areas and boxes: what the overlaps read."""
        return self.text, self.starts, self.areas, self.boxes_xywh


def texts_of_masks(masks: Bool[Tensor, "N H W"]) -> list[UInt8[np.ndarray, " _"]]:
    """Compressed run lengths of masks given pixel by pixel."""
    from bestiary.geometry._kernels.runs import to_text

    return [to_text(encode_rle(mask).counts) for mask in masks]


def texts_of_entries(entries: Entries, picture_sizes_hw: Int32[np.ndarray, "N 2"]) -> RunTexts:
    """Masks of a file's entries: polygons, run lengths, or compressed run lengths.

    Args:
        picture_sizes_hw: of each entry's picture, 0 where unknown.

    Raises:
        DataError: an entry's mask is none, or not of its picture's size.
    """
    from bestiary.metrics._kernels.entries import NO_MASK, POLYGONS, TEXT

    columns = entries.masks
    if columns is None or (columns.kinds == NO_MASK).any():
        row = 0 if columns is None else int(np.flatnonzero(columns.kinds == NO_MASK)[0])
        raise DataError("got no 'segmentation'", where=f"{entries.path}, entry {row}")
    drawn: np.ndarray = np.asarray(columns.kinds == POLYGONS)
    known: np.ndarray = np.all(picture_sizes_hw > 0, axis=1)
    other = np.any(columns.sizes_hw != picture_sizes_hw, axis=1)
    wrong = np.where(drawn, ~known, known & other)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        height, width = picture_sizes_hw[row].tolist()
        got = "polygons" if drawn[row] else f"a mask of {' x '.join(map(str, columns.sizes_hw[row].tolist()))} pixels"
        wanted = f"one of its picture's size, {height} x {width}" if known[row] else "its picture's height and width"
        raise DataError(f"got {got}, wanted {wanted}", where=f"{entries.path}, entry {row}")
    sizes = np.where(drawn[:, None], picture_sizes_hw, columns.sizes_hw).astype(np.int32)
    try:
        if (columns.kinds == TEXT).all():
            return RunTexts.of(columns.text, np.concatenate([[0], columns.text_ends]).astype(np.int64), sizes)
        joined, lengths = _drawn_texts(columns, sizes)
        if lengths.all():
            return RunTexts.of(joined, np.concatenate([[0], np.cumsum(lengths)]), sizes)
        return RunTexts.joined(_other_texts(columns, sizes, joined, lengths), sizes)
    except RecordError as error:
        raise DataError(error.message, where=f"{entries.path}, {error.where}".replace(", mask ", ", entry ")) from None


def _drawn_texts(
    columns: MaskColumns, sizes_hw: Int32[np.ndarray, "N 2"]
) -> tuple[UInt8[np.ndarray, " L"], Int64[np.ndarray, " N"]]:
    """The polygons' texts, one after the other, and how long each entry's is: 0 for what is no good polygon."""
    from bestiary.metrics._kernels.entries import POLYGONS
    from bestiary.metrics._kernels.masks import polygons_to_texts

    lengths = np.zeros(len(columns.kinds), np.int64)
    arrays = (columns.numbers, columns.part_ends, columns.entry_parts, columns.kinds == POLYGONS, sizes_hw)
    pieces: dict[int, UInt8[np.ndarray, " _"]] = {}

    def work(first: int, last: int) -> None:
        pieces[first] = polygons_to_texts(*arrays, first, last, lengths)

    in_threads(work, len(lengths), torch.get_num_threads(), _GRAIN)
    return np.concatenate([np.zeros(0, np.uint8), *(pieces[first] for first in sorted(pieces))]), lengths


def _other_texts(
    columns: MaskColumns,
    sizes_hw: Int32[np.ndarray, "N 2"],
    drawn: UInt8[np.ndarray, " L"],
    lengths: Int64[np.ndarray, " N"],
) -> list[UInt8[np.ndarray, " _"]]:
    """Every entry's text, given those of the polygons."""
    from bestiary.metrics._kernels.entries import TEXT

    ends, text_ends = np.cumsum(lengths).tolist(), [0, *columns.text_ends.tolist()]
    texts = []
    for i, (kind, end, length) in enumerate(zip(columns.kinds.tolist(), ends, lengths.tolist(), strict=True)):
        text = columns.text[text_ends[i] : text_ends[i + 1]] if kind == TEXT else drawn[end - length : end]
        height, width = sizes_hw[i].tolist()
        texts.append(text if len(text) else _text_with_words(columns, i, (height, width)))
    return texts


def _text_with_words(columns: MaskColumns, row: int, size_hw: tuple[int, int]) -> UInt8[np.ndarray, " L"]:
    """One mask the slow way, which says what is wrong with it."""
    from bestiary.geometry._kernels.runs import to_text
    from bestiary.metrics._kernels.entries import POLYGONS

    bounds = np.concatenate([[0], columns.part_ends])
    first, last = columns.entry_parts[row], columns.entry_parts[row + 1]
    parts = [columns.numbers[bounds[part] : bounds[part + 1]] for part in range(first, last)]
    try:
        if columns.kinds[row] == POLYGONS:
            mask = polygons_to_rle(parts, size_hw)
        else:
            mask = Rle.from_coco({"size": size_hw, "counts": parts[0].tolist() if parts else ""})
    except RecordError as error:
        raise RecordError(error.message, where=f"mask {row}") from error
    return to_text(mask.counts)
