"""Rankings: by hand, by loops over sorted lists, by scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.clusters import kmeans_nmi, normalized_mutual_information
from bestiary.metrics.retrieval import (
    Distance,
    Embeddings,
    MatchRanks,
    RetrievalScores,
    _plain_ranks,
    rank_embeddings,
    rank_matches,
)


def ranks_of(*rows: list[int]) -> MatchRanks:
    width = max(len(row) for row in rows)
    return MatchRanks(torch.tensor([row + [0] * (width - len(row)) for row in rows]))


def oxford_ap(relevant: list[bool]) -> float:
    """The loop of the Oxford buildings and Market-1501 evaluation, over a ranking without junk."""
    total, hits, area, old_recall, old_precision = sum(relevant), 0, 0.0, 0.0, 1.0
    for place, right in enumerate(relevant):
        hits += right
        recall, precision = hits / total, hits / (place + 1)
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


def test_the_two_average_precisions_by_hand() -> None:
    sole = ranks_of([2])
    assert sole.average_precision().item() == 0.5
    assert sole.average_precision_trapezoid().item() == 0.25
    first_and_third = ranks_of([1, 3])
    assert first_and_third.average_precision().item() == pytest.approx((1 + 2 / 3) / 2)
    assert first_and_third.average_precision_trapezoid().item() == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert first_and_third.r_precision().item() == 0.5
    assert first_and_third.map_at_r().item() == 0.5
    assert ranks_of([2, 3]).map_at_r().item() == 0.25
    perfect = ranks_of([1, 2, 3])
    for number in (perfect.average_precision(), perfect.average_precision_trapezoid(), perfect.map_at_r()):
        assert number.item() == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40))
def test_every_number_is_that_of_the_sorted_list(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.permutation(size).astype(np.float64)
    right, junk = rng.random(size) < 0.3, rng.random(size) < 0.2
    right[0], junk[0] = True, False
    found = rank_matches(*(torch.from_numpy(x)[None] for x in (distances, right, junk)))
    ranking = [bool(right[i]) for i in np.argsort(distances) if not junk[i]]
    assert found.ranks[0].tolist() == [i + 1 for i, hit in enumerate(ranking) if hit]
    kept = ~junk
    assert found.average_precision().item() == pytest.approx(
        sk.average_precision_score(right[kept], -distances[kept]), abs=1e-12
    )
    assert found.average_precision_trapezoid().item() == pytest.approx(oxford_ap(ranking), abs=1e-12)
    total = sum(ranking)
    assert found.r_precision().item() == pytest.approx(sum(ranking[:total]) / total)
    sums = sum(sum(ranking[: i + 1]) / (i + 1) for i in range(total) if ranking[i])
    assert found.map_at_r().item() == pytest.approx(sums / total)
    for k in (1, 3, 10):
        assert found.found_within(k).item() == float(any(ranking[:k]))


def test_equal_distances_rank_wrong_first_and_order_changes_nothing() -> None:
    distances = torch.zeros(1, 5)
    right = torch.tensor([[True, False, True, False, False]])
    assert rank_matches(distances, right).ranks.tolist() == [[4, 5]]
    rng = np.random.default_rng(0)
    distances = torch.from_numpy(rng.integers(0, 4, (6, 30)).astype(np.float32))
    right = torch.from_numpy(rng.random((6, 30)) < 0.2)
    wanted = rank_matches(distances, right).ranks
    for _ in range(3):
        order = torch.from_numpy(rng.permutation(30))
        assert torch.equal(rank_matches(distances[:, order], right[:, order]).ranks, wanted)
    for row in range(6):
        pairs = sorted((float(d), bool(r)) for d, r in zip(distances[row], right[row], strict=True))
        by_hand = [i + 1 for i, (_, hit) in enumerate(pairs) if hit]
        assert wanted[row][wanted[row] > 0].tolist() == by_hand


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_equals_plain_torch_on_any_number_of_threads(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    distances = torch.from_numpy(rng.integers(0, 50, (23, 200))).to(dtype)
    right, junk = (torch.from_numpy(rng.random((23, 200)) < share) for share in (0.1, 0.2))
    right[4], junk[5] = False, True
    right[6], junk[6, :60] = True, False  # more than a few
    most = int((right & ~junk).sum(1).max())
    wanted = _plain_ranks(distances, right, junk, most)
    assert torch.equal(rank_matches(distances, right, junk).ranks, wanted)
    assert torch.equal(rank_matches(distances.T.contiguous().T, right, junk).ranks, wanted)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(rank_matches(distances, right, junk).ranks, wanted)
    finally:
        torch.set_num_threads(before)


def test_queries_without_a_right_picture_are_nan() -> None:
    found = rank_matches(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[False, False], [False, True]]))
    assert found.ranks.tolist() == [[0], [2]]
    for numbers in (found.average_precision(), found.found_within(1), found.r_precision(), found.map_at_r()):
        assert numbers.isnan().tolist() == [True, False]
    nothing = rank_matches(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.average_precision_trapezoid().isnan().all()
    assert rank_matches(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool)).average_precision().shape == (0,)
    with pytest.raises(RecordError, match="NaN"):
        rank_matches(torch.full((1, 1), math.nan), torch.ones(1, 1, dtype=torch.bool))


def scene(seed: int = 0, queries: int = 12, gallery: int = 60) -> tuple[Embeddings, Embeddings]:
    """Whole-numbered features, whose products are exact, of 5 identities under 3 cameras, with junk."""
    rng = np.random.default_rng(seed)

    def some(count: int, lowest: int) -> Embeddings:
        features = torch.from_numpy(rng.integers(-9, 10, (count, 16)).astype(np.float32))
        ids = torch.from_numpy(rng.integers(lowest, 5, count))
        return Embeddings(features, ids, torch.from_numpy(rng.integers(0, 3, count)))

    return some(queries, 0), some(gallery, -1)


def naive_market(queries: Embeddings, gallery: Embeddings, distance: str) -> list[list[int]]:
    assert queries.cameras is not None
    assert gallery.cameras is not None
    rows = []
    for feature, identity, camera in zip(queries.features.double(), queries.ids, queries.cameras, strict=True):
        ranking = []
        for other, other_id, other_camera in zip(gallery.features.double(), gallery.ids, gallery.cameras, strict=True):
            if other_id == -1 or (other_id == identity and other_camera == camera):
                continue
            if distance == "cosine":
                far = 1 - float(feature @ other / (feature.norm() * other.norm()))
            else:
                far = float((feature - other).norm())
            ranking.append((far, bool(other_id == identity)))
        rows.append([i + 1 for i, (_, right) in enumerate(sorted(ranking)) if right])
    return rows


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_market_rule_equals_the_loops(distance: Distance) -> None:
    queries, gallery = scene()
    wide, deep = (Embeddings(e.features.double(), e.ids, e.cameras) for e in (queries, gallery))
    wanted = naive_market(queries, gallery, distance)
    got = [row[row > 0].tolist() for part in rank_embeddings(wide, deep, distance) for row in part.ranks]
    assert got == wanted
    got = [row[row > 0].tolist() for part in rank_embeddings(queries, gallery, distance) for row in part.ranks]
    assert got == wanted, "float32"


def test_the_same_camera_would_flatter() -> None:
    queries, gallery = scene()
    seen = Embeddings(
        torch.cat([gallery.features, queries.features]),
        torch.cat([gallery.ids, queries.ids]),
        torch.cat([gallery.cameras, queries.cameras]),  # type: ignore[list-item]
    )
    fair, leaky = RetrievalScores(seen), RetrievalScores(Embeddings(seen.features, seen.ids))
    fair.update(queries)
    leaky.update(Embeddings(queries.features, queries.ids))
    without = RetrievalScores(gallery)
    without.update(queries)
    assert leaky.compute().values["rank1"] == 1
    assert fair.compute().values["rank1"] < 0.7
    assert "under its own camera is left out" in fair.compute().protocol


def test_any_share_of_memory_gives_the_same_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = scene(queries=25)
    whole = RetrievalScores(gallery, distance="euclidean")
    whole.update(queries)
    sizes = [len(part.ranks) for part in rank_embeddings(queries, gallery, memory_mb=0)]
    assert sizes == [1] * 25, "one query at least"
    monkeypatch.setattr("bestiary.metrics.retrieval._BYTES_A_PAIR", 2**20 // 60 // 4)
    assert [len(part.ranks) for part in rank_embeddings(queries, gallery, memory_mb=2)] == [8, 8, 8, 1]
    parts = RetrievalScores(gallery, distance="euclidean", memory_mb=1)
    parts.update(queries)
    assert parts.compute().to_dict() == whole.compute().to_dict()


def test_scores_in_any_sharing_and_what_is_left_out() -> None:
    queries, gallery = scene(seed=4, queries=20)
    strangers = Embeddings(queries.features[:2], torch.tensor([77, -1]), torch.zeros(2, dtype=torch.int64))
    whole, first, second = (RetrievalScores(gallery, topk=(5, 1)) for _ in range(3))
    whole.update(queries)
    whole.update(strangers)
    first.update(strangers)
    second.update(queries)
    second.merge(first)
    computed = whole.compute()
    assert second.compute().to_dict() == computed.to_dict()
    ranks = [row for row in naive_market(queries, gallery, "cosine") if row]
    assert computed.details == {"queries": 22, "judged": len(ranks)}
    assert computed.values["rank5"] == pytest.approx(np.mean([row[0] <= 5 for row in ranks]))
    aps = [np.mean([(i + 1) / r for i, r in enumerate(row)]) for row in ranks]
    assert computed.value == pytest.approx(np.mean(aps), abs=1e-12)
    assert computed.values["mAP_trapezoid"] < computed.value
    assert math.isnan(RetrievalScores(gallery).compute().value)


def test_a_set_that_is_its_own_gallery_leaves_each_query_out() -> None:
    features = torch.tensor([[0.0], [1.0], [10.0], [11.5], [12.0]])
    everything = Embeddings(features, torch.tensor([0, 0, 1, 1, 2]))
    scores = RetrievalScores(everything, topk=(1,), distance="euclidean")
    scores.update(everything, places=torch.arange(5))
    # nearest other: 0-1, 1-0, 10-11.5, 11.5-12 (wrong), and 12 has no fellow
    assert scores.compute().values["rank1"] == 0.75
    assert scores.compute().details["judged"] == 4


def test_far_away_features_keep_their_order() -> None:
    """Squares of a thousand would hide differences of a thousandth in float32."""
    near = torch.tensor([[0.0, 0.0], [0.001, 0.0], [0.0, 0.002], [0.003, 0.0]]) + 1000
    gallery = Embeddings(near[1:], torch.tensor([0, 1, 1]))
    (ranks,) = rank_embeddings(Embeddings(near[:1], torch.tensor([0])), gallery, "euclidean")
    assert ranks.ranks.tolist() == [[1]]


def test_pooled_queries_are_means_of_identity_and_camera() -> None:
    queries = Embeddings(
        torch.tensor([[1.0], [3.0], [5.0], [7.0]]), torch.tensor([2, 2, 2, 1]), torch.tensor([0, 0, 1, 0])
    )
    pooled = queries.pooled()
    rows = zip(pooled.ids.tolist(), pooled.cameras.tolist(), pooled.features[:, 0].tolist(), strict=True)  # type: ignore[union-attr]
    assert list(rows) == [(1, 0, 7.0), (2, 0, 2.0), (2, 1, 5.0)]
    with pytest.raises(UsageError, match="no cameras"):
        Embeddings(queries.features, queries.ids).pooled()


def test_half_precision_and_other_layouts() -> None:
    queries, gallery = scene()
    halves = Embeddings(queries.features.half(), queries.ids, queries.cameras)
    turned = Embeddings(gallery.features.T.contiguous().T, gallery.ids, gallery.cameras)
    assert not turned.features.is_contiguous()
    (got,), (wanted,) = rank_embeddings(halves, turned), rank_embeddings(queries, gallery)
    assert torch.equal(got.ranks, wanted.ranks)


def embeddings(features: Tensor) -> Embeddings:
    return Embeddings(features, torch.zeros(len(features), dtype=torch.int64))


def test_bad_input_is_named() -> None:
    with pytest.raises(RecordError, match="NaN or infinity"):
        embeddings(torch.tensor([[math.inf]]))
    with pytest.raises(UsageError, match="ranks of at least 1"):
        RetrievalScores(embeddings(torch.zeros(1, 2)), topk=(0,))
    with pytest.raises(RecordError, match="features of 3, wanted 2"):
        RetrievalScores(embeddings(torch.zeros(1, 2))).update(embeddings(torch.zeros(1, 3)))
    with pytest.raises(RecordError, match="no picture"):
        RetrievalScores(embeddings(torch.zeros(0, 2))).update(embeddings(torch.zeros(1, 2)))
    with pytest.raises(RecordError, match="cameras on one side"):
        RetrievalScores(embeddings(torch.zeros(1, 16))).update(scene()[0])
    with pytest.raises(UsageError, match=r"size: got \(2, 2\), wanted \(1, 2\)"):
        RetrievalScores(embeddings(torch.zeros(1, 2))).merge(RetrievalScores(embeddings(torch.zeros(2, 2))))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_nmi_is_sklearns(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels, clusters = rng.integers(0, 4, count), rng.integers(-3, 3, count)
    got = normalized_mutual_information(torch.from_numpy(labels), torch.from_numpy(clusters))
    assert got == pytest.approx(sk.normalized_mutual_info_score(labels, clusters), abs=1e-9)


def test_nmi_at_the_edges() -> None:
    same = torch.tensor([0, 0, 1, 1])
    assert normalized_mutual_information(same, 7 - same) == 1
    assert normalized_mutual_information(same, torch.zeros(4, dtype=torch.int64)) == 0
    assert normalized_mutual_information(same[:2], same[:2]) == 1
    assert math.isnan(normalized_mutual_information(same[:0], same[:0]))
    with pytest.raises(RecordError, match="3 numbers, wanted 4"):
        normalized_mutual_information(same, same[:3])


def test_kmeans_finds_what_lies_apart() -> None:
    labels = torch.arange(30) % 3
    features = 10.0 * torch.nn.functional.one_hot(labels, 3).float() + torch.rand(30, 3)
    assert kmeans_nmi(features, labels) == pytest.approx(1)
    assert math.isnan(kmeans_nmi(features[:0], labels[:0]))
    with pytest.raises(RecordError, match="NaN or infinity"):
        kmeans_nmi(features * math.nan, labels)
