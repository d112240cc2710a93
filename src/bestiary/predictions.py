"""What a system says of a picture, in the picture's original pixels.

The three kinds share `size_hw`, `categories`, `name` and `image`. Converters to other formats and to pictures are
methods, so that `prediction.draw()` and `prediction.to_coco()` work wherever a prediction turns up.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from torch import Tensor

from bestiary import draw
from bestiary.errors import MissingExtraError
from bestiary.geometry import labelme
from bestiary.records import Record, Rows, require, require_boxes, require_tensor, row_field


def _category(categories: tuple[str, ...], label: int) -> str:
    return categories[label] if label < len(categories) else str(label)


def _run_texts(masks: Bool[Tensor, "N H W"]) -> list[dict[str, Any]]:
    """COCO's run lengths of each mask."""
    from bestiary.ops.masks import encode_rles

    return [rle.to_coco() for rle in encode_rles(masks)]


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError.of("pandas", "interop") from error
    return pandas


@dataclass(frozen=True, eq=False)
class Classification(Record):
    """Probability of each of K categories for one picture.

    Attributes:
        probs: sums to 1 for single-label systems.
        size_hw: original picture size.
        categories: K names.
        name: where the picture came from.
        image: the original picture, when the caller asked to keep it.
    """

    probs: Float32[Tensor, " K"]
    size_hw: tuple[int, int]
    categories: tuple[str, ...] = ()
    name: str = ""
    image: Shaped[Tensor, "C H W"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_tensor("Classification", "probs", self.probs, (None,), torch.float32)

    @property
    def label(self) -> int:
        """The likeliest category's index; the lower index on a tie."""
        return int(self.probs.argmax())

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` likeliest (category, probability), likeliest first; equal ones by index."""
        order = torch.sort(self.probs, descending=True, stable=True).indices[:k].tolist()
        return [(_category(self.categories, i), float(self.probs[i])) for i in order]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: name, size and the five likeliest categories."""
        top = [{"category": c, "prob": round(p, 6)} for c, p in self.top(5)]
        return {"name": self.name, "size_hw": list(self.size_hw), "label": self.label, "top": top}

    def to_pandas(self) -> Any:
        """A data frame with one row a category, likeliest first."""
        return _pandas().DataFrame(self.top(len(self.probs)), columns=["category", "prob"])

    def draw(self, image: Shaped[Tensor, "C H W"] | None = None) -> UInt8[Tensor, "3 H W"]:
        """The picture with its likeliest categories written on it."""
        lines = [f"{c} {p:.2f}" for c, p in self.top(3)]
        return draw.text_lines(_picture(image, self.image, self.size_hw), lines)


@dataclass(frozen=True, eq=False)
class Detections(Rows):
    """N found objects, best score first, clipped to the picture.

    Attributes:
        boxes_xyxy: absolute pixels of the original picture.
        labels: 0-based indices into `categories`.
        scores: 0..1, descending.
        masks: which pixels belong to each object.
        keypoints: x, y and score of each joint.
        size_hw: original picture size.
        categories: names.
        name: where the picture came from.
        image: the original picture, when the caller asked to keep it.
    """

    boxes_xyxy: Float32[Tensor, "N 4"] = row_field()
    labels: Int64[Tensor, " N"] = row_field()
    scores: Float32[Tensor, " N"] = row_field()
    masks: Bool[Tensor, "N H W"] | None = row_field(None)
    keypoints: Float32[Tensor, "N J 3"] | None = row_field(None)
    size_hw: tuple[int, int] = (0, 0)
    categories: tuple[str, ...] = ()
    name: str = ""
    image: Shaped[Tensor, "C H W"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_boxes("Detections", self.boxes_xyxy)
        require_tensor("Detections", "labels", self.labels, (None,), torch.int64)
        require_tensor("Detections", "scores", self.scores, (None,), torch.float32)
        require_tensor("Detections", "masks", self.masks, (None, None, None), torch.bool)
        require_tensor("Detections", "keypoints", self.keypoints, (None, None, 3), torch.float32)
        self.require_rows()

    @classmethod
    def empty(cls, size_hw: tuple[int, int], categories: tuple[str, ...] = ()) -> "Detections":
        """Nothing found."""
        return cls(
            torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0), size_hw=size_hw, categories=categories
        )

    def above(self, threshold: float) -> "Detections":
        """Those whose score is at least `threshold`."""
        return self[self.scores >= threshold]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: name, size, and one entry an object: category, label, score, `box_xyxy`, and where there are any
        `mask_rle` (COCO's run lengths, `{"size": [height, width], "counts": text}`) and `keypoints` (x, y, score).
        """
        rows = zip(self.boxes_xyxy.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True)
        objects: list[dict[str, Any]] = [
            {
                "category": _category(self.categories, k),
                "label": k,
                "score": round(s, 6),
                "box_xyxy": [round(v, 3) for v in b],
            }
            for b, k, s in rows
        ]
        if self.masks is not None:
            for entry, text in zip(objects, _run_texts(self.masks), strict=True):
                entry["mask_rle"] = text
        if self.keypoints is not None:
            for entry, joints in zip(objects, self.keypoints.tolist(), strict=True):
                entry["keypoints"] = [[round(x, 3), round(y, 3), round(score, 6)] for x, y, score in joints]
        return {"name": self.name, "size_hw": list(self.size_hw), "objects": objects}

    def to_coco(self, image_id: int | str = 0, category_ids: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
        """COCO results entries: bbox is x, y, width, height.

        Args:
            image_id: the picture's id in the ground-truth file.
            category_ids: the file's id of each category; label + 1 if not given, as COCO ids start at 1.
        """
        results = []
        for box, label, score in zip(
            self.boxes_xyxy.double().tolist(), self.labels.tolist(), self.scores.double().tolist(), strict=True
        ):
            x1, y1, x2, y2 = box
            category = category_ids[label] if category_ids else label + 1
            results.append(
                {"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            )
        if self.keypoints is not None:
            for entry, points in zip(results, self.keypoints.double(), strict=True):
                entry["keypoints"] = points.flatten().tolist()
        if self.masks is not None:
            for entry, text in zip(results, _run_texts(self.masks), strict=True):
                entry["segmentation"] = text
        return results

    def to_yolo(self, scores: bool = False) -> str:
        """Lines `class x_center y_center width height [score]`, normalised to 0..1."""
        h, w = self.size_hw
        lines = []
        for (x1, y1, x2, y2), label, score in zip(
            self.boxes_xyxy.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True
        ):
            numbers = [(x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h] + ([score] if scores else [])
            lines.append(" ".join([str(label), *(f"{v:.6f}" for v in numbers)]))
        return "".join(line + "\n" for line in lines)

    def to_labelme(self, tolerance: int | float = 0.0) -> dict[str, Any]:
        """LabelMe's document: the polygons of each mask, an object's in one group, or the boxes where there are none.

        Args:
            tolerance: pixels by which outlines may be simplified.
        """
        names = [_category(self.categories, k) for k in self.labels.tolist()]
        shapes: list[dict[str, Any]] = []
        for i, name in enumerate(names):
            if self.masks is None:
                shapes.append(labelme.box_shape(name, self.boxes_xyxy[i].tolist()))
            else:
                shapes += labelme.region_shapes(name, self.masks[i], i, tolerance)
        return labelme.document(self.name, self.size_hw, shapes)

    def to_pandas(self) -> Any:
        """A data frame with one row an object: x1, y1, x2, y2, category, label, score."""
        frame = _pandas().DataFrame(self.boxes_xyxy.numpy(), columns=["x1", "y1", "x2", "y2"])
        frame["category"] = [_category(self.categories, k) for k in self.labels.tolist()]
        frame["label"], frame["score"] = self.labels.numpy(), self.scores.numpy()
        return frame

    def to_supervision(self) -> Any:
        """A `supervision.Detections`."""
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError.of("supervision", "interop") from error
        names = np.array([_category(self.categories, k) for k in self.labels.tolist()], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes_xyxy.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            mask=None if self.masks is None else self.masks.numpy(),
            data={"class_name": names},
        )

    def draw(self, image: Shaped[Tensor, "C H W"] | None = None) -> UInt8[Tensor, "3 H W"]:
        """The picture with boxes, masks and joints, each with its category and score."""
        texts = [
            f"{_category(self.categories, k)} {s:.2f}"
            for k, s in zip(self.labels.tolist(), self.scores.tolist(), strict=True)
        ]
        picture = _picture(image, self.image, self.size_hw)
        return draw.objects(picture, self.boxes_xyxy, self.labels, texts, masks=self.masks, keypoints=self.keypoints)


@dataclass(frozen=True, eq=False)
class Segmentation(Record):
    """The class of every pixel.

    Attributes:
        label_map: 0-based indices into `categories`, at the original size. Where classes may overlap, the likeliest of
            those that a pixel belongs to, and `IGNORE_LABEL` where it belongs to none.
        probs: probability of each class, when the caller asked for it.
        size_hw: original picture size.
        categories: K names.
        name: where the picture came from.
        image: the original picture, when the caller asked to keep it.
        class_masks: which pixels belong to each class, where classes may overlap; None where each pixel has one.
    """

    label_map: UInt8[Tensor, "H W"]
    size_hw: tuple[int, int]
    probs: Float32[Tensor, "K H W"] | None = field(default=None, repr=False)
    categories: tuple[str, ...] = ()
    name: str = ""
    image: Shaped[Tensor, "C H W"] | None = field(default=None, repr=False)
    class_masks: Bool[Tensor, "K H W"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_tensor("Segmentation", "label_map", self.label_map, (None, None), torch.uint8)
        got = tuple(self.label_map.shape)
        require(got == tuple(self.size_hw), "Segmentation.label_map", f"size {got}", f"the picture's, {self.size_hw}")
        require_tensor("Segmentation", "class_masks", self.class_masks, (None, *got), torch.bool)

    def regions(self) -> Iterator[tuple[int, Bool[Tensor, "H W"]]]:
        """Each class that is present, and its pixels; one at a time, as all of a large picture's would not fit."""
        if self.class_masks is None:
            yield from ((k, self.label_map == k) for k in self.label_map.unique().tolist())
        else:
            yield from ((k, mask) for k, mask in enumerate(self.class_masks) if mask.any())

    def _pixels(self) -> list[tuple[int, int]]:
        """Each class that is present, and how many pixels it has."""
        if self.class_masks is None:
            return [(k, n) for k, n in enumerate(torch.bincount(self.label_map.flatten().long()).tolist()) if n]
        return [(k, int(mask.sum())) for k, mask in self.regions()]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: name, size, and the share of the picture that each present category covers."""
        total = max(1, self.label_map.numel())
        shares = {_category(self.categories, k): round(n / total, 6) for k, n in self._pixels()}
        return {"name": self.name, "size_hw": list(self.size_hw), "shares": shares}

    def to_coco(self, image_id: int | str = 0, category_ids: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
        """COCO stuff results: one RLE a present category."""
        from bestiary.geometry.masks import encode_rle

        return [
            {
                "image_id": image_id,
                "category_id": category_ids[k] if category_ids else k + 1,
                "segmentation": encode_rle(mask).to_coco(),
                "score": 1.0,
            }
            for k, mask in self.regions()
        ]

    def to_labelme(self, tolerance: int | float = 0.0) -> dict[str, Any]:
        """LabelMe's document: one polygon for each connected region of a category other than "background".

        Args:
            tolerance: pixels by which outlines may be simplified; 0 keeps the map exactly.
        """
        shapes: list[dict[str, Any]] = []
        for k, mask in self.regions():
            name = _category(self.categories, k)
            if name != "background":
                shapes += labelme.region_shapes(name, mask, None, tolerance)
        return labelme.document(self.name, self.size_hw, shapes)

    def to_pandas(self) -> Any:
        """A data frame with one row a present category: its pixels and its share of the picture."""
        rows = [(_category(self.categories, k), n, n / self.label_map.numel()) for k, n in self._pixels()]
        return _pandas().DataFrame(rows, columns=["category", "pixels", "share"])

    def draw(
        self, image: Shaped[Tensor, "C H W"] | None = None, style: draw.MapStyle = "overlay"
    ) -> UInt8[Tensor, "3 _h _w"]:
        """The picture and its classes, with a legend; the styles are those of `draw.label_map`.

        Classes that may overlap are laid over one another, each with its contour: their only style.
        """
        picture = _picture(image, self.image, self.size_hw)
        if self.class_masks is not None:
            return draw.class_masks(picture, self.class_masks, self.categories)
        return draw.label_map(picture, self.label_map, self.categories, style=style)


Prediction = Classification | Detections | Segmentation


def _picture(given: Tensor | None, kept: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
    image = given if given is not None else kept
    if image is None:
        return torch.full((3, *size_hw), 255, dtype=torch.uint8)
    got = tuple(image.shape[-2:])
    require(got == tuple(size_hw), "draw(image)", f"size {got}", f"the predicted picture's, {tuple(size_hw)}")
    return image
