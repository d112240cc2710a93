"""Local response normalisation as a layer."""

from jaxtyping import Float
from torch import Tensor, fx, nn

from bestiary.ops import local_response_norm

fx.wrap("local_response_norm")  # one node of a traced graph: it looks at shapes


class LocalResponseNorm(nn.Module):
    """`bestiary.ops.local_response_norm`: alpha is of one square, as in AlexNet's paper, and not divided by `size` as
    in torch and Caffe.

    Args:
        size: neighbouring channels in the sum; odd.
        alpha: of one square.
        beta: exponent.
        k: added to the sum.
    """

    def __init__(
        self, size: int = 5, alpha: int | float = 1e-4, beta: int | float = 0.75, k: int | float = 2.0
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, features: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B C *spatial"]:
        """Each value over a power of the squares of its neighbours in channels."""
        return local_response_norm(features, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The four numbers."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def caffe_response_norm() -> LocalResponseNorm:
    """With the numbers of Caffe's published networks: local_size 5, alpha 1e-4 (which Caffe divides by 5), k 1."""
    return LocalResponseNorm(5, 2e-5, 0.75, 1.0)
