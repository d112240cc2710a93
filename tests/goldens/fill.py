"""Parameters and pictures that follow from names alone, so that two programs hold the same ones and share no file.

Every floating-point entry of a state is drawn from numpy's PCG64, seeded by the CRC-32 of "salt:name":

    *running_var              uniform in [0.5, 1.5)
    *running_mean             0.1 normal
    vectors named *bias       0.05 normal
    other vectors             norm_gain + 0.1 normal
    everything else           weight_gain normal sqrt(2 / fan_in), fan_in the product of all but the first length
"""

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn


def source(text: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))


def values(name: str, shape: tuple[int, ...], salt: str, norm_gain: float, weight_gain: float = 1.0) -> np.ndarray:
    rng = source(f"{salt}:{name}")
    if name.endswith("running_var"):
        return rng.random(shape) + 0.5
    if name.endswith("running_mean"):
        return 0.1 * rng.standard_normal(shape)
    if len(shape) <= 1 and name.endswith("bias"):
        return 0.05 * rng.standard_normal(shape)
    if len(shape) <= 1:
        return norm_gain + 0.1 * rng.standard_normal(shape)
    return weight_gain * rng.standard_normal(shape) * math.sqrt(2 / max(1, math.prod(shape[1:])))


@torch.no_grad()
def fill(module: nn.Module, salt: str = "reference", norm_gain: float = 1.0, weight_gain: float = 1.0) -> nn.Module:
    for name, entry in module.state_dict().items():
        if entry.is_floating_point():
            drawn = values(name, tuple(entry.shape), salt, norm_gain, weight_gain)
            entry.copy_(torch.from_numpy(np.asarray(drawn, dtype=np.float32)))
    return module


def picture(shape: tuple[int, int, int, int], salt: str = "reference") -> Tensor:
    """Waves and noise in 0..1, `[B, C, H, W]`."""
    rng = source(f"picture:{salt}")
    batch, channels, height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = np.empty(shape)
    for i in range(batch):
        for j in range(channels):
            down, across, phase = rng.uniform(1, 6), rng.uniform(1, 6), rng.uniform(0, 6.28)
            waves[i, j] = 0.5 + 0.35 * np.sin(2 * np.pi * (down * y / height + across * x / width) + phase)
    waves += 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(np.clip(waves, 0, 1).astype(np.float32))
