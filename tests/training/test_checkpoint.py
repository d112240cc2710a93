import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bestiary.errors import CheckpointError
from bestiary.training import checkpoint
from bestiary.training.checkpoint import previous_of, read_facts, read_model, read_state, write_model, write_state

IDENTITY = {"model": "tiny", "arguments": {"width": 4}, "categories": ["ä", "b"], "loss": float("inf")}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(4, 3, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }


def test_a_model_file_gives_back_every_bit_and_fact(tmp_path: Path) -> None:
    path = write_model(tmp_path / "deep" / "a.safetensors", tensors(), IDENTITY)
    state, facts = read_model(path)
    assert state.keys() == tensors().keys()
    assert all(torch.equal(state[k], v) and state[k].dtype == v.dtype for k, v in tensors().items())
    assert {k: facts[k] for k in IDENTITY} == IDENTITY
    assert (facts["schema"], facts["kind"]) == (1, "model")
    assert read_facts(path) == facts
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.safetensors"]


def test_any_safetensors_reader_can_open_it(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.safetensors", tensors(), IDENTITY)
    with safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["bestiary"])["model"] == "tiny"
        assert int(file.get_tensor("count")) == 7


def test_the_file_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_model(tmp_path / "a.safetensors", tensors(), {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_tied_weights_and_views_are_written_whole(tmp_path: Path) -> None:
    weight = torch.arange(12.0).view(3, 4)
    path = write_model(tmp_path / "a.safetensors", {"a": weight, "b": weight, "row": weight[1], "rest": weight[1:]}, {})
    state, _ = read_model(path)
    assert torch.equal(state["a"], state["b"])
    assert state["row"].tolist() == [4, 5, 6, 7]
    assert state["rest"].shape == (2, 4)


def test_the_file_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for epoch in range(3):
        write_model(path, {"x": torch.tensor(epoch)}, {"epoch": epoch})
    assert read_model(path)[1]["epoch"] == 2
    assert read_model(previous_of(path))[1]["epoch"] == 1


def test_the_file_before_is_kept_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.safetensors"
    for epoch in range(2):
        write_model(path, {"x": torch.tensor(epoch)}, {"epoch": epoch})
    assert read_model(previous_of(path))[1]["epoch"] == 0


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 60, -1])
def test_a_truncated_file_is_named_with_the_one_before(tmp_path: Path, keep: int) -> None:
    path = write_model(tmp_path / "a.safetensors", tensors(), IDENTITY)
    copy = tmp_path / "b.safetensors"
    copy.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError) as caught:
        read_model(copy)
    assert caught.value.where == str(copy)
    assert "broken" in caught.value.message
    assert caught.value.mend is None
    write_model(path, tensors(), IDENTITY)
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_model, read_state, read_facts):
        with pytest.raises(CheckpointError, match=r"broken.*a\.safetensors\.previous"):
            read(path)
    assert read_model(previous_of(path))[1]["model"] == "tiny"


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.safetensors", tensors(), IDENTITY)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        read_model(path)


def test_foreign_missing_swapped_and_newer_files(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="not a checkpoint of this library"):
        read_model(foreign)
    with pytest.raises(CheckpointError, match="no such file"):
        read_model(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match="a state file, wanted a model file"):
        read_model(write_state(tmp_path / "s.safetensors", {}, {}))
    with pytest.raises(CheckpointError, match="a model file, wanted a state file"):
        read_state(write_model(tmp_path / "m.safetensors", {}, {}))
    save_file({}, foreign, {"bestiary": json.dumps({"schema": 2, "bestiary": "9.0"})})
    with pytest.raises(CheckpointError, match=r"layout 2 \(version 9.0\), wanted 1 at most"):
        read_facts(foreign)
    save_file({}, foreign, {"bestiary": "{"})
    with pytest.raises(CheckpointError, match="broken"):
        read_facts(foreign)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="broken"):
        read_model(path)


FULL = """
import resource, sys, torch
from pathlib import Path
from bestiary.errors import CheckpointError
from bestiary.training.checkpoint import write_model
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_model(Path(sys.argv[1]), {"x": torch.ones(100000)}, {})
except CheckpointError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The system refuses to let the file grow; what it says is an OSError of the writing library."""
    path = write_model(tmp_path / "a.safetensors", {"x": torch.zeros(3)}, {})
    run = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "could not be written" in run.stdout
    assert "untouched" in run.stdout
    assert read_model(path)[0]["x"].tolist() == [0, 0, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors"]


@pytest.mark.parametrize("where", ["save_file", "fsync", "replace"])
def test_no_space_at_any_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = write_model(tmp_path / "a.safetensors", {"x": torch.zeros(3)}, {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint if where == "save_file" else os, where, full)
        with pytest.raises(CheckpointError, match=r"the disk is full.*untouched\. Free some space"):
            write_model(path, {"x": torch.ones(3)}, {})
        with pytest.raises(CheckpointError, match=r"the disk is full.*Nothing was left"):
            write_model(tmp_path / "new.safetensors", {"x": torch.ones(3)}, {})
    assert read_model(path)[0]["x"].tolist() == [0, 0, 0]
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".writing",) or p.name.startswith("new")]


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = checkpoint.write_atomically(tmp_path / "a.txt", "ä\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="disk is full"):
            checkpoint.write_atomically(path, "b\n")
    assert path.read_text(encoding="utf-8") == "ä\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
