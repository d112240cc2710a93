"""Panoptic quality from COCO's files: JSON with `segments_info`, PNG maps of ids r + 256 g + 65536 b."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bestiary.errors import DataError
from bestiary.metrics.json_files import field_of, load_json
from bestiary.metrics.panoptic import PanopticScores, Segments, panoptic_tallies
from bestiary.metrics.scores import Scores
from bestiary.pictures.decode import read_instance_map


def panoptic_from_files(
    truth: str | Path,
    results: str | Path,
    truth_maps: str | Path | None = None,
    result_maps: str | Path | None = None,
) -> Scores:
    """COCO's panoptic numbers from its JSON files and the folders of PNG maps that belong to them.

    Args:
        truth: `images`, `categories` (with `isthing`), `annotations` (`image_id`, `file_name`, `segments_info`).
        results: `annotations` of the same pictures.
        truth_maps, result_maps: folders of the maps; beside each JSON, called as it is, if not given.

    Raises:
        DataError: a file or folder is missing or broken, a picture has no result, or a category is unknown.
        RecordError: a map and its segments do not fit.
    """
    from bestiary.ops._kernels.threads import in_threads

    pairs = read_pairs(Path(truth), Path(results), truth_maps, result_maps)
    scores = PanopticScores(pairs.categories, pairs.things)
    count = len(scores.categories)
    tallies = np.zeros((len(pairs), count, 4))

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            found, true = pairs.load(i)
            tallies[i] = panoptic_tallies(true, found, count)

    # Decoding takes most of the time and lets other threads run; the sum is in the order of pictures.
    in_threads(work, len(pairs), threads=torch.get_num_threads())
    for part in tallies:
        scores.tallies += part
    scores.pictures = len(pairs)
    return scores.compute()


@dataclass(frozen=True)
class PanopticPairs:
    """Pictures with true and predicted segments; maps are read one at a time.

    Attributes:
        categories: names, in the order of their ids.
        things: which are things.
        labels: id of a category -> label.
        truths, results: the `annotations` entries of each picture.
        truth_maps, result_maps: folders.
    """

    categories: tuple[str, ...]
    things: tuple[bool, ...]
    labels: Mapping[Any, int]
    truths: Sequence[Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]]
    truth_maps: Path
    result_maps: Path

    def __len__(self) -> int:
        return len(self.truths)

    def load(self, i: int) -> tuple[Segments, Segments]:
        """Predicted and true segments of picture `i`."""
        return (
            segments_of(self.results[i], self.result_maps, self.labels),
            segments_of(self.truths[i], self.truth_maps, self.labels),
        )


def segments_of(entry: Mapping[str, Any], folder: Path, labels: Mapping[Any, int]) -> Segments:
    """The segments of one `annotations` entry.

    Raises:
        DataError: a field is missing or a category unknown. PictureError: the map cannot be decoded.
    """
    path = folder / str(field_of(entry, "file_name", folder.name))
    listed = field_of(entry, "segments_info", str(path))
    ids, found, crowd = [], [], []
    for segment in listed:
        category = field_of(segment, "category_id", str(path))
        if category not in labels:
            known = ", ".join(map(str, labels))
            got = f"got category_id {category!r}, wanted one of {known[:200]}"
            raise DataError(got, where=f"{path}, segment {segment.get('id')}")
        ids.append(int(field_of(segment, "id", str(path))))
        found.append(labels[category])
        crowd.append(bool(segment.get("iscrowd", 0)))
    return Segments(
        read_instance_map(path).numpy(),
        np.array(ids, np.int64),
        np.array(found, np.int64),
        np.array(crowd, bool),
        path.name,
    )


def read_pairs(
    truth: Path, results: Path, truth_maps: str | Path | None = None, result_maps: str | Path | None = None
) -> PanopticPairs:
    """Truth and results joined by picture, in the order of the truth's annotations.

    Raises:
        DataError: a file or folder is missing or broken, results name pictures that the truth does not have, or
            pictures have no result.
    """
    true, found = load_json(truth), load_json(results)
    for path, document in ((truth, true), (results, found)):
        if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
            raise DataError("got no list `annotations`, wanted COCO's panoptic format", where=str(path))
    if not isinstance(true.get("categories"), list):
        raise DataError("got no list `categories`", where=str(truth))
    categories = sorted(true["categories"], key=lambda c: field_of(c, "id", f"{truth}, categories"))
    folders = [_folder(maps, path) for maps, path in ((truth_maps, truth), (result_maps, results))]
    truths = {field_of(e, "image_id", f"{truth}, annotations"): e for e in true["annotations"]}
    said = {field_of(e, "image_id", f"{results}, annotations"): e for e in found["annotations"]}
    unknown = [i for i in said if i not in truths]
    if unknown:
        mend = "Results must be of the pictures in the annotation file"
        got = f"got {len(unknown)} results of pictures that the truth does not have ({unknown[0]!r} first)"
        raise DataError(got, where=str(results), mend=mend)
    without = [i for i in truths if i not in said]
    if without:
        got = f"got no result for {len(without)} of {len(truths)} pictures ({without[0]!r} first)"
        raise DataError(got, where=str(results), mend="Write a map for each; a picture may have no segments")
    return PanopticPairs(
        categories=tuple(str(c.get("name", c["id"])) for c in categories),
        things=tuple(bool(c.get("isthing", 1)) for c in categories),
        labels={c["id"]: label for label, c in enumerate(categories)},
        truths=list(truths.values()),
        results=[said[i] for i in truths],
        truth_maps=folders[0],
        result_maps=folders[1],
    )


def _folder(given: str | Path | None, document: Path) -> Path:
    folder = Path(given) if given is not None else document.with_suffix("")
    if not folder.is_dir():
        raise DataError("there is no such folder of maps", where=str(folder), mend="Name the folder of PNG maps")
    return folder
