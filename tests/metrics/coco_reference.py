"""pycocotools on dictionaries, quietly."""

import contextlib
import copy
import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}


def reference(
    truths: dict,
    results: list[dict],
    kind: str = "boxes",
    max_detections: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
) -> COCOeval:
    """An evaluation with all of its arrays and `stats`."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = copy.deepcopy(truths)
        annotated.createIndex()
        said = annotated.loadRes(copy.deepcopy(results)) if results else COCO()
        if not results:
            said.dataset = {**copy.deepcopy(truths), "annotations": []}
            said.createIndex()
        evaluation = COCOeval(annotated, said, TYPES[kind])
        if max_detections is not None:
            evaluation.params.maxDets = list(max_detections)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def require_equal(values: dict[str, float], stats: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Every number to 1e-12; NaN where the reference has -1."""
    for name, stat in zip(names or list(values), stats, strict=True):
        if stat == -1:
            assert math.isnan(values[name]), name
        else:
            assert values[name] == pytest.approx(stat, abs=1e-12), name
