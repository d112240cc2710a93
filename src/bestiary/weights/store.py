"""Where published files lie on this machine, and how they get there: checked, whole, or not at all.

Folders are searched in this order: `$BESTIARY_HOME/weights` (or `bestiary/weights` in the user's cache folder), then
torch's own cache, so that a file that torchvision has fetched is not fetched again.
"""

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from bestiary.errors import CheckpointError
from bestiary.weights.registry import Published, find_entry

Progress = Callable[[int, int | None], None]
"""Told the bytes done and, if the server says, the bytes in all."""

CHUNK = 1 << 20


def weights_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where downloads go; need not exist."""
    if environment.get("BESTIARY_HOME"):
        return Path(environment["BESTIARY_HOME"]).expanduser() / "weights"
    return _cache_folder(environment) / "bestiary" / "weights"


def search_folders(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Every folder that is searched, in order."""
    if environment.get("TORCH_HOME"):
        torch_home = Path(environment["TORCH_HOME"]).expanduser()
    else:
        torch_home = _cache_folder(environment) / "torch"
    return (weights_folder(environment), torch_home / "hub" / "checkpoints")


def is_offline(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `BESTIARY_OFFLINE` or `HF_HUB_OFFLINE` forbids the network."""
    values = (environment.get(name, "").strip().lower() for name in ("BESTIARY_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value in ("1", "true", "yes", "on") for value in values)


def find_published(name: str, offline: bool = False, progress: Progress | None = None) -> Path:
    """The file of the published weights called `name`, fetched if it is not here. See `registry.find_entry` for names.

    Raises:
        UsageError: nothing is called so.
        CheckpointError: as `fetch`.
    """
    return fetch(find_entry(name), offline=offline, progress=progress)


def find_file(entry: Published) -> Path | None:
    """The file on this machine, unchecked; None if it is nowhere."""
    paths = (folder / entry.file for folder in search_folders())
    return next((path for path in paths if path.is_file()), None)


def fetch(
    entry: Published,
    path: str | Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
) -> Path:
    """The checked file of `entry`: from `path`, else from the folders, else downloaded.

    Args:
        entry: which file.
        path: the file, if the caller has it somewhere of its own.
        offline: never touch the network; the environment can forbid it as well (`is_offline`).
        progress: called after every piece that arrives.
        timeout_s: seconds that the server may be silent.

    Raises:
        CheckpointError: the file is missing and may not or cannot be fetched (the message says which file to put
        where), or
            its digest is not the published one.
    """
    if path is not None:
        given = Path(path)
        if not given.is_file():
            raise CheckpointError("no such file", where=str(given))
        return _checked(given, entry)
    here = find_file(entry)
    if here is not None:
        return _checked(here, entry)
    place = weights_folder() / entry.file
    by_hand = f"Put {entry.urls[0]} at {place}."
    if offline or is_offline():
        looked = " and ".join(str(folder) for folder in search_folders())
        raise CheckpointError(f"not in {looked}, and the network is off", where=entry.file, mend=by_hand)
    failures = []
    for url in entry.urls:
        try:
            _download(url, place, entry, progress, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {error}")
        else:
            return place
    raise CheckpointError(f"could not be fetched: {'; '.join(failures)}", where=entry.file, mend=by_hand)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, entry: Published) -> Path:
    _require_digest(sha256_of(path), entry, str(path), "Delete it, and it will be fetched again.")
    return path


def _require_digest(digest: str, entry: Published, where: str, mend: str) -> None:
    wanted = entry.sha256_prefix
    if not digest.startswith(wanted):
        got = digest[: len(wanted)]
        raise CheckpointError(
            f"got SHA-256 {got}..., wanted {wanted}...: not the published file", where=where, mend=mend
        )


def _download(url: str, place: Path, entry: Published, progress: Progress | None, timeout_s: float) -> None:
    """Stream `url` into a file beside `place`, check it, and only then give it its name."""
    place.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "bestiary"})
    handle, partial = tempfile.mkstemp(dir=place.parent, prefix=place.name + ".", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(request, timeout=timeout_s) as response:
            length = response.headers.get("Content-Length")
            digest = _copy(response.read, file, int(length) if length else None, progress)
            file.flush()
            os.fsync(file.fileno())
        _require_digest(digest, entry, url, "Nothing was kept. The address may answer with a page of a proxy.")
        os.chmod(partial, 0o644)  # temporary files are private, a cache need not be
        os.replace(partial, place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _copy(read: Callable[[int], bytes], file: BinaryIO, total: int | None, progress: Progress | None) -> str:
    """Copy a stream and give its SHA-256; an early end raises `ConnectionError`."""
    digest = hashlib.sha256()
    done = 0
    while chunk := read(CHUNK):
        file.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    if total is not None and done != total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")
    return digest.hexdigest()


def _cache_folder(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
