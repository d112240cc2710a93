from pathlib import Path

from bestiary.verbs.demo import demo


def test_the_demo_leaves_a_report_pictures_and_a_model_and_never_overwrites(tmp_path: Path) -> None:
    said: list[str] = []
    first = demo(tmp_path / "demo", minutes=0.01, say=said.append)
    assert first.folder == tmp_path / "demo"
    assert "fasterrcnn_resnet18_fpn" in first.report.read_text(encoding="utf-8")
    assert first.pictures.stat().st_size > 10_000
    assert first.best.exists()
    assert any("unseen" in line for line in said)
    assert demo(tmp_path / "demo", minutes=0.01).folder == tmp_path / "demo2"
