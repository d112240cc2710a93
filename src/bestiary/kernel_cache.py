"""numba's cache of compiled loops, made safe for several processes.

numba numbers the files of a function's compiled forms, in the order of their signatures' first use, and an index says
which number is which signature's. Two processes that compile two signatures at once give both the same number: the
index of the one may then lead to the code of the other, for ever, and that code reads the arrays as what they are not.
Importing this module makes numba name those files by their signature instead, and write them before the index. What two
processes can still lose is an entry of the index: that signature is compiled once more.

Every package of kernels imports it before its first kernel.
"""

import hashlib
from typing import Any

from numba.core import caching

FILES: Any = getattr(caching, "IndexDataCacheFile", None)
NEEDED = ("_dump", "_index_name", "_load_index", "_save_index", "_save_data", "_source_stamp")


def save(self: Any, key: Any, data: Any) -> None:
    """Keep the compiled form of one signature: in place of the method of numba's `IndexDataCacheFile`."""
    digest = hashlib.sha256(self._dump((key, self._source_stamp))).hexdigest()[:16]
    name = f"{self._index_name.removesuffix('.nbi')}.{digest}.nbc"
    self._save_data(name, data)
    overloads = self._load_index()
    overloads[key] = name
    self._save_index(overloads)


def is_known(files: Any) -> bool:
    """Whether this numba's files are kept as they were when this was written; others stay as they are."""
    made = files("", "name", "stamp") if files is not None else None
    return made is not None and all(hasattr(made, name) for name in NEEDED)


if is_known(FILES):
    FILES.save = save
