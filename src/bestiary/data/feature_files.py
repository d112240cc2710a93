"""Features on disk: one row a picture, with the picture's name and class, written as they come.

`NAME.npz` holds the arrays `features`, `names`, `labels` (-1 where unknown), `categories` and `facts` (JSON) and opens
anywhere with `numpy.load`. `NAME.npy` holds the features alone, beside a `NAME.json` with the rest, and can be mapped
into memory, however large. Neither is ever held in memory while it is written.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from jaxtyping import Float32, Int64

from bestiary.errors import DataError, UsageError

SUFFIXES = (".npz", ".npy")
UNKNOWN = -1
CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Features:
    """Features of N pictures.

    Attributes:
        values: `[N, C]`, or `[N, C, H, W]` for whole maps; of an `.npy` file mapped, not read.
        names: of the pictures.
        labels: indices into `categories`, -1 where the class is unknown.
        categories: names in label order.
        facts: where they come from: model, layer, pooling.
        path: the file, if there is one.
    """

    values: Float32[np.ndarray, "N ..."]
    names: tuple[str, ...]
    labels: Int64[np.ndarray, " N"]
    categories: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.names)


class FeatureWriter:
    """A file that grows row by row and takes its name when it is complete.

    Args:
        path: ends in `.npz` or `.npy`.
        categories: names in label order.
        facts: plain JSON.

    Raises:
        UsageError: another suffix.
    """

    def __init__(self, path: Path, categories: Sequence[str] = (), facts: Mapping[str, Any] | None = None) -> None:
        if path.suffix not in SUFFIXES:
            raise UsageError(f"got {path.name!r}, wanted a name that ends in .npz or .npy", where="out")
        self.path, self.categories, self.facts = path, tuple(categories), dict(facts or {})
        self.names: list[str] = []
        self.labels: list[int] = []
        self._rows = path.with_name(f".{path.name}.{os.getpid()}.rows")
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._file is not None:
                self._file.close()
            self._rows.unlink(missing_ok=True)

    def add(self, values: Float32[np.ndarray, "B ..."], names: Sequence[str], labels: Sequence[int | None]) -> None:
        """Append rows.

        Raises:
            DataError: rows of another shape than the first ones.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._shape = self._rows.open("wb"), values.shape[1:]
            _write_header(self._file, (0, *self._shape))
        if values.shape[1:] != self._shape:
            raise DataError(f"got features of shape {values.shape[1:]}, wanted {self._shape} as before", where=names[0])
        self._file.write(np.ascontiguousarray(values).tobytes())
        self.names += names
        self.labels += [UNKNOWN if label is None else label for label in labels]

    def _finish(self) -> None:
        if self._file is None:
            raise DataError("there was no picture to take features of", where=str(self.path))
        self._file.seek(0)
        _write_header(self._file, (len(self.names), *self._shape))
        self._file.close()
        if self.path.suffix == ".npy":
            rest = {"names": self.names, "labels": self.labels, "categories": self.categories, "facts": self.facts}
            self.path.with_suffix(".json").write_text(json.dumps(rest, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(self._rows, self.path)
            return
        packed = self._rows.with_suffix(".packed")
        with zipfile.ZipFile(packed, "w", allowZip64=True) as archive:
            with self._rows.open("rb") as rows, archive.open("features.npy", "w", force_zip64=True) as entry:
                shutil.copyfileobj(rows, entry, CHUNK)
            for name, array in self._rest().items():
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        os.replace(packed, self.path)

    def _rest(self) -> dict[str, np.ndarray]:
        return {
            "names": np.array(self.names, dtype=str),
            "labels": np.array(self.labels, dtype=np.int64),
            "categories": np.array(self.categories, dtype=str),
            "facts": np.array(json.dumps(self.facts, ensure_ascii=False)),
        }


def read_features(path: str | Path) -> Features:
    """What `FeatureWriter` wrote.

    Raises:
        DataError: no such file, or not one of these.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file", where=str(path), mend="`bestiary features RUN PICTURES --out FILE` writes one")
    try:
        if path.suffix == ".npy":
            rest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            values, labels = np.load(path, mmap_mode="r"), np.array(rest["labels"], dtype=np.int64)
            names, categories, facts = rest["names"], rest["categories"], rest["facts"]
        else:
            with np.load(path, allow_pickle=False) as arrays:
                values, labels = arrays["features"], arrays["labels"]
                names, categories = arrays["names"].tolist(), arrays["categories"].tolist()
                facts = json.loads(str(arrays["facts"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"it holds no features ({error})", where=str(path), mend="Write it again") from error
    return Features(values, tuple(names), labels, tuple(categories), facts, path)


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """numpy keeps room for the first length to grow, so that the header can be written again over itself."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
