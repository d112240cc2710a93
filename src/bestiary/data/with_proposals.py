"""A data set whose pictures come with boxes that may hold objects."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from bestiary.data.loader import Pictures
from bestiary.errors import UsageError
from bestiary.proposals.proposer import Proposer
from bestiary.records import Sample

MEGABYTE = 1 << 20

SAME_AS_INSIDE = (
    "category_ids", "class_counts", "fields", "format", "joint_names", "joint_pairs", "label_map_categories",
    "labels_per_picture", "names", "notes", "root", "split",
)  # fmt: skip
"""What it says as the data set inside does, where that says it at all. What makes another data set (a subset, other
categories) is not among them: that would come without boxes."""

PATIENCE = 5.0
"""Seconds until a line says how far it is; twice as many until the next."""


class WithProposals:
    """A data set seen by a system that learns from proposed boxes: `target.proposals_xyxy` holds the best of each
    picture, in the pixels of the picture as the data set gives it.

    A picture's boxes are found once. They stay in memory, 16 bytes a box, up to `memory_bytes` in all; beyond, they are
    read from the proposer's cache on disk, and where it has none they are found again at each access. They are
    forgotten when the proposer has learned something else.

    Args:
        samples: the pictures; the same each time they are asked for.
        proposer: finds the boxes; ready (`Proposer.is_ready`) when the first picture is asked for.
        count: most boxes a picture.
        memory_bytes: of the boxes held in memory. Worker processes share what was held when they were forked.

    Raises:
        UsageError: `count` or `memory_bytes` out of range.
    """

    def __init__(
        self, samples: Pictures, proposer: Proposer, count: int = 2000, memory_bytes: int = 512 * MEGABYTE
    ) -> None:
        if count < 1 or memory_bytes < 0:
            got = f"got count {count} and memory_bytes {memory_bytes}"
            raise UsageError(f"{got}, wanted at least 1 and 0", where="WithProposals")
        self.samples, self.proposer, self.count, self.memory_bytes = samples, proposer, count, memory_bytes
        self._held: dict[int, np.ndarray] = {}
        self._held_bytes, self._held_of = 0, ""

    @property
    def categories(self) -> Sequence[str]:
        """Names in label order; none where the data set has none."""
        return getattr(self.samples, "categories", ())

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """Picture `index` with its boxes.

        Raises:
            UsageError: the proposer has not learned yet.
        """
        sample = self.samples[index]
        boxes = torch.from_numpy(self._boxes(index % max(1, len(self)), sample))
        return dataclasses.replace(sample, target=dataclasses.replace(sample.target, proposals_xyxy=boxes))

    def __getattr__(self, name: str) -> Any:
        if name in SAME_AS_INSIDE:
            return getattr(self.samples, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def prepare(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Find the boxes of all pictures now, so that later passes only look them up.

        Args:
            say: told now and then how far it is, and at the end how many there are.
        """
        started = time.monotonic()
        due, patience, total = started + PATIENCE, PATIENCE, 0
        for i in range(len(self)):
            total += len(self._boxes(i, self.samples[i]))
            now = time.monotonic()
            if now > due and i + 1 < len(self):
                left = (now - started) / (i + 1) * (len(self) - i - 1)
                say(f"boxes found in {i + 1:,} of {len(self):,} pictures, {left:.0f} s to go")
                patience *= 2
                due = now + patience
        mean = total / max(1, len(self))
        took = time.monotonic() - started
        say(f"{self.proposer.name}: {mean:,.0f} boxes a picture, {len(self):,} pictures in {took:.1f} s")

    def _boxes(self, index: int, sample: Sample) -> Float32[np.ndarray, "N 4"]:
        identity = self.proposer.identity()
        if identity != self._held_of:
            self._held, self._held_bytes, self._held_of = {}, 0, identity
        if index in self._held:
            return self._held[index].copy()
        found: Tensor = self.proposer.propose(sample.image).boxes_xyxy[: self.count]
        boxes = found.numpy().copy()
        if self._held_bytes + boxes.nbytes <= self.memory_bytes:
            self._held[index] = boxes
            self._held_bytes += boxes.nbytes
        return boxes.copy()
