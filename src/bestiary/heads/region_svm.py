"""One linear SVM for each category on features of regions, with hard negative mining (R-CNN, section 2.3, appendix B).

There are far more negatives than memory, so each category keeps those that matter. One pass over the pictures: a
region above the margin -1.0001 is added to the category's cache; when 2,000 were added the SVM is fitted again and
those below -1.2 are dropped. Numbers are the authors' code's: C = 0.001, a constant feature of 10 for the bias, hinge
loss with weight 2 on positives, features scaled to a mean length of 20.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.layers.hinge_machine import separate
from bestiary.layers.learned import Learned
from bestiary.records import require

TOLERANCE = 1e-3
"""Largest spread of the projected gradients where the descent ends; it brings the objective within 0.01 % of the
least."""


class RegionExamples(NamedTuple):
    """The regions of one picture that SVMs learn from.

    Attributes:
        features: of the regions, the picture's objects among them.
        labels: the category of each object; -1 for every other region.
        negative: whether a region is a negative of each category.
    """

    features: Float32[Tensor, "R D"]
    labels: Int64[Tensor, " R"]
    negative: Bool[Tensor, "R K"]


@dataclass(frozen=True)
class Mining:
    """Which negatives are kept.

    Attributes:
        hard: a negative above this margin is added: just below -1, so that what lies on the margin is.
        evict: after a fit those below this margin are dropped.
        refit_after: negatives added since the last fit that make another due, or a quarter of those kept where that is
            more: as long as the authors' caches are small, theirs, and fits stay few where they are not.
        passes: over the pictures.
        most: negatives of a category that are kept after a fit, the hardest; so memory is bounded where features do not
            tell regions apart.

    Raises:
        UsageError: numbers that cannot be.
    """

    hard: float = -1.0001
    evict: float = -1.2
    refit_after: int = 2000
    passes: int = 1
    most: int = 20_000

    def __post_init__(self) -> None:
        if not self.evict <= self.hard:
            got = f"got evict {self.evict} and hard {self.hard}"
            raise UsageError(f"{got}, wanted evict <= hard: what is dropped would come back", where="Mining")
        if min(self.refit_after, self.passes, self.most) < 1:
            got = f"got refit_after {self.refit_after}, passes {self.passes} and most {self.most}"
            raise UsageError(f"{got}, wanted at least 1", where="Mining")


class RegionSVM(Learned):
    """The SVMs of K categories.

    Args:
        num_categories: K.
        cost: C.
        bias_scale: the constant feature.
        positive_weight: factor on the loss of positives.
        target_norm: mean length that features are scaled to.
        mining: which negatives are kept.

    Attributes:
        weight: [K, D], with the scale of the features inside.
        bias: [K].

    Raises:
        UsageError: a number that is not above 0.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        num_categories: int,
        *,
        cost: int | float = 0.001,
        bias_scale: int | float = 10.0,
        positive_weight: int | float = 2.0,
        target_norm: int | float = 20.0,
        mining: Mining = Mining(),
    ) -> None:
        super().__init__()
        numbers = {
            "cost": cost,
            "bias_scale": bias_scale,
            "positive_weight": positive_weight,
            "target_norm": target_norm,
        }
        for name, value in numbers.items():
            if not value > 0:
                raise UsageError(f"got {value}, wanted more than 0", where=name)
        self.num_categories, self.mining = num_categories, mining
        self.cost, self.bias_scale = float(cost), float(bias_scale)
        self.positive_weight, self.target_norm = float(positive_weight), float(target_norm)
        self.declare("weight", "bias")

    def forward(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R K"]:
        """Margins: above 0 inside the category."""
        return features.float() @ self.weight.T + self.bias

    def forget(self) -> None:
        """As it was before `fit`."""
        for name in self.declared:
            self.learn(name, torch.zeros(0))

    def fit(
        self, pictures: Sequence[RegionExamples], seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Learn from pictures, each of which is asked for once to see its objects and once more in each pass of mining.

        Args:
            pictures: map-style.
            seed: of the order in which examples are visited.
            say: told in plain lines how far it is.

        Raises:
            UsageError: no picture, or none with a region.
        """
        positives, scale = self._positives(pictures)
        say(f"SVMs: {sum(map(len, positives))} objects in {len(pictures)} pictures, features scaled by {scale:.3g}")
        caches = [_Cache(rows * scale, self.mining) for rows in positives]
        for turn in range(self.mining.passes):
            for i in range(len(pictures)):
                examples = pictures[i]
                features = examples.features * scale
                is_last = turn + 1 == self.mining.passes and i + 1 == len(pictures)
                for label, cache in enumerate(caches):
                    cache.add(features, examples.negative[:, label], i)
                    if cache.is_due or is_last:
                        cache.refit(self._solve, seed)
        say("SVMs: " + ", ".join(f"{len(c.positives)} + {len(c.negatives)}" for c in caches) + " examples kept")
        weight, bias = torch.stack([c.weight for c in caches]), torch.stack([c.bias for c in caches])
        self.learn("weight", weight * scale)
        self.learn("bias", bias)

    def _positives(self, pictures: Sequence[RegionExamples]) -> tuple[list[Float32[Tensor, "_p D"]], float]:
        """Features of the objects of each category, and what brings the mean length of all regions to `target_norm`."""
        found: list[list[Tensor]] = [[] for _ in range(self.num_categories)]
        length, count = 0.0, 0
        for i in range(len(pictures)):
            examples = pictures[i]
            shape = (len(examples.features), self.num_categories)
            require(tuple(examples.negative.shape) == shape, "negative", tuple(examples.negative.shape), str(shape))
            length, count = length + float(examples.features.norm(dim=1).sum()), count + len(examples.features)
            for label, rows in enumerate(found):
                rows.append(examples.features[examples.labels == label])
        if not count:
            raise UsageError("got no region, wanted at least one", where="fit(pictures)")
        return [torch.cat(rows) for rows in found], self.target_norm * count / length if length > 0 else 1.0

    def _solve(
        self, positives: Float32[Tensor, "P D"], negatives: Float32[Tensor, "M D"], seed: int
    ) -> tuple[Float32[Tensor, " D"], Float32[Tensor, ""]]:
        """The least 1/2 (|w|^2 + (b / bias_scale)^2) + cost * (positive_weight * hinges of positives + the others)."""
        plane = separate(
            torch.cat([positives, negatives]),
            len(positives),
            cost=self.cost,
            bias_scale=self.bias_scale,
            positive_weight=self.positive_weight,
            seed=seed,
            tolerance=TOLERANCE,
            most_passes=5000,
        )
        return plane.weight, torch.tensor(plane.bias)


class _Cache:
    """The examples of one category while it is learned."""

    def __init__(self, positives: Float32[Tensor, "P D"], mining: Mining) -> None:
        self.positives, self.mining = positives, mining
        self.negatives = positives[:0]
        # Picture and row of each negative: several passes must not add one twice.
        self.keys = torch.zeros(0, dtype=torch.int64)
        self.weight, self.bias = positives.new_zeros(positives.shape[1]), torch.tensor(0.0)
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._is_fitted = False

    def add(self, features: Float32[Tensor, "R D"], negative: Bool[Tensor, " R"], picture: int) -> None:
        """The hard ones among a picture's negatives; all of them as long as there is nothing to tell how hard they
        are.
        """
        if self._is_fitted:
            negative = negative & (features @ self.weight + self.bias > self.mining.hard)
        rows = negative.nonzero()[:, 0]
        keys = (picture << 32) + rows
        new = ~torch.isin(keys, self.keys)
        if new.any():
            self._waiting.append((features[rows[new]], keys[new]))

    @property
    def is_due(self) -> bool:
        """Whether to fit now: for the first time, or after many additions."""
        added = sum(len(keys) for _, keys in self._waiting)
        return added > (max(self.mining.refit_after, len(self.negatives) // 4) if self._is_fitted else 0)

    def refit(
        self, solve: Callable[[Tensor, Tensor, int], tuple[Float32[Tensor, " D"], Float32[Tensor, ""]]], seed: int
    ) -> None:
        """Fit to what is kept and what was added, and drop what has become easy."""
        self.negatives = torch.cat([self.negatives, *(rows for rows, _ in self._waiting)])
        self.keys = torch.cat([self.keys, *(keys for _, keys in self._waiting)])
        self._waiting.clear()
        self.weight, self.bias = solve(self.positives, self.negatives, seed)
        self._is_fitted = True
        margins = self.negatives @ self.weight + self.bias
        keep = (margins >= self.mining.evict).nonzero()[:, 0]
        if len(keep) > self.mining.most:
            keep = keep[margins[keep].topk(self.mining.most).indices.sort().values]
        self.negatives, self.keys = self.negatives[keep], self.keys[keep]
