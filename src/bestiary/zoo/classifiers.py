"""The classifiers by name."""

from bestiary.backbones import resnet
from bestiary.recipes import classification
from bestiary.zoo.entry import Entry

RESNET = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016"
RESNEXT = "Xie, Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017"
WIDE_RESNET = "Zagoruyko, Komodakis: Wide Residual Networks, BMVC 2016"

CLASSIFIERS: dict[str, Entry] = {
    "resnet18": Entry(resnet.resnet18, RESNET, classification.resnet),
    "resnet34": Entry(resnet.resnet34, RESNET, classification.resnet),
    "resnet50": Entry(resnet.resnet50, RESNET, classification.resnet, "stride on the 3x3 convolution"),
    "resnet101": Entry(resnet.resnet101, RESNET, classification.resnet, "stride on the 3x3 convolution"),
    "resnet152": Entry(resnet.resnet152, RESNET, classification.resnet, "stride on the 3x3 convolution"),
    "resnet18_cifar": Entry(
        resnet.resnet18_cifar, RESNET, classification.resnet_small_pictures, "3x3 stem, no pooling, for 32x32 pictures"
    ),
    "resnext50_32x4d": Entry(resnet.resnext50_32x4d, RESNEXT, classification.resnet),
    "resnext101_32x8d": Entry(resnet.resnext101_32x8d, RESNEXT, classification.resnet),
    "resnext101_64x4d": Entry(resnet.resnext101_64x4d, RESNEXT, classification.resnet),
    "wide_resnet50_2": Entry(resnet.wide_resnet50_2, WIDE_RESNET, classification.resnet),
    "wide_resnet101_2": Entry(resnet.wide_resnet101_2, WIDE_RESNET, classification.resnet),
}
