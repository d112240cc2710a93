"""From a paper's table of strides to the form of a net that is wanted: small pictures, dilated ends, named levels."""

from dataclasses import dataclass, field

from bestiary.backbones.levels import Level
from bestiary.errors import UsageError


@dataclass(frozen=True)
class Step:
    """How one layer moves over its input.

    Attributes:
        stride: of the layer.
        dilation: where the layer itself is to see what it saw in the strided net.
        dilation_after: of the layers after it.
    """

    stride: int
    dilation: int
    dilation_after: int


@dataclass
class StridePlan:
    """Walks through the layers of a net in order and remembers where each level ends.

    Attributes:
        skip_strides: so many of the first strides are 1 instead of 2, for pictures of about 32x32.
        output_stride: 8, 16 or 32: from there on strides become dilations (Chen et al., DeepLab).
    """

    skip_strides: int = 0
    output_stride: int = 32
    _stage: int = 0
    _stride: int = 1
    _dilation: int = 1
    _last: dict[int, tuple[int, Level]] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16, 32):
            raise UsageError(f"got {self.output_stride}, wanted 8, 16 or 32", where="output_stride")
        if not 0 <= self.skip_strides <= 5:
            raise UsageError(f"got {self.skip_strides}, wanted 0 to 5", where="skip_strides")

    def layer(self, stride: int, channels: int) -> Step:
        """The next layer, of which the paper's table says `stride` (1 or 2) and that gives `channels`."""
        before = self._dilation
        if stride == 2:
            self._stage += 1
            if self._stage <= self.skip_strides:
                stride = 1
            elif self._stride == self.output_stride:
                stride, self._dilation = 1, before * 2
            else:
                self._stride *= 2
        # The last layer of a stage overwrites those before it.
        self._last[self._stage] = (self._count, Level(f"C{self._stage}", channels, self._stride))
        self._count += 1
        return Step(stride, before, self._dilation)

    def taps(self) -> dict[int, Level]:
        """Position among the layers -> the level that ends there: C_k is the last map of the table's stride 2^k."""
        return {place: level for stage, (place, level) in self._last.items() if stage}

    def layer_names(self) -> dict[str, str]:
        """C1, C2, ... -> path of the part that ends there, in a net that calls its layers `features`."""
        return {level.name: f"features.{place}" for place, level in self.taps().items()}
