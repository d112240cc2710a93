"""Objects made of parts among clutter, from pictures alone."""

import math

import pytest
import torch

from bestiary.classification.constellation import LEARNED, SHAPELESS, UNSEEN, Constellation
from bestiary.errors import UsageError
from bestiary.records import Sample, Target

SIDE = 96
LAYOUTS = {"row": [(-24, 0), (0, 0), (24, 0)], "corner": [(-14, 14), (-14, -14), (14, 14)]}


def blob(image: torch.Tensor, x: float, y: float, kind: int, radius: float = 7) -> None:
    """One of three kinds of mark: a disc, a ring, a cross."""
    rows, columns = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    dx, dy = (columns - x) / radius, (rows - y) / radius
    distance = (dx**2 + dy**2).sqrt()
    inside = (
        distance <= 1,
        (distance <= 1) & (distance >= 0.6),
        (torch.minimum(dx.abs(), dy.abs()) < 0.3) & (distance <= 1),
    )
    image[:, inside[kind]] = (0.9, 0.05, 0.75)[kind]


def picture(layout: str, seed: int, at: tuple[float, float] | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((3, SIDE, SIDE), 0.4)
    x, y = at or (torch.rand(2, generator=generator) * 24 + 36).tolist()
    for _ in range(2):  # clutter first: parts lie over it
        cx, cy = (torch.rand(2, generator=generator) * 80 + 8).tolist()
        blob(image, cx, cy, int(torch.randint(3, (), generator=generator)), 4)
    for kind, (dx, dy) in enumerate(LAYOUTS[layout]):
        jitter = torch.randn(2, generator=generator).tolist()
        blob(image, x + dx + jitter[0], y + dy + jitter[1], kind)
    return image + 0.01 * torch.randn(3, SIDE, SIDE, generator=generator)


def samples(first: int, count: int) -> list[Sample]:
    found = []
    for i in range(count):
        for label, layout in enumerate(LAYOUTS):
            image = picture(layout, first + 10 * i + label)
            found.append(Sample(image, Target(label=label), f"{layout}{i}.png", (SIDE, SIDE)))
    return found


@pytest.fixture(scope="module")
def system() -> Constellation:
    system = Constellation(list(LAYOUTS), parts=3, regions=10, side=SIDE, appearance=6, scale_invariant=False)
    system.fit(samples(0, 16))
    return system


def test_the_same_parts_in_another_place_are_another_class(system: Constellation) -> None:
    new = samples(5000, 10)
    found = system.predict_images([s.image for s in new])
    assert sum(p.label == s.target.label for p, s in zip(found, new, strict=True)) >= 18
    assert (system.log_ratios([s.image for s in new]).amax(1) > 0).all()


def test_a_plain_picture_is_clutter(system: Constellation) -> None:
    ratios = system.log_ratios([torch.full((3, SIDE, SIDE), 0.5)])
    assert (ratios < 0).all()
    assert torch.isfinite(ratios).all()


def test_parts_are_found_where_they_stand(system: Constellation) -> None:
    here, there = (system.find_parts(picture("row", 7777, at), 0) for at in ((40.0, 40.0), (52.0, 56.0)))
    seen = torch.nonzero((here[1] >= 0) & (there[1] >= 0)).flatten()
    assert len(seen) >= 2
    moved = there[0].centres_xy[there[1][seen]] - here[0].centres_xy[here[1][seen]]
    torch.testing.assert_close(moved.median(0).values, torch.tensor([12.0, 16.0]), atol=3, rtol=0)
    sheet = system.draw_parts(picture("row", 7777), 0)
    assert sheet.shape == (3, SIDE, SIDE)


def test_classes_without_regions_or_pictures_are_said() -> None:
    plain = [Sample(torch.full((3, 40, 40), 0.3), Target(label=1), f"plain{i}", (40, 40)) for i in range(3)]
    lines: list[str] = []
    system = Constellation(["row", "plain", "unseen"], parts=2, regions=8, side=SIDE, appearance=4)
    system.fit([s for s in samples(0, 6) if s.target.label == 0] + plain, say=lines.append)
    assert system.known.tolist() == [LEARNED, SHAPELESS, UNSEEN]
    assert any("plain: no picture has regions enough" in line for line in lines)
    ratios = system.log_ratios([picture("row", 99)])[0].tolist()
    assert ratios[1] == 0
    assert math.isinf(ratios[2])
    assert system.predict_images([plain[0].image])[0].label == 1
    with pytest.raises(UsageError, match="unseen"):
        system.find_parts(picture("row", 99), 2)


def test_pictures_without_anything_to_see_are_refused() -> None:
    plain = [Sample(torch.full((3, 40, 40), 0.3), Target(label=0), f"{i}", (40, 40)) for i in range(3)]
    with pytest.raises(UsageError, match="no picture has 4 salient regions"):
        Constellation(["a"]).fit(plain)


@pytest.mark.parametrize("options", [{"parts": 1}, {"regions": 2}, {"side": 3}, {"appearance": 0}, {"pictures": 0}])
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Constellation(["a"], **options)
