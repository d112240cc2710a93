"""torchvision's and our nets timed in one process of a Python that has torchvision: the other end of inference.py.

Reads one JSON request a line ({"model", "batch", "size_hw", "threads"} to prepare, then "turn"), answers one a line.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def timed(run: Callable[[], object]) -> float:
    """Milliseconds of one pass."""
    begin = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - begin)


def settle(net: nn.Module, shape: tuple[int, ...]) -> None:
    """Give the norms of a net with random weights the statistics of noise, or its maps would fade to nothing."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean over what it sees
    with torch.no_grad():
        net(torch.rand(shape, generator=torch.Generator().manual_seed(2)))
    for norm in norms:
        norm.eval()


def prepare(request: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Both nets, of the same parameters and pictures; ours as it is built, and as `bestiary.load` leaves it."""
    import torchvision  # type: ignore[import-not-found]

    from bestiary import zoo

    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    if request["model"].startswith("fasterrcnn"):
        return prepare_detector(request)
    theirs = torchvision.models.get_model(request["model"], weights=None).eval()
    settle(theirs, (4, 3, *request["size_hw"]))
    ours = zoo.build(request["model"]).eval()
    ours.load_state_dict(theirs.state_dict())
    loaded = zoo.build(request["model"]).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loaded.load_state_dict(theirs.state_dict())
    pixels = torch.rand(request["batch"], 3, *request["size_hw"], generator=torch.Generator().manual_seed(1))
    nets: dict[str, nn.Module] = {"torchvision": theirs, "as built": ours, "as loaded": loaded}
    return {name: (lambda net=net: net(pixels)) for name, net in nets.items()}


def prepare_detector(request: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Both detectors whole, from picture to boxes, at their own size: scores of what they find."""
    import torchvision  # type: ignore[import-not-found]

    from bestiary import zoo

    theirs = torchvision.models.get_model(request["model"], weights=None, weights_backbone=None).eval()
    calm(theirs)
    ours = zoo.build(request["model"]).eval()
    ours.load_state_dict(theirs.state_dict())
    loaded = zoo.build(request["model"]).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loaded.load_state_dict(theirs.state_dict())
    shape = (request["batch"], 3, *request["size_hw"])
    pictures = list(torch.rand(shape, generator=torch.Generator().manual_seed(1)))

    def scores(found: list[Any]) -> torch.Tensor:
        every = torch.cat([f["scores"] if isinstance(f, dict) else f.scores for f in found])
        return torch.nn.functional.pad(every.sort(descending=True).values, (0, 100 * len(pictures) - len(every)))

    return {
        "torchvision": lambda: scores(theirs(pictures)),
        "as built": lambda: scores(ours.predict_images(pictures)),
        "as loaded": lambda: scores(loaded.predict_images(pictures)),
    }


def calm(detector: nn.Module) -> None:
    """Random weights that neither fade nor grow, and logits that differ: frozen norms have no statistics to settle."""
    with torch.no_grad():
        for name, value in detector.state_dict().items():
            if name.endswith("bn3.weight"):
                value.fill_(0.3)
            elif name == "roi_heads.box_predictor.cls_score.weight":
                value.mul_(12)


def main() -> None:
    nets: dict[str, Callable[[], Any]] = {}
    with torch.inference_mode():
        for line in sys.stdin:
            request = json.loads(line)
            if request == "turn":
                answer: dict[str, Any] = {name: timed(run) for name, run in nets.items()}
            else:
                nets = prepare(request)
                logits = {name: run() for name, run in nets.items()}
                answer = {n: float((v - logits["torchvision"]).abs().max()) for n, v in logits.items()}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
