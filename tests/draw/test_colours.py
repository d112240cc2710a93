import numpy as np
import pytest
from skimage.color import rgb2lab

from bestiary import draw

# Viénot, Brettel, Mollon 1999: what red-blind and green-blind eyes see, linear RGB.
PROTANOPE = [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]
DEUTERANOPE = [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]


def luminance(colour: tuple[int, int, int]) -> float:
    total = 0.0
    for weight, value in zip((0.2126, 0.7152, 0.0722), colour, strict=True):
        c = value / 255
        total += weight * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
    return total


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    dark, light = sorted([luminance(a), luminance(b)])
    return (light + 0.05) / (dark + 0.05)


def smallest_distance(rgb: np.ndarray) -> float:
    lab = rgb2lab(rgb[None])[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    return distance[~np.eye(len(lab), dtype=bool)].min()


def test_the_table_has_over_twenty_colours_far_apart_for_every_eye() -> None:
    table = np.array(draw.TABLE) / 255
    assert len(table) == 24
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    assert smallest_distance(table) > 24
    for eye in (PROTANOPE, DEUTERANOPE):
        seen = np.clip(linear @ np.array(eye).T, 0, 1)
        display = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        assert smallest_distance(display) > 15


def test_every_label_has_a_colour_and_the_first_two_hundred_differ() -> None:
    colours = [draw.colour_of(k) for k in range(200)]
    assert len(set(colours)) == 200
    assert colours[: len(draw.TABLE)] == list(draw.TABLE)
    assert all(0 <= c <= 255 for colour in colours for c in colour)
    assert draw.colour_of(-1) == (128, 128, 128)


@pytest.mark.parametrize("label", range(0, 120, 7))
def test_ink_is_readable_on_every_colour(label: int) -> None:
    colour = draw.colour_of(label)
    ink = draw.ink_on(colour)
    assert contrast(ink, colour) >= 4.5
    assert contrast(ink, colour) == max(contrast((0, 0, 0), colour), contrast((255, 255, 255), colour))
