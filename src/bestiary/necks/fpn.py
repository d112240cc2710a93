"""Feature pyramid network (Lin et al.: Feature Pyramid Networks for Object Detection, CVPR 2017).

Faithful: 1x1 laterals, nearest top-down path, addition, 3x3 smoothing, no nonlinearity (section 3). The top-down map
takes the lateral's very shape, so that odd sizes work. State names are torchvision's.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.levels import Level, Trunk
from bestiary.errors import UsageError


class Coarser(nn.Module):
    """Base of what appends levels to a pyramid."""

    def levels(self, pyramid: Sequence[Level]) -> tuple[Level, ...]:
        """The levels it appends to `pyramid`."""
        raise NotImplementedError

    def forward(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]], features: Sequence[Float[Tensor, "B _c _h2 _w2"]]
    ) -> tuple[Float[Tensor, "B C _h3 _w3"], ...]:
        """The appended maps, from the pyramid's and those that the pyramid stands on; each ceil(h / 2) by ceil(w / 2)
        of the one before.
        """
        raise NotImplementedError


class CoarserByPool(Coarser):
    """One more level: every second value of the coarsest map (the paper's P6, footnote 2)."""

    def levels(self, pyramid: Sequence[Level]) -> tuple[Level, ...]:
        """The level it appends to `pyramid`."""
        return (_after(pyramid[-1], 1),)

    def forward(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]], features: Sequence[Float[Tensor, "B _c _h2 _w2"]]
    ) -> tuple[Float[Tensor, "B C _h3 _w3"], ...]:
        """The appended map."""
        return (F.max_pool2d(pyramid[-1], kernel_size=1, stride=2),)


class CoarserByConvolution(Coarser):
    """Two more levels by 3x3 convolutions of stride 2, P6 and, of its ReLU, P7 (Lin et al.: Focal Loss, ICCV 2017,
    section 4).

    Args:
        in_channels: of the map that P6 is made of.
        out_channels: of the pyramid.
        from_features: P6 is made of C5, the coarsest map that the pyramid stands on, as in the paper; else of P5.
    """

    def __init__(self, in_channels: int, out_channels: int, from_features: bool) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        self.from_features = from_features

    def levels(self, pyramid: Sequence[Level]) -> tuple[Level, ...]:
        """The two levels it appends to `pyramid`."""
        return (_after(pyramid[-1], 1), _after(pyramid[-1], 2))

    def forward(
        self, pyramid: Sequence[Float[Tensor, "B C _h _w"]], features: Sequence[Float[Tensor, "B _c _h2 _w2"]]
    ) -> tuple[Float[Tensor, "B C _h3 _w3"], ...]:
        """P6 and P7."""
        p6 = self.p6(features[-1] if self.from_features else pyramid[-1])
        return p6, self.p7(F.relu(p6))


def _after(level: Level, steps: int) -> Level:
    return Level(f"P{int(level.name[1:]) + steps}", level.channels, level.stride * 2**steps)


class FPN(nn.Module):
    """A backbone's levels to a pyramid of equal channels.

    Args:
        in_levels: of the backbone, fine to coarse, each twice the stride of the one before.
        out_channels: of every map of the pyramid; 256 in the paper.
        extra: what appends coarser levels, or None.

    Attributes:
        levels: P2 .. P5 (P6) for C2 .. C5.
        in_levels: as given.

    Raises:
        UsageError: no level.
    """

    levels: tuple[Level, ...]
    in_levels: tuple[Level, ...]

    def __init__(self, in_levels: Sequence[Level], out_channels: int = 256, extra: Coarser | None = None) -> None:
        super().__init__()
        if not in_levels:
            raise UsageError("got no level, wanted at least one", where="FPN(in_levels)")
        # Each convolution stands in a Sequential of one for the sake of the public files' names.
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(v.channels, out_channels, 1)) for v in in_levels)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1)) for _ in in_levels
        )
        self.extra_blocks, self.in_levels = extra, tuple(in_levels)
        pyramid = tuple(Level(f"P{v.name[1:]}", out_channels, v.stride) for v in in_levels)
        self.levels = pyramid if extra is None else (*pyramid, *extra.levels(pyramid))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Float[Tensor, "B _c _h _w"]]) -> tuple[Float[Tensor, "B C2 _h _w"], ...]:
        """One map per entry of `levels`."""
        inner = self.inner_blocks[-1](features[-1])
        pyramid = [self.layer_blocks[-1](inner)]
        for i in range(len(features) - 2, -1, -1):
            lateral = self.inner_blocks[i](features[i])
            inner = lateral + F.interpolate(inner, size=lateral.shape[-2:], mode="nearest")
            pyramid.insert(0, self.layer_blocks[i](inner))
        if self.extra_blocks is not None:
            pyramid.extend(self.extra_blocks(pyramid, features))
        return tuple(pyramid)


class PyramidBackbone(nn.Module):
    """A trunk and the pyramid on it: pictures to P2 .. P6.

    Args:
        body: any trunk.
        fpn: on all levels of it, or some.

    Attributes:
        levels: of the pyramid.

    Raises:
        UsageError: the pyramid stands on a level that the trunk does not give.
    """

    levels: tuple[Level, ...]

    def __init__(self, body: Trunk, fpn: FPN) -> None:
        super().__init__()
        strange = [v.name for v in fpn.in_levels if v not in body.levels]
        if strange:
            given = ", ".join(v.name for v in body.levels)
            raise UsageError(f"got a pyramid on {', '.join(strange)}, wanted levels of {given}", where="fpn")
        self.body, self.fpn, self.levels = body, fpn, fpn.levels
        self._places = tuple(i for i, v in enumerate(body.levels) if v in fpn.in_levels)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B C2 _h _w"], ...]:
        """One map per entry of `levels`."""
        maps = self.body(pixels)
        return self.fpn([maps[i] for i in self._places])
