"""Data sets by path or by name, as the verbs open them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bestiary.data.dataset import Dataset, load, split_by_name
from bestiary.data.world import World
from bestiary.errors import DataError, UsageError
from bestiary.records import Sample

FIELDS = {
    "classification": {"label"},
    "detection": {"boxes"},
    "segmentation": {"label_map"},
    "multi_label_segmentation": {"masks"},
}
"""What a task needs of each picture's truth."""

INSTEAD = {"multi_label_segmentation": {"label_map"}}
"""What serves a task where that is not there: classes that may overlap, but here do not."""

HELD_OUT = 0.2
"""Share of the pictures that is set aside where the data sets none aside itself."""

WORLD_SIZES = {"train": 1200, "val": 150, "test": 300}


@runtime_checkable
class Samples(Protocol):
    """A map-style data set: what a reader, `World` or a user's own class offers."""

    @property
    def categories(self) -> Sequence[str]:
        """Names in label order."""
        ...

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """The picture at `index`, the same each time it is asked for."""
        ...


Data = str | Path | Samples


def open_split(
    data: Data,
    split: str,
    task: str,
    format: str | None = None,
    categories: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Samples:
    """One split of a data set with the truth that `task` needs.

    Args:
        data: a folder, an annotation file, `world` for the built-in procedural pictures, or a data set already open.
        split: its name; `train+val` joins two. Where the data has no validation pictures, `val` are those that training
            sets aside, a fifth, always the same ones; `train` of data in one piece are the others.
        task: decides which annotations are read.
        format: the reader's name; found by itself if None.
        categories: names in the order of a model's labels: the data's own labels are matched to them by name.
        say: told what was mended and left out.

    Raises:
        DataError: nothing readable there, no such split, or names that do not match.
    """
    if task not in FIELDS:
        raise UsageError(f"no data is known for the task {task!r}")
    if not isinstance(data, str | Path):
        return data
    if str(data) == "world":
        return open_world(split, task)
    dataset = _load_part(Path(data), split, task, format, categories)
    for note in dataset.notes:
        say(f"{split}: {note}")
    if not len(dataset):
        raise DataError(f"the split {split!r} holds no picture", where=str(data))
    return dataset


def open_measured(
    data: Data,
    split: str | None,
    task: str,
    format: str | None = None,
    categories: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Samples, str]:
    """The split to measure on, and its name: if None, "test", or "val" where the data has no test pictures.

    Arguments and errors as of `open_split`.
    """
    if split is not None:
        return open_split(data, split, task, format, categories, say), split
    try:
        return open_split(data, "test", task, format, categories, say), "test"
    except UsageError:
        if "test" in splits_of(data, format):
            raise
    say("the data has no test pictures: measured on val")
    return open_split(data, "val", task, format, categories, say), "val"


def _load_part(path: Path, split: str, task: str, format: str | None, categories: Sequence[str] | None) -> Dataset:
    """A split, or what the division of another gives it."""
    try:
        return _load(path, split, task, format, categories)
    except UsageError:
        there = splits_of(path, format)
        whole = "all" if there == ["all"] else "train" if "train" in there and split == "val" else ""
        if split in there or split not in ("train", "val") or not whole:
            raise
    train, val = split_by_name(_load(path, whole, task, format, categories), HELD_OUT)
    return val if split == "val" else train


def _load(path: Path, split: str, task: str, format: str | None, categories: Sequence[str] | None) -> Dataset:
    try:
        return load(path, split=split, format=format, fields=FIELDS[task], categories=categories)
    except DataError:
        if task not in INSTEAD:
            raise
        try:
            return load(path, split=split, format=format, fields=INSTEAD[task], categories=categories)
        except DataError:
            pass  # what was wanted first is what the user should hear of
        raise


def open_world(split: str, task: str) -> Samples:
    """The procedural data set in its default size."""
    if split not in WORLD_SIZES:
        raise DataError(f"world has no split {split!r}", mend=f"Splits: {', '.join(WORLD_SIZES)}")
    if task == "classification":
        return LabelledView(World(WORLD_SIZES[split], split=split, empty=0.0))
    world = World(WORLD_SIZES[split], split=split)
    return LabelMapView(world) if task == "segmentation" else world


class LabelledView:
    """A data set seen by a classifier: in place of a picture without a class stands the next one that has one."""

    def __init__(self, dataset: Samples) -> None:
        self.dataset = dataset
        self.categories: Sequence[str] = dataset.categories

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        for step in range(len(self)):
            sample = self.dataset[(index + step) % len(self)]
            if sample.target.label is not None:
                return sample
        raise DataError("no picture has a class")


class LabelMapView:
    """A data set seen by a segmenter: its categories are those of the label maps."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.categories: Sequence[str] = dataset.label_map_categories

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]


def has_learned(learned: Mapping[str, Any], data: Data, split: str, format: str | None = None) -> bool:
    """Whether a model has learned from pictures of a split.

    Args:
        learned: what its checkpoint says of that: "data" (`dataset_name`), "split", and "set_aside", whether a part of
            that split was kept for validation. Nothing for models that do not say.
        data, split: what it is to be measured on.
        format: the reader's name; found by itself if None.
    """
    if not learned or not isinstance(data, str | Path) or learned["data"] != dataset_name(data):
        return False
    taught, there = learned["split"].split("+"), splits_of(data, format)
    for part in split.split("+"):
        if part == "val" and part not in there:  # set aside from the others by `open_split`
            if not learned["set_aside"] and {"train", "all"} & set(taught):
                return True
        elif part in taught or "all" in (part, *taught):
            return True
    return False


def splits_of(data: Data, format: str | None = None) -> list[str]:
    """Names of the splits of a data set that is not open yet."""
    if not isinstance(data, str | Path):
        return []
    if str(data) == "world":
        return list(WORLD_SIZES)
    from bestiary.data.opening import open_index

    return list(open_index(Path(data), format).splits)


def dataset_name(data: Data) -> str:
    """A short name of a data set for reports."""
    if isinstance(data, str | Path):
        return Path(data).name
    root = getattr(data, "root", None)
    return Path(root).name if root is not None else type(data).__name__.lower()
