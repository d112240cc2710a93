"""A training step in bfloat16 of networks with depthwise convolutions: all of them in bfloat16, as autocast has it, and
those with a stride, a larger kernel or a dilation in float32, as `layers.depthwise` has it.

    python benchmarks/depthwise.py [--threads 1] [--side 112] [--batch 32] [--rounds 7]

Channels-last; medians of turns. Writes benchmarks/results/depthwise.json.
"""

import argparse
import json
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.nn import functional as F

from bestiary import zoo
from bestiary.layers.depthwise import DepthwiseConv2d

RESULTS = Path(__file__).parent / "results" / "depthwise.json"
NETS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v1_g3", "shufflenet_v2_x1_0")


def step_ms(net: torch.nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    """Loss and gradients of one batch."""
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(pixels)
    F.cross_entropy(logits.float(), labels).backward()
    spent = 1000 * (time.perf_counter() - begin)
    net.zero_grad()
    return spent


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds either way, in turns."""
    torch.manual_seed(0)
    net = zoo.build(name, [f"class {i}" for i in range(15)]).train().to(memory_format=torch.channels_last)
    pixels = torch.rand(options.batch, 3, options.side, options.side).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 15, (options.batch,))
    layers = [m for m in net.modules() if isinstance(m, DepthwiseConv2d) and m.leaves_autocast]
    times: dict[str, list[float]] = {"all in bfloat16": [], "as it is": []}
    for _ in range(options.rounds + 1):
        for way, spent in times.items():
            for layer in layers:
                layer.leaves_autocast = way == "as it is"
            spent.append(step_ms(net, pixels, labels))
    found = {way: statistics.median(spent[1:]) for way, spent in times.items()}
    return {**found, "times as fast": found["all in bfloat16"] / found["as it is"], "layers": len(layers)}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("threads", 1), ("side", 112), ("batch", 32), ("rounds", 7)):
        flags.add_argument(f"--{name}", type=int, default=default)
    options = flags.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: measure(name, options) for name in NETS}
    facts = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": platform.platform(), "torch": torch.__version__}
    RESULTS.write_text(json.dumps({**facts, **vars(options), "steps, ms": found}, indent=2) + "\n")
    for name, numbers in found.items():
        print(f"{name:<20}", "  ".join(f"{key} {value:.3g}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
