"""Darknet's files: the header's two forms, the order of numbers, and files that do not fit."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bestiary
from bestiary.backbones.darknet import Convolution, DarknetClassifier
from bestiary.errors import CheckpointError, UsageError
from bestiary.verbs.models import load_weights
from bestiary.weights.darknet import (
    Header,
    Layer,
    layers_of,
    load_darknet,
    outputs_in_file,
    read_darknet,
    write_darknet,
)

NUMBERS = 4 * 2 + 2 * 3 * 9 + 4 + 4 * 2
"""Of `network`: a 3x3 convolution of 2 channels with its norm, and a 1x1 convolution of 4 with biases."""


def network(outputs: int = 4) -> nn.Sequential:
    return nn.Sequential(Convolution(3, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, outputs, 1))


def file_of(path: Path, numbers: int, header: bytes = struct.pack("<iiiQ", 0, 2, 0, 640)) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=numbers).astype("<f4")
    path.write_bytes(header + values.tobytes())
    return values


@pytest.mark.parametrize(
    ("header", "bytes_before"),
    [
        (Header(0, 1, 0, 640), 16),
        (Header(0, 2, 0, 640), 20),
        (Header(0, 2, 5, 2**40), 20),
        (Header(1, 0, 0, 7), 20),
        (Header(0, 1001, 0, 7), 16),
    ],
)
def test_seen_has_8_bytes_from_version_0_2_on(header: Header, bytes_before: int, tmp_path: Path) -> None:
    data = header.write()
    assert len(data) == bytes_before
    assert Header.read(data + b"rest", "file") == (header, bytes_before)
    write_darknet(tmp_path / "net.weights", layers_of(network()), header)
    assert (tmp_path / "net.weights").stat().st_size == bytes_before + 4 * NUMBERS


def test_numbers_stand_in_darknets_order(tmp_path: Path) -> None:
    values = file_of(tmp_path / "net.weights", NUMBERS)
    net = network()
    header = read_darknet(tmp_path / "net.weights", layers_of(net))
    assert header.seen == 640
    unit, last = net[0], net[2]
    assert isinstance(unit, Convolution)
    assert isinstance(last, nn.Conv2d)
    cuts = np.cumsum([2, 2, 2, 2, 54, 4])
    beta, gamma, mean, var, weight, bias, weight2 = np.split(values, cuts)
    wanted = [(unit.norm.bias, beta), (unit.norm.weight, gamma), (unit.norm.running_mean, mean)]
    wanted += [(unit.norm.running_var, var), (last.bias, bias)]
    for tensor, part in wanted:
        assert tensor is not None
        assert np.array_equal(tensor.detach().numpy(), part)
    assert np.array_equal(unit.conv.weight.detach().numpy(), weight.reshape(2, 3, 3, 3))
    assert np.array_equal(last.weight.detach().numpy(), weight2.reshape(4, 2, 1, 1))


@pytest.mark.parametrize("header", [struct.pack("<iiiQ", 0, 2, 0, 123), struct.pack("<iiii", 0, 1, 0, 123)])
def test_a_file_survives_reading_and_writing_byte_for_byte(header: bytes, tmp_path: Path) -> None:
    there, again = tmp_path / "there.weights", tmp_path / "again.weights"
    file_of(there, NUMBERS, header)
    net = network()
    write_darknet(again, layers_of(net), read_darknet(there, layers_of(net)))
    assert again.read_bytes() == there.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.weights", "there.weights"]


@pytest.mark.parametrize(
    ("numbers", "message"), [(NUMBERS - 1, "got 73, wanted|truncated"), (NUMBERS + 2, "of a larger network")]
)
def test_a_file_of_another_length_is_refused_and_changes_nothing(numbers: int, message: str, tmp_path: Path) -> None:
    file_of(tmp_path / "net.weights", numbers)
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        read_darknet(tmp_path / "net.weights", layers_of(net))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("data", [b"", b"\0" * 11, struct.pack("<iii", 0, 2, 0) + b"\0" * 4])
def test_less_than_a_header_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.weights").write_bytes(data)
    with pytest.raises(CheckpointError, match="too few for a header"):
        read_darknet(tmp_path / "net.weights", layers_of(network()))


def test_broken_numbers_and_missing_files_are_refused(tmp_path: Path) -> None:
    file_of(tmp_path / "net.weights", NUMBERS)
    (tmp_path / "cut.weights").write_bytes((tmp_path / "net.weights").read_bytes()[:-2])
    with pytest.raises(CheckpointError, match="whole numbers of 4"):
        read_darknet(tmp_path / "cut.weights", layers_of(network()))
    with pytest.raises(CheckpointError, match="no such file"):
        read_darknet(tmp_path / "nowhere.weights", layers_of(network()))
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_darknet(tmp_path / "no_folder" / "net.weights", layers_of(network()))


def test_the_first_layers_of_a_larger_file(tmp_path: Path) -> None:
    values = file_of(tmp_path / "net.weights", NUMBERS)
    net = network()
    read_darknet(tmp_path / "net.weights", layers_of(net)[:1], partial=True)
    unit = net[0]
    assert isinstance(unit, Convolution)
    assert np.array_equal(unit.norm.bias.detach().numpy(), values[:2])


def test_a_head_for_other_categories_stays_fresh(tmp_path: Path) -> None:
    values = file_of(tmp_path / "net.weights", NUMBERS)
    net = network(outputs=7)
    assert outputs_in_file(NUMBERS, layers_of(net)) == 4
    assert outputs_in_file(NUMBERS, layers_of(network())) is None
    last = net[2]
    assert isinstance(last, nn.Conv2d)
    before = last.weight.detach().clone()
    report = load_darknet(net, tmp_path / "net.weights")
    assert torch.equal(last.weight, before)
    assert np.array_equal(net.get_parameter("0.norm.bias").detach().numpy(), values[:2])
    assert [(m.name, m.file_shape, m.model_shape) for m in report.new_head] == [
        ("2.bias", (4,), (7,)),
        ("2.weight", (4, 2, 1, 1), (7, 2, 1, 1)),
    ]
    assert "2.bias 4 -> 7" in report.summary()


def test_a_model_of_the_zoo_reads_its_file_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, fresh = (bestiary.create("darknet19_cifar", ("a", "b", "c")) for _ in range(2))
    assert isinstance(trained, DarknetClassifier)
    for m in trained.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -1, 1)  # type: ignore[arg-type]
    path = tmp_path / "darknet19.weights"
    write_darknet(path, layers_of(trained))
    report = load_weights(fresh, path)
    assert len(report.loaded) == 5 * 18 + 2
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(fresh(pixels), trained(pixels))


def test_a_convolution_has_a_bias_or_a_norm() -> None:
    with pytest.raises(UsageError, match="no bias and no norm"):
        Layer(nn.Conv2d(1, 1, 1, bias=False))
    with pytest.raises(UsageError, match="a bias and a norm"):
        Layer(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    with pytest.raises(CheckpointError, match="no convolution"):
        load_darknet(nn.Linear(1, 1), "nothing.weights")
