"""Image-to-image translation: two pictures side by side in one file, twice as wide as high (Isola et al., CVPR 2017).

The sample's image is the whole file; `split_pair` cuts it. Files of another shape are kept and reported: they are cut
in the middle too.
"""

from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from bestiary.data.index import Index
from bestiary.data.readers.findings import Findings, pictures_in, split_folders
from bestiary.data.readers.folders import read_plain
from bestiary.errors import PictureError
from bestiary.pictures.decode import read_size

_LOOKED_AT = 24
_SHARE = 0.75


def recognise(root: Path) -> str | None:
    """Three quarters of the first pictures of each split are exactly twice as wide as high."""
    if not root.is_dir():
        return None
    homes = list(split_folders(root).values()) or [root]
    sizes = []
    for path in [p for home in homes for p in pictures_in(home)[:_LOOKED_AT]]:
        try:
            sizes.append(read_size(path))
        except PictureError:
            continue
    doubled = sum(width == 2 * height for height, width in sizes)
    return (
        f"{doubled} of {len(sizes)} pictures are twice as wide as high"
        if sizes and doubled >= _SHARE * len(sizes)
        else None
    )


def read(root: Path) -> Index:
    """Read side-by-side pairs.

    Raises:
        DataError: not one picture.
    """
    index = read_plain(root)
    index.format = "pairs"
    findings = Findings(root)
    for picture in [p for split in index.splits.values() for p in split]:
        try:
            height, width = read_size(picture.path)
        except PictureError as error:
            mend = error.mend or "Replace it"
            findings.error("broken-picture", picture.where, error.message, "a picture", mend, "left out")
            picture.extra["missing"] = True
            continue
        picture.size_hw = height, width
        picture.extra["pair"] = "side-by-side"
        if width != 2 * height:
            wanted = "twice as wide as high"
            findings.warn(
                "odd-pair", picture.where, f"{width}x{height}", wanted, "Crop or delete it", "cut in the middle"
            )
    index.defects += findings.defects
    return index


def split_pair(image: Shaped[Tensor, "C H W"]) -> tuple[Shaped[Tensor, "C H W2"], Shaped[Tensor, "C H W2"]]:
    """Left and right half (without the middle column of an odd width), sharing memory."""
    half = image.shape[-1] // 2
    return image[..., :half], image[..., image.shape[-1] - half :]
