"""The compiled reader of COCO's files reads what `json` reads, to the last bit, or says that it cannot."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.metrics.mask_cases import mask_files

from bestiary.metrics import coco_entries
from bestiary.metrics._kernels.decimals import BAD, HARD, WHOLE, read_number
from bestiary.metrics._kernels.json_values import after_value, members
from bestiary.metrics.coco_entries import Entries, Wanted, columns_of, mapped, scan_list

BOXES = Wanted(("image_id", "category_id", "score", "bbox"), ("area", "iscrowd"))
MASKS = Wanted(("image_id", "segmentation"), ("bbox",))


def fast(folder: Path, text: str | bytes, wanted: Wanted = BOXES) -> Entries | None:
    path = folder / "entries.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    with mapped(path) as content:
        assert content is not None
        return scan_list(path, content, 0, len(content), wanted)


def require_same(mine: Entries, theirs: Entries) -> None:
    assert mine.columns.keys() == theirs.columns.keys()
    for name, column in theirs.columns.items():
        np.testing.assert_array_equal(mine.columns[name], column, err_msg=name)
        assert mine.columns[name].dtype == column.dtype
    if theirs.masks is not None:
        for name, column in vars(theirs.masks).items():
            np.testing.assert_array_equal(vars(mine.masks)[name], column, err_msg=name)


PIECES = [*(c.encode() for c in '"\\{}[],:0-.ex '), b"\xff", b"null", b"\x00", b"NaN", b"\\u00e9"]
NUMBER = r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?"

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-(10**18) + 1, 10**18 - 1),
    st.floats(0, 500).map(lambda v: round(v, 2)),
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {
        "image_id": st.integers(-(2**40), 2**40),
        "category_id": st.integers(0, 99),
        "score": numbers,
        "bbox": st.lists(numbers, min_size=4, max_size=4),
    },
    optional={"area": numbers, "iscrowd": st.sampled_from([0, 1, True, False, 1.0]), "id": anything, "note": anything},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries, max_size=4), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_equal_to_json(tmp_path: Path, listed: list[dict], indent: int | str | None, escape: bool) -> None:
    text = json.dumps(listed, indent=indent, ensure_ascii=escape)
    mine = fast(tmp_path, text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # half of a surrogate pair, written as it is: no matter who reads it
    assert mine is not None
    require_same(mine, columns_of(json.loads(text), mine.path, BOXES))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries, min_size=1, max_size=2), st.data())
def test_what_is_damaged_is_read_as_json_reads_it_or_not_at_all(
    tmp_path: Path, listed: list[dict], data: st.DataObject
) -> None:
    text = bytearray(json.dumps(listed).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        kind = data.draw(st.integers(0, 2))
        piece = data.draw(st.sampled_from(PIECES))
        text[place : place + (kind > 0)] = b"" if kind == 2 else piece
    mine = fast(tmp_path, bytes(text)) if text else None
    if mine is not None:
        require_same(mine, columns_of(json.loads(bytes(text)), mine.path, BOXES))


@settings(max_examples=400, deadline=None)
@given(st.one_of(numbers.map(repr), st.from_regex(NUMBER, fullmatch=True)))
def test_numbers_are_pythons_to_the_last_bit(text: str) -> None:
    raw = np.frombuffer(text.encode(), np.uint8)
    number = read_number(raw, 0, raw.size)
    assert number.end == len(text)
    assert number.status != BAD
    if number.status != HARD:
        wanted = float(json.loads(text))
        assert struct.pack("d", number.real) == struct.pack("d", wanted)
        assert number.status != WHOLE or number.whole == json.loads(text)


def test_numbers_half_way_between_two_doubles_go_to_the_even_one() -> None:
    rng = np.random.default_rng(0)
    texts = [str(2 * int(k) + 1) for k in rng.integers(2**52, 2**53, 200)]
    texts += [f"{t}e{e}" for t in texts[:100] for e in (-3, 2, 22)]
    texts += ["18446744073709551616.5", "0.000000000000000000123", "1e23", "8.5e-320", "9007199254740993"]
    for text in texts:
        raw = np.frombuffer(text.encode(), np.uint8)
        number = read_number(raw, 0, raw.size)
        assert number.status == HARD or number.real == float(text), text


@pytest.mark.parametrize("text", ["01", "-", ".5", "1.", "1e", "+1", "1e+", "--1", "-a", ""])
def test_what_is_no_number(text: str) -> None:
    raw = np.frombuffer(text.encode(), np.uint8)
    number = read_number(raw, 0, raw.size)
    assert number.status == BAD or number.end < raw.size


GOOD = '{"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [1, 2, 3, 4]}'


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[", f"[{GOOD},]", f"[{GOOD}] x", f"[{GOOD} {GOOD}]", "[{}]", "[1]", f"[{GOOD[:-1]},}}]",
        GOOD.join("[]").replace("1,", "1.0,", 1), GOOD.join("[]").replace("0.5", "null"),
        GOOD.join("[]").replace("0.5", "NaN"), GOOD.join("[]").replace("4]", "4, 5]"),
        GOOD.join("[]").replace('"score"', '"scor\\u0065"'), GOOD.join("[]").replace("0.5", '0.5, "score": 0.6'),
        f"[{GOOD[:-1]}, {'[' * 70 + ']' * 70}}}]", f'[{GOOD[:-1]}, "x": "\x01"}}]',
    ],
)  # fmt: skip
def test_unusual_files_are_left_to_json(text: str, tmp_path: Path) -> None:
    assert fast(tmp_path, text) is None


def test_bytes_that_are_no_utf8_are_left_to_json(tmp_path: Path) -> None:
    text = f'[{GOOD[:-1]}, "name": "\u00e9"}}]'
    assert fast(tmp_path, text) is not None
    assert fast(tmp_path, text.encode("latin-1")) is None


def test_pieces_join_wherever_they_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text between entries also occurs within strings and deeper down: such a cut is noticed."""
    plain = [json.loads(GOOD) | {"image_id": i, "score": i / 7} for i in range(50)]
    tricky = [entry | {"parts": [{"a": 1}, {"b": "}, {"}]} for entry in plain]
    for size in (1, 60, 500):
        monkeypatch.setattr(coco_entries, "_PIECE", size)
        mine = fast(tmp_path, json.dumps(plain))
        assert mine is not None
        require_same(mine, columns_of(plain, mine.path, BOXES))
        cut = fast(tmp_path, json.dumps(tricky))
        if cut is not None:
            require_same(cut, columns_of(tricky, cut.path, BOXES))


@pytest.mark.parametrize("piece", [200, 1 << 20])
def test_masks_equal_to_json(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_entries, "_PIECE", piece)
    truths, results = mask_files(4)
    for listed in (truths["annotations"], results, []):
        mine = fast(tmp_path, json.dumps(listed), MASKS)
        assert mine is not None
        require_same(mine, columns_of(listed, mine.path, MASKS))


def test_backslashes_in_run_lengths(tmp_path: Path) -> None:
    listed = [{"image_id": 1, "segmentation": {"counts": "a\\b\\\\c", "size": [3, 4]}}]
    mine = fast(tmp_path, json.dumps(listed), MASKS)
    assert mine is not None
    assert mine.masks is not None
    assert mine.masks.text.tobytes() == b"a\\b\\\\c"
    assert fast(tmp_path, json.dumps(listed).replace("\\\\b", "\\u0062"), MASKS) is None


@pytest.mark.parametrize(
    "value", [{}, [], "a\n\"\\\u00e9", {"a": [1, {"b": [[], {}]}, -2.5e-3], "c": None}, [True, False, "}"], 7]
)  # fmt: skip
def test_ends_of_values(value: Any) -> None:
    text = json.dumps(value, indent=1).encode()
    raw = np.frombuffer(text + b" ,", np.uint8)
    assert after_value(raw, 0, raw.size) == len(text)
    for end in range(len(text)):
        behind = after_value(raw[:end], 0, end)
        assert behind == -1 or isinstance(value, int)


def test_members_of_an_object() -> None:
    text = b' {"a": [1, 2], "b\\"": {"c": "}"} , "d":null}\n'
    spans = np.empty((8, 4), np.int64)
    assert members(np.frombuffer(text, np.uint8), spans) == 3
    assert [json.loads(text[a:b]) for a, b in spans[:3, :2]] == ["a", 'b"', "d"]
    assert [json.loads(text[a:b]) for a, b in spans[:3, 2:]] == [[1, 2], {"c": "}"}, None]
    for broken in (b"", b"[]", b"{", b'{"a"}', b'{"a": 1,}', b'{"a": 1} 2', b"{1: 2}"):
        assert members(np.frombuffer(broken, np.uint8), spans) == -1
    assert members(np.frombuffer(b"{ }", np.uint8), spans) == 0
