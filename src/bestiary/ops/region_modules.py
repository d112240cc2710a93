"""The region operators as modules, under torchvision's names and arguments, so that code moves over by its import."""

import itertools
import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from bestiary.ops.position_sensitive import ps_roi_align, ps_roi_pool
from bestiary.ops.regions import multiscale_roi_align, roi_align
from bestiary.ops.roi_pool import roi_pool
from bestiary.ops.rois import Boxes
from bestiary.records import require


class RoIAlign(nn.Module):
    """`roi_align` with its settings; `forward(input, rois)`."""

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: int | float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, input: Float[Tensor, "B C H W"], rois: Boxes) -> Float[Tensor, "R C _h _w"]:
        """See `roi_align`."""
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


class RoIPool(nn.Module):
    """`roi_pool` with its settings; `forward(input, rois)`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: int | float) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(self, input: Float[Tensor, "B C H W"], rois: Boxes) -> Float[Tensor, "R C _h _w"]:
        """See `roi_pool`."""
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """The settings."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class PSRoIAlign(nn.Module):
    """`ps_roi_align` with its settings; `forward(input, rois)`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: int | float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size, self.spatial_scale, self.sampling_ratio = output_size, spatial_scale, sampling_ratio

    def forward(self, input: Float[Tensor, "B C H W"], rois: Boxes) -> Float[Tensor, "R _c _h _w"]:
        """See `ps_roi_align`."""
        return ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
        )


class PSRoIPool(nn.Module):
    """`ps_roi_pool` with its settings; `forward(input, rois)`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: int | float) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(self, input: Float[Tensor, "B C H W"], rois: Boxes) -> Float[Tensor, "R _c _h _w"]:
        """See `ps_roi_pool`."""
        return ps_roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """The settings."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class MultiScaleRoIAlign(nn.Module):
    """`multiscale_roi_align` on a mapping of named maps, whose strides follow from the pictures' sizes.

    Convention: a map's stride is the power of two nearest to the ratio of the pictures' largest side to its own, taken
    along the longer side, where padding weighs least (torchvision takes the height; they differ only where the two
    disagree). The maps are taken in the mapping's order, which must be fine to coarse.

    Args:
        featmap_names: which of the maps take part.
        output_size: bins (down, across), or one number for both.
        sampling_ratio: samples a bin and axis; not above 0: ceil(size of the bin).
        canonical_scale: side in pixels of a box that the canonical level serves.
        canonical_level: that level, the log2 of its stride.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int | float = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.featmap_names, self.output_size, self.sampling_ratio = tuple(featmap_names), output_size, sampling_ratio
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level

    def forward(
        self,
        x: Mapping[str, Float[Tensor, "B C _h _w"]],
        boxes: Sequence[Float[Tensor, "_n 4"]],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "R C _oh _ow"]:
        """See `multiscale_roi_align`; `image_shapes` are the (height, width) of each picture before padding.

        Raises:
            RecordError: none of the named maps is there, shapes do not fit, or the strides are not doubling.
        """
        maps = [feature for name, feature in x.items() if name in self.featmap_names]
        got = f"maps {sorted(x)}"
        require(len(maps) > 0, "MultiScaleRoIAlign(x)", got, f"some of {list(self.featmap_names)}")
        require(len(image_shapes) > 0, "MultiScaleRoIAlign(image_shapes)", "no picture", "one shape a picture")
        strides = self._strides(maps, image_shapes)
        return multiscale_roi_align(
            maps, strides, boxes, self.output_size, self.sampling_ratio, self.canonical_level, self.canonical_scale
        )

    @staticmethod
    def _strides(maps: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]) -> list[float]:
        largest = max(h for h, _ in image_shapes), max(w for _, w in image_shapes)
        axis = 0 if largest[0] >= largest[1] else 1
        strides = [2.0 ** round(math.log2(largest[axis] / feature.shape[2 + axis])) for feature in maps]
        doubling = all(b == 2 * a for a, b in itertools.pairwise(strides))
        require(doubling, "MultiScaleRoIAlign(x)", f"strides {strides}", "each twice the one before")
        return strides

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"featmap_names={list(self.featmap_names)}, output_size={self.output_size}, "
            f"sampling_ratio={self.sampling_ratio}, canonical_scale={self.canonical_scale}, "
            f"canonical_level={self.canonical_level}"
        )
