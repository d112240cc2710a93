"""Small systems exported, run in both runtimes, and compared; and that the comparison sees a wrong graph."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_parts import small_system, unchecked

import bestiary
from bestiary.deploy.onnx_graph import exported_module
from bestiary.deploy.parity import Parity, check_parity, with_constant
from bestiary.deploy.region_graph import RegionGraph
from bestiary.deploy.runtimes import GraphPredictor, open_graph
from bestiary.deploy.sessions import OnnxRuntimeSession, open_session
from bestiary.deploy.sidecar import file_digest, read_sidecar, sidecar_path
from bestiary.errors import CheckpointError, ExportError, MissingExtraError, UsageError
from bestiary.pictures.encode import write_image
from bestiary.predictions import Classification, Detections, Segmentation
from bestiary.verbs.exporting import ExportReport, export

DETECTOR = "fasterrcnn_resnet18_fpn"
SYSTEMS = ("resnet18_cifar", "unet_padded_small", "unet", DETECTOR)
RUNTIMES = ("onnxruntime", "openvino")
Exported = Callable[[str], ExportReport]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_graph_says_what_the_model_says(exported: Exported, name: str) -> None:
    report = exported(name)
    assert report.parity.passed
    assert report.parity.verdict == "passed"
    assert report.parity.exercised == {"onnxruntime": True, "openvino": True}
    written = json.loads(report.parity_path.read_text(encoding="utf-8"))
    assert written["passed"]
    for runtime in RUNTIMES:
        cases = written["runtimes"][runtime]["cases"]
        assert {case["batch"] for case in cases} >= {1, 2, 3}
        assert {case["layer"] for case in cases} == {"graph", "whole"}
        assert len({tuple(size) for case in cases for size in case["sizes_hw"]}) >= 4
        assert all(case["max_rel"] < 1e-3 for case in cases)
    assert "parity: passed" in report.table()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_detectors_check_saw_boxes_and_saw_none(exported: Exported, runtime: str) -> None:
    cases = [r for r in exported(DETECTOR).parity.results if r.runtime == runtime]
    boxes = {(r.case, len(r.sizes_hw)): r.agreement.boxes for r in cases}
    assert boxes["nothing found", 1] == boxes["nothing found", 3] == (0, 0)
    there = boxes["noise", 3]
    assert there is not None
    assert there[0] == there[1] > 30


def test_the_sidecar_holds_what_a_runner_needs(exported: Exported) -> None:
    sidecar = read_sidecar(exported(DETECTOR).path)
    assert sidecar.task == "detection"
    assert sidecar.categories == ("cat", "dog", "bird")
    assert sidecar.inputs[0]["shape"] == ["B", 3, "H", "W"]
    assert [o["name"] for o in sidecar.outputs] == ["boxes", "scores", "labels", "pictures"]
    assert (sidecar.preparation["min_size"], sidecar.preparation["max_size"]) == (96, 160)
    assert sidecar.normalisation["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert sidecar.arguments == {"min_size": 96, "max_size": 160}
    assert sidecar.parity == {"verdict": "passed", "file": f"{DETECTOR}.parity.json"}
    assert [p.name for p in exported(DETECTOR).path.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", SYSTEMS)
def test_pictures_of_many_sizes_and_types_predict_as_in_torch(exported: Exported, name: str, runtime: str) -> None:
    system, graph = small_system(name), open_graph(exported(name).path, runtime, threads=1)
    assert (graph.task, graph.categories) == (system.task, system.categories)
    draw = torch.Generator().manual_seed(9)
    sizes = ((60, 81), (33, 120), (60, 81))
    pictures = [torch.randint(0, 256, (3, *size), generator=draw, dtype=torch.uint8) for size in sizes]
    for wanted, got in zip(system.predict(pictures, batch=3), graph.predict(pictures, batch=3), strict=True):
        assert wanted.size_hw == got.size_hw
        assert got.image is not None
        if isinstance(wanted, Detections) and isinstance(got, Detections):
            assert len(wanted) == len(got) > 0
            assert torch.allclose(wanted.boxes_xyxy, got.boxes_xyxy, atol=0.01)
        elif isinstance(wanted, Segmentation) and isinstance(got, Segmentation):
            assert (wanted.label_map != got.label_map).float().mean() < 1e-3
        else:
            assert torch.allclose(wanted.probs, got.probs, atol=1e-5)  # type: ignore[union-attr]


def test_no_picture_is_no_prediction(exported: Exported) -> None:
    assert open_graph(exported("resnet18_cifar").path).predict_images([]) == []


def test_load_hands_threads_and_precision_to_the_graph(exported: Exported) -> None:
    path = exported("resnet18_cifar").path
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, rounded = (
        bestiary.load(path, "openvino", threads=1, precision=p).predict_images([picture])[0]
        for p in ("float32", "bfloat16")
    )
    assert isinstance(exact, Classification)
    assert isinstance(rounded, Classification)
    assert 0 < float((exact.probs - rounded.probs).abs().max()) < 0.05
    with pytest.raises(UsageError, match="float8"):
        bestiary.load(path, "openvino", precision="float8")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bytes_with_a_moved_constant_find_nothing_in_a_batch_of_any_size(exported: Exported, runtime: str) -> None:
    report = exported(DETECTOR)
    session = open_session(with_constant(report.path, "min_score", 2.0), runtime, threads=1)
    graph = GraphPredictor(session, read_sidecar(report.path))
    for count in (1, 4):
        found = graph.predict_images([torch.rand(3, 50, 70)] * count)
        assert [len(p) for p in found if isinstance(p, Detections)] == [0] * count
    with pytest.raises(ExportError, match="no constant 'nothing'"):
        with_constant(report.path, "nothing", 0.0)


def corrupt(path: Path, name: str, to: Path) -> Path:
    """The graph with one weight tensor 2 % larger, and a sidecar that fits."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    (constant,) = (c for c in model.graph.initializer if c.name.endswith(name))
    constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) * np.float32(1.02), constant.name))
    onnx.save(model, str(to))
    document = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    sidecar_path(to).write_text(json.dumps({**document, "sha256": file_digest(to)}), encoding="utf-8")
    return to


def check(system: str, path: Path, runtimes: tuple[str, ...] = ("onnxruntime",)) -> Parity:
    return check_parity(exported_module(small_system(system)), path, read_sidecar(path), runtimes)


@pytest.mark.parametrize(
    ("name", "weight"),
    [("resnet18_cifar", "fc.weight"), ("unet_padded_small", "outc.conv.weight"), (DETECTOR, "bbox_pred.weight")],
)
def test_a_weight_that_is_two_percent_off_is_caught(exported: Exported, name: str, weight: str, tmp_path: Path) -> None:
    weight = f"box_predictor.{weight}" if name == DETECTOR else weight
    parity = check(name, corrupt(exported(name).path, weight, tmp_path / "bad.onnx"))
    assert not parity.passed
    assert parity.verdict.startswith("failed: onnxruntime, noise")


def test_a_detector_that_says_nothing_is_exercised_at_every_box_or_reported(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "silent.onnx"
    path.write_bytes(with_constant(exported(DETECTOR).path, "min_score", 0.9999))
    document = json.loads(sidecar_path(exported(DETECTOR).path).read_text(encoding="utf-8"))
    sidecar_path(path).write_text(json.dumps({**document, "sha256": file_digest(path)}), encoding="utf-8")
    module = exported_module(small_system(DETECTOR))
    assert isinstance(module, RegionGraph)
    module.min_score.fill_(0.9999)
    # The whole layer asks the system, whose own settings must be as silent.
    silent_regions = dataclasses.replace(module.network.regions, min_score=0.9999)
    monkeypatch.setattr(module.network, "regions", silent_regions)
    parity = check_parity(module, path, read_sidecar(path), ("onnxruntime",))
    assert parity.verdict == "passed"
    assert [r.agreement.compared > 0 for r in parity.results if r.case == "every box"] == [True]
    silent = Parity(tuple(r for r in parity.results if r.case != "every box"), parity.versions, parity.tolerances)
    assert silent.verdict == "passed, not exercised: no box was found in any input (onnxruntime)"
    assert not silent.to_dict()["runtimes"]["onnxruntime"]["exercised"]
    assert float(module.min_score) == pytest.approx(0.9999)


def test_a_graph_that_fails_is_kept_apart_and_the_good_one_stays(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bestiary.verbs import exporting

    good = tmp_path / "net.onnx"
    good.write_bytes(b"the good one")
    source = exported("unet_padded_small").path

    def write_wrong(graph: object, path: Path) -> object:
        return read_sidecar(corrupt(source, "outc.conv.weight", path))

    monkeypatch.setattr(exporting, "write_graph", write_wrong)
    with pytest.raises(ExportError, match=r"does not equal the model \(failed: onnxruntime.*net\.failed\.onnx"):
        export(small_system("unet_padded_small"), good, runtimes=("onnxruntime",))
    assert good.read_bytes() == b"the good one"
    assert (tmp_path / "net.failed.onnx").is_file()
    assert not json.loads((tmp_path / "net.failed.parity.json").read_text(encoding="utf-8"))["passed"]


def test_from_checkpoint_to_drawn_pictures_on_the_command_line(tmp_path: Path) -> None:
    from bestiary.verbs.models import save

    checkpoint = save(small_system("unet_padded_small"), tmp_path / "best.safetensors")
    with unchecked():
        report = export(tmp_path, runtimes=("onnxruntime",))
    assert report.path == tmp_path / "best.onnx"
    assert bestiary.load(report.path).categories == ("background", "cell")
    assert isinstance(bestiary.load(checkpoint, runtime="openvino"), GraphPredictor)
    write_image(tmp_path / "shots" / "a.png", torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8))
    arguments = ["predict", str(report.path), str(tmp_path / "shots"), "--out", str(tmp_path / "drawn"), "--json"]
    command = [sys.executable, "-m", "bestiary", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[0])["name"] == "a.png"
    assert list((tmp_path / "drawn").glob("*"))
    with pytest.raises(UsageError, match="exported already"):
        export(report.path)


def test_targets_and_runtimes_that_cannot_be(tmp_path: Path) -> None:
    system = small_system("unet_padded_small")
    with pytest.raises(UsageError, match=r"Name the \.onnx file"):
        export(system)
    with pytest.raises(UsageError, match=r"wanted a file that ends in \.onnx"):
        export(system, tmp_path / "net.pt")
    with pytest.raises(UsageError, match="got 'tensorrt'"):
        export(system, tmp_path, runtimes=("onnxruntime", "tensorrt"))
    with pytest.raises(UsageError, match="got none"):
        export(system, tmp_path, runtimes=())
    with pytest.raises(CheckpointError):
        export(tmp_path / "nothing.safetensors")


def test_runtimes_precisions_and_threads_that_cannot_be(exported: Exported) -> None:
    path = exported("unet_padded_small").path
    with pytest.raises(UsageError, match="runtime: got 'tensorrt'"):
        open_graph(path, "tensorrt")
    with pytest.raises(UsageError, match="threads: got 0"):
        open_graph(path, threads=0)
    with pytest.raises(UsageError, match="onnxruntime has no other"):
        open_graph(path, precision="bfloat16")
    with pytest.raises(UsageError, match="precision: got 'int3'"):
        open_graph(path, "openvino", precision="int3")


def test_a_graph_of_garbage_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    for runtime in RUNTIMES:
        with pytest.raises(CheckpointError, match=rf"bad\.onnx: {runtime} cannot read the graph"):
            open_session(tmp_path / "bad.onnx", runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_runtime_names_the_extra(runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(MissingExtraError, match=rf"{runtime} is not installed.*bestiary\[export\]"):
        open_session(tmp_path / "any.onnx", runtime)


def test_bfloat16_answers_are_near_and_float32_ones_are_not_bfloat16(exported: Exported) -> None:
    path, image = exported("resnet18_cifar").path, [torch.rand(3, 40, 40)]
    exact = OnnxRuntimeSession(path, 1)
    wanted = GraphPredictor(exact, read_sidecar(path)).predict_images(image)[0].probs  # type: ignore[union-attr]
    for precision, limit in (("float32", 1e-5), ("bfloat16", 0.1)):
        got = open_graph(path, "openvino", 1, precision).predict_images(image)[0].probs  # type: ignore[union-attr]
        assert float((wanted - got).abs().max()) < limit


def test_openvinos_telemetry_is_neither_loaded_nor_written(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from bestiary.deploy.sessions import OpenVinoSession\n"
        "try:\n    OpenVinoSession(b'garbage')\nexcept Exception as e:\n    assert 'cannot read' in str(e), e\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry')]\n"
    )
    home = {**os.environ, "HOME": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path.parent / "numba")}
    run = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not [p for p in tmp_path.rglob("*") if "intel" in str(p).lower() or "openvino" in str(p).lower()]
