"""Views of one plane with the homographies between them: `img1.png` ... and `H1to2p` ... (Mikolajczyk et al., IJCV
2005).

`extra["homography"]` maps homogeneous pixel places of the first view to this one (identity for the first);
`extra["reference"]` is the first view's name. Sub-folders are scenes.
"""

import re
from pathlib import Path

from bestiary.data.index import Index, RawPicture
from bestiary.data.readers.findings import Findings, nothing_read, pictures_in, relative_name, subfolders
from bestiary.data.readers.rgbd import read_matrix

_VIEW = re.compile(r"^(?:img)?(\d+)$")


def recognise(root: Path) -> str | None:
    """Files `H1to2p` or `H_1_2`, here or one folder below."""
    if not root.is_dir():
        return None
    home = next((h for h in [root, *subfolders(root)[:50]] if _homographies(h)), None)
    return f"{len(_homographies(home))} homographies in {home.name}" if home else None


def read(root: Path) -> Index:
    """Read scenes of views.

    Raises:
        DataError: not one picture.
    """
    findings = Findings(root)
    pictures: list[RawPicture] = []
    for home in [root, *subfolders(root)]:
        files = _homographies(home)
        views = {int(m.group(1)): p for p in pictures_in(home) if (m := _VIEW.match(p.stem))}
        if not files or 1 not in views:
            continue
        for number, path in sorted(views.items()):
            identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
            matrix = (
                identity if number == 1 else read_matrix(files[number], (3, 3), findings) if number in files else None
            )
            where = findings.place(path)
            if matrix is None:
                wanted = f"H1to{number}p"
                findings.error("missing-homography", where, "no homography", wanted, "Add it", "view without truth")
            extra = {"homography": matrix, "reference": views[1].name} if matrix else {}
            pictures.append(RawPicture(path, relative_name(root, path), where, extra=extra))
    if not pictures:
        raise nothing_read(root, "views", findings)
    return Index(root, "views", [], {"all": pictures}, defects=findings.defects)


def _homographies(home: Path) -> dict[int, Path]:
    """View number -> file of the homography from view 1 to it."""
    found = {}
    for path in home.iterdir():
        match = re.match(r"^H_?1(?:to|_)(\d+)p?$", path.stem if path.suffix == ".txt" else path.name)
        if match and path.is_file():
            found[int(match.group(1))] = path
    return found
