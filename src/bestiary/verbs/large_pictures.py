"""Pictures of more pixels than memory holds: read, labelled and written window by window.

Each window reaches beyond the block that it is read for, and what the labeller says of the block is kept; of the label
map one row of blocks is in memory at a time, whatever the size of the picture. The label map is a tiled TIFF of the
picture's size (of classes that may overlap it names the likeliest); a reduced picture of both is the prediction that a
person sees.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from bestiary.deploy.runtimes import GraphPredictor
from bestiary.errors import DataError, PictureError
from bestiary.heads.segmentation import PixelSystem
from bestiary.layers.channels import match_channels
from bestiary.pictures.tiff import TIFF_STARTS, TiffPicture
from bestiary.predictions import Segmentation
from bestiary.system import Predictor, evaluation_mode

LARGE_PIXELS = 4096 * 4096
"""TIFF pictures of more are labelled window by window."""

OVERVIEW_SIDE = 2048
"""Longest side of the reduced picture."""

WRITTEN_TILE = 256
"""Side of the tiles of a written label map."""


@dataclass(frozen=True)
class Blocks:
    """How a large picture is cut.

    Attributes:
        side: of the blocks that make up the label map, a multiple of `WRITTEN_TILE`.
        margin: what a window shows beyond its block, where there is more of the picture: of what lies near, a network
            must see enough.
    """

    side: int = 768
    margin: int = 128


def is_large(source: object, least: int = LARGE_PIXELS) -> bool:
    """Whether this is a TIFF file of more than `least` pixels."""
    path = Path(source).expanduser() if isinstance(source, str | Path) else None
    if path is None or path.suffix.lower() not in (".tif", ".tiff", ".btf", ".tf8") or not path.is_file():
        return False
    with path.open("rb") as file:
        if not file.read(4).startswith(TIFF_STARTS):
            return False
    try:
        with TiffPicture(path) as picture:
            return picture.size_hw[0] * picture.size_hw[1] > least
    except PictureError:  # whoever reads it the usual way says what is wrong
        return False


def works_by_windows(predictor: Predictor) -> bool:
    """Whether it labels pixels, and at a picture's own scale: one that resizes pictures would see each window as a
    whole picture.
    """
    if isinstance(predictor, PixelSystem):
        return predictor.predict_size is None
    if not isinstance(predictor, GraphPredictor) or predictor.task != PixelSystem.task:
        return False
    return predictor.sidecar.preparation.get("predict_size") is None


def predict_large(
    predictor: Predictor,
    path: Path,
    out: Path,
    blocks: Blocks = Blocks(),
    say: Callable[[str], None] = lambda _: None,
) -> Segmentation:
    """Label a large picture into `out`, a TIFF, whole or not at all.

    Args:
        predictor: for which `works_by_windows` holds.
        path: a TIFF.
        out: where the label map goes.
        blocks: how the picture is cut.
        say: told in one line what is done.

    Returns:
        the reduced picture's label map, named after the file, with the reduced picture.

    Raises:
        PictureError: the file cannot be read.
        DataError: the label map cannot be written.
    """
    with TiffPicture(path) as picture:
        height, width = picture.size_hw
        say(f"{path}: {width:,} x {height:,} pixels, labelled in windows of {blocks.side + 2 * blocks.margin}")
        job = _Job(predictor, picture, blocks)
        partial = out.with_name(out.name + ".partial")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            _write(partial, job.written_tiles(), picture.size_hw)
            partial.replace(out)
        except OSError as error:
            raise DataError(f"the label map cannot be written ({error})", where=str(out)) from error
        finally:
            partial.unlink(missing_ok=True)
    say(f"label map: {out}")
    name = f"{path} (1 of {job.step} x {job.step} pixels)"
    size_hw = int(job.labels.shape[0]), int(job.labels.shape[1])
    return Segmentation(job.labels, size_hw, categories=predictor.categories, name=name, image=job.image)


class _Job:
    """One pass over the blocks, row by row; on the way the reduced pictures are filled in."""

    def __init__(self, predictor: Predictor, picture: TiffPicture, blocks: Blocks) -> None:
        self.predictor, self.picture, self.blocks = predictor, picture, blocks
        self.step = max(1, -(-max(picture.size_hw) // OVERVIEW_SIDE))
        reduced = -(-picture.size_hw[0] // self.step), -(-picture.size_hw[1] // self.step)
        self.labels = torch.zeros(reduced, dtype=torch.uint8)
        self.image: Tensor = torch.zeros(3 if picture.channels in (1, 3) else picture.channels, *reduced)
        if picture.dtype == "uint8":
            self.image = self.image.to(torch.uint8)

    def written_tiles(self) -> Iterator[UInt8[np.ndarray, "h w"]]:
        """Tiles of the label map, row by row, each whole or cut off by the picture's border."""
        height, width = self.picture.size_hw
        for top in range(0, height, self.blocks.side):
            band = torch.empty(min(self.blocks.side, height - top), width, dtype=torch.uint8)
            for left in range(0, width, self.blocks.side):
                part = self._block(top, left, (band.shape[0], min(self.blocks.side, width - left)))
                band[:, left : left + part.shape[1]] = part
            for y in range(0, band.shape[0], WRITTEN_TILE):
                for x in range(0, width, WRITTEN_TILE):
                    yield band[y : y + WRITTEN_TILE, x : x + WRITTEN_TILE].numpy()

    def _block(self, top: int, left: int, size_hw: tuple[int, int]) -> UInt8[Tensor, "h w"]:
        """The labels of one block, seen with its surroundings."""
        (height, width), margin = self.picture.size_hw, self.blocks.margin
        y, x = max(0, top - margin), max(0, left - margin)
        bottom, right = min(height, top + size_hw[0] + margin), min(width, left + size_hw[1] + margin)
        window = self.picture.read(y, x, (bottom - y, right - x))
        seen = match_channels(window, 3) if window.shape[0] == 1 else window
        with evaluation_mode(self.predictor), torch.inference_mode():
            (found,) = self.predictor.predict_images([seen.to(_device_of(self.predictor))])
        rows, columns = slice(top - y, top - y + size_hw[0]), slice(left - x, left - x + size_hw[1])
        labels = found.label_map.cpu()[rows, columns]  # type: ignore[union-attr]
        self._reduce(top, left, seen[:, rows, columns], labels)
        return labels

    def _reduce(self, top: int, left: int, image: Shaped[Tensor, "C h w"], labels: UInt8[Tensor, "h w"]) -> None:
        """Every so many pixels of a block into the reduced pictures."""
        first = -top % self.step, -left % self.step
        few = labels[first[0] :: self.step, first[1] :: self.step]
        row, column = (top + first[0]) // self.step, (left + first[1]) // self.step
        place = np.s_[row : row + few.shape[0], column : column + few.shape[1]]
        self.labels[place] = few
        self.image[:, place[0], place[1]] = image[:, first[0] :: self.step, first[1] :: self.step]


def _write(path: Path, tiles: Iterator[UInt8[np.ndarray, "h w"]], size_hw: tuple[int, int]) -> None:
    import tifffile

    side = WRITTEN_TILE
    with tifffile.TiffWriter(path, bigtiff=size_hw[0] * size_hw[1] > 1 << 31) as writer:
        writer.write(
            (np.pad(tile, ((0, side - tile.shape[0]), (0, side - tile.shape[1]))) for tile in tiles),
            shape=size_hw,
            dtype=np.uint8,
            tile=(side, side),
            photometric="minisblack",
            compression="zlib",
        )


def _device_of(predictor: Predictor) -> torch.device:
    parameters = predictor.parameters() if isinstance(predictor, torch.nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
