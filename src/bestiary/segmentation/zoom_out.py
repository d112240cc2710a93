"""Zoom-out features: Mostajabi, Yadollahpour, Shakhnarovich: Feedforward Semantic Segmentation with Zoom-out Features,
CVPR 2015.

Faithful: SLIC superpixels, about 500; of each, the mean of every convolution's map of VGG-16 (4,224 values), fc7 of the
sub-scene around it and fc7 of the whole picture (4,096 each): 12,416 values; a perceptron of three layers names the
superpixel; the loss is weighed by the inverse frequency of the classes, of which the recipe takes care. VGG-16 stays as
ImageNet left it. Ours: the sub-scene is the bounding box of the superpixels within three steps; it and the picture are
resized to 224 x 224; features are brought to mean 0 and deviation 1 by running statistics; two layers of 1,024 units
before the classes, with dropout.

`zoom_out_small` learns from random weights: a thin VGG-11 of which the last map, averaged over the sub-scene and over
the picture, is the context, and all of it is trained.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int32, Int64, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.vgg import VGG, vgg11_bn_half
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.features.slic import slic_segments
from bestiary.features.superpixel_pooling import neighbourhood_boxes, superpixel_labels, superpixel_means
from bestiary.heads.pixel_sampling import joined
from bestiary.heads.published import VOC_21
from bestiary.heads.segmentation import PixelSystem, require_class_masks, require_label_maps
from bestiary.heads.trunk_labeller import start_trunk
from bestiary.heads.whole_picture import PixelTruth
from bestiary.layers.lone_norm import LoneBatchNorm2d
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import channel_normalize
from bestiary.records import Losses, Target
from bestiary.system import Images

GEOMETRY = InputGeometry(grid=32, smallest=32)
"""Sizes that five poolings halve without a remainder."""


class FullyConnectedContext(nn.Module):
    """fc7 of boxes, each resized to 224 x 224.

    Args:
        channels: of the trunk's last map, 7 x 7.
        chunk: boxes in one pass.
    """

    def __init__(self, channels: int = 512, chunk: int = 16) -> None:
        super().__init__()
        self.classifier = nn.Sequential(  # by the names of VGG's
            nn.Linear(49 * channels, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
        )
        self.chunk, self.width = chunk, 4096

    def forward(
        self, trunk: VGG, pixels: Float[Tensor, "C H W"], last: Float[Tensor, "F _h _w"], boxes: Int64[Tensor, "S 4"]
    ) -> Float[Tensor, "S D"]:
        """Of each box."""
        found = []
        for part in boxes.split(self.chunk):
            crops = [pixels[None, :, y1:y2, x1:x2] for x1, y1, x2, y2 in part.tolist()]
            squares = [F.interpolate(crop, size=(224, 224), mode="bilinear", align_corners=False) for crop in crops]
            found.append(self.classifier(trunk(torch.cat(squares))[-1].flatten(1)))
        return torch.cat(found)


class MapContext(nn.Module):
    """Mean of the trunk's last map over boxes, of the cells that they touch.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels

    def forward(
        self, trunk: VGG, pixels: Float[Tensor, "C H W"], last: Float[Tensor, "F h w"], boxes: Int64[Tensor, "S 4"]
    ) -> Float[Tensor, "S D"]:
        """Of each box."""
        sums = F.pad(last.double().cumsum(1).cumsum(2), [1, 0, 1, 0])
        down, across = pixels.shape[-2] // last.shape[-2], pixels.shape[-1] // last.shape[-1]
        x1, y1 = boxes[:, 0] // across, boxes[:, 1] // down
        x2, y2 = -(-boxes[:, 2] // across), -(-boxes[:, 3] // down)
        totals = sums[:, y2, x2] - sums[:, y1, x2] - sums[:, y2, x1] + sums[:, y1, x1]
        return (totals / ((y2 - y1) * (x2 - x1))).T.to(last.dtype)


class ZoomOut(PixelSystem):
    """A trunk, what it says of superpixels and their surroundings, and a perceptron.

    Args:
        backbone: a VGG trunk; its convolutions' maps are the local features.
        context: of boxes: the sub-scene's and the picture's.
        categories: as in `PixelSystem`.
        hidden: units of each of the perceptron's two inner layers.
        dropout: after each of them.
        superpixels: how many to aim at.
        compactness: of the superpixels (`features.slic`).
        reach: steps from a superpixel to the farthest of its sub-scene.
        learns: whether the trunk is trained; else it stays as it is, the statistics of its norms too.

    Attributes:
        feature_width: values a superpixel.

    Raises:
        UsageError: a number below 1, or a compactness that is not above 0.
    """

    def __init__(
        self,
        backbone: VGG,
        context: FullyConnectedContext | MapContext,
        categories: Sequence[str],
        *,
        hidden: int = 1024,
        dropout: float = 0.5,
        superpixels: int = 500,
        compactness: int | float = 10.0,
        reach: int = 3,
        learns: bool = False,
    ) -> None:
        super().__init__(categories, channel_normalize(backbone.in_channels))
        if min(hidden, superpixels, reach) < 1 or not compactness > 0:
            got = f"got {hidden} hidden units, {superpixels} superpixels, a reach of {reach}, compactness {compactness}"
            raise UsageError(f"{got}, wanted at least 1 each, a compactness above 0", where="ZoomOut")
        self.backbone, self.context = backbone, context
        local = sum(layer.out_channels for layer in backbone.features if isinstance(layer, nn.Conv2d))
        self.feature_width = local + 2 * context.width
        self.standardise = LoneBatchNorm2d(self.feature_width, affine=False)
        self.labeller = nn.Sequential(
            *(nn.Conv2d(self.feature_width, hidden, 1), nn.ReLU(inplace=True), nn.Dropout(dropout)),
            *(nn.Conv2d(hidden, hidden, 1), nn.ReLU(inplace=True), nn.Dropout(dropout)),
            nn.Conv2d(hidden, len(self.categories), 1),
        )
        self.superpixels, self.compactness, self.reach, self.learns = superpixels, compactness, reach, learns
        if not learns:
            self.backbone.requires_grad_(False)
            self.context.requires_grad_(False)

    def train(self, mode: bool = True) -> "ZoomOut":
        """The trunk stays in evaluation mode unless it learns."""
        super().train(mode)
        if not self.learns:
            self.backbone.eval()
            self.context.eval()
        return self

    def segments(self, image: Shaped[Tensor, "C H W"]) -> Int32[Tensor, "H W"]:
        """The superpixels of a picture."""
        bytes_ = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
        if bytes_.shape[0] not in (1, 3):
            bytes_ = bytes_[:3]
        return slic_segments(bytes_, self.superpixels, self.compactness).to(image.device)

    def features(self, image: Shaped[Tensor, "C H W"], segments: Int32[Tensor, "H W"]) -> Float[Tensor, "S D"]:
        """One row a superpixel: the convolutions' means, the sub-scene's context, the picture's."""
        height, width = int(segments.shape[0]), int(segments.shape[1])
        count = int(segments.max()) + 1
        size_hw = (GEOMETRY.covering(height), GEOMETRY.covering(width))
        pixels = self.prepare(image[None], 0, 0, size_hw)
        local, features = [], pixels
        for layer in self.backbone.features:
            features = layer(features)
            if isinstance(layer, nn.ReLU):
                local.append(superpixel_means(features[0].float(), segments, count, size_hw))
        whole = torch.tensor([[0, 0, width, height]], device=segments.device)
        boxes = torch.cat([neighbourhood_boxes(segments, count, self.reach), whole])
        around = self.context(self.backbone, pixels[0], features[0].float(), boxes)
        return torch.cat([*local, around[:-1], around[-1:].expand(count, -1)], dim=1)

    def label(self, features: Float[Tensor, "S D"]) -> Float[Tensor, "1 K 1 S"]:
        """Logits of the superpixels, as of a picture of one row."""
        return self.labeller(self.standardise(features.T[None, :, None]))

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """The objective's terms over the superpixels of all pictures, each with its most frequent label and its mean
        weight.

        Raises:
            RecordError: a target without label map, of another size than its picture, or with a label that is no
            category.
        """
        pictures = list(images)
        if self.multi_label:
            class_masks, label_maps = require_class_masks(pictures, targets, len(self.categories))
        else:
            class_masks, label_maps = [None] * len(pictures), require_label_maps(pictures, targets)
        rows, truths = [], []
        for picture, target, label_map, masks in zip(pictures, targets, label_maps, class_masks, strict=True):
            segments = self.segments(picture)
            rows.append(self.features(picture, segments))
            weight_map = (
                torch.ones_like(label_map, dtype=torch.float32) if target.weight_map is None else target.weight_map
            )
            truths.append(_truth_of(segments, len(rows[-1]), label_map, weight_map, masks))
        truth = joined(truths)
        logits = self.label(torch.cat(rows))
        return Losses(
            self.objective(logits, truth.label_maps, self.class_weights, truth.weight_maps, truth.class_masks)
        )

    def logit_windows(self, images: Shaped[Tensor, "B C H W"]) -> Iterator[tuple[int, int, Float[Tensor, "B K _h _w"]]]:
        """Of the whole pictures: each pixel has its superpixel's."""
        found = []
        for image in images:
            segments = self.segments(image)
            logits = self.label(self.features(image, segments))[0, :, 0]
            found.append(logits[:, segments.long()])
        yield 0, 0, torch.stack(found)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a VGG classifier its convolutions, and fc6 and fc7 where this one has them."""
        own = self.state_dict()
        taken, line = start_trunk(state, own)
        if not line:
            return taken, line
        connected = {f"context.{name}": value for name, value in state.items() if f"context.{name}" in own}
        return {**taken, **connected}, line + (", fc6 and fc7" if connected else "")


def _truth_of(
    segments: Int32[Tensor, "H W"],
    count: int,
    label_map: UInt8[Tensor, "H W"],
    weight_map: Float[Tensor, "H W"],
    class_masks: Bool[Tensor, "K H W"] | None,
) -> PixelTruth:
    """The truth of superpixels, as a row; each has the classes that cover half of it."""
    labels = superpixel_labels(label_map, segments, count)[None, None]
    weights = superpixel_means(weight_map[None], segments, count).T[None]
    if class_masks is None:
        return PixelTruth(labels, weights)
    covered = superpixel_means(class_masks.float(), segments, count).T >= 0.5
    return PixelTruth(labels, weights, covered[None, :, None])


def zoom_out(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    superpixels: int = 500,
    compactness: float = 10.0,
    reach: int = 3,
) -> ZoomOut:
    """VGG-16 and 12,416 features a superpixel; `categories=None` gives PASCAL VOC's.

    Args:
        categories: K names; None gives VOC's 21.
        in_channels: channels of a picture.
        superpixels: how many a picture is divided into, about.
        compactness: how much the place counts against the colour in them, 1 to 40.
        reach: steps from a superpixel to the farthest neighbour of its sub-scene.
    """
    trunk = VGG(DEPTHS["vgg16"], maps=("C5",), in_channels=in_channels)
    return ZoomOut(
        trunk,
        FullyConnectedContext(),
        categories or VOC_21,
        superpixels=superpixels,
        compactness=compactness,
        reach=reach,
    )


def zoom_out_small(
    categories: Sequence[str] | None = None,
    in_channels: int = 3,
    superpixels: int = 300,
    compactness: float = 10.0,
    reach: int = 3,
) -> ZoomOut:
    """A thin VGG-11 with batch norm, 1,888 features a superpixel, all trained from random weights.

    Arguments as `zoom_out`.
    """
    trunk = vgg11_bn_half(maps=("C4",), in_channels=in_channels)
    return ZoomOut(
        trunk,
        MapContext(trunk.channels),
        categories or VOC_21,
        hidden=256,
        superpixels=superpixels,
        compactness=compactness,
        reach=reach,
        learns=True,
    )
