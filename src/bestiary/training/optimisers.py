"""The optimiser of a system, its parameter groups, and its state as named tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bestiary.errors import CheckpointError, UsageError
from bestiary.training.freezing import is_within, require_known
from bestiary.training.settings import Settings


def parameter_groups(module: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Trainable parameters, grouped by weight decay and by factor on the learning rate.

    Returns:
        groups with `params`, `names`, `weight_decay` and `lr_factor`, in the order of the parameters.

    Raises:
        UsageError: nothing is trainable, or a prefix of `lr_factors` begins no parameter's name.
    """
    parts = settings.part_lr_factors()
    require_known(module, tuple(parts), "lr_factors")
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        bias = name.rpartition(".")[2] == "bias"
        decay = settings.weight_decay if settings.decay_norms or not (bias or parameter.ndim <= 1) else 0.0
        within = [prefix for prefix in parts if is_within(name, prefix)]
        factor = (parts[max(within, key=len)] if within else 1.0) * (settings.bias_lr if bias else 1.0)
        fresh = {"params": [], "names": [], "weight_decay": decay, "lr_factor": factor}
        group = groups.setdefault((decay, factor), fresh)
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise UsageError(
            "every parameter is frozen, so there is nothing to train", where="freeze", mend="Freeze fewer parts"
        )
    return list(groups.values())


def build_optimiser(module: nn.Module, settings: Settings) -> Optimizer:
    """The optimiser that `settings` names, over the trainable parameters of `module` only."""
    groups = parameter_groups(module, settings)
    lr, momentum = settings.lr, settings.momentum
    if settings.optimizer in ("sgd", "nesterov"):
        nesterov = settings.optimizer == "nesterov"
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, **_fast(groups, settings))
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, momentum=momentum, alpha=settings.betas[1], foreach=True)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=settings.betas, **_fast(groups, settings))


def _fast(groups: list[dict[str, Any]], settings: Settings) -> dict[str, bool]:
    """One pass over memory where a fused kernel exists (a third of the time of `foreach` on a CPU).

    The fused CPU kernels walk memory without looking at strides, so that a gradient laid out otherwise than its
    parameter would be added in the wrong order: channels-last weights take `foreach`.
    """
    parameters = [p for group in groups for p in group["params"]]
    fusable = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() and p.is_contiguous() for p in parameters)
    return {"fused": True} if fusable and not settings.channels_last else {"foreach": True}


def set_lr(optimiser: Optimizer, lr: float) -> None:
    """Give every group `lr` times its own factor."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_factor"]


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `parameter name/key` -> tensor; numbers become float64 scalars."""
    tensors = {}
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimiser.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{name}/{key}"] = torch.as_tensor(
                        value, dtype=None if isinstance(value, Tensor) else torch.float64
                    )
    return tensors


def load_optimiser_tensors(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave, laid out in memory as the parameters are.

    Raises:
        CheckpointError: the state belongs to other parameters.
    """
    parameters = {n: p for g in optimiser.param_groups for n, p in zip(g["names"], g["params"], strict=True)}
    for key, saved in tensors.items():
        name, _, field = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(
                f"it holds the optimiser's state of {name!r}, which is not a trainable parameter here"
            )
        parameter = parameters[name]
        if saved.ndim and saved.shape != parameter.shape:
            got, wanted = tuple(saved.shape), tuple(parameter.shape)
            raise CheckpointError(f"the optimiser's {field} of {name!r} has shape {got}, the parameter {wanted}")
        if saved.shape == parameter.shape and field != "step":
            value = torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)
        else:
            fused = optimiser.param_groups[0].get("fused") and parameter.device.type != "cpu"
            value = saved.clone().to(parameter.device if fused else "cpu")
        optimiser.state[parameter][field] = value
