"""Convolutions of which each output map sees only some input maps (LeCun et al., 1998, table 1, has such a table)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.errors import UsageError


class SparseConv2d(nn.Module):
    """Without padding, stride 1; only the connections that there are have weights.

    Args:
        in_channels: of the input.
        seen: for each output map the input maps that it sees.
        kernel: side.

    Attributes:
        weight: kernels, one a connection, in the order of `seen`.
        connections: output map and input map of each.

    Raises:
        UsageError: an output map that sees nothing, one map twice, or one that there is not.
    """

    connections: Tensor

    def __init__(self, in_channels: int, seen: Sequence[Sequence[int]], kernel: int) -> None:
        super().__init__()
        for inputs in seen:
            if not inputs or len(set(inputs)) < len(inputs) or not 0 <= min(inputs) <= max(inputs) < in_channels:
                wanted = f"some of 0..{in_channels - 1}, each once"
                raise UsageError(f"got {list(inputs)}, wanted {wanted}", where="SparseConv2d(seen)")
        pairs = [(output, i) for output, inputs in enumerate(seen) for i in inputs]
        self.in_channels, self.out_channels = in_channels, len(seen)
        self.register_buffer("connections", torch.tensor(pairs))
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(self.out_channels))
        fans = torch.tensor([float(len(seen[output])) for output, _ in pairs])
        # the deviation that keeps the variance of a map's inputs, LeCun's
        nn.init.normal_(self.weight)
        self.weight.data /= (fans.to(self.weight.device).sqrt() * math.sqrt(kernel * kernel))[:, None, None]

    def full_weight(self) -> Float[Tensor, "O I k k"]:
        """Kernels of all pairs of maps, 0 where there is no connection."""
        output, source = self.connections.unbind(1)
        full = self.weight.new_zeros(self.out_channels, self.in_channels, *self.weight.shape[1:])
        return full.index_put((output, source), self.weight)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H2 W2"]:
        """Features without the border of half a kernel."""
        return F.conv2d(features, self.full_weight(), self.bias)


def drawn_connections(in_channels: int, out_channels: int, fan: int, seed: int) -> list[list[int]]:
    """A table in which each output map sees `fan` input maps, drawn without replacement, and each input map is seen
    about equally often; the same for the same numbers.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    seen: list[list[int]] = []
    uses = torch.zeros(in_channels, device="cpu")
    for _ in range(out_channels):
        # of the least used maps, in an order drawn anew
        order = (uses + torch.rand(in_channels, generator=generator, device="cpu")).argsort()
        chosen = sorted(order[:fan].tolist())
        uses[chosen] += 1
        seen.append(chosen)
    return seen
