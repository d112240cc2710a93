"""Relations, captions and clips of the world; and that nothing but shape tells what a thing is."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression

from bestiary.data.world import ATTRIBUTE_NAMES, CATEGORIES, PREDICATES, World
from bestiary.data.world.relations import relations
from bestiary.geometry import cameras
from bestiary.records import Sample

STATIC = tuple(c for c in CATEGORIES if c not in ("beast", "walker"))


def expected_relations(sample: Sample) -> set[tuple[int, str, int]]:
    """All but "on" and "under", from the corners of the 3D boxes."""
    boxes = sample.target.objects.boxes_3d.double()
    corners, volumes = cameras.boxes_3d_corners(boxes), boxes[:, 3:6].prod(1)
    found = set()
    for a in range(len(boxes)):
        for b in range(len(boxes)):
            if a == b:
                continue
            for axis, before, after in ((0, "left of", "right of"), (2, "in front of", "behind")):
                if corners[a, :, axis].max() < corners[b, :, axis].min():
                    found |= {(a, before, b), (b, after, a)}
            if volumes[a] >= 1.5 * volumes[b]:
                found |= {(a, "larger than", b), (b, "smaller than", a)}
    return found


def test_relations_are_true_of_the_3d_boxes() -> None:
    world = World(30, seed=21, size_hw=(64, 64))
    told = 0
    for i in range(len(world)):
        sample = world[i]
        rows = [(a, PREDICATES[p], b) for a, p, b in sample.target.relations.tolist()]
        assert len(set(rows)) == len(rows)
        assert {row for row in rows if row[1] not in ("on", "under")} == expected_relations(sample)
        resting = {(a, b) for a, p, b in rows if p == "on"}
        assert resting == {(b, a) for a, p, b in rows if p == "under"}
        boxes = sample.target.objects.boxes_3d
        for a, b in resting:
            assert float((boxes[a, [0, 2]] - boxes[b, [0, 2]]).abs().max()) < 1e-4
        told += len(rows)
    assert told > 100


def test_relations_of_hand_worked_boxes() -> None:
    boxes = np.array(
        [[0.0, 0, 5, 2, 1, 1, 0], [3, 0, 5, 1, 1, 1, 0], [0, -1, 5, 1, 1, 1, np.pi / 2], [0, 0, 9, 2, 1, 1, 0]]
    )
    rows = {(a, PREDICATES[p], b) for a, p, b in relations(boxes, [None, None, 0, None]).tolist()}
    assert {(0, "left of", 1), (1, "right of", 0), (2, "on", 0), (0, "under", 2), (0, "in front of", 3)} <= rows
    assert (0, "larger than", 1) in rows
    assert not any(p in ("left of", "right of", "in front of", "behind") and {a, b} == {0, 2} for a, p, b in rows)
    assert relations(np.zeros((0, 7)), []).shape == (0, 3)
    # Boxes that just touch neither stand left nor right of each other.
    touching = np.array([[0.0, 0, 5, 2, 1, 1, 0], [2, 0, 5, 2, 1, 1, 0]])
    assert len(relations(touching, [None, None])) == 0


def test_captions_name_the_largest_thing_and_count_the_rest() -> None:
    world = World(40, seed=22, size_hw=(64, 64))
    for i in range(len(world)):
        target = world[i].target
        objects, words = target.objects, target.caption
        assert words.endswith(("outdoors.", "in a room."))
        assert words[0].isupper()
        if not len(objects):
            assert words.startswith("Nothing is seen")
            continue
        largest = int(objects.areas.argmax())
        names = [ATTRIBUTE_NAMES[k] for k in objects.attributes[largest].nonzero().flatten().tolist()]
        colour, texture, size = names[:3]
        pattern = "" if texture == "plain" else f"{texture} "
        phrase = f"{size} {colour} {pattern}{CATEGORIES[objects.labels[largest]]}"
        assert phrase in words.lower()
        told = 1 + any(f" {p} " in words for p in PREDICATES[:6])
        rest = len(objects) - told
        assert ("more thing" in words) == (rest > 0)
        assert rest != 1 or "one more thing," in words


def test_clips_show_one_scene_by_a_camera_that_moves_smoothly() -> None:
    world = World(15, seed=23, size_hw=(48, 64), frames=6, empty=0.0)
    assert world.clips == 3
    assert [len(world.clip(i)) for i in range(3)] == [6, 6, 3]
    for number in range(3):
        clip = world.clip(number)
        poses = torch.stack([s.target.camera.pose for s in clip]).double()
        steps = cameras.relative_pose(poses[:-1], poses[1:])
        assert (steps[:, :3, 3].norm(dim=1) > 1e-4).all()
        assert steps[:, :3, 3].norm(dim=1).max() < 0.4
        angles = torch.atan2(steps[:, 0, 2], steps[:, 0, 0])
        assert angles.abs().max() < 0.06
        assert (steps[1:, :3, 3] - steps[:-1, :3, 3]).norm(dim=1).max() < 0.05
        kinds = [dict(zip(s.target.objects.ids.tolist(), s.target.objects.labels.tolist(), strict=True)) for s in clip]
        sizes = [
            dict(zip(s.target.objects.ids.tolist(), s.target.objects.attributes.tolist(), strict=True)) for s in clip
        ]
        for earlier, later in itertools.pairwise(kinds):
            assert all(later[k] == earlier[k] for k in earlier.keys() & later.keys())
        assert all(sizes[0][k] == sizes[-1][k] for k in sizes[0].keys() & sizes[-1].keys())


def test_walkers_walk_along_their_heading_and_solids_stay() -> None:
    world = World(80, seed=24, size_hw=(64, 64), frames=8, empty=0.0)
    moved = stayed = 0
    for number in range(world.clips):
        first, last = (s.target for s in (world.clip(number)[0], world.clip(number)[-1]))
        places = [cameras.move_points(t.objects.boxes_3d[:, :3], t.camera.pose) for t in (first, last)]
        for a, k in enumerate(first.objects.ids.tolist()):
            match = (last.objects.ids == k).nonzero().flatten().tolist()
            if not match:
                continue
            step = places[1][match[0]] - places[0][a]
            if CATEGORIES[first.objects.labels[a]] in STATIC:
                assert float(step.norm()) < 1e-4
                stayed += 1
            elif float(step.norm()) > 0.05:
                heading = cameras.yaw_rotation(first.objects.boxes_3d[a, 6]) @ torch.tensor([1.0, 0, 0])
                heading = first.camera.pose[:3, :3] @ heading
                assert float((step * torch.tensor([1.0, 0, 1.0])) @ heading / step.norm()) > 0.9
                moved += 1
    assert moved >= 3
    assert stayed >= 10


def warp_errors(world: World, number: int) -> tuple[float, float]:
    """Mean difference (0..1) of a frame from the next, brought into place by depth and motion, and left as it is."""
    here, there = world.clip(number)[:2]
    motion = cameras.relative_pose(here.target.camera.pose, there.target.camera.pose)
    at_xy, depth = cameras.reproject(here.target.depth, here.target.camera.intrinsics, motion)
    height, width = here.size_hw
    places = (at_xy / torch.tensor([width / 2, height / 2]) - 1)[None]

    def sample(picture: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grid_sample(picture[None], places, align_corners=False)[0]

    other, truth = there.image.float() / 255, here.image.float() / 255
    other_depth = sample(there.target.depth[None])[0]
    seen = (places[0].abs() < 0.98).all(-1) & ((other_depth - depth).abs() < 0.03 * depth)
    assert seen.double().mean() > 0.6
    warped = (sample(other) - truth).abs().mean(0)[seen].mean()
    return float(warped), float((other - truth).abs().mean(0)[seen].mean())


def test_depth_and_motion_bring_the_next_frame_into_place() -> None:
    world = World(24, seed=25, size_hw=(96, 96), frames=3, only=STATIC, empty=0.0)
    errors = np.array([warp_errors(world, number) for number in range(world.clips)])
    assert np.median(errors[:, 0]) < 0.02
    assert np.median(errors[:, 0] / errors[:, 1]) < 0.6


def test_colours_patterns_and_sizes_say_nothing_about_the_category() -> None:
    world = World(700, seed=26, size_hw=(32, 32))
    objects = [world[i].target.objects for i in range(len(world))]
    labels = torch.cat([o.labels for o in objects]).numpy()
    attributes = torch.cat([o.attributes for o in objects]).numpy()
    assert len(labels) > 1500
    counts = np.bincount(labels, minlength=len(CATEGORIES))
    assert counts.min() > 0.6 * counts.mean()
    for start, stop in ((0, 10), (10, 15), (18, 20)):
        group = attributes[:, start:stop].argmax(1)
        table = np.zeros((len(CATEGORIES), stop - start))
        np.add.at(table, (labels, group), 1)
        assert chi2_contingency(table).pvalue > 1e-3


def test_a_linear_model_of_the_pixels_does_hardly_better_than_guessing() -> None:
    sets = []
    for split, count in (("train", 1200), ("test", 500)):
        world = World(count, seed=27, size_hw=(32, 32), split=split, empty=0.0)
        samples = [world[i] for i in range(count)]
        samples = [s for s in samples if s.target.label is not None]
        pixels = np.stack([s.image.numpy().ravel() for s in samples]) / 255 - 0.5
        sets.append((pixels, np.array([s.target.label for s in samples])))
    (train, labels), (test, truth) = sets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=0.1, max_iter=40).fit(train, labels)
    majority = (truth == np.bincount(labels).argmax()).mean()
    assert majority < 0.25
    assert model.score(train, labels) > 2 * majority  # it did learn its own pictures
    assert model.score(test, truth) < 1.5 * max(majority, 1 / len(CATEGORIES))


@pytest.mark.parametrize("size_hw", [(16, 16), (33, 50), (128, 128), (200, 120)])
def test_any_size_is_drawn_with_all_annotations(size_hw: tuple[int, int]) -> None:
    sample = World(1, seed=1, size_hw=size_hw)[0]
    assert sample.image.shape == (3, *size_hw)
    assert sample.original_size_hw == size_hw
    target = sample.target
    assert target.depth.shape == target.label_map.shape == size_hw
    assert target.normals.shape == (3, *size_hw)
    assert target.caption
    assert sample.image.float().std() > 5
