"""TIFF pictures of many channels, or of more pixels than memory holds: read window by window.

A window is made of the file's own tiles or strips, each decoded when it is asked for; where the pixels lie in the file
as they are, they are mapped. Channels are the samples of the first page; where the file says that its pages are
channels (ImageJ and OME do), all of those.
"""

import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from torch import Tensor

from bestiary.errors import PictureError

TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""How TIFF and BigTIFF begin."""

MOST_AT_ONCE = 1 << 28
"""Bytes of one tile or strip above which a file cannot be read window by window."""

JPEG, YCBCR, MIN_IS_WHITE, GREY, RGB = 7, 6, 0, 1, 2
TYPES = ("uint8", "uint16", "float32", "float64")


class TiffPicture:
    """An open TIFF; use it in a `with`.

    Attributes:
        size_hw: of the picture, as stored.
        channels: how many there are.
        dtype: of the stored values: uint8, uint16, float32 or float64.

    Raises:
        PictureError: no TIFF, a broken one, or one whose kind of pixels is not read here.
    """

    def __init__(self, source: Path | str | bytes, where: str = "") -> None:
        import tifffile

        self.where = where or (str(source) if isinstance(source, Path | str) else "bytes")
        try:
            self._file = tifffile.TiffFile(BytesIO(source) if isinstance(source, bytes) else source)
            self._pages: list[Any] = _channel_pages(self._file)
        except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError) as error:
            raise PictureError(f"cannot be read as TIFF ({error})", where=self.where, mend="Save it again") from error
        # how the pixels lie, which is the same on all pages: the others say no more than where theirs do
        self._layout = page = self._pages[0]
        self._photometric = int(page.photometric)
        self._samples = int(page.samplesperpixel)
        self.size_hw = int(page.imagelength), int(page.imagewidth)
        self.channels = len(self._pages) * self._samples
        self.dtype = str(page.dtype)
        self._require_readable(page)

    def _require_readable(self, page: Any) -> None:
        kinds = {MIN_IS_WHITE, GREY, RGB} | ({YCBCR} if int(page.compression) == JPEG else set())
        mend = "Save it as 8 or 16-bit grey, RGB or n channels"
        if self.dtype not in TYPES or self._photometric not in kinds:
            got = f"{self.dtype} pixels of kind {getattr(page.photometric, 'name', page.photometric)}"
            raise PictureError(f"got {got}, wanted {', '.join(TYPES)}, grey or RGB", where=self.where, mend=mend)
        if not page.is_memmappable and int(np.prod(page.chunks)) * page.dtype.itemsize > MOST_AT_ONCE:
            got = "got a file whose pixels are compressed in one piece"
            raise PictureError(f"{got}, wanted tiles or strips", where=self.where, mend="Save it with tiles")

    def __enter__(self) -> "TiffPicture":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(
        self, top: int, left: int, size_hw: tuple[int, int]
    ) -> UInt8[Tensor, "C _h _w"] | Float32[Tensor, "C _h _w"]:
        """A window inside the picture: uint8 as it is, 16 bits as 0..1, floats with their values.

        Raises:
            PictureError: a tile or strip is broken, or its compression needs a package that is not there.
        """
        window = np.zeros((*size_hw, self.channels), self._layout.dtype)
        for i, page in enumerate(self._pages):
            self._fill(window[..., i * self._samples : (i + 1) * self._samples], page, top, left)
        if self._photometric == MIN_IS_WHITE:
            white = {"uint8": 255, "uint16": 65535}.get(self.dtype, 1)
            window = (white - window).astype(window.dtype)
        if window.dtype == np.uint16:
            window = window.astype(np.float32) / np.float32(65535)
        elif window.dtype != np.uint8:
            window = window.astype(np.float32)
        return torch.from_numpy(window).permute(2, 0, 1)

    def _fill(self, window: Shaped[np.ndarray, "H W S"], page: Any, top: int, left: int) -> None:
        height, width = window.shape[:2]
        if self._layout.is_memmappable and not self._layout.is_tiled:
            stored = page.asarray(out="memmap") if self._file.filehandle.is_file else page.asarray()
            stored = stored if int(self._layout.planarconfig) == 1 else np.moveaxis(stored, 0, -1)
            stored = stored.reshape(*self.size_hw, -1)
            window[...] = stored[top : top + height, left : left + width]
            return
        for sample, y, x, segment in self._segments(page, top, left, (height, width)):
            rows = max(y, top), min(y + segment.shape[0], top + height)
            columns = max(x, left), min(x + segment.shape[1], left + width)
            if rows[0] < rows[1] and columns[0] < columns[1]:
                part = segment[rows[0] - y : rows[1] - y, columns[0] - x : columns[1] - x]
                into = np.s_[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
                window[(*into, slice(sample, sample + part.shape[2]))] = part

    def _segments(
        self, page: Any, top: int, left: int, size_hw: tuple[int, int]
    ) -> Iterator[tuple[int, int, int, Shaped[np.ndarray, "H W S"]]]:
        """The tiles or strips that a window meets: first sample, top, left, pixels."""
        layout = self._layout
        tall = int(layout.tilelength if layout.is_tiled else layout.rowsperstrip)
        wide = int(layout.tilewidth if layout.is_tiled else layout.imagewidth)
        down, across = -(-self.size_hw[0] // tall), -(-self.size_hw[1] // wide)
        planes = self._samples if int(layout.planarconfig) == 2 else 1
        for plane in range(planes):
            for row in range(top // tall, -(-(top + size_hw[0]) // tall)):
                for column in range(left // wide, -(-(left + size_hw[1]) // wide)):
                    index = (plane * down + row) * across + column
                    pixels = self._decode(page, index)
                    if pixels is not None:
                        yield plane, row * tall, column * wide, pixels

    def _decode(self, page: Any, index: int) -> Shaped[np.ndarray, "H W S"] | None:
        """A tile or strip; None where the file leaves it empty."""
        if not page.databytecounts[index]:
            return None
        handle = self._file.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        if int(self._layout.compression) == JPEG:
            return self._decode_jpeg(data)
        try:
            segment = self._layout.decode(data, index)[0]
        except (ValueError, NotImplementedError, ImportError, RuntimeError, zlib.error) as error:
            mend = (
                "Install imagecodecs, or save it with deflate compression" if "codec" in str(error) else "Save it again"
            )
            raise PictureError(f"cannot be decoded ({error})", where=self.where, mend=mend) from error
        return None if segment is None else segment[0]

    def _decode_jpeg(self, data: bytes) -> Shaped[np.ndarray, "H W S"]:
        """A tile of a slide scanner: a JPEG whose tables stand once in the file."""
        import cv2

        tables = self._layout.tags.get("JPEGTables")
        header = tables.value[2:-2] if tables is not None else b""  # less its start and end markers
        # Adobe's marker says which colours these are, where nothing in the tile does
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([self._photometric == YCBCR])
        whole = data[:2] + adobe + header + data[2:]
        found = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None:
            mend = "Save it with deflate compression"
            raise PictureError("got JPEG tiles that cannot be decoded", where=self.where, mend=mend)
        return found[..., ::-1] if found.ndim == 3 else found[..., None]


def _channel_pages(file: Any) -> list[Any]:
    """The pages that hold the channels of the first picture."""
    first, series = file.pages.first, file.series[0]
    are_channels = series.axes == "CYX" and int(first.samplesperpixel) == 1 and len(series.pages) == series.shape[0]
    return [series.pages[i] for i in range(series.shape[0])] if are_channels else [first]
