"""The plan of the house, read from the syntax trees: floors, names, sizes, forbidden constructs."""

import ast
import statistics
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src" / "bestiary"
FLOORS = [
    ["errors", "records", "array_cache", "kernel_cache"],
    ["geometry", "pictures"],
    ["ops"],
    ["layers", "losses", "assign", "metrics", "transforms", "draw", "features", "predictions", "system"],
    ["backbones", "necks", "heads", "proposals"],
    [
        "classification",
        "detection",
        "segmentation",
        "instances",
        "pose",
        "embedding",
        "dense",
        "generation",
        "relations",
        "shape3d",
    ],
    ["data", "training", "weights"],
    ["zoo", "recipes", "claims", "deploy", "reports", "inspect", "verbs"],
    ["cli"],
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
SYSTEMS = set(FLOORS[5])
LINEAGE: set[tuple[str, str]] = {
    ("detection.faster_rcnn_alternating", "detection.faster_rcnn"),
    ("detection.faster_rcnn_alternating", "detection.faster_rcnn_single"),
    ("detection.faster_rcnn_fpn", "detection.faster_rcnn"),
    ("detection.faster_rcnn_single", "detection.faster_rcnn"),
    ("detection.r_fcn", "detection.faster_rcnn_single"),
    ("detection.yolo9000", "detection.yolo_v2"),
    ("detection.yolo_v2_ladder", "detection.yolo_v1"),
    ("detection.yolo_v2_ladder", "detection.yolo_v2"),
}
"""(system file, system file it may import) where the paper builds on the other."""
OPEN_KEYWORDS = {("verbs", "training", "train")}
"""(modules, function) that may take `**fields`: there each model's recipe has its own, checked against typed fields."""
BANNED_NAMES = {"utils", "util", "misc", "common", "helpers", "helper", "core", "base", "tools", "stuff"}
FILES = sorted(SRC.rglob("*.py"))


def imported(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "bestiary":
                names += [f"bestiary.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
            elif node.module and node.module.startswith("bestiary."):
                names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("bestiary.")]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_a_module_imports_only_from_its_floor_and_below(path: Path) -> None:
    home = path.relative_to(SRC).parts[0].removesuffix(".py")
    if home in ("__init__", "__main__"):
        return
    assert home in FLOOR, f"{home} has no floor: give it one in docs/architecture.md and here"
    for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
        there = module.split(".")[1]
        assert there in FLOOR, f"{module} has no floor"
        assert FLOOR[there] <= FLOOR[home], f"{path.relative_to(SRC)} imports {module}, from a floor above its own"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_systems_do_not_import_one_another_but_along_the_lineage(path: Path) -> None:
    parts = path.relative_to(SRC).with_suffix("").parts
    if parts[0] not in SYSTEMS or parts[-1] == "__init__":
        return
    here = ".".join(parts)
    for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
        there = module.removeprefix("bestiary.")
        if there.split(".")[0] in SYSTEMS:
            assert (here, there) in LINEAGE, f"{here} imports {there}: not in the lineage table"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_house_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = [part.removesuffix(".py") for part in path.relative_to(SRC).parts]
    assert not BANNED_NAMES & set(parts), "a name without a noun"
    assert text.count("\n") <= 450, f"{text.count(chr(10))} lines"
    assert "TODO" not in text
    assert "FIXME" not in text
    assert ast.get_docstring(tree) or not text.strip(), "no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{node.name}: {length} lines"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [a for a in arguments if a.arg not in ("self", "cls")]
            assert len(named) <= 12, f"{node.name}: {len(named)} arguments"
            is_open = node.args.kwarg is not None and not node.name.startswith("_")
            assert not is_open or (*parts, node.name) in OPEN_KEYWORDS, f"{node.name} takes open keywords"
            missing = [a.arg for a in named if a.annotation is None]
            assert not missing, f"{node.name}: {missing} untyped"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"


def test_files_stay_short() -> None:
    lengths = [path.read_text(encoding="utf-8").count("\n") for path in FILES]
    assert statistics.median(lengths) < 180
