"""The border between convolutions, which take pictures of any size, and fully connected layers made for one."""

from jaxtyping import Float
from torch import Tensor, fx, nn

from bestiary.errors import UsageError


class FixedMap(nn.Module):
    """Lets maps of `side x side` through as they are, and refuses all others.

    Args:
        side: of the map.
        crop: side of the pictures that give such maps, for the message.
    """

    def __init__(self, side: int, crop: int) -> None:
        super().__init__()
        self.side, self.crop = side, crop

    def forward(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The same map.

        Raises:
            UsageError: a map of another size.
        """
        return require_side(features, self.side, self.crop)

    def extra_repr(self) -> str:
        """The side."""
        return f"side={self.side}"


def require_side(features: Float[Tensor, "B C H W"], side: int, crop: int) -> Float[Tensor, "B C H W"]:
    """The map itself; `UsageError` if it is not `side x side`."""
    height, width = features.shape[-2:]
    if height != side or width != side:
        mend = f"Give pictures of {crop}x{crop}, or build the network with crop=SIDE, which sizes its linear layers"
        raise UsageError(f"got a last map of {height}x{width}, wanted {side}x{side}", where="pixels", mend=mend)
    return features


fx.wrap("require_side")  # one node of a traced graph: it looks at shapes
