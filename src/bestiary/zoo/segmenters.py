"""The dense labellers by name."""

from bestiary.recipes import segmentation
from bestiary.recipes.segmenters import deconv_net as deconv_net_recipes
from bestiary.recipes.segmenters import deeplab as deeplab_recipes
from bestiary.recipes.segmenters import dfn as dfn_recipes
from bestiary.recipes.segmenters import dilation as dilation_recipes
from bestiary.recipes.segmenters import exfuse as exfuse_recipes
from bestiary.recipes.segmenters import farabet as farabet_recipes
from bestiary.recipes.segmenters import fcn as fcn_recipes
from bestiary.recipes.segmenters import hypercolumns as hypercolumn_recipes
from bestiary.recipes.segmenters import pixel_windows as pixel_windows_recipes
from bestiary.recipes.segmenters import psp_net as psp_net_recipes
from bestiary.recipes.segmenters import recurrent_cnn as recurrent_cnn_recipes
from bestiary.recipes.segmenters import refine_net as refine_net_recipes
from bestiary.recipes.segmenters import segnet as segnet_recipes
from bestiary.recipes.segmenters import unet as unet_recipes
from bestiary.recipes.segmenters import zoom_out as zoom_out_recipes
from bestiary.segmentation import (
    deconv_net,
    deeplab_v1,
    deeplab_v2,
    deeplab_v3,
    deeplab_v3_plus,
    dfn,
    dilation,
    exfuse,
    farabet,
    fcn,
    fcn_resnet,
    hypercolumns,
    pixel_windows,
    psp_net,
    recurrent_cnn,
    refine_net,
    segnet,
    unet,
    zoom_out,
)
from bestiary.zoo.entry import Entry

FCN = "Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015"
HYPERCOLUMNS = (
    "Hariharan, Arbelaez, Girshick, Malik: Hypercolumns for Object Segmentation and Fine-grained Localization, "
    "CVPR 2015"
)
UNET = "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015"
SEGNET = (
    "Badrinarayanan, Kendall, Cipolla: SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image "
    "Segmentation, PAMI 2017"
)
DECONV_NET = "Noh, Hong, Han: Learning Deconvolution Network for Semantic Segmentation, ICCV 2015"
DILATION = "Yu, Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016"
DEEPLAB_V1 = (
    "Chen, Papandreou, Kokkinos, Murphy, Yuille: Semantic Image Segmentation with Deep Convolutional Nets and Fully "
    "Connected CRFs, ICLR 2015"
)
DEEPLAB_V2 = (
    "Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, "
    "Atrous Convolution, and Fully Connected CRFs, TPAMI 2018"
)
DEEPLAB_V3 = "Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017"
DEEPLAB_V3_PLUS = (
    "Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous Separable Convolution for Semantic Image "
    "Segmentation, ECCV 2018"
)
DFN = "Yu, Wang, Peng, Gao, Yu, Sang: Learning a Discriminative Feature Network for Semantic Segmentation, CVPR 2018"
EXFUSE = "Zhang, Zhang, Peng, Cheng, Sun: ExFuse: Enhancing Feature Fusion for Semantic Segmentation, ECCV 2018"
PSP_NET = "Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017"
REFINE_NET = (
    "Lin, Milan, Shen, Reid: RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation, "
    "CVPR 2017"
)

PIXEL_WINDOWS = (
    "Ciresan, Giusti, Gambardella, Schmidhuber: Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy "
    "Images, NIPS 2012"
)
FARABET = "Farabet, Couprie, Najman, LeCun: Learning Hierarchical Features for Scene Labeling, PAMI 2013"
RECURRENT_CNN = "Pinheiro, Collobert: Recurrent Convolutional Neural Networks for Scene Labeling, ICML 2014"
ZOOM_OUT = "Mostajabi, Yadollahpour, Shakhnarovich: Feedforward Semantic Segmentation with Zoom-out Features, CVPR 2015"

SEGMENTERS: dict[str, Entry] = {
    "pixel_windows": Entry(
        pixel_windows.pixel_windows, PIXEL_WINDOWS, pixel_windows_recipes.pixel_windows, "net N4, windows of 95 x 95"
    ),
    "pixel_windows_small": Entry(
        pixel_windows.pixel_windows_small,
        PIXEL_WINDOWS,
        pixel_windows_recipes.pixel_windows_small,
        "half the maps, all windows at once, from scratch",
    ),
    "farabet": Entry(farabet.farabet, FARABET, farabet_recipes.farabet, "three scales, 768 features, superpixels"),
    "farabet_small": Entry(
        farabet.farabet_small, FARABET, farabet_recipes.farabet_small, "three scales, 384 features, from scratch"
    ),
    "recurrent_cnn": Entry(
        recurrent_cnn.recurrent_cnn, RECURRENT_CNN, recurrent_cnn_recipes.recurrent_cnn, "two rounds, windows of 121"
    ),
    "recurrent_cnn_small": Entry(
        recurrent_cnn.recurrent_cnn_small,
        RECURRENT_CNN,
        recurrent_cnn_recipes.recurrent_cnn_small,
        "two rounds, all windows at once, from scratch",
    ),
    "zoom_out": Entry(
        zoom_out.zoom_out, ZOOM_OUT, zoom_out_recipes.zoom_out, "VGG-16, 12,416 features; start from vgg16"
    ),
    "zoom_out_small": Entry(
        zoom_out.zoom_out_small,
        ZOOM_OUT,
        zoom_out_recipes.zoom_out_small,
        "half of VGG-11, 1,888 features, from scratch",
    ),
    "unet": Entry(unet.unet, UNET, segmentation.unet_paper, "the paper's valid convolutions, overlap-tile"),
    "unet_small": Entry(unet.unet_small, UNET, unet_recipes.unet_small, "the paper's form, a quarter as wide"),
    "unet_padded": Entry(unet.unet_padded, UNET, segmentation.unet_padded, "padded convolutions and batch norm"),
    "unet_padded_bilinear": Entry(
        unet.unet_padded_bilinear, UNET, segmentation.unet_padded, "padded, bilinear upsampling"
    ),
    "unet_padded_small": Entry(unet.unet_padded_small, UNET, segmentation.unet_padded, "padded, a quarter as wide"),
    "fcn32s": Entry(fcn.fcn32s, FCN, fcn_recipes.fcn32s, "VGG-16, scores of fc7; start from vgg16"),
    "fcn16s": Entry(fcn.fcn16s, FCN, fcn_recipes.fcn16s, "and of pool4; start from an fcn32s"),
    "fcn8s": Entry(fcn.fcn8s, FCN, fcn_recipes.fcn8s, "and of pool3; start from an fcn16s"),
    "fcn8s_at_once": Entry(
        fcn.fcn8s_at_once, FCN, fcn_recipes.fcn8s_at_once, "skips scaled down, so that vgg16 can be the start"
    ),
    "fcn32s_small": Entry(fcn.fcn32s_small, FCN, fcn_recipes.fcn_small, "half of VGG-11 with batch norm"),
    "fcn16s_small": Entry(fcn.fcn16s_small, FCN, fcn_recipes.fcn_small, "half of VGG-11 with batch norm"),
    "fcn8s_small": Entry(fcn.fcn8s_small, FCN, fcn_recipes.fcn_small, "half of VGG-11 with batch norm"),
    "fcn_resnet50": Entry(fcn_resnet.fcn_resnet50, FCN, fcn_recipes.fcn_resnet, "torchvision's, on a dilated ResNet"),
    "fcn_resnet101": Entry(fcn_resnet.fcn_resnet101, FCN, fcn_recipes.fcn_resnet, "torchvision's, on a dilated ResNet"),
    "fcn_resnet18": Entry(
        fcn_resnet.fcn_resnet18, FCN, fcn_recipes.fcn_resnet_small, "the same head at stride 16, from scratch"
    ),
    "hypercolumns": Entry(
        hypercolumns.hypercolumns, HYPERCOLUMNS, hypercolumn_recipes.hypercolumns, "VGG-16, whole pictures"
    ),
    "hypercolumns_small": Entry(
        hypercolumns.hypercolumns_small,
        HYPERCOLUMNS,
        hypercolumn_recipes.hypercolumns_small,
        "half of VGG-11 with batch norm",
    ),
    "segnet": Entry(segnet.segnet, SEGNET, segnet_recipes.segnet, "VGG-16 and its mirror image"),
    "segnet_basic": Entry(segnet.segnet_basic, SEGNET, segnet_recipes.segnet_basic, "four 7x7 blocks each way"),
    "segnet_small": Entry(
        segnet.segnet_small, SEGNET, segnet_recipes.segnet_small, "half of VGG-11 and its mirror image, from scratch"
    ),
    "segnet_basic_small": Entry(
        segnet.segnet_basic_small, SEGNET, segnet_recipes.segnet_small, "of 24 channels, from scratch"
    ),
    "deconv_net": Entry(
        deconv_net.deconv_net, DECONV_NET, deconv_net_recipes.deconv_net, "VGG-16 and its mirror image, windows of 224"
    ),
    "deconv_net_small": Entry(
        deconv_net.deconv_net_small,
        DECONV_NET,
        deconv_net_recipes.deconv_net_small,
        "half of VGG-11 and its mirror image, windows of 96, from scratch",
    ),
    "dilation": Entry(dilation.dilation, DILATION, dilation_recipes.dilation, "VGG-16, basic context module"),
    "dilation_front_end": Entry(
        dilation.dilation_front_end, DILATION, dilation_recipes.dilation_front_end, "VGG-16 without context module"
    ),
    "dilation_large": Entry(
        dilation.dilation_large, DILATION, dilation_recipes.dilation, "VGG-16, large context module"
    ),
    "dilation10": Entry(
        dilation.dilation10, DILATION, dilation_recipes.dilation_city, "VGG-16, context module of ten layers"
    ),
    "dilation_small": Entry(
        dilation.dilation_small, DILATION, dilation_recipes.dilation_small, "half of VGG-11, padded, from scratch"
    ),
    "deeplab_v1": Entry(
        deeplab_v1.deeplab_v1, DEEPLAB_V1, deeplab_recipes.deeplab_v1, "VGG-16 with a large field of view"
    ),
    "deeplab_v1_multi_scale": Entry(
        deeplab_v1.deeplab_v1_multi_scale, DEEPLAB_V1, deeplab_recipes.deeplab_v1_multi_scale, "with side branches"
    ),
    "deeplab_v1_small": Entry(
        deeplab_v1.deeplab_v1_small, DEEPLAB_V1, deeplab_recipes.deeplab_small, "on a thin VGG-11, from scratch"
    ),
    "deeplab_v2": Entry(
        deeplab_v2.deeplab_v2, DEEPLAB_V2, deeplab_recipes.deeplab_v2, "ResNet-101, summed ASPP, three scales"
    ),
    "deeplab_v2_vgg16": Entry(
        deeplab_v2.deeplab_v2_vgg16, DEEPLAB_V2, deeplab_recipes.deeplab_v2_vgg16, "VGG-16, four fields of view"
    ),
    "deeplab_v2_small": Entry(
        deeplab_v2.deeplab_v2_small, DEEPLAB_V2, deeplab_recipes.deeplab_small, "ResNet-18 at stride 16, from scratch"
    ),
    "deeplab_v3_resnet101": Entry(
        deeplab_v3.deeplab_v3_resnet101, DEEPLAB_V3, deeplab_recipes.deeplab_v3, "the paper's, multi-grid"
    ),
    "deeplab_v3_resnet50": Entry(
        deeplab_v3.deeplab_v3_resnet50, DEEPLAB_V3, deeplab_recipes.deeplab_v3, "the paper's, multi-grid"
    ),
    "deeplab_v3_resnet18": Entry(
        deeplab_v3.deeplab_v3_resnet18,
        DEEPLAB_V3,
        deeplab_recipes.deeplab_small,
        "ResNet-18 at stride 16, from scratch",
    ),
    "deeplabv3_resnet50": Entry(
        deeplab_v3.deeplabv3_resnet50, DEEPLAB_V3, deeplab_recipes.deeplabv3_torchvision, "torchvision's"
    ),
    "deeplabv3_resnet101": Entry(
        deeplab_v3.deeplabv3_resnet101, DEEPLAB_V3, deeplab_recipes.deeplabv3_torchvision, "torchvision's"
    ),
    "deeplabv3_mobilenet_v3_large": Entry(
        deeplab_v3.deeplabv3_mobilenet_v3_large,
        DEEPLAB_V3,
        deeplab_recipes.deeplabv3_torchvision,
        "torchvision's, stride 16",
    ),
    "deeplab_v3_plus_resnet101": Entry(
        deeplab_v3_plus.deeplab_v3_plus_resnet101,
        DEEPLAB_V3_PLUS,
        deeplab_recipes.deeplab_v3_plus,
        "the paper's ResNet form",
    ),
    "deeplab_v3_plus_xception65": Entry(
        deeplab_v3_plus.deeplab_v3_plus_xception65,
        DEEPLAB_V3_PLUS,
        deeplab_recipes.deeplab_v3_plus,
        "the paper's best, separable convolutions",
    ),
    "deeplab_v3_plus_resnet50": Entry(
        deeplab_v3_plus.deeplab_v3_plus_resnet50,
        DEEPLAB_V3_PLUS,
        deeplab_recipes.deeplab_v3_plus,
        "the paper's ResNet form",
    ),
    "deeplab_v3_plus_resnet18": Entry(
        deeplab_v3_plus.deeplab_v3_plus_resnet18,
        DEEPLAB_V3_PLUS,
        deeplab_recipes.deeplab_small,
        "ResNet-18, from scratch",
    ),
    "psp_net_resnet50": Entry(
        psp_net.psp_net_resnet50, PSP_NET, psp_net_recipes.psp_net, "stride 8, pyramid of 1, 2, 3 and 6 bins"
    ),
    "psp_net_resnet101": Entry(psp_net.psp_net_resnet101, PSP_NET, psp_net_recipes.psp_net, "the paper's deeper trunk"),
    "psp_net_resnet18": Entry(
        psp_net.psp_net_resnet18, PSP_NET, psp_net_recipes.psp_net_small, "at stride 16, from scratch"
    ),
    "refine_net_resnet101": Entry(
        refine_net.refine_net_resnet101, REFINE_NET, refine_net_recipes.refine_net, "the published form"
    ),
    "refine_net_resnet18": Entry(
        refine_net.refine_net_resnet18, REFINE_NET, refine_net_recipes.refine_net_small, "narrow paths, from scratch"
    ),
    "dfn_resnet101": Entry(dfn.dfn_resnet101, DFN, dfn_recipes.dfn, "smooth network 512 wide, border network 21"),
    "dfn_resnet18": Entry(dfn.dfn_resnet18, DFN, dfn_recipes.dfn_small, "smooth network 64 wide, from scratch"),
    "exfuse_resnext101": Entry(
        exfuse.exfuse_resnext101, EXFUSE, exfuse_recipes.exfuse, "all five remedies, each with a switch"
    ),
    "exfuse_resnet18": Entry(
        exfuse.exfuse_resnet18, EXFUSE, exfuse_recipes.exfuse_small, "four of the remedies, from scratch"
    ),
}
