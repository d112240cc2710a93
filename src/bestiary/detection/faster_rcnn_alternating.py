"""Faster R-CNN in four steps (Ren, He, Girshick, Sun, NIPS 2015, section 3.2), the training of the paper's results.

    rpn              a proposal network on a trunk of its own
    detector         a separate detector, from the same start, on that network's proposals: nothing is shared yet
    shared_rpn       the proposal network anew on the detector's trunk, which stays as it is
    shared_detector  the box head on the new proposals; the trunk still stays

In between the system predicts with two trunks, after the third step with one, like any other: a `FasterRCNN` of the
same form takes its weights over.

As in the authors' code the third step starts the proposal network's own layers afresh, and the box head goes on from
the second. Deviation: proposals are made as each picture is seen, mirrored or resized, not once and kept.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.backbones.levels import Trunk
from bestiary.backbones.resnet import VARIANTS, frozen_norm
from bestiary.detection.faster_rcnn import PUBLISHED, FasterRCNN
from bestiary.detection.faster_rcnn_single import build, c4_parts, small_parts, vgg16_parts
from bestiary.errors import UsageError
from bestiary.heads.box import BoxHead, RegionSettings, StageHead
from bestiary.heads.network_scale import size_of
from bestiary.heads.rpn import RPN, ProposalSettings
from bestiary.layers.preprocess import IMAGENET_MEAN, IMAGENET_STD
from bestiary.necks.fpn import PyramidBackbone
from bestiary.ops.region_modules import RoIAlign, RoIPool
from bestiary.records import Losses, Target
from bestiary.system import Images

STEPS = ("rpn", "detector", "shared_rpn", "shared_detector")


class AlternatingFasterRCNN(FasterRCNN):
    """The system, with a second trunk for the steps before the two stages share one. Arguments as `FasterRCNN`.

    Attributes:
        step: how many of the four steps have begun; part of the state.
        rpn_backbone: the proposal network's own trunk, read in the first two.
    """

    step: Int64[Tensor, ""]

    def __init__(
        self,
        backbone: PyramidBackbone | Trunk,
        categories: Sequence[str],
        *,
        rpn: RPN | None = None,
        box_head: BoxHead | StageHead | None = None,
        pooling: RoIPool | RoIAlign | None = None,
        min_size: int = 800,
        max_size: int = 1333,
        proposals: ProposalSettings = PUBLISHED[0],
        regions: RegionSettings = PUBLISHED[1],
        class_weights: Sequence[float] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__(
            backbone,
            categories,
            rpn=rpn,
            box_head=box_head,
            pooling=pooling,
            min_size=min_size,
            max_size=max_size,
            proposals=proposals,
            regions=regions,
            class_weights=class_weights,
            mean=mean,
            std=std,
        )
        self.rpn_backbone = copy.deepcopy(backbone)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.is_shared, self._stage = False, ""
        self.register_load_state_dict_post_hook(_read_step)

    def begin_stage(self, name: str) -> None:
        """Take up one of `STEPS`. The first gives the second trunk the start of the first; the third starts the
        proposal network's own layers afresh: each once, not when it is resumed.

        Raises:
            UsageError: no such step.
        """
        if name not in STEPS:
            raise UsageError(f"got the stage {name!r}, wanted one of {', '.join(STEPS)}", where=self.model_name or None)
        number = STEPS.index(name) + 1
        if number > int(self.step):
            if name == "rpn":
                self.rpn_backbone.load_state_dict(self.backbone.state_dict())
            elif name == "shared_rpn":
                self.rpn.head.reset()
            self.step.fill_(number)
        self._stage, self.is_shared = name, number >= 3

    def proposal_maps(
        self, pixels: Float[Tensor, "B C H W"], pyramid: tuple[Float[Tensor, "B C2 _h _w"], ...]
    ) -> tuple[Float[Tensor, "B C2 _h _w"], ...]:
        """The detector's maps, or as long as nothing is shared those of the proposal network's own trunk."""
        return pyramid if self.is_shared else tuple(self.rpn_backbone(pixels))

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Of a step that trains the proposal network "rpn_objectness" and "rpn_box", of the others "box_class" and
        "box_regression"; all four where no step was begun.

        Raises:
            RecordError: a target without objects, or a label that is no category.
        """
        if not self._stage:
            return super().loss(images, targets)
        pixels, truths, sizes_hw = self.batch_of(images, targets)
        pixels_hw = size_of(pixels)
        if self._stage.endswith("rpn"):
            trunk = self.backbone if self.is_shared else self.rpn_backbone
            return Losses(self.rpn_terms(tuple(trunk(pixels)), pixels_hw, truths, sizes_hw))
        pyramid = tuple(self.backbone(pixels))
        with torch.no_grad():
            raw = self.first_stage(pixels, pyramid)
        return Losses(self.region_terms(raw, pixels_hw, truths, sizes_hw))

    def start_state(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Of a classifier or a joint Faster R-CNN all that fits, for the first step to begin from."""
        taken, note = super().start_state(state)
        if note or "step" in state or not any(name.startswith("backbone.") for name in state):
            return taken, note
        own = self.state_dict()
        taken = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
        return taken, "starts from a Faster R-CNN with one trunk"


def _read_step(system: AlternatingFasterRCNN, _incompatible: object) -> None:
    system.is_shared = int(system.step) >= 3


def faster_rcnn_vgg16_4step(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
    frozen_blocks: int = 0,
) -> FasterRCNN:
    """The paper's system, trained in the paper's four steps; 14,714,688 parameters more, of the second trunk.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        anchor_sizes: sides of the square anchors, pixels at network scale; smaller ones for small objects.
        rpn_kernels: side of the proposal network's filter; one for each anchor size makes a pyramid of filters.
        class_weights: K factors on the classification loss of each category's regions; none for 1.
        frozen_blocks: how many of the first blocks of convolutions stay as they are; the paper's 2 suit ImageNet's
            weights, none suits random ones.
    """
    form = vgg16_parts(frozen_blocks), categories, (min_size, max_size), anchor_sizes
    return build(*form, rpn_kernels, class_weights, AlternatingFasterRCNN)


def faster_rcnn_small_4step(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 320,
    max_size: int = 533,
    anchor_sizes: Sequence[float] = (32.0, 64.0, 128.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
) -> FasterRCNN:
    """`faster_rcnn_small` in four steps. Arguments as `faster_rcnn_vgg16_4step`."""
    form = small_parts(), categories, (min_size, max_size), anchor_sizes
    return build(*form, rpn_kernels, class_weights, AlternatingFasterRCNN)


def faster_rcnn_resnet50_c4_4step(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> FasterRCNN:
    """`faster_rcnn_resnet50_c4` in four steps; conv5, the box head, learns in the second and the fourth.

    Args:
        categories: K names; None gives PASCAL VOC's 20.
        min_size: `predict` scales the shorter side to this ...
        max_size: ... unless the longer would exceed this.
        anchor_sizes: sides of the square anchors, pixels at network scale; smaller ones for small objects.
        rpn_kernels: side of the proposal network's filter; one for each anchor size makes a pyramid of filters.
        class_weights: K factors on the classification loss of each category's regions; none for 1.
        trainable_layers: how many of stem and four stages learn, from the last; 3 is usual with ImageNet's weights.
    """
    parts = c4_parts(VARIANTS["resnet50"], frozen_norm, trainable_layers)
    form = parts, categories, (min_size, max_size), anchor_sizes
    return build(*form, rpn_kernels, class_weights, AlternatingFasterRCNN)


def faster_rcnn_resnet101_c4_4step(
    categories: Sequence[str] | None = None,
    *,
    min_size: int = 600,
    max_size: int = 1000,
    anchor_sizes: Sequence[float] = (128.0, 256.0, 512.0),
    rpn_kernels: Sequence[int] = (3,),
    class_weights: Sequence[float] | None = None,
    trainable_layers: int = 5,
) -> FasterRCNN:
    """The same on ResNet-101. Arguments as `faster_rcnn_resnet50_c4_4step`."""
    parts = c4_parts(VARIANTS["resnet101"], frozen_norm, trainable_layers)
    form = parts, categories, (min_size, max_size), anchor_sizes
    return build(*form, rpn_kernels, class_weights, AlternatingFasterRCNN)
