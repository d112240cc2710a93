"""The sets with geometry: poses, depth, stereo, views, KITTI, people, meshes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bestiary.data.dataset import load
from bestiary.data.opening import open_index
from bestiary.data.readers.kitti import read_points
from bestiary.data.readers.meshes import read_meshes, read_off
from bestiary.data.readers.stereo import read_disparity
from bestiary.errors import DataError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)


def test_poses(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    joints = [[1, 2, 1], [5, 3, 1], [-9, -9, 0]]
    entries = [
        {"file": "a.png", "joints": joints},
        {"file": "a.png", "joints": joints[:2]},
        {"file": "gone.png", "joints": joints},
    ]
    entries += [{"file": "a.png", "joints": [[0, 0, 0]] * 3}, {"file": "../../x.png", "joints": joints}]
    content = {"joint_names": ["left_eye", "right_eye", "nose"], "images": entries}
    (tmp_path / "joints.json").write_text(json.dumps(content))
    index = open_index(tmp_path)
    assert index.joint_pairs == [(0, 1)]
    person = (index.splits["all"][0].objects or [])[0]
    assert person.keypoints == [1, 2, 2, 5, 3, 2, 0, 0, 0]
    assert person.box_xyxy == (1, 2, 5, 3)
    assert [d.rule for d in index.defects] == ["bad-keypoints", "missing-picture", "no-joints", "path-outside"]


def test_lspet(real_data: Path) -> None:
    data = load(real_data / "lspet")
    assert len(data) == 800
    assert data.joint_names is not None
    assert len(data.joint_names) == 14
    assert data.joint_pairs is not None
    pairs = {(data.joint_names[a], data.joint_names[b]) for a, b in data.joint_pairs}
    assert len(pairs) == 6
    assert ("left_ankle", "right_ankle") in pairs
    raw = json.loads((real_data / "lspet/joints.json").read_text())
    objects = data[3].target.objects
    assert objects is not None
    assert objects.keypoints is not None
    wanted = np.array(raw["images"][3]["joints"])
    seen = wanted[:, 2] == 1
    assert np.allclose(objects.keypoints[0, seen, :2], wanted[seen, :2], atol=1e-3)
    assert objects.keypoints[0, :, 2].tolist() == (2 * wanted[:, 2]).tolist()


def test_sevenscenes_depth_and_camera(real_data: Path) -> None:
    data = load(real_data / "sevenscenes")
    assert len(data) == 110
    target = data[0].target
    assert target.depth is not None
    assert target.camera is not None
    raw = np.asarray(Image.open(real_data / "sevenscenes/frame-000000.depth.png"))
    known = (raw != 0) & (raw != 65535)
    assert np.allclose(target.depth.numpy()[known], raw[known] / 1000)
    assert not target.depth.numpy()[~known].any()
    assert target.camera.intrinsics[0].tolist() == [585, 0, 320]
    rotation = target.camera.pose[:3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-3)


def test_depth_that_is_missing_or_pose_that_is_broken(tmp_path: Path) -> None:
    for i in (0, 1):
        picture(tmp_path / f"frame-{i}.color.png")
    Image.fromarray(np.full((4, 6), 2000, np.uint16)).save(tmp_path / "frame-0.depth.png")
    (tmp_path / "frame-0.pose.txt").write_text("1 0 0")
    index = open_index(tmp_path)
    assert index.format == "rgbd"
    assert [(d.rule, d.where.file) for d in index.defects] == [
        ("bad-matrix", "frame-0.pose.txt"),
        ("missing-map", "frame-1.color.png"),
    ]
    assert load(tmp_path).notes[-1] == "1 picture left out: not annotated: run bestiary check"


def test_graffiti(real_data: Path) -> None:
    index = open_index(real_data / "graffiti")
    views = index.splits["all"]
    assert [p.name for p in views] == [f"img{i}.png" for i in range(1, 7)]
    assert views[0].extra["homography"] == np.eye(3).tolist()
    assert views[1].extra["homography"][2][2] == 1
    assert np.allclose(views[1].extra["homography"][0], [0.87976964, 0.31245438, -39.430589])


def test_middlebury(real_data: Path) -> None:
    views = open_index(real_data / "middlebury").splits["all"]
    assert [(p.name, p.extra["view"]) for p in views] == [
        ("cones/im2.png", "left"),
        ("cones/im6.png", "right"),
        ("teddy/im2.png", "left"),
        ("teddy/im6.png", "right"),
    ]
    for p in views:
        disparity = read_disparity(p)
        assert disparity.shape == (375, 450)
        known = disparity[~disparity.isnan()]
        assert 0 < known.min() < known.max() < 64


def corners(box_3d: np.ndarray) -> np.ndarray:
    x, y, z, length, height, width, yaw = box_3d
    signs = np.array([[a, b, c] for a in (-0.5, 0.5) for b in (-0.5, 0.5) for c in (-0.5, 0.5)])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return signs * [length, height, width] @ turn.T + [x, y, z]


def test_kitti_boxes_project_onto_their_boxes(real_data: Path) -> None:
    data = load(real_data / "kitti3d")
    assert (len(data), data.split, data.class_counts()["Car"]) == (3, "train", 2)
    for i in range(3):
        target = data[i].target
        assert target.objects is not None
        assert target.objects.boxes_3d is not None
        assert target.camera is not None
        for box, box_3d in zip(target.objects.boxes_xyxy, target.objects.boxes_3d, strict=True):
            pixels = corners(box_3d.double().numpy()) @ target.camera.intrinsics.double().numpy().T
            pixels = pixels[:, :2] / pixels[:, 2:]
            around = np.concatenate([pixels.min(0), pixels.max(0)])
            assert (
                np.abs(around - box.numpy()).max() < 10
            )  # the annotators' boxes; a camera's offset alone moves cars by 5
            assert np.median(np.abs(around - box.numpy())) < 2
        points = read_points(data.raw(i))
        assert points.shape[0] > 10_000
        assert points[:, 3].max() <= 1
    assert len(data.raw(1).extra["ignore_boxes"]) == 4


def test_kitti_bad_lines(tmp_path: Path) -> None:
    picture(tmp_path / "training/image_2/0.png")
    for name, text in (("label_2", "Car 0 0 0 1 1 2 2\nCar 0 0 0 1 1 x 2 1 1 1 0 0 9 0\n"), ("calib", "P2: 1 2 3\n\n")):
        (tmp_path / "training" / name).mkdir()
        (tmp_path / "training" / name / "0.txt").write_text(text)
    index = open_index(tmp_path)
    assert [(d.rule, d.where.line) for d in index.defects] == [
        ("bad-matrix", 1),
        ("missing-calibration", None),
        ("bad-line", 1),
        ("bad-line", 2),
    ]
    with pytest.raises(DataError, match="velodyne"):
        read_points(index.splits["train"][0])


def test_people_by_their_file_names(tmp_path: Path, real_data: Path) -> None:
    for name in (
        "bbox_train/0001/0001C2T0003F004.jpg",
        "bbox_test/0002_c1s1_000451_03.jpg",
        "bbox_test/-1_c1s1_1_1.jpg",
        "bbox_test/x.jpg",
    ):
        picture(tmp_path / name)
    index = open_index(tmp_path)
    assert index.categories == ["0001", "0002"]
    assert index.splits["train"][0].extra == {"camera": 2, "tracklet": 3, "frame": 4}
    assert index.splits["test"][0].extra == {"camera": 1, "tracklet": 1, "frame": 451}
    assert [(d.rule, d.got) for d in index.defects] == [("bad-name", "x.jpg")]
    mars = open_index(real_data / "reid_mars")
    assert {k: len(v) for k, v in mars.splits.items()} == {
        "train": len(list((real_data / "reid_mars/bbox_train").rglob("*.jpg"))),
        "test": len(list((real_data / "reid_mars/bbox_test").rglob("*.jpg"))),
    }
    assert {p.extra["camera"] for split in mars.splits.values() for p in split} == {1, 2, 3, 4, 5, 6}
    assert mars.defects == []


SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"


@pytest.mark.parametrize("head", ["OFF\n4 2 0\n", "OFF4 2 0\n", "OFF # a comment\n4 2 0\n"])
def test_off_triangles(tmp_path: Path, head: str) -> None:
    (tmp_path / "a.off").write_text(head + SQUARE + "3 0 1 2\n3 0 2 3\n")
    mesh = read_off(tmp_path / "a.off")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_off_polygons_become_fans(tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text("OFF\n4 1 0\n" + SQUARE + "4 0 1 2 3\n")
    assert read_off(tmp_path / "a.off").faces.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PLY\n",
        "OFF\n4 1 0\n0 0 0\n",
        "OFF\n4 1 0\n" + SQUARE + "3 0 1\n",
        "OFF\n4 1 0\n" + SQUARE + "3 0 1 4\n",
        "OFF\nx",
    ],
)
def test_broken_off(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(DataError, match=r"a\.off"):
        read_off(tmp_path / "a.off")


def test_modelnet(real_data: Path) -> None:
    found = read_meshes(real_data / "modelnet_bathtubs")
    assert len(found) == 5
    assert {f.label for f in found} == {"bathtub"}
    assert {f.split for f in found} == {"train"}
    for file in found:
        mesh = read_off(file.path)
        assert len(mesh.vertices) > 100
        assert int(mesh.faces.max()) < len(mesh.vertices)
    with pytest.raises(DataError, match="read_meshes"):
        open_index(real_data / "modelnet_bathtubs")
