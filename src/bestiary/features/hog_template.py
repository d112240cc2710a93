"""A rigid template of HOG blocks: a linear filter that is laid over every place of a feature map."""

import torch
from jaxtyping import Float32
from torch import Tensor

from bestiary.features.object_windows import Template
from bestiary.layers.learned import Learned


class HogTemplate(Learned):
    """One category's filter.

    Attributes:
        weight: [Y, X, D], of the blocks of a window.
        bias: [].
        window: [3]: the window's height and width and the margin around the object in it, pixels.
        sizes: [2]: smallest and largest object that was learned from, in sides of the template's object.
    """

    weight: Tensor
    bias: Tensor
    window: Tensor
    sizes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("weight", "bias", "window", "sizes")

    @property
    def template(self) -> Template:
        """The window."""
        height, width, margin = self.window.tolist()
        return Template((height, width), margin)

    def learn_shape(self, template: Template, boxes_xyxy: Float32[Tensor, "N 4"]) -> None:
        """The window and the range of sizes; one object in a hundred at either end may be an error."""
        self.learn("window", torch.tensor([*template.size_hw, template.margin]))
        self.learn("sizes", template.scales_of(boxes_xyxy).quantile(torch.tensor([0.01, 0.99])))

    def takes(self, scale: float, step: float) -> bool:
        """Whether a level of a pyramid whose scales are `step` apart may hold objects of a size that was learned."""
        least, most = self.sizes.tolist()
        return least / step <= 1 / scale <= most * step

    def forward(self, blocks: Float32[Tensor, "Y X D"]) -> Float32[Tensor, "Y2 X2"]:
        """Margins of all windows that lie within the map, one a block; none if the map is smaller than the window."""
        rows, columns = (blocks.shape[i] - self.weight.shape[i] + 1 for i in range(2))
        if rows < 1 or columns < 1:
            return blocks.new_zeros(max(rows, 0), max(columns, 0))
        # One product for all places and parts of the template, then a sum of shifted maps: twice as fast as a
        # convolution with a single filter.
        filters = self.weight.flatten(0, 1)
        maps = (filters @ blocks.reshape(-1, blocks.shape[2]).T).reshape(*self.weight.shape[:2], *blocks.shape[:2])
        margins = self.bias.repeat(rows, columns)
        for y in range(self.weight.shape[0]):
            for x in range(self.weight.shape[1]):
                margins += maps[y, x, y : y + rows, x : x + columns]
        return margins

    def windows_xyxy(self, places: Float32[Tensor, "N 2"], cell: int) -> Float32[Tensor, "N 4"]:
        """The windows at rows and columns of the margins' map, in pixels of the level that the map is of."""
        height, width, _ = self.window.tolist()
        corners = places.flip(1) * cell
        return torch.cat([corners, corners + corners.new_tensor([width, height])], dim=1)
