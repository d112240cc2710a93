"""Arrays kept on disk under the hash of everything that they were made from, so that none is ever stale.

A key is made of parts: a picture's pixels, a method's settings, a network's parameters. Change any and it is another
key. Files are written under another name and then renamed, so that several processes may share a folder; a file that
cannot be read counts as absent.
"""

import contextlib
import hashlib
import json
import os
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bestiary.errors import UsageError

GIGABYTE = 1 << 30
LITTLE_FULL = 0.9
"""Share of the limit that is left when old files have been removed."""

UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, SyntaxError,
    NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What numpy and zipfile raise over a file that is broken, in whichever of its bytes."""

ABANDONED = 24 * 3600.0
"""Seconds after which a file that was never finished is one that a killed process left."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where arrays are kept unless a folder is named: `$BESTIARY_HOME/arrays`, or `bestiary/arrays` in the user's cache
    folder.
    """
    if environment.get("BESTIARY_HOME"):
        return Path(environment["BESTIARY_HOME"]).expanduser() / "arrays"
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bestiary" / "arrays"


def key_of(*parts: object) -> str:
    """The SHA-256 of the parts, in hexadecimal digits.

    Args:
        parts: tensors, arrays, text, numbers, None, and sequences and mappings of such; a mapping's order does not
            count, an array's type and shape do.

    Raises:
        TypeError: a part is none of these.
    """
    digest = hashlib.sha256()
    _add(digest, parts)
    return digest.hexdigest()


def _add(digest: Any, part: object) -> None:
    if isinstance(part, Tensor):
        bits = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"tensor {part.dtype} {tuple(part.shape)};".encode())
        digest.update(bits.data)
    elif isinstance(part, np.ndarray) and not part.dtype.hasobject:
        digest.update(f"array {part.dtype.str} {part.shape};".encode())
        digest.update(np.ascontiguousarray(part).data)
    elif part is None or isinstance(part, str | int | float | bool):
        digest.update(f"{type(part).__name__} {json.dumps(part)};".encode())
    elif isinstance(part, Mapping):
        digest.update(f"mapping {len(part)};".encode())
        for name in sorted(part):
            _add(digest, name)
            _add(digest, part[name])
    elif isinstance(part, Sequence) and not isinstance(part, bytes | bytearray | memoryview):
        digest.update(f"sequence {len(part)};".encode())
        for item in part:
            _add(digest, item)
    else:
        raise TypeError(f"a key cannot be made of {type(part).__name__}")


class ArrayCache:
    """Named arrays by key, in a folder of at most so many bytes: those not read for longest go first.

    Args:
        folder: made when the first arrays are put there.
        limit_bytes: of all files together.

    Raises:
        UsageError: a limit that is not positive.
    """

    def __init__(self, folder: str | Path, limit_bytes: int = 20 * GIGABYTE) -> None:
        if limit_bytes < 1:
            raise UsageError(f"got {limit_bytes}, wanted at least 1", where="limit_bytes")
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self._held: int | None = None

    def path_of(self, key: str) -> Path:
        """Where the arrays of a key stand, if they do."""
        return self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays, or None."""
        path = self.path_of(key)
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except UNREADABLE:
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(path)
        return arrays

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays; where the disk is full or may not be written, nothing is kept and nothing is said."""
        path = self.path_of(key)
        partial: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
                partial = Path(file.name)
                np.savez(file, **arrays)  # type: ignore[arg-type]
            partial.chmod(0o644)  # temporary files are private, a cache need not be
            size = partial.stat().st_size
            partial.replace(path)
        except OSError:
            if partial is not None:
                partial.unlink(missing_ok=True)
            return
        self._held = self._size() if self._held is None else self._held + size
        if self._held > self.limit_bytes:
            self._held = self._make_room()

    def _files(self) -> Iterable[tuple[float, int, Path]]:
        for path in self.folder.glob("??/*.npz"):
            with contextlib.suppress(FileNotFoundError):  # another process made room
                found = path.stat()
                yield found.st_mtime, found.st_size, path

    def _size(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _make_room(self) -> int:
        files = sorted(self._files())
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held <= LITTLE_FULL * self.limit_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                held -= size
        self._remove_abandoned()
        return held

    def _remove_abandoned(self) -> None:
        for path in self.folder.glob("??/*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
