"""Windows of TIFF files of every layout, against the arrays that they were written from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from bestiary.errors import PictureError
from bestiary.pictures.decode import decode_image, read_image, read_size
from bestiary.pictures.tiff import TiffPicture

WINDOWS = [(0, 0, (70, 90)), (13, 40, (40, 33)), (69, 89, (1, 1)), (16, 32, (16, 32))]


def noise(channels: int, kind: str = "uint8") -> np.ndarray:
    """70 x 90 pixels."""
    values = np.random.default_rng(0).random((70, 90, channels))
    return values.astype(kind) if kind.startswith("float") else (values * np.iinfo(kind).max).astype(kind)


def as_read(array: np.ndarray) -> torch.Tensor:
    scaled = array.astype(np.float32) / np.float32(65535) if array.dtype == np.uint16 else array
    return torch.from_numpy(scaled.astype(np.float32) if array.dtype.kind == "f" else scaled).permute(2, 0, 1)


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip, mapped": {},
    "strips": {"rowsperstrip": 16, "compression": "zlib"},
    "strips, predicted": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 32), "compression": "zlib"},
    "plain tiles, BigTIFF": {"tile": (16, 32), "bigtiff": True},
    "big end first": {"byteorder": ">", "rowsperstrip": 9, "compression": "zlib"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "kind"), [(1, "uint8"), (3, "uint8"), (5, "uint16")])
def test_windows_are_those_of_the_array(tmp_path: Path, layout: str, channels: int, kind: str) -> None:
    array, path = noise(channels, kind), tmp_path / "x.tif"
    how = {"photometric": "rgb" if channels == 3 else "minisblack", "planarconfig": "contig"}
    stored = array[..., 0] if channels == 1 else array
    options = {} if channels == 1 else {"planarconfig": how["planarconfig"]}
    tifffile.imwrite(path, stored, photometric=how["photometric"], **options, **LAYOUTS[layout])
    with TiffPicture(path) as picture:
        assert (picture.size_hw, picture.channels, picture.dtype) == ((70, 90), channels, kind)
        for top, left, (height, width) in WINDOWS:
            wanted = as_read(array[top : top + height, left : left + width])
            assert torch.equal(picture.read(top, left, (height, width)), wanted)


@pytest.mark.parametrize("tiled", [False, True])
def test_channels_may_lie_apart_or_on_pages(tmp_path: Path, tiled: bool) -> None:
    array = noise(5, "float32")
    planes = np.moveaxis(array, -1, 0)
    how: dict[str, Any] = {"tile": (32, 32), "compression": "zlib"} if tiled else {}
    apart, pages = tmp_path / "apart.tif", tmp_path / "pages.tif"
    tifffile.imwrite(apart, planes, photometric="minisblack", planarconfig="separate", **how)
    tifffile.imwrite(pages, planes, photometric="minisblack", metadata={"axes": "CYX"}, **how)
    for path in (apart, pages):
        with TiffPicture(path) as picture:
            assert torch.equal(picture.read(13, 40, (40, 33)), as_read(array[13:53, 40:73]))
        assert torch.equal(read_image(path), as_read(array))
        assert read_size(path) == (70, 90)


def test_pages_that_are_no_channels_are_frames_of_which_the_first_counts(tmp_path: Path) -> None:
    array = np.moveaxis(noise(5), -1, 0)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="minisblack", metadata={"axes": "ZYX"})
    assert torch.equal(read_image(tmp_path / "x.tif", grey=True)[0], torch.from_numpy(array[0]))
    with TiffPicture(tmp_path / "x.tif") as picture:
        assert picture.channels == 1


def test_many_channels_are_read_as_any_picture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    array = noise(7, "uint16")
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="minisblack", planarconfig="contig")
    assert torch.equal(decode_image((tmp_path / "x.tif").read_bytes()), as_read(array))
    assert capfd.readouterr() == ("", ""), "no decoder that knows fewer channels is asked"


def test_white_that_is_zero_is_turned(tmp_path: Path) -> None:
    array = noise(1)[..., 0]
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="miniswhite", rowsperstrip=8, compression="zlib")
    with TiffPicture(tmp_path / "x.tif") as picture:
        assert torch.equal(picture.read(0, 0, (70, 90))[0], torch.from_numpy(255 - array))


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "L"])
def test_jpeg_pieces_are_decoded_with_the_tables_of_the_file(tmp_path: Path, mode: str) -> None:
    rows, columns = np.mgrid[:64, :96]
    smooth = Image.fromarray(np.stack([rows * 3, columns * 2, 255 - rows * 2], -1).astype(np.uint8))
    smooth.convert(mode).save(tmp_path / "x.tif", compression="jpeg", quality=95)
    wanted = np.array(smooth.convert("L"))[..., None] if mode == "L" else np.array(smooth)
    with TiffPicture(tmp_path / "x.tif") as picture:
        found = picture.read(5, 7, (40, 50)).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - wanted[5:45, 7:57].astype(int)).max() <= 8


def test_tiles_that_the_file_leaves_out_are_black(tmp_path: Path) -> None:
    array = np.zeros((64, 64), np.uint8)
    array[:32, :32] = 7
    tiles = (array[:32, :32] if i == 0 else None for i in range(4))
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(tiles, shape=(64, 64), dtype=np.uint8, tile=(32, 32), compression="zlib")
    with TiffPicture(tmp_path / "x.tif") as picture:
        assert torch.equal(picture.read(0, 0, (64, 64))[0], torch.from_numpy(array))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\x00\x08\x00\x00\x00")
    palette = tmp_path / "palette.tif"
    Image.fromarray(noise(1)[..., 0]).convert("P").save(palette)
    for path in (broken, palette):
        with pytest.raises(PictureError, match=path.name), TiffPicture(path):
            pass
    whole = tmp_path / "cut.tif"
    tifffile.imwrite(whole, noise(1)[..., 0], rowsperstrip=8, compression="zlib")
    data = whole.read_bytes()
    with TiffPicture(whole) as picture:
        offset = picture._pages[0].dataoffsets[4]
    whole.write_bytes(data[:offset] + b"\xff" * 20 + data[offset + 20 :])
    with TiffPicture(whole) as picture, pytest.raises(PictureError, match="cannot be decoded"):
        picture.read(0, 0, (70, 90))


def test_a_file_compressed_in_one_piece_must_be_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestiary.pictures.tiff.MOST_AT_ONCE", 5000)
    tifffile.imwrite(tmp_path / "x.tif", noise(1)[..., 0], rowsperstrip=70, compression="zlib")
    with pytest.raises(PictureError, match="compressed in one piece"), TiffPicture(tmp_path / "x.tif"):
        pass
