"""Where a JSON value ends: strings, and anything nested, checked as a strict reader would.

Every function gives the place behind the value, or -1 for what is not strictly JSON or unusual (nested deeper than 60,
NaN, numbers of hundreds of digits): such a file is read another way. Bytes above 127 pass: their encoding is checked
elsewhere.
"""

import numpy as np
from numba import njit

from bestiary.metrics._kernels.decimals import BAD, read_number

SPACE, QUOTE, COMMA, COLON, BACKSLASH = 32, 34, 44, 58, 92
OPEN_LIST, CLOSE_LIST, OPEN_ENTRY, CLOSE_ENTRY = 91, 93, 123, 125
_DEEPEST, _LONGEST_NUMBER = 60, 400
_WORDS = np.zeros((3, 5), np.uint8)
for _row, _word in enumerate((b"true", b"false", b"null")):
    _WORDS[_row, : len(_word)] = np.frombuffer(_word, np.uint8)


@njit(cache=True, nogil=True, forceinline=True)
def after_space(text: np.ndarray, at: int, end: int) -> int:
    """The first place from `at` on that is not white space."""
    while at < end and (text[at] == SPACE or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@njit(cache=True, nogil=True, forceinline=True)
def after_mark(text: np.ndarray, at: int, end: int, mark: int) -> int:
    """Behind `mark`, which must be the next thing but white space, and behind the white space that follows it."""
    at = after_space(text, at, end)
    return after_space(text, at + 1, end) if at < end and text[at] == mark else -1


@njit(cache=True, nogil=True)
def after_string(text: np.ndarray, at: int, end: int) -> int:
    """Behind the closing quote of the string whose opening quote is at `at`."""
    at += 1
    while at < end:
        c = text[at]
        if c == QUOTE:
            return at + 1
        if c < 32:
            return -1
        if c == BACKSLASH:
            at += 1
            if at >= end:
                return -1
            c = text[at]
            if c == 117:  # \uXXXX
                for _ in range(4):
                    at += 1
                    if at >= end or not (48 <= text[at] <= 57 or 65 <= text[at] <= 70 or 97 <= text[at] <= 102):
                        return -1
            elif not (c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116):
                return -1
        at += 1
    return -1


@njit(cache=True, nogil=True)
def after_word(text: np.ndarray, at: int, end: int) -> int:
    """Behind `true`, `false` or `null`."""
    for word in range(3):
        size = 5 if word == 1 else 4
        if at + size <= end:
            same = True
            for i in range(size):
                same &= text[at + i] == _WORDS[word, i]
            if same:
                return at + size
    return -1


@njit(cache=True, nogil=True)
def _after_plain(text: np.ndarray, at: int, end: int) -> int:
    """Behind a string, number or word."""
    if text[at] == QUOTE:
        return after_string(text, at, end)
    if text[at] == 45 or 48 <= text[at] <= 57:
        number = read_number(text, at, end)
        return -1 if number.status == BAD or number.end - at > _LONGEST_NUMBER else number.end
    return after_word(text, at, end)


@njit(cache=True, nogil=True)
def _after_key(text: np.ndarray, at: int, end: int) -> int:
    """At the value that belongs to the key that comes next."""
    at = after_space(text, at, end)
    if at >= end or text[at] != QUOTE:
        return -1
    at = after_string(text, at, end)
    return -1 if at < 0 else after_mark(text, at, end, COLON)


@njit(cache=True, nogil=True)
def after_value(text: np.ndarray, at: int, end: int) -> int:
    """Behind any value that begins at `at`."""
    depth, in_entry = 0, np.zeros(_DEEPEST, np.bool_)
    while True:
        if at < 0 or at >= end:
            return -1
        c, opened = text[at], False
        if c in (OPEN_LIST, OPEN_ENTRY):
            inside = after_space(text, at + 1, end)
            if inside < end and text[inside] == (CLOSE_LIST if c == OPEN_LIST else CLOSE_ENTRY):
                at = inside + 1
            elif depth == _DEEPEST:
                return -1
            else:
                in_entry[depth] = c == OPEN_ENTRY
                depth += 1
                opened = True
                at = _after_key(text, inside, end) if c == OPEN_ENTRY else inside
        else:
            at = _after_plain(text, at, end)
            if at < 0:
                return -1
        while not opened:
            if depth == 0:
                return at
            at = after_space(text, at, end)
            if at >= end:
                return -1
            if text[at] == COMMA:
                at = _after_key(text, at + 1, end) if in_entry[depth - 1] else after_space(text, at + 1, end)
                opened = True
            elif text[at] == (CLOSE_ENTRY if in_entry[depth - 1] else CLOSE_LIST):
                at += 1
                depth -= 1
            else:
                return -1


@njit(cache=True, nogil=True)
def members(text: np.ndarray, spans: np.ndarray) -> int:
    """The members of the object that is the whole text: key's and value's begin and end, in rows of `spans`.

    Returns how many, or -1 (also for more than fit).
    """
    end, count = text.size, 0
    at = after_mark(text, 0, end, OPEN_ENTRY)
    if 0 <= at < end and text[at] == CLOSE_ENTRY:
        return 0 if after_space(text, at + 1, end) == end else -1
    while at >= 0:
        key = after_space(text, at, end)
        if count == spans.shape[0] or key >= end or text[key] != QUOTE:
            return -1
        behind_key = after_string(text, key, end)
        value = -1 if behind_key < 0 else after_mark(text, behind_key, end, COLON)
        behind = -1 if value < 0 else after_value(text, value, end)
        if behind < 0:
            return -1
        spans[count] = (key, behind_key, value, behind)
        count += 1
        at = after_space(text, behind, end)
        if at < end and text[at] == CLOSE_ENTRY:
            return count if after_space(text, at + 1, end) == end else -1
        at = after_mark(text, at, end, COMMA)
    return -1
