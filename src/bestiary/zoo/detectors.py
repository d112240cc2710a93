"""The detectors by name."""

from bestiary.classification import localisation as vgg_localisation
from bestiary.detection import faster_rcnn
from bestiary.recipes import detection
from bestiary.recipes.classifiers import localisation
from bestiary.zoo.entry import Entry

FASTER_RCNN = "Ren, He, Girshick, Sun: Faster R-CNN, NIPS 2015; with Lin et al.: Feature Pyramid Networks, CVPR 2017"
VGG_LOCALISATION = "Simonyan, Zisserman: Very Deep Convolutional Networks ..., ICLR 2015, appendix A"

DETECTORS: dict[str, Entry] = {
    "fasterrcnn_resnet18_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet18_fpn, FASTER_RCNN, detection.faster_rcnn_from_scratch, "trainable batch norm"
    ),
    "fasterrcnn_resnet34_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet34_fpn, FASTER_RCNN, detection.faster_rcnn_from_scratch, "trainable batch norm"
    ),
    "fasterrcnn_resnet50_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet50_fpn, FASTER_RCNN, detection.faster_rcnn, "frozen batch norm, as published"
    ),
    "fasterrcnn_resnet101_fpn": Entry(
        faster_rcnn.fasterrcnn_resnet101_fpn, FASTER_RCNN, detection.faster_rcnn, "frozen batch norm"
    ),
    "vgg16_localisation": Entry(
        vgg_localisation.vgg16_localisation,
        VGG_LOCALISATION,
        localisation.vgg_localisation,
        "the largest object of a picture; start from vgg16",
    ),
    "vgg11_bn_localisation": Entry(
        vgg_localisation.vgg11_bn_localisation,
        VGG_LOCALISATION,
        localisation.vgg_localisation_from_scratch,
        "the largest object of a picture; small, from scratch",
    ),
}
