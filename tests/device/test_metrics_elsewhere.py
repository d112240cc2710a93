"""Evaluators told of tensors that are not on the CPU, as predictions of a system there are: the same numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from second_device import there
from torch import Tensor

from bestiary.metrics import classification, clusters, pose, pose_3d, quality, verification
from bestiary.metrics.boundary import BoundaryScores
from bestiary.metrics.boundary_iou import BoundaryIouScores
from bestiary.metrics.class_masks import ClassMaskScores
from bestiary.metrics.classification import ClassificationScores
from bestiary.metrics.coco import CocoScores
from bestiary.metrics.depth import DepthScores
from bestiary.metrics.membranes import MembraneScores
from bestiary.metrics.normals import NormalScores, normal_angles
from bestiary.metrics.proposals import ProposalScores
from bestiary.metrics.retrieval import Embeddings, RetrievalScores
from bestiary.metrics.segmentation import SegmentationScores
from bestiary.metrics.trimap import TrimapScores
from bestiary.metrics.voc import VocScores
from bestiary.predictions import Classification, Detections, Segmentation
from bestiary.records import Objects, Target

GENERATOR = torch.Generator()
NAMES = ("ant", "bee", "crab")


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR)


def unit(*shape: int) -> Tensor:
    found = rand(*shape) - 0.5
    return found / found.norm(dim=1, keepdim=True)


def labels(count: int) -> Tensor:
    return torch.randint(3, (count,), generator=GENERATOR)


def boxes(count: int) -> Tensor:
    corner = rand(count, 2) * 20
    return torch.cat([corner, corner + 2 + rand(count, 2) * 20], dim=1)


def detections() -> tuple[list[Detections], list[Target]]:
    scores, masks = rand(6).sort(descending=True).values, rand(6, 40, 40) > 0.5
    found = Detections(boxes(6), labels(6), scores, size_hw=(40, 40), masks=masks, categories=NAMES)
    objects = Objects(boxes(4), labels(4), masks=rand(4, 40, 40) > 0.5)
    return [found], [Target(objects=objects)]


def pixels() -> tuple[list[Segmentation], list[Target]]:
    probs = rand(3, 20, 24).softmax(0)
    truth = torch.randint(3, (20, 24), generator=GENERATOR).to(torch.uint8)
    return [Segmentation(probs.argmax(0).to(torch.uint8), (20, 24), probs, NAMES)], [Target(label_map=truth)]


def cells() -> tuple[list[Segmentation], list[Target]]:
    (found,), (truth,) = pixels()
    assert found.probs is not None
    assert truth.label_map is not None
    probs = found.probs[:2] / found.probs[:2].sum(0)
    told = Segmentation(probs.argmax(0).to(torch.uint8), (20, 24), probs, NAMES[:2])
    return [told], [Target(label_map=truth.label_map.clamp(max=1))]


def overlapping() -> tuple[list[Segmentation], list[Target]]:
    found, truth = pixels()
    masks = rand(3, 20, 24) > 0.5
    return [Segmentation(found[0].label_map, (20, 24), categories=NAMES, class_masks=masks)], truth


def classes() -> tuple[list[Classification], list[Target]]:
    found = [Classification(rand(3).softmax(0), (8, 8), NAMES) for _ in range(5)]
    return found, [Target(label=i % 3) for i in range(5)]


def embeddings() -> Embeddings:
    return Embeddings(rand(8, 5), torch.arange(8) % 3)


def joints() -> tuple[Tensor, Tensor, Tensor]:
    return rand(4, 3, 2) * 10, torch.cat([rand(4, 3, 2) * 10, torch.full((4, 3, 1), 2.0)], dim=2), rand(4) * 10


EVALUATORS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "coco boxes": (lambda: CocoScores(NAMES), detections),
    "coco masks": (lambda: CocoScores(NAMES, kind="masks"), detections),
    "voc": (lambda: VocScores(NAMES), detections),
    "proposals": (ProposalScores, lambda: ([boxes(20)], detections()[1])),
    "classification": (lambda: ClassificationScores(NAMES, topk=(1, 2)), classes),
    "segmentation": (lambda: SegmentationScores(NAMES), pixels),
    "boundary": (lambda: BoundaryScores(NAMES), pixels),
    "boundary iou": (lambda: BoundaryIouScores(NAMES), pixels),
    "trimap": (lambda: TrimapScores(NAMES), pixels),
    "class masks": (lambda: ClassMaskScores(NAMES), overlapping),
    "membranes": (lambda: MembraneScores(NAMES[:2]), cells),
    "depth": (DepthScores, lambda: (rand(2, 9, 10) + 1, rand(2, 9, 10) + 1)),
    "normals": (NormalScores, lambda: (unit(2, 3, 9, 10), unit(2, 3, 9, 10))),
    "quality": (lambda: quality.QualityScores(data_range=1.0), lambda: (rand(2, 3, 20, 20), rand(2, 3, 20, 20))),
    "verification": (verification.VerificationScores, lambda: (rand(40), rand(40) > 0.5)),
    "pose": (lambda: pose.PoseScores(NAMES), joints),
    "pose in space": (pose_3d.Pose3dScores, lambda: (rand(4, 3, 3), rand(4, 3, 3))),
}
"""Name -> the evaluator, and what it is told."""

FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "ranks of truth": (classification.ranks_of_truth, lambda: (rand(6, 3), labels(6))),
    "mutual information": (clusters.normalized_mutual_information, lambda: (labels(20), labels(20))),
    "k-means": (clusters.kmeans_nmi, lambda: (rand(20, 4), labels(20))),
    "normal angles": (normal_angles, lambda: (unit(2, 3, 4, 5), unit(2, 3, 4, 5))),
    "psnr": (quality.psnr, lambda: (rand(2, 3, 20, 20), rand(2, 3, 20, 20), 1.0)),
    "ssim": (quality.ssim, lambda: (rand(2, 3, 20, 20), rand(2, 3, 20, 20), 1.0)),
    "procrustes": (pose_3d.pa_mpjpe, lambda: (rand(4, 5, 3), rand(4, 5, 3))),
    "cosine": (verification.cosine_scores, lambda: (rand(4, 5), rand(4, 5))),
}


def sent(value: Any, device: torch.device) -> Any:
    """Records, tensors, and lists of them on a device."""
    if isinstance(value, list | tuple):
        return type(value)(sent(element, device) for element in value)
    return value.to(device) if hasattr(value, "to") else value


@pytest.mark.parametrize("name", EVALUATORS)
def test_the_numbers_are_the_same(name: str, device: torch.device) -> None:
    make, tell = EVALUATORS[name]
    GENERATOR.manual_seed(2)
    told = tell()
    here, elsewhere = make(), make()
    here.update(*told)
    elsewhere.update(*sent(told, device))
    assert elsewhere.compute().values == pytest.approx(here.compute().values, rel=1e-5, nan_ok=True)


def test_retrieval_from_a_gallery_that_is_there(device: torch.device) -> None:
    GENERATOR.manual_seed(2)
    gallery, queries = embeddings(), embeddings()
    here = RetrievalScores(gallery, topk=(1, 2))
    here.update(queries)
    elsewhere = RetrievalScores(sent(gallery, device), topk=(1, 2))
    elsewhere.update(sent(queries, device))
    assert elsewhere.compute().values == pytest.approx(here.compute().values, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_answer_the_same(name: str, device: torch.device) -> None:
    function, make = FUNCTIONS[name]
    GENERATOR.manual_seed(2)
    given = make()
    wanted, found = function(*given), function(*there(given, device))
    if isinstance(wanted, Tensor):
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-5)
    else:
        assert found == pytest.approx(wanted)
