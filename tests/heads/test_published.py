"""The published names, at the places their files have them."""

from bestiary.heads.published import COCO_80, COCO_90, NO_CATEGORY, VOC_20, imagenet_categories


def test_cocos_ids_have_their_names_and_their_gaps() -> None:
    assert len(COCO_90) == 90
    assert [i + 1 for i, name in enumerate(COCO_90) if name == NO_CATEGORY] == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    known = {1: "person", 13: "stop sign", 44: "bottle", 67: "dining table", 70: "toilet", 90: "toothbrush"}
    assert {i: COCO_90[i - 1] for i in known} == known


def test_coco_without_gaps() -> None:
    assert len(COCO_80) == len(set(COCO_80)) == 80
    assert (COCO_80[0], COCO_80[79]) == ("person", "toothbrush")


def test_voc_is_alphabetical() -> None:
    assert len(VOC_20) == 20
    assert list(VOC_20) == sorted(VOC_20)


def test_imagenet_is_in_the_order_of_its_outputs() -> None:
    names = imagenet_categories()
    assert len(names) == 1000
    assert (names[0], names[1], names[207], names[999]) == ("tench", "goldfish", "golden retriever", "toilet tissue")
    assert all(name and name == name.strip() for name in names)
