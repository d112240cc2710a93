import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bestiary.data.dataset import Dataset, load, load_splits, split_by_name
from bestiary.data.index import Defect, Index, RawObject, RawPicture, Where
from bestiary.data.truth import mend_box
from bestiary.errors import DataError, PictureError, UsageError
from bestiary.records import Objects, Target

HERE = Where("here")
NAN, INF = float("nan"), float("inf")


def picture(path: Path, width: int = 20, height: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (10, 20, 30)).save(path)
    return path


def index_of(root: Path, *objects: list[RawObject] | None, **fields: Any) -> Index:
    """An index of pictures 20 wide and 10 high, one for each list of objects."""
    pictures = []
    for i, found in enumerate(objects):
        path = picture(root / f"{i}.png")
        pictures.append(RawPicture(path, path.name, HERE, (10, 20), found))
    return Index(root, "test", ["cat", "dog"], {"all": pictures}, **fields)


def thing(category: str | None = "cat", box: Any = (1, 2, 5, 6), **fields: Any) -> RawObject:
    """An object whose whole numbers become floats, as readers make them."""
    if "polygons" in fields:
        fields["polygons"] = [[float(v) for v in ring] for ring in fields["polygons"]]
    if "keypoints" in fields:
        fields["keypoints"] = [float(v) for v in fields["keypoints"]]
    if box is not None:
        x1, y1, x2, y2 = (float(v) for v in box)
        return RawObject(category, HERE, (x1, y1, x2, y2), **fields)
    return RawObject(category, HERE, **fields)


def objects_of(target: Target) -> Objects:
    assert target.objects is not None
    return target.objects


@pytest.mark.parametrize(
    ("box", "size", "wanted"),
    [
        ((1, 2, 5, 6), (10, 20), (1, 2, 5, 6)),
        ((-3, -4, 5, 6), (10, 20), (0, 0, 5, 6)),
        ((15, 5, 25, 15), (10, 20), (15, 5, 20, 10)),
        ((-3, -4, 500, 600), (10, 20), (0, 0, 20, 10)),
        ((0, 0, 20, 10), (10, 20), (0, 0, 20, 10)),
        ((20, 0, 30, 5), (10, 20), None),
        ((-5, 0, 0, 5), (10, 20), None),
        ((5, 2, 1, 6), (10, 20), None),
        ((5, 2, 5, 6), (10, 20), None),
        ((NAN, 2, 5, 6), (10, 20), None),
        ((1, 2, INF, 6), (10, 20), None),
        ((-3, -4, 500, 600), None, (-3, -4, 500, 600)),
    ],
)
def test_mending_a_box(box: tuple[float, ...], size: tuple[int, int] | None, wanted: object) -> None:
    x1, y1, x2, y2 = (float(v) for v in box)
    assert mend_box((x1, y1, x2, y2), size) == wanted


def test_bad_objects_are_mended_and_counted(tmp_path: Path) -> None:
    bad = [
        thing(box=(-5, 0, 4, 4)),
        thing(box=(0, 0, 20, 10)),
        thing(box=(5, 5, 5, 9)),
        thing(box=(NAN, 0, 1, 1)),
        thing(category=None),
        thing(category="bird"),
        thing(box=None),
    ]
    data = Dataset(index_of(tmp_path, bad, []))
    objects = objects_of(data[0].target)
    assert objects.boxes_xyxy.tolist() == [[0, 0, 4, 4], [0, 0, 20, 10]]
    assert objects.ids is not None
    assert data.class_counts() == {"cat": 2, "dog": 0}
    assert data.notes == [
        "1 box mended: beyond the picture's border: run bestiary check",
        "3 boxes dropped: not finite, empty or outside the picture: run bestiary check",
        "2 objects of unknown category dropped: run bestiary check",
        "1 picture without objects kept",
    ]


def test_what_the_reader_met_is_noted(tmp_path: Path) -> None:
    error = Defect("bad-line", "error", Where("a.txt", 3), "'x'", "numbers", "Correct it")
    warning = Defect(
        "missing-labels", "warning", Where("b.txt"), "9 of 10 missing", "labels", "Move them", "taken as empty"
    )
    data = Dataset(index_of(tmp_path, [thing()], defects=[error, warning, error]))
    assert data.notes == [
        "b.txt: 9 of 10 missing, taken as empty",
        "2 errors met while reading (a.txt:3: got 'x', wanted numbers): run bestiary check",
    ]


def test_the_decoded_picture_judges_when_the_file_lies_about_its_size(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing(box=(0, 0, 90, 90))])
    index.splits["all"][0].size_hw = (100, 100)
    assert objects_of(Dataset(index)[0].target).boxes_xyxy.tolist() == [[0, 0, 20, 10]]


def test_negatives_are_kept_or_dropped(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing()], [], [thing(box=(0, 0, 0, 0))])
    kept = Dataset(index)
    assert [len(objects_of(kept[i].target)) for i in range(3)] == [1, 0, 0]
    dropped = Dataset(index, negatives="drop")
    assert dropped.names == ["0.png"]
    assert "2 pictures without objects left out, as asked" in dropped.notes
    with pytest.raises(DataError, match="no picture is left"):
        Dataset(index_of(tmp_path, []), negatives="drop")


def test_every_sample_has_the_same_fields(tmp_path: Path) -> None:
    data = Dataset(index_of(tmp_path, [thing(crowd=True, area=3.0)], [thing(difficult=True)], []))
    rows = {objects_of(data[i].target).row_names() for i in range(3)}
    assert rows == {("boxes_xyxy", "labels", "crowd", "difficult", "areas", "ids")}
    second = objects_of(data[1].target)
    assert second.areas is not None
    assert second.areas.tolist() == [16]  # no area of its own: that of the box


def test_unannotated_and_missing_pictures_are_left_out(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing()], None, [thing()])
    index.splits["all"][2].extra["missing"] = True
    data = Dataset(index)
    assert data.names == ["0.png"]
    assert len(data.notes) == 2


def test_a_broken_picture_is_an_error_when_asked_for(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing()], [thing()])
    (tmp_path / "1.png").write_bytes(b"nonsense")
    data = Dataset(index)
    assert data[0].name == "0.png"
    with pytest.raises(PictureError, match=r"1\.png"):
        data[1]
    assert [str(tmp_path / "1.png") in message for message in data.verify()] == [True]


def test_splits_join_and_unknown_ones_are_named(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing()], [thing()], [thing()])
    a, b, c = index.splits.pop("all")
    index.splits = {"train": [a], "val": [b], "test": [c]}
    assert Dataset(index, "train+val").names == ["0.png", "1.png"]
    assert Dataset(index, "val").split == "val"
    assert Dataset(index).split == "train+val+test"
    with pytest.raises(UsageError, match=r"got 'valid', wanted one of train \(1\), val \(1\), test \(1\)"):
        Dataset(index, "train+valid")


def test_fields(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing(keypoints=[1.0, 2, 2, 0, 0, 0], polygons=[[0.0, 0, 4, 0, 4, 4, 0, 4]])])
    data = Dataset(index)
    assert data.fields == {"boxes", "keypoints"}
    assert objects_of(data[0].target).masks is None
    masks = objects_of(Dataset(index, fields=["masks"])[0].target)
    assert masks.keypoints is None
    assert masks.masks is not None
    assert masks.masks[0].nonzero().tolist() == [[y, x] for y in range(4) for x in range(4)]
    assert Dataset(index, fields=[])[0].target.objects is None
    with pytest.raises(UsageError, match="'box'"):
        Dataset(index, fields=["box"])
    with pytest.raises(DataError, match="without depth; it has boxes, keypoints, masks"):
        Dataset(index, fields=["depth"])


def test_masks_of_every_kind_and_objects_without(tmp_path: Path) -> None:
    found = [
        thing(rle={"size": [10, 20], "counts": [10, 10, 180]}),  # the second column
        thing(polygons=[[2.0, 0, 6, 0, 6, 5, 2, 5]], box=None),
        thing("dog", mask_id=7),
        thing(),
    ]
    index = index_of(tmp_path, found)
    Image.fromarray(np.tile(np.arange(20, dtype=np.uint8), (10, 1))).save(tmp_path / "ids.tif")
    index.splits["all"][0].instance_map = tmp_path / "ids.tif"
    objects = objects_of(Dataset(index, fields=["masks", "boxes"])[0].target)
    assert objects.masks is not None
    assert len(objects) == 3  # the fourth has no mask
    assert objects.masks[0].any(0).nonzero().flatten().tolist() == [1]
    assert objects.boxes_xyxy[1].tolist() == [2, 0, 6, 5]
    assert objects.masks[2].any(0).nonzero().flatten().tolist() == [7]


def test_objects_dropped_for_want_of_a_mask_are_counted(tmp_path: Path) -> None:
    ring = [[2.0, 0, 6, 0, 6, 5, 2, 5]]
    first = [thing(polygons=ring), thing("dog"), thing("dog", mask_id=3), thing(box=(-5, 0, 4, 4)), thing(box=None)]
    index = index_of(tmp_path, first, [thing("dog")])
    data = Dataset(index, fields=["boxes", "masks"])
    assert [len(objects_of(data[i].target)) for i in range(2)] == [1, 0]
    assert data.class_counts() == {"cat": 1, "dog": 0}
    assert data.notes == [
        "4 objects without a mask dropped, because masks are asked for: run bestiary check",
        "1 box dropped: not finite, empty or outside the picture: run bestiary check",
        "1 picture without objects kept",
    ]
    assert Dataset(index, fields=["masks"], negatives="drop").names == ["0.png"]
    boxes = Dataset(index, fields=["boxes"])
    assert boxes.class_counts() == {"cat": 2, "dog": 3}
    assert [note.split(":")[0] for note in boxes.notes] == ["1 box mended", "1 box dropped"]


def test_objects_without_a_box_are_boxed_by_their_mask_or_joints_or_counted(tmp_path: Path) -> None:
    found = [thing(box=None, mask_id=7), thing(box=None, keypoints=[1, 2, 0]), thing(box=None, keypoints=[30, 30, 2])]
    index = index_of(tmp_path, [*found, thing(box=None, keypoints=[1, 2, 2, 4, 6, 1])])
    Image.fromarray(np.tile(np.arange(20, dtype=np.uint8), (10, 1))).save(tmp_path / "ids.tif")
    index.splits["all"][0].instance_map = tmp_path / "ids.tif"
    data = Dataset(index, fields=["boxes"])
    assert objects_of(data[0].target).boxes_xyxy.tolist() == [[7, 0, 8, 10], [1, 2, 4, 6]]
    assert data.class_counts()["cat"] == 2
    assert data.notes == ["2 boxes dropped: not finite, empty or outside the picture: run bestiary check"]


def test_sizes_that_nobody_claims_come_from_the_headers(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing(box=(-5, 0, 4, 4)), thing(box=(20, 0, 30, 5))], [thing(polygons=[[0] * 6])])
    for raw in index.splits["all"]:
        raw.size_hw = None
    data = Dataset(index)
    assert [note.split(":")[0] for note in data.notes] == ["1 box mended", "1 box dropped"]
    assert data.class_counts() == {"cat": 2, "dog": 0}
    assert data.index == index


def test_a_mask_of_another_size_names_its_annotation(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing(rle={"size": [5, 5], "counts": [0, 25]})])
    with pytest.raises(DataError, match=r"here.*\(5, 5\).*\(10, 20\)"):
        Dataset(index, fields=["masks"])[0]


def test_keypoints_are_padded_and_hidden_ones_are_zero(tmp_path: Path) -> None:
    found = [thing(keypoints=[1.0, 2, 2, 8, 9, 0, NAN, 1, 2]), thing(), thing(keypoints=[3.0, 3, 1], box=None)]
    index = index_of(tmp_path, found, joint_names=["a", "b", "c"])
    objects = objects_of(Dataset(index)[0].target)
    assert objects.keypoints is not None
    assert objects.keypoints.tolist() == [[[1, 2, 2], [0, 0, 0], [0, 0, 0]], [[0, 0, 0]] * 3]


def test_label_maps_go_through_their_table(tmp_path: Path) -> None:
    index = index_of(tmp_path, None)
    stored = np.resize(np.array([0, 1, 2, 9], np.uint8), (10, 20))
    Image.fromarray(stored).save(tmp_path / "map.png")
    index.splits["all"][0].label_map = tmp_path / "map.png"
    index.splits["all"][0].extra["label_values"] = {0: 0, 2: 1}
    data = Dataset(index)
    target = data[0].target
    assert target.label_map is not None
    assert target.label_map[0, :4].tolist() == [0, 255, 1, 255]
    turned = data.with_categories(["bird", "dog", "cat"])[0].target
    assert turned.label_map is not None
    assert turned.label_map[0, :4].tolist() == [2, 255, 1, 255]
    with pytest.raises(DataError, match="'cat'"):
        data.with_categories(["dog"])


def test_a_map_of_another_size_names_the_picture(tmp_path: Path) -> None:
    index = index_of(tmp_path, None)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "map.png")
    index.splits["all"][0].label_map = tmp_path / "map.png"
    with pytest.raises(DataError, match=r"0\.png.*label_map.*\(3, 3\)"):
        Dataset(index)[0]


def test_categories_by_name(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing("cat"), thing("dog")], category_ids=[3, 90])
    data = Dataset(index)
    other = data.with_categories(["dog", "bird", "cat"])
    assert objects_of(data[0].target).labels.tolist() == [0, 1]
    assert objects_of(other[0].target).labels.tolist() == [2, 0]
    assert other.category_ids == (90, 91, 3)
    assert other.class_counts() == {"dog": 1, "bird": 0, "cat": 1}
    assert data.categories == ("cat", "dog")
    with pytest.raises(DataError, match=r"Data: cat, dog\. Wanted: Dogs, cat.*'dog' is nearest to 'Dogs'"):
        data.with_categories(["Dogs", "cat"])
    unused = Dataset(index_of(tmp_path, [thing("cat")])).with_categories(["cat"])  # dog is named but never occurs
    assert unused.categories == ("cat",)


def test_subset_and_balanced_sampling(tmp_path: Path) -> None:
    data = Dataset(index_of(tmp_path, [thing("dog"), thing("dog")], [thing("cat"), thing("dog")], []))
    assert data.labels_per_picture() == [[1], [0, 1], []]
    part = data.subset([2, -3])
    assert part.names == ["2.png", "0.png"]
    assert part.class_counts() == {"cat": 0, "dog": 2}
    assert part.subset([1]).names == ["0.png"]
    assert len(data) == 3
    with pytest.raises(UsageError, match="below 3"):
        data.subset([3])
    with pytest.raises(IndexError):
        data[3]
    assert data[-1].name == "2.png"


def test_pickles_small_and_whole(tmp_path: Path) -> None:
    data = Dataset(index_of(tmp_path, *[[thing()] * 5 for _ in range(4)]), fields=["boxes"])
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(objects_of(again[2].target).boxes_xyxy, objects_of(data[2].target).boxes_xyxy)
    assert again.names == data.names
    assert again.index.splits["all"][0].objects == data.index.splits["all"][0].objects


def test_the_index_comes_back_whole(tmp_path: Path) -> None:
    index = index_of(tmp_path, [thing(extra={"pose": "Left"}, crowd=True)], [], joint_names=["a"], joint_pairs=[(0, 0)])
    assert Dataset(index).index == index


def test_workers_give_the_same_samples(tmp_path: Path) -> None:
    data = Dataset(index_of(tmp_path, [thing()], [], [thing("dog")]))
    rows: Any = data
    loader = torch.utils.data.DataLoader(rows, batch_size=None, num_workers=1)
    assert [(s.name, len(objects_of(s.target))) for s in loader] == [("0.png", 1), ("1.png", 0), ("2.png", 1)]


def test_own_splits_or_a_division_by_name(tmp_path: Path) -> None:
    for i in range(50):
        picture(tmp_path / "cat" / f"{i}.png")
    splits = load_splits(tmp_path)
    assert list(splits) == ["train", "val"]
    train, val = set(splits["train"].names), set(splits["val"].names)
    assert not train & val
    assert len(train | val) == 50
    assert 4 <= len(val) <= 18
    assert any("set aside for validation by name (seed 0)" in n for n in splits["val"].notes)
    assert set(load_splits(tmp_path)["val"].names) == val
    assert set(load_splits(tmp_path, seed=1)["val"].names) != val
    picture(tmp_path / "cat" / "new.png")
    assert set(load_splits(tmp_path)["val"].names) - {"cat/new.png"} == val
    with pytest.raises(UsageError, match="fraction"):
        load_splits(tmp_path, val_fraction=1.0)


def test_a_division_never_leaves_a_part_empty(tmp_path: Path) -> None:
    for fraction in (1e-9, 1 - 1e-9):
        train, val = split_by_name(Dataset(index_of(tmp_path, [], [])), fraction)
        assert (len(train), len(val)) == (1, 1)
    with pytest.raises(DataError, match="one picture"):
        split_by_name(Dataset(index_of(tmp_path, [])), 0.5)


def test_load_says_what_it_took_and_counts_in_the_models_order(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "dog" / "b.png")
    data = load(tmp_path, categories=["dog", "cat"])
    assert data.notes[0] == "read as folders: 2 folders of pictures"
    assert [data[i].target.label for i in range(2)] == [1, 0]
    assert data[0].image[:, 0, 0].tolist() == [10, 20, 30]


def test_exif_turns_picture_and_truth_alike(tmp_path: Path) -> None:
    """The annotator saw the upright picture: 10 wide and 20 high, although 20x10 is stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 10}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 12, 5, 7]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    sample = load(tmp_path)[0]
    assert sample.size_hw == (20, 10)
    assert objects_of(sample.target).boxes_xyxy.tolist() == [[2, 12, 7, 19]]


def test_real_instances_have_the_masks_of_their_files(real_data: Path) -> None:
    data = load(real_data / "pennfudan", fields=["boxes", "masks"])
    sample = data[0]
    objects = objects_of(sample.target)
    assert objects.masks is not None
    stored = np.asarray(Image.open(real_data / "pennfudan/masks/FudanPed00001_mask.png"))
    for mask, number in zip(objects.masks, (1, 2), strict=True):
        assert np.array_equal(mask.numpy(), stored == number)


def test_panoptic_label_map_and_coco_masks_agree_with_pycocotools(real_data: Path) -> None:
    from pycocotools import mask as oracle

    panoptic = load(real_data / "coco_panoptic")
    target = panoptic[0].target
    assert target.label_map is not None
    detections = load(real_data / "coco_panoptic", format="coco", fields=["boxes", "masks"])
    raw = json.loads((real_data / "coco_panoptic/panoptic_coco_detection_format.json").read_text())
    sample = detections[0]
    objects = objects_of(sample.target)
    assert objects.masks is not None
    number = detections.raw(0).extra["id"]
    wanted = [a for a in raw["annotations"] if a["image_id"] == number]
    assert len(wanted) == len(objects)
    for mask, label, annotation in zip(objects.masks, objects.labels.tolist(), wanted, strict=True):
        assert np.array_equal(mask.numpy(), oracle.decode(annotation["segmentation"]).astype(bool))
        assert (target.label_map[mask] == label).all()


def test_camvid_ignores_void(real_data: Path) -> None:
    data = load(real_data / "camvid", "val")
    assert len(data) == 101
    target = data[0].target
    assert target.label_map is not None
    stored = np.asarray(Image.open(real_data / "camvid/labels/val" / Path(data[0].name).with_suffix(".png").name))
    assert np.array_equal(target.label_map.numpy() == 255, stored == 11)
    assert int(target.label_map[target.label_map != 255].max()) <= 10


def test_bccd_splits(real_data: Path) -> None:
    splits = load_splits(real_data / "bccd")
    assert {k: len(v) for k, v in splits.items()} == {"train": 205, "val": 87, "test": 72}
    counts = [data.class_counts() for data in splits.values()]
    assert {n: sum(c[n] for c in counts) for n in counts[0]} == {"Platelets": 361, "RBC": 4155, "WBC": 372}
    assert splits["train"].layout.offered == {"boxes"}
