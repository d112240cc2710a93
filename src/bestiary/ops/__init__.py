"""Tensor in, tensor out: the operators of the lineage, with torchvision's names and answers where it has them.

On the CPU, loops that do not vectorise run in numba kernels (`_kernels`); elsewhere (for most also with float64)
in plain torch. Both give the same answers. Operators with a kernel are custom operators ("bestiary::..."), so
`torch.compile` sees one node and an exporter can translate them.
"""

from bestiary.ops.box_losses import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from bestiary.ops.boxes3d import birds_eye_iou, box3d_corners, box3d_iou
from bestiary.ops.components import Components, connected_components
from bestiary.ops.convolution import (
    batch_to_space,
    convolution_matrix,
    image_to_columns,
    interleaved_convolution,
    space_to_batch,
)
from bestiary.ops.corner_pooling import Direction, corner_pool
from bestiary.ops.costs import LayerCost, NetworkCosts, network_costs
from bestiary.ops.deformable import DeformConv2d, deform_conv2d
from bestiary.ops.dense_crf import DEEPLAB_LARGE_FOV, DEEPLAB_V2, Appearance, Smoothness, dense_crf
from bestiary.ops.distance import border_weights, euclidean_distance, min_envelope_1d, min_envelope_2d
from bestiary.ops.edges import canny, label_boundaries, sobel_gradients, suppress_nonmaxima, within_distance
from bestiary.ops.gaussian_filters import exact_gaussian_filter, grid_gaussian_filter
from bestiary.ops.influence import influence_map
from bestiary.ops.masks import decode_rles, encode_rles, mask_iou, masks_to_boxes
from bestiary.ops.overlaps import (
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
    remove_small_boxes,
)
from bestiary.ops.paste import paste_masks, paste_masks_continuous, paste_to_rles
from bestiary.ops.permutohedral import PermutohedralLattice, permutohedral_filter, permutohedral_lattice
from bestiary.ops.pooling import max_pool_with_indices, mean_pool
from bestiary.ops.position_sensitive import ps_roi_align, ps_roi_pool
from bestiary.ops.pyramid_pooling import spatial_pyramid_pool, spatial_pyramid_pool_regions
from bestiary.ops.receptive_fields import AxisReach, ReceptiveField, receptive_field
from bestiary.ops.region_modules import MultiScaleRoIAlign, PSRoIAlign, PSRoIPool, RoIAlign, RoIPool
from bestiary.ops.regions import assign_levels, multiscale_roi_align, roi_align
from bestiary.ops.reorg import reorg
from bestiary.ops.response_norm import local_response_norm
from bestiary.ops.roi_pool import roi_pool
from bestiary.ops.rotated import rotated_box_corners, rotated_box_iou
from bestiary.ops.rotated_suppression import batched_rotated_nms, rotated_nms
from bestiary.ops.shapes import (
    Field,
    Window,
    convolution_cost,
    convolution_output_size,
    pooling_output_size,
    stacked_field,
    transposed_output_size,
)
from bestiary.ops.soft_suppression import batched_soft_nms, matrix_nms, soft_nms
from bestiary.ops.suppression import batched_nms, nms
from bestiary.ops.unpooling import bed_of_nails, max_unpool
from bestiary.ops.upsampling import (
    bilinear_filler,
    icnr_,
    resize_convolution,
    sub_pixel,
    upsample,
    upsample_bilinear_transposed,
)
from bestiary.ops.warping import sample_at, warp, warp_by_flow

__all__ = [
    "DEEPLAB_LARGE_FOV",
    "DEEPLAB_V2",
    "Appearance",
    "AxisReach",
    "Components",
    "DeformConv2d",
    "Direction",
    "Field",
    "LayerCost",
    "MultiScaleRoIAlign",
    "NetworkCosts",
    "PSRoIAlign",
    "PSRoIPool",
    "PermutohedralLattice",
    "ReceptiveField",
    "RoIAlign",
    "RoIPool",
    "Smoothness",
    "Window",
    "assign_levels",
    "batch_to_space",
    "batched_nms",
    "batched_rotated_nms",
    "batched_soft_nms",
    "bed_of_nails",
    "bilinear_filler",
    "birds_eye_iou",
    "border_weights",
    "box3d_corners",
    "box3d_iou",
    "box_area",
    "box_convert",
    "box_iou",
    "canny",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "connected_components",
    "convolution_cost",
    "convolution_matrix",
    "convolution_output_size",
    "corner_pool",
    "decode_rles",
    "deform_conv2d",
    "dense_crf",
    "distance_box_iou",
    "distance_box_iou_loss",
    "encode_rles",
    "euclidean_distance",
    "exact_gaussian_filter",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "grid_gaussian_filter",
    "icnr_",
    "image_to_columns",
    "influence_map",
    "interleaved_convolution",
    "label_boundaries",
    "local_response_norm",
    "mask_iou",
    "masks_to_boxes",
    "matrix_nms",
    "max_pool_with_indices",
    "max_unpool",
    "mean_pool",
    "min_envelope_1d",
    "min_envelope_2d",
    "multiscale_roi_align",
    "network_costs",
    "nms",
    "paste_masks",
    "paste_masks_continuous",
    "paste_to_rles",
    "permutohedral_filter",
    "permutohedral_lattice",
    "pooling_output_size",
    "ps_roi_align",
    "ps_roi_pool",
    "receptive_field",
    "remove_small_boxes",
    "reorg",
    "resize_convolution",
    "roi_align",
    "roi_pool",
    "rotated_box_corners",
    "rotated_box_iou",
    "rotated_nms",
    "sample_at",
    "sobel_gradients",
    "soft_nms",
    "space_to_batch",
    "spatial_pyramid_pool",
    "spatial_pyramid_pool_regions",
    "stacked_field",
    "sub_pixel",
    "suppress_nonmaxima",
    "transposed_output_size",
    "upsample",
    "upsample_bilinear_transposed",
    "warp",
    "warp_by_flow",
    "within_distance",
]
