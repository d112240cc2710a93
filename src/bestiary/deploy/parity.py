"""The check that an exported graph says what its model says, on every runtime, written beside the graph.

Two layers are compared. *Graph*: the module that was exported against the file, on noise at two network sizes, with
one, two and three pictures. *Whole*: the system's `predict_images` against the predictor's, with resizing and all, on
a real picture, on pictures of two sizes at once, and on a flat grey one. For detectors also: nothing found at all (the
least score moved above 1), and, if none of the inputs gave a box, every box (the least score moved to 0). A detector
of which no box was ever compared is reported as not exercised.

Networks with switches (SegNet, DeconvNet) jump: where the two largest pixels of a pool differ by a rounding, runtimes
may choose either, and everything above follows. An input on which such a network differs is tried again, a little
noise added, twice at most: a wrong graph differs each time.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bestiary.data.world import World
from bestiary.deploy.agreement import Agreement, Tolerances, compare_boxes, compare_predictions, compare_values, join
from bestiary.deploy.box_graph import BoxGraph
from bestiary.deploy.graphs import Graph
from bestiary.deploy.runtimes import GraphPredictor
from bestiary.deploy.sessions import open_session
from bestiary.deploy.sidecar import Sidecar
from bestiary.errors import ExportError
from bestiary.layers.channels import match_channels
from bestiary.layers.switched import UnpoolingDecoder
from bestiary.predictions import Detections

ABOVE_ALL = 2.0
"""A least score that no box reaches."""
ALL = 0.0
"""One that every box reaches."""
RANKED = 300
"""Unsuppressed boxes of a picture that look for partners; of the others only the scores are compared."""
TRIES = 3
"""Of an input to a network that jumps."""
MOVE = 0.01
"""Standard deviation of the noise that is added for another try, of 0..1."""


@dataclass(frozen=True)
class Case:
    """One input of the check.

    Attributes:
        name: what it is.
        pictures: of one size at network scale (graph), or as people hold them (whole).
        whole: which of the two layers.
        min_score: moved to this in model and graph; None leaves it.
        tied: a flat picture, on which boxes tie.
    """

    name: str
    pictures: Sequence[Float[Tensor, "C _h _w"]]
    whole: bool
    min_score: float | None = None
    tied: bool = False


@dataclass(frozen=True)
class CaseResult:
    """How one runtime did on one input."""

    runtime: str
    case: str
    layer: str
    sizes_hw: tuple[tuple[int, int], ...]
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        sizes = [list(size) for size in self.sizes_hw]
        facts = dataclasses.asdict(self.agreement)
        boxes = self.agreement.boxes
        if boxes is not None:
            facts["boxes"] = {"model": boxes[0], "graph": boxes[1]}
        return {"case": self.case, "layer": self.layer, "batch": len(sizes), "sizes_hw": sizes, **facts}


@dataclass(frozen=True)
class Parity:
    """The verdict.

    Attributes:
        results: runtime by runtime, case by case.
        versions: of the runtimes.
        tolerances: what was allowed.
    """

    results: tuple[CaseResult, ...]
    versions: dict[str, str]
    tolerances: Tolerances

    @property
    def passed(self) -> bool:
        """All runtimes, all cases."""
        return bool(self.results) and all(r.agreement.passed for r in self.results)

    @property
    def exercised(self) -> dict[str, bool]:
        """For each runtime, whether anything was compared: two empty lists of boxes agree, and show nothing."""
        return {
            runtime: any(r.agreement.compared > 0 for r in self.results if r.runtime == runtime)
            for runtime in self.versions
        }

    @property
    def verdict(self) -> str:
        """ "passed", "passed, not exercised: ..." or "failed: ..."."""
        for r in self.results:
            if not r.agreement.passed:
                return f"failed: {r.runtime}, {r.case}: {r.agreement.why}"
        idle = [runtime for runtime, was in self.exercised.items() if not was]
        return f"passed, not exercised: no box was found in any input ({', '.join(idle)})" if idle else "passed"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        runtimes = {
            runtime: {
                "version": version,
                "passed": all(r.agreement.passed for r in self.results if r.runtime == runtime),
                "exercised": self.exercised[runtime],
                "cases": [r.to_dict() for r in self.results if r.runtime == runtime],
            }
            for runtime, version in self.versions.items()
        }
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "tolerances": dataclasses.asdict(self.tolerances),
            "runtimes": runtimes,
        }


def check_parity(
    graph: Graph,
    path: Path,
    sidecar: Sidecar,
    runtimes: Sequence[str],
    picture: Shaped[Tensor, "C H W"] | None = None,
    tolerances: Tolerances = Tolerances(),  # noqa: B008 - frozen
) -> Parity:
    """Compare `graph` with the file at `path` in each of `runtimes`.

    Args:
        graph: what was exported, with its system.
        path: the ONNX file.
        sidecar: of that file.
        runtimes: "onnxruntime", "openvino".
        picture: a real one of the user's; None draws one of the built-in world.
        tolerances: what may differ.

    Raises:
        MissingExtraError: a runtime is not installed.
        CheckpointError: a runtime cannot read the graph.
    """
    results: list[CaseResult] = []
    versions: dict[str, str] = {}
    cases = list(_cases(graph, picture))
    for runtime in runtimes:
        opened = GraphPredictor(open_session(path, runtime), sidecar, graph.proposer)
        versions[runtime] = opened.session.version
        found = [_run(graph, opened, case, tolerances) for case in cases if case.min_score is None]
        for least in sorted({case.min_score for case in cases if case.min_score is not None}, reverse=True):
            if least == ALL and any(r.agreement.compared for r in found):
                continue  # boxes have been compared at the detector's own least score
            again = open_session(with_constant(path, "min_score", least), runtime)
            moved = GraphPredictor(again, sidecar, graph.proposer)
            found += [_run(graph, moved, case, tolerances) for case in cases if case.min_score == least]
        results += found
    return Parity(tuple(results), versions, tolerances)


def with_constant(path: Path, name: str, value: float) -> bytes:
    """The ONNX file with the number `name` set to `value`.

    Raises:
        ExportError: it has no such constant.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    for constant in model.graph.initializer:
        if constant.name == name:
            array = numpy_helper.to_array(constant).copy()
            array.fill(value)
            constant.CopyFrom(numpy_helper.from_array(array, name))
            return model.SerializeToString()
    raise ExportError(f"the graph has no constant {name!r}", where=str(path))


def _cases(graph: Graph, picture: Shaped[Tensor, "C H W"] | None) -> Iterable[Case]:
    channels = int(graph.images.shape[1])
    draw = torch.Generator().manual_seed(20)

    def noise(count: int, size_hw: tuple[int, int]) -> list[Tensor]:
        return list(torch.rand(count, channels, *size_hw, generator=draw))

    first, second = graph.sizes_hw
    yield Case("noise", noise(1, first), whole=False)
    yield Case("noise", noise(3, first), whole=False)
    yield Case("noise, another size", noise(2, second), whole=False)
    real = _real(picture, channels)
    size_hw = (int(real.shape[-2]), int(real.shape[-1]))
    flipped = torch.flip(real, (-1,))
    yield Case("a picture" if picture is None else "the picture given", [real], whole=True)
    yield Case("pictures of two sizes", [real, noise(1, (97, 141))[0], flipped], whole=True)
    yield Case("a flat picture", [torch.full((channels, *size_hw), 0.5)], whole=True, tied=True)
    if isinstance(graph, BoxGraph) and graph.decoding is None:
        yield Case("nothing found", noise(1, first), whole=False, min_score=ABOVE_ALL)
        yield Case("nothing found", noise(3, second), whole=False, min_score=ABOVE_ALL)
        yield Case("every box", noise(2, first), whole=False, min_score=ALL)


def _real(picture: Shaped[Tensor, "C H W"] | None, channels: int) -> Float[Tensor, "C2 H W"]:
    image = World(1, seed=7, size_hw=(180, 240), empty=0.0)[0].image if picture is None else picture
    image = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    # Networks of odd numbers of channels see the red one in each of them.
    return match_channels(image if channels in (1, 3, len(image)) else image[:1], channels)


def _run(graph: Graph, opened: GraphPredictor, case: Case, tolerances: Tolerances) -> CaseResult:
    found = _run_once(graph, opened, case, tolerances)
    if found.agreement.passed or not any(isinstance(m, UnpoolingDecoder) for m in graph.system.modules()):
        return found
    for attempt in range(1, TRIES):
        again = _run_once(graph, opened, _moved(case, attempt), tolerances)
        if again.agreement.passed:
            return again
    return found


def _moved(case: Case, attempt: int) -> Case:
    draw = torch.Generator().manual_seed(attempt)
    pictures = [(p + MOVE * torch.randn(p.shape, generator=draw)).clamp(0, 1) for p in case.pictures]
    return dataclasses.replace(case, name=f"{case.name}, noise added", pictures=pictures)


def _run_once(graph: Graph, opened: GraphPredictor, case: Case, tolerances: Tolerances) -> CaseResult:
    cut, most = 0.0, 0
    if isinstance(graph, BoxGraph):
        usual, most = float(graph.min_score), graph.max_detections
        cut = usual if case.min_score is None else case.min_score
        graph.min_score.fill_(cut)
        try:
            agreement = _compare(graph, opened, case, tolerances, cut, most)
        finally:
            graph.min_score.fill_(usual)
    else:
        agreement = _compare(graph, opened, case, tolerances, cut, most)
    sizes_hw = tuple((int(p.shape[-2]), int(p.shape[-1])) for p in case.pictures)
    layer = "whole" if case.whole else "graph"
    return CaseResult(opened.session.runtime, case.name, layer, sizes_hw, agreement)


@torch.inference_mode()
def _compare(
    graph: Graph, opened: GraphPredictor, case: Case, tolerances: Tolerances, cut: float, most: int
) -> Agreement:
    pictures = list(case.pictures)
    if case.whole:
        pairs = zip(graph.system.predict_images(pictures), opened.predict_images(pictures), strict=True)
        return join([compare_predictions(w, g, tolerances, cut, most, case.tied) for w, g in pairs])
    stack = torch.stack(pictures)
    others = graph.others(stack)
    answer = graph(stack, *others)
    wanted = answer if isinstance(answer, tuple) else (answer,)
    got = opened.run(stack, *others)
    if isinstance(graph, BoxGraph) and graph.decoding is None:
        count = len(pictures)
        pairs = zip(_by_picture(wanted, count), _by_picture(got, count), strict=True)
        return join([compare_boxes(w, g, tolerances, cut, most, case.tied) for w, g in pairs])
    if isinstance(graph, BoxGraph):
        return join([_compare_ranked(w, g, tolerances) for w, g in zip(_rows(wanted), _rows(got), strict=True)])
    relative = graph.outputs[0].name == "logits"
    return compare_values(wanted[0], got[0], tolerances.logit_share if relative else tolerances.prob, relative)


def _compare_ranked(wanted: Detections, got: Detections, tolerances: Tolerances) -> Agreement:
    """Unsuppressed boxes of one picture: the scores in order, and the best ones' partners, whatever the order of
    equal ones.
    """
    if len(wanted) != len(got):
        return Agreement(False, why=f"{len(got)} boxes, wanted {len(wanted)}")
    scores = compare_values(wanted.scores, got.scores, tolerances.prob, relative=False)
    best = compare_boxes(wanted[:RANKED], got[:RANKED], tolerances, 0.0, RANKED)
    return best if scores.passed else dataclasses.replace(scores, boxes=best.boxes)


def _rows(outputs: Sequence[Tensor]) -> list[Detections]:
    """Each picture's ranked boxes; those that the graph dropped, which have no score, left out."""
    boxes, scores, labels = outputs
    there = [row >= 0 for row in scores]
    return [Detections(b[t], n[t], s[t]) for b, n, s, t in zip(boxes, labels, scores, there, strict=True)]


def _by_picture(outputs: Sequence[Tensor], count: int) -> list[Detections]:
    boxes, scores, labels, pictures = outputs
    return [Detections(boxes[pictures == i], labels[pictures == i], scores[pictures == i]) for i in range(count)]
