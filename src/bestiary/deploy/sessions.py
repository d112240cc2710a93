"""One graph opened in one runtime: arrays in, arrays out."""

import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Shaped

from bestiary.errors import CheckpointError, MissingExtraError, UsageError

RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16")
TELEMETRY = "openvino_telemetry"


@runtime_checkable
class Session(Protocol):
    """What can run a graph.

    Attributes:
        runtime: one of `RUNTIMES`.
        version: of the runtime.
    """

    runtime: str
    version: str

    def run(
        self, images: Float32[np.ndarray, "B C H W"], *others: Float32[np.ndarray, "..."]
    ) -> tuple[Shaped[np.ndarray, "..."], ...]:
        """The outputs, in the graph's order, for all inputs, in the graph's order."""
        ...


class OnnxRuntimeSession:
    """ONNX Runtime on the CPU.

    Args:
        graph: an ONNX file, or its bytes.
        threads: for the work inside an operator; None: as many as torch uses.

    Raises:
        MissingExtraError: the package is not installed.
        CheckpointError: the graph cannot be read.
    """

    runtime = "onnxruntime"

    def __init__(self, graph: Path | bytes, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError.of("onnxruntime", "export") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; the graph's shapes are dynamic on purpose
        self.version = importlib.metadata.version("onnxruntime")
        # Its exceptions have no public common type.
        source = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _unreadable(graph, self.runtime, error) from error
        self._names = [port.name for port in self._session.get_inputs()]

    def run(
        self, images: Float32[np.ndarray, "B C H W"], *others: Float32[np.ndarray, "..."]
    ) -> tuple[Shaped[np.ndarray, "..."], ...]:
        """The outputs, in the graph's order, for all inputs, in the graph's order."""
        answers: Any = self._session.run(None, dict(zip(self._names, (images, *others), strict=True)))
        return tuple(answers)


class OpenVinoSession:
    """OpenVINO on the CPU. Its telemetry is never loaded.

    Args:
        graph: an ONNX or OpenVINO IR (`.xml`) file, or an ONNX file's bytes.
        threads: None: as many as torch uses.
        precision: "float32", or "bfloat16" where the processor has it, which is faster and good to 2-3 digits.
        shape: compile for inputs `[B, C, H, W]` of this shape alone: small nets at batch 1 gain a fifth.

    Raises:
        MissingExtraError: the package is not installed.
        CheckpointError: the graph cannot be read, or cannot have that shape.
        UsageError: no such precision.
    """

    runtime = "openvino"

    def __init__(
        self,
        graph: Path | bytes,
        threads: int | None = None,
        precision: str = "float32",
        shape: tuple[int, int, int, int] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"got {precision!r}, wanted one of {', '.join(PRECISIONS)}", where="precision")
        try:
            with _without_telemetry():
                import openvino
        except ImportError as error:
            raise MissingExtraError.of("openvino", "export") from error
        self.version = importlib.metadata.version("openvino")
        # Said always: where the processor has bfloat16, OpenVINO would take it unasked.
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
            "INFERENCE_NUM_THREADS": _threads(threads),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = _the_only(openvino.Core)
        try:
            model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
            if shape is not None:
                model.reshape({0: list(shape)})
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise _unreadable(graph, self.runtime, error) from error
        self._request = self._compiled.create_infer_request()
        self._shape = shape

    def run(
        self, images: Float32[np.ndarray, "B C H W"], *others: Float32[np.ndarray, "..."]
    ) -> tuple[Shaped[np.ndarray, "..."], ...]:
        """The outputs, in the graph's order, for all inputs, in the graph's order."""
        if self._shape is not None and images.shape != self._shape:
            raise UsageError(f"got images of shape {images.shape}, wanted {self._shape}, as compiled", where="openvino")
        answers: Any = self._request.infer([images, *others], share_inputs=True)
        # Copied: the next run writes into the same memory.
        arrays: list[np.ndarray] = [np.array(answers[port]) for port in self._compiled.outputs]
        return tuple(arrays)


@functools.cache
def _the_only(make_core: Callable[[], Any]) -> Any:
    """OpenVINO's core, one for the whole process, never given back.

    A core's CPU plugin gives the thread that makes it another stack for signals, and at its end the one from before,
    then frees its own. Of two cores the first to end frees what the second puts back: the next signal that Python
    handles (of a child that ended, of Ctrl-C) then ends the process without a word.
    """
    return make_core()


def open_session(
    graph: Path | bytes,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    precision: str = "float32",
    shape: tuple[int, int, int, int] | None = None,
) -> OnnxRuntimeSession | OpenVinoSession:
    """The graph in the runtime of that name.

    Raises:
        UsageError: no such runtime or precision, fewer than one thread, or a precision or fixed shape that the runtime
            does not have.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"got {runtime!r}, wanted one of {', '.join(RUNTIMES)}", where="runtime")
    if threads is not None and threads < 1:
        raise UsageError(f"got {threads}, wanted 1 or more", where="threads")
    if runtime == "openvino":
        return OpenVinoSession(graph, threads, precision, shape)
    if shape is not None:
        raise UsageError("onnxruntime takes any shape, and none in advance", where="shape", mend="Leave it out")
    if precision != "float32":
        mend = "Use the runtime openvino for bfloat16"
        raise UsageError(f"got {precision!r}, wanted float32: onnxruntime has no other", where="precision", mend=mend)
    return OnnxRuntimeSession(graph, threads)


def require_runtimes(runtimes: Sequence[str]) -> None:
    """Raise `UsageError` unless all are known and there is one at least."""
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown or not runtimes:
        got = f"{unknown[0]!r}" if unknown else "none"
        raise UsageError(f"got {got}, wanted {' or '.join(RUNTIMES)} or both, with a comma", where="runtimes")


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Let OpenVINO find no telemetry package, which it would load, and send with, at its import."""
    if "openvino" in sys.modules:
        yield
        return
    before: Any = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to forbid an import
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        if before is not None:
            sys.modules[TELEMETRY] = before


def _threads(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else threads


def _unreadable(graph: Path | bytes, runtime: str, error: Exception) -> CheckpointError:
    where = None if isinstance(graph, bytes) else str(graph)
    lines = [line for line in str(error).splitlines() if line.strip()]
    message = f"{runtime} cannot read the graph ({lines[-1] if lines else type(error).__name__})"
    return CheckpointError(message, where=where, mend="Export it again with `bestiary export CHECKPOINT`")
