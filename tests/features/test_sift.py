"""SIFT against OpenCV's, and what its points and descriptors must survive."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError, UsageError
from bestiary.features import scale_space
from bestiary.features.keypoints import Keypoints, grey_levels
from bestiary.features.matching import match
from bestiary.features.sift import SiftSettings, describe, detect, detect_and_describe, root_sift
from bestiary.geometry.fitting import map_points
from bestiary.geometry.ransac import ransac


def blobs(height: int = 200, width: int = 240, count: int = 150, seed: int = 0) -> np.ndarray:
    """A grey picture of discs of all sizes and shades, a little blurred as a camera would."""
    rng = np.random.default_rng(seed)
    canvas = np.full((height, width), 128, np.uint8)
    for _ in range(count):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(2, 14)), int(rng.integers(2, 14)))
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(256)), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(canvas, (0, 0), 0.8)


def of_opencv(grey: np.ndarray, **options: object) -> tuple[Keypoints, Tensor]:
    """OpenCV's points in our convention, and descriptors of length about 512."""
    points, descriptors = cv2.SIFT_create(**options).detectAndCompute(grey, None)
    # Its doubled picture lies a quarter of a pixel further than it says; the other quarter is the origin's.
    xy = torch.tensor([p.pt for p in points]) + 0.25
    scale = torch.tensor([p.size / 2 for p in points])
    angle = torch.tensor([math.radians(p.angle) for p in points])
    return Keypoints(xy, scale, angle), torch.from_numpy(descriptors)


def turns_apart(first: Tensor, second: Tensor) -> Tensor:
    return (torch.remainder(first - second + math.pi, 2 * math.pi) - math.pi).abs()


def partners(theirs: Keypoints, ours: Keypoints, pixels: float, share: float, degrees: float) -> Tensor:
    """Row of ours that is each of theirs, -1 where none is near enough."""
    away = torch.cdist(theirs.xy, ours.xy, compute_mode="donot_use_mm_for_euclid_dist")
    near = away <= pixels
    near &= (theirs.scale[:, None] / ours.scale).log().abs() <= math.log(1 + share)
    near &= turns_apart(theirs.angle[:, None], ours.angle) <= math.radians(degrees)
    best = torch.where(near, away, torch.inf).min(1)
    return torch.where(best.values.isfinite(), best.indices, -1)


@pytest.mark.parametrize("options", [{}, {"nOctaveLayers": 4, "contrastThreshold": 0.09, "edgeThreshold": 6}])
def test_points_and_descriptors_are_opencv_s(options: dict[str, float]) -> None:
    grey = blobs(240, 320)
    settings = SiftSettings(
        intervals=int(options.get("nOctaveLayers", 3)),
        contrast=options.get("contrastThreshold", 0.04),
        edge=options.get("edgeThreshold", 10),
    )
    theirs, their_descriptors = of_opencv(grey, **options)
    ours, our_descriptors = detect_and_describe(torch.from_numpy(grey), settings)
    assert abs(len(ours) - len(theirs)) <= 0.02 * len(theirs)
    rows = partners(theirs, ours, 0.01, 0.001, 1)
    found = rows >= 0
    assert found.float().mean() > 0.97
    cosine = torch.cosine_similarity(their_descriptors[found], our_descriptors[rows[found]])
    assert cosine.median() > 0.995
    assert cosine.quantile(0.05) > 0.98


def test_on_photographs_too(real_data: Path) -> None:
    for name in ("img1", "img5"):
        whole = cv2.imread(str(real_data / "graffiti" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        grey = np.ascontiguousarray(whole[100:400, 200:600])
        theirs, their_descriptors = of_opencv(grey)
        ours, our_descriptors = detect_and_describe(torch.from_numpy(grey))
        rows = partners(theirs, ours, 0.05, 0.01, 5)
        found = rows >= 0
        assert found.float().mean() > 0.99
        cosine = torch.cosine_similarity(their_descriptors[found], our_descriptors[rows[found]])
        assert cosine.median() > 0.998


def test_a_gaussian_blob_is_found_at_its_centre_and_scale() -> None:
    sigma, x, y = 5.0, 40.3, 36.8
    rows, columns = np.mgrid[0:80, 0:90] + 0.5
    blob = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)
    found = detect(torch.from_numpy(blob), SiftSettings(upright=True))
    assert torch.allclose(found.xy[0], torch.tensor([x, y]), atol=0.05)
    # t^2 / (t^2 + s^2) - t^2 / (t^2 + k^2 s^2) is largest at s = t / sqrt(k); half a pixel of s is taken to be there.
    expected = math.sqrt(sigma**2 - 0.25) / math.sqrt(2 ** (1 / 3))
    assert found.scale[0] == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_turn_points_and_leave_descriptors(turns: int) -> None:
    picture = torch.from_numpy(blobs(193, 193))
    before, descriptors = detect_and_describe(picture)
    turned_picture = torch.rot90(picture, turns).contiguous()
    angle = -turns * math.pi / 2
    offset = before.xy - 96.5
    cos, sin = math.cos(angle), math.sin(angle)
    xy = torch.stack([cos * offset[:, 0] - sin * offset[:, 1], sin * offset[:, 0] + cos * offset[:, 1]], dim=1) + 96.5
    moved = Keypoints(xy, before.scale, torch.remainder(before.angle + angle, 2 * math.pi))
    after = describe(turned_picture, moved)
    assert (torch.cosine_similarity(descriptors, after)[before.scale < 3] > 0.99).all()
    # Later octaves keep every second sample, which are others when the picture is turned.
    found = partners(moved[before.octave == -1], detect(turned_picture), 0.05, 0.01, 2)
    assert (found >= 0).float().mean() > 0.98


def test_affine_changes_of_brightness_leave_descriptors() -> None:
    grey = torch.from_numpy(blobs()).float() / 255
    points, descriptors = detect_and_describe(grey)
    after = describe(0.5 * grey + 0.3, points)
    assert (torch.cosine_similarity(descriptors, after) > 0.9999).all()
    inverted = detect(1 - grey)
    assert len(inverted) == pytest.approx(len(points), rel=0.02)


def test_a_turned_and_enlarged_picture_is_recovered() -> None:
    grey = blobs(240, 320, 250)
    angle, zoom = math.radians(30), 1.5
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    true = torch.tensor([[cos, -sin, 160.0], [sin, cos, -40.0]], dtype=torch.float64)
    # OpenCV's origin is the first pixel's centre.
    shift = true.numpy().copy()
    shift[:, 2] += shift[:, :2] @ [0.5, 0.5] - 0.5
    warped = cv2.warpAffine(grey, shift, (480, 480), flags=cv2.INTER_CUBIC, borderValue=128.0)
    first, one = detect_and_describe(torch.from_numpy(grey))
    second, other = detect_and_describe(torch.from_numpy(warped))
    pairs = match(one, other)
    assert len(pairs) > 60
    source, target = first.xy[pairs.first].double(), second.xy[pairs.second].double()
    assert ((map_points(source, true) - target).norm(dim=1) < 3).float().mean() >= 0.7
    found = ransac(source, target, "homography", threshold=3.0)
    corners = torch.tensor([[0, 0], [320, 0], [320, 240], [0, 240]], dtype=torch.float64)
    assert (map_points(corners, found.matrix) - map_points(corners, true)).norm(dim=1).max() < 2


@pytest.mark.parametrize(
    ("number", "matches", "share"), [(2, 1000, 0.85), (3, 600, 0.55), (4, 180, 0.33)], ids=["30", "40", "50 degrees"]
)
def test_one_wall_from_two_sides(real_data: Path, number: int, matches: int, share: float) -> None:
    folder = real_data / "graffiti"
    read = [cv2.imread(str(folder / f"img{n}.png"), cv2.IMREAD_GRAYSCALE) for n in (1, number)]
    (first, one), (second, other) = (detect_and_describe(torch.from_numpy(grey)) for grey in read)
    to_corner = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
    true = to_corner @ torch.from_numpy(np.loadtxt(folder / f"H1to{number}p")) @ torch.linalg.inv(to_corner)
    pairs = match(one, other)
    errors = (map_points(first.xy[pairs.first].double(), true) - second.xy[pairs.second]).norm(dim=1)
    assert len(pairs) > matches
    assert (errors < 3).float().mean() > share


def test_the_strongest_are_kept_and_answers_do_not_depend_on_threads() -> None:
    grey = torch.from_numpy(blobs())
    everything, descriptors = detect_and_describe(grey)
    assert (everything.response.diff() <= 0).all()
    few, their_descriptors = detect_and_describe(grey, SiftSettings(most=20))
    assert torch.equal(few.xy, everything.xy[:20])
    assert torch.equal(their_descriptors, descriptors[:20])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone, by_one = detect_and_describe(grey)
        torch.set_num_threads(3)
        together, by_three = detect_and_describe(grey)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone.xy, together.xy)
    assert torch.equal(alone.angle, together.angle)
    assert torch.equal(by_one, by_three)


def test_described_alone_as_described_when_found() -> None:
    grey = torch.from_numpy(blobs())
    points, descriptors = detect_and_describe(grey)
    assert torch.equal(describe(grey, points), descriptors)
    assert torch.allclose(descriptors.norm(dim=1), torch.ones(len(points)), atol=1e-5)
    assert ((points.angle >= 0) & (points.angle < 2 * math.pi)).all()
    kept = describe(grey, points[[3, 1]])
    assert torch.equal(kept, descriptors[[3, 1]])


def test_a_descriptor_is_the_histogram_it_is_said_to_be() -> None:
    """A ramp towards +x alone: all directions equal, so every cell votes for one bin and cells differ by the window."""
    ramp = torch.linspace(0, 1, 96).expand(96, 96).contiguous()
    point = Keypoints(torch.tensor([[48.0, 48.0]]), torch.tensor([2.0]), torch.tensor([0.0]))
    cells = describe(ramp, point)[0].view(4, 4, 8)
    assert cells[..., 0].min() > 0.1
    assert cells[..., 1:].max() < 1e-3
    assert torch.allclose(cells, cells.flip(0).flip(1), atol=1e-3)
    # Seen at a quarter of a turn, the gradient lies a quarter before the angle's own: bin 2.
    turned = Keypoints(point.xy, point.scale, torch.tensor([math.pi / 2]))
    assert describe(ramp, turned)[0].view(4, 4, 8)[..., 2].min() > 0.1


def test_root_sift() -> None:
    grey = torch.from_numpy(blobs())
    points, plain = detect_and_describe(grey)
    rooted = describe(grey, points, SiftSettings(root=True))
    assert torch.allclose(rooted, (plain / plain.sum(1, keepdim=True)).sqrt(), atol=1e-6)
    hellinger = (plain[0] / plain[0].sum() * plain[1] / plain[1].sum()).sqrt().sum()
    assert (rooted[0] @ rooted[1]).item() == pytest.approx(hellinger.item(), abs=1e-5)
    assert torch.equal(root_sift(torch.zeros(1, 128)), torch.zeros(1, 128))


def test_upright_points_are_not_turned() -> None:
    grey = torch.from_numpy(blobs())
    found = detect(grey, SiftSettings(upright=True))
    assert (found.angle == 0).all()
    every = detect(grey)
    places = {tuple(row) for row in every.xy.tolist()}
    assert {tuple(row) for row in found.xy.tolist()} == places
    assert len(found) < len(every)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (1, 40), (3, 300), (15, 15), (12, 9)])
def test_tiny_pictures_hold_nothing_and_break_nothing(shape: tuple[int, int]) -> None:
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    points, descriptors = detect_and_describe(noise)
    assert descriptors.shape == (len(points), 128)
    given = Keypoints(
        torch.tensor([[0.5, 0.5], [900.0, -900.0]]), torch.tensor([2.0, 3000.0]), torch.tensor([1.0, 2.0])
    )
    assert torch.isfinite(describe(noise, given)).all()


def test_flat_pictures_hold_nothing() -> None:
    flat = torch.full((3, 90, 120), 77, dtype=torch.uint8)
    points, descriptors = detect_and_describe(flat)
    assert len(points) == 0
    assert descriptors.shape == (0, 128)
    point = Keypoints(torch.tensor([[50.0, 50.0]]), torch.tensor([2.0]), torch.tensor([0.0]))
    assert torch.equal(describe(flat, point), torch.zeros(1, 128))


def test_types_and_channels_say_the_same() -> None:
    grey = torch.from_numpy(blobs(120, 120))
    wanted = grey_levels(grey)
    sixteen = (grey.int() * 257).to(torch.int32)
    same = [
        grey[None], grey.expand(3, -1, -1), grey.float() / 255,
        sixteen, sixteen.to(torch.int16), sixteen.to(torch.uint16),
    ]  # fmt: skip
    for picture in same:
        assert np.allclose(grey_levels(picture), wanted, atol=1e-3)
    colours = torch.zeros(3, 2, 2, dtype=torch.uint8)
    colours[1] = 200
    assert grey_levels(colours)[0, 0] == pytest.approx(0.587 * 200, rel=1e-5)


@pytest.mark.parametrize(
    "picture",
    [torch.zeros(4, 9, 9), torch.zeros(9), torch.zeros(9, 9, dtype=torch.int64), torch.full((9, 9), torch.nan)],
)
def test_other_pictures_are_refused(picture: Tensor, unchecked: None) -> None:
    with pytest.raises(RecordError, match="grey_levels"):
        detect(picture)


def test_too_large_a_picture_is_refused_before_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_space, "LARGEST_LEVEL", 10_000)
    with pytest.raises(RecordError, match="undoubled"):
        detect(torch.zeros(60, 60))
    detect(torch.zeros(60, 60), SiftSettings(doubled=False))


@pytest.mark.parametrize(
    "wrong", [{"intervals": 0}, {"contrast": -0.1}, {"edge": 0.5}, {"sigma": 0.4}, {"most": -1}], ids=str
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SiftSettings(**wrong)  # type: ignore[arg-type]


def test_points_that_cannot_be_described_are_refused() -> None:
    for xy, scale in (([float("nan"), 1.0], 1.0), ([1.0, 1.0], 0.0)):
        point = Keypoints(torch.tensor([xy]), torch.tensor([scale]), torch.tensor([0.0]))
        with pytest.raises(RecordError, match="keypoints"):
            describe(torch.zeros(20, 20), point)
