"""Suppression of a batch of groups at once, against one group at a time."""

from pathlib import Path

import onnxruntime
import torch

from bestiary.deploy.onnx_operators import OPSET, suppress, translations
from bestiary.ops import nms, roi_pool


def test_two_boxes_of_overlap_one_half_are_suppressed_below_it_and_not_at_it() -> None:
    boxes = torch.tensor([[[0.0, 0, 2, 1], [0.0, 0, 1, 1], [10.0, 0, 11, 1]]])
    scores = torch.tensor([[[0.9, 0.8, 0.7]]])
    assert sorted(suppress(boxes, scores, 0.5, 0.0)[:, 2].tolist()) == [0, 1, 2]
    assert sorted(suppress(boxes, scores, 0.49, 0.0)[:, 2].tolist()) == [0, 2]


def test_a_score_at_the_limit_takes_no_part() -> None:
    boxes = torch.tensor([[[0.0, 0, 1, 1], [5.0, 0, 6, 1]]])
    assert suppress(boxes, torch.tensor([[[0.5, 0.6]]]), 0.5, 0.5).tolist() == [[0, 0, 1]]


def test_no_candidate_gives_no_row() -> None:
    rows = suppress(torch.zeros(2, 3, 4), torch.full((2, 4, 3), -1.0), 0.5, -0.5)
    assert rows.shape == (0, 3)
    assert rows.dtype == torch.int64
    assert suppress(torch.zeros(1, 0, 4), torch.zeros(1, 2, 0), 0.5, 0.0).shape == (0, 3)


def test_each_group_of_each_picture_is_suppressed_alone() -> None:
    draw = torch.Generator().manual_seed(1)
    corner = torch.rand(2, 40, 2, generator=draw) * 30
    boxes = torch.cat([corner, corner + 4 + torch.rand(2, 40, 2, generator=draw) * 20], -1)
    scores = torch.rand(2, 3, 40, generator=draw) - 0.2
    wanted = set()
    for b in range(2):
        for g in range(3):
            alive = (scores[b, g] > 0).nonzero()[:, 0]
            kept = alive[nms(boxes[b, alive], scores[b, g, alive], 0.4)]
            assert 0 < len(kept) < len(alive)
            wanted |= {(b, g, int(p)) for p in kept}
    assert {tuple(row) for row in suppress(boxes, scores, 0.4, 0.0).tolist()} == wanted


def test_the_operator_is_well_formed_for_export() -> None:
    boxes, scores = torch.tensor([[[0.0, 0, 2, 1], [0.0, 0, 1, 1]]]), torch.tensor([[[0.9, 0.8]]])
    torch.library.opcheck(
        torch.ops.bestiary.suppress.default, (boxes, scores, 0.5, 0.0), test_utils=("test_schema", "test_faketensor")
    )


def test_roi_pool_is_written_as_the_standards_operator(tmp_path: Path, unchecked: None) -> None:
    class Pool(torch.nn.Module):
        def forward(self, features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
            return roi_pool(features, rois, (3, 2), 0.25)

    draw = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 9, 12, generator=draw)
    corner = torch.rand(6, 2, generator=draw) * 25
    picture = torch.tensor([[0.0], [1], [0], [1], [1], [0]])
    rois = torch.cat([picture, corner, corner + 2 + torch.rand(6, 2, generator=draw) * 20], 1)
    path, table = tmp_path / "pool.onnx", translations()
    torch.onnx.export(
        Pool(), (features, rois), path, dynamo=True, opset_version=OPSET, custom_translation_table=table, verbose=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    (got,) = session.run(None, dict(zip(names, (features.numpy(), rois.numpy()), strict=True)))
    assert torch.equal(torch.from_numpy(got), roi_pool(features, rois, (3, 2), 0.25))
