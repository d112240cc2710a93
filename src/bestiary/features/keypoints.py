"""Points of a picture that are found again from other distances and directions, and pictures as they are searched."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from bestiary.layers.channels import match_channels
from bestiary.records import Rows, require, require_tensor, row_field

_FULL = {torch.uint8: 255.0, torch.int16: 65535.0, torch.int32: 65535.0, torch.uint16: 65535.0, torch.bool: 1.0}
"""What counts as white in each whole-number type."""


@dataclass(frozen=True, eq=False)
class Keypoints(Rows):
    """N oriented, scaled points.

    Convention: the house's, where the centre of the top-left pixel is (0.5, 0.5). Of a point at (x, y) OpenCV says
    (x - 0.5, y - 0.5), its `size` is twice our scale, and its angle ours in degrees.

    Attributes:
        xy: continuous pixels.
        scale: standard deviation, in pixels, of the Gaussian at which the point was found.
        angle: radians from the x axis towards the (downward) y axis, 0 <= angle < 2 pi.
        octave: of its scale space; pixels of octave o are 2^o pixels of the picture apart.
        response: how much it stands out; larger is better.
    """

    xy: Float32[Tensor, "N 2"] = row_field()
    scale: Float32[Tensor, " N"] = row_field()
    angle: Float32[Tensor, " N"] = row_field()
    octave: Int64[Tensor, " N"] | None = row_field(None)
    response: Float32[Tensor, " N"] | None = row_field(None)

    def __post_init__(self) -> None:
        require_tensor("Keypoints", "xy", self.xy, (None, 2), torch.float32)
        for name in ("scale", "angle", "response"):
            require_tensor("Keypoints", name, getattr(self, name), (None,), torch.float32)
        require_tensor("Keypoints", "octave", self.octave, (None,), torch.int64)
        self.require_rows()

    @classmethod
    def empty(cls) -> "Keypoints":
        """None found."""
        nothing = torch.zeros(0)
        return cls(torch.zeros(0, 2), nothing, nothing, torch.zeros(0, dtype=torch.int64), nothing)


def grey_levels(image: Shaped[Tensor, "*C H W"]) -> Float32[np.ndarray, "H W"]:
    """The picture's grey, 0..255, not rounded; of colours their luminance.

    Args:
        image: `[H, W]`, or `[1, H, W]` or `[3, H, W]` (RGB): uint8 0..255, 16-bit whole numbers 0..65535 (in uint16,
            int16 as readers without uint16 give them, or int32), bool, or floating 0..1.

    Raises:
        RecordError: other shapes or types, or a value that is not finite.
    """
    fits = image.ndim == 2 or (image.ndim == 3 and image.shape[0] in (1, 3))
    require(fits, "grey_levels(image)", f"shape {tuple(image.shape)}", "(H, W), (1, H, W) or (3, H, W)")
    known = image.is_floating_point() or image.dtype in _FULL
    require(known, "grey_levels(image)", str(image.dtype), "8 or 16-bit whole numbers or floating 0..1")
    levels = image.detach().cpu().float()
    if image.dtype == torch.int16:
        levels = torch.where(levels < 0, levels + 65536, levels)
    if levels.ndim == 3:
        levels = match_channels(levels, 1)[0]
    finite = bool(torch.isfinite(levels).all())
    require(finite, "grey_levels(image)", "a value that is not finite", "finite pixels")
    return np.ascontiguousarray((levels * (255.0 / _FULL.get(image.dtype, 1.0))).numpy())
