"""Where the loop runs: device, precision and processes, all from accelerate.

`torchrun --nproc-per-node N` starts N processes; accelerate finds them in the environment. Nothing here is our own
engine.
"""

import atexit
import functools
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.records import Target
from bestiary.system import Images, System
from bestiary.training.settings import Settings

PATIENCE = timedelta(hours=3)
"""How long a process waits for the others before it gives up: longer than a checkpoint or a report takes."""


class Objective(nn.Module):
    """A system's loss as a forward pass, so that distribution and autocast can wrap it without touching the system."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    def forward(self, images: Images, targets: Sequence[Target]) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of `system.loss`."""
        return dict(self.system.loss(images, targets).terms)


@dataclass(frozen=True, eq=False)
class Engine:
    """The running engine.

    Attributes:
        accelerator: accelerate's object.
        device: of this process.
        precision: what the forward and backward pass run in: "fp32", "bf16" or "fp16".
        reason: why that precision, one sentence for the log.
        rank: number of this process.
        world: number of processes.
    """

    accelerator: Any
    device: torch.device
    precision: str
    reason: str
    rank: int
    world: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @contextmanager
    def shared_gradients(self, objective: nn.Module, last: bool) -> Iterator[None]:
        """Processes average their gradients in the backward pass of the last batch of a step only."""
        if last or self.world == 1:
            yield
        else:
            with self.accelerator.no_sync(objective):
                yield

    def share_buffers(self, system: nn.Module) -> None:
        """Give every process the first one's buffers: each has running statistics of its own batches."""
        if self.world > 1:
            for buffer in system.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Of each flag, whether any process raised it; one exchange for all of them."""
        if self.world == 1:
            return list(flags)
        raised = torch.tensor([float(f) for f in flags], device=self.device)
        torch.distributed.all_reduce(raised, op=torch.distributed.ReduceOp.MAX)
        return [bool(v) for v in raised.tolist()]

    def totals(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Sums over the processes by name; a process need not know every name. The same on all of them."""
        parts = self.gather(dict(numbers))
        if parts is not None:
            names = dict.fromkeys(name for part in parts for name in part)
            parts = {name: sum(part.get(name, 0.0) for part in parts) for name in names}
        return self.from_first(parts)

    def gather(self, thing: Any) -> list[Any] | None:
        """What every process holds, in order of rank, on the first process; None on the others."""
        if self.world == 1:
            return [thing]
        things = [None] * self.world if self.is_first else None
        torch.distributed.gather_object(thing, things, dst=0)
        return things

    def from_first(self, thing: Any) -> Any:
        """The first process's object, on all of them."""
        if self.world == 1:
            return thing
        box = [thing]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]


def rank_and_world() -> tuple[int, int]:
    """Number of this process and of all processes, as torchrun put them into the environment; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def start_engine(settings: Settings) -> Engine:
    """Choose device and precision, and join the other processes if torchrun started several.

    Raises:
        UsageError: there is no such device, or the device cannot compute in the precision that was asked for.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    device = find_device(settings.device)
    precision, reason = choose_precision(settings.precision, device)
    # accelerate keeps one state for the whole interpreter; a second run may ask for another device or precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision={"fp32": "no"}.get(precision, precision),
        # A detector's mask branch has no gradient in a batch without objects.
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    rank, world = accelerator.process_index, accelerator.num_processes
    if world > 1:
        _part_at_exit()
    return Engine(accelerator, accelerator.device, precision, reason, rank, world)


@functools.cache
def _part_at_exit() -> None:
    """Leave the other processes in order when python ends: gloo's threads, still running then, would abort it."""

    def part() -> None:
        if torch.distributed.is_initialized():
            gc.collect()  # wrapped models of finished runs hold on to the group
            torch.distributed.destroy_process_group()

    atexit.register(part)


def find_device(name: str) -> torch.device:
    """The device called `name`; auto is the first GPU, if any, else the CPU."""
    found = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    if name == "auto":
        return torch.device("cuda" if "cuda:0" in found else "mps" if "mps" in found else "cpu")
    if name not in found and not (name == "cuda" and "cuda:0" in found):
        raise UsageError(f"got {name!r}, wanted auto or one of {', '.join(found)}", where="device")
    device = torch.device(name)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def choose_precision(asked: str, device: torch.device) -> tuple[str, str]:
    """The precision to use, and why.

    auto takes bf16 where the processor multiplies it natively (a GPU from compute capability 8.0, a CPU with
    AVX512-BF16 or AMX), fp16 on older GPUs, and fp32 elsewhere or where a convolution in the low precision does not
    give the right answer.
    """
    if asked == "fp16" and device.type == "cpu":
        raise UsageError("a CPU does not train in fp16", where="precision", mend="Use bf16, auto or fp32")
    if asked == "fp32":
        return "fp32", "fp32, as set"
    chosen = asked
    if asked == "auto":
        native = has_native_bf16(device)
        chosen = "bf16" if native else "fp16" if device.type == "cuda" else "fp32"
        if chosen == "fp32":
            return "fp32", f"fp32: this {device.type} has no native bf16"
    if not _convolves(chosen, device):
        if asked == "auto":
            return "fp32", f"fp32: a test convolution in {chosen} went wrong on this {device.type}"
        raise UsageError(
            f"a test convolution in {chosen} went wrong on this {device.type}", where="precision", mend="Use fp32"
        )
    return chosen, f"{chosen}, as set" if asked != "auto" else f"{chosen}: native on this {device.type}"


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)


@torch.enable_grad()
def _convolves(precision: str, device: torch.device) -> bool:
    """Whether value and gradient of a small convolution agree with fp32 to 5 %: some GPUs give zeros or NaN."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 8, 12, 12, generator=generator).to(device)
    kernel = torch.randn(8, 8, 3, 3, generator=generator).to(device)
    found = []
    for low in (False, True):
        weight = kernel.clone().requires_grad_(True)
        kind = torch.bfloat16 if precision == "bf16" else torch.float16
        with torch.autocast(device.type, dtype=kind, enabled=low):
            value = nn.functional.conv2d(pixels, weight).float()
        value.square().mean().backward()
        found.append((value.detach(), weight.grad))
    (exact, exact_grad), (close, close_grad) = found
    return all(
        bool(torch.isfinite(b).all()) and float((a - b).norm()) <= 0.05 * float(a.norm())
        for a, b in ((exact, close), (exact_grad, close_grad))
    )


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Only deterministic algorithms within the block, if `wanted`."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
