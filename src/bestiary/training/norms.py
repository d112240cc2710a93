"""Statistics of batch norms taken anew of the weights that are measured.

While a network trains, its running means lag behind weights that go on changing, and those of averaged weights belong
to no weights at all. A pass over training pictures with the weights as they are gives each norm the statistics that it
has now: what the authors of DeconvNet and SegNet do before they test ("make BN testable"), and what averages of weights
need (Izmailov et al.: Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018, section 3.2).
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bestiary.system import System
from bestiary.training.contracts import Batches
from bestiary.training.engine import Engine
from bestiary.training.seeding import RECOMPUTING, batch_seed, generators_kept, seed_generators


def running_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The norms, by name, that learn statistics now: not those in evaluation mode."""
    return {
        name: part
        for name, part in network.named_modules()
        if isinstance(part, _BatchNorm) and part.training and part.running_mean is not None
    }


@torch.no_grad()
def recompute_norms(
    system: System, batches: Batches, pictures: int, engine: Engine, *, batch: int, seed: int, epoch: int
) -> tuple[str, ...]:
    """Give each norm that is in training mode the plain mean of its statistics over the last batches of an epoch.

    Parameters, other buffers and random generators stay as they are; so do the norms' own weights for their running
    means (`momentum`), and norms that saw no batch.

    Args:
        system: its parts in the modes that training has them in; computed in float32, as predictions are.
        batches: of training, augmented.
        pictures: how many at least, on each process, unless an epoch has fewer.
        engine: device.
        batch: pictures of one of the batches.
        seed: of the run.
        epoch: whose pictures.

    Returns:
        Names of the norms' statistics, in the system's state.
    """
    norms = running_norms(system)
    kept = {name: (norm.momentum, [buffer.clone() for buffer in norm.buffers()]) for name, norm in norms.items()}
    start = max(0, len(batches) - -(-pictures // batch))
    with generators_kept(engine.device):
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean
        try:
            for number, seen in enumerate(batches.iterate(epoch, start)):
                seed_generators(batch_seed(seed, RECOMPUTING, epoch, number, engine.rank), engine.device)
                moved = seen if engine.device.type == "cpu" else seen.to(engine.device)
                system.loss(moved.images, moved.targets)
        finally:
            for name, norm in norms.items():
                norm.momentum, before = kept[name]
                if norm.num_batches_tracked == 0:
                    for buffer, value in zip(norm.buffers(), before, strict=True):
                        buffer.copy_(value)
    return tuple(f"{name}.{part}" for name in norms for part in ("running_mean", "running_var"))
