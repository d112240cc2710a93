"""Search by words, verification by places, the command line, and a file."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import bestiary
from bestiary.classification.image_search import ImageSearch, image_search
from bestiary.cli.main import main
from bestiary.errors import UsageError
from bestiary.features.keypoints import Keypoints
from bestiary.geometry.fitting import map_points
from bestiary.metrics.retrieval import rank_matches
from bestiary.pictures.encode import write_image
from bestiary.predictions import Classification
from bestiary.records import Sample, Target
from bestiary.verbs.models import save
from bestiary.verbs.searching import Answers, open_search, write_sheet


def scattered(count: int, seed: int) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    xy = 300 * torch.rand(count, 2, generator=generator)
    scale, angle = 1 + 4 * torch.rand(count, generator=generator), 6 * torch.rand(count, generator=generator)
    return Keypoints(xy, scale, angle)


def turned(points: Keypoints, turn: float, zoom: float, shift: tuple[float, float]) -> Keypoints:
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    matrix = torch.tensor([[cos, -sin, shift[0]], [sin, cos, shift[1]]])
    return Keypoints(map_points(points.xy, matrix), points.scale * zoom, (points.angle + turn) % (2 * math.pi))


def planted(shortlist: int) -> tuple[ImageSearch, Keypoints, torch.Tensor]:
    """Picture 0 shows half of the query's words as another view would; picture 1 has all its words, scrambled; the
    others share few."""
    query, words = scattered(60, 0), torch.arange(60)
    view = turned(query[torch.arange(30)], 0.5, 1.4, (20.0, -7.0))
    pictures = [(view, words[:30]), (scattered(60, 1), words)]
    generator = torch.Generator().manual_seed(0)
    pictures += [(scattered(60, 2 + i), torch.randint(55, 400, (60,), generator=generator)) for i in range(6)]
    system = image_search(["a", "b"], words=400, shortlist=shortlist)
    points, found = zip(*pictures, strict=True)
    names = ["view", "impostor", *(f"other{i}" for i in range(6))]
    system.store(list(points), list(found), torch.tensor([0, *[1] * 7]), names)
    return system, query, words


def test_an_impostor_leads_by_words_and_falls_behind_by_places() -> None:
    system, query, words = planted(shortlist=0)
    before = system.search_words(query, words)
    assert [f.name for f in before[:2]] == ["impostor", "view"]
    assert before[0].inliers == 0
    system, query, words = planted(shortlist=5)
    after = system.search_words(query, words)
    assert after[0].name == "view"
    assert after[0].inliers == 30
    assert after[0].score == pytest.approx(before[1].score)
    assert {f.name: f.inliers for f in after}["impostor"] < 4


def test_the_map_of_a_view_is_recovered() -> None:
    system, query, words = planted(shortlist=5)
    matrix = system.search_words(query, words)[0].matrix
    zoom, turn = 1.4, 0.5
    wanted = [[zoom * math.cos(turn), -zoom * math.sin(turn), 20], [zoom * math.sin(turn), zoom * math.cos(turn), -7]]
    torch.testing.assert_close(matrix, torch.tensor(wanted, dtype=torch.float64), atol=1e-3, rtol=1e-4)


def test_pictures_that_share_no_word_are_not_found() -> None:
    system, query, _ = planted(shortlist=5)
    stored = set(system.word.tolist())
    absent = next(w for w in range(400) if w not in stored)
    assert system.search_words(query, torch.full((60,), absent)) == []
    assert system.search_words(Keypoints.empty(), torch.zeros(0, dtype=torch.int64)) == []


def test_no_more_answers_than_asked_for() -> None:
    system, query, words = planted(shortlist=3)
    assert len(system.search_words(query, words, top=1)) == 1
    assert len(system.search_words(query, words, top=100)) >= 2


def test_average_precision_with_junk_by_hand() -> None:
    """Ranking: junk, right, wrong, junk, right. Without the junk: right, wrong, right: precisions 1, 1/2, 2/3 at recall
    1/2, 1/2, 1: trapezoids 1/2 (1 + 1) / 2 + 1/2 (1/2 + 2/3) / 2 = 19/24."""
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    right = torch.tensor([[False, True, False, False, True]])
    junk = torch.tensor([[True, False, False, True, False]])
    ranks = rank_matches(distances, right, junk)
    assert float(ranks.average_precision_trapezoid()) == pytest.approx(19 / 24)


def blots(seed: int, side: int = 160) -> torch.Tensor:
    """A picture full of points: soft discs of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = [torch.rand(1, 3, n, n, generator=generator) for n in (6, 14, 30)]
    layers = [F.interpolate(c, (side, side), mode="bicubic", align_corners=False) for c in coarse]
    return (sum(layers)[0] / 3).clamp(0, 1)


@pytest.fixture(scope="module")
def fitted() -> ImageSearch:
    samples = [Sample(blots(i), Target(label=i % 2), f"{'ab'[i % 2]}/{i}.png", (160, 160)) for i in range(8)]
    system = bestiary.create("image_search", ["a", "b"], arguments={"words": 150, "contrast": 0.01, "tolerance": 6.0})
    assert isinstance(system, ImageSearch)
    system.fit(samples)
    return system


def test_a_turned_part_of_a_picture_finds_it(fitted: ImageSearch) -> None:
    for index in (0, 3, 6):
        query = blots(index)[:, 20:150, 10:140].rot90(1, (1, 2))
        best = fitted.search([query])[0][0]
        assert best.index == index
        assert best.name.endswith(f"/{index}.png")
        assert best.inliers >= 10
        prediction = fitted.predict_images([query])[0]
        assert isinstance(prediction, Classification)
        assert prediction.label == index % 2


def test_a_file_gives_the_same_answers(fitted: ImageSearch, tmp_path: Path) -> None:
    path = save(fitted, tmp_path / "search.safetensors")
    again = open_search(path)
    query = blots(2)
    before, after = (s.search([query], 4)[0] for s in (fitted, again))
    assert [f.to_dict() for f in before] == [f.to_dict() for f in after]
    shown = again.thumbnails.picture(2).float() / 255
    assert shown.shape == (3, 160, 160)
    assert float((shown - query).abs().mean()) < 0.03


def test_the_command_line_prints_and_draws(
    fitted: ImageSearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, query, sheet = save(fitted, tmp_path / "search.safetensors"), tmp_path / "q.png", tmp_path / "sheet.png"
    write_image(query, blots(5))
    arguments = ["search", str(path), str(query), "--top", "3", "--sheet", str(sheet)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    first = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("1 "))
    assert "b/5.png" in first
    from bestiary.pictures.decode import read_image

    assert read_image(sheet).shape[2] > 3 * 160
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["found"][0]["name"] == "b/5.png"
    assert [f["rank"] for f in document["found"]] == list(range(1, len(document["found"]) + 1))


def test_other_models_and_wrong_numbers_are_refused(
    fitted: ImageSearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = bestiary.create("nearest_neighbour", ["a", "b"])
    other.fit([Sample(torch.rand(3, 8, 8), Target(label=0), "x", (8, 8))])  # type: ignore[operator]
    with pytest.raises(UsageError, match="image search"):
        open_search(save(other, tmp_path / "other.safetensors"))
    path = save(fitted, tmp_path / "search.safetensors")
    with pytest.raises(SystemExit) as ended:
        main(["search", str(path), str(path), "--top", "0"])
    assert ended.value.code == 2
    assert "--top" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no query"):
        write_sheet(fitted, [], tmp_path / "empty.png")
    with pytest.raises(UsageError, match="tolerance"):
        image_search(["a"], tolerance=0.0)
    with pytest.raises(UsageError, match="fewer words"):
        image_search(["a"], words=8000).fit([Sample(blots(0), Target(label=0), "x", (160, 160))])


def test_a_sheet_is_written_where_nothing_was_found(fitted: ImageSearch, tmp_path: Path) -> None:
    flat = torch.full((3, 40, 40), 0.5)
    assert fitted.search([flat]) == [[]]
    write_sheet(fitted, [Answers("flat", flat, [])], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()
    prediction = fitted.predict_images([flat])[0]
    assert isinstance(prediction, Classification)
    assert prediction.probs.tolist() == [0.5, 0.5]


def test_views_of_a_wall_find_each_other(real_data: Path) -> None:
    from bestiary.pictures.decode import read_image

    folder = real_data / "graffiti"
    views = [read_image(folder / f"img{i}.png") for i in (1, 2, 3)]
    others = [read_image(p) for p in sorted((real_data / "bsds").rglob("*.jpg"))[:12]]
    samples = [
        Sample(image, Target(label=min(i, 1)), f"{i}", (int(image.shape[1]), int(image.shape[2])))
        for i, image in enumerate([views[0], *others])
    ]
    system = image_search(["wall", "other"], words=1000)
    system.fit(samples)
    for view in views[1:]:
        best = system.search([view])[0][0]
        assert best.name == "0"
        assert best.inliers >= 15
