"""Every field of a sample moves with its picture."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transform_scenes import blank, discs, same

from bestiary.errors import RecordError, UsageError
from bestiary.records import IGNORE_LABEL, Objects, Sample, Target
from bestiary.transforms import (
    KEEP_ALL,
    CenterCrop,
    Elastic,
    Keep,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    ResizeShortSide,
    ScaleJitter,
    Transform,
)
from bestiary.transforms.moving import move, remap_relations, swapped
from bestiary.transforms.warp import Warp

FLIP = RandomHorizontalFlip(1.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def objects_of(sample: Sample) -> Objects:
    assert sample.target.objects is not None
    return sample.target.objects


def boxes(*rows: list[float]) -> Objects:
    return Objects(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), torch.arange(len(rows)))


def crop(sample: Sample, corner_xy: tuple[int, int], size_hw: tuple[int, int], keep: Keep | None = None) -> Sample:
    warp = Warp.cut(sample.size_hw, corner_xy, size_hw)
    return move(
        sample, warp if keep is None else Warp(warp.matrix, warp.source_hw, size_hw, warp.window_xyxy, keep=keep)
    )


def test_mirror_by_hand() -> None:
    sample = discs()
    mirrored = FLIP(sample, rng())
    before, after = objects_of(sample), objects_of(mirrored)
    x1, y1, x2, y2 = before.boxes_xyxy.unbind(1)
    torch.testing.assert_close(after.boxes_xyxy, torch.stack([64 - x2, y1, 64 - x1, y2], 1))
    assert before.masks is not None
    assert after.masks is not None
    assert torch.equal(after.masks, before.masks.flip(2))
    for name in ("labels", "crowd", "difficult", "ids", "areas", "attributes"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name
    assert mirrored.target.caption == "discs"
    assert mirrored.target.label == 3
    assert torch.equal(mirrored.target.relations, sample.target.relations)
    assert mirrored.original_size_hw == (48, 64)


@pytest.mark.parametrize(
    "twice", [FLIP, RandomVerticalFlip(1.0), RandomHorizontalFlip(1.0, ((0, 1),), ((0, 1), (2, 3)))], ids=repr
)
def test_mirrored_twice_every_field_is_as_before(twice: Transform) -> None:
    sample = discs()
    back = twice(twice(sample, rng()), rng())
    a, b = objects_of(back), objects_of(sample)
    torch.testing.assert_close(a.boxes_xyxy, b.boxes_xyxy, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.keypoints, b.keypoints, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.boxes_3d, b.boxes_3d)
    torch.testing.assert_close(back.target.camera.intrinsics, sample.target.camera.intrinsics)
    assert torch.equal(back.target.camera.pose, sample.target.camera.pose)
    assert torch.equal(back.image, sample.image)
    for name in ("label_map", "weight_map", "depth", "normals", "relations"):
        assert torch.equal(getattr(back.target, name), getattr(sample.target, name)), name
    assert torch.equal(a.masks, b.masks)


def test_a_mirror_exchanges_joints_and_predicates() -> None:
    sample = discs()
    mirrored = RandomHorizontalFlip(1.0, joint_pairs=((0, 1),), predicate_pairs=((0, 1),))(sample, rng())
    left, right, centre = objects_of(mirrored).keypoints.unbind(1)
    assert (left[:, 0] < right[:, 0]).all(), "the left joint is on the left again"
    assert (left[:, 2] == 1).all(), "each brings its own visibility"
    assert (right[:, 2] == 2).all()
    torch.testing.assert_close(centre[:, 0], 64 - objects_of(sample).keypoints[:, 2, 0])
    assert mirrored.target.relations.tolist() == [[0, 1, 1], [2, 0, 3], [1, 2, 0]]
    unaware = FLIP(sample, rng())
    assert (objects_of(unaware).keypoints[:, 0, 0] > objects_of(unaware).keypoints[:, 1, 0]).all()


def test_relations_without_objects_still_exchange_predicates() -> None:
    relations = torch.tensor([[0, 5, 1]])
    sample = Sample(torch.zeros(3, 4, 4), Target(relations=relations), "r", (4, 4))
    swapping = RandomHorizontalFlip(1.0, predicate_pairs=((5, 2),))
    assert swapping(sample, rng()).target.relations.tolist() == [[0, 2, 1]]


def test_relations_follow_their_objects() -> None:
    relations = torch.tensor([[0, 0, 1], [2, 1, 3], [1, 2, 0], [3, 3, 1]])
    kept = torch.tensor([False, True, False, True])
    assert remap_relations(relations, kept).tolist() == [[1, 3, 0]]
    assert remap_relations(torch.zeros(0, 3, dtype=torch.int64), kept, ((0, 1),)).shape == (0, 3)
    assert remap_relations(relations, torch.zeros(4, dtype=torch.bool)).shape == (0, 3)


def test_swaps_happen_one_after_the_other() -> None:
    assert swapped(4, ((0, 1), (2, 3))).tolist() == [1, 0, 3, 2]
    assert swapped(3, ((0, 1), (0, 1))).tolist() == [0, 1, 2]
    assert swapped(2, ((0, 5),)).tolist() == [0, 1], "joints that the picture has not"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30))
def test_masks_boxes_and_labels_agree_after_any_affine_map(seed: int) -> None:
    sample = discs(seed=seed % 50)
    turned = RandomAffine(180.0, 0.15, (0.7, 1.5), 15.0)(sample, rng(seed))
    found = objects_of(turned)
    assert found.masks is not None
    for mask, box, label in zip(found.masks, found.boxes_xyxy, found.labels, strict=True):
        ys, xs = mask.nonzero(as_tuple=True)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], "turned boxes are the masks' bounds"
        overlapped = turned.target.label_map[mask]
        assert ((overlapped == label + 1) | (overlapped > label + 1)).all(), "later discs lie on top"
    inside = turned.target.label_map != IGNORE_LABEL
    assert (turned.target.depth[~inside] == 0).all()
    assert (turned.target.weight_map[~inside] == 0).all()
    assert (turned.target.normals[:, ~inside] == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 5))
def test_keypoints_follow_the_pixel_they_mark(seed: int, kind: int) -> None:
    generator = rng(seed)
    height, width = 50, 70
    x, y = int(generator.integers(10, width - 10)), int(generator.integers(10, height - 10))
    image = torch.zeros(1, height, width)
    image[0, y, x] = 1.0
    point = torch.tensor([[[x + 0.5, y + 0.5, 2.0]]])
    objects = Objects(torch.tensor([[x, y, x + 1.0, y + 1.0]]), torch.zeros(1, dtype=torch.int64), keypoints=point)
    sample = Sample(image, Target(objects=objects), "dot", (height, width))
    loose = Keep(min_visible=0.0, min_side=0.0)
    steps: list[Transform] = [
        FLIP,
        RandomQuarterTurn(),
        RandomAffine(180.0, 0.1, (1.0, 2.0), fill=0.0, keep=loose),
        RandomResizedCrop((60, 60), keep=loose),
        ScaleJitter((1.0, 2.0), (60, 60), fill=0.0, keep=loose),
        Elastic(4.0, fill=0.0, keep=loose),
    ]
    moved = steps[kind](sample, generator)
    if not len(objects_of(moved)):
        return
    got = objects_of(moved).keypoints[0, 0]
    if got[2] == 0:
        return
    weights = moved.image[0].double()
    ys, xs = torch.meshgrid(torch.arange(moved.size_hw[0]) + 0.5, torch.arange(moved.size_hw[1]) + 0.5, indexing="ij")
    margin = min(got[0], got[1], moved.size_hw[1] - got[0], moved.size_hw[0] - got[1])
    if margin < 4:
        return  # the dot's light is cut off
    centre = torch.stack([(weights * xs).sum(), (weights * ys).sum()]) / weights.sum()
    torch.testing.assert_close(centre.float(), got[:2], atol=0.35, rtol=0)


def test_keypoints_that_leave_the_picture_are_gone() -> None:
    points = torch.tensor([[[2.0, 2.0, 2], [6.0, 2.0, 1], [9.9, 2.0, 2], [3.0, 3.0, 0]]])
    objects = Objects(torch.tensor([[1.0, 1, 9, 5]]), torch.tensor([0]), keypoints=points)
    cut = crop(blank((8, 10), objects), (2, 2), (4, 4))
    assert objects_of(cut).keypoints.tolist() == [[[0, 0, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0]]]


def test_boxes_are_cut_and_slivers_dropped() -> None:
    sample = blank((10, 10), boxes([0, 0, 4, 4], [3, 3, 13, 4], [4, 4, 8, 8], [9, 9, 10, 10]))
    cut = crop(sample, (2, 2), (6, 6))
    assert objects_of(cut).labels.tolist() == [0, 1, 2]
    assert objects_of(cut).boxes_xyxy.tolist() == [[0, 0, 2, 2], [1, 1, 6, 2], [2, 2, 6, 6]]


@pytest.mark.parametrize(
    ("keep", "labels"),
    [
        (Keep(min_visible=0.0, min_side=0.0), [0, 1, 2, 3]),
        (Keep(min_visible=0.25, min_side=0.0), [0, 1, 2, 3]),  # exactly a quarter stays
        (Keep(min_visible=0.26, min_side=0.0), [1, 2, 3]),
        (Keep(min_visible=0.0, min_side=1.0), [0, 1, 2]),
        (Keep(min_visible=0.0, min_side=2.0), [0, 2]),  # a side of exactly 2 stays
        (Keep(min_visible=0.0, min_side=0.0, centre_inside=True), [1, 2, 3]),
    ],
)
def test_each_rule_of_keep_at_its_threshold(keep: Keep, labels: list[int]) -> None:
    rows = [0, 0, 4.002, 4], [5, 3, 7, 4], [2, 2, 8, 8], [5, 5, 5.5, 7]
    rows[0][2] = 4
    cut = crop(blank((10, 10), boxes(*rows)), (2, 2), (6, 6), keep)
    got = objects_of(cut).labels.tolist()
    # the first box keeps 2 x 2 of 4 x 4, its centre (2, 2) falls on the corner (0, 0), which is inside
    assert got == ([0, *labels] if keep.centre_inside else labels)


def test_boxes_without_area_stay_by_their_centre() -> None:
    sample = blank((10, 10), boxes([3, 3, 3, 5], [0, 3, 0, 5]))
    cut = crop(sample, (2, 2), (6, 6), Keep(min_visible=0.5, min_side=0.0))
    assert objects_of(cut).labels.tolist() == [0]
    assert objects_of(crop(sample, (2, 2), (6, 6))).labels.tolist() == []


def test_the_stricter_rule_wins_and_bad_rules_are_refused() -> None:
    assert Keep(0.3, 1.0).strictest(Keep(0.1, 5.0, True)) == Keep(0.3, 5.0, True)
    for bad in ({"min_visible": 1.5}, {"min_visible": -0.1}, {"min_side": -1.0}):
        with pytest.raises(UsageError, match="fraction"):
            Keep(**bad)


def test_cut_objects_with_masks_have_the_bounds_of_what_is_left() -> None:
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, 1:9, 1] = mask[0, 1, 1:9] = True  # an L lying on its side: the corner at (1, 1)
    objects = Objects(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0]), masks=mask, areas=torch.tensor([15.0]))
    sample = blank((10, 10), objects)
    cut = objects_of(crop(sample, (0, 4), (6, 10)))
    assert cut.boxes_xyxy.tolist() == [[1, 0, 2, 5]]
    assert cut.areas.tolist() == [5]
    gone = objects_of(crop(sample, (4, 4), (6, 6)))
    assert len(gone) == 0, "only the empty middle of its box was left"
    whole = objects_of(crop(sample, (0, 0), (10, 12)))
    assert whole.boxes_xyxy.tolist() == [[1, 1, 9, 9]]
    assert whole.areas.tolist() == [15]


def test_an_object_whose_mask_was_empty_all_along_stays() -> None:
    objects = Objects(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0]), masks=torch.zeros(1, 10, 10, dtype=torch.bool))
    cut = objects_of(crop(blank((10, 10), objects), (0, 4), (6, 10)))
    assert cut.boxes_xyxy.tolist() == [[1, 0, 9, 5]]


def test_proposals_move_as_boxes_do_and_keep_their_order() -> None:
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    inside, cut, gone = [4, 4, 10, 12], [8, 0, 24, 20], [30, 0, 40, 20]
    proposals = torch.tensor([gone, cut, inside], dtype=torch.float32)
    sample = Sample(image, Target(proposals_xyxy=proposals), "one", (20, 40))
    mirrored = FLIP(sample, rng()).target.proposals_xyxy
    assert mirrored.tolist() == [[0, 0, 10, 20], [16, 0, 32, 20], [30, 4, 36, 12]]
    assert crop(sample, (2, 2), (16, 18)).target.proposals_xyxy.tolist() == [[6, 0, 18, 16], [2, 2, 8, 10]]
    none = Sample(image, Target(proposals_xyxy=torch.zeros(0, 4)), "none", (20, 40))
    assert FLIP(none, rng()).target.proposals_xyxy.shape == (0, 4)
    with pytest.raises(RecordError, match=r"Target\.proposals_xyxy\[1\]"):
        Target(proposals_xyxy=torch.tensor([[0.0, 0, 1, 1], [3, 0, 2, 1]]))


def test_areas_scale_and_shrink_with_what_is_seen() -> None:
    objects = Objects(torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8]]), torch.arange(2), areas=torch.tensor([10.0, 12.0]))
    sample = blank((8, 8), objects)
    assert objects_of(Resize((16, 24))(sample, rng())).areas.tolist() == [60, 72]
    half = objects_of(crop(sample, (2, 0), (8, 8)))
    assert half.areas.tolist() == [5, 12]


def test_depth_keeps_its_metres_under_zoom() -> None:
    sample = discs()
    zoomed = Resize((96, 128))(sample, rng())
    assert torch.equal(zoomed.target.depth[::2, ::2], sample.target.depth)
    assert torch.equal(zoomed.target.normals[:, 1::2, 1::2], sample.target.normals)


def project(points: Tensor, sample: Sample) -> Tensor:
    """World points to pixels through the sample's camera; nothing here knows what a transform did."""
    camera = sample.target.camera
    assert camera is not None
    local = torch.linalg.inv(camera.pose.double()) @ torch.cat([points, torch.ones(len(points), 1)], 1).double().T
    seen = camera.intrinsics.double() @ local[:3]
    return (seen[:2] / seen[2]).T


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 6))
def test_the_new_camera_sees_the_world_in_the_new_picture(seed: int, kind: int) -> None:
    sample, generator = discs(), rng(seed)
    steps: list[Transform] = [
        FLIP,
        RandomVerticalFlip(1.0),
        RandomQuarterTurn(),
        RandomAffine(180.0, 0.2, (0.5, 2.0), 20.0),
        RandomResizedCrop((30, 40)),
        Resize((20, 90)),
        RandomCrop((30, 30), pad=5),
    ]
    world = torch.from_numpy(generator.uniform(-1, 1, (5, 3)) + np.array([0, 0, 4]))
    state = generator.bit_generator.state
    moved = steps[kind](sample, generator)
    generator.bit_generator.state = state
    warp = steps[kind].plan(sample.size_hw, generator)
    want = warp.points(project(world, sample).numpy())
    np.testing.assert_allclose(project(world, moved).numpy(), want, atol=2e-3)
    assert moved.target.camera is not None
    k = moved.target.camera.intrinsics
    assert k[0, 0] > 0
    assert k[1, 1] > 0
    assert k[1, 0] == k[2, 0] == k[2, 1] == 0
    if kind != 3:
        assert k[0, 1] == 0


def test_normals_turn_with_the_camera() -> None:
    sample = discs()
    n = sample.target.normals
    assert n is not None
    got = FLIP(sample, rng()).target.normals
    assert torch.equal(got, torch.stack([-n[0], n[1], n[2]]).flip(2))
    got = RandomVerticalFlip(1.0)(sample, rng()).target.normals
    assert torch.equal(got, torch.stack([n[0], -n[1], n[2]]).flip(1))
    no_camera = Sample(sample.image, Target(normals=n), "n", sample.size_hw)
    got = RandomQuarterTurn((1,))(no_camera, rng()).target.normals
    # counter-clockwise: what pointed right points up (minus y), what pointed down points right
    torch.testing.assert_close(got, torch.rot90(torch.stack([n[1], -n[0], n[2]]), 1, (1, 2)))
    turned = RandomAffine(40.0)(no_camera, rng()).target.normals
    lengths = turned.norm(dim=0)
    assert ((lengths - 1).abs() < 1e-5).logical_or(lengths == 0).all()


def corners_3d(box: Tensor) -> Tensor:
    """Eight corners; length along x before the turn by yaw about the downward y axis."""
    x, y, z, length, height, width, yaw = box.tolist()
    signs = torch.tensor([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]).double() / 2
    c, s = math.cos(yaw), math.sin(yaw)
    turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]]).double()
    return (signs * torch.tensor([length, height, width])) @ turn.T + torch.tensor([x, y, z])


@pytest.mark.parametrize(("flip", "axis"), [(FLIP, 0), (RandomVerticalFlip(1.0), 1)])
def test_3d_boxes_are_mirrored_whole(flip: Transform, axis: int) -> None:
    sample = discs()
    before, after = objects_of(sample).boxes_3d, objects_of(flip(sample, rng())).boxes_3d
    assert before is not None
    assert after is not None
    for a, b in zip(before, after, strict=True):
        want = corners_3d(a)
        want[:, axis] *= -1
        gaps = torch.cdist(want, corners_3d(b)).min(1).values
        assert gaps.max() < 1e-5, "the same eight corners"
    assert (after[:, 6].abs() <= math.pi + 1e-6).all()


def test_what_a_turned_picture_cannot_say_is_dropped() -> None:
    sample = discs()
    assert objects_of(RandomAffine(30.0)(sample, rng())).boxes_3d is None
    assert objects_of(RandomQuarterTurn((1,))(sample, rng())).boxes_3d is None
    assert objects_of(RandomQuarterTurn((2,))(sample, rng())).boxes_3d is not None
    assert objects_of(Resize((20, 30))(sample, rng())).boxes_3d is not None
    bent = Elastic(1.0)(sample, rng())
    assert bent.target.camera is None
    assert objects_of(bent).boxes_3d is None


@pytest.mark.parametrize(
    "step",
    [
        FLIP,
        Resize((5, 5)),
        RandomAffine(20.0),
        CenterCrop((3, 3)),
        ResizeShortSide(20),
        Elastic(1.0),
        RandomQuarterTurn((1,)),
    ],
    ids=repr,
)
def test_pictures_without_objects_and_without_annotation_pass(step: Transform) -> None:
    empty = discs(count=0)
    moved = step(empty, rng())
    assert len(objects_of(moved)) == 0
    assert objects_of(moved).masks.shape == (0, *moved.size_hw)
    assert moved.target.relations.shape == (0, 3)
    bare = Sample(empty.image, Target(), "bare", empty.size_hw)
    assert step(bare, rng()).target.objects is None
    unlabelled = blank((9, 9), Objects.empty())
    assert len(objects_of(step(unlabelled, rng()))) == 0


def test_all_objects_may_go() -> None:
    gone = crop(discs(), (60, 0), (2, 2), Keep(min_visible=1.0))
    assert len(objects_of(gone)) == 0
    assert gone.target.relations.shape == (0, 3)


def test_rows_stay_aligned_when_some_go() -> None:
    sample = discs(count=4, seed=3)
    before = objects_of(sample)
    for seed in range(20):
        cut = RandomCrop((24, 24))(sample, rng(seed))
        after = objects_of(cut)
        rows = [before.ids.tolist().index(i) for i in after.ids.tolist()]
        for name in ("labels", "crowd", "difficult", "attributes", "boxes_3d"):
            assert torch.equal(getattr(after, name), getattr(before, name)[rows]), name
        relations = sample.target.relations.tolist()
        want = [[rows.index(s), p, rows.index(o)] for s, p, o in relations if s in rows and o in rows]
        assert cut.target.relations.tolist() == want


def test_keep_all_keeps_what_has_any_pixel() -> None:
    sample = blank((10, 10), boxes([0, 0, 9.99, 9.99]))
    assert len(objects_of(crop(sample, (9, 9), (5, 5), KEEP_ALL))) == 1
    assert len(objects_of(crop(sample, (9, 9), (5, 5)))) == 0
    assert len(objects_of(crop(sample, (10, 10), (5, 5), KEEP_ALL))) == 0


def test_the_same_generator_gives_the_same_sample() -> None:
    step = RandomAffine(30.0, 0.1, (0.5, 2.0))
    assert same(step(discs(), rng(4)), step(discs(), rng(4)))
    assert not same(step(discs(), rng(4)), step(discs(), rng(5)))
