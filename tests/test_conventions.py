"""Every line of docs/conventions.md, pinned."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from bestiary import zoo
from bestiary.data.dataset import load
from bestiary.geometry.boxes import box_area
from bestiary.geometry.cameras import boxes_3d_corners, project
from bestiary.geometry.masks import encode_rle
from bestiary.losses.segmentation import pixel_cross_entropy
from bestiary.ops import box_convert
from bestiary.pictures.decode import read_image
from bestiary.pictures.encode import write_image
from bestiary.records import IGNORE_LABEL, Objects, Sample, Target
from bestiary.transforms.geometry import RandomHorizontalFlip


def picture(path: Path, size_hw: tuple[int, int] = (20, 30)) -> Path:
    write_image(path, torch.zeros(3, *size_hw, dtype=torch.uint8))
    return path


def test_an_image_is_rgb_channels_first_and_a_size_is_height_width(tmp_path: Path) -> None:
    bgr = np.zeros((20, 30, 3), np.uint8)
    bgr[0, 1] = (10, 20, 250)
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 20, 30)
    assert image.dtype == torch.uint8
    assert image[:, 0, 1].tolist() == [250, 20, 10]
    sample = Sample(image, Target(), "a.png", (20, 30))
    assert sample.size_hw == (20, 30)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "g.png"), np.arange(12, dtype=np.uint8).reshape(3, 4))
    image = read_image(tmp_path / "g.png")
    assert image.shape == (3, 3, 4)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_the_centre_of_the_first_pixel_is_a_half_and_boxes_reach_its_outer_corner() -> None:
    image = torch.zeros(3, 4, 10, dtype=torch.uint8)
    image[:, 0, 0] = 255
    objects = Objects(
        boxes_xyxy=torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
        labels=torch.tensor([0]),
        keypoints=torch.tensor([[[0.5, 0.5, 2.0]]]),
    )
    sample = Sample(image, Target(objects=objects), "a", (4, 10))
    flipped = RandomHorizontalFlip(1.0)(sample, np.random.default_rng(0))
    assert flipped.image[0, 0, 9] == 255
    assert flipped.target.objects is not None
    assert flipped.target.objects.boxes_xyxy.tolist() == [[9.0, 0.0, 10.0, 1.0]]
    assert flipped.target.objects.keypoints is not None
    assert flipped.target.objects.keypoints.tolist() == [[[9.5, 0.5, 2.0]]]


def test_a_boxs_width_is_x2_minus_x1() -> None:
    box = torch.tensor([[2.0, 3.0, 5.0, 7.5]])
    assert box_area(box).tolist() == [13.5]
    assert box_convert(box, "xyxy", "xywh").tolist() == [[2.0, 3.0, 3.0, 4.5]]


def test_voc_files_are_one_based_and_inclusive(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>20</ymax>"
    size = "<size><width>30</width><height>20</height><depth>3</depth></size>"
    (tmp_path / "a.xml").write_text(
        f"<annotation><filename>a.jpg</filename>{size}<object><name>cat</name><bndbox>{corners}</bndbox></object>"
        "</annotation>"
    )
    objects = load(tmp_path)[0].target.objects
    assert objects is not None
    assert objects.boxes_xyxy.tolist() == [[0.0, 0.0, 30.0, 20.0]], "the whole picture"


def test_coco_boxes_are_x_y_width_height_and_labels_follow_the_ids_from_zero(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    document = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 30, "height": 20}],
        "categories": [{"id": 9, "name": "late"}, {"id": 3, "name": "early"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [2, 3, 10, 5], "area": 50, "iscrowd": 0},
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    dataset = load(tmp_path)
    assert tuple(dataset.categories) == ("early", "late")
    assert tuple(dataset.category_ids or ()) == (3, 9)
    objects = dataset[0].target.objects
    assert objects is not None
    assert objects.boxes_xyxy.tolist() == [[2.0, 3.0, 12.0, 8.0]]
    assert objects.labels.tolist() == [1]


def test_yolo_boxes_are_centre_and_size_divided_by_the_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.2 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat]\n")
    objects = load(tmp_path, split="train")[0].target.objects
    assert objects is not None
    torch.testing.assert_close(objects.boxes_xyxy, torch.tensor([[12.0, 5.0, 18.0, 15.0]]))


def test_a_label_map_of_255_is_unknown_and_costs_nothing() -> None:
    assert IGNORE_LABEL == 255
    logits = torch.randn(1, 3, 2, 2)
    labels = torch.tensor([[[0, 255], [2, 255]]], dtype=torch.uint8)
    loss = pixel_cross_entropy(logits, labels)
    assert loss[labels == 255].eq(0).all()
    assert loss[labels != 255].gt(0).all()


def test_run_lengths_go_down_the_columns_and_start_with_zeros() -> None:
    mask = torch.tensor([[True, False], [True, True]])
    assert encode_rle(mask).counts.tolist() == [0, 2, 1, 1]


def test_a_camera_looks_along_z_with_x_right_and_y_down() -> None:
    intrinsics = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    points = torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0]])
    pixels = project(points, intrinsics)
    pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    assert pixels.tolist() == [[50.0, 40.0], [100.0, 40.0], [50.0, 90.0]]


def test_a_3d_box_is_length_height_width_and_yaw_turns_about_the_downward_axis() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 4.0, 2.0, 1.0, 0.0]])
    corners = boxes_3d_corners(box)[0]
    spans = corners.max(0).values - corners.min(0).values
    assert spans.tolist() == [4.0, 2.0, 1.0], "length along x, height along y, width along z at yaw 0"
    turned = boxes_3d_corners(torch.tensor([[0.0, 0.0, 10.0, 4.0, 2.0, 1.0, torch.pi / 2]]))[0]
    spans = turned.max(0).values - turned.min(0).values
    torch.testing.assert_close(spans, torch.tensor([1.0, 2.0, 4.0]))


def test_probabilities_come_after_the_softmax() -> None:
    model = zoo.build("resnet18_cifar", ["a", "b", "c"]).eval()
    prediction = model.predict(torch.zeros(3, 32, 32, dtype=torch.uint8))[0]
    assert abs(float(prediction.probs.sum()) - 1) < 1e-6
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_background_is_no_class_of_a_detector() -> None:
    with torch.device("meta"):
        detector = zoo.build("fasterrcnn_resnet18_fpn", ["a", "b"])
    assert detector.categories == ("a", "b")
    assert detector.state_dict()["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
