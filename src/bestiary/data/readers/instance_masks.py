"""Instance segmentation: pictures, and maps in which every object has its own number (0 is background).

Penn-Fudan's layout (`images`, `masks/NAME_mask.png`, `annotations/NAME.txt` in PASCAL 1.00 text, 1-based inclusive
boxes), or `images` beside `instances`, `instance_masks`, `PedMasks` ... without texts: then boxes are those of the
pixels. One category: the texts' name without PASCAL's prefix ("PASpersonWalking" -> person), else classes.txt, else
"object".
"""

import re
from pathlib import Path

import torch

from bestiary.data.index import Index, RawObject, RawPicture
from bestiary.data.readers.findings import Findings, in_split_order, names_file, nothing_read, relative_name
from bestiary.data.readers.label_masks import MAP_FOLDERS, folder_pairs, map_of, maps_by_stem
from bestiary.errors import PictureError
from bestiary.pictures.decode import read_instance_map
from bestiary.pictures.sources import list_pictures

INSTANCE_FOLDERS = ("instances", "instance_masks", "instance", "PedMasks", "SegmentationObject")
_PASCAL = b"PASCAL Annotation Version 1.00"
_SIZE = re.compile(r"Image size \(X x Y x C\)\s*:\s*(\d+)\s*x\s*(\d+)")
_BOX = re.compile(
    r'Bounding box for object (\d+)\s+"([^"]*)"[^:]*:\s*\((-?[\d.]+),\s*(-?[\d.]+)\)\s*-\s*\((-?[\d.]+),\s*(-?[\d.]+)\)'
)


def recognise(root: Path) -> str | None:
    """A folder of instance maps by its name, or PASCAL 1.00 texts beside maps."""
    if not root.is_dir():
        return None
    pairs = folder_pairs(root, INSTANCE_FOLDERS)
    if pairs:
        return f"{relative_name(root, pairs[0][1])} beside {relative_name(root, pairs[0][2])}"
    texts = _texts(root)
    if texts and folder_pairs(root):
        return f"{relative_name(root, texts[0])} is PASCAL 1.00 text beside maps"
    return None


def read(root: Path) -> Index:
    """Read pictures with instance maps.

    Raises:
        DataError: not one picture.
    """
    findings = Findings(root)
    texts = {t.stem: t for t in _texts(root)}
    named = names_file(root)
    category = named[1][0] if named else None
    splits: dict[str, list[RawPicture]] = {}
    for split, pictures, maps in folder_pairs(root, INSTANCE_FOLDERS + MAP_FOLDERS):
        taken = splits.setdefault(split, [])
        found = maps_by_stem(maps)
        for path in list_pictures(pictures):
            instance_map = map_of(path.relative_to(pictures).with_suffix("").as_posix(), found)
            where = findings.place(path)
            if instance_map is None:
                wanted = f"a map {path.stem}.png in {relative_name(root, maps)}"
                findings.error("missing-map", where, "a picture without a map", wanted, "Add it", "left out")
                taken.append(RawPicture(path, relative_name(root, path), where))
                continue
            picture = RawPicture(path, relative_name(root, path), where, objects=[], instance_map=instance_map)
            if path.stem in texts:
                _from_text(picture, texts[path.stem], findings)
            else:
                _from_pixels(picture, category or "object", findings)
            taken.append(picture)
    if not any(p.instance_map for pictures in splits.values() for p in pictures):
        raise nothing_read(root, "instance maps", findings)
    used = {o.category for pictures in splits.values() for p in pictures for o in p.objects or [] if o.category}
    categories = sorted(used) or [category or "object"]
    return Index(root, "instance-masks", categories, in_split_order(splits), defects=findings.defects)


def _texts(root: Path) -> list[Path]:
    folder = next((root / n for n in ("annotations", "Annotation", "Annotations") if (root / n).is_dir()), None)
    files = sorted(folder.glob("*.txt")) if folder else []
    if not files:
        return []
    with files[0].open("rb") as file:
        return files if _PASCAL in file.read(512) else []


def _from_text(picture: RawPicture, file: Path, findings: Findings) -> None:
    text = findings.text(file) or ""
    picture.where = findings.place(file)
    size = _SIZE.search(text)
    if size:
        picture.size_hw = int(size.group(2)), int(size.group(1))
    for match in _BOX.finditer(text):
        number, name = int(match.group(1)), match.group(2)
        xmin, ymin, xmax, ymax = (float(v) for v in match.groups()[2:])
        where = findings.place(file, text.count("\n", 0, match.start()) + 1)
        box = (xmin - 1, ymin - 1, xmax, ymax)
        plain = re.match(r"(?:PAS)?([a-z]+)", name)
        category = plain.group(1) if plain else name or "object"
        found = RawObject(category, where, box, mask_id=number, id=number, extra={"pascal_name": name})
        if picture.objects is not None:
            picture.objects.append(found)
    if not picture.objects:
        wanted = "lines 'Bounding box for object ...'"
        findings.warn(
            "no-objects", picture.where, "no box in the text", wanted, "Check the file", "taken as a negative"
        )


def _from_pixels(picture: RawPicture, category: str, findings: Findings) -> None:
    path = picture.instance_map or picture.path
    try:
        ids = read_instance_map(path)
    except PictureError as error:
        findings.error(
            "broken-map", findings.place(path), error.message, "instance ids", error.mend or "Replace it", "left out"
        )
        picture.objects = None
        return
    picture.size_hw = int(ids.shape[0]), int(ids.shape[1])
    for number in ids.unique().tolist():
        if number == 0:
            continue
        ys, xs = torch.nonzero(ids == number, as_tuple=True)
        box = float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)
        where = findings.place(path, annotation=number)
        if picture.objects is not None:
            picture.objects.append(RawObject(category, where, box, mask_id=number, area=float(len(xs)), id=number))
