"""An exported graph that predicts as its model does: `predict` and `stream` on pictures, folders, videos.

Around the session stands what the graph's sidecar calls the preparation: pictures to network scale, answers back to the
pictures' own pixels, by the functions that the systems use.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from bestiary.deploy.sessions import Session, open_session
from bestiary.deploy.sidecar import Sidecar, read_sidecar, sidecar_path
from bestiary.errors import CheckpointError, PictureError, UsageError
from bestiary.geometry.boxes import clip_boxes, scale_boxes
from bestiary.heads.network_scale import NetworkScale
from bestiary.heads.segmentation import of_equal_size, segmentations
from bestiary.heads.square import Square
from bestiary.layers.channels import match_channels
from bestiary.layers.overlap_tile import InputGeometry, mirror_window, plan_tiles
from bestiary.layers.scaling import as_float, centre_crop, resize_short_side
from bestiary.ops import batched_nms
from bestiary.pictures.sources import Source
from bestiary.predictions import Classification, Detections, Prediction
from bestiary.proposals.described import rebuild
from bestiary.proposals.proposer import Proposer
from bestiary.system import stream_predictions

Images = Sequence[Shaped[Tensor, "C _h _w"]]


class GraphPredictor:
    """A graph, its runtime and its sidecar.

    Args:
        session: the opened graph.
        sidecar: what it says of itself.
        proposer: what proposes the regions that a graph like Fast R-CNN's takes; None: the method that the sidecar
            names.

    Attributes:
        task: "classification", "detection", "segmentation".
        categories: K names.
        learned: of which pictures; see `verbs.datasets.has_learned`.
    """

    def __init__(self, session: Session, sidecar: Sidecar, proposer: Proposer | None = None) -> None:
        self.session, self.sidecar = session, sidecar
        self.proposer = proposer or _named_proposer(sidecar)
        self.task, self.categories, self.learned = sidecar.task, sidecar.categories, sidecar.learned or {}
        self._channels = int(sidecar.inputs[0]["shape"][1])

    def predict_images(self, images: Images) -> list[Prediction]:
        """Predictions for decoded pictures, in their own pixels."""
        pictures = [match_channels(as_float(image.detach().cpu()), self._channels) for image in images]
        found: dict[int, Prediction] = {}
        # Pictures of one size share a run; the others follow one another.
        for indices in of_equal_size(pictures):
            stack = torch.stack([pictures[i] for i in indices])
            found.update(zip(indices, PREDICT[self.sidecar.preparation["kind"]](self, stack), strict=True))
        return [found[i] for i in range(len(pictures))]

    def predict(self, source: Source, batch: int = 1) -> list[Prediction]:
        """Predictions for anything that `System.predict` takes."""
        return list(self.stream(source, batch))

    def stream(
        self, source: Source, batch: int = 1, on_error: Callable[[PictureError], object] | None = None
    ) -> Iterator[Prediction]:
        """Like `predict`, one by one in constant memory. Arguments as `System.stream`."""
        return stream_predictions(self, source, batch, on_error)

    def run(self, images: Float[Tensor, "B C H W"], *others: Float[Tensor, "..."]) -> tuple[Shaped[Tensor, "..."], ...]:
        """The graph's outputs for pictures at network scale, 0..1, and what else it takes."""
        outputs = self.session.run(*(np.ascontiguousarray(given.float().numpy()) for given in (images, *others)))
        return tuple(torch.from_numpy(output) for output in outputs)


def open_graph(
    path: str | Path,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    precision: str = "float32",
    proposer: Proposer | None = None,
) -> GraphPredictor:
    """An exported graph, ready to predict.

    Args:
        path: `NAME.onnx` with `NAME.json` beside it. OpenVINO's own files (`.xml`) always open in OpenVINO.
        runtime: "onnxruntime" or "openvino".
        threads: None: as many as torch uses.
        precision: "float32"; or "bfloat16" in OpenVINO.
        proposer: what proposes the regions that a graph like Fast R-CNN's takes; None: the method that the sidecar
            names.

    Raises:
        CheckpointError: the graph or its sidecar is missing, broken, or does not fit.
        MissingExtraError: the runtime is not installed.
        UsageError: no such runtime or precision.
    """
    path = Path(path)
    sidecar = read_sidecar(path)
    if sidecar.preparation.get("kind") not in PREDICT:
        message = f"got {sidecar.preparation.get('kind')!r}, wanted one of {', '.join(PREDICT)}"
        where = f"{sidecar_path(path)}: preparation.kind"
        raise CheckpointError(message, where=where, mend="Upgrade bestiary, or export again")
    session = open_session(path, "openvino" if path.suffix == ".xml" else runtime, threads, precision)
    return GraphPredictor(session, sidecar, proposer)


def _named_proposer(sidecar: Sidecar) -> Proposer | None:
    """The one that the sidecar names, if the graph takes regions and it names one."""
    how = sidecar.preparation.get("proposals") or {}
    return None if how.get("method") is None else rebuild(how)


def _classify(graph: GraphPredictor, images: Float[Tensor, "B C H W"]) -> list[Prediction]:
    how, size_hw = graph.sidecar.preparation, _size_hw(images)
    scaled = [centre_crop(resize_short_side(image, how["resize"]), how["crop"]) for image in images]
    (probs,) = graph.run(torch.stack(scaled))
    return [Classification(row, size_hw, graph.categories) for row in probs]


def _detect(graph: GraphPredictor, images: Float[Tensor, "B C H W"]) -> list[Prediction]:
    how, size_hw = graph.sidecar.preparation, _size_hw(images)
    scaled = torch.stack([_placed(image, how) for image in images])
    others = (_regions(graph, images, _size_hw(scaled)),) if "proposals" in how else ()
    if others and not len(others[0]):  # runtimes stumble over none
        return [Detections.empty(size_hw, graph.categories) for _ in images]
    outputs, found = graph.run(scaled, *others), list[Prediction]()
    for i in range(len(images)):
        boxes, scores, labels = _of_picture(outputs, i, graph.sidecar.decoding)
        if how.get("letterbox"):
            original = Square(how["side"], letterbox=True).to_picture(boxes, size_hw)
        else:
            original = clip_boxes(scale_boxes(boxes, _size_hw(scaled), size_hw), size_hw)
        found.append(Detections(original, labels, scores, size_hw=size_hw, categories=graph.categories))
    return found


def _regions(
    graph: GraphPredictor, images: Float[Tensor, "B C H W"], scaled_hw: tuple[int, int]
) -> Float[Tensor, "R 5"]:
    """What the proposer finds in each picture, at network scale, with the picture's number.

    Raises:
        UsageError: there is no proposer.
    """
    if graph.proposer is None:
        mend = "Give the model's: open_graph(path, proposer=...)"
        raise UsageError("the graph takes proposals, and its sidecar names no method", where="proposer", mend=mend)
    rows, most = list[Tensor](), graph.sidecar.preparation["proposals"]["count"]
    for i, image in enumerate(images):
        boxes = scale_boxes(graph.proposer.propose(image).boxes_xyxy[:most], _size_hw(image), scaled_hw)
        rows.append(F.pad(boxes, (1, 0), value=float(i)))
    return torch.cat(rows)


def _placed(image: Float[Tensor, "C H W"], how: Mapping[str, Any]) -> Float[Tensor, "C H2 W2"]:
    """One picture as the network sees it, by the preparation of a detector's graph."""
    if how["kind"] == "own_size":
        return image
    if how["kind"] == "resize_between":
        return NetworkScale(how["min_size"], how["max_size"]).resize(image)
    return Square(how["side"], bool(how["letterbox"]), bool(how["antialias"])).place(image)


def _of_picture(
    outputs: Sequence[Shaped[Tensor, "..."]], picture: int, decoding: Mapping[str, Any] | None
) -> tuple[Float[Tensor, "N 4"], Float[Tensor, " N"], Int64[Tensor, " N"]]:
    """Boxes at network scale, scores and labels; suppressed here where the graph leaves that to the runner."""
    if decoding is None:
        boxes, scores, labels, pictures = outputs
        rows = pictures == picture
        return boxes[rows], scores[rows], labels[rows]
    boxes, scores, labels = (output[picture] for output in outputs)
    likely = scores > decoding["min_score"]
    boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
    keep = batched_nms(boxes, scores, labels, decoding["nms_iou"])[: decoding["max_detections"]]
    return boxes[keep], scores[keep], labels[keep]


def _segment(graph: GraphPredictor, images: Float[Tensor, "B C H W"]) -> list[Prediction]:
    how, size_hw = graph.sidecar.preparation, _size_hw(images)
    scaled, short = images, how["predict_size"]
    if short is not None and short != min(size_hw):
        height, width = (max(1, round(side * short / min(size_hw))) for side in size_hw)
        scaled = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
    logits = _tiled(graph, scaled) if how["kind"] == "overlap_tile" else graph.run(scaled)[0]
    if scaled is not images:
        logits = F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)
    threshold = how.get("mask_threshold")  # graphs of earlier versions have none
    probs = logits.softmax(1) if threshold is None else logits.sigmoid()
    kept = how["keep_probs"]
    found = segmentations(
        logits.argmax(1), probs if kept or threshold is not None else None, graph.categories, kept, threshold
    )
    return list[Prediction](found)


def _tiled(graph: GraphPredictor, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
    how, (height, width) = graph.sidecar.preparation, _size_hw(images)
    geometry = InputGeometry(margin=how["margin"], grid=how["grid"], smallest=how["smallest"])
    rows, columns = (plan_tiles(side, geometry, how["tile_output"]) for side in (height, width))
    size_hw = (rows.side + 2 * geometry.margin, columns.side + 2 * geometry.margin)
    logits = torch.empty(len(images), len(graph.categories), height, width)
    for top in rows.origins:
        for left in columns.origins:
            window = mirror_window(images, top - geometry.margin, left - geometry.margin, size_hw)
            (tile,) = graph.run(window)
            part = logits[..., top : top + tile.shape[-2], left : left + tile.shape[-1]]
            part.copy_(tile[..., : part.shape[-2], : part.shape[-1]])
    return logits


def _size_hw(images: Tensor) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


PREDICT: dict[str, Callable[[GraphPredictor, Any], list[Prediction]]] = {
    "resize_and_crop": _classify,
    "resize_between": _detect,
    "square": _detect,
    "own_size": _detect,
    "whole": _segment,
    "overlap_tile": _segment,
}
"""What is done with pictures of one size, by the kind of preparation."""
