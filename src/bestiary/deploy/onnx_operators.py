"""How the library's own operators are written in ONNX."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bestiary.errors import MissingExtraError
from bestiary.ops import roi_align, roi_pool  # noqa: F401 (their operators are translated)
from bestiary.ops.suppression import batched_nms

OPSET = 18
"""The first in which torch's exporter writes; both runtimes have it since 2023."""


def suppress(
    boxes_xyxy: Float[Tensor, "B P 4"], scores: Float[Tensor, "B G P"], iou_threshold: float, above: float
) -> Int64[Tensor, "S 3"]:
    """Non-maximum suppression within each group of each picture: ONNX's NonMaxSuppression.

    Unlike `ops.batched_nms` it needs no data-dependent number of boxes a picture, so that a batch stays one tensor, and
    in the graph groups are told apart by index, not by shifting the boxes.

    Args:
        boxes_xyxy: P boxes a picture.
        scores: of each box in each group; a box takes part in the groups where its score is ...
        above: ... greater than this.
        iou_threshold: an IoU strictly above it suppresses.

    Returns:
        rows (picture, group, box) of the survivors, in any order.
    """
    return _suppress(boxes_xyxy, scores, iou_threshold, above)


@torch.library.custom_op("bestiary::suppress", mutates_args=())
def _suppress(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float, above: float) -> Tensor:
    candidates = (scores > above).nonzero()
    picture, group, box = candidates.unbind(1)
    together = picture * scores.shape[1] + group
    kept = batched_nms(boxes_xyxy[picture, box], scores[picture, group, box], together, iou_threshold)
    return candidates[kept]


@_suppress.register_fake
def _(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float, above: float) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes_xyxy.new_empty((count, 3), dtype=torch.int64)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table that torch's exporter translates our operators by.

    Raises:
        MissingExtraError: onnxscript is not installed.
    """
    try:
        import onnxscript
    except ImportError as error:
        raise MissingExtraError.of("onnxscript", "export") from error
    op: Any = onnxscript.opset18  # its annotations know values only, not the symbols that stand here

    def write_suppress(boxes_xyxy: Any, scores: Any, iou_threshold: float, above: float) -> Any:
        # The operator takes any two opposite corners, so that x before y does not matter.
        without_limit = op.Constant(value_ints=[2**31 - 1])
        iou, least = op.Constant(value_floats=[iou_threshold]), op.Constant(value_floats=[above])
        # Says again that a box has four numbers: OpenVINO forgets it in eight-bit graphs, and then refuses them.
        corners = op.Gather(boxes_xyxy, op.Constant(value_ints=[0, 1, 2, 3]), axis=2)
        return op.NonMaxSuppression(corners, scores, without_limit, iou, least)

    def write_roi_align(
        features: Any,
        rois: Any,
        spatial_scale: float,
        pooled_height: int,
        pooled_width: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        picture = op.Cast(op.Squeeze(op.Slice(rois, [0], [1], [1]), [1]), to=7)
        return op.RoiAlign(
            features,
            op.Slice(rois, [1], [5], [1]),
            picture,
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=pooled_height,
            output_width=pooled_width,
            sampling_ratio=max(0, sampling_ratio),
            spatial_scale=spatial_scale,
        )

    def write_roi_pool(features: Any, rois: Any, spatial_scale: float, pooled_height: int, pooled_width: int) -> Any:
        return op.MaxRoiPool(features, rois, pooled_shape=[pooled_height, pooled_width], spatial_scale=spatial_scale)

    return {
        torch.ops.bestiary.roi_pool.default: write_roi_pool,
        torch.ops.bestiary.suppress.default: write_suppress,
        torch.ops.bestiary.roi_align.default: write_roi_align,
    }
