"""The convex half of a latent SVM: given where everything is, the best weights; and the examples it is given.

Felzenszwalb, Girshick, McAllester, Ramanan, TPAMI 2010, section 5. Latent values of positives are fixed; a negative
example keeps every placement of it that was ever hard, and is judged by the worst of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bestiary.records import Record, require

PASSES = 8
"""Passes over the rows that matter for each pass over all."""

MOST_ROUNDS = 60
"""Of passes over all rows, should the gap stay open."""

CHUNK = 256
"""Rows of one matrix product."""


@dataclass(frozen=True, eq=False)
class WeightRules(Record):
    """What holds of each of B weight vectors, D numbers wide (shorter ones end in zeros).

    Attributes:
        weighing: how strongly a weight is held down: the objective has 1/2 weighing * weight^2; above 0.
        floors: least values, -inf for none.
    """

    weighing: Float32[Tensor, "B D"]
    floors: Float32[Tensor, "B D"]

    def __post_init__(self) -> None:
        require(bool((self.weighing > 0).all()), "WeightRules.weighing", float(self.weighing.min()), "above 0")


@dataclass(frozen=True)
class Solved:
    """How good weights are.

    Attributes:
        objective: what was minimised.
        gap: it is at most so far above the minimum.
    """

    objective: float
    gap: float


class ExampleCache:
    """Placements to be learned from, bounded in number, and the weights that separate them best.

    Args:
        rules: of the weights.
        capacity: rows at most.
        cost: C of the hinge losses.

    Attributes:
        weights: [B, D].
    """

    weights: Float32[Tensor, "B D"]

    def __init__(self, rules: WeightRules, capacity: int, cost: float | int) -> None:
        require(capacity > 0 and cost > 0, "ExampleCache", f"capacity {capacity}, cost {cost}", "numbers above 0")
        self.rules, self.capacity, self.cost = rules, capacity, float(cost)
        self._inverse = (1 / rules.weighing).numpy()
        # Reserved, not touched: a system that is never filled takes no memory.
        self._rows = np.empty((capacity, self._inverse.shape[1]), np.float32)
        self._blocks = np.empty(capacity, np.int64)
        self._signs = np.empty(capacity, np.float64)
        self._keys = np.empty((capacity, 4), np.int64)
        self._duals = np.empty(capacity, np.float64)
        self._size = 0
        self.weights = rules.floors.clamp(min=0)

    def __len__(self) -> int:
        return self._size

    @property
    def room(self) -> int:
        """Rows that can still be added."""
        return self.capacity - self._size

    @property
    def num_positives(self) -> int:
        """Positive rows."""
        return int((self._signs[: self._size] > 0).sum())

    def start_from(self, weights: Float32[Tensor, "B D"]) -> None:
        """Judge new examples by these weights until the next `solve`."""
        self.weights = weights.clone()

    def add(
        self,
        vectors: Float32[Tensor, "N D2"],
        blocks: Int64[Tensor, " N"],
        sign: int,
        keys: Int64[Tensor, "N 4"],
    ) -> int:
        """Add rows, as many as there is room for, and those alone that are not there yet.

        Args:
            vectors: features; D2 <= D, zeros are added.
            blocks: whose weights they are judged by.
            sign: 1 or -1.
            keys: rows of one key are placements of one example.

        Returns:
            How many are new.
        """
        added = 0
        for vector, block, key in zip(vectors.numpy(), blocks.tolist(), keys.numpy(), strict=True):
            if not self.room:
                break
            end, size = self._size, len(vector)
            same = np.flatnonzero((self._keys[:end] == key).all(1) & (self._blocks[:end] == block))
            if any(np.array_equal(self._rows[i, :size], vector) for i in same):
                continue
            self._rows[end, :size], self._rows[end, size:] = vector, 0
            self._blocks[end], self._signs[end], self._keys[end], self._duals[end] = block, sign, key, 0
            self._size += 1
            added += 1
        return added

    def drop(self, which: np.ndarray) -> None:
        """Forget rows (a mask over all)."""
        kept = np.flatnonzero(~which)
        for array in (self._rows, self._blocks, self._signs, self._keys, self._duals):
            for into, source in enumerate(kept):
                if into != source:
                    array[into] = array[source]
        self._size = len(kept)

    def drop_positives(self) -> None:
        """Forget the placements of positives, before they are placed anew."""
        self.drop(self._signs[: self._size] > 0)

    def drop_easy(self) -> int:
        """Forget negative rows beyond the margin, which the weights do not depend on; how many they were."""
        easy = (self._signs[: self._size] < 0) & (self._duals[: self._size] <= 0) & (self.margins() < -1)
        self.drop(easy)
        return int(easy.sum())

    def margins(self) -> np.ndarray:
        """Scores of all rows."""
        scores = np.empty(self._size, np.float32)
        for part in self._chunks():
            every = self._rows[part] @ self.weights.numpy().T
            scores[part] = np.take_along_axis(every, self._blocks[part, None], 1)[:, 0]
        return scores

    def _chunks(self) -> Iterator[slice]:
        """Ranges of rows: no product copies more than a part of them."""
        for start in range(0, self._size, CHUNK):
            yield slice(start, min(start + CHUNK, self._size))

    def objective(self) -> float:
        """1/2 weighing * weights^2 + C * losses, of the rows that are here."""
        held = 0.5 * float((self.rules.weighing.double() * self.weights.double() ** 2).sum())
        return held + self.cost * self._loss()

    def _loss(self) -> float:
        slack = np.maximum(0, 1 - self._signs[: self._size] * self.margins())
        _, groups = np.unique(self._keys[: self._size], axis=0, return_inverse=True)
        worst = np.zeros(int(groups.max()) + 1 if len(groups) else 0)
        np.maximum.at(worst, groups.reshape(-1), slack)
        return float(worst.sum())

    def solve(self, seed: int = 0, tolerance: float | int = 0.01) -> Solved:
        """Find the best weights, until the objective is within `tolerance`, as a share of it, of the minimum.

        Dual coordinate ascent (Hsieh et al., ICML 2008) with lower bounds and groups; what was found before is the
        start.
        """
        from bestiary.features._kernels.latent_svm import ascend

        size = self._size
        if not size:
            self.weights = self.rules.floors.clamp(min=0)
            return Solved(self.objective(), 0.0)
        rows, blocks, signs, duals = (a[:size] for a in (self._rows, self._blocks, self._signs, self._duals))
        _, groups = np.unique(self._keys[:size], axis=0, return_inverse=True)
        groups = groups.reshape(-1).astype(np.int64)
        members = np.argsort(groups, kind="stable")
        firsts = np.searchsorted(groups[members], np.arange(int(groups.max()) + 2)).astype(np.int64)
        totals = np.bincount(groups, duals, len(firsts) - 1)
        homes, known = np.stack([blocks, groups, members]), np.stack([signs, self._curvatures()])
        held = np.stack([self._inverse, self.rules.floors.numpy()])
        rng, best, state = np.random.default_rng(seed), Solved(np.inf, np.inf), np.zeros_like(held)
        for _ in range(MOST_ROUNDS):
            # Anew each round: single precision drifts.
            self._sum_up(state[0])
            state[1] = np.maximum(state[0], held[1])
            self.weights = torch.from_numpy(state[1].copy())
            best = Solved(self.objective(), self.objective() - self._dual_value(state[1]))
            if best.gap <= tolerance * best.objective:
                break
            slack = 1 - signs * self.margins()
            matter = np.flatnonzero((duals > 0) | (slack > 0))
            for turn in range(PASSES + 1):
                order = rng.permutation(np.arange(size) if turn == 0 else matter)
                ascend(rows, homes, firsts, order, known, self.cost, held, duals, totals, state)
        return best

    def _curvatures(self) -> np.ndarray:
        """Sum of row^2 / weighing."""
        found = np.empty(self._size)
        for part in self._chunks():
            every = self._rows[part] ** 2 @ self._inverse.T
            found[part] = np.take_along_axis(every, self._blocks[part, None], 1)[:, 0]
        return np.maximum(found, 1e-12)

    def _sum_up(self, into: np.ndarray) -> None:
        """Sum of duals * sign * row / weighing, for each weight vector."""
        into[:] = 0
        for part in self._chunks():
            push = np.zeros((len(into), part.stop - part.start), np.float32)
            push[self._blocks[part], np.arange(push.shape[1])] = self._duals[part] * self._signs[part]
            into += push @ self._rows[part]
        into *= self._inverse

    def _dual_value(self, weights: np.ndarray) -> float:
        """The dual objective at the present dual variables: a lower bound of the minimum."""
        size = self._size
        push = (self._duals[:size] * self._signs[:size]).astype(np.float64)
        held = 0.5 * float((weights.astype(np.float64) ** 2 / self._inverse).sum())
        return float(self._duals[:size].sum()) + held - float(push @ self.margins().astype(np.float64))
