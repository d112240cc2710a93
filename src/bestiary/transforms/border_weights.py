"""Pixel weights that make a network learn the thin borders between touching things.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, equation 2: `w(x) = w_c(x) + w_0 exp(-(d_1(x) + d_2(x))^2 / (2
sigma^2))`, with d_1 and d_2 the distances to the nearest and the second nearest cell and w_c balancing the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.ops.components import connected_components
from bestiary.ops.distance import border_weights
from bestiary.records import IGNORE_LABEL, Sample


@dataclass(frozen=True)
class BorderWeights:
    """Transform that writes `target.weight_map` from the label map; put it after those that move pixels.

    Cells are the object masks where the sample has them, else the 4-connected components of `foreground`. The border
    term stands on the pixels outside all cells: the paper's figure 3d.

    Attributes:
        w0: height of the border term.
        sigma: its width, pixels.
        foreground: label of cells.
        class_weights: w_c by label. None balances each picture by itself: `w_c = n / (K' n_c)`, K' classes present, so
            that the mean of w_c is 1. The paper gives no formula.
    """

    w0: float = 10.0
    sigma: float = 5.0
    foreground: int = 1
    class_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and self.w0 >= 0):
            raise UsageError(
                f"got w0 {self.w0} and sigma {self.sigma}, wanted w0 >= 0 and sigma > 0", where="BorderWeights"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with its weight map; nothing is random.

        Raises:
            RecordError: the sample has no label map, or a label without class weight.
        """
        if sample.target.label_map is None:
            raise RecordError("got no label_map, wanted one", where=f"{sample.name}: target.label_map")
        label_map = sample.target.label_map.cpu()
        masks = sample.target.objects.masks if sample.target.objects is not None else None
        if masks is None:
            cells = connected_components(label_map == self.foreground, connectivity=4).label_map
        else:
            cells = _stacked(masks.cpu(), label_map)
        balance = torch.from_numpy(class_balance(label_map.numpy(), self.class_weights))
        weight_map = (balance + border_weights(cells, self.w0, self.sigma)).float()
        return replace(sample, target=replace(sample.target, weight_map=weight_map))


def class_balance(
    labels: UInt8[np.ndarray, "H W"], class_weights: Sequence[float] | None = None
) -> Float64[np.ndarray, "H W"]:
    """w_c of every pixel; 0 where the label is `IGNORE_LABEL`.

    Raises:
        RecordError: a label has no weight in `class_weights`.
    """
    counts = np.bincount(labels.ravel(), minlength=256)[:256]
    counts[IGNORE_LABEL] = 0
    table = np.zeros(256)
    if class_weights is not None:
        unweighted = np.flatnonzero(counts[len(class_weights) :])
        if len(unweighted):
            label = int(unweighted[0]) + len(class_weights)
            raise RecordError(
                f"got label {label}, wanted one of {len(class_weights)} weighted classes", where="label_map"
            )
        table[: len(class_weights)] = class_weights
    else:
        present = counts > 0
        table[present] = counts.sum() / (present.sum() * counts[present])
    table[IGNORE_LABEL] = 0
    return table[labels]


def _stacked(masks: Bool[Tensor, "N H W"], label_map: UInt8[Tensor, "H W"]) -> Int64[Tensor, "H W"]:
    """Masks as one map of numbers; a later mask lies on top."""
    cells = torch.zeros_like(label_map, dtype=torch.int64)
    for number, mask in enumerate(masks, start=1):
        cells[mask] = number
    return cells
