"""Batch norm that a batch of one picture does not stop at a map of one cell."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class LoneBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` but where a channel has a single value: it has no spread to divide by, so the running statistics
    serve, and learn nothing. (torch raises an error there.)
    """

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalised."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0, self.eps)
        return super().forward(input)
