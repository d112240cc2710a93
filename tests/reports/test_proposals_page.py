"""The page of methods: every number and every curve is in it, and nothing from outside."""

import math
import re
from pathlib import Path

import pytest
import torch
from tests.proposals.proposal_scenes import scene

from bestiary.errors import UsageError
from bestiary.metrics.proposals import ProposalScores
from bestiary.proposals.methods import build
from bestiary.reports.proposals_page import MethodRow, recall_charts, write_proposals_page


def row(name: str, milliseconds: float | None = 12.345) -> MethodRow:
    scores, proposer = ProposalScores((10, 200)), build("random_boxes")
    for i in range(3):
        sample = scene(i)
        scores.update([proposer.propose(sample.image).boxes_xyxy], [sample.target])
    return MethodRow(name, scores.compute(), milliseconds)


def test_the_page_holds_every_number(tmp_path: Path) -> None:
    rows = [row("one"), row("<two>", None)]
    text = write_proposals_page(tmp_path / "new" / "page.html", rows, {"data": "cells & <more>"}).read_text()
    for name, value in rows[0].scores.values.items():
        shown = "–" if math.isnan(value) else f"{value:,.0f}" if name == "boxes" else f"{value:.3f}"
        assert f">{name.replace('_', ' ')}</th>" in text
        assert f">{shown}</td>" in text
    assert ">12.3</td>" in text
    assert ">–</td>" in text
    assert "&lt;two&gt;" in text
    assert "cells &amp; &lt;more&gt;" in text
    assert "<two>" not in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)|<script|https?://(?!www\.w3)""", text)


def test_there_is_a_curve_for_each_overlap_and_method() -> None:
    charts = recall_charts([row("one"), row("two")])
    assert [c.title for c in charts] == ["Average recall, IoU .50 to .95", "Recall at IoU 0.5", "Recall at IoU 0.7"]
    assert all(c.svg.count("<polyline") == 2 for c in charts)
    assert [name for _, name, _ in charts[0].legend] == ["one", "two"]


def test_without_objects_there_is_still_a_page(tmp_path: Path) -> None:
    scores = ProposalScores((5,))
    scores.update([torch.zeros(0, 4)], [scene(0, objects=0).target])
    path = write_proposals_page(tmp_path / "page.html", [MethodRow("none", scores.compute(), None)], {})
    assert "–" in path.read_text()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_proposals_page(tmp_path / "file" / "page.html", [row("one")], {})
    with pytest.raises(UsageError, match="no method"):
        write_proposals_page(tmp_path / "page.html", [], {})
