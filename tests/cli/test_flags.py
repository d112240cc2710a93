import pytest

from bestiary.cli.flags import parse_fields, sort_words
from bestiary.cli.look_flags import LOOKS, SWITCHES, look_words
from bestiary.errors import UsageError

KNOWN = ["epochs", "short_side", "flip", "channels_last", "train_short_sides"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--epochs", "3"], {"epochs": "3"}),
        (["--epochs=3", "short_side=320"], {"epochs": "3", "short_side": "320"}),
        (["--short-side", "320", "--flip", "0"], {"short_side": "320", "flip": "0"}),
        (["--channels-last"], {"channels_last": "true"}),
        (["--no-channels-last", "--epochs", "2"], {"channels_last": "false", "epochs": "2"}),
        (["--train-short-sides=288,320"], {"train_short_sides": "288,320"}),
        (["--flip", "-1"], {"flip": "-1"}),
        ([], {}),
    ],
)
def test_the_three_ways_to_write_a_flag(words: list[str], wanted: dict[str, str]) -> None:
    assert parse_fields(words, KNOWN) == wanted


def test_an_unknown_flag_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no flag is called --epoch\. Did you mean --epochs\?"):
        parse_fields(["--epoch", "3"], KNOWN)


def test_a_misspelt_flag_of_the_command_itself_is_named_too() -> None:
    with pytest.raises(UsageError, match="Did you mean --data"):
        parse_fields(["--dta", "x"], KNOWN, ["--data"])


def test_a_flag_like_nothing_points_to_the_help() -> None:
    with pytest.raises(UsageError, match="--help"):
        parse_fields(["--qqqqqq", "3"], KNOWN)


def test_a_bare_word_and_a_repeated_flag_are_errors() -> None:
    with pytest.raises(UsageError, match="'oops'"):
        parse_fields(["oops"], KNOWN)
    with pytest.raises(UsageError, match="given twice"):
        parse_fields(["--epochs", "3", "--epochs", "4"], KNOWN)


@pytest.mark.parametrize(
    ("words", "paths", "fields"),
    [
        (["run", "--tile", "320", "pictures"], ["run", "pictures"], {"tile": "320"}),
        (["--tile=320", "run", "--test-scales", "0.5,1"], ["run"], {"tile": "320", "test_scales": "0.5,1"}),
        (["--test-flip", "run"], ["run"], {"test_flip": "true"}),
        (["run", "--test-flip", "no", "pictures"], ["run", "pictures"], {"test_flip": "no"}),
        (["--no-tile-whole", "run"], ["run"], {"tile_whole": "false"}),
        (["--test-flip=no", "", "run"], ["run"], {"test_flip": "no"}),
    ],
)
def test_words_and_flags_stand_in_any_order(words: list[str], paths: list[str], fields: dict[str, str]) -> None:
    assert sort_words(words, LOOKS, SWITCHES, (), "bestiary predict") == (paths, fields)


def test_a_misspelt_look_and_too_many_words_are_errors() -> None:
    with pytest.raises(UsageError, match=r"Did you mean --tile\?"):
        look_words(["run", "--tiel", "320"], ("MODEL",), LOOKS, ("--data",), "bestiary eval")
    with pytest.raises(UsageError, match="got 2 words"):
        look_words(["run", "more"], ("MODEL",), LOOKS, ("--data",), "bestiary eval")
