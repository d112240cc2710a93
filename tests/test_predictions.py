"""What predictions turn into: plain JSON and COCO's results, masks and joints with them."""

import json

import numpy as np
import torch
from pycocotools import mask as reference

from bestiary.predictions import Detections, Segmentation


def two_people() -> Detections:
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 1:4, 2:5] = True
    return Detections(
        torch.tensor([[2.0, 1.0, 5.0, 4.0], [0.1234567, 0.0, 8.0, 6.0]]),
        torch.tensor([0, 3]),
        torch.tensor([0.75, 0.1234567]),
        masks=masks,
        keypoints=torch.tensor([[[2.5, 1.25, 0.5], [4.0, 3.0, 1.0]], [[0.0, 0.0, 0.0], [7.0, 5.0, 0.1234567]]]),
        size_hw=(6, 8),
        categories=("person", "dog"),
        name="a.png",
    )


def test_plain_json_holds_all_that_was_found() -> None:
    document = json.loads(json.dumps(two_people().to_dict()))
    first, second = document["objects"]
    assert (document["name"], document["size_hw"]) == ("a.png", [6, 8])
    assert first["keypoints"] == [[2.5, 1.25, 0.5], [4, 3, 1]]
    assert (second["category"], second["label"]) == ("3", 3), "a label without a name is its number"
    assert (second["score"], second["box_xyxy"]) == (0.123457, [0.123, 0, 8, 6])
    assert second["keypoints"][1] == [7, 5, 0.123457]
    decoded = [reference.decode(entry["mask_rle"]) for entry in (first, second)]
    np.testing.assert_array_equal(np.stack(decoded).astype(bool), two_people().masks)


def test_what_was_not_predicted_is_not_written() -> None:
    found = two_people()
    bare = Detections(found.boxes_xyxy, found.labels, found.scores, size_hw=(6, 8))
    assert set(bare.to_dict()["objects"][0]) == {"category", "label", "score", "box_xyxy"}
    assert set(bare.to_coco()[0]) == {"image_id", "category_id", "bbox", "score"}
    assert found[:0].to_dict()["objects"] == found[:0].to_coco() == []


def test_coco_results_are_the_reference_tools() -> None:
    first, second = two_people().to_coco(7, (10, 20, 30, 40))
    assert (first["image_id"], first["category_id"], second["category_id"]) == (7, 10, 40)
    assert first["bbox"] == [2, 1, 3, 3]
    assert first["keypoints"] == [2.5, 1.25, 0.5, 4, 3, 1]
    assert reference.area(first["segmentation"]) == 9
    assert reference.area(second["segmentation"]) == 0
    labels = torch.zeros(6, 8, dtype=torch.uint8)
    labels[2:, 1:] = 2
    stuff = Segmentation(labels, (6, 8)).to_coco(7)
    assert [(entry["category_id"], int(reference.area(entry["segmentation"]))) for entry in stuff] == [(1, 20), (3, 28)]
