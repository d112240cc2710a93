"""The attentional cascade: stages of boosted Haar-like features, each of which rejects what it can (Viola, Jones, CVPR
2001, section 4).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from bestiary.features.haar import LEAST_DEVIATION, corner_table, haar_values
from bestiary.features.object_windows import Template
from bestiary.layers.learned import Learned
from bestiary.ops._kernels.threads import in_threads


@dataclass(frozen=True)
class Scan:
    """A cascade over a grid of windows of one size.

    Attributes:
        margins: number of stages that each window passed, and by how much its last vote exceeds or misses the
            threshold, as a share of all votes; -1 for windows that passed too few.
        evidence: by how much the votes of all stages that were asked exceed their thresholds, together: a sum of
            alphas, which is half a log odds (Friedman, Hastie, Tibshirani, 2000).
        step: pixels from window to window.
        size_hw: of the windows.
        features: looked at, in all windows together.
    """

    margins: Float32[Tensor, "Y X"]
    evidence: Float32[Tensor, "Y X"]
    step: int
    size_hw: tuple[int, int]
    features: int

    def windows_xyxy(self, places: Int64[Tensor, "N 2"]) -> Float32[Tensor, "N 4"]:
        """Windows at rows and columns of the grid."""
        corners = places.flip(1).float() * self.step
        return torch.cat([corners, corners + corners.new_tensor([self.size_hw[1], self.size_hw[0]])], dim=1)


class Cascade(Learned):
    """One category's stages.

    Attributes:
        features: [F, 5], as `haar.enumerate_haar` gives them.
        thresholds: [F], of the values of a window of standard deviation 1.
        polarities: [F], 1 or -1.
        alphas: [F], votes.
        stage_ends: [S]: features up to which each stage goes.
        stage_thresholds: [S]: votes that a window needs.
        window: [3]: the window's height and width at scale 1, and the margin around the object, pixels.
        sizes: [2]: smallest and largest object that was learned from, in sides of the window's object.
    """

    features: Tensor
    thresholds: Tensor
    polarities: Tensor
    alphas: Tensor
    stage_ends: Tensor
    stage_thresholds: Tensor
    window: Tensor
    sizes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("features", "thresholds", "polarities", "alphas")
        self.declare("stage_ends", "stage_thresholds", "window", "sizes")

    @property
    def template(self) -> Template:
        """The window."""
        height, width, margin = self.window.tolist()
        return Template((height, width), margin)

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.stage_ends)

    def learn_shape(self, template: Template, sizes: Float32[Tensor, "2"]) -> None:
        """The window and the range of sizes, and no stage yet."""
        self.learn("window", torch.tensor([*template.size_hw, template.margin]))
        self.learn("sizes", sizes)
        self.learn("features", torch.zeros(0, 5, dtype=torch.int32))
        for name in ("thresholds", "polarities", "alphas", "stage_thresholds"):
            self.learn(name, torch.zeros(0, dtype=torch.float64))
        self.learn("stage_ends", torch.zeros(0, dtype=torch.int64))

    def add_stage(self, features: Tensor, stumps: Float64[Tensor, "F 3"], threshold: float) -> None:
        """Append a stage.

        Args:
            features: [F, 5].
            stumps: threshold, polarity and alpha of each.
            threshold: votes that a window needs.
        """
        self.learn("features", torch.cat([self.features, features.int()]))
        for name, column in zip(("thresholds", "polarities", "alphas"), stumps.unbind(1), strict=True):
            self.learn(name, torch.cat([getattr(self, name), column]))
        self.learn("stage_ends", torch.cat([self.stage_ends, torch.tensor([len(self.features)])]))
        self.learn(
            "stage_thresholds", torch.cat([self.stage_thresholds, self.stage_thresholds.new_tensor([threshold])])
        )

    def passed(self, integrals: Float32[np.ndarray, "N A"]) -> Int64[np.ndarray, " N"]:
        """How many stages each window passes.

        Args:
            integrals: of windows at scale 1, as `haar.normalised_integrals` gives them.
        """
        count = np.zeros(len(integrals), np.int64)
        alive, first = np.arange(len(integrals)), 0
        for end, threshold in zip(self.stage_ends.tolist(), self.stage_thresholds.tolist(), strict=True):
            part = slice(first, end)
            values = haar_values(integrals[alive], self.features[part].numpy(), self.template.size_hw)
            takes = (values <= self.thresholds[part, None].numpy()) == (self.polarities[part, None].numpy() > 0)
            alive = alive[self.alphas[part].numpy() @ takes >= threshold]
            count[alive] += 1
            first = end
        return count

    def scan(
        self,
        sums: Float64[Tensor, "H1 W1"],
        squares: Float64[Tensor, "H1 W1"],
        scale: float | int,
        step: float | int = 1.0,
        least_stages: int | None = None,
    ) -> Scan:
        """All windows of one size: the features are scaled, not the picture.

        Args:
            sums: integral image of the picture's grey, and
            squares: of its squares.
            scale: of the window, 1 or more.
            step: from window to window, in pixels of the window at scale 1.
            least_stages: that a window must pass to be told of; None for all.
        """
        from bestiary.features._kernels.haar import scan_rows

        height, width = self.template.size_hw
        size_hw = (int(height * scale + 0.5), int(width * scale + 0.5))
        stride = max(1, round(step * scale))
        grid = [max(0, (sums.shape[i] - 1 - size_hw[i]) // stride + 1) for i in range(2)]
        margins, evidence, work = np.empty(grid, np.float32), np.empty(grid, np.float32), np.zeros(grid[0], np.int64)
        places, shares = corner_table(self.features.numpy(), scale)
        offsets = np.ascontiguousarray(places[:, :, 0] * sums.shape[1] + places[:, :, 1])
        table = _Table(
            offsets,
            shares,
            self.thresholds.numpy(),
            self.polarities.numpy(),
            self.alphas.numpy(),
            self.stage_ends.numpy(),
            self.stage_thresholds.numpy(),
        )
        least = self.stages if least_stages is None else least_stages
        exact, square = sums.numpy(), squares.numpy()

        def run(start: int, stop: int) -> None:
            scan_rows(
                exact, square, size_hw, stride, table, least, LEAST_DEVIATION, start, stop, margins, evidence, work
            )

        if margins.size:
            in_threads(run, grid[0], torch.get_num_threads(), grain=1 + 20_000 // grid[1])
        return Scan(torch.from_numpy(margins), torch.from_numpy(evidence), stride, size_hw, int(work.sum()))

    def scales(self, size_hw: tuple[int, int], factor: float | int) -> list[float]:
        """Scales at which objects of the sizes that were learned are looked for, each `factor` times the last, as far
        as the window fits.
        """
        least, most = self.sizes.tolist()
        height, width = self.template.size_hw
        found, scale = [], max(1.0, least)
        while (
            scale <= most * factor**0.5 and round(height * scale) <= size_hw[0] and round(width * scale) <= size_hw[1]
        ):
            found.append(scale)
            scale *= factor
        return found


class _Table(NamedTuple):
    """A cascade at one scale, as the kernel reads it.

    Attributes:
        offsets: of the corners of each feature's cells from the window's first, in a flat integral image.
        shares: how much each corner counts; those of 0 end a feature's.
    """

    offsets: Int64[np.ndarray, "F 9"]
    shares: Float64[np.ndarray, "F 9"]
    thresholds: Float64[np.ndarray, " F"]
    polarities: Float64[np.ndarray, " F"]
    alphas: Float64[np.ndarray, " F"]
    stage_ends: Int64[np.ndarray, " S"]
    stage_thresholds: Float64[np.ndarray, " S"]


def disjoint_groups(overlapping: Bool[Tensor, "N N"]) -> Int64[Tensor, " N"]:
    """The group of each of N windows: those that overlap, also through others, share one."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(overlapping):
        return torch.zeros(0, dtype=torch.int64)
    groups = connected_components(csr_matrix(overlapping.numpy()), directed=False)[1]
    return torch.from_numpy(np.asarray(groups, np.int64))
