from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.data.loader import Batch, Loader, Workers, collate
from bestiary.data.packing import pack, unpack
from bestiary.errors import DataError, PictureError, RecordError, UsageError
from bestiary.records import Camera, Objects, Sample, Target
from bestiary.training.sampling import Repeating, Shuffled
from bestiary.transforms.crops import RandomCrop


class Numbers:
    """Pictures that say their index; counts how often each was decoded."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.decoded.append(index)
        objects = Objects(torch.tensor([[0.0, 0, 1, 1]]).repeat(index % 3, 1), torch.full((index % 3,), index))
        image = torch.full((3, 4 + index % 2, 5), index, dtype=torch.uint8)
        return Sample(image, Target(label=index, objects=objects), f"{index}.png", (4 + index % 2, 5))


@dataclass(frozen=True)
class Speckle:
    """Noise from the generator, so that two draws are never equal."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        noise = torch.from_numpy(rng.integers(0, 256, sample.image.shape, dtype=np.uint8))
        return replace(sample, image=noise)


@dataclass(frozen=True)
class Fails:
    at: int
    error: Exception

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.target.label == self.at:
            raise self.error
        return sample


class Broken(Numbers):
    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            raise PictureError("got 0 bytes, wanted a picture", where="3.png", mend="Remove it")
        return super().__getitem__(index)


def content(batch: Batch) -> list[tuple[int, str, bytes, list[float]]]:
    rows = zip(batch.indices, batch.names, batch.images, batch.targets, strict=True)
    return [(i, n, x.contiguous().numpy().tobytes(), t.objects.boxes_xyxy.flatten().tolist()) for i, n, x, t in rows]


def indices(batches: Iterator[Batch]) -> list[list[int]]:
    return [batch.indices for batch in batches]


def test_batches_in_order_with_a_short_last_one() -> None:
    loader = Loader(Numbers(7), 3)
    assert indices(iter(loader)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(loader) == 3
    dropping = Loader(Numbers(7), 3, drop_last=True)
    assert indices(iter(dropping)) == [[0, 1, 2], [3, 4, 5]]
    assert len(dropping) == 2
    assert indices(iter(Loader(Numbers(0), 3))) == []


def test_a_batch_holds_what_the_samples_hold() -> None:
    batch = next(iter(Loader(Numbers(4), 4)))
    assert len(batch) == 4
    assert [t.label for t in batch.targets] == [0, 1, 2, 3]
    assert [tuple(image.shape) for image in batch.images] == [(3, 4, 5), (3, 5, 5), (3, 4, 5), (3, 5, 5)]
    assert batch.names[2] == "2.png"
    moved = batch.to("meta")
    assert moved.images[0].is_meta
    assert moved.targets[1].objects is not None
    assert moved.targets[1].objects.boxes_xyxy.is_meta
    with pytest.raises(RecordError, match="as many"):
        Batch([torch.zeros(3, 1, 1)], [], ["a"], [0])
    assert len(collate([], [])) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(workers: int) -> None:
    alone = Loader(Numbers(11), 3, Speckle(), seed=5, shuffle=True)
    many = Loader(Numbers(11), 3, Speckle(), seed=5, shuffle=True, workers=workers)
    before = torch.random.get_rng_state()
    for epoch in (0, 1):
        want = [content(b) for b in alone.iterate(epoch)]
        assert [content(b) for b in many.iterate(epoch)] == want
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is not touched"
    many.close()
    assert [content(b) for b in many.iterate(1)] == want, "a closed loader starts again"


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_other_ways_to_start_a_worker_give_the_same(start: Literal["spawn", "forkserver"]) -> None:
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (3, 8, 9), dtype=np.uint8)) for _ in range(6)]
    samples = [Sample(image, Target(), str(n), (8, 9)) for n, image in enumerate(images)]
    crop = RandomCrop((4, 4))
    want = [image for batch in Loader(samples, 2, crop) for image in batch.images]
    got = [image for batch in Loader(samples, 2, crop, workers=Workers(1, start)) for image in batch.images]
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_seed_and_epoch_change_order_and_pictures() -> None:
    def first(seed: int, epoch: int) -> tuple[list[int], bytes]:
        batch = next(Loader(Numbers(20), 4, Speckle(), seed=seed, shuffle=True).iterate(epoch))
        return batch.indices, batch.images[0].numpy().tobytes()

    assert first(0, 0) == first(0, 0)
    assert len({first(s, e)[1] for s in (0, 1) for e in (0, 1, 2)}) == 6
    loader = Loader(Numbers(20), 4, seed=1, shuffle=True)
    loader.set_epoch(2)
    assert indices(iter(loader)) == indices(loader.iterate(2))


def test_a_pictures_transform_does_not_depend_on_its_batch() -> None:
    by_index = {}
    for loader in (Loader(Numbers(9), 2, Speckle(), seed=1, shuffle=True), Loader(Numbers(9), 5, Speckle(), seed=1)):
        for batch in loader:
            for index, image in zip(batch.indices, batch.images, strict=True):
                assert torch.equal(by_index.setdefault(index, image), image)


def test_a_repeated_picture_is_transformed_anew_each_time() -> None:
    loader = Loader(Numbers(2), 6, Speckle(), sampler=Repeating([5.0, 1.0]))
    batch = next(iter(loader))
    assert sorted(batch.indices) == [0, 0, 0, 0, 0, 1]
    images = {image.numpy().tobytes() for image in batch.images}
    assert len(images) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_going_on_in_the_middle_decodes_nothing_before(workers: int) -> None:
    dataset = Numbers(10)
    whole = [content(b) for b in Loader(Numbers(10), 3, Speckle(), shuffle=True).iterate(4)]
    loader = Loader(dataset, 3, Speckle(), shuffle=True, workers=workers)
    assert [content(b) for b in loader.iterate(4, start_batch=2)] == whole[2:]
    if not workers:
        assert len(dataset.decoded) == 10 - 2 * 3
    assert list(loader.iterate(4, start_batch=4)) == []


@pytest.mark.parametrize("count", [8, 9, 11, 12])
@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_together_see_what_one_process_sees(count: int, world: int) -> None:
    one = indices(Loader(Numbers(count), 2 * world, seed=3, shuffle=True).iterate(1))
    ranks = [Loader(Numbers(count), 2, seed=3, shuffle=True, rank=r, world=world) for r in range(world)]
    shares = [indices(loader.iterate(1)) for loader in ranks]
    assert [len(loader) for loader in ranks] == [len(share) for share in shares]
    assert len({len(share) for share in shares}) == 1, "no rank may wait for another"
    assert len({len(share[-1]) for share in shares}) == 1
    for step, whole in enumerate(one):
        together = [share[step] for share in shares]
        union = [i for row in zip(*together, strict=True) for i in row]
        assert union[: len(whole)] == whole
        repeated = union[len(whole) :]
        assert len(repeated) < world
        assert repeated == one[0][: len(repeated)]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 10])
def test_an_evaluation_repeats_nothing(count: int) -> None:
    loaders = [Loader(Numbers(count), 2, rank=r, world=2) for r in range(2)]
    seen = [i for loader in loaders for batch in indices(iter(loader)) for i in batch]
    assert sorted(seen) == list(range(count))
    assert [len(loader) for loader in loaders] == [len(indices(iter(loader))) for loader in loaders]


def test_drop_last_leaves_out_what_does_not_fill_all_ranks() -> None:
    loaders = [Loader(Numbers(11), 2, shuffle=True, drop_last=True, rank=r, world=2) for r in range(2)]
    assert [[len(b) for b in indices(iter(loader))] for loader in loaders] == [[2, 2], [2, 2]]
    assert [len(loader) for loader in loaders] == [2, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_arrive_as_they_were_raised(workers: int) -> None:
    loader = Loader(Broken(6), 2, workers=workers)
    batches = iter(loader)
    assert next(batches).indices == [0, 1]
    with pytest.raises(PictureError) as caught:
        next(batches)
    assert str(caught.value) == "3.png: got 0 bytes, wanted a picture. Remove it"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transforms_error_names_the_picture(workers: int) -> None:
    error = RecordError("got 1 channel, wanted 3", where="colour", mend="Convert it")
    with pytest.raises(RecordError, match=r"^2\.png: colour: got 1 channel, wanted 3\. Convert it$"):
        list(Loader(Numbers(4), 2, Fails(2, error), workers=workers))
    with pytest.raises(ZeroDivisionError) as caught:
        list(Loader(Numbers(4), 2, Fails(2, ZeroDivisionError("oh")), workers=workers))
    told = "".join(caught.value.__notes__)
    assert "'2.png' (index 2, epoch 0, seed 0)" in told
    assert ("in a worker" in told) == (workers > 0)
    assert str(caught.value) == "oh"


class UnsendableError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_be_sent_arrives_as_its_text() -> None:
    with pytest.raises(RuntimeError, match=r"UnsendableError\('1 and 2'\)"):
        list(Loader(Numbers(4), 2, Fails(2, UnsendableError(1, 2)), workers=1))


def test_a_killed_worker_is_an_error_with_advice() -> None:
    with pytest.raises(DataError, match="fewer workers"):
        list(Loader(Numbers(4), 2, Killed(), workers=1))


@dataclass(frozen=True)
class Killed:
    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return sample


def test_an_abandoned_epoch_does_not_leak_into_the_next() -> None:
    loader = Loader(Numbers(12), 2, Speckle(), shuffle=True, workers=2)
    alone = Loader(Numbers(12), 2, Speckle(), shuffle=True)
    first = loader.iterate(0)
    next(first)
    assert [content(b) for b in loader.iterate(1)] == [content(b) for b in alone.iterate(1)]
    with pytest.raises(UsageError, match="another epoch"):
        next(first)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_cache_changes_nothing_and_keeps_its_budget(workers: int) -> None:
    plain = Loader(Numbers(6), 2, Speckle(), shuffle=True)
    dataset = Numbers(6)
    cached = Loader(dataset, 2, Speckle(), shuffle=True, workers=workers, cache_bytes=1 << 20)
    for epoch in range(3):
        assert [content(b) for b in cached.iterate(epoch)] == [content(b) for b in plain.iterate(epoch)]
    if not workers:
        assert sorted(dataset.decoded) == list(range(6))
    small = Numbers(6)
    tight = Loader(small, 2, cache_bytes=2 * 100)  # a picture has 60 or 75 bytes, and up to 48 of objects
    for epoch in range(2):
        list(tight.iterate(epoch))
    assert len(small.decoded) == 6 + 6 - 2


@pytest.mark.parametrize(
    "arguments", [{"batch": 0}, {"rank": 2, "world": 2}, {"rank": -1}, {"cache_bytes": -1}, {"workers": -1}]
)
def test_arguments_out_of_range_are_named(arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="wanted"):
        Loader(Numbers(4), **{"batch": 2, **arguments})


def test_a_list_of_samples_is_a_data_set_and_a_sampler_an_order() -> None:
    samples = [Numbers(5)[i] for i in range(5)]
    loader = Loader(samples, 5, sampler=Shuffled(5, seed=9))
    assert next(loader.iterate(2)).indices == Shuffled(5, seed=9).order(2).tolist()


def tensors() -> list[Tensor]:
    return [
        torch.zeros(0, 4),
        torch.tensor(3.5),
        torch.tensor([True, False, True]),
        torch.arange(24, dtype=torch.uint8).view(2, 3, 4).permute(2, 0, 1),
        torch.arange(24.0).view(2, 3, 4)[:, 1:, ::2],
        torch.arange(5, dtype=torch.int64),
    ]


def test_packing_returns_equal_tensors_and_keeps_the_memory_order_of_pictures() -> None:
    camera = Camera(torch.eye(3), torch.eye(4))
    skeleton, buffer = pack([tensors(), camera, {"name": "ä", "none": None}])
    got, packed_camera, rest = unpack(skeleton, buffer)
    for a, b in zip(got, tensors(), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert torch.equal(a, b)
    assert got[3].stride() == tensors()[3].stride()
    assert isinstance(packed_camera, Camera)
    assert torch.equal(packed_camera.pose, torch.eye(4))
    assert rest == {"name": "ä", "none": None}


def test_packing_a_batch_needs_one_buffer_however_many_tensors() -> None:
    batch = next(iter(Loader(Numbers(6), 6)))
    skeleton, buffer = pack(batch)
    assert buffer.ndim == 1
    back = unpack(skeleton, buffer)
    assert content(back) == content(batch)
    assert all(image.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr() for image in back.images)
