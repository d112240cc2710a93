"""From a data set to batches: the same pictures whatever the number of workers or ranks.

Each picture's transforms draw from `numpy.random.default_rng([seed, epoch, index, occurrence])`, where `occurrence`
counts how often the epoch's order had the index before. The order is the sampler's, a pure function of the epoch. So
a batch is determined by (seed, epoch, number of the batch), and a run can go on in the middle of an epoch without
decoding what came before.

**Ranks.** With `world` ranks and batches of b, step s takes places `s * b * world` up to `(s + 1) * b * world` of the
order, and rank r has every `world`-th of them from the r-th on: together the ranks see what one process with batches
of `b * world` sees.
"""

import gc
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from bestiary.data.packing import pack, unpack
from bestiary.errors import BestiaryError, DataError, UsageError
from bestiary.records import Record, Sample, Target, require
from bestiary.training.sampling import Sampler, Sequential, Shuffled

Prepare = Callable[[Sample, np.random.Generator], Sample]
"""A transform."""


@runtime_checkable
class Pictures(Protocol):
    """What a loader can load from: `bestiary.data.dataset.Dataset`, `bestiary.data.world.World`, or a list of
    samples.
    """

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """The picture at `index`, the same each time it is asked for."""
        ...


@dataclass(frozen=True, eq=False)
class Batch(Record):
    """Pictures and their truth, lists of equal length.

    Attributes:
        images: of any sizes.
        targets: what is known of each.
        names: unique within the data set.
        indices: places in the data set.
    """

    images: list[Shaped[Tensor, "_c _h _w"]]
    targets: list[Target]
    names: list[str]
    indices: list[int]

    def __post_init__(self) -> None:
        lengths = [len(self.images), len(self.targets), len(self.names), len(self.indices)]
        require(len(set(lengths)) == 1, "Batch", f"{lengths} images, targets, names, indices", "as many of each")

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with every tensor on `device`."""
        images = [image.to(device) for image in self.images]
        return replace(self, images=images, targets=[target.to(device) for target in self.targets])


@dataclass(frozen=True)
class Workers:
    """Processes that prepare batches ahead.

    Attributes:
        count: 0 prepares in the main process.
        start: how a process starts; None is "fork" where the system has it (at once, and the data set needs no
            pickling; workers use no parallel kernels), else "spawn". "forkserver" and "spawn" need picklable data
            sets and an importable main module.
        ahead: batches that each worker keeps ready.
    """

    count: int = 0
    start: Literal["fork", "forkserver", "spawn"] | None = None
    ahead: int = 2

    def __post_init__(self) -> None:
        if self.count < 0 or self.ahead < 1:
            raise UsageError(f"got count {self.count}, ahead {self.ahead}, wanted at least 0 and 1", where="Workers")


def collate(samples: Sequence[Sample], indices: Sequence[int]) -> Batch:
    """A batch of `samples`, nothing copied."""
    return Batch([s.image for s in samples], [s.target for s in samples], [s.name for s in samples], list(indices))


class Loader:
    """Batches of a data set, epoch by epoch.

    Args:
        dataset: must not change while it is loaded from.
        batch: pictures a batch, on each rank.
        transform: applied to each picture; None serves them as they are.
        seed: determines order and transforms together with the epoch.
        shuffle: a new order each epoch; otherwise the data set's. Not used with a `sampler`.
        workers: processes that prepare batches; they live as long as the loader.
        sampler: another order (`bestiary.training.sampling`).
        drop_last: leave out the last batch where it is not full.
        rank: which of the `world` processes this is.
        world: processes that train together.
        even: give every rank the same number of pictures, by repeating the first few of the order at its end: a rank
            without a batch would make the others wait for ever. None does so when training (`shuffle` or `sampler`);
            in an evaluation nothing is repeated, and a rank may have one batch less than another.
        cache_bytes: keep decoded pictures (before transforms) in up to this much memory, all workers together. Each
            worker keeps what it came across, so that with n workers a picture may be held n times.

    Raises:
        UsageError: an argument out of range.
    """

    def __init__(
        self,
        dataset: Pictures,
        batch: int,
        transform: Prepare | None = None,
        seed: int = 0,
        shuffle: bool = False,
        workers: int | Workers = 0,
        sampler: Sampler | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
        even: bool | None = None,
        cache_bytes: int = 0,
    ) -> None:
        if batch < 1:
            raise UsageError(f"got {batch}, wanted at least 1", where="Loader(batch)")
        if not 0 <= rank < world:
            raise UsageError(f"got rank {rank} of {world}, wanted 0 <= rank < world", where="Loader(rank, world)")
        if cache_bytes < 0:
            raise UsageError(f"got {cache_bytes}, wanted at least 0", where="Loader(cache_bytes)")
        self.dataset, self.batch, self.seed, self.drop_last = dataset, batch, seed, drop_last
        self.rank, self.world = rank, world
        self.workers = Workers(workers) if isinstance(workers, int) else workers
        self.sampler = sampler or (Shuffled(len(dataset), seed) if shuffle else Sequential(len(dataset)))
        self.even = even if even is not None else shuffle or sampler is not None
        self.epoch = 0
        self._fetch = _Fetch(dataset, transform, seed, cache_bytes)
        self._steps = _Steps()
        self._pool: DataLoader[Any] | None = None
        self._turn = 0

    def __len__(self) -> int:
        """Batches an epoch on this rank; the same every epoch."""
        full, rest = divmod(len(self.sampler), self.batch * self.world)
        if self.drop_last or not rest:
            return full
        return full + (1 if self.even or rest > self.rank else 0)

    def set_epoch(self, epoch: int) -> None:
        """Let `iter(loader)` give the batches of `epoch`."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate(self.epoch)

    def iterate(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start_batch` on; those before are not decoded.

        Raises:
            BestiaryError: what a reader or transform said of a picture, when its batch is reached.
            DataError: a worker was killed.
            UsageError: another iteration of a loader with workers was begun in the meantime.
        """
        steps = self.steps(epoch)[start_batch:]
        if self.workers.count == 0:
            return (collate(*self._fetch.samples(keys)) for keys in steps)
        return self._from_workers(steps)

    def steps(self, epoch: int) -> list[Int64[np.ndarray, "_b 3"]]:
        """What this rank loads in each batch of `epoch`: rows (epoch, index, occurrence)."""
        order = self.sampler.order(epoch)
        size = self.batch * self.world
        if self.drop_last:
            order = order[: len(order) // size * size]
        elif self.even and len(order):
            order = np.resize(order, -(-len(order) // self.world) * self.world)
        keys = np.stack([np.full(len(order), epoch), order, _occurrences(order)], axis=1).astype(np.int64)
        steps = [keys[at : at + size][self.rank :: self.world] for at in range(0, len(keys), size)]
        return [step for step in steps if len(step)]

    def close(self) -> None:
        """End the workers; the next iteration starts new ones. They also end with the loader, and after an error."""
        # What torch does when the iterator is collected; an iterator held by a traceback would be collected too late,
        # together with its queues, and then wait five seconds for workers that were never told.
        end = getattr(getattr(self._pool, "_iterator", None), "_shutdown_workers", None)
        if end is not None:
            end()
        self._pool = None
        self._turn += 1

    def _from_workers(self, steps: list[Int64[np.ndarray, "_b 3"]]) -> Iterator[Batch]:
        self._turn += 1
        turn = self._turn
        if self._pool is None:
            gc.collect()  # a fork that inherits the remains of another loader would try to end that one's workers
            self._pool = self._make_pool()
        self._steps.pending = steps
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            arriving = iter(self._pool)
        return self._arrivals(arriving, turn)

    def _arrivals(self, arriving: Iterator[Any], turn: int) -> Iterator[Batch]:
        while True:
            if turn != self._turn:
                mend = "Finish one iteration before the next, or make a second loader"
                raise UsageError("the workers were given another epoch meanwhile", where="Loader.iterate", mend=mend)
            try:
                arrived = next(arriving, None)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                self.close()
                mend = "Use fewer workers or smaller batches: memory or /dev/shm (docker: --shm-size) may have run out"
                raise DataError("a worker process was killed", where="Loader", mend=mend) from error
            if arrived is None:
                return
            if isinstance(arrived, Exception):
                self.close()
                try:
                    raise arrived
                finally:
                    del arrived  # or error, traceback and this frame hold one another, and the workers with them
            yield unpack(*arrived)

    def _make_pool(self) -> "DataLoader[Any]":
        methods = torch.multiprocessing.get_all_start_methods()
        return DataLoader(
            self._fetch,
            batch_sampler=self._steps,
            num_workers=self.workers.count,
            collate_fn=_as_it_is,
            worker_init_fn=_calm_worker,
            multiprocessing_context=self.workers.start or ("fork" if "fork" in methods else "spawn"),
            prefetch_factor=self.workers.ahead,
            persistent_workers=True,
            generator=torch.Generator(),  # or each epoch would draw from the global one, and only with workers
        )


class _Steps:
    """The batches that the pool works through next."""

    def __init__(self) -> None:
        self.pending: list[Int64[np.ndarray, "_b 3"]] = []

    def __iter__(self) -> Iterator[list[list[int]]]:
        return (step.tolist() for step in self.pending)

    def __len__(self) -> int:
        return len(self.pending)


class _Fetch(TorchDataset[Any]):
    """Loads and prepares pictures; lives in every worker."""

    def __init__(self, dataset: Pictures, transform: Prepare | None, seed: int, cache_bytes: int) -> None:
        self.dataset, self.transform, self.seed, self.cache_bytes = dataset, transform, seed, cache_bytes
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[list[int]]) -> Any:
        """In a worker: one packed batch, or the error of its first bad picture, to be raised by the receiver."""
        try:
            return pack(collate(*self.samples(np.asarray(keys, dtype=np.int64))))
        except BestiaryError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a mistake in someone's transform: raised in the main process
            return _portable(error)

    def samples(self, keys: Int64[np.ndarray, "_b 3"]) -> tuple[list[Sample], list[int]]:
        """Prepared pictures and their indices."""
        rows = keys.tolist()
        return [self._one(*row) for row in rows], [index for _, index, _ in rows]

    def _one(self, epoch: int, index: int, occurrence: int) -> Sample:
        sample = self._decoded(index)
        if self.transform is None:
            return sample
        try:
            return self.transform(sample, np.random.default_rng([self.seed, epoch, index, occurrence]))
        except BestiaryError as error:
            where = f"{sample.name}: {error.where}" if error.where else sample.name
            raise type(error)(error.message, where=where, mend=error.mend) from error
        except Exception as error:
            error.add_note(f"while transforming {sample.name!r} (index {index}, epoch {epoch}, seed {self.seed})")
            raise

    def _decoded(self, index: int) -> Sample:
        if index in self._cache:
            return self._cache[index]
        sample = self.dataset[index]
        if self.cache_bytes:
            info = get_worker_info()
            budget = self.cache_bytes // (info.num_workers if info else 1)
            size = _bytes(sample)
            if self._cached_bytes + size <= budget:
                self._cache[index] = sample
                self._cached_bytes += size
        return sample


def _portable(error: Exception) -> Exception:
    """`error` with the place in the worker where it arose, as something that surely survives being sent."""
    error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever an error class may do when it is built again
        return RuntimeError("\n".join([repr(error), *error.__notes__]))
    return error


def _occurrences(order: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """How often each entry has come before."""
    by_value = np.argsort(order, kind="stable")
    values = order[by_value]
    first = np.searchsorted(values, values, side="left")
    counts = np.empty(len(order), dtype=np.int64)
    counts[by_value] = np.arange(len(order)) - first
    return counts


def _bytes(record: Record) -> int:
    total = 0
    for value in vars(record).values():
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, Record):
            total += _bytes(value)
    return total


def _as_it_is(fetched: Any) -> Any:
    return fetched


def _calm_worker(worker: int) -> None:
    """One thread a worker: OpenCV's pool does not survive a fork, and workers shall not fight for processors."""
    import cv2

    gc.freeze()  # what a fork inherited is not the worker's to collect
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
