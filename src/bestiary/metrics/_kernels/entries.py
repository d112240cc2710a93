"""A list of JSON entries (annotations, results, pictures) straight into columns, without a Python object an entry.

Only what is plain is read here. Anything else (a field twice, an id that is no integer, an escape in a field's name)
ends the scan, and the file is read the slow way, which also has the words for what is wrong.
"""

import numpy as np
from numba import njit

from bestiary.metrics._kernels.decimals import BAD, HARD, REAL, WHOLE, read_number
from bestiary.metrics._kernels.json_values import (
    BACKSLASH,
    CLOSE_ENTRY,
    CLOSE_LIST,
    COLON,
    COMMA,
    OPEN_ENTRY,
    OPEN_LIST,
    QUOTE,
    after_mark,
    after_space,
    after_string,
    after_value,
    after_word,
)

FIELDS = (
    "image_id", "category_id", "id", "height", "width", "num_keypoints", "iscrowd", "score", "area", "bbox",
    "keypoints", "segmentation",
)  # fmt: skip
"""What can be read: six integers, a flag, two numbers, a box, joints, a mask."""

_CROWD, _BOX, _JOINTS, _MASK = 6, 9, 10, 11
PRESENT, MASK_KIND, MASK_HEIGHT, MASK_WIDTH, PARTS, CHARACTERS = 0, 1, 2, 3, 4, 5
"""First columns of `whole`: a bit for each field that is there, the mask's kind and size, and where the entry ends
in `part_ends` and in `characters`."""

NO_MASK, POLYGONS, RUNS, TEXT = 0, 1, 2, 3
"""How an entry's mask is written."""

IN_REALS, IN_NUMBERS = 0, 1
ROOM_FOR_HARD = 4096
"""Numbers of a piece that Python must read (column, place, begin, end), and how many of them there may be."""

_KEYS = np.zeros((len(FIELDS), 16), np.uint8)
_LENGTHS = np.array([len(name) for name in FIELDS])
for _row, _name in enumerate(FIELDS):
    _KEYS[_row, : len(_name)] = np.frombuffer(_name.encode(), np.uint8)
_MASK_KEYS = np.zeros((2, 16), np.uint8)
_MASK_KEYS[0, :6], _MASK_KEYS[1, :4] = np.frombuffer(b"counts", np.uint8), np.frombuffer(b"size", np.uint8)
_MASK_LENGTHS = np.array([6, 4])


@njit(cache=True, nogil=True)
def _name_at(text: np.ndarray, begin: int, end: int, names: np.ndarray, lengths: np.ndarray) -> int:
    """Which of the names stands between `begin` and `end`; -1 for none, -2 for one that an escape may disguise."""
    for name in range(lengths.size):
        if lengths[name] == end - begin:
            same = True
            for i in range(end - begin):
                same &= text[begin + i] == names[name, i]
            if same:
                return name
    escaped = False
    for i in range(begin, end):
        escaped |= text[i] == BACKSLASH
    return -2 if escaped else -1


@njit(cache=True, nogil=True, forceinline=True)
def _behind_name(text: np.ndarray, at: int, end: int, field: int) -> int:
    """Behind the closing quote if the string at `at` is the field's name, else -1."""
    if field < 0 or at + _LENGTHS[field] + 2 > end or text[at + 1 + _LENGTHS[field]] != QUOTE:
        return -1
    for i in range(_LENGTHS[field]):
        if text[at + 1 + i] != _KEYS[field, i]:
            return -1
    return at + 2 + _LENGTHS[field]


@njit(cache=True, nogil=True)
def _take(
    text: np.ndarray, at: int, end: int, values: np.ndarray, place: int, column: int, hard: np.ndarray, used: np.ndarray
) -> int:
    """Put the number at `at` into `values`; the place behind it, or -1."""
    number = read_number(text, at, end)
    if number.status == BAD:
        return -1
    if number.status == HARD:
        if used[2] == ROOM_FOR_HARD:
            return -1
        hard[used[2]] = (column, place, at, number.end)
        used[2] += 1
    values[place] = number.real
    return number.end


@njit(cache=True, nogil=True)
def _take_list(
    text: np.ndarray, at: int, end: int, numbers: np.ndarray, part_ends: np.ndarray, hard: np.ndarray, used: np.ndarray
) -> int:
    """A list of numbers, added to `numbers` as one part; the place behind it."""
    at, count = after_mark(text, at, end, OPEN_LIST), used[0]
    if 0 <= at < end and text[at] == CLOSE_LIST:
        at += 1
    else:
        more = True
        while more:
            at = -1 if at < 0 or count == numbers.size else _take(text, at, end, numbers, count, IN_NUMBERS, hard, used)
            if at < 0:
                return -1
            count += 1
            at = after_space(text, at, end)
            more = at < end and text[at] == COMMA
            at = after_space(text, at + 1, end) if more else at
        if at >= end or text[at] != CLOSE_LIST:
            return -1
        at += 1
    used[0] = count
    part_ends[used[1]] = count
    used[1] += 1
    return at


@njit(cache=True, nogil=True)
def _take_four(
    text: np.ndarray, at: int, end: int, reals: np.ndarray, place: int, hard: np.ndarray, used: np.ndarray
) -> int:
    for k in range(4):
        at = after_mark(text, at, end, COMMA if k else OPEN_LIST)
        at = -1 if at < 0 else _take(text, at, end, reals, place + k, IN_REALS, hard, used)
        if at < 0:
            return -1
    at = after_space(text, at, end)
    return at + 1 if at < end and text[at] == CLOSE_LIST else -1


@njit(cache=True, nogil=True)
def _take_text(text: np.ndarray, at: int, end: int, characters: np.ndarray, used: np.ndarray) -> int:
    """The string of run lengths that begins at `at`; its only escape is that of the backslash."""
    count, at = used[3], at + 1
    while at < end and text[at] != QUOTE:
        if text[at] == BACKSLASH:
            at += 1
            if at >= end or text[at] != BACKSLASH:
                return -1
        elif text[at] < 48 or text[at] > 111:
            return -1
        characters[count] = text[at]
        count += 1
        at += 1
    used[3] = count
    return at + 1 if at < end else -1


@njit(cache=True, nogil=True)
def _take_size(text: np.ndarray, at: int, end: int, whole: np.ndarray) -> int:
    """Height and width, a list of two integers."""
    for k in range(2):
        at = after_mark(text, at, end, COMMA if k else OPEN_LIST)
        if at < 0:
            return -1
        number = read_number(text, at, end)
        if number.status != WHOLE or not 0 <= number.whole < 2**31:
            return -1
        whole[MASK_HEIGHT + k] = number.whole
        at = number.end
    at = after_space(text, at, end)
    return at + 1 if at < end and text[at] == CLOSE_LIST else -1


@njit(cache=True, nogil=True)
def _take_mask(
    text: np.ndarray,
    at: int,
    end: int,
    whole: np.ndarray,
    numbers: np.ndarray,
    part_ends: np.ndarray,
    characters: np.ndarray,
    hard: np.ndarray,
    used: np.ndarray,
) -> int:
    """A list of polygons, or an object of `size` and `counts` (text or list) and nothing else."""
    polygons = at < end and text[at] == OPEN_LIST
    at = after_mark(text, at, end, OPEN_LIST if polygons else OPEN_ENTRY)
    closing = CLOSE_LIST if polygons else CLOSE_ENTRY
    seen = 0
    whole[MASK_KIND], whole[MASK_HEIGHT], whole[MASK_WIDTH] = POLYGONS, 0, 0
    while 0 <= at < end:
        if polygons:
            at = _take_list(text, at, end, numbers, part_ends, hard, used)
        else:
            behind = after_string(text, at, end) if text[at] == QUOTE else -1
            value = -1 if behind < 0 else after_mark(text, behind, end, COLON)
            name = _name_at(text, at + 1, behind - 1, _MASK_KEYS, _MASK_LENGTHS) if 0 <= value < end else -1
            if name < 0 or seen & (1 << name):
                return -1
            seen |= 1 << name
            if name == 1:
                at = _take_size(text, value, end, whole)
            elif text[value] == QUOTE:
                whole[MASK_KIND] = TEXT
                at = _take_text(text, value, end, characters, used)
            else:
                whole[MASK_KIND] = RUNS
                at = _take_list(text, value, end, numbers, part_ends, hard, used)
        at = -1 if at < 0 else after_space(text, at, end)
        if 0 <= at < end and text[at] == closing:
            return at + 1 if polygons or seen == 3 else -1
        at = -1 if at < 0 else after_mark(text, at, end, COMMA)
    return -1


@njit(cache=True, nogil=True)
def _take_integer(text: np.ndarray, at: int, end: int, field: int, row: np.ndarray, column: int) -> int:
    if field == _CROWD and at < end and (text[at] == 116 or text[at] == 102):
        row[column] = text[at] == 116
        return after_word(text, at, end)
    number = read_number(text, at, end)
    if field == _CROWD:
        row[column] = number.real != 0
        return number.end if number.status == WHOLE or number.status == REAL else -1
    row[column] = number.whole
    return number.end if number.status == WHOLE else -1


@njit(cache=True, nogil=True)
def scan_entries(
    text: np.ndarray,
    at: int,
    end: int,
    places: np.ndarray,
    required: int,
    whole: np.ndarray,
    reals: np.ndarray,
    numbers: np.ndarray,
    part_ends: np.ndarray,
    characters: np.ndarray,
    hard: np.ndarray,
    used: np.ndarray,
) -> int:
    """Read the entries between `at` and `end`, commas between them, nothing else.

    Args:
        places: column of each field in `whole` or `reals`, -1 for those not to be kept.
        required: a bit for each field that no entry may lack.
        numbers: joints, polygons and run lengths, one after the other; part p ends at `part_ends[p]`.
        characters: compressed run lengths.
        used: how many numbers, parts, hard numbers and characters there are.

    Returns:
        How many entries, or -1 if anything is not as it should be.
    """
    row, at = 0, after_space(text, at, end)
    flat, last_fields = reals.reshape(reals.size), np.full(16, -1)
    while at < end:
        if row == whole.shape[0]:
            return -1
        seen, joined, mine, keys = 0, True, whole[row], 0
        at = after_mark(text, at, end, OPEN_ENTRY)
        while joined:
            if not 0 <= at < end or text[at] != QUOTE:
                return -1
            # Entries mostly look alike: first the field that stood here in the last one.
            field = last_fields[min(keys, last_fields.size - 1)]
            behind = _behind_name(text, at, end, field)
            if behind < 0:
                behind = after_string(text, at, end)
                field = -2 if behind < 0 else _name_at(text, at + 1, behind - 1, _KEYS, _LENGTHS)
                last_fields[min(keys, last_fields.size - 1)] = field
            keys += 1
            value = -1 if field == -2 else after_mark(text, behind, end, COLON)
            if value < 0 or (field >= 0 and seen & (1 << field)):
                return -1
            place = places[field] if field >= 0 else -1
            seen |= 1 << field if field >= 0 else 0
            if place < 0:
                at = after_value(text, value, end)
            elif field <= _CROWD:
                at = _take_integer(text, value, end, field, mine, place)
            elif field < _BOX:
                at = _take(text, value, end, flat, row * reals.shape[1] + place, IN_REALS, hard, used)
            elif field == _BOX:
                at = _take_four(text, value, end, flat, row * reals.shape[1] + place, hard, used)
            elif field == _JOINTS:
                at = _take_list(text, value, end, numbers, part_ends, hard, used)
            else:
                at = _take_mask(text, value, end, mine, numbers, part_ends, characters, hard, used)
            at = -1 if at < 0 else after_space(text, at, end)
            joined = 0 <= at < end and text[at] == COMMA
            at = after_space(text, at + 1, end) if joined else at
        if not 0 <= at < end or text[at] != CLOSE_ENTRY or seen & required != required:
            return -1
        mine[PRESENT], mine[PARTS], mine[CHARACTERS] = seen, used[1], used[3]
        row += 1
        at = after_space(text, at + 1, end)
        if at < end:
            at = after_mark(text, at, end, COMMA)
            if at < 0 or at >= end:
                return -1
    return row


@njit(cache=True, nogil=True)
def is_plain(text: np.ndarray) -> bool:
    """Whether no byte is above 127."""
    together = np.uint8(0)
    for i in range(text.size):
        together |= text[i]
    return bool(together < 128)


@njit(cache=True, nogil=True)
def rows_of_ids(ids: np.ndarray, known: np.ndarray, rows: np.ndarray) -> int:
    """Place of each id in the ascending `known`; the first row whose id is not there, or -1. Runs of equal ids are
    cheap.
    """
    last = 0
    for i in range(ids.size):
        if last == known.size or known[last] != ids[i]:
            last = np.searchsorted(known, ids[i])
            if last == known.size or known[last] != ids[i]:
                return i
        rows[i] = last
    return -1
