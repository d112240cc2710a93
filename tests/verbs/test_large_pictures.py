"""Large TIFFs labelled window by window, against the labels of the whole."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor
from torch.nn import functional as F

from bestiary.heads.segmentation import PixelSystem
from bestiary.layers.preprocess import Normalize
from bestiary.pictures.tiff import TiffPicture
from bestiary.verbs import large_pictures
from bestiary.verbs.large_pictures import Blocks, is_large, predict_large, works_by_windows
from bestiary.verbs.predicting import Outputs, predict_source


class Smooth(PixelSystem):
    """Class 1 where the mean of 5 x 5 pixels is bright: it must see two pixels beyond a block."""

    def __init__(self, **told: object) -> None:
        super().__init__(("dark", "bright"), Normalize([0.0], [1.0]))
        self.take(told)

    def forward(self, pixels: Tensor) -> Tensor:
        mean = F.avg_pool2d(F.pad(pixels, [2] * 4, mode="replicate"), 5, stride=1)
        return torch.cat([0.5 - mean, mean - 0.5], 1)

    def logit_windows(self, images: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, 0, self(self.prepare(images, 0, 0, (int(images.shape[-2]), int(images.shape[-1]))))


def picture(path: Path, height: int, width: int, **how: object) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = (np.sin(rows / 9) * np.cos(columns / 13) * 100 + 128).astype(np.uint8)
    tifffile.imwrite(path, waves, photometric="minisblack", **how)
    return waves


def whole(array: np.ndarray) -> np.ndarray:
    (found,) = Smooth().predict_images([torch.from_numpy(array)[None]])
    return found.label_map.numpy()


@pytest.mark.parametrize("size", [(700, 900), (256, 256), (300, 40), (5, 1)])
def test_the_label_map_is_that_of_the_whole_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    array = picture(tmp_path / "x.tif", *size, tile=(64, 64), compression="zlib")
    said: list[str] = []
    found = predict_large(Smooth(), tmp_path / "x.tif", tmp_path / "out" / "x.tif", Blocks(256, 8), said.append)
    written = tifffile.imread(tmp_path / "out" / "x.tif")
    assert written.dtype == np.uint8
    assert np.array_equal(written.reshape(size), whole(array))
    assert torch.equal(found.label_map, torch.from_numpy(whole(array)))
    assert np.array_equal(found.image[0].numpy(), array)
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "x.tif"]
    assert "labelled in windows of 272" in said[0]


def test_a_margin_too_small_shows() -> None:
    """The comparison above can fail: a window that ends at its block differs."""
    array = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    (left,) = Smooth().predict_images([array[..., :32]])
    (all_of_it,) = Smooth().predict_images([array])
    assert not torch.equal(left.label_map, all_of_it.label_map[:, :32])


def test_the_reduced_picture_is_every_so_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pictures, "OVERVIEW_SIDE", 100)
    array = picture(tmp_path / "x.tif", 570, 690)
    found = predict_large(Smooth(), tmp_path / "x.tif", tmp_path / "y.tif", Blocks(256, 8))
    assert np.array_equal(found.label_map.numpy(), whole(array)[::7, ::7])
    assert np.array_equal(found.image[1].numpy(), array[::7, ::7])
    assert "1 of 7 x 7 pixels" in found.name


def test_memory_holds_one_window_and_one_row_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tif"
    picture(path, 2000, 1500, tile=(128, 128), compression="zlib")
    windows: list[int] = []
    read = TiffPicture.read

    def counted(self: TiffPicture, top: int, left: int, size_hw: tuple[int, int]) -> Tensor:
        windows.append(size_hw[0] * size_hw[1])
        return read(self, top, left, size_hw)

    monkeypatch.setattr(TiffPicture, "read", counted)
    monkeypatch.setattr(large_pictures, "OVERVIEW_SIDE", 100)
    job = large_pictures._Job(Smooth(), TiffPicture(path), Blocks(256, 16))
    tracemalloc.start()
    try:
        sizes = {tile.shape for tile in job.written_tiles()}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(windows) == 8 * 6
    assert max(windows) <= 288 * 288
    assert max(height * width for height, width in sizes) == 256 * 256
    assert peak < 1e6, "numpy's share; the picture has 3 MB"


def test_the_verb_takes_this_way_for_large_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = picture(tmp_path / "x.tif", 300, 400)
    assert not is_large(tmp_path / "x.tif")
    assert is_large(str(tmp_path / "x.tif"), least=100_000)
    assert not is_large(tmp_path, least=1)
    assert not is_large(0, least=1)
    (tmp_path / "no.tif").write_bytes(b"plain text")
    assert not is_large(tmp_path / "no.tif", least=1)
    monkeypatch.setattr("bestiary.verbs.predicting.is_large", lambda source: is_large(source, 100_000))
    said: list[str] = []
    outputs = Outputs(tmp_path / "out")
    (found,) = predict_source(Smooth(), str(tmp_path / "x.tif"), outputs, say=said.append)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "x.labels.tif"), whole(array))
    assert "400 x 300 pixels" in said[0]
    assert found.name.endswith("(1 of 1 x 1 pixels)")
    assert any(path.suffix == ".jpg" for path in (tmp_path / "out").iterdir())


def test_a_labeller_that_resizes_pictures_must_see_them_whole() -> None:
    assert works_by_windows(Smooth())
    assert not works_by_windows(Smooth(predict_size=100))
