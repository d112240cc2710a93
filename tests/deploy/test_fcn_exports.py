"""Graphs of the fully convolutional nets and of hypercolumns: crops, blends and upsampling of any size, in the file."""

from pathlib import Path

import pytest
import torch
from deploy_parts import unchecked
from torch import nn

from bestiary.backbones.fcn_vgg import SAME_SIZE, ConvolutionalVGG
from bestiary.backbones.residual import BasicBlock
from bestiary.backbones.resnet import ResNet, Variant
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.deploy.onnx_graph import exported_module, write_graph
from bestiary.deploy.sessions import OnnxRuntimeSession
from bestiary.heads.fcn_head import FCNHead
from bestiary.heads.trunk_labeller import TrunkLabeller
from bestiary.heads.whole_picture import WholePicture
from bestiary.layers.overlap_tile import InputGeometry
from bestiary.layers.preprocess import Normalize
from bestiary.segmentation.fcn import FCN
from bestiary.segmentation.hypercolumns import Hypercolumns

CATEGORIES = ("sky", "road", "car")


def fcn8s() -> FCN:
    trunk = ConvolutionalVGG(DEPTHS["vgg11"], maps=("pool3", "pool4"), width=1 / 16, fc_width=8, paddings=SAME_SIZE)
    system = FCN(trunk, CATEGORIES, stride=8, normalize=Normalize((0.5,) * 3, (0.2,) * 3))
    system.geometry = InputGeometry(smallest=32)
    return system


def hypercolumns() -> Hypercolumns:
    trunk = ConvolutionalVGG(DEPTHS["vgg11"], maps=("pool2", "conv4_2"), width=1 / 16, fc_width=8, paddings=SAME_SIZE)
    return Hypercolumns(trunk, CATEGORIES, grid=3)


def fcn_resnet() -> TrunkLabeller:
    trunk = ResNet(Variant(BasicBlock, (1, 1, 1, 1)), dilate=(False, True, True))
    return TrunkLabeller(trunk, FCNHead(512, 3), CATEGORIES, aux_classifier=FCNHead(256, 3))


@pytest.mark.parametrize("build", [fcn8s, hypercolumns, fcn_resnet])
def test_the_file_says_what_the_model_says_at_any_size(build, tmp_path: Path) -> None:
    torch.manual_seed(5)
    system: WholePicture = build().eval()
    for name, parameter in system.named_parameters():
        if name.startswith("score") and parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.5)
    path, generator = tmp_path / "net.onnx", torch.Generator().manual_seed(1)
    with unchecked():
        write_graph(exported_module(system), path)
    session = OnnxRuntimeSession(path, threads=1)
    for size in ((30, 47), (1, 1), (97, 64)):
        images = torch.rand(2, 3, *size, generator=generator)
        with torch.inference_mode():
            wanted = system.predict_logits(images)
        assert wanted.std() > 1e-3
        torch.testing.assert_close(torch.from_numpy(session.run(images.numpy())[0]), wanted, atol=1e-4, rtol=1e-4)
