import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.assign import IGNORE, NEGATIVE, POSITIVE, Assignment, sample_balanced
from bestiary.errors import RecordError


def assignment(positives: int, negatives: int, ignored: int, seed: int = 0) -> Assignment:
    kind = torch.tensor([POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORE] * ignored, dtype=torch.int8)
    kind = kind[torch.randperm(len(kind), generator=torch.Generator().manual_seed(seed))]
    return Assignment(torch.zeros(len(kind), dtype=torch.int64), kind)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(0, 9), st.integers(0, 30), st.sampled_from([0, 0.25, 0.5, 1])
)
def test_counts_kinds_and_uniqueness(positives: int, negatives: int, ignored: int, count: int, share: float) -> None:
    given_kinds = assignment(positives, negatives, ignored)
    chosen, refused = sample_balanced(given_kinds, count, share, torch.Generator().manual_seed(0))
    assert len(chosen) == min(positives, int(count * share))
    assert len(refused) == min(negatives, count - len(chosen))
    assert (given_kinds.kind[chosen] == POSITIVE).all()
    assert (given_kinds.kind[refused] == NEGATIVE).all()
    for indices in (chosen, refused):
        assert indices.tolist() == sorted(set(indices.tolist()))


def test_the_generator_decides_alone_and_every_anchor_has_its_chance() -> None:
    kinds = assignment(10, 50, 5)
    first = sample_balanced(kinds, 8, 0.5, torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    again = sample_balanced(kinds, 8, 0.5, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    g = torch.Generator().manual_seed(0)
    counts = torch.zeros(65)
    for _ in range(500):
        chosen, refused = sample_balanced(kinds, 8, 0.5, g)
        counts[chosen] += 1
        counts[refused] += 1
    # 4 of 10 positives: 200 +- 11 (one standard deviation); 4 of 50 negatives: 40 +- 6. Five deviations.
    assert (counts[kinds.positive] - 200).abs().max() < 55
    assert (counts[kinds.negative] - 40).abs().max() < 31
    assert counts[kinds.kind == IGNORE].sum() == 0


def test_without_a_generator_torchs_own_is_used() -> None:
    kinds = assignment(100, 100, 0)
    torch.manual_seed(5)
    first = sample_balanced(kinds, 20, 0.5)
    torch.manual_seed(5)
    assert torch.equal(first[0], sample_balanced(kinds, 20, 0.5)[0])


def test_impossible_numbers_are_errors() -> None:
    with pytest.raises(RecordError, match="0 to 1"):
        sample_balanced(assignment(1, 1, 1), 4, 1.5)
    with pytest.raises(RecordError, match="0 or more"):
        sample_balanced(assignment(1, 1, 1), -4, 0.5)
