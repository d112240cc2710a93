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
from bestiary.layers.local_convolution import LocalConvolution
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
        load_darknet(nn.ReLU(), "nothing.weights")


# -- connected and local layers ----------------------------------------------------------------------------------------


def ends() -> nn.Sequential:
    """A local layer of 2 channels on a 2x3 map, a connected layer with a norm, and one with biases."""
    local = LocalConvolution(3, 2, 3, (2, 3))
    return nn.Sequential(local, nn.Flatten(), nn.Linear(12, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 5))


LOCAL = 2 * 6 + 6 * 2 * 27
CONNECTED = 4 + 4 * 12 + 3 * 4
ENDS = LOCAL + CONNECTED + 5 + 5 * 4


def test_local_layers_come_place_by_place_and_connected_ones_before_their_norms(tmp_path: Path) -> None:
    values = file_of(tmp_path / "net.weights", ENDS)
    net = ends()
    read_darknet(tmp_path / "net.weights", layers_of(net))
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    assert np.array_equal(state["0.bias"], values[:12].reshape(2, 2, 3))
    assert np.array_equal(state["0.weight"], values[12:LOCAL].reshape(6, 2, 27))
    beta, weight, gamma, mean, var = np.split(values[LOCAL : LOCAL + CONNECTED], np.cumsum([4, 48, 4, 4]))
    assert np.array_equal(state["3.bias"], beta)
    assert np.array_equal(state["2.weight"], weight.reshape(4, 12))
    assert np.array_equal(state["3.weight"], gamma)
    assert np.array_equal(state["3.running_mean"], mean)
    assert np.array_equal(state["3.running_var"], var)
    assert np.array_equal(state["4.weight"], values[-20:].reshape(5, 4))


def test_connected_layers_of_high_versions_are_transposed(tmp_path: Path) -> None:
    values = file_of(tmp_path / "net.weights", ENDS, struct.pack("<iiii", 0, 1001, 0, 5))
    net = ends()
    header = read_darknet(tmp_path / "net.weights", layers_of(net))
    assert header.is_transposed
    assert np.array_equal(net.get_parameter("4.weight").detach().numpy(), values[-20:].reshape(4, 5).T)
    assert np.array_equal(net.get_parameter("0.weight").detach().numpy(), values[12:LOCAL].reshape(6, 2, 27))


@pytest.mark.parametrize("header", [struct.pack("<iiiQ", 0, 2, 0, 1), struct.pack("<iiii", 1001, 0, 0, 1)])
def test_connected_and_local_layers_survive_byte_for_byte(header: bytes, tmp_path: Path) -> None:
    there, again = tmp_path / "there.weights", tmp_path / "again.weights"
    file_of(there, ENDS, header)
    net = ends()
    write_darknet(again, layers_of(net), read_darknet(there, layers_of(net)))
    assert again.read_bytes() == there.read_bytes()


def test_a_file_that_ends_after_a_first_layer_starts_the_network(tmp_path: Path) -> None:
    values = file_of(tmp_path / "cut.weights", LOCAL)
    net = ends()
    before = net.get_parameter("4.weight").detach().clone()
    report = load_darknet(net, tmp_path / "cut.weights")
    assert report.loaded == ("0.bias", "0.weight")
    assert report.summary() == "starts from the first 1 of 3 layers"
    assert np.array_equal(net.get_parameter("0.bias").detach().numpy().ravel(), values[:12])
    assert torch.equal(net.get_parameter("4.weight"), before)
    file_of(tmp_path / "other.weights", LOCAL + 1)
    with pytest.raises(CheckpointError, match="wanted 425 for 3 layers"):
        load_darknet(net, tmp_path / "other.weights")
