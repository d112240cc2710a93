"""Which pixels of a picture a classifier of windows learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.heads.whole_picture import PixelTruth, WholePicture
from bestiary.records import IGNORE_LABEL, Target, require
from bestiary.system import Images

Sampling = Literal["balanced", "natural"]
"""As many pixels of each class that a picture has, or as they come."""


@dataclass(frozen=True)
class WindowSampling:
    """Windows drawn from each picture, by torch's default generator.

    Attributes:
        count: how many.
        sampling: which ones.
    """

    count: int
    sampling: Sampling = "balanced"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"got {self.count}, wanted at least 1 a picture, or none for all", where="windows")

    def draw(
        self, system: WholePicture, images: Images, targets: Sequence[Target]
    ) -> tuple[Float[Tensor, "N C S S"], PixelTruth]:
        """Normalised windows as large as the system's margin asks for, and the truth of their middle pixels, as one
        row.

        Raises:
            RecordError: as `WholePicture.loss`.
        """
        pictures, margin = list(images), system.geometry.margin
        fits = len(pictures) == len(targets) > 0
        require(fits, "loss", f"{len(pictures)} pictures and {len(targets)} targets", "as many, and one at least")
        windows, rows = [], []
        for picture, target in zip(pictures, targets, strict=True):
            truth = system.truth_of([picture], [target])
            height, width = truth.label_maps.shape[-2:]
            places = sample_pixels(truth.label_maps[0], self.count, self.sampling)
            surrounded = system.prepare(picture[None], -margin, -margin, (height + 2 * margin, width + 2 * margin))[0]
            windows.append(windows_at(surrounded, places, 2 * margin + 1))
            rows.append(truth_at(truth, places))
        return torch.cat(windows), joined(rows)


def truth_at(truth: PixelTruth, places: Int64[Tensor, "N 2"]) -> PixelTruth:
    """The truth of some pixels of one picture, as a row."""
    ys, xs = places.unbind(1)
    weights = truth.label_maps.new_ones(truth.label_maps.shape, dtype=torch.float32)
    weights = weights if truth.weight_maps is None else truth.weight_maps
    masks = None if truth.class_masks is None else truth.class_masks[:, :, ys, xs][:, :, None]
    return PixelTruth(truth.label_maps[:, None, ys, xs], weights[:, None, ys, xs], masks)


def joined(rows: Sequence[PixelTruth]) -> PixelTruth:
    """Rows one after the other; all have weights, and masks all or none."""
    masks = [row.class_masks for row in rows if row.class_masks is not None]
    weights = [row.weight_maps for row in rows if row.weight_maps is not None]
    labels = torch.cat([row.label_maps for row in rows], dim=-1)
    return PixelTruth(labels, torch.cat(weights, dim=-1), torch.cat(masks, dim=-1) if masks else None)


def as_row(logits: Float[Tensor, "N K"]) -> Float[Tensor, "1 K 1 N"]:
    """Logits of N windows as those of a picture of N pixels."""
    return logits.T[None, :, None]


def sample_pixels(label_map: UInt8[Tensor, "H W"], count: int, sampling: Sampling) -> Int64[Tensor, "N 2"]:
    """Row and column of `count` labelled pixels, drawn with replacement; of a picture without any, of unlabelled
    ones.
    """
    labels = label_map.flatten()
    known = (labels != IGNORE_LABEL).nonzero()[:, 0]
    if not len(known):
        known = torch.arange(len(labels), device=labels.device)
    if sampling == "natural":
        chosen = _drawn(known, count)
    else:
        present = labels[known].unique()
        shares = torch.full((len(present),), count // len(present))
        shares[torch.randperm(len(present))[: count % len(present)]] += 1
        chosen = torch.cat([_drawn(known[labels[known] == k], int(n)) for k, n in zip(present, shares, strict=True)])
    width = label_map.shape[1]
    return torch.stack([chosen // width, chosen % width], dim=1)


def _drawn(places: Int64[Tensor, " P"], count: int) -> Int64[Tensor, " N"]:
    return places[torch.randint(len(places), (count,)).to(places.device)]


def windows_at(
    plane: Float[Tensor, "C H W"], corners: Int64[Tensor, "N 2"], side: int
) -> Float[Tensor, "N C side side"]:
    """The square windows whose first rows and columns are `corners`."""
    steps = torch.arange(side, device=plane.device)
    rows, columns = corners[:, 0, None] + steps, corners[:, 1, None] + steps
    return plane[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)


def turned(windows: Float[Tensor, "N C S S"]) -> Float[Tensor, "N C S S"]:
    """Each window in one of the eight ways that a square can be turned and mirrored, drawn by torch's default
    generator.
    """
    ways = torch.randint(8, (len(windows),)).to(windows.device)
    result = torch.empty_like(windows)
    for way in range(8):
        chosen = ways == way
        flat = windows[chosen].rot90(way % 4, (-2, -1))
        result[chosen] = flat.flip(-1) if way >= 4 else flat
    return result
