"""What the loop is handed: loaders and evaluators, by what they can do."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from bestiary.data.loader import Batch
from bestiary.metrics.scores import Scores


@runtime_checkable
class Batches(Protocol):
    """A loader: the same batches for the same epoch, each time; `bestiary.data.loader.Loader` is one."""

    def __len__(self) -> int:
        """Batches an epoch, the same in every epoch and, for training, on every process."""
        ...

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` (0-based) from number `start_batch` on."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """An accumulator of scores; those of `bestiary.metrics` are. It must be picklable to be merged across processes."""

    def update(self, predictions: Sequence[Any], targets: Sequence[Any]) -> None:
        """Take in predictions and the truth of the same pictures, in original pixels."""
        ...

    def merge(self, other: Any) -> None:
        """Take in what another of the same kind has seen."""
        ...

    def compute(self) -> Scores:
        """The scores of all that was seen."""
        ...


MakeEvaluator = Callable[[], Evaluator]
"""A fresh evaluator for each validation."""
