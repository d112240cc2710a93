"""Predictions of a stream of pictures, written as they come."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bestiary.errors import UsageError
from bestiary.pictures.encode import write_image
from bestiary.predictions import Classification, Detections, Prediction, Segmentation
from bestiary.system import Predictor, stream_predictions


@dataclass
class Outputs:
    """What is written for each prediction, and where.

    Attributes:
        folder: made when the first file is written.
        draw: the picture with what was found.
        coco: all results in one `predictions.coco.json`, streamed to disk.
        yolo: one text file a picture.
        crops: one picture a detection.
    """

    folder: Path
    draw: bool = True
    coco: bool = False
    yolo: bool = False
    crops: bool = False
    _names: dict[str, int] = field(default_factory=dict)
    _results: int = 0

    @property
    def writes(self) -> bool:
        """Whether anything is written at all."""
        return self.draw or self.coco or self.yolo or self.crops

    def write(self, prediction: Prediction, position: int) -> None:
        """Write everything that was asked for of one prediction."""
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = self._stem(prediction.name or f"picture_{position}")
        if self.draw:
            write_image(self.folder / f"{stem}.jpg", prediction.draw())
        if self.coco:
            self._append_coco(prediction, position)
        if isinstance(prediction, Segmentation):
            write_image(self.folder / f"{stem}.labels.png", prediction.label_map[None])
        if isinstance(prediction, Detections) and self.yolo:
            (self.folder / f"{stem}.txt").write_text(prediction.to_yolo(scores=True), encoding="utf-8")
        if isinstance(prediction, Detections) and self.crops:
            self._write_crops(prediction, stem)

    def close(self) -> None:
        """Finish the JSON array."""
        if self.coco:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "predictions.coco.json").open("a" if self._results else "w", encoding="utf-8") as file:
                file.write("]\n" if self._results else "[]\n")

    def summary(self, prediction: Prediction) -> str:
        """One line for a person."""
        if isinstance(prediction, Classification):
            return ", ".join(f"{name} {prob:.3f}" for name, prob in prediction.top(3))
        if isinstance(prediction, Segmentation):
            shares = sorted(prediction.to_dict()["shares"].items(), key=lambda item: -item[1])
            return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares[:4])
        counts: dict[str, int] = {}
        for label in prediction.labels.tolist():
            name = prediction.categories[label] if label < len(prediction.categories) else str(label)
            counts[name] = counts.get(name, 0) + 1
        return ", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing found"

    def _stem(self, name: str) -> str:
        stem = re.sub(r"[^\w.#-]+", "_", str(Path(name).with_suffix("")), flags=re.UNICODE).strip("_.") or "picture"
        self._names[stem] = self._names.get(stem, 0) + 1
        return stem if self._names[stem] == 1 else f"{stem}_{self._names[stem]}"

    def _append_coco(self, prediction: Prediction, position: int) -> None:
        if isinstance(prediction, Classification):
            return
        path = self.folder / "predictions.coco.json"
        with path.open("a" if self._results else "w", encoding="utf-8") as file:
            for entry in prediction.to_coco(image_id=position + 1):
                file.write(("," if self._results else "[") + json.dumps({**entry, "file_name": prediction.name}) + "\n")
                self._results += 1

    def _write_crops(self, prediction: Detections, stem: str) -> None:
        if prediction.image is None:
            return
        for i, (box, label) in enumerate(zip(prediction.boxes_xyxy.tolist(), prediction.labels.tolist(), strict=True)):
            x1, y1 = int(box[0]), int(box[1])
            x2, y2 = max(x1 + 1, round(box[2])), max(y1 + 1, round(box[3]))
            crop = prediction.image[:, y1:y2, x1:x2]
            if crop.numel():
                write_image(self.folder / "crops" / prediction.categories[label] / f"{stem}_{i}.jpg", crop)


def predict_source(
    predictor: Predictor,
    source: str,
    outputs: Outputs,
    threshold: float = 0.25,
    batch: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Prediction]:
    """Predict on every picture of `source`, write what `outputs` asks for, and yield each prediction.

    Detections below `threshold` are dropped. A picture that cannot be decoded is named and skipped.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"got threshold {threshold}, wanted 0..1", where="--threshold")
    for position, prediction in enumerate(
        stream_predictions(predictor, source, batch, on_error=lambda e: say(f"skipped: {e}"))
    ):
        kept = prediction.above(threshold) if isinstance(prediction, Detections) else prediction
        outputs.write(kept, position)
        yield kept
    outputs.close()
