"""The runner that docs/export.md shows runs as it stands there, without this library."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deploy_parts import small_system

from bestiary.predictions import Detections
from bestiary.verbs.exporting import ExportReport

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


@pytest.mark.parametrize("size_hw", [(120, 90), (77, 160)])
def test_the_documented_runner_gives_the_models_boxes(
    exported: Callable[[str], ExportReport], size_hw: tuple[int, int]
) -> None:
    (code,) = (b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S) if "cv2" in b)
    assert "bestiary" not in code
    assert code.count("\n") <= 30
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    name = "fasterrcnn_resnet18_fpn"
    draw = torch.Generator().manual_seed(5)
    picture = torch.randint(0, 256, (3, *size_hw), generator=draw, dtype=torch.uint8)
    detector = names["open_detector"](str(exported(name).path))
    found = names["detect"](detector, picture.flip(0).permute(1, 2, 0).contiguous().numpy())
    wanted = small_system(name).predict(picture)[0]
    assert isinstance(wanted, Detections)
    assert len(found) == len(wanted) > 10
    assert [category for category, _, _ in found] == [wanted.categories[k] for k in wanted.labels.tolist()]
    boxes = torch.tensor([box for _, _, box in found])
    assert torch.allclose(boxes, wanted.boxes_xyxy, atol=0.05)
    assert torch.allclose(torch.tensor([score for _, score, _ in found]), wanted.scores, atol=1e-4)
