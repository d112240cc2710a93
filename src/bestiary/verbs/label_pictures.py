"""Pictures with boxes and pictures with a label alone, joined: what YOLO9000 learns from (section 4 of its paper)."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from bestiary.data.dataset import Dataset
from bestiary.errors import UsageError
from bestiary.records import Sample, Target
from bestiary.verbs.datasets import Data, Samples, open_split

MOST_LABELS = 4
"""Pictures with a label for each one with boxes, at most: these are repeated until it is so (section 4, "Joint
training")."""


class JoinedPictures:
    """Two data sets as one: those with boxes first, as often as it takes, then those with a label alone.

    Args:
        boxed: pictures whose objects have boxes.
        labelled: pictures that have a class; of their truth nothing else is shown. Its categories are those of `boxed`.
    """

    def __init__(self, boxed: Samples, labelled: Samples) -> None:
        self.boxed, self.labelled = boxed, labelled
        self.categories: Sequence[str] = boxed.categories
        self.repeats = max(1, math.ceil(len(labelled) / (MOST_LABELS * len(boxed))))

    def __len__(self) -> int:
        return self.repeats * len(self.boxed) + len(self.labelled)

    def __getitem__(self, index: int) -> Sample:
        own = self.repeats * len(self.boxed)
        if index < own:
            return self.boxed[index % len(self.boxed)]
        sample = self.labelled[index - own]
        return dataclasses.replace(sample, target=Target(label=sample.target.label), name=f"labels/{sample.name}")


def join_labels(
    training: Samples,
    held_out: Samples | None,
    label_data: Data,
    split: str = "train",
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Samples, Samples | None]:
    """Training pictures joined with labelled ones, and the pictures that validate, counted in all categories: those of
    the boxes, then the further ones of the labels.

    Args:
        training: with boxes.
        held_out: with boxes, if there are any.
        label_data: a folder of folders, or what else is read as classification, or an open data set.
        split: of `label_data`; all of data in one piece.
        say: told how many there are.

    Raises:
        UsageError: `training` was not read from files and lacks categories that the labels have.
        DataError: nothing readable there.
    """
    labelled = _open_labels(label_data, split, say)
    names = (*training.categories, *(n for n in labelled.categories if n not in training.categories))
    joined = JoinedPictures(_counted_in(names, training), _counted_in(names, labelled))
    say(
        f"{len(labelled):,} pictures with a label alone join {len(training):,} with boxes"
        + (f", which are repeated {joined.repeats} times" if joined.repeats > 1 else "")
        + f": {len(names)} classes"
    )
    return joined, None if held_out is None else _counted_in(names, held_out)


def _open_labels(data: Data, split: str, say: Callable[[str], None]) -> Samples:
    from bestiary.verbs.datasets import splits_of

    there = splits_of(data)
    return open_split(data, "all" if there == ["all"] else split, "classification", None, None, say)


def _counted_in(names: tuple[str, ...], samples: Samples) -> Samples:
    if tuple(samples.categories) == names:
        return samples
    if not isinstance(samples, Dataset):
        mend = "Give it the categories of both"
        raise UsageError("an open data set keeps its own categories", where="labels", mend=mend)
    return samples.with_categories(names)
