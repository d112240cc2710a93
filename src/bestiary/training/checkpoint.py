"""Checkpoint files: safetensors whose metadata is JSON; written atomically, the one before kept, never a pickle.

A model file holds the tensors of one system and says how to rebuild it (model name, constructor arguments, categories)
and where it came from (settings, scores, versions). A state file holds what a run needs to go on; it is complete by
itself, so that a kill between two files cannot make them disagree.
"""

import contextlib
import errno
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import bestiary
from bestiary.errors import CheckpointError

SCHEMA = 1
"""Version of the layout of these files; a reader refuses what is newer than itself."""

KEY = "bestiary"
"""The metadata's entry that holds the JSON."""


def write_model(path: Path, state: Mapping[str, Tensor], identity: Mapping[str, Any]) -> Path:
    """Write a model file; the one before becomes `NAME.previous`.

    Args:
        path: ends in `.safetensors`.
        state: a system's `state_dict()`.
        identity: plain JSON: "model", "arguments" and "categories" rebuild the system; anything else is kept beside
            them.

    Raises:
        CheckpointError: it cannot be written (the disk is full, say); what stood there before is untouched.
    """
    return _write(path, state, {"kind": "model", **identity})


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and identity of a model file.

    Raises:
        CheckpointError: missing, broken, foreign or newer than this version; it names the previous file where there is
        one.
    """
    tensors, facts = _read(path)
    _require_kind(path, facts, "model")
    return tensors, facts


def write_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write a state file: all that a run needs to go on. Raises like `write_model`."""
    return _write(path, tensors, {"kind": "state", **facts})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a state file. Raises like `read_model`."""
    tensors, facts = _read(path)
    _require_kind(path, facts, "state")
    return tensors, facts


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON of a checkpoint file alone, without reading its tensors. Raises like `read_model`."""
    try:
        with safe_open(_existing(path), framework="pt") as file:
            return _facts(path, file.metadata())
    except (SafetensorError, OSError) as error:
        raise _broken(path, str(error)) from error


def previous_of(path: Path) -> Path:
    """Where the file that stood at `path` before the last writing is kept."""
    return path.with_name(path.name + ".previous")


def write_atomically(path: Path, text: str) -> Path:
    """Write a text file so that at any moment either the old or the new one stands there, whole."""
    scratch = _scratch(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text, encoding="utf-8")
        _reach_disk(scratch)
        os.replace(scratch, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise _unwritten(path, error) from error
    return path


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    whole = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    _separate(whole)
    versions = {"schema": SCHEMA, "bestiary": bestiary.__version__, "crc32": _checksum(whole)}
    metadata = {"format": "pt", KEY: json.dumps({**facts, **versions}, allow_nan=True)}
    scratch = _scratch(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch()
        mode = scratch.stat().st_mode  # what the user's umask gives; safetensors would make the file private
        save_file(whole, scratch, metadata)
        scratch.chmod(mode)
        _reach_disk(scratch)
        if path.exists():
            _keep(path)
        os.replace(scratch, path)
        _reach_disk(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise _unwritten(path, error) from error
    return path


def _scratch(path: Path) -> Path:
    """A file in the same folder, hence file system; always the same name, so that a killed run leaves only one."""
    return path.with_name(path.name + ".writing")


def _separate(tensors: dict[str, Tensor]) -> None:
    """Copy what shares memory with another entry (tied weights), which the format does not allow."""
    seen: set[int] = set()
    for name, value in tensors.items():
        address = value.untyped_storage().data_ptr()
        if value.numel() and (
            address in seen or value.untyped_storage().nbytes() != value.numel() * value.element_size()
        ):
            tensors[name] = value.clone()
        seen.add(address)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        if tensors[name].numel():
            total = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, total)
    return total


def _keep(path: Path) -> None:
    """Keep the file at `path` as the previous one, without a moment in which no file stands there."""
    kept, link = previous_of(path), path.with_name(path.name + ".keeping")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        shutil.copyfile(path, link)  # file systems without hard links
    os.replace(link, kept)


def _reach_disk(path: Path) -> None:
    """Wait until `path`, a file or a folder, has been written through; some systems cannot open folders."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(_existing(path), framework="pt") as file:
            facts = _facts(path, file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise _broken(path, str(error)) from error
    if _checksum(tensors) != facts.get("crc32"):
        raise _broken(path, "its checksum does not fit its tensors")
    return tensors, facts


def _facts(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    if not metadata or KEY not in metadata:
        raise CheckpointError("it is a safetensors file, but not a checkpoint of this library", where=str(path))
    try:
        facts = json.loads(metadata[KEY])
    except ValueError as error:
        raise _broken(path, str(error)) from error
    if facts.get("schema", 0) > SCHEMA:
        message = f"it has layout {facts['schema']} (version {facts.get('bestiary')}), wanted {SCHEMA} at most"
        raise CheckpointError(message, where=str(path), mend="Update: pip install -U bestiary")
    return facts


def _require_kind(path: Path, facts: Mapping[str, Any], wanted: str) -> None:
    got = facts.get("kind")
    if got != wanted:
        raise CheckpointError(f"it is a {got} file, wanted a {wanted} file", where=str(path))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError("there is no such file", where=str(path), mend=_advice(path))
    return path


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"the file is broken ({why})", where=str(path), mend=_advice(path))


def _advice(path: Path) -> str | None:
    kept = previous_of(path)
    return f"The one before it stands at {kept}: copy it over to use that" if kept.is_file() else None


def _unwritten(path: Path, error: Exception) -> CheckpointError:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)
    why = "the disk is full" if full else str(error)
    stands = "What stood there before is untouched" if path.exists() else "Nothing was left behind"
    mend = f"{stands}. Free some space and resume" if full else stands
    return CheckpointError(f"it could not be written: {why}", where=str(path), mend=mend)
