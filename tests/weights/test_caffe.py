"""Caffe files made by protobuf itself from Caffe's schema, as far as it matters here, in both generations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import nn

from bestiary import zoo
from bestiary.errors import CheckpointError
from bestiary.layers.preprocess import Normalize
from bestiary.verbs.models import load_weights
from bestiary.weights.caffe import load_caffe, read_caffe

FLOAT, DOUBLE, INT64, INT32, MESSAGE, STRING = 2, 1, 3, 5, 11, 9
SCHEMA: dict[str, list[tuple[str, int, int, bool]]] = {
    "BlobShape": [("dim", 1, INT64, True)],
    "BlobProto": [
        ("num", 1, INT32, False),
        ("channels", 2, INT32, False),
        ("height", 3, INT32, False),
        ("width", 4, INT32, False),
        ("data", 5, FLOAT, True),
        ("diff", 6, FLOAT, True),
        ("shape:BlobShape", 7, MESSAGE, False),
        ("double_data", 8, DOUBLE, True),
    ],
    "LayerParameter": [("name", 1, STRING, False), ("type", 2, STRING, False), ("blobs:BlobProto", 7, MESSAGE, True)],
    "V1LayerParameter": [("name", 4, STRING, False), ("type", 5, INT32, False), ("blobs:BlobProto", 6, MESSAGE, True)],
    "NetParameter": [
        ("name", 1, STRING, False),
        ("layers:V1LayerParameter", 2, MESSAGE, True),
        ("force_backward", 5, INT32, False),
        ("layer:LayerParameter", 100, MESSAGE, True),
    ],
}


@pytest.fixture(scope="module")
def net_message() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="caffe_subset.proto", package="caffe_subset", syntax="proto2")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            word, _, of = field.partition(":")
            made = message.field.add(name=word, number=number, type=kind, label=3 if repeated else 1)
            if of:
                made.type_name = f".caffe_subset.{of}"
            elif repeated:
                made.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe_subset.NetParameter"))


def write(path: Path, message: Any, layers: dict[str, list[np.ndarray]], old: bool, double: bool = False) -> Path:
    net = message(name="net", force_backward=1)
    for name, blobs in {"data": [], **layers, "prob": []}.items():
        layer = (net.layers if old else net.layer).add(name=name)
        layer.type = 4 if old else "Convolution"
        for values in blobs:
            blob = layer.blobs.add()
            (blob.double_data if double else blob.data).extend(values.ravel().tolist())
            if old:
                blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - values.ndim) + values.shape
            else:
                blob.shape.dim.extend(values.shape)
    path.write_bytes(net.SerializeToString())
    return path


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tiny(order: str = "bgr", categories: int = 5) -> nn.Module:
    net = nn.Module()
    net.normalize = Normalize((0.4, 0.45, 0.5), (1 / 255,) * 3, order)
    net.conv, net.head = nn.Conv2d(3, 4, 3), nn.Linear(36, categories)
    return net


LAYERS = {"conv1_1": [numbers(4, 3, 3, 3), numbers(4, seed=1)], "fc8": [numbers(5, 36, seed=2), numbers(5, seed=3)]}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_names_shapes_and_numbers(tmp_path: Path, net_message: Any, old: bool, double: bool) -> None:
    found = read_caffe(write(tmp_path / "x.caffemodel", net_message, LAYERS, old, double))
    assert [layer.name for layer in found] == list(LAYERS)
    for layer, blobs in zip(found, LAYERS.values(), strict=True):
        for got, wanted in zip(layer.blobs, blobs, strict=True):
            shape = (1,) * (4 - wanted.ndim) + wanted.shape if old else wanted.shape
            assert got.dtype == torch.float32
            np.testing.assert_array_equal(got.numpy(), wanted.reshape(shape))


@pytest.mark.parametrize("old", [False, True])
def test_layers_go_into_the_network_one_after_another(tmp_path: Path, net_message: Any, old: bool) -> None:
    net, path = tiny(), write(tmp_path / "x.caffemodel", net_message, LAYERS, old)
    report = load_caffe(net, path)
    assert report.loaded == ("conv.weight", "conv.bias", "head.weight", "head.bias")
    for name, wanted in zip(report.loaded, [b for blobs in LAYERS.values() for b in blobs], strict=True):
        np.testing.assert_array_equal(net.state_dict()[name].numpy(), wanted)
    other = tiny(categories=2)
    assert {m.name for m in load_caffe(other, path).new_head} == {"head.weight", "head.bias"}


def test_the_zoos_caffe_forms_take_them(tmp_path: Path, net_message: Any) -> None:
    with torch.device("meta"):
        system = zoo.build("vgg16_caffe", ["a", "b"])
    places = [n for n, m in system.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(places) == 16
    small = {f"layer{i}": [numbers(2, 2)] for i in range(16)}
    path = write(tmp_path / "VGG_ILSVRC_16_layers.caffemodel", net_message, small, old=True)
    with pytest.raises(CheckpointError, match=r"it does not fit the model vgg16_caffe: .*features.0.weight"):
        load_weights(system, path)


def test_a_network_that_takes_rgb_is_refused(tmp_path: Path, net_message: Any) -> None:
    path = write(tmp_path / "x.caffemodel", net_message, LAYERS, old=False)
    with pytest.raises(CheckpointError, match="take blue, green, red, and this one takes RGB"):
        load_caffe(tiny("rgb"), path)


def test_files_of_other_networks(tmp_path: Path, net_message: Any) -> None:
    fewer = write(tmp_path / "a.caffemodel", net_message, {"ip": [numbers(2, 2)]}, old=False)
    with pytest.raises(CheckpointError, match=r"got 1 layers \(ip to ip\), wanted 2 convolutions and linear layers"):
        load_caffe(tiny(), fewer)
    wider = {**LAYERS, "conv1_1": [numbers(4, 7, 3, 3), numbers(4)]}
    with pytest.raises(CheckpointError, match=r"conv.weight: \(4, 7, 3, 3\) in the file, \(4, 3, 3, 3\) in the model"):
        load_caffe(tiny(), write(tmp_path / "b.caffemodel", net_message, wider, old=False))


def test_broken_files(tmp_path: Path, net_message: Any) -> None:
    whole = write(tmp_path / "x.caffemodel", net_message, LAYERS, old=False).read_bytes()
    path = tmp_path / "y.caffemodel"
    with pytest.raises(CheckpointError, match="no such file"):
        read_caffe(path)
    for cut in (len(whole) - 40, len(whole) // 2, len(whole) // 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="cannot be read as a Caffe model"):
            read_caffe(path)
    path.write_bytes(b"<html>not found</html>" * 10)
    with pytest.raises(CheckpointError, match="cannot be read as a Caffe model"):
        read_caffe(path)
    path.write_bytes(net_message(name="empty").SerializeToString())
    with pytest.raises(CheckpointError, match="no layer with numbers"):
        read_caffe(path)
