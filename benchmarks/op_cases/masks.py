"""Masks: run lengths beside pycocotools, pasting beside torchvision, distances and components beside scipy."""

import importlib

import cv2
import numpy as np
import torch
from benchmarks.op_cases import Case, Peers
from scipy import ndimage

from bestiary.geometry.masks import encode_rle, rle_iou, rle_union
from bestiary.geometry.masks import mask_iou as matrix_mask_iou
from bestiary.ops.components import connected_components
from bestiary.ops.distance import border_weights, euclidean_distance, min_envelope_2d
from bestiary.ops.edges import label_boundaries
from bestiary.ops.masks import decode_rles, encode_rles, mask_iou, masks_to_boxes
from bestiary.ops.paste import paste_masks, paste_to_rles


def things(count: int = 100, height: int = 480, width: int = 640) -> np.ndarray:
    """Ellipses with rippled outlines."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    masks = np.empty((count, height, width), np.bool_)
    for mask in masks:
        cy, cx = rng.uniform(100, height - 100), rng.uniform(100, width - 100)
        ry, rx = rng.uniform(20, 150), rng.uniform(20, 200)
        mask[:] = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1 + 0.1 * np.sin(x / 9)
    return masks


def run_length_cases(peers: Peers) -> list[Case]:
    """pycocotools takes uint8 pixels column by column: once given so, once made so, as its users must."""
    pixels = things()
    masks, coco = torch.from_numpy(pixels), peers.coco_mask
    rles = encode_rles(masks)
    calls = {
        "encode_rle 480 x 640": (lambda: encode_rle(masks[0]), 3.0),
        "encode_rle 480 x 640, peer converts": (lambda: encode_rle(masks[0]), 3.0),
        "encode_rles 100 x 480 x 640": (lambda: encode_rles(masks), 3.0),
        "encode_rles 100 x 480 x 640, peer converts": (lambda: encode_rles(masks), 3.0),
        "Rle.decode 480 x 640": (rles[0].decode, 3.0),
        "decode_rles 100 x 480 x 640": (lambda: decode_rles(rles), 3.0),
        "decode_rles 100 x 480 x 640, peer converts": (lambda: decode_rles(rles), 3.0),
        "rle_iou 1 x 1": (lambda: rle_iou(rles[:1], rles[1:2]), 3.0),
        "rle_iou 10 x 10": (lambda: rle_iou(rles[:10], rles[10:20]), 3.0),
        "rle_iou 100 x 100": (lambda: rle_iou(rles, rles), 3.0),
        "rle_union 2": (lambda: rle_union(rles[:2]), None),
        "rle_union 100": (lambda: rle_union(rles), None),
    }
    if coco is None:
        return [Case(name, ours, None, target, "pycocotools") for name, (ours, target) in calls.items()]
    single = np.asfortranarray(pixels[0].astype(np.uint8))
    batch = np.asfortranarray(pixels.transpose(1, 2, 0).astype(np.uint8))
    texts = coco.encode(batch)
    theirs = [
        lambda: coco.encode(single),
        lambda: coco.encode(np.asfortranarray(pixels[0].astype(np.uint8))),
        lambda: coco.encode(batch),
        lambda: coco.encode(np.asfortranarray(pixels.transpose(1, 2, 0).astype(np.uint8))),
        lambda: coco.decode(texts[0]),
        lambda: coco.decode(texts),
        lambda: np.ascontiguousarray(coco.decode(texts).transpose(2, 0, 1)).view(np.bool_),
        lambda: coco.iou(texts[:1], texts[1:2], [0]),
        lambda: coco.iou(texts[:10], texts[10:20], [0] * 10),
        lambda: coco.iou(texts, texts, [0] * 100),
        lambda: coco.merge(texts[:2]),
        lambda: coco.merge(texts),
    ]
    return [
        Case(name, ours, peer, target, "pycocotools")
        for (name, (ours, target)), peer in zip(calls.items(), theirs, strict=True)
    ]


def paste_cases(peers: Peers) -> list[Case]:
    """Our pictures are zero pages until something is pasted on them; torchvision's are written in full."""
    g = torch.Generator().manual_seed(0)
    size_hw = (800, 1333)
    masks = torch.rand(100, 1, 28, 28, generator=g)
    centre = torch.rand(100, 2, generator=g) * torch.tensor([1133.0, 600.0]) + 100
    extent = torch.exp(torch.rand(100, 2, generator=g) * 3.5 + 2.0)
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1)
    peer = above = None
    if peers.vision is not None:
        theirs = importlib.import_module("torchvision.models.detection.roi_heads").paste_masks_in_image
        peer = lambda: theirs(masks, boxes, size_hw)  # noqa: E731
        above = lambda: theirs(masks, boxes, size_hw) > 0.5  # noqa: E731
    return [
        Case("paste_masks 100 on 800 x 1333, above 0.5", lambda: paste_masks(masks, boxes, size_hw), above, 25.0),
        Case("paste_masks 100 on 800 x 1333, values", lambda: paste_masks(masks, boxes, size_hw, None), peer),
        Case("paste_to_rles 100 on 800 x 1333", lambda: paste_to_rles(masks, boxes, size_hw)),
    ]


def picture_cases(peers: Peers) -> list[Case]:
    masks = torch.from_numpy(things())
    vision = peers.vision
    boxes_of_peer = None if vision is None else lambda: vision.ops.masks_to_boxes(masks)
    union = masks[:4].any(dim=0)
    array, bytes_ = union.numpy(), union.numpy().astype(np.uint8)
    numbers = torch.zeros(480, 640, dtype=torch.int32)
    for i in range(0, 100, 3):
        numbers[masks[i].roll((7 * i, 5 * i), (0, 1)) & masks[i]] = i + 1
    costs = torch.rand(32, 60, 80, generator=torch.Generator().manual_seed(0))
    structure = np.ones((3, 3))
    return [
        Case(
            "mask_iou 100 x 100 of 480 x 640",
            lambda: mask_iou(masks, masks),
            lambda: matrix_mask_iou(masks, masks),
            None,
            "torch",
        ),
        Case("masks_to_boxes 100 x 480 x 640", lambda: masks_to_boxes(masks), boxes_of_peer),
        Case(
            "euclidean_distance 480 x 640",
            lambda: euclidean_distance(union),
            lambda: ndimage.distance_transform_edt(array),
            None,
            "scipy",
        ),
        Case(
            "euclidean_distance 480 x 640, float32",
            lambda: euclidean_distance(union),
            lambda: cv2.distanceTransform(bytes_, cv2.DIST_L2, cv2.DIST_MASK_PRECISE),
            None,
            "opencv",
        ),
        Case("min_envelope_2d 32 x 60 x 80", lambda: min_envelope_2d(costs, (0.1, 0.2))),
        Case("border_weights 480 x 640", lambda: border_weights(numbers)),
        Case(
            "connected_components 480 x 640",
            lambda: connected_components(union),
            lambda: ndimage.label(array, structure),
            None,
            "scipy",
        ),
        Case("label_boundaries 480 x 640", lambda: label_boundaries(numbers)),
    ]


def cases(peers: Peers) -> list[Case]:
    """All of this family."""
    return [*run_length_cases(peers), *paste_cases(peers), *picture_cases(peers)]
