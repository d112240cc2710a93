"""Decimal text to the nearest double, as Python's `float` gives it, to the last bit.

Small numbers are exact in one multiplication or division (Clinger, PLDI 1990). The others take the product of the
digits with a 128-bit power of five, which decides the rounding (Lemire, "Number parsing at a gigabyte per second",
SP&E 2021, algorithm 1). What neither can decide is called hard and left to Python.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

BAD, WHOLE, REAL, HARD = -1, 0, 1, 2
"""What a number's text turned out to be: none, an integer, one with point or exponent, one that Python must read."""

_REACH = 60
"""Powers of ten from -60 to 60 are at hand."""


def _powers_of_five() -> tuple[np.ndarray, np.ndarray]:
    """The top 128 bits of 5^q, q from -60 to 60, as two halves; rounded up where q is negative (Lemire, section 5)."""
    high, low = np.zeros(2 * _REACH + 1, np.uint64), np.zeros(2 * _REACH + 1, np.uint64)
    for q in range(-_REACH, _REACH + 1):
        five = 5 ** abs(q)
        if q >= 0:
            top = five << 128 >> five.bit_length()
        else:
            bits = (five - 1).bit_length()
            top = 2 ** (bits + 127 if q >= -27 else 2 * bits + 128) // five + 1
            top >>= max(0, top.bit_length() - 128)
        high[q + _REACH], low[q + _REACH] = top >> 64, top & (2**64 - 1)
    return high, low


_HIGH, _LOW = _powers_of_five()
_TENS = np.array([float(10**k) for k in range(23)])
_TWOS = np.array([2.0**k for k in range(-600, 601)])
_ONE, _TWO, _THREE, _NINE = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(9)
_HALF, _LOW_HALF = np.uint64(32), np.uint64(2**32 - 1)
_TOP, _UNDECIDED, _FULL = np.uint64(63), np.uint64(0x1FF), np.uint64(2**64 - 1)


class Number(NamedTuple):
    """`end` is the place behind the text, `status` one of the four, `whole` the integer if it is one."""

    end: int
    status: int
    real: float
    whole: int | np.int64


@njit(cache=True, nogil=True)
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Both halves of a 128-bit product."""
    a_low, a_high, b_low, b_high = a & _LOW_HALF, a >> _HALF, b & _LOW_HALF, b >> _HALF
    low, one, two = a_low * b_low, a_low * b_high, a_high * b_low
    middle = (low >> _HALF) + (one & _LOW_HALF) + (two & _LOW_HALF)
    return a_high * b_high + (one >> _HALF) + (two >> _HALF) + (middle >> _HALF), (middle << _HALF) | (low & _LOW_HALF)


@njit(cache=True, nogil=True)
def nearest_double(digits: int | np.int64, exponent: int) -> tuple[bool, float]:
    """Whether digits x 10^exponent could be decided, and the double nearest to it; `digits` from 0 to 2^63 - 1."""
    if digits == 0:
        return True, 0.0
    if digits <= 9007199254740992 and -22 <= exponent <= 22:
        return True, digits * _TENS[exponent] if exponent >= 0 else digits / _TENS[-exponent]
    if exponent < -_REACH or exponent > _REACH:
        return False, 0.0
    word, zeros = np.uint64(digits), 0
    while word >> _TOP == 0:
        word <<= _ONE
        zeros += 1
    high, low = _product(word, _HIGH[exponent + _REACH])
    if high & _UNDECIDED == _UNDECIDED:
        carry, _ = _product(word, _LOW[exponent + _REACH])
        low += carry
        if carry > low:
            high += _ONE
    if low == _FULL and (exponent < -27 or exponent > 55):
        return False, 0.0
    upper = high >> _TOP
    mantissa = high >> (upper + _NINE)
    power = ((152170 + 65536) * exponent >> 16) + 63 + np.int64(upper) - zeros
    if low <= _ONE and -4 <= exponent <= 23 and mantissa & _THREE == _ONE and mantissa << (upper + _NINE) == high:
        mantissa &= ~_ONE  # exactly half way: to the even one
    mantissa = (mantissa + (mantissa & _ONE)) >> _ONE
    # At most 2^53, so exact; the exponents stay far from the subnormal ones.
    return True, np.float64(mantissa) * _TWOS[power - 52 + 600]


@njit(cache=True, nogil=True)
def read_number(text: np.ndarray, at: int, end: int) -> Number:
    """The JSON number that begins at `at`; `HARD` keeps its `end` but has no value."""
    negative = at < end and text[at] == 45
    if negative:
        at += 1
    if at >= end or not 48 <= text[at] <= 57:
        return Number(at, BAD, 0.0, 0)
    digits, status, exponent, begin = np.int64(0), WHOLE, 0, at
    while at < end and 48 <= text[at] <= 57:
        digits = digits * 10 + (text[at] - 48)
        at += 1
    written, fraction_only = at - begin, text[begin] == 48
    if fraction_only and written > 1:
        return Number(at, BAD, 0.0, 0)
    if at < end and text[at] == 46:
        status = REAL
        at += 1
        begin = at
        if fraction_only:
            while at < end and text[at] == 48:
                at += 1
            written = begin - at  # zeros in front are no digits
        while at < end and 48 <= text[at] <= 57:
            digits = digits * 10 + (text[at] - 48)
            at += 1
        if at == begin:
            return Number(at, BAD, 0.0, 0)
        exponent = begin - at
        written -= exponent
    if at < end and (text[at] == 101 or text[at] == 69):
        status = REAL
        at += 1
        downwards = at < end and text[at] == 45
        if at < end and (text[at] == 43 or text[at] == 45):
            at += 1
        begin, power = at, 0
        while at < end and 48 <= text[at] <= 57:
            power = min(power * 10 + (text[at] - 48), 100000)
            at += 1
        if at == begin:
            return Number(at, BAD, 0.0, 0)
        exponent += -power if downwards else power
    if written > 18:  # the digits have overflown
        return Number(at, HARD, 0.0, 0)
    if digits == 0 and status == WHOLE:
        negative = False  # the integer 0 has no sign
    decided, value = nearest_double(digits, exponent)
    return Number(at, status if decided else HARD, -value if negative else value, -digits if negative else digits)
