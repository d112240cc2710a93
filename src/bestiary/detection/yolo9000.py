"""YOLO9000 (Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017, section 4): YOLOv2 whose classes form a
tree, learning from pictures with boxes and pictures with a label alone.

Faithful to the paper and Darknet's code: Darknet-19's convolutions, one 1x1 convolution to the cells' numbers, three
priors (`yolo9000.cfg`); a softmax among siblings; a box learns the classes on its label's way up. Of a picture that has
a label and no boxes, the place whose objectness times probability of the label is largest learns the label; its
objectness learns nothing, that of every other place learns that there is nothing.

Deviation: the paper says that the predicted box of such a picture should overlap the object by 0.3, which nothing in
the picture says; Darknet's code leaves it out, and so does this.

The published tree of 9,418 nodes is not shipped: `read_tree("9k.tree").edges` makes the argument of Darknet's file.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from bestiary.backbones.darknet import Darknet19
from bestiary.detection.yolo_v2 import SIZES, YOLOv2, in_cells
from bestiary.errors import RecordError
from bestiary.heads import region_layer
from bestiary.heads.network_scale import size_of
from bestiary.heads.published import VOC_20
from bestiary.heads.region_layer import RegionRaw, RegionRule
from bestiary.heads.region_network import RegionNetwork
from bestiary.heads.truth import truths_of
from bestiary.heads.word_tree import TreeClasses, WordTree
from bestiary.records import Losses, Sample, Target
from bestiary.system import Images

PRIORS_9000 = (0.77871, 1.14074, 3.00525, 4.31277, 9.22725, 9.61974)
"""Of `yolo9000.cfg`, in cells of 32 pixels."""


class YOLO9000(YOLOv2):
    """The system. Arguments as `YOLOv2`; its `classes` are `TreeClasses`."""

    learns_from_labels = True

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """YOLOv2's terms of the pictures with objects, and "label" and "label_no_object" of those with a label alone;
        all divided by the number of all pictures.

        Raises:
            RecordError: a target with neither, or a label that is no category.
        """
        boxed = [i for i, target in enumerate(targets) if target.objects is not None]
        named = [i for i, target in enumerate(targets) if target.objects is None]
        labels = self._labels([targets[i] for i in named])
        truths = truths_of([targets[i] for i in boxed], len(boxed), len(self.categories))
        if len(targets) != len(images):
            raise RecordError(f"got {len(targets)}, wanted one a picture, {len(images)}", where="targets")
        pixels, factors_hw = self.batch_of(images)
        raw, layout = region_layer.split_raw(self(pixels), len(self.priors_wh)), self.layout(size_of(pixels))
        terms = self.label_terms(RegionRaw(*(part[named] for part in raw)), labels.to(pixels.device))
        if boxed:
            cells = [in_cells(truth.to(pixels.device), factors_hw) for truth in truths]
            terms |= self.region_loss(RegionRaw(*(part[boxed] for part in raw)), cells, layout)
        else:
            terms |= dict.fromkeys(("object", "no_object", "box", "class", "pull"), 0.0 * raw.offsets.sum())
        share = {name: len(named) if name.startswith("label") else len(boxed) for name in terms}
        self.count(len(images))
        return Losses({name: value * share[name] / len(images) for name, value in terms.items()})

    def label_terms(self, raw: RegionRaw, labels: Int64[Tensor, " B"]) -> dict[str, Float[Tensor, ""]]:
        """What pictures with a label alone teach, means over them."""
        if not len(labels):
            nothing = 0.0 * raw.objectness.sum()
            return {"label": nothing, "label_no_object": nothing}
        places = self.assign_label(raw, labels)
        rows = torch.arange(len(labels), device=labels.device), places
        others = torch.ones_like(raw.objectness, dtype=torch.bool)
        others[rows] = False
        rule, nothing = self.rule, torch.zeros_like(raw.objectness)
        none = region_layer.objectness_losses(raw.objectness, nothing, rule.cross_entropy) * others
        kinds = self.class_losses(raw.classes[rows], labels)
        return {
            "label": rule.classes * kinds.sum() / len(labels),
            "label_no_object": rule.no_object * none.sum() / len(labels),
        }

    @torch.no_grad()
    def assign_label(self, raw: RegionRaw, labels: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """The place of each picture that most likely holds an object of the picture's label."""
        batch, places = raw.objectness.shape
        flat = raw.classes.reshape(batch * places, -1)
        logs = -self.classes.losses(flat, labels.repeat_interleave(places)).view(batch, places)
        return (logs + torch.nn.functional.logsigmoid(raw.objectness)).argmax(1)

    def _box_sizes(self, sample: Sample) -> Float32[Tensor, "N 2"]:
        return torch.zeros(0, 2) if sample.target.objects is None else super()._box_sizes(sample)

    def _labels(self, targets: Sequence[Target]) -> Int64[Tensor, " B"]:
        for target in targets:
            if target.label is None or not 0 <= target.label < len(self.categories):
                wanted = f"objects, or a label from 0 to {len(self.categories) - 1}"
                raise RecordError(f"got no objects and the label {target.label}, wanted {wanted}", where="targets")
        return torch.tensor([target.label for target in targets], dtype=torch.int64)


def yolo9000(
    categories: Sequence[str] | None = None,
    *,
    tree: Sequence[str] = (),
    tree_threshold: float | None = None,
    size: int = 544,
    train_sizes: Sequence[int] = SIZES,
    letterbox: bool = False,
    priors: Sequence[float] = PRIORS_9000,
    fit_priors: bool = True,
    pull_pictures: int = 12_800,
    class_weights: Sequence[float] | None = None,
) -> YOLO9000:
    """The paper's system: 28,269 outputs a cell with the tree of 9,418 nodes.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        tree: who is a kind of what, each written `child=parent` (`cat=animal,dog=animal`); names beside the categories
            are inner nodes. None of them: categories exclude one another.
        tree_threshold: a box answers with one category, the deepest on the way down whose probability is above this;
            none for all categories.
        size: side of the square that `predict` works at, a multiple of 32.
        train_sizes: sides that training draws from, a new one every ten batches; none for no change.
        letterbox: pictures keep their proportions within the square, with grey around; otherwise they are stretched.
        priors: width and height of each prior in cells of 32 pixels, in turn.
        fit_priors: training begins with k-means on the boxes of the data, and as many priors; otherwise they stay.
        pull_pictures: the boxes are drawn to their priors for so many pictures.
        class_weights: K factors on the classification loss, by the label; none for 1.
    """
    names = tuple(VOC_20 if categories is None else categories)
    words = WordTree.of(names, tree)
    outputs = len(priors) // 2 * (5 + len(words.names))
    return YOLO9000(
        RegionNetwork(Darknet19(), outputs, convolutions=0, passthrough=0),
        names,
        priors=priors,
        classes=TreeClasses(words, names, tree_threshold),
        size=size,
        train_sizes=train_sizes,
        letterbox=letterbox,
        fit_priors=fit_priors,
        rule=RegionRule(pull_pictures=pull_pictures),
        class_weights=class_weights,
    )
