"""The truth that results are read against: the pictures of one split with their annotations.

Nothing is decoded that need not be. The pictures themselves need not be there: a COCO file alone is a truth for boxes.
"""

from collections.abc import Collection
from pathlib import Path

from bestiary.data.index import Index, RawPicture
from bestiary.data.truth import find_layout, make_target
from bestiary.errors import DataError, UsageError
from bestiary.pictures.decode import read_size
from bestiary.records import Target


class Truth:
    """The annotated pictures of one split, or of several.

    Args:
        index: what a reader found.
        split: names of splits joined by "+"; may be left out where there is but one.

    Attributes:
        categories: names in label order.
        category_ids: the file's own id of each, where it has ids.
        pictures: what the annotations say of each picture.
        offered: fields that targets can hold (`bestiary.data.truth.FIELDS`).
        split: as given.

    Raises:
        UsageError: no such split, or several to choose from.
        DataError: no picture is annotated.
    """

    def __init__(self, index: Index, split: str | None = None) -> None:
        sizes = ", ".join(f"{name} ({len(pictures)})" for name, pictures in index.splits.items())
        if split is None and len(index.splits) > 1:
            raise UsageError(f"the truth has several splits: {sizes}", where="split", mend="Say which with --split")
        names = list(index.splits) if split is None else split.split("+")
        unknown = [name for name in names if name not in index.splits]
        if unknown:
            raise UsageError(f"got {unknown[0]!r}, wanted one of {sizes}, or several joined by +", where="split")
        self.index, self.split = index, "+".join(names)
        self.layout = find_layout(index)
        self.offered = self.layout.offered
        self.categories = tuple(index.categories)
        self.category_ids = None if index.category_ids is None else tuple(index.category_ids)
        self.pictures = [p for name in names for p in index.splits[name] if self.layout.annotated(p)]
        if not self.pictures:
            raise DataError(f"no picture of split {self.split!r} is annotated", where=str(index.root))

    def __len__(self) -> int:
        return len(self.pictures)

    def size_hw(self, i: int) -> tuple[int, int]:
        """Of the picture as it lies on disk, or else as its annotations claim.

        Raises:
            DataError: neither is known.
        """
        picture = self.pictures[i]
        if picture.path.is_file():
            return read_size(picture.path)
        if picture.size_hw is None:
            mend = "Put the picture where the annotations say, or write its size into them"
            raise DataError("the size of the picture is not known", where=picture.name, mend=mend)
        return picture.size_hw

    def target(self, i: int, fields: Collection[str]) -> Target:
        """The truth of picture `i` in `fields`, as training and evaluation see it."""
        spatial = set(fields) & {"boxes", "masks", "keypoints"}
        size_hw = self.size_hw(i) if spatial else (0, 0)
        return make_target(self.pictures[i], size_hw, fields, self.layout, self.categories)

    @property
    def coco_file(self) -> Path | None:
        """The one COCO file that all annotations of the split come from; None if there is no such file."""
        if self.index.format != "coco":
            return None
        files = {p.where.file for p in self.pictures}
        file = self.index.root / files.pop() if len(files) == 1 else None
        return file if file is not None and file.is_file() else None


def picture_file(picture: RawPicture) -> Path | None:
    """The picture itself, if it is there."""
    return picture.path if picture.path.is_file() else None
