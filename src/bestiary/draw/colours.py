"""A colour for every label: far apart for normal, red-blind and green-blind eyes, and the same in every picture.

The first seven are Okabe and Ito's ("Color Universal Design", 2008, without black). Seventeen more were added one by
one, each the colour whose smallest CIELAB distance to all before it, under normal sight and under the two
dichromacies simulated as Viénot et al. 1999 do, is largest. Beyond the table colours are spread by the golden angle
of hue and no promise about sight is kept.
"""

import colorsys

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""

TABLE: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167), (75,
    0, 255), (45, 105, 255), (255, 225, 180), (195, 15, 60), (0, 255, 255), (150, 180, 90), (165, 0, 135), (135, 0,
    195), (135, 150, 255), (150, 255, 135), (255, 0, 195), (240, 165, 165), (150, 45, 90), (60, 105, 60), (210, 0,
    255), (195, 0, 0), (240, 105, 120),
)  # fmt: skip
UNKNOWN: Colour = (128, 128, 128)
"""Of pixels whose truth is unknown, and of negative labels."""

_GOLDEN = 0.6180339887498949


def colour_of(label: int) -> Colour:
    """The colour of a label, however large; grey for a negative one."""
    if label < 0:
        return UNKNOWN
    if label < len(TABLE):
        return TABLE[label]
    extra = label - len(TABLE)
    lightness = (0.45, 0.62, 0.32)[extra % 3]
    red, green, blue = colorsys.hls_to_rgb((0.07 + _GOLDEN * extra) % 1.0, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has the larger contrast on `colour` (WCAG 2.1, relative luminance)."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrasts are (1.05) / (L + 0.05) with white and (L + 0.05) / 0.05 with black: equal at L = 0.179.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
