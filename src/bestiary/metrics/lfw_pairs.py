"""The file that says which pairs a verification protocol compares, in the form of LFW's `pairs.txt`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from bestiary.errors import DataError


@dataclass(frozen=True, eq=False)
class FacePairs:
    """N pairs of pictures.

    Attributes:
        first: path of the one picture of each pair, relative to the data set's folder, with forward slashes.
        second: path of the other.
        same: whether both show the same person.
        folds: fold of each pair, from 0.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: Bool[Tensor, " N"]
    folds: Int64[Tensor, " N"]


def read_lfw_pairs(path: Path | str, suffix: str = ".jpg") -> FacePairs:
    """Read `pairs.txt`, or `pairsDevTrain.txt` and `pairsDevTest.txt`, whose first line lacks the number of folds.

    Convention: the first line is `folds pairs`; then in each fold come `pairs` lines `name n m` (pictures n and m of
    one person), then `pairs` lines `name n other m`. Picture n of `Ann_Lee` is `Ann_Lee/Ann_Lee_000n.jpg`.

    Raises:
        DataError: the file cannot be read, a line is neither form, or there are not as many lines as it says.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    while lines and not lines[-1].strip():
        lines.pop()
    header = lines[0].split() if lines else []
    if len(header) not in (1, 2) or not all(word.isdigit() and int(word) > 0 for word in header):
        raise DataError(f"got {' '.join(header)!r}, wanted the numbers of folds and pairs", where=f"{path}:1")
    folds, count = (1, int(header[0])) if len(header) == 1 else (int(header[0]), int(header[1]))
    if len(lines) - 1 != 2 * folds * count:
        wanted = f"{2 * folds * count}, {count} same and {count} different pairs in each of {folds} folds"
        raise DataError(f"got {len(lines) - 1} pairs, wanted {wanted}", where=str(path))
    first, second, same = [], [], []
    for number, line in enumerate(lines[1:]):
        alike = number // count % 2 == 0
        words = line.split()
        digits = words[1:] if alike else words[1::2]
        if len(words) != (3 if alike else 4) or not all(word.isdigit() for word in digits):
            form = "`name number number`" if alike else "`name number name number`"
            raise DataError(f"got {line!r}, wanted {form}", where=f"{path}:{number + 2}")
        first.append(_picture(words[0], words[1], suffix))
        second.append(_picture(words[0] if alike else words[2], words[-1], suffix))
        same.append(alike)
    fold_of_pair = torch.arange(folds).repeat_interleave(2 * count)
    return FacePairs(tuple(first), tuple(second), torch.tensor(same), fold_of_pair)


def _picture(name: str, number: str, suffix: str) -> str:
    return f"{name}/{name}_{int(number):04d}{suffix}"
