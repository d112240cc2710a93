"""Darknet's `.cfg` files: bytes, defaults of missing keys, and words for what is none."""

from pathlib import Path

import pytest

from bestiary.errors import CheckpointError
from bestiary.weights.darknet_cfg import (
    CfgLayer,
    DarknetConfig,
    Section,
    layers_of_cfg,
    parse_cfg,
    read_cfg,
    write_cfg,
)

TEXT = (
    "[net]\r\n# Testing\nwidth = 416\nheight=416\n\n[convolutional]\nbatch_normalize=1\nfilters = 32\nsize=3\npad=1\n"
    "activation=leaky\n\n\n#######\n[maxpool]\nsize=2\nstride=2\n\n[route]\nlayers=-1,-2\n\n[convolutional]\nsize=5\n"
    "padding=1\nactivation=linear\n; caf\u00e9 \u2014 end\n\n[dropout]\nprobability=.5\n\n[route]\nlayers = 0\n\n"
    "[reorg]\nstride=2\n\n[region]\nanchors =  1.5,2,  3, 4.25\nclasses=7\n\n[cost]\ntype=sse"
)


def test_any_file_survives_byte_for_byte(tmp_path: Path) -> None:
    data = TEXT.encode() + b"\n# \xff\n"
    (tmp_path / "one.cfg").write_bytes(data)
    config = read_cfg(tmp_path / "one.cfg")
    write_cfg(tmp_path / "other.cfg", config)
    assert (tmp_path / "other.cfg").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()].count("other.cfg") == len(list(tmp_path.iterdir())) - 1


def test_sections_written_are_read_again() -> None:
    sections = (Section("net", (("width", "64"),)), Section("maxpool"), Section("maxpool", (("size", "3"),)))
    config = DarknetConfig.of(sections)
    assert config.text == "[net]\nwidth=64\n\n[maxpool]\n\n[maxpool]\nsize=3\n"
    assert [(s.name, s.options) for s in config.sections] == [(s.name, s.options) for s in sections]
    assert DarknetConfig.of(config.sections) == config


def test_layers_have_darknets_defaults_and_absolute_routes() -> None:
    config = parse_cfg(TEXT)
    assert config.sections[0].read("width", int, 0) == 416
    assert layers_of_cfg(config) == (
        CfgLayer("convolutional", (32, 3, 1, 1, True, "leaky")),
        CfgLayer("maxpool", (2, 2)),
        CfgLayer("route", (1, 0)),
        CfgLayer("convolutional", (1, 5, 1, 1, False, "linear")),
        CfgLayer("route", (0,)),
        CfgLayer("reorg", (2,)),
        CfgLayer("region", ((1.5, 2, 3, 4.25), 7)),
    )
    assert layers_of_cfg(parse_cfg("[net]\n[convolutional]\n[maxpool]\nsize=3\n")) == (
        CfgLayer("convolutional", (1, 1, 1, 0, False, "logistic")),
        CfgLayer("maxpool", (3, 1)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [("width=3\n", "cfg:1: got 'width=3'"), ("[net]\nwhat\n", "cfg:2"), ("[region]\n", r"\[net\]"), ("", r"\[net\]")],
)
def test_what_is_no_cfg_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_cfg(text)


def test_a_number_that_is_none_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"line 2, \[convolutional\]: got size=big"):
        layers_of_cfg(parse_cfg("[net]\n[convolutional]\nsize=big\n"))
    with pytest.raises(CheckpointError, match=r"none\.cfg"):
        read_cfg(tmp_path / "none.cfg")
