import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bestiary.errors import CheckpointError
from bestiary.layers.frozen_norm import FrozenBatchNorm2d
from bestiary.weights import load as module
from bestiary.weights.load import load_published, load_state, read_state
from bestiary.weights.registry import find_entry


class Runs:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def classifier(classes: int = 3, width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, classes))


STATE = {"a.weight": torch.rand(3, 2), "b": torch.tensor([1, 2])}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_states_and_their_usual_wrappers(tmp_path: Path, wrapper: str | None, legacy: bool) -> None:
    path = tmp_path / "x.pth"
    content = STATE if wrapper is None else {wrapper: STATE, "epoch": 3, "args": {"lr": 0.1}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert equal(read_state(path), STATE)


def test_safetensors_and_a_parallel_wrapper(tmp_path: Path) -> None:
    save_file({"module." + name: value for name, value in STATE.items()}, tmp_path / "x.safetensors")
    assert equal(read_state(str(tmp_path / "x.safetensors")), STATE)


def test_plain_values_among_the_tensors_are_left_out(tmp_path: Path) -> None:
    torch.save({**STATE, "mask_values": [0, 1]}, tmp_path / "x.pth")
    assert equal(read_state(tmp_path / "x.pth"), STATE)


@pytest.mark.parametrize("protocol", [None, "legacy", 2, 4])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: str | int | None) -> None:
    trap, path = tmp_path / "trap", tmp_path / "x.pth"
    if isinstance(protocol, int):
        path.write_bytes(pickle.dumps({"weight": Runs(trap)}, protocol))
    else:
        torch.save({"weight": Runs(trap)}, path, _use_new_zipfile_serialization=protocol is None)
    words = "nothing that torch.save wrote" if protocol == 4 else "wants to run code .*mkdir.*, which is never done"
    with pytest.raises(CheckpointError, match=words):
        read_state(path)
    assert not trap.exists()


def test_a_whole_model_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save(classifier(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"wants to run code \(torch.nn.modules.*state dict of tensors"):
        read_state(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.99])
def test_truncated_files_are_called_broken(tmp_path: Path, name: str, share: float) -> None:
    path, big = tmp_path / name, {"a": torch.rand(2000)}
    save_file(big, path) if path.suffix == ".safetensors" else torch.save(big, path)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * share))])
    with pytest.raises(CheckpointError, match=r"cannot be read.*bytes.*truncated, damaged or no checkpoint"):
        read_state(path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_truncated_legacy_files_are_called_broken(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.rand(2000)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(path)


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.safetensors"])
def test_other_bad_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(CheckpointError, match="no such file"):
        read_state(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="the file is empty"):
        read_state(path)
    path.write_text("<html>404 not found</html>" * 30)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_state(tmp_path)


def test_files_without_tensors_say_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"epoch": 3, "lr": 0.1}, path)
    with pytest.raises(CheckpointError, match=r"no tensors .it holds epoch, lr"):
        read_state(path)
    torch.save([torch.rand(2)], path)
    with pytest.raises(CheckpointError, match="holds a list, wanted a mapping"):
        read_state(path)


def test_a_state_that_fits_is_copied_whole() -> None:
    there, here = classifier(), classifier()
    report = load_state(here, there.state_dict())
    assert equal(dict(here.state_dict()), dict(there.state_dict()))
    assert report.summary() == f"{len(here.state_dict())} entries loaded"
    assert here[0].weight.data_ptr() != there[0].weight.data_ptr()


def test_types_are_converted() -> None:
    there, here = classifier().double(), classifier()
    load_state(here, there.state_dict())
    assert here[0].weight.dtype == torch.float32
    assert torch.equal(here[0].weight, there[0].weight.float())


def test_another_number_of_categories_leaves_the_head_new_and_says_so() -> None:
    there, here = classifier(1000), classifier(7)
    fresh = here[3].weight.clone()
    report = load_state(here, there.state_dict())
    assert torch.equal(here[3].weight, fresh)
    assert torch.equal(here[0].weight, there[0].weight)
    assert [m.name for m in report.new_head] == ["3.weight", "3.bias"]
    assert "new head for other categories" in report.summary()
    assert "3.weight 1000 -> 7" in report.summary()
    with pytest.raises(CheckpointError, match=r"3.weight: \(1000, 4\) in the file, \(7, 4\) in the model"):
        load_state(here, there.state_dict(), new_head=False)


def test_another_width_is_no_new_head_and_changes_nothing() -> None:
    here = classifier(width=8)
    before = {name: value.clone() for name, value in here.state_dict().items()}
    words = r"does not fit the model toy: 7 of another shape \(0.weight: \(4, 3, 3, 3\) in the file, \(8, 3, 3, 3\)"
    with pytest.raises(CheckpointError, match=words) as caught:
        load_state(here, classifier(width=4).state_dict(), model_name="toy", where="x.pth")
    assert caught.value.where == "x.pth"
    assert "and 2 more" in str(caught.value)
    assert equal(dict(here.state_dict()), before)


def test_missing_and_unexpected_names_come_with_the_nearest_and_both_shapes() -> None:
    model = nn.ModuleDict({"head": nn.Linear(4, 2), "body": nn.Linear(3, 4)})
    state = dict(model.state_dict())
    state["heads.weight"] = state.pop("head.weight")
    with pytest.raises(CheckpointError) as caught:
        load_state(model, state)
    said = str(caught.value)
    assert "1 missing (head.weight (2, 4), nearest in the file: heads.weight (2, 4))" in said
    assert "1 unexpected (heads.weight (2, 4), nearest in the model: head.weight (2, 4))" in said


def test_not_strict_takes_what_fits_and_reports_the_rest() -> None:
    here, there = classifier(), classifier()
    state = dict(there.state_dict())
    del state["3.bias"]
    state["extra"] = torch.rand(2)
    report = load_state(here, state, strict=False)
    assert (report.missing, report.unexpected) == (("3.bias",), ("extra",))
    assert "1 missing; 1 unexpected" in report.summary()
    assert torch.equal(here[3].weight, there[3].weight)
    with pytest.raises(CheckpointError, match="2 unexpected"):
        load_state(here, STATE, strict=False)


def test_batch_counters_may_be_missing_or_superfluous() -> None:
    there, here = classifier(), classifier()
    without = {name: value for name, value in there.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert load_state(here, without).missing == ()
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    assert load_state(frozen, there.state_dict()).unexpected == ()
    assert torch.equal(frozen[1].running_var, there[1].running_var)


class Detector(nn.Module):
    """The newer names of a detector's parts that were renamed."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = FrozenBatchNorm2d(2, eps)
        self.rpn = nn.ModuleDict({"head": nn.ModuleDict({"conv": nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 3)))})})
        blocks = nn.ModuleDict({"inner_blocks": nn.ModuleList([nn.Sequential(nn.Conv2d(2, 2, 1))])})
        self.backbone = nn.ModuleDict({"fpn": blocks})


def first_layout(model: nn.Module) -> dict[str, Tensor]:
    """The state under the names of the first files."""
    names = {".conv.0.0.": ".conv.", "inner_blocks.0.0.": "inner_blocks.0."}
    state = {}
    for name, value in model.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        state[name] = value
    return state


def test_a_published_detector_is_found_checked_renamed_and_gets_its_eps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = Detector(), Detector()
    state = first_layout(there)
    assert "rpn.head.conv.weight" in state
    assert "backbone.fpn.inner_blocks.0.weight" in state
    path = tmp_path / "home" / "weights" / "x"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    entry = find_entry("fasterrcnn_resnet50_fpn")
    made = type(entry)(entry.model, entry.tag, f"toy-{digest}.pth", entry.data, entry.scores, norm_eps=0.0)
    path.rename(path.with_name(made.file))
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "find_entry", lambda name: made)
    report = load_published(here, "fasterrcnn_resnet50_fpn", offline=True)
    assert len(report.loaded) == len(here.state_dict())
    assert equal(dict(here.state_dict()), dict(there.state_dict()))
    assert here.norm.eps == report.arguments["norm_eps"] == 0.0


def test_a_public_segmenter_goes_through_a_file_into_ours(tmp_path: Path) -> None:
    """A padded U-Net's file in the public layout, with the value that its training script adds, into our model."""
    from bestiary.segmentation.unet import unet_padded

    there, here = unet_padded(width=2), unet_padded(["a", "b", "c"], width=2)
    torch.save({**there.state_dict(), "mask_values": [0, 1]}, tmp_path / "x.pth")
    report = load_state(here, read_state(tmp_path / "x.pth"), "unet_padded")
    assert [m.name for m in report.new_head] == ["outc.conv.weight", "outc.conv.bias"]
    assert torch.equal(here.up4.up.weight, there.up4.up.weight)
