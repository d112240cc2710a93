"""Ranking a gallery by likeness to a query: CMC, mean average precision in both forms, Recall@k, R-precision, MAP@R.

Convention: ranks count from 1 after junk is taken out. Equal distances rank against the system: a wrong picture stands
before a right one as near, so that no order of the gallery changes a score and a network that says the same of every
picture earns nothing. Queries without a right picture in the gallery are left out of every mean, and counted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.metrics.averages import Averages, at_least_single, require_same_rules
from bestiary.metrics.scores import Scores
from bestiary.records import Record, require, require_tensor

Distance = Literal["cosine", "euclidean"]

JUNK_ID = -1
"""Market-1501's identity of boxes that show no whole person: neither right nor wrong for any query."""

_BYTES_A_PAIR = 40
"""What ranking holds for each query and gallery picture: distance, masks, place, counts."""


@dataclass(frozen=True, eq=False)
class Embeddings(Record):
    """Features of N pictures and what they show.

    Attributes:
        features: finite; any scale.
        ids: identity or class; `JUNK_ID` for junk.
        cameras: which camera took each, where the same-camera rule applies.
    """

    features: Float[Tensor, "N D"]
    ids: Int64[Tensor, " N"]
    cameras: Int64[Tensor, " N"] | None = None

    def __post_init__(self) -> None:
        where, features = "Embeddings.features", self.features
        require(features.ndim == 2, where, f"shape {tuple(features.shape)}", "(N, D)")
        require(bool(torch.isfinite(features).all()), where, "NaN or infinity", "numbers")
        require_tensor("Embeddings", "ids", self.ids, (len(features),), torch.int64)
        require_tensor("Embeddings", "cameras", self.cameras, (len(features),), torch.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> tuple[int, int]:
        """Pictures and numbers a picture."""
        return int(self.features.shape[0]), int(self.features.shape[1])

    def pooled(self) -> "Embeddings":
        """One query for each identity and camera, the mean of its features: Market-1501's multiple-query setting.

        Raises:
            UsageError: no cameras.
        """
        if self.cameras is None:
            raise UsageError("got no cameras, wanted one a picture", where="Embeddings.cameras")
        keys, group = torch.unique(torch.stack([self.ids, self.cameras]), dim=1, return_inverse=True)
        features = at_least_single(self.features)
        sums = features.new_zeros(keys.shape[1], features.shape[1]).index_add_(0, group, features)
        return Embeddings(sums / torch.bincount(group)[:, None], keys[0], keys[1])


@dataclass(frozen=True, eq=False)
class MatchRanks:
    """Where in its ranking each of Q queries finds its right pictures; every number is a function of that.

    Attributes:
        ranks: from 1, ascending, 0 where a query has fewer right pictures than R.
    """

    ranks: Int64[Tensor, "Q R"]

    @property
    def counts(self) -> Int64[Tensor, " Q"]:
        """Right pictures of each query."""
        return (self.ranks > 0).sum(1)

    def found_within(self, k: int) -> Float64[Tensor, " Q"]:
        """1 if one of the first k is right, else 0: CMC at rank k, and Recall@k of metric learning; NaN without any."""
        return self._measured(((self.ranks > 0) & (self.ranks <= k)).any(1).double())

    def average_precision(self) -> Float64[Tensor, " Q"]:
        """Mean of the precision at each right picture, i / r_i: what most toolkits call AP."""
        return self._mean(self._places() / self._safe_ranks())

    def average_precision_trapezoid(self) -> Float64[Tensor, " Q"]:
        """Area under precision over recall by the trapezoid rule, starting at precision 1: Oxford5k's AP (Philbin et
        al., CVPR 2007) and that of the Market-1501 code (Zheng et al., ICCV 2015).

        The mean over right pictures of half the sum of the precisions at rank r_i and at r_i - 1 (1 where r_i is 1).
        """
        ranks, places = self._safe_ranks(), self._places()
        before = torch.where(ranks > 1, (places - 1) / (ranks - 1).clamp(min=1), 1.0)
        return self._mean((places / ranks + before) / 2)

    def r_precision(self) -> Float64[Tensor, " Q"]:
        """Share of right pictures among the first R, R the query's number of them (Musgrave et al., ECCV 2020)."""
        return self._mean((self.ranks <= self.counts[:, None]).double())

    def map_at_r(self) -> Float64[Tensor, " Q"]:
        """Precision at each right picture among the first R, summed and divided by R (Musgrave et al., eq. 4)."""
        return self._mean(self._places() / self._safe_ranks() * (self.ranks <= self.counts[:, None]))

    def _places(self) -> Float64[Tensor, " R"]:
        return torch.arange(1, self.ranks.shape[1] + 1, dtype=torch.float64, device=self.ranks.device)

    def _safe_ranks(self) -> Float64[Tensor, "Q R"]:
        return self.ranks.clamp(min=1).double()

    def _mean(self, numbers: Float64[Tensor, "Q R"]) -> Float64[Tensor, " Q"]:
        return self._measured((numbers * (self.ranks > 0)).sum(1) / self.counts.clamp(min=1))

    def _measured(self, numbers: Float64[Tensor, " Q"]) -> Float64[Tensor, " Q"]:
        return numbers.masked_fill(self.counts == 0, math.nan)


def rank_matches(
    distances: Float[Tensor, "Q G"], right: Bool[Tensor, "Q G"], junk: Bool[Tensor, "Q G"] | None = None
) -> MatchRanks:
    """The rank of every right gallery picture of every query.

    Nothing is sorted but the right ones: each other picture is placed among them.

    Args:
        right: what the query should find.
        junk: taken out before ranking, even where it is marked right.

    Raises:
        RecordError: NaN among the distances.
    """
    require(not bool(distances.isnan().any()), "distances", "NaN", "numbers")
    skipped = torch.zeros_like(right) if junk is None else junk
    distances = at_least_single(distances)
    most = int(torch.count_nonzero(right & ~skipped, dim=1).max()) if len(right) else 0
    if not most:
        return MatchRanks(torch.zeros(len(right), 0, dtype=torch.int64, device=right.device))
    if distances.device.type == "cpu":
        return MatchRanks(_ranks_in_threads(distances.detach(), right, skipped, most))
    return MatchRanks(_plain_ranks(distances, right, skipped, most))


def _ranks_in_threads(
    distances: Float[Tensor, "Q G"], right: Bool[Tensor, "Q G"], junk: Bool[Tensor, "Q G"], most: int
) -> Int64[Tensor, "Q R"]:
    from bestiary.metrics._kernels.ranking import rank_rows
    from bestiary.ops._kernels.threads import in_threads

    ranks = torch.zeros(len(distances), most, dtype=torch.int64)
    far, hit, out = (tensor.contiguous().numpy() for tensor in (distances, right, junk))
    places = ranks.numpy()
    in_threads(lambda start, stop: rank_rows(far, hit, out, places, start, stop), len(far), torch.get_num_threads())
    return ranks


def _plain_ranks(
    distances: Float[Tensor, "Q G"], right: Bool[Tensor, "Q G"], junk: Bool[Tensor, "Q G"], most: int
) -> Int64[Tensor, "Q R"]:
    right, wrong = right & ~junk, ~(right | junk)
    near = distances.masked_fill(~right, math.inf).topk(most, dim=1, largest=False).values.contiguous()
    # The first right picture at least as far as each other one: that one and those behind it stand after the other.
    place = torch.searchsorted(near, distances.contiguous())
    counts = right.sum(1)
    before = counts.new_zeros(len(counts), most + 1).scatter_add_(1, place, wrong.long())[:, :most].cumsum(1)
    order = torch.arange(1, most + 1, device=counts.device)
    return (before + order) * (order <= counts[:, None])


def rank_embeddings(
    queries: Embeddings,
    gallery: Embeddings,
    distance: Distance = "cosine",
    places: Int64[Tensor, " Q"] | None = None,
    memory_mb: int = 256,
) -> Iterator[MatchRanks]:
    """The ranks of the queries, share by share, in order; the table of all distances is never held.

    Convention: a gallery picture is right if its identity is the query's. Junk are pictures of identity `JUNK_ID` and,
    where both sides have cameras, those of the query's identity that the query's camera took. A zero vector's
    cosine with anything is 0. Distances come from one matrix product in the features' precision, at least float32; hand
    in float64 where the order of near duplicates matters.

    Args:
        queries: moved to the gallery's device.
        places: where each query stands in the gallery, to leave it out: metric learning's setting, in which the test
            set is its own gallery.
        memory_mb: what one share may take, beyond the features; one query at least.

    Raises:
        RecordError: feature sizes differ, there is no gallery, or only one side has cameras.
    """
    wide, wanted = queries.features.shape[1], gallery.features.shape[1]
    require(wide == wanted, "queries", f"features of {wide}", f"{wanted}, as in the gallery")
    require(len(gallery) > 0, "gallery", "no picture", "at least one")
    sided = (queries.cameras is None) == (gallery.cameras is None)
    require(sided, "cameras", "cameras on one side", "on both sides or neither")
    device = gallery.features.device
    queries, places = queries.to(device), None if places is None else places.to(device)
    stored = at_least_single(gallery.features.detach())
    found = queries.features.detach().to(stored)
    if distance == "cosine":
        found, stored = F.normalize(found, dim=1), F.normalize(stored, dim=1)
    else:
        # Only differences matter: about their mean the squares are smaller, and so is what their rounding hides. A mean
        # in whole numbers keeps features of whole numbers, such as codes, exact, and their equal distances equal.
        middle = stored.mean(0).round()
        found, stored = found - middle, stored - middle
    # |q - g|^2 less |q|^2, halved; of unit vectors the last term is the same for all.
    offsets = (stored**2).sum(1) / 2 if distance == "euclidean" else stored.new_zeros(len(stored))
    step = max(1, memory_mb * 2**20 // (_BYTES_A_PAIR * len(gallery)))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        right = queries.ids[part, None] == gallery.ids
        junk = (gallery.ids == JUNK_ID).expand_as(right)
        if queries.cameras is not None and gallery.cameras is not None:
            junk = junk | (right & (queries.cameras[part, None] == gallery.cameras))
        if places is not None:
            junk = junk.scatter(1, places[part, None], True)
        yield rank_matches(torch.addmm(offsets, found[part], stored.T, alpha=-1), right, junk)


class RetrievalScores:
    """Scores of queries as they come, against a gallery that is there from the start.

    Kept: the gallery, and one sum a number, whatever the number of queries. Processes that share the queries each hold
    the gallery.

    Args:
        gallery: what is searched.
        topk: ranks at which CMC (Recall@k) is told.
        distance: see `rank_embeddings`.
        memory_mb: see `rank_embeddings`.

    Raises:
        UsageError: no rank, or one below 1.
    """

    def __init__(
        self,
        gallery: Embeddings,
        topk: Sequence[int] = (1, 5, 10, 20),
        distance: Distance = "cosine",
        memory_mb: int = 256,
    ) -> None:
        if not topk or min(topk) < 1:
            raise UsageError(f"got {list(topk)}, wanted ranks of at least 1", where="topk")
        self.gallery, self.topk = gallery, tuple(sorted(set(topk)))
        self.distance: Distance = distance
        self.memory_mb, self.queries = memory_mb, 0
        self._averages = Averages()

    def update(self, queries: Embeddings, places: Int64[Tensor, " Q"] | None = None) -> None:
        """Search for Q queries; `places` as in `rank_embeddings`."""
        for ranks in rank_embeddings(queries, self.gallery, self.distance, places, self.memory_mb):
            self.queries += len(ranks.ranks)
            self._averages.add(
                {
                    "mAP": ranks.average_precision(),
                    "mAP_trapezoid": ranks.average_precision_trapezoid(),
                    **{f"rank{k}": ranks.found_within(k) for k in self.topk},
                    "R_precision": ranks.r_precision(),
                    "MAP@R": ranks.map_at_r(),
                }
            )

    def merge(self, other: "RetrievalScores") -> None:
        """Add what another accumulator over the same gallery has counted.

        Raises:
            UsageError: ranks, distance or the galleries' sizes differ.
        """
        require_same_rules(self, other, ("topk", "distance"))
        require_same_rules(self.gallery, other.gallery, ("size",))
        self._averages.merge(other._averages)
        self.queries += other.queries

    def compute(self) -> Scores:
        """mAP (mean of the precisions at the right pictures) leads; `mAP_trapezoid` is Market-1501's and Oxford's."""
        names = ["mAP", "mAP_trapezoid", *(f"rank{k}" for k in self.topk), "R_precision", "MAP@R"]
        values = {name: self._averages.mean(name) for name in names}
        judged = self._averages.count("mAP")
        cameras = "" if self.gallery.cameras is None else "; the query's identity under its own camera is left out"
        protocol = (
            f"{judged} queries in {len(self.gallery)} pictures by {self.distance} distance, "
            f"{self.queries - judged} queries without a right picture left out{cameras}; equal distances rank wrong "
            "pictures first; mAP: mean precision at the right pictures; mAP_trapezoid: area under the curve"
        )
        return Scores("mAP", values, protocol, details={"queries": self.queries, "judged": judged})
