"""Methods of proposing boxes by name and text."""

import pytest

from bestiary.errors import UsageError
from bestiary.proposals.chosen import chosen_proposer


def test_options_are_read_as_the_constructor_wants_them() -> None:
    windows = chosen_proposer("sliding_windows", ["count=50", "least-side=8.5", "aspects=1+2", "seed=3"])
    assert windows.settings()["count"] == 50
    assert windows.settings()["least_side"] == 8.5
    assert tuple(windows.settings()["aspects"]) == (1.0, 2.0)
    search = chosen_proposer("selective_search_fast", ["width=none", "min_side=10"])
    assert search.settings()["width"] is None
    assert search.settings()["min_side"] == 10
    assert chosen_proposer("bing", ["is_binary=false"]).name == "bing"
    assert chosen_proposer("sliding_windows").settings()["count"] == 2000


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("sliding_windows", "count", "got 'count', wanted name=value"),
        ("sliding_windows", "=3", "got '=3', wanted name=value"),
        ("sliding_windows", "count=many", "got 'count=many', wanted int"),
        ("sliding_windows", "count=1.5", "got 'count=1.5', wanted int"),
        ("sliding_windows", "aspects=1+x", "got 'aspects=1.x', wanted float, int"),
        ("sliding_windows", "counts=3", "it has no option 'counts'"),
        ("sliding_window", "count=3", "no method of proposals is called 'sliding_window'"),
    ],
)
def test_what_does_not_fit_is_named(name: str, option: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_proposer(name, [option])
