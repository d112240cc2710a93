"""OKS, PCK, PCP: by hand, by loops, by the reference tool."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.metrics.pose import (
    COCO_SIGMAS,
    PoseScores,
    box_lengths,
    correct_keypoints,
    correct_limbs,
    head_lengths,
    keypoint_distances,
    object_keypoint_similarity,
    torso_lengths,
)


def people(count: int, joints: int = 17, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Truths with visibilities 0, 1 and 2, and predictions near them."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, joints, 2, generator=generator, dtype=dtype) * 100
    visible = torch.randint(0, 3, (count, joints, 1), generator=generator).to(dtype)
    noise = torch.randn(count, joints, 2, generator=generator, dtype=dtype) * 8
    return points + noise, torch.cat([points, visible], dim=2)


def naive_oks(found: Tensor, truth: Tensor, area: float, sigmas: tuple[float, ...], box: list[float] | None) -> float:
    total, count = 0.0, 0
    bare = not any(v > 0 for v in truth[:, 2].tolist())
    for (x, y), (tx, ty, v), sigma in zip(found.tolist(), truth.tolist(), sigmas, strict=True):
        if bare and box is not None:
            x1, y1, x2, y2 = box
            w, h = x2 - x1, y2 - y1
            dx = max(0, x1 - w - x) + max(0, x - x2 - w)
            dy = max(0, y1 - h - y) + max(0, y - y2 - h)
        elif v > 0:
            dx, dy = x - tx, y - ty
        else:
            continue
        total += math.exp(-(dx**2 + dy**2) / (2 * (2 * sigma) ** 2 * (area + np.spacing(1))))
        count += 1
    return total / count if count else math.nan


def test_a_distance_of_scale_times_spread_is_the_root_of_one_over_e() -> None:
    truth = torch.tensor([[50.0, 50.0, 2.0]])
    away = 2 * 0.05 * math.sqrt(400.0)
    found = torch.tensor([[50.0 + away, 50.0]])
    got = object_keypoint_similarity(found, truth, torch.tensor(400.0), sigmas=[0.05])
    assert got.item() == pytest.approx(math.exp(-0.5), abs=1e-6)


def test_oks_equals_the_loops_and_pairs_by_broadcasting() -> None:
    found, truths = people(6)
    truths[2, :, 2] = 0
    areas = torch.linspace(100, 5000, 6, dtype=torch.float64)
    boxes = torch.tensor([[10.0, 10.0, 40.0, 60.0]], dtype=torch.float64).repeat(6, 1)
    table = object_keypoint_similarity(found[:, None], truths[None], areas[None], COCO_SIGMAS, boxes[None])
    assert table.shape == (6, 6)
    for i in range(6):
        for j in range(6):
            wanted = naive_oks(found[i], truths[j], float(areas[j]), COCO_SIGMAS, boxes[j].tolist())
            assert float(table[i, j]) == pytest.approx(wanted, abs=1e-12)
    alone = object_keypoint_similarity(found, truths, areas)
    assert torch.equal(alone.isnan(), torch.arange(6) == 2)
    torch.testing.assert_close(alone[alone == alone], table.diagonal()[alone == alone])


def test_oks_is_pycocotools() -> None:
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    found, truths = people(5, seed=3)
    truths[1, :, 2] = 0
    areas = [900.0, 2500.0, 100.0, 40.0, 10000.0]
    boxes = torch.tensor([[x, 20.0, x + 30, 70.0] for x in range(0, 50, 10)], dtype=torch.float64)
    evaluation = cocoeval.COCOeval(iouType="keypoints")
    evaluation._gts = {
        (0, 1): [
            {"keypoints": t.flatten().tolist(), "area": a, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
            for t, a, b in zip(truths, areas, boxes.tolist(), strict=True)
        ]
    }
    rows = torch.cat([found, torch.ones(5, 17, 1, dtype=torch.float64)], dim=2)
    evaluation._dts = {(0, 1): [{"keypoints": r.flatten().tolist(), "score": 1 - i / 9} for i, r in enumerate(rows)]}
    wanted = evaluation.computeOks(0, 1)
    areas_tensor = torch.tensor(areas, dtype=torch.float64)
    got = object_keypoint_similarity(rows[:, None], truths[None], areas_tensor[None], boxes_xyxy=boxes[None])
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-12)


def test_oks_gradients_and_none_from_poses_that_cannot_be_measured() -> None:
    found, truths = people(3, joints=4, seed=1)
    truths[..., 2] = torch.tensor([2.0, 1.0, 0.0, 2.0])
    areas = torch.tensor([400.0, 900.0, 1600.0], dtype=torch.float64)
    sigmas = (0.1, 0.2, 0.3, 0.4)
    leaf = found.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: object_keypoint_similarity(x, truths, areas, sigmas), (leaf,))
    truths[1, :, 2] = 0
    values = object_keypoint_similarity(leaf, truths, areas, sigmas)
    (grad,) = torch.autograd.grad(values[~values.isnan()].sum(), leaf)
    assert torch.isfinite(grad).all()
    assert grad[1].eq(0).all()
    assert grad[0, 2].eq(0).all(), "not annotated"


def test_oks_at_the_edges() -> None:
    found, truths = people(2)
    assert object_keypoint_similarity(found[:0], truths[:0], torch.zeros(0, dtype=torch.float64)).shape == (0,)
    truths[..., 2] = 2
    zero = torch.zeros(2, dtype=torch.float64)
    assert object_keypoint_similarity(truths, truths, zero).tolist() == [1, 1], "an area of 0 is no NaN"
    assert object_keypoint_similarity(found, truths, zero).tolist() == [0, 0]
    half = object_keypoint_similarity(found.half(), truths.half(), torch.full((2,), 500.0).half())
    assert half.dtype == torch.float32
    with pytest.raises(RecordError, match="sigmas: got 3 numbers, wanted 17"):
        object_keypoint_similarity(found, truths, zero, sigmas=(0.1, 0.1, 0.1))


def test_oks_compiles_whole(unchecked: None) -> None:
    found, truths = people(4, dtype=torch.float32)
    areas = torch.full((4,), 900.0)
    compiled = torch.compile(object_keypoint_similarity, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(found, truths, areas), object_keypoint_similarity(found, truths, areas))


def test_lengths() -> None:
    assert head_lengths(torch.tensor([[10.0, 10.0, 40.0, 50.0]])).tolist() == pytest.approx([30.0])
    assert box_lengths(torch.tensor([[10.0, 10.0, 40.0, 50.0], [0.0, 0.0, 9.0, 2.0]])).tolist() == [40.0, 9.0]
    truths = torch.tensor([[[0.0, 0.0, 2.0], [3.0, 4.0, 1.0]], [[0.0, 0.0, 0.0], [3.0, 4.0, 2.0]]])
    lengths = torso_lengths(truths, (0, 1))
    assert lengths[0] == 5
    assert lengths[1].isnan()
    with pytest.raises(UsageError, match=r"got \(0, 2\), wanted two joints from 0 to 1"):
        torso_lengths(truths, (0, 2))


def test_a_joint_exactly_at_the_threshold_is_right() -> None:
    """Thresholds as they are written: 0.1 x 50 in floats is not always 5."""
    for alpha in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7):
        for tenth in range(1, 60):
            length = tenth / 10
            truths = torch.tensor([[[0.0, 0.0, 2.0]]], dtype=torch.float64)
            distance = round(100 * alpha) * tenth / 1000
            found = torch.tensor([[[distance, 0.0]]], dtype=torch.float64)
            lengths = torch.tensor([length], dtype=torch.float64)
            above = found * (1 + 1e-12)
            exact = math.isclose(distance / length, alpha, rel_tol=0, abs_tol=0)
            if exact:
                assert correct_keypoints(found, truths, lengths, alpha).item() == 1
            assert correct_keypoints(above, truths, lengths, alpha).item() == 0


def test_what_is_right_wrong_and_not_to_be_said() -> None:
    truths = torch.tensor([[[0.0, 0.0, 2.0], [10.0, 0.0, 1.0], [20.0, 0.0, 0.0]]]).repeat(3, 1, 1)
    found = torch.tensor([[[3.0, 4.0, 0.9], [10.0, 5.01, 0.9], [20.0, 0.0, 0.9]]]).repeat(3, 1, 1)
    right = correct_keypoints(found, truths, torch.tensor([10.0, 0.0, math.nan]), 0.5)
    assert right[0, :2].tolist() == [1, 0]
    assert right[0, 2].isnan()
    assert right[1:].isnan().all(), "persons without a length"
    leaf = found.clone().requires_grad_()
    distances = keypoint_distances(leaf, truths, torch.tensor([10.0, 0.0, math.nan]))
    (grad,) = torch.autograd.grad(distances[~distances.isnan()].sum(), leaf)
    assert torch.isfinite(grad).all()


def test_strict_pcp_judges_each_end() -> None:
    truths = torch.tensor([[[0.0, 0.0, 2.0], [0.0, 10.0, 2.0], [5.0, 5.0, 0.0]]])
    limbs = [(0, 1), (1, 2)]
    near = torch.tensor([[[5.0, 0.0], [0.0, 5.0], [5.0, 5.0]]])
    assert correct_limbs(near, truths, limbs)[0, 0] == 1, "both ends exactly half a limb away"
    far = torch.tensor([[[0.0, 0.0], [0.0, 4.9], [5.0, 5.0]]])
    assert correct_limbs(far, truths, limbs)[0, 0] == 0, "the mean of both would pass"
    assert correct_limbs(far, truths, limbs)[0, 1].isnan()
    with pytest.raises(UsageError, match="no limb"):
        correct_limbs(far, truths, [])


def naive_pck(found: Tensor, truths: Tensor, lengths: Tensor, alpha: float) -> tuple[float, list[float]]:
    right, judged = [0] * truths.shape[1], [0] * truths.shape[1]
    for person in range(len(truths)):
        for joint in range(truths.shape[1]):
            if truths[person, joint, 2] > 0 and lengths[person] > 0:
                dx, dy = (found[person, joint, :2] - truths[person, joint, :2]).tolist()
                judged[joint] += 1
                right[joint] += math.hypot(dx, dy) / float(lengths[person]) <= alpha
    return sum(right) / sum(judged), [r / j for r, j in zip(right, judged, strict=True)]


def test_scores_equal_the_loops_in_any_sharing() -> None:
    found, truths = people(40, joints=5, seed=2)
    lengths = torch.linspace(5, 40, 40, dtype=torch.float64)
    lengths[7] = 0
    scores = PoseScores([f"j{j}" for j in range(5)], (0.5, 0.2), "box")
    scores.update(found, truths, lengths)
    computed = scores.compute()
    assert computed.headline == "PCK@0.5"
    for alpha in (0.5, 0.2):
        pooled, joints = naive_pck(found, truths, lengths, alpha)
        assert 0.05 < pooled < 0.95
        assert computed.values[f"PCK@{alpha:g}"] == pooled
        assert computed.values[f"PCK@{alpha:g}_mean_of_joints"] == pytest.approx(np.mean(joints), abs=1e-12)
        assert [computed.per_class[f"j{j}"][f"PCK@{alpha:g}"] for j in range(5)] == joints
    curve = [naive_pck(found, truths, lengths, a)[0] for a in np.linspace(0, 0.5, 101)]
    assert computed.values["PCK_AUC"] == pytest.approx(np.trapezoid(curve, dx=0.01), abs=1e-12)
    assert computed.details["people_without_length"] == 1
    first, second = (PoseScores(scores.joints, (0.5, 0.2), "box") for _ in range(2))
    first.update(found[:11], truths[:11], lengths[:11])
    second.update(found[11:], truths[11:], lengths[11:])
    first.merge(second)
    assert first.compute().to_dict() == computed.to_dict()


def test_pckh_names_itself_and_a_joint_never_annotated_is_left_out() -> None:
    scores = PoseScores(["a", "b"])
    truths = torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]])
    scores.update(truths[..., :2] + 3, truths, torch.tensor([10.0]))
    computed = scores.compute()
    assert computed.values["PCKh@0.5"] == computed.values["PCKh@0.5_mean_of_joints"] == 1
    assert math.isnan(computed.per_class["b"]["PCKh@0.5"])
    assert "0.6 x diagonal of the head box" in computed.protocol
    assert math.isnan(PoseScores(["a"]).compute().value)


def test_bad_input_is_named() -> None:
    with pytest.raises(UsageError, match="thresholds above 0"):
        PoseScores(["a"], (0.0,))
    scores = PoseScores(["a", "b"])
    truths = torch.ones(1, 2, 3)
    with pytest.raises(RecordError, match="got 1 joints, wanted 2"):
        scores.update(truths[:, :1, :2], truths[:, :1], torch.ones(1))
    with pytest.raises(RecordError, match="NaN"):
        scores.update(torch.full((1, 2, 2), math.nan), truths, torch.ones(1))
    with pytest.raises(UsageError, match="normalizer"):
        scores.merge(PoseScores(["a", "b"], normalizer="box"))
