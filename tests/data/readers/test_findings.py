from pathlib import Path

import pytest

from bestiary.data.index import Where
from bestiary.data.readers.findings import Findings, PictureFinder, lies_below

HERE = Where("here")


@pytest.mark.parametrize(
    ("folder", "path", "wanted"),
    [
        ("/data", "/data", True),
        ("/data", "/data/a.png", True),
        ("/data", "/data/x/../a.png", True),
        ("/data", "/data/../a.png", False),
        ("/data", "/data2/a.png", False),
        ("/data", "/", False),
        ("/", "/a.png", True),
        (".", "a.png", True),
        (".", "../a.png", False),
        ("..", "../a.png", True),
        ("..", "../../a.png", False),
    ],
)
def test_lying_below(folder: str, path: str, wanted: bool) -> None:
    assert lies_below(Path(folder), path) is wanted


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a.png", True),
        ("x/../a.png", True),
        ("x\\..\\a.png", True),
        ("..\\a.png", False),
        ("x\\..\\..\\a.png", False),
        ("x/..\\..\\a.png", False),
        ("/etc/passwd", False),
        ("../a.png", False),
    ],
)
def test_what_is_inside(path: str, wanted: bool) -> None:
    findings = Findings(Path("/some/da\\ta"))
    assert findings.inside(path, HERE) is wanted
    assert findings.inside(findings.root / path, HERE) is wanted
    assert [d.rule for d in findings.defects] == ([] if wanted else ["path-outside"] * 2)


def test_a_leading_backslash_is_the_top_of_the_disk() -> None:
    assert not Findings(Path("/some/data")).inside("\\etc\\passwd", HERE)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_finder_alone_never_leaves_the_root(tmp_path: Path) -> None:
    secret, root = touch(tmp_path / "secret.png"), tmp_path / "data"
    inner = touch(root / "images" / "a.png")
    finder = PictureFinder(root, [root / "images", root])
    for name in ("../secret.png", "../../secret.png", "..\\..\\secret.png", "images/../../secret.png", str(secret)):
        assert finder.find(name) is None
        assert finder.leaves(name)
    for name in ("a.png", "images/a.png", "images\\a.png", "x/../a.png", "C:\\pictures\\a.png"):
        assert finder.find(name) == inner
        assert not finder.leaves(name)
    assert finder.find("../images/a.png") == inner  # as seen from images
    assert finder.find("x/" + "y" * 5000) is None
    assert finder.find("x/\0") is None


def test_a_folder_beside_the_root_is_no_way_out(tmp_path: Path) -> None:
    touch(tmp_path / "secret.png")
    beside = touch(tmp_path / "images" / "sub" / "a.png")
    (tmp_path / "labels").mkdir()
    finder = PictureFinder(tmp_path / "labels", [tmp_path / "images"])
    assert finder.find("sub/a.png") == beside
    assert finder.find("../secret.png") is None
