"""Predictions of a stream of pictures, written as they come."""

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from bestiary.draw import MapStyle, colour_of
from bestiary.errors import PictureError, UsageError
from bestiary.pictures.encode import write_bytes, write_image, write_palette_map
from bestiary.pictures.sources import iterate_batches
from bestiary.pictures.video import VideoFile, frame_of, frames_a_second
from bestiary.predictions import Classification, Detections, Prediction, Segmentation
from bestiary.records import IGNORE_LABEL
from bestiary.system import Predictor, stream_predictions
from bestiary.verbs.large_pictures import is_large, predict_large, works_by_windows


@dataclass
class Timing:
    """Where the time went. The first batch, which pays for warming up, is kept apart.

    Attributes:
        pictures: how many there were after the first batch.
        decode_s: seconds for reading and decoding those.
        network_s: seconds for resizing them, the network, and what it makes of its answer.
        first_s: seconds for all of the first batch.
    """

    pictures: int = 0
    decode_s: float = 0.0
    network_s: float = 0.0
    first_s: float = 0.0
    _warm: bool = False

    def add(self, pictures: int, decode_s: float, network_s: float) -> None:
        """Count one batch."""
        if not self._warm:
            self._warm, self.first_s = True, decode_s + network_s
            return
        self.pictures += pictures
        self.decode_s += decode_s
        self.network_s += network_s

    def summary(self) -> str:
        """Milliseconds a picture, for a person; empty if there was no picture."""
        if not self._warm:
            return ""
        first = f"first batch {1000 * self.first_s:.1f} ms"
        if not self.pictures:
            return first
        decode, network = (1000 * seconds / self.pictures for seconds in (self.decode_s, self.network_s))
        return f"decode {decode:.1f} ms, network {network:.1f} ms a picture ({first})"


class FrameRate:
    """Frames a second as somebody who watches a video sees them: decoding, network and writing together.

    Args:
        clock: seconds, rising.
        window: over how many of the last frames.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, window: int = 30) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=window + 1)

    def tick(self) -> float | None:
        """Count one frame; the rate over the last ones, None while there is only one."""
        self._times.append(self._clock())
        passed = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / passed if passed > 0 else None


@dataclass
class Outputs:
    """What is written for each prediction, and where.

    Attributes:
        folder: made when the first file is written.
        draw: the picture with what was found; the frames of a video become one video.
        coco: all results in one `predictions.coco.json`, streamed to disk.
        yolo: one text file a picture.
        crops: one picture a detection.
        polygons: one LabelMe document a picture: regions of label maps and masks, else boxes.
        tolerance: pixels by which polygons may be simplified.
        colours: label maps also as indexed PNGs in their colours, and `colours.json` with those.
        style: how label maps are drawn.
        top: how many categories a classification's summary and document name.
    """

    folder: Path
    draw: bool = True
    coco: bool = False
    yolo: bool = False
    crops: bool = False
    polygons: bool = False
    tolerance: float = 0.0
    colours: bool = False
    style: MapStyle = "overlay"
    top: int = 5
    _video: VideoFile | None = None
    _video_name: str = ""
    _names: dict[str, int] = field(default_factory=dict)
    _results: int = 0
    _legend_written: bool = False

    @property
    def writes(self) -> bool:
        """Whether anything is written at all."""
        return self.draw or self.coco or self.yolo or self.crops or self.polygons or self.colours

    def write(self, prediction: Prediction, position: int) -> None:
        """Write everything that was asked for of one prediction."""
        if not self.writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = self._stem(prediction.name or f"picture_{position}")
        frame = frame_of(prediction.name)
        if self.draw and frame is not None:
            self._append_frame(prediction, frame[0])
        elif self.draw:
            write_image(self.folder / f"{stem}.jpg", self._drawn(prediction))
        if self.coco:
            self._append_coco(prediction, position)
        if self.polygons and not isinstance(prediction, Classification):
            document = json.dumps(prediction.to_labelme(self.tolerance), ensure_ascii=False)
            write_bytes(self.folder / f"{stem}.json", document.encode())
        if isinstance(prediction, Segmentation):
            write_image(self.folder / f"{stem}.labels.png", prediction.label_map[None])
            if self.colours:
                self._write_colours(prediction, stem)
        if isinstance(prediction, Detections) and self.yolo:
            (self.folder / f"{stem}.txt").write_text(prediction.to_yolo(scores=True), encoding="utf-8")
        if isinstance(prediction, Detections) and self.crops:
            self._write_crops(prediction, stem)

    def close(self) -> None:
        """Finish the video and the JSON array."""
        if self._video is not None:
            self._video.close()
            self._video = None
        if self.coco:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "predictions.coco.json").open("a" if self._results else "w", encoding="utf-8") as file:
                file.write("]\n" if self._results else "[]\n")

    def document(self, prediction: Prediction) -> dict[str, Any]:
        """Plain JSON of one prediction."""
        found = prediction.to_dict()
        if isinstance(prediction, Classification):
            found["top"] = [{"category": c, "prob": round(p, 6)} for c, p in prediction.top(self.top)]
        return found

    def summary(self, prediction: Prediction) -> str:
        """One line for a person."""
        if isinstance(prediction, Classification):
            return ", ".join(f"{name} {prob:.3f}" for name, prob in prediction.top(self.top))
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

    def _drawn(self, prediction: Prediction) -> UInt8[Tensor, "3 _h _w"]:
        return prediction.draw(style=self.style) if isinstance(prediction, Segmentation) else prediction.draw()

    def _write_colours(self, prediction: Segmentation, stem: str) -> None:
        # VOC's background is black, and so is ours; what is unknown is grey.
        palette = [colour_of(k if k < IGNORE_LABEL else -1) for k in range(256)]
        names = prediction.categories
        for k, name in enumerate(names):
            palette[k] = (0, 0, 0) if name == "background" else palette[k]
        write_palette_map(self.folder / f"{stem}.colours.png", prediction.label_map, palette)
        if not self._legend_written:
            legend = {name: {"id": k, "rgb": list(palette[k])} for k, name in enumerate(names)}
            write_bytes(
                self.folder / "colours.json", (json.dumps(legend, ensure_ascii=False, indent=1) + "\n").encode()
            )
            self._legend_written = True

    def _append_frame(self, prediction: Prediction, name: str) -> None:
        drawn = self._drawn(prediction)
        size_hw = int(drawn.shape[-2]), int(drawn.shape[-1])
        if self._video is None or self._video_name != name or self._video.size_hw != size_hw:
            if self._video is not None:
                self._video.close()
            path = self.folder / f"{self._stem(name)}.mp4"
            self._video, self._video_name = VideoFile(path, size_hw, frames_a_second(name)), name
        self._video.write(drawn)

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
    timing: Timing | None = None,
) -> Iterator[Prediction]:
    """Predict on every picture of `source`, write what `outputs` asks for, and yield each prediction.

    A TIFF too large to be labelled at once is labelled window by window into a TIFF (`verbs.large_pictures`), and what
    is yielded of it is a reduced picture. Detections below `threshold` are dropped. A picture that cannot be decoded is
    named and skipped. `timing` is told of every batch. Videos and lists are finished however the stream ends, a
    camera's by interrupting it.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"got threshold {threshold}, wanted 0..1", where="--threshold")
    if outputs.top < 1:
        raise UsageError(f"got {outputs.top}, wanted at least 1", where="--top")
    position = 0
    try:
        if works_by_windows(predictor) and is_large(source):
            batches = _large(predictor, Path(source).expanduser(), outputs.folder, say)
        else:
            batches = _timed_batches(predictor, source, batch, say, timing or Timing())
        for found in batches:
            for prediction in found:
                kept = prediction.above(threshold) if isinstance(prediction, Detections) else prediction
                outputs.write(kept, position)
                position += 1
                yield kept
    finally:
        outputs.close()


def _large(predictor: Predictor, path: Path, folder: Path, say: Callable[[str], None]) -> Iterator[list[Prediction]]:
    yield [predict_large(predictor, path, folder / f"{path.stem}.labels.tif", say=say)]


def _timed_batches(
    predictor: Predictor, source: str, batch: int, say: Callable[[str], None], timing: Timing
) -> Iterator[list[Prediction]]:
    def skip(error: PictureError) -> None:
        say(f"skipped: {error}")

    batches = iterate_batches(source, batch, skip)
    while True:
        begin = time.perf_counter()
        pictures = next(batches, None)
        if pictures is None:
            return
        decoded = time.perf_counter()
        found = list(stream_predictions(predictor, pictures, len(pictures)))
        timing.add(len(pictures), decoded - begin, time.perf_counter() - decoded)
        yield found
