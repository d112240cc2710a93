"""Graphs in eight bits: convolutions and products of an exported graph, with ranges seen on the user's own pictures.

Post-training quantisation as Jacob et al. (CVPR 2018) have it: weights are int8 with one scale a channel, activations
uint8 with one scale a tensor, from the smallest and largest values that the pictures bring about. The file stays ONNX
(QuantizeLinear and DequantizeLinear around each product), which ONNX Runtime and OpenVINO both run in integers. What is
no product (softmax, decoding, suppression) stays float32, and so do, but of classifiers, the products whose results
are read as they are, as logits, offsets of boxes, scores: of 256 levels neighbouring classes would tie and boxes jump.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from torch import Tensor

from bestiary.deploy.runtimes import GraphPredictor
from bestiary.deploy.sessions import OnnxRuntimeSession, Session
from bestiary.deploy.sidecar import Sidecar, file_digest, read_sidecar, sidecar_path
from bestiary.errors import ExportError, MissingExtraError, UsageError
from bestiary.proposals.proposer import Proposer

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

READERS = ("ArgMax", "Exp", "Gather", "GatherElements", "GatherND", "NonMaxSuppression", "ScatterND", "TopK", "Where")
"""Where features end: what takes numbers apart, ranks them, or makes boxes of them."""


class _Recorder:
    """A session that keeps what it was given."""

    def __init__(self, inner: Session) -> None:
        self._inner, self.runtime, self.version = inner, inner.runtime, inner.version
        self.inputs: list[tuple[np.ndarray, ...]] = []

    def run(
        self, images: Float32[np.ndarray, "B C H W"], *others: Float32[np.ndarray, "..."]
    ) -> tuple[Shaped[np.ndarray, "..."], ...]:
        """As the inner session."""
        self.inputs.append((images, *others))
        return self._inner.run(images, *others)


def inputs_of(
    graph: Path, pictures: Sequence[Shaped[Tensor, "C _h _w"]], proposer: Proposer | None = None
) -> list[tuple[np.ndarray, ...]]:
    """What the graph is given when it predicts these pictures: resized, cropped, in tiles, as its sidecar says."""
    recorder = _Recorder(OnnxRuntimeSession(graph))
    predictor = GraphPredictor(recorder, read_sidecar(graph), proposer)
    for picture in pictures:
        predictor.predict_images([picture])
    return recorder.inputs


def quantize_graph(
    graph: Path, pictures: Sequence[Shaped[Tensor, "C _h _w"]], to: Path, proposer: Proposer | None = None
) -> Sidecar:
    """Write the eight-bit form of `graph` to `to`, with a sidecar beside it.

    Args:
        graph: an exported graph with its sidecar.
        pictures: of the kind that the graph will see; some dozens are enough.
        to: ends in `.onnx`.
        proposer: as of `open_graph`.

    Raises:
        UsageError: no picture.
        CheckpointError: the graph or its sidecar is missing or broken.
        MissingExtraError: a package of the extra `export` is not installed.
        ExportError: ONNX Runtime cannot quantise it.
    """
    if not pictures:
        raise UsageError("got no picture, wanted some to see the ranges on", where="quantize_graph(pictures)")
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtraError.of("onnxruntime", "export") from error
    sidecar = read_sidecar(graph)
    names = [str(port["name"]) for port in sidecar.inputs]
    feeds = iter([dict(zip(names, given, strict=True)) for given in inputs_of(graph, pictures, proposer)])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    to.parent.mkdir(parents=True, exist_ok=True)
    # Its exceptions have no public common type.
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            trial = Path(folder) / "graph.onnx"
            quantization.quantize_static(
                str(graph),
                str(trial),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS),
                nodes_to_exclude=[] if sidecar.task == "classification" else last_products(graph),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            to.write_bytes(trial.read_bytes())
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"it could not be quantised: {reason[0]}", where=str(graph)) from error
    written = dataclasses.replace(sidecar, sha256=file_digest(to), parity=None)
    written.write(sidecar_path(to))
    return written


def last_products(graph: Path) -> list[str]:
    """Names of the products of an ONNX file from whose results no feature goes to another product."""
    import onnx

    nodes = list(onnx.load(str(graph)).graph.node)
    feeds_product: dict[str, bool] = {}
    last: list[str] = []
    # Nodes stand before those that use them.
    for node in reversed(nodes):
        leads_on = any(feeds_product.get(name, False) for name in node.output)
        if node.op_type in PRODUCTS:
            if not leads_on:
                last.append(node.name)
            leads_on = True
        elif node.op_type in READERS:
            leads_on = False
        # What stands beside the features of a region's pooling are boxes.
        for name in node.input[:1] if node.op_type in ("RoiAlign", "MaxRoiPool") else node.input:
            feeds_product[name] = feeds_product.get(name, False) or leads_on
    return last[::-1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice to preprocess the graph, which the exporter has done."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
