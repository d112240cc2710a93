"""Darknet's reorg: a fine map folded into the channels of a coarse one (Redmon, Farhadi, CVPR 2017, section 2,
"fine-grained features").

The paper says that neighbours are stacked into channels, which is `torch.nn.functional.pixel_unshuffle`. The code that
trained every published file does something else: it reads the buffer as if it had `C / s^2` channels of `s H` by `s W`,
so that what is stacked comes from different channels, too. Files only fit that order.
"""

from jaxtyping import Shaped
from torch import Tensor

from bestiary.records import require


def reorg(maps: Shaped[Tensor, "B C H W"], stride: int = 2) -> Shaped[Tensor, "B D H2 W2"]:
    """Maps of `C s^2` channels and sides `H / s`, `W / s`, in Darknet's order; only views and one copy.

    Convention: with c = C / s^2, pixel (y, x) of channel k of the buffer seen as [c, s H, s W] goes to channel
    ((y % s) s + x % s) c + k of the coarse map.

    Args:
        maps: sides are multiples of `stride`, channels of its square.
        stride: s.

    Raises:
        RecordError: sides or channels do not divide.
    """
    batch, channels, height, width = maps.shape
    fits = stride >= 1 and not (channels % stride**2 or height % stride or width % stride)
    wanted = f"channels a multiple of {stride**2}, sides of {stride}"
    require(fits, "reorg(maps)", f"shape {tuple(maps.shape)}", wanted)
    folded = maps.reshape(batch, channels // stride**2, height, stride, width, stride)
    return folded.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * stride**2, height // stride, width // stride)
