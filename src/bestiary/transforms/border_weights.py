"""Pixel weights that make a network learn the thin borders between touching things.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, equation 2: `w(x) = w_c(x) + w_0 exp(-(d_1(x) + d_2(x))^2 / (2
sigma^2))`, with d_1 and d_2 the distances to the nearest and the second nearest cell and w_c balancing the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int32, UInt8

from bestiary.errors import RecordError, UsageError
from bestiary.records import IGNORE_LABEL, Sample

REACH = 7.0
"""Distances beyond this many sigmas count as infinite: what they would add is below 3e-11 w_0."""


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
        labels = sample.target.label_map.cpu().numpy()
        masks = sample.target.objects.masks if sample.target.objects is not None else None
        cells = label_cells(labels == self.foreground) if masks is None else _stacked(masks.cpu().numpy(), labels.shape)
        weights = class_balance(labels, self.class_weights) + border_term(cells, self.w0, self.sigma)
        weight_map = torch.from_numpy(weights.astype(np.float32))
        return replace(sample, target=replace(sample.target, weight_map=weight_map))


def label_cells(foreground: Bool[np.ndarray, "H W"]) -> Int32[np.ndarray, "H W"]:
    """Number the 4-connected components from 1; 0 is outside all."""
    from scipy import ndimage

    numbered = np.zeros(foreground.shape, dtype=np.int32)
    ndimage.label(foreground, output=numbered)
    return numbered


def border_term(cells: Int32[np.ndarray, "H W"], w0: float = 10.0, sigma: float = 5.0) -> Float64[np.ndarray, "H W"]:
    """`w0 exp(-(d1 + d2)^2 / (2 sigma^2))` outside the cells, 0 inside them and where fewer than two cells are in
    reach.

    Args:
        cells: number of the cell that each pixel belongs to, 0 for none. Distances are between pixel centres.
        w0: value that two touching borders would have.
        sigma: pixels.
    """
    from scipy import ndimage

    height, width = cells.shape
    reach = int(np.ceil(REACH * sigma))
    nearest = np.full(cells.shape, np.inf)
    second = np.full(cells.shape, np.inf)
    for number, found in enumerate(ndimage.find_objects(cells), start=1):
        if found is None:
            continue
        # each cell is looked at in its own neighbourhood only: cost grows with the cells' area, not with their number
        # squared
        rows = slice(max(0, found[0].start - reach), min(height, found[0].stop + reach))
        columns = slice(max(0, found[1].start - reach), min(width, found[1].stop + reach))
        distance = np.asarray(ndimage.distance_transform_edt(cells[rows, columns] != number))
        near, far = nearest[rows, columns], second[rows, columns]
        np.minimum(far, np.maximum(near, distance), out=far)
        np.minimum(near, distance, out=near)
    term = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    term[cells > 0] = 0
    return term


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


def _stacked(masks: Bool[np.ndarray, "N H W"], size_hw: tuple[int, ...]) -> Int32[np.ndarray, "H W"]:
    """Masks as one map of numbers; a later mask lies on top."""
    cells = np.zeros(size_hw, dtype=np.int32)
    for number, mask in enumerate(masks, start=1):
        cells[mask] = number
    return cells
