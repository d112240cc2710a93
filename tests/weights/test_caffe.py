"""Caffe files made by protobuf itself from Caffe's schema, as far as it matters here, in both generations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import nn

from bestiary import zoo
from bestiary.backbones.fcn_vgg import ConvolutionalVGG
from bestiary.backbones.vgg import VGG
from bestiary.backbones.vgg_table import DEPTHS, places
from bestiary.errors import CheckpointError
from bestiary.layers.preprocess import Normalize
from bestiary.segmentation.deeplab_v1 import DeepLabV1
from bestiary.segmentation.fcn import FCN, SKIPS
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


@pytest.mark.parametrize("old", [False, True])
def test_a_system_that_knows_the_layers_names_takes_them_by_these(tmp_path: Path, net_message: Any, old: bool) -> None:
    """A fully convolutional net, from a file of its own kind, of a net before it, and of a classifier."""

    def thin(stride: Any, categories: int = 3) -> FCN:
        maps = tuple(reversed(SKIPS[stride]))
        trunk = ConvolutionalVGG(DEPTHS["vgg11"], maps=maps, width=1 / 32, fc_width=4)
        names = [str(i) for i in range(categories)]
        return FCN(trunk, names, stride=stride, normalize=Normalize((0.4, 0.45, 0.5), (1 / 255,) * 3, "bgr"))

    file, system = layers_of(thin(8)), thin(8)
    path = write(tmp_path / "fcn8s.caffemodel", net_message, file, old)
    load_caffe(system, path)
    assert all(np.array_equal(a, b) for a, b in zip(flat(layers_of(system)), flat(file), strict=True))

    before, finer = layers_of(thin(16)), thin(8)
    report = load_caffe(finer, write(tmp_path / "fcn16s.caffemodel", net_message, before, old))
    assert report.summary().startswith("starts from an FCN: its convolutions, fc6, fc7, score_fr, score_pool4")
    assert all(np.array_equal(a, b) for a, b in zip(layers_of(finer)["score_fr"], before["score_fr"], strict=True))
    assert not finer.get_parameter("score_pool3.weight").any()

    matrix = {name: blobs for name, blobs in file.items() if name.startswith("conv")}
    matrix["fc6"] = [file["fc6"][0].reshape(4, -1), file["fc6"][1]]
    matrix["fc7"] = [file["fc7"][0].reshape(4, 4), file["fc7"][1]]
    matrix["fc8"] = [numbers(1000, 4), numbers(1000)]
    system = thin(32)
    report = load_caffe(system, write(tmp_path / "vgg.caffemodel", net_message, matrix, old))
    assert report.summary() == "starts from a classifier: its convolutions, fc6, fc7"
    assert np.array_equal(layers_of(system)["fc6"][0], file["fc6"][0])


def layers_of(system: FCN) -> dict[str, list[np.ndarray]]:
    """What the network's layers hold, by Caffe's names."""
    blocks, found = iter([n for n in places(system.backbone.depths) if n.startswith("conv")]), {}
    for path, module in system.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            name = next(blocks) if ".features." in path else path.rpartition(".")[2]
            found[name] = [p.detach().numpy().copy() for p in module.parameters()]
    return found


def flat(layers: dict[str, list[np.ndarray]]) -> list[np.ndarray]:
    return [blob for blobs in layers.values() for blob in blobs]


@pytest.mark.parametrize("old", [True, False])
def test_deeplabs_own_files_fit_layer_by_layer(old: bool, net_message: Any, tmp_path: Path) -> None:
    trunk = VGG(DEPTHS["vgg16"], output_stride=8, maps=("C5",), width=1 / 16)
    system = DeepLabV1(("a", "b"), Normalize(channel_order="bgr"), trunk, width=8)
    parameters = list(system.named_parameters())
    blobs = [numbers(*p.shape, seed=i) for i, (_, p) in enumerate(parameters)]
    names = [*(n for n in places(DEPTHS["vgg16"]) if n.startswith("conv")), "fc6", "fc7", "fc8_voc12"]
    layers = {name: blobs[2 * i : 2 * i + 2] for i, name in enumerate(names)}
    report = load_caffe(system, write(tmp_path / "train2.caffemodel", net_message, layers, old))
    assert len(report.loaded) == len(parameters) == 32
    for (name, parameter), blob in zip(parameters, blobs, strict=True):
        assert torch.equal(parameter.detach(), torch.from_numpy(blob)), name
