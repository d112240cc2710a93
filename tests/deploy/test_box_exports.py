"""Detectors exported and run: batches of one, two and three pictures, two sizes, found and not found."""

from pathlib import Path

import pytest
import torch
from box_systems import box_system
from deploy_parts import unchecked

from bestiary.deploy.runtimes import open_graph
from bestiary.deploy.sidecar import read_sidecar
from bestiary.predictions import Detections
from bestiary.verbs.exporting import export


@pytest.mark.parametrize("name", ["faster_rcnn_c4", "r_fcn_small", "retinanet"])
def test_the_file_says_what_the_system_says(name: str, tmp_path: Path) -> None:
    with unchecked():
        report = export(box_system(name), tmp_path / f"{name}.onnx", runtimes=("onnxruntime",))
    assert report.parity.verdict == "passed"
    boxes = {(r.case, len(r.sizes_hw)): r.agreement.boxes for r in report.parity.results}
    for count in (1, 3):
        found = boxes["noise", count]
        assert found is not None
        assert found[0] == found[1] > 10 * count


def test_a_graph_without_suppression_predicts_all_the_same(tmp_path: Path) -> None:
    system = box_system("yolo_v2")
    with unchecked():
        report = export(system, tmp_path / "net.onnx", runtimes=("onnxruntime",), nms="outside")
    assert report.parity.verdict == "passed"
    sidecar = read_sidecar(report.path)
    assert [port["name"] for port in sidecar.outputs] == ["boxes", "scores", "labels"]
    assert sidecar.decoding is not None
    assert sidecar.decoding["nms_iou"] == 0.5
    picture = torch.rand(3, 70, 110, generator=torch.Generator().manual_seed(1))
    (wanted,), (got,) = system.predict_images([picture]), open_graph(report.path, threads=1).predict_images([picture])
    assert isinstance(wanted, Detections)
    assert isinstance(got, Detections)
    assert len(wanted) > 10
    torch.testing.assert_close(got.boxes_xyxy, wanted.boxes_xyxy, rtol=0, atol=0.05)
