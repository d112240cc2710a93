"""Every operator on tensors that are not on the CPU: there its plain path says what the kernel says on the CPU.

On the second device always (see `second_device`), on a GPU where there is one.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from second_device import here, there
from torch import Tensor, nn

from bestiary import ops
from bestiary.geometry.rle import Rle

GENERATOR = torch.Generator()


def some(*shape: int) -> Tensor:
    """Numbers around nought."""
    return torch.randn(shape, generator=GENERATOR)


def boxes(count: int, size: float = 20.0) -> Tensor:
    corner = torch.rand((count, 2), generator=GENERATOR) * size / 2
    return torch.cat([corner, corner + 1 + torch.rand((count, 2), generator=GENERATOR) * size / 2], dim=1)


def regions(count: int) -> Tensor:
    return torch.cat([torch.arange(count)[:, None] % 2, boxes(count)], dim=1)


def turned(count: int) -> Tensor:
    centre, angle = boxes(count, 10)[:, :2], some(count, 1) * 40
    return torch.cat([centre, 2 + some(count, 2).abs(), angle], dim=1)


def solids(count: int) -> Tensor:
    return torch.cat([some(count, 3), 1 + some(count, 3).abs(), some(count, 1)], dim=1)


def blobs(*shape: int) -> Tensor:
    return some(*shape) > 0.2


def scores(count: int) -> Tensor:
    return torch.rand(count, generator=GENERATOR)


def kinds(count: int) -> Tensor:
    return torch.arange(count) % 3


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.MaxPool2d(2))


CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "assign_levels": (lambda b: ops.assign_levels(b * 20, 4), lambda: (boxes(20),)),
    "batch_to_space": (lambda x: ops.batch_to_space(x, 2), lambda: (some(8, 3, 4, 5),)),
    "batched_nms": (lambda b, s, k: ops.batched_nms(b, s, k, 0.4), lambda: (boxes(60), scores(60), kinds(60))),
    "batched_rotated_nms": (
        lambda b, s, k: ops.batched_rotated_nms(b, s, k, 0.3),
        lambda: (turned(30), scores(30), kinds(30)),
    ),
    "batched_soft_nms": (ops.batched_soft_nms, lambda: (boxes(40), scores(40), kinds(40))),
    "bed_of_nails": (lambda x: ops.bed_of_nails(x, 2, 1), lambda: (some(2, 3, 4, 5),)),
    "birds_eye_iou": (ops.birds_eye_iou, lambda: (solids(6), solids(7))),
    "border_weights": (ops.border_weights, lambda: (ops.connected_components(blobs(20, 30)).label_map,)),
    "box3d_corners": (ops.box3d_corners, lambda: (solids(6),)),
    "box3d_iou": (ops.box3d_iou, lambda: (solids(6), solids(7))),
    "box_area": (ops.box_area, lambda: (boxes(6),)),
    "box_convert": (lambda b: ops.box_convert(b, "xyxy", "cxcywh"), lambda: (boxes(6),)),
    "box_iou": (ops.box_iou, lambda: (boxes(6), boxes(7))),
    "canny": (lambda x: ops.canny(x, 20, 40), lambda: ((some(3, 30, 40) * 60 + 128).clamp(0, 255).to(torch.uint8),)),
    "clip_boxes_to_image": (lambda b: ops.clip_boxes_to_image(b, (9, 8)), lambda: (boxes(6),)),
    "complete_box_iou": (ops.complete_box_iou, lambda: (boxes(6), boxes(7))),
    "complete_box_iou_loss": (ops.complete_box_iou_loss, lambda: (boxes(6), boxes(6))),
    "connected_components": (ops.connected_components, lambda: (blobs(20, 30),)),
    "convolution_matrix": (lambda w: ops.convolution_matrix(w, (6, 7)).to_dense(), lambda: (some(4, 3, 3, 3),)),
    "corner_pool": (lambda x: ops.corner_pool(x, "left"), lambda: (some(2, 3, 9, 10),)),
    "deform_conv2d": (
        lambda x, o, w, b, m: ops.deform_conv2d(x, o, w, b, padding=1, mask=m),
        lambda: (some(2, 4, 8, 9), some(2, 18, 8, 9), some(5, 4, 3, 3), some(5), some(2, 9, 8, 9).sigmoid()),
    ),
    "dense_crf": (
        lambda x, i: ops.dense_crf(x, i, 3),
        lambda: (some(4, 12, 14), (some(3, 12, 14) * 60 + 128).clamp(0, 255).to(torch.uint8)),
    ),
    "distance_box_iou": (ops.distance_box_iou, lambda: (boxes(6), boxes(7))),
    "distance_box_iou_loss": (ops.distance_box_iou_loss, lambda: (boxes(6), boxes(6))),
    "encode_rles": (ops.encode_rles, lambda: (blobs(3, 9, 10),)),
    "euclidean_distance": (ops.euclidean_distance, lambda: (blobs(3, 9, 10),)),
    "exact_gaussian_filter": (ops.exact_gaussian_filter, lambda: (some(30, 4), some(30, 3))),
    "generalized_box_iou": (ops.generalized_box_iou, lambda: (boxes(6), boxes(7))),
    "generalized_box_iou_loss": (ops.generalized_box_iou_loss, lambda: (boxes(6), boxes(6))),
    "grid_gaussian_filter": (lambda x: ops.grid_gaussian_filter(x, 1.5), lambda: (some(9, 10, 4),)),
    "image_to_columns": (lambda x: ops.image_to_columns(x, 3), lambda: (some(2, 3, 9, 10),)),
    "interleaved_convolution": (
        lambda x, w: ops.interleaved_convolution(x, w, padding=2, dilation=2),
        lambda: (some(2, 3, 9, 10), some(4, 3, 3, 3)),
    ),
    "label_boundaries": (ops.label_boundaries, lambda: (blobs(2, 9, 10).int(),)),
    "local_response_norm": (ops.local_response_norm, lambda: (some(2, 8, 5, 6),)),
    "mask_iou": (ops.mask_iou, lambda: (blobs(3, 9, 10), blobs(4, 9, 10))),
    "masks_to_boxes": (ops.masks_to_boxes, lambda: (blobs(3, 9, 10),)),
    "matrix_nms": (lambda b, s, k: ops.matrix_nms(ops.box_iou(b, b), s, k), lambda: (boxes(9), scores(9), kinds(9))),
    "max_pool_with_indices": (lambda x: ops.max_pool_with_indices(x, 3, 2), lambda: (some(2, 3, 9, 10),)),
    "max_unpool": (
        lambda x: ops.max_unpool(*ops.max_pool_with_indices(x, 2), output_size=(8, 10)),
        lambda: (some(2, 3, 8, 10),),
    ),
    "mean_pool": (lambda x: ops.mean_pool(x, 3, 2), lambda: (some(2, 3, 9, 10),)),
    "min_envelope_1d": (lambda x: ops.min_envelope_1d(x, 0.3, 0.1), lambda: (some(4, 20),)),
    "min_envelope_2d": (lambda x: ops.min_envelope_2d(x, (0.3, 0.2), (0.1, 0.0)), lambda: (some(2, 9, 10),)),
    "multiscale_roi_align": (
        lambda x, y, r: ops.multiscale_roi_align([x, y], [1, 2], r, 3, canonical_size=10),
        lambda: (some(2, 4, 20, 20), some(2, 4, 10, 10), regions(9)),
    ),
    "nms": (lambda b, s: ops.nms(b, s, 0.4), lambda: (boxes(60), scores(60))),
    "paste_masks": (lambda m, b: ops.paste_masks(m, b, (25, 30)), lambda: (some(5, 1, 9, 9).sigmoid(), boxes(5))),
    "paste_masks_continuous": (
        lambda m, b: ops.paste_masks_continuous(m, b, (25, 30)),
        lambda: (some(5, 1, 9, 9).sigmoid(), boxes(5)),
    ),
    "paste_to_rles": (lambda m, b: ops.paste_to_rles(m, b, (25, 30)), lambda: (some(5, 1, 9, 9).sigmoid(), boxes(5))),
    "permutohedral_filter": (ops.permutohedral_filter, lambda: (some(40, 4), some(40, 3))),
    "permutohedral_lattice": (
        lambda v, f: ops.permutohedral_filter(v, ops.permutohedral_lattice(f)),
        lambda: (some(40, 4), some(40, 3)),
    ),
    "ps_roi_align": (lambda x, r: ops.ps_roi_align(x, r, 2, 1.0, 2), lambda: (some(2, 8, 20, 20), regions(9))),
    "ps_roi_pool": (lambda x, r: ops.ps_roi_pool(x, r, 2), lambda: (some(2, 8, 20, 20), regions(9))),
    "remove_small_boxes": (lambda b: ops.remove_small_boxes(b, 5), lambda: (boxes(20),)),
    "reorg": (lambda x: ops.reorg(x, 2), lambda: (some(2, 4, 8, 10),)),
    "resize_convolution": (
        lambda x, w: ops.resize_convolution(x, w, factor=2),
        lambda: (some(2, 3, 5, 6), some(4, 3, 3, 3)),
    ),
    "roi_align": (lambda x, r: ops.roi_align(x, r, 3), lambda: (some(2, 4, 20, 20), regions(9))),
    "roi_pool": (lambda x, r: ops.roi_pool(x, r, 3), lambda: (some(2, 4, 20, 20), regions(9))),
    "rotated_box_corners": (ops.rotated_box_corners, lambda: (turned(6),)),
    "rotated_box_iou": (ops.rotated_box_iou, lambda: (turned(6), turned(7))),
    "rotated_nms": (lambda b, s: ops.rotated_nms(b, s, 0.3), lambda: (turned(30), scores(30))),
    "sample_at": (ops.sample_at, lambda: (some(2, 3, 9, 10), some(2, 4, 5, 2).abs() * 4)),
    "sobel_gradients": (ops.sobel_gradients, lambda: (some(2, 9, 10),)),
    "soft_nms": (ops.soft_nms, lambda: (boxes(40), scores(40))),
    "space_to_batch": (lambda x: ops.space_to_batch(x, 2), lambda: (some(2, 3, 8, 10),)),
    "spatial_pyramid_pool": (lambda x: ops.spatial_pyramid_pool(x, (1, 2, 3)), lambda: (some(2, 4, 9, 11),)),
    "spatial_pyramid_pool_regions": (
        lambda x, r: ops.spatial_pyramid_pool_regions(x, r, 1, (1, 2)),
        lambda: (some(2, 4, 20, 20), regions(9)),
    ),
    "sub_pixel": (lambda x: ops.sub_pixel(x, 2), lambda: (some(2, 8, 5, 6),)),
    "suppress_nonmaxima": (ops.suppress_nonmaxima, lambda: (some(9, 10).abs(), some(9, 10))),
    "upsample": (lambda x: ops.upsample(x, 2), lambda: (some(2, 3, 5, 6),)),
    "upsample_bilinear_transposed": (lambda x: ops.upsample_bilinear_transposed(x, 2), lambda: (some(2, 3, 5, 6),)),
    "warp": (lambda x, m: ops.warp(x, m, (8, 9)), lambda: (some(2, 3, 9, 10), torch.eye(3) + some(3, 3) * 0.01)),
    "warp_by_flow": (ops.warp_by_flow, lambda: (some(2, 3, 9, 10), some(2, 2, 9, 10))),
    "within_distance": (lambda m: ops.within_distance(m, 2), lambda: (blobs(9, 10),)),
}
"""Operator -> what is called, and what it is given."""

SHAPES_ALONE = {
    *("bilinear_filler", "convolution_cost", "convolution_output_size", "icnr_", "influence_map", "network_costs"),
    *("pooling_output_size", "receptive_field", "stacked_field", "transposed_output_size", "decode_rles"),
}
"""What takes no tensors of a picture: numbers, modules, run lengths, weights to begin with."""

SPARSE = {"convolution_matrix"}
"""What answers with sparse tensors: the second device has none."""
NO_GRADIENT = {"soft_nms", "batched_soft_nms"}
"""What cannot be differentiated, on no device."""


def parts(value: Any) -> list[Any]:
    """Tensors and run lengths of an answer."""
    if isinstance(value, Tensor | Rle):
        return [value]
    if isinstance(value, list | tuple):
        return [part for element in value for part in parts(element)]
    return [part for name in vars(value) for part in parts(getattr(value, name))]


def leave_out_sparse(name: str, device: torch.device) -> None:
    if name in SPARSE and device.type != "cuda":
        pytest.skip("the second device has no sparse tensors")


def test_every_operator_has_a_case() -> None:
    functions = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert functions == {*CASES, *SHAPES_ALONE}


@pytest.mark.parametrize("name", CASES)
def test_it_says_there_what_it_says_here(name: str, device: torch.device) -> None:
    leave_out_sparse(name, device)
    call, make = CASES[name]
    GENERATOR.manual_seed(1)
    given = make()
    wanted = parts(call(*given))
    found = parts(call(*there(given, device)))
    assert len(found) == len(wanted) > 0
    for answer, right in zip(found, wanted, strict=True):
        if isinstance(right, Tensor):
            assert answer.device == device
            torch.testing.assert_close(here(answer), right, rtol=1e-4, atol=1e-5)
        else:
            assert answer == right


@pytest.mark.parametrize("name", [name for name in CASES if name not in NO_GRADIENT])
def test_gradients_are_the_same_there(name: str, device: torch.device) -> None:
    leave_out_sparse(name, device)
    call, make = CASES[name]

    def gradients(where: torch.device) -> list[Tensor]:
        GENERATOR.manual_seed(1)
        given = [there(x, where) for x in make()]
        leaves = [x.requires_grad_() for x in given if x.is_floating_point()]
        answers = [part for part in parts(call(*given)) if isinstance(part, Tensor) and part.requires_grad]
        if not answers:
            return []
        weights = [torch.arange(a.numel()).view(a.shape).to(where).cos() for a in answers]
        total = torch.stack([(a * w).sum() for a, w in zip(answers, weights, strict=True)]).sum()
        found = torch.autograd.grad(total, leaves, allow_unused=True)
        return [g for g in found if g is not None]

    wanted, found = gradients(torch.device("cpu")), gradients(device)
    assert len(found) == len(wanted)
    for answer, right in zip(found, wanted, strict=True):
        assert answer.device == device
        torch.testing.assert_close(here(answer), right, rtol=1e-4, atol=1e-4)
