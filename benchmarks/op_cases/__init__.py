"""What benchmarks/ops.py times: one module a family, each with `cases(peers)`."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple


class Case(NamedTuple):
    """One measurement.

    Attributes:
        name: operator and sizes.
        ours: a call of ours, everything prepared.
        peer: the same work by the peer; None where it has no such operator or is not installed.
        target: how many times faster than the peer it is meant to be; None for no mark.
        peer_name: whose it is.
    """

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object] | None = None
    target: float | None = None
    peer_name: str = "torchvision"


@dataclass(frozen=True)
class Peers:
    """What is installed beside us.

    Attributes:
        vision: torchvision.
        coco_mask: pycocotools.mask.
    """

    vision: ModuleType | None = None
    coco_mask: ModuleType | None = None
