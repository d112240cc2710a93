"""Faces in a subspace, and the two thresholds."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bestiary.classification.eigenfaces import Eigenfaces
from bestiary.data.dataset import load
from bestiary.errors import UsageError
from bestiary.records import Sample, Target

PEOPLE, SIDE = 12, 16


def face(person: int, seed: int, stranger: bool = False) -> torch.Tensor:
    """One of a family of smooth pictures: a mean, a person's own coefficients in six directions, a little noise."""
    basis = torch.randn(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(basis, (SIDE, SIDE), mode="bilinear")[:, 0]
    own = torch.randn(6, generator=torch.Generator().manual_seed(1000 + person + 100 * stranger))
    noise = torch.Generator().manual_seed(seed)
    own = own + 0.1 * torch.randn(6, generator=noise)
    image = 0.5 + 0.05 * smooth[0] + 0.05 * (own[:, None, None] * smooth[1:]).sum(0)
    return (image + 0.003 * torch.randn(SIDE, SIDE, generator=noise)).clamp(0, 1)[None].expand(3, -1, -1).contiguous()


def samples(first: int = 0, count: int = 8) -> list[Sample]:
    found = []
    for i in range(PEOPLE * count):
        label = i % PEOPLE
        found.append(Sample(face(label, first + i), Target(label=label), f"{i}.png", (SIDE, SIDE)))
    return found


def fitted(**options) -> Eigenfaces:
    system = Eigenfaces([f"person {i}" for i in range(PEOPLE)], **{"side": SIDE, "components": 6, **options})
    system.fit(samples())
    return system


@pytest.mark.parametrize("nearest", ["example", "mean"])
def test_people_are_known_strangers_unknown_and_noise_is_no_face(nearest: str) -> None:
    system = fitted(nearest=nearest)
    new = samples(first=500, count=10)
    found = system.recognise([s.image for s in new])
    right = [r for r, s in zip(found, new, strict=True) if r.verdict == "known" and r.label == s.target.label]
    assert len(right) >= 0.8 * len(new)
    assert all(r.category == f"person {r.label}" for r in right)
    strangers = system.recognise([face(i, 900 + i, stranger=True) for i in range(20)])
    assert sum(r.verdict == "unknown" for r in strangers) >= 15
    assert all(r.label is None and r.category is None for r in strangers if r.verdict != "known")
    noise = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert {r.verdict for r in system.recognise(list(noise))} == {"not a face"}


def test_thresholds_let_the_stated_share_of_new_faces_pass() -> None:
    new = [s.image for s in samples(first=2000, count=40)]
    for accepted in (0.5, 0.9):
        system = fitted(accepted=accepted)
        from_space, within = (
            torch.tensor(v) for v in zip(*[(r.from_space, r.within_space) for r in system.recognise(new)], strict=True)
        )
        passed = [
            (d <= limit).float().mean().item() for d, limit in zip((from_space, within), system.thresholds, strict=True)
        ]
        assert passed == pytest.approx([accepted, accepted], abs=0.17)


def test_the_mean_stands_for_a_person() -> None:
    system = fitted(nearest="mean")
    assert system.labels.tolist() == list(range(PEOPLE))
    rows = torch.stack([system.row_of(s.image) for s in samples() if s.target.label == 2])
    torch.testing.assert_close(system.coefficients[2], system.space.project(rows).mean(0), atol=1e-5, rtol=0)


def test_the_likeliest_is_the_nearest() -> None:
    system = fitted()
    images = [face(i, 700 + i, stranger=True) for i in range(8)]
    gaps = system.distances(images)[1]
    found = system.predict_images(images)
    assert [p.label for p in found] == gaps.argmin(1).tolist()


def test_people_without_pictures_are_never_seen() -> None:
    system = Eigenfaces(["a", "b", "ghost"], side=SIDE)
    system.fit([s for s in samples() if s.target.label < 2])
    assert all(float(p.probs[2]) == 0 for p in system.predict_images([face(0, 1), face(4, 2)]))


def test_one_picture_a_person_leaves_the_inner_threshold_open() -> None:
    system = Eigenfaces(["a", "b", "c"], side=SIDE)
    system.fit([Sample(face(i, i), Target(label=i), f"{i}", (SIDE, SIDE)) for i in range(3)])
    assert math.isinf(float(system.thresholds[1]))
    assert [p.label for p in system.predict_images([face(i, 40 + i) for i in range(3)])] == [0, 1, 2]


def test_eigenfaces_are_orthonormal_pictures_and_can_be_drawn() -> None:
    system = fitted()
    faces = system.components()
    assert faces.shape == (6, SIDE, SIDE)
    torch.testing.assert_close(faces.flatten(1) @ faces.flatten(1).T, torch.eye(6), atol=1e-5, rtol=0)
    sheet = system.draw_components(count=3, columns=2)
    assert sheet.dtype == torch.uint8
    assert sheet.shape[2] == 2 * 96 + 4
    assert sheet.float().std() > 10


@pytest.mark.parametrize("count", [1, 4])
def test_pictures_that_are_all_alike_are_refused(count: int) -> None:
    grey = torch.full((3, 9, 9), 70, dtype=torch.uint8)
    with pytest.raises(UsageError, match="all alike"):
        Eigenfaces(["a"]).fit([Sample(grey, Target(label=0), f"{i}", (9, 9)) for i in range(count)])


@pytest.mark.parametrize("options", [{"components": 0}, {"side": 0}, {"accepted": 1.5}])
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Eigenfaces(["a"], **options)


def test_on_orl_half_the_pictures_know_the_other_half_unless_shifted(real_data: Path) -> None:
    data = load(real_data / "orl_faces")
    numbered = [(int(Path(name).stem), i) for i, name in enumerate(data.names)]
    train, test = [data[i] for n, i in numbered if n <= 5], [data[i] for n, i in numbered if n > 5]
    system = Eigenfaces(data.categories)
    system.fit(train)

    def accuracy(shift: int) -> float:
        images = [F.pad(s.image[None].float(), (shift, 0, 0, 0), mode="replicate")[0, :, :, :92] for s in test]
        found = system.predict_images([i.to(torch.uint8) for i in images])
        return sum(p.label == s.target.label for p, s in zip(found, test, strict=True)) / len(test)

    # 0.89, 0.83 and 0.65 on our machine: the faces must be registered.
    still, moved, far = accuracy(0), accuracy(4), accuracy(8)
    assert still > 0.85
    assert still - moved > 0.02
    assert moved - far > 0.1
