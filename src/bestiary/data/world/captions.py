"""A sentence about a picture, made of what is in it."""

from collections.abc import Sequence

import numpy as np

from bestiary.data.world.relations import BEHIND, FRONT, LEFT, ON, RIGHT
from bestiary.data.world.scene import Thing
from bestiary.data.world.vocabulary import COLOURS, PREDICATES, SIZES, TEXTURES

_TOLD = (ON, FRONT, BEHIND, LEFT, RIGHT)
"""Relations worth telling, most telling first."""
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def describe(thing: Thing) -> str:
    """A thing with its attributes, without article: "small red striped ball"."""
    words = [SIZES[thing.size], list(COLOURS)[thing.colour]]
    if thing.texture:
        words.append(TEXTURES[thing.texture])
    return " ".join([*words, thing.category])


def with_article(phrase: str) -> str:
    """ "a small ball", "an orange can"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def caption(things: Sequence[Thing], areas: Sequence[int], relations: np.ndarray, outdoors: bool) -> str:
    """A sentence about the largest thing, how it stands to another, and how many more there are.

    Args:
        things: those seen.
        areas: visible pixels of each.
        relations: rows of `relations` over `things`.
        outdoors: under the sky, or in a room.
    """
    place = "outdoors" if outdoors else "in a room"
    if not things:
        return f"Nothing is seen {place}."
    first = int(np.argmax(areas))
    rows = [(p, a, b) for a, p, b in relations.tolist() if p in _TOLD and first in (a, b)]
    told = {first}
    sentence = with_article(describe(things[first]))
    if rows:
        # The most telling relation; of equal ones that with the larger partner, told from the largest thing.
        p, a, b = min(rows, key=lambda r: (_TOLD.index(r[0]), -areas[r[1]] - areas[r[2]], r[1] != first))
        told = {a, b}
        sentence = f"{with_article(describe(things[a]))} {PREDICATES[p]} {with_article(describe(things[b]))}"
    rest = len(things) - len(told)
    if rest:
        number = _NUMBERS[rest] if rest < len(_NUMBERS) else str(rest)
        sentence += f", and {number} more {'thing' if rest == 1 else 'things'}"
    return f"{sentence[0].upper()}{sentence[1:]}, {place}."
