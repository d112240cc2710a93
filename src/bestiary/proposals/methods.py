"""The methods of proposing boxes, by name: one dictionary, written by hand."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bestiary.errors import UsageError
from bestiary.proposals.bing import Bing
from bestiary.proposals.edge_boxes import EdgeBoxes
from bestiary.proposals.objectness import Objectness
from bestiary.proposals.proposer import Proposer
from bestiary.proposals.selective_search import SelectiveSearchFast, SelectiveSearchQuality
from bestiary.proposals.sliding_windows import RandomBoxes, SlidingWindows


class Method(NamedTuple):
    """A way of proposing boxes.

    Attributes:
        build: its constructor; every argument has a default.
        paper: where it comes from.
        note: what it does, in one line.
        learns: it must be fitted to pictures with boxes first.
    """

    build: Callable[..., Proposer]
    paper: str
    note: str
    learns: bool = False


METHODS: dict[str, Method] = {
    "sliding_windows": Method(SlidingWindows, "", "windows of every size and shape, evenly spread"),
    "random_boxes": Method(RandomBoxes, "", "boxes drawn at random: what any method must beat"),
    "selective_search_fast": Method(
        SelectiveSearchFast, "Uijlings et al., IJCV 2013", "segments merged by likeness, in 8 ways"
    ),
    "selective_search_quality": Method(
        SelectiveSearchQuality, "Uijlings et al., IJCV 2013", "segments merged by likeness, in 80 ways"
    ),
    "edge_boxes": Method(EdgeBoxes, "Zitnick and Dollár, ECCV 2014", "boxes that hold contours whole"),
    "objectness": Method(
        Objectness,
        "Alexe, Deselaers, Ferrari, PAMI 2012",
        "salience, contrast, edges, segments and place by Bayes",
        True,
    ),
    "bing": Method(Bing, "Cheng et al., CVPR 2014", "one 8 x 8 template of gradients, in bits", True),
}


def find(name: str) -> Method:
    """The method called `name`; raises `UsageError` with the nearest name."""
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.5)
        mend = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(METHODS)}"
        raise UsageError(f"no method of proposals is called {name!r}", mend=mend)
    return METHODS[name]


def build(name: str, options: Mapping[str, Any] | None = None) -> Proposer:
    """A proposer with its defaults, and `options` in place of some.

    Raises:
        UsageError: no method or option is called so (the nearest is named), or an option's value does not fit.
    """
    method = find(name)
    known = list(inspect.signature(method.build).parameters)
    for option in options or {}:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
            mend = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(known)}"
            raise UsageError(f"it has no option {option!r}", where=name, mend=mend)
    proposer = method.build(**(options or {}))
    proposer.arguments = dict(options or {})
    return proposer
