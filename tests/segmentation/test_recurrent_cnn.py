"""Pinheiro and Collobert's network: windows that grow with the rounds, all at once against each alone."""

import pytest
import torch

from bestiary.errors import UsageError
from bestiary.layers.preprocess import Normalize
from bestiary.records import Target
from bestiary.segmentation.recurrent_cnn import RecurrentCNN, recurrent_cnn, recurrent_cnn_small


def tiny(**parts: object) -> RecurrentCNN:
    """Kernels of 2: windows of 7, 31 pixels."""
    torch.manual_seed(0)
    normalize = Normalize([0.5] * 3, [0.5] * 3)
    return RecurrentCNN(("a", "b", "c"), normalize, maps=(4, 6), kernel=2, **parts).eval()  # type: ignore[arg-type]


def test_windows_grow_and_parameters_do_not() -> None:
    nets = [recurrent_cnn(rounds=rounds) for rounds in (1, 2, 3)]
    assert [net.sides for net in nets] == [(25,), (25, 121), (25, 121, 505)]
    assert {sum(p.numel() for p in net.parameters()) for net in nets} == {98_083}
    assert [net.geometry.margin for net in nets] == [12, 60, 252]


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 4])
@torch.inference_mode()
def test_every_answer_of_every_round_is_that_of_its_window_alone(rounds: int, step: int) -> None:
    net = tiny(rounds=rounds, step=step).double()
    side = net.sides[-1]
    pixels = torch.randn(1, 3, side + 8, side + 4, dtype=torch.float64)
    together = net.answers(pixels, step)
    assert {tuple(logits.shape[-2:]) for logits in together} == {(8 // step + 1, 4 // step + 1)}
    for y, x in ((0, 0), (8, 4), (4, 0)):
        alone = net.answers(pixels[..., y : y + side, x : x + side], side)
        for round_together, round_alone in zip(together, alone, strict=True):
            assert torch.allclose(round_together[..., y // step, x // step], round_alone[..., 0, 0], atol=1e-12)


@torch.inference_mode()
def test_each_round_is_the_network_on_the_picture_and_the_answer_before() -> None:
    net = tiny().double()
    window = torch.randn(1, 3, 31, 31, dtype=torch.float64)
    first = net.network(torch.cat([window, torch.zeros(1, 3, 31, 31, dtype=torch.float64)], dim=1))
    assert first.shape[-2:] == (7, 7)
    smaller = torch.empty(1, 3, 7, 7, dtype=torch.float64)
    taps = torch.tensor([0.5, 1, 1, 1, 0.5], dtype=torch.float64) / 4
    for i in range(7):
        for j in range(7):
            # the square of four pixels around the middle pixel of each answer's window
            part = window[..., 4 * i + 1 : 4 * i + 6, 4 * j + 1 : 4 * j + 6]
            smaller[..., i, j] = torch.einsum("bcyx,y,x->bc", part, taps, taps)
    second = net.network(torch.cat([smaller, first.softmax(1)], dim=1))
    found = net.answers(window, 31)
    assert torch.allclose(found[1], second, atol=1e-12)
    assert torch.allclose(found[0], first[..., 3:4, 3:4], atol=1e-12)


@torch.inference_mode()
def test_every_fourth_pixel_is_exact_and_those_between_are_interpolated() -> None:
    coarse, fine = tiny(step=4), tiny(step=1)
    image = torch.rand(1, 3, 14, 18)
    exact, found = fine.predict_logits(image), coarse.predict_logits(image)
    assert torch.allclose(found[..., ::4, ::4], exact[..., ::4, ::4], atol=1e-5)
    assert torch.allclose(found[..., 0, 2], (exact[..., 0, 0] + exact[..., 0, 4]) / 2, atol=1e-5)


@pytest.mark.parametrize("windows", [12, None])
def test_every_round_is_trained(windows: int | None) -> None:
    torch.manual_seed(0)
    net = tiny(windows=windows).train()
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 32, 32), 7, 1, 3)[0]
    label_map = (image[0] > image[0].median()).to(torch.uint8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    history = []
    for _ in range(40):
        optimizer.zero_grad()
        losses = net.loss([image, image], [Target(label_map=label_map)] * 2)
        assert list(losses.terms) == ["cross_entropy", "round1_cross_entropy"]
        losses.total.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
        history.append(float(losses.total.detach()))
    assert sum(history[-5:]) < 0.7 * sum(history[:5])


@pytest.mark.parametrize("size", [(1, 1), (17, 31)])
@torch.inference_mode()
def test_any_picture_is_named_whole(size: tuple[int, int]) -> None:
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(2)]
    net = tiny()
    for image, found in zip(images, net.predict_images(images), strict=True):
        assert found.label_map.shape == size
        assert torch.equal(net.predict_images([image])[0].label_map, found.label_map)


def test_without_any_label_the_loss_is_nothing() -> None:
    unknown = Target(label_map=torch.full((9, 9), 255, dtype=torch.uint8))
    for windows in (3, None):
        assert float(tiny(windows=windows).loss([torch.rand(3, 9, 9)], [unknown]).total.detach()) == 0


def test_the_state_comes_back_whole_and_numbers_that_cannot_be_do_not() -> None:
    one, other = recurrent_cnn_small(("a", "b")), recurrent_cnn_small(("a", "b"))
    other.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 6, 6)
    assert torch.equal(one.predict_logits(image), other.predict_logits(image))
    for rounds in (0, 5):
        with pytest.raises(UsageError, match="wanted 1 to 4 rounds"):
            recurrent_cnn(rounds=rounds)
