"""VGG's localisation of a picture's chief object (Simonyan, Zisserman, ICLR 2015, appendix A), after OverFeat
(Sermanet et al., ICLR 2014, section 4).

Beside the class scores the network says a box: its centre, width and height, one for all classes or one for each. It is
learned by the Euclidean distance from the true box. At test time it runs densely: every place of the map looks at one
window of the picture and gives class scores and boxes. For each of the likeliest classes the boxes are merged greedily,
the closest pair first, and each merged box is rated by the class scores of the windows that it came from.

Deviations. The paper trains two whole networks, one for classes and one for boxes; here they share the convolutions, as
OverFeat's do, and each has its own fully connected layers. A box is measured in window sides. OverFeat's match score
is the distance of centres plus the area of the intersection, which counts for and against a match; here it is the
distance-IoU. Merged boxes are the means of all that went into them, whatever the order. Of each class the best merged
box is the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.backbones.vgg import VGG, fully_connected, initialise
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.errors import UsageError
from bestiary.geometry.boxes import box_area, clip_boxes, cxcywh_to_xyxy, pairwise_distance_iou, xyxy_to_cxcywh
from bestiary.heads.detection import Detector
from bestiary.heads.published import imagenet_categories
from bestiary.heads.truth import truths_of
from bestiary.heads.views import class_map
from bestiary.layers.preprocess import Normalize
from bestiary.layers.scaling import as_float, centre_crop, resize_short_side, stack_equal
from bestiary.predictions import Detections
from bestiary.records import Losses, Objects, Target
from bestiary.system import Images

STRIDE = 32
"""Pixels from one window to the next."""

LEAST_VISIBLE = 0.1
"""Share of an object that must be left in the centre crop for it to count as there."""

WindowViews = Literal["centre", "dense"]


@dataclass(frozen=True)
class Localising:
    """How boxes become answers, and what they cost.

    Attributes:
        views: dense: all windows of the picture; centre: the one in the middle.
        view_sides: shorter sides that pictures are scaled to, whose windows are united; none for `resize`.
        candidates: how many of the likeliest classes get a box.
        merge_overlap: boxes are merged as long as the closest two have a distance-IoU above this.
        box_weight: of the Euclidean loss beside the cross entropy.
    """

    views: WindowViews = "dense"
    view_sides: tuple[int, ...] = ()
    candidates: int = 5
    merge_overlap: float = 0.3
    box_weight: float = 10.0

    def __post_init__(self) -> None:
        if self.views not in get_args(WindowViews):
            raise UsageError(f"got {self.views!r}, wanted one of {', '.join(get_args(WindowViews))}", where="views")
        if self.candidates < 1 or self.box_weight < 0:
            got = f"{self.candidates} candidates and a weight of {self.box_weight}"
            raise UsageError(f"got {got}, wanted at least one and none below 0", where="Localising")


class VGGLocaliser(Detector):
    """Convolutions, and two stacks of fully connected layers: class scores and boxes.

    Args:
        trunk: the trunk with all its layers; not usable on its own afterwards.
        categories: K names.
        width: of fc6 and fc7 of both stacks.
        per_class: a box for each class (4 K outputs) in place of one for all.
        shared_layers: boxes are said by a last layer of their own on fc7 of the classifier, in place of a stack of
            their own: the plain classifier with a second answer.
        dropout: after fc6 and fc7.
        resize: shorter side that `predict` scales to.
        crop: side of a window, a multiple of 32.
        how: see `Localising`.

    Raises:
        UsageError: no category, a crop that is no multiple of 32 or larger than a side that it is cut from.
    """

    features: nn.Sequential
    classifier: nn.Sequential
    regressor: nn.Sequential

    def __init__(
        self,
        trunk: VGG,
        categories: Sequence[str],
        *,
        width: int = 4096,
        per_class: bool = True,
        shared_layers: bool = False,
        dropout: float = 0.5,
        resize: int = 256,
        crop: int = 224,
        how: Localising = Localising(),
    ) -> None:
        super().__init__(categories, how.candidates)
        if crop % STRIDE or not 0 < crop <= min((resize, *how.view_sides)):
            got = f"{crop} with sides {', '.join(map(str, (resize, *how.view_sides)))}"
            raise UsageError(f"got {got}, wanted a multiple of {STRIDE} up to the least side", where="crop")
        self.resize, self.crop, self.per_class, self.how = resize, crop, per_class, how
        self.in_channels, self.grid = trunk.in_channels, crop // STRIDE
        inputs, boxes = self.grid**2 * trunk.channels, len(self.categories) if per_class else 1
        self.normalize = Normalize()
        self.features = trunk.features
        self.classifier = fully_connected(inputs, (width, width), len(self.categories), dropout)
        self.shared_layers = shared_layers
        hidden = () if shared_layers else (width, width)
        self.regressor = fully_connected(width if shared_layers else inputs, hidden, 4 * boxes, dropout)
        initialise(self.classifier)
        initialise(self.regressor)
        # The middle half of the window: no box is born outside.
        nn.init.constant_(self.regressor[-1].get_parameter("bias"), 0.5)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B R 4"]]:
        """Logits of one window, and its boxes: centre x, y, width and height in window sides; R is K or 1."""
        maps = F.adaptive_avg_pool2d(self.features(pixels), (self.grid, self.grid)).flatten(1)
        hidden = self.classifier[:-1](maps)
        boxes = self.regressor(hidden if self.shared_layers else maps)
        return self.classifier[-1](hidden), boxes.unflatten(1, (-1, 4))

    def dense(
        self, pixels: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B K _h _w"], Float[Tensor, "B R 4 _h _w"]]:
        """`forward` of every window, `STRIDE` pixels apart (but for the padding, which windows inside have not)."""
        maps = self.features(pixels)
        *layers, last = self.classifier
        hidden = class_map(maps, layers, self.grid)
        seen, grid = (hidden, 1) if self.shared_layers else (maps, self.grid)
        boxes = class_map(seen, self.regressor, grid)
        return class_map(hidden, [last], 1), boxes.unflatten(1, (-1, 4))

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Terms "cross_entropy", of the largest object's class, and "euclidean", half the squared distance of its box
        (of the true class's four outputs only) in window sides; each the mean over the pictures that hold an object.

        Raises:
            RecordError: pictures of different sizes, a target without objects, or a label that is no category.
        """
        pixels = self.normalize(stack_equal(images))
        truths = truths_of(targets, len(pixels), len(self.categories))
        chief = [chief_object(truth.boxes_xyxy, truth.labels) for truth in truths]
        rows = [i for i, found in enumerate(chief) if found is not None]
        logits, boxes = self(pixels)
        if not rows:
            nothing = (logits.sum() + boxes.sum()) * 0
            return Losses({"cross_entropy": nothing, "euclidean": nothing})
        labels = torch.stack([found[1] for found in chief if found is not None]).to(pixels.device)
        true_xyxy = torch.stack([found[0] for found in chief if found is not None]).to(pixels.device)
        sides = true_xyxy.new_tensor([pixels.shape[-1], pixels.shape[-2]] * 2)
        told = boxes[rows, labels] if self.per_class else boxes[rows, 0]
        apart = told - xyxy_to_cxcywh(true_xyxy / sides)
        euclidean = 0.5 * apart.square().sum(1).mean()
        return Losses(
            {
                "cross_entropy": F.cross_entropy(logits[rows], labels),
                "euclidean": self.how.box_weight * euclidean,
            }
        )

    def to_network_scale(
        self, images: Sequence[Shaped[Tensor, "C _h _w"]], targets: Sequence[Target]
    ) -> tuple[Sequence[Float[Tensor, "C _h2 _w2"]], Sequence[Target]]:
        """The middle window of each picture at `resize`, and what of its objects lies in it (boxes and labels only)."""
        scaled = [resize_short_side(as_float(image), self.resize) for image in images]
        moved = [
            target if target.objects is None else Target(objects=self._in_window(target.objects, image, large))
            for target, image, large in zip(targets, images, scaled, strict=True)
        ]
        return [centre_crop(image, self.crop) for image in scaled], moved

    def _in_window(self, objects: Objects, image: Tensor, scaled: Tensor) -> Objects:
        left, top = (round((scaled.shape[axis] - self.crop) / 2) for axis in (-1, -2))
        ratio = objects.boxes_xyxy.new_tensor([scaled.shape[-1] / image.shape[-1], scaled.shape[-2] / image.shape[-2]])
        boxes = objects.boxes_xyxy * ratio.repeat(2) - objects.boxes_xyxy.new_tensor([left, top] * 2)
        cut = clip_boxes(boxes, (self.crop, self.crop))
        rows = (box_area(cut) > LEAST_VISIBLE * box_area(boxes)).nonzero()[:, 0]
        crowd = None if objects.crowd is None else objects.crowd[rows]
        return Objects(cut[rows], objects.labels[rows], crowd=crowd)

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """At most `candidates` boxes a picture, one for each of the likeliest classes."""
        return self.detect_scaled(images, 1.0)

    def detect_scaled(self, images: Sequence[Shaped[Tensor, "C _h _w"]], scale: float) -> list[Detections]:
        """`detect_images` with all sides that pictures are scaled to times `scale`, down to the window's."""
        sides = [max(self.crop, round(side * scale)) for side in self.how.view_sides or (self.resize,)]
        return [self._locate(image, sides) for image in images]

    def _locate(self, image: Shaped[Tensor, "C H W"], sides: Sequence[int]) -> Detections:
        size_hw = (int(image.shape[-2]), int(image.shape[-1]))
        found = [self._windows(as_float(image), side) for side in sides]
        probs, boxes = torch.cat([p for p, _ in found]), torch.cat([b for _, b in found])
        labels = probs.mean(0).topk(min(self.how.candidates, len(self.categories))).indices
        answers = []
        for label in labels.tolist():
            merged, group = merge_greedily(boxes[:, label if self.per_class else 0], self.how.merge_overlap)
            scores = probs.new_zeros(len(merged)).index_add_(0, group, probs[:, label]) / len(probs)
            best = int(scores.argmax())
            answers.append((scores[best], merged[best]))
        scores = torch.stack([score for score, _ in answers])
        order = torch.sort(scores, descending=True, stable=True).indices
        chosen = clip_boxes(torch.stack([box for _, box in answers])[order], size_hw)
        return Detections(chosen, labels[order], scores[order], size_hw=size_hw, categories=self.categories)

    def _windows(
        self, image: Float[Tensor, "C H W"], side: int
    ) -> tuple[Float32[Tensor, "N K"], Float32[Tensor, "N R 4"]]:
        """Class probabilities and boxes, in pixels of the picture, of all windows at one scale."""
        scaled = resize_short_side(image, side)
        ratio = image.new_tensor([image.shape[-1] / scaled.shape[-1], image.shape[-2] / scaled.shape[-2]])
        if self.how.views == "centre":
            corner = [round((scaled.shape[axis] - self.crop) / 2) for axis in (-1, -2)]
            logits, boxes = self(self.normalize(centre_crop(scaled, self.crop))[None])
            corners_xy = image.new_tensor([corner])
        else:
            logit_map, box_map = self.dense(self.normalize(scaled)[None])
            height, width = logit_map.shape[-2:]
            logits, boxes = logit_map[0].flatten(1).T, box_map[0].flatten(2).permute(2, 0, 1)
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            corners_xy = (STRIDE * torch.stack([x, y], -1).flatten(0, 1)).to(image)
        boxes = boxes.float() * self.crop
        sizes = boxes[..., 2:].clamp(min=1)  # nothing keeps the network from sides below 0
        inside = cxcywh_to_xyxy(torch.cat([boxes[..., :2] + corners_xy[:, None], sizes], -1))
        return logits.float().softmax(1), inside * ratio.repeat(2)

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier: its convolutions, and its fully connected layers for both stacks, but for the boxes' last,
        which starts fresh (the paper's way).
        """
        parts = {name.split(".")[0] for name in state}
        if parts != {"features", "classifier"}:
            return state, ""
        if self.shared_layers:
            return state, "starts from the classifier; the boxes' layer starts fresh"
        hidden = {n: t for n, t in state.items() if n.startswith(("classifier.0.", "classifier.3."))}
        boxes = {name.replace("classifier", "regressor"): tensor for name, tensor in hidden.items()}
        return {**state, **boxes}, "starts from the classifier; the boxes' last layer starts fresh"


def chief_object(
    boxes_xyxy: Float32[Tensor, "N 4"], labels: Int64[Tensor, " N"]
) -> tuple[Float32[Tensor, "4"], Int64[Tensor, ""]] | None:
    """The largest object's box and label, the first of equal ones; None if there is none."""
    if not len(boxes_xyxy):
        return None
    row = int(box_area(boxes_xyxy).argmax())
    return boxes_xyxy[row], labels[row]


def merge_greedily(
    boxes_xyxy: Float32[Tensor, "N 4"], least: int | float
) -> tuple[Float32[Tensor, "G 4"], Int64[Tensor, " N"]]:
    """Merge the two closest boxes into their mean until none are close enough.

    Args:
        boxes_xyxy: with two positive sides.
        least: two boxes are merged only while their distance-IoU is above this.

    Returns:
        the merged boxes, each the mean of its group, and which of them each box went into.
    """
    count = len(boxes_xyxy)
    group, merged = torch.arange(count, device=boxes_xyxy.device), boxes_xyxy.clone()
    closeness = pairwise_distance_iou(merged, merged).fill_diagonal_(-torch.inf)
    for _ in range(count - 1):
        i, j = divmod(int(closeness.argmax()), count)
        if float(closeness[i, j]) <= least:
            break
        group[group == j] = i
        merged[i] = boxes_xyxy[group == i].mean(0)
        gone = closeness[i] == -torch.inf  # itself and those that were merged away
        gone[j] = True
        row = pairwise_distance_iou(merged[i : i + 1], merged)[0].masked_fill(gone, -torch.inf)
        closeness[j], closeness[:, j] = -torch.inf, -torch.inf
        closeness[i], closeness[:, i] = row, row
    left, group = group.unique(return_inverse=True)
    return merged[left], group


def _localiser(
    name: str,
    categories: Sequence[str] | None,
    batch_norm: bool,
    sizes: tuple[int, int],
    width: int,
    boxes: tuple[bool, bool],
    how: Localising,
) -> VGGLocaliser:
    names = imagenet_categories() if categories is None else categories
    trunk = VGG(DEPTHS[name], batch_norm=batch_norm)
    return VGGLocaliser(
        trunk,
        names,
        width=width,
        per_class=boxes[0],
        shared_layers=boxes[1],
        resize=sizes[0],
        crop=sizes[1],
        how=how,
    )


def vgg16_localisation(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    width: int = 4096,
    per_class: bool = True,
    shared_layers: bool = False,
    views: WindowViews = "dense",
    view_sides: tuple[int, ...] = (),
    candidates: int = 5,
    merge_overlap: float = 0.3,
    box_weight: float = 10.0,
) -> VGGLocaliser:
    """Configuration D, as the paper localises with it.

    Args:
        categories: K names; None gives ImageNet's 1,000.
        resize: shorter side that `predict` scales to.
        crop: side of a window, a multiple of 32; 224 to start from a classifier's fully connected layers.
        width: of fc6 and fc7 of both stacks.
        per_class: a box for each class in place of one for all; the paper's better form.
        shared_layers: boxes share fc6 and fc7 with the classes: a classifier with 4 further outputs (4 K with
            `per_class`). With `per_class` off, `views` at centre and one candidate this is the plain classification and
            localisation of one object a picture.
        views: dense: all windows of the picture; centre: the one in the middle.
        view_sides: shorter sides that pictures are scaled to, whose windows are united; none for `resize`.
        candidates: how many of the likeliest classes get a box.
        merge_overlap: boxes are merged as long as the closest two have a distance-IoU above this.
        box_weight: of the Euclidean loss beside the cross entropy.
    """
    how = Localising(views, tuple(view_sides), candidates, merge_overlap, box_weight)
    return _localiser("vgg16", categories, False, (resize, crop), width, (per_class, shared_layers), how)


def vgg11_bn_localisation(
    categories: Sequence[str] | None = None,
    *,
    resize: int = 144,
    crop: int = 128,
    width: int = 512,
    per_class: bool = True,
    shared_layers: bool = False,
    views: WindowViews = "dense",
    view_sides: tuple[int, ...] = (),
    candidates: int = 5,
    merge_overlap: float = 0.3,
    box_weight: float = 10.0,
) -> VGGLocaliser:
    """A small form that learns from scratch: configuration A with batch norm, windows of 128, layers of 512.

    Arguments as `vgg16_localisation`.
    """
    how = Localising(views, tuple(view_sides), candidates, merge_overlap, box_weight)
    return _localiser("vgg11", categories, True, (resize, crop), width, (per_class, shared_layers), how)
