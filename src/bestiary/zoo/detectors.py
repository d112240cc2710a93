"""The detectors by name."""

from bestiary.classification import localisation as vgg_localisation
from bestiary.detection import (
    corner_net,
    dpm,
    fast_rcnn,
    faster_rcnn,
    faster_rcnn_alternating,
    faster_rcnn_fpn,
    faster_rcnn_single,
    hog_svm,
    r_fcn,
    rcnn,
    retinanet,
    spp_net,
    ssd,
    viola_jones,
    yolo9000,
    yolo_v1,
    yolo_v2,
    yolo_v2_ladder,
)
from bestiary.detection import sliding_window as windows
from bestiary.recipes import detection
from bestiary.recipes.classifiers import localisation
from bestiary.recipes.detectors import corner_net as corner_net_recipes
from bestiary.recipes.detectors import dpm as dpm_recipes
from bestiary.recipes.detectors import fast_rcnn as fast_rcnn_recipes
from bestiary.recipes.detectors import faster_rcnn as recipes_2015
from bestiary.recipes.detectors import r_fcn as r_fcn_recipes
from bestiary.recipes.detectors import rcnn as rcnn_recipes
from bestiary.recipes.detectors import retinanet as retinanet_recipes
from bestiary.recipes.detectors import sliding_window
from bestiary.recipes.detectors import ssd as ssd_recipes
from bestiary.recipes.detectors import windows as window_recipes
from bestiary.recipes.detectors import yolo_v1 as yolo_v1_recipes
from bestiary.recipes.detectors import yolo_v2 as yolo_v2_recipes
from bestiary.zoo.entry import Entry

CORNER_NET = "Law, Deng: CornerNet: Detecting Objects as Paired Keypoints, ECCV 2018"
DPM = (
    "Felzenszwalb, Girshick, McAllester, Ramanan: Object Detection with Discriminatively Trained Part-Based Models, "
    "TPAMI 2010"
)
FAST_RCNN = "Girshick: Fast R-CNN, ICCV 2015"
FASTER_RCNN_2015 = "Ren, He, Girshick, Sun: Faster R-CNN, NIPS 2015"
FASTER_RCNN = "Ren, He, Girshick, Sun: Faster R-CNN, NIPS 2015; with Lin et al.: Feature Pyramid Networks, CVPR 2017"
HOG = "Dalal, Triggs: Histograms of Oriented Gradients for Human Detection, CVPR 2005"
OVERFEAT = "Sermanet et al.: OverFeat: Integrated Recognition, Localization and Detection ..., ICLR 2014"
RCNN = (
    "Girshick, Donahue, Darrell, Malik: Rich feature hierarchies for accurate object detection and semantic "
    "segmentation, CVPR 2014"
)
RETINANET = "Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017"
SPP_NET = (
    "He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition, ECCV 2014"
)
R_FCN = "Dai, Li, He, Sun: R-FCN: Object Detection via Region-based Fully Convolutional Networks, NIPS 2016"
YOLO_V2 = "Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017"
SSD = "Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, ECCV 2016"
SSD_MOBILENET = "Liu et al.: SSD, ECCV 2016; with Howard et al.: MobileNets, 2017"
SSD_LITE = "Liu et al.: SSD, ECCV 2016; with Sandler et al.: MobileNetV2, CVPR 2018"
VIOLA_JONES = "Viola, Jones: Robust Real-Time Face Detection, IJCV 2004"
YOLO_V1 = "Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection, CVPR 2016"
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
    "fasterrcnn_fpn": Entry(
        faster_rcnn_fpn.fasterrcnn_fpn, FASTER_RCNN, detection.faster_rcnn_from_scratch, "on any trunk: --backbone"
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": Entry(
        faster_rcnn_fpn.fasterrcnn_mobilenet_v3_large_fpn, FASTER_RCNN, detection.faster_rcnn, "torchvision's layout"
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Entry(
        faster_rcnn_fpn.fasterrcnn_mobilenet_v3_large_320_fpn,
        FASTER_RCNN,
        recipes_2015.faster_rcnn_320,
        "torchvision's layout, small pictures",
    ),
    "faster_rcnn_vgg16": Entry(
        faster_rcnn_single.faster_rcnn_vgg16,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_one_map,
        "the paper's, trained jointly; start from vgg16",
    ),
    "faster_rcnn_vgg16_4step": Entry(
        faster_rcnn_alternating.faster_rcnn_vgg16_4step,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_4step,
        "the paper's, in the paper's four steps; start from vgg16",
    ),
    "faster_rcnn_resnet50_c4": Entry(
        faster_rcnn_single.faster_rcnn_resnet50_c4,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_one_map,
        "one map, conv5 as the box head; start from resnet50",
    ),
    "faster_rcnn_resnet101_c4": Entry(
        faster_rcnn_single.faster_rcnn_resnet101_c4,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_one_map,
        "one map, conv5 as the box head; start from resnet101",
    ),
    "faster_rcnn_resnet50_c4_4step": Entry(
        faster_rcnn_alternating.faster_rcnn_resnet50_c4_4step,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_4step,
        "one map, conv5 as the box head, in the paper's four steps; start from resnet50",
    ),
    "faster_rcnn_resnet101_c4_4step": Entry(
        faster_rcnn_alternating.faster_rcnn_resnet101_c4_4step,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_4step,
        "one map, conv5 as the box head, in the paper's four steps; start from resnet101",
    ),
    "faster_rcnn_small": Entry(
        faster_rcnn_single.faster_rcnn_small,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_small,
        "one map of a half-width VGG-11, from scratch",
    ),
    "faster_rcnn_small_4step": Entry(
        faster_rcnn_alternating.faster_rcnn_small_4step,
        FASTER_RCNN_2015,
        recipes_2015.faster_rcnn_small_4step,
        "the same in four steps",
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
    "sliding_window_vgg16": Entry(
        windows.sliding_window_vgg16, OVERFEAT, sliding_window.sliding_window, "every window judged; start from vgg16"
    ),
    "sliding_window_small": Entry(
        windows.sliding_window_small,
        OVERFEAT,
        sliding_window.sliding_window_from_scratch,
        "every window judged; half-width VGG-11, from scratch",
    ),
    "fast_rcnn_vgg16": Entry(
        fast_rcnn.fast_rcnn_vgg16, FAST_RCNN, fast_rcnn_recipes.fast_rcnn, "the paper's L; start from vgg16"
    ),
    "fast_rcnn_alexnet": Entry(
        fast_rcnn.fast_rcnn_alexnet, FAST_RCNN, fast_rcnn_recipes.fast_rcnn, "the paper's S; start from caffenet"
    ),
    "fast_rcnn_small": Entry(
        fast_rcnn.fast_rcnn_small,
        FAST_RCNN,
        fast_rcnn_recipes.fast_rcnn_from_scratch,
        "half-width VGG-11, from scratch",
    ),
    "r_fcn_resnet101": Entry(
        r_fcn.r_fcn_resnet101, R_FCN, r_fcn_recipes.r_fcn, "conv5 dilated, hard examples; start from resnet101"
    ),
    "r_fcn_resnet50": Entry(
        r_fcn.r_fcn_resnet50, R_FCN, r_fcn_recipes.r_fcn, "conv5 dilated, hard examples; start from resnet50"
    ),
    "r_fcn_resnet18": Entry(
        r_fcn.r_fcn_resnet18, R_FCN, r_fcn_recipes.r_fcn_from_scratch, "trainable batch norm, from scratch"
    ),
    "r_fcn_small": Entry(r_fcn.r_fcn_small, R_FCN, r_fcn_recipes.r_fcn_from_scratch, "half-width VGG-11, from scratch"),
    "rcnn_alexnet": Entry(rcnn.rcnn_alexnet, RCNN, rcnn_recipes.rcnn, "the paper's; start from caffenet"),
    "rcnn_vgg16": Entry(rcnn.rcnn_vgg16, RCNN, rcnn_recipes.rcnn, "start from vgg16"),
    "rcnn_small": Entry(
        rcnn.rcnn_small, RCNN, rcnn_recipes.rcnn_from_scratch, "half of VGG-11 with batch norm, from scratch"
    ),
    "retinanet_resnet18_fpn": Entry(
        retinanet.retinanet_resnet18_fpn,
        RETINANET,
        retinanet_recipes.retinanet_from_scratch,
        "128 channels, norms everywhere, from scratch",
    ),
    "retinanet_resnet50_fpn": Entry(
        retinanet.retinanet_resnet50_fpn, RETINANET, retinanet_recipes.retinanet, "frozen batch norm, as published"
    ),
    "retinanet_resnet50_fpn_v2": Entry(
        retinanet.retinanet_resnet50_fpn_v2,
        RETINANET,
        retinanet_recipes.retinanet,
        "torchvision's second: group norm, GIoU",
    ),
    "retinanet_resnet50_paper": Entry(
        retinanet.retinanet_resnet50_paper,
        RETINANET,
        retinanet_recipes.retinanet,
        "the paper's, P6 from C5; start from resnet50",
    ),
    "retinanet_resnet101_paper": Entry(
        retinanet.retinanet_resnet101_paper,
        RETINANET,
        retinanet_recipes.retinanet,
        "the paper's, P6 from C5; start from resnet101",
    ),
    "retinanet_fpn": Entry(
        retinanet.retinanet_fpn, RETINANET, retinanet_recipes.retinanet_from_scratch, "on any trunk: --backbone"
    ),
    "spp_net_zf": Entry(spp_net.spp_net_zf, SPP_NET, rcnn_recipes.spp_net, "the paper's; start from zfnet"),
    "spp_net_small": Entry(
        spp_net.spp_net_small, SPP_NET, rcnn_recipes.spp_net_small, "start from a trained rcnn_small"
    ),
    "ssd300_vgg16": Entry(
        ssd.ssd300_vgg16, SSD, ssd_recipes.ssd300, "torchvision's layout; start from vgg16.imagenet1k_features"
    ),
    "ssd300_vgg16_caffe": Entry(
        ssd.ssd300_vgg16_caffe, SSD, ssd_recipes.ssd300, "the paper's; start from vgg16.imagenet1k_features"
    ),
    "ssd512_vgg16": Entry(
        ssd.ssd512_vgg16, SSD, ssd_recipes.ssd512, "the paper's; start from vgg16.imagenet1k_features"
    ),
    "ssd300_mobilenet": Entry(
        ssd.ssd300_mobilenet, SSD_MOBILENET, ssd_recipes.ssd_mobilenet, "1,917 boxes; start from mobilenet_v1"
    ),
    "ssdlite320_mobilenet_v2": Entry(
        ssd.ssdlite320_mobilenet_v2, SSD_LITE, ssd_recipes.ssdlite320, "separable layers; start from mobilenet_v2"
    ),
    "ssd300_small": Entry(ssd.ssd300_small, SSD, ssd_recipes.ssd_from_scratch, "half-width VGG-11, from scratch"),
    "ssd300_mobilenet_small": Entry(
        ssd.ssd300_mobilenet_small,
        SSD_MOBILENET,
        ssd_recipes.ssd_from_scratch,
        "half-width MobileNet with a finer map, from scratch",
    ),
    "hog_svm": Entry(hog_svm.hog_svm, HOG, window_recipes.hog_svm, "a template a category; fitted"),
    "viola_jones": Entry(
        viola_jones.viola_jones, VIOLA_JONES, window_recipes.viola_jones, "a boosted cascade a category; fitted"
    ),
    "corner_net_hourglass104": Entry(
        corner_net.corner_net_hourglass104, CORNER_NET, corner_net_recipes.corner_net, "the paper's two hourglasses"
    ),
    "corner_net_hourglass52": Entry(
        corner_net.corner_net_hourglass52, CORNER_NET, corner_net_recipes.corner_net, "one hourglass"
    ),
    "corner_net_small": Entry(
        corner_net.corner_net_small,
        CORNER_NET,
        corner_net_recipes.corner_net_small,
        "a narrow hourglass, from scratch",
    ),
    "dpm": Entry(dpm.dpm, DPM, dpm_recipes.dpm, "parts in place, a latent SVM; fitted, without gradients"),
    "yolo_v1": Entry(
        yolo_v1.yolo_v1, YOLO_V1, yolo_v1_recipes.yolo_v1, "the paper's, 24 convolutions; start from yolo_v1_classifier"
    ),
    "fast_yolo_v1": Entry(yolo_v1.fast_yolo_v1, YOLO_V1, yolo_v1_recipes.yolo_v1, "Fast YOLO, nine convolutions"),
    "yolo_v1_darknet": Entry(
        yolo_v1.yolo_v1_darknet,
        YOLO_V1,
        yolo_v1_recipes.yolo_v1_darknet,
        "Darknet's yolov1.cfg: batch norm, a local layer, three boxes a cell",
    ),
    "tiny_yolo_v1_darknet": Entry(
        yolo_v1.tiny_yolo_v1_darknet, YOLO_V1, yolo_v1_recipes.yolo_v1_darknet, "Darknet's yolov1-tiny.cfg"
    ),
    "yolo_v1_small": Entry(
        yolo_v1.yolo_v1_small, YOLO_V1, yolo_v1_recipes.yolo_v1_from_scratch, "narrow, a fine grid, from scratch"
    ),
    "yolo_v2": Entry(yolo_v2.yolo_v2, YOLO_V2, yolo_v2_recipes.yolo_v2, "Darknet-19; start from darknet19_448"),
    "yolo_v2_coco": Entry(yolo_v2.yolo_v2_coco, YOLO_V2, yolo_v2_recipes.yolo_v2_coco, "COCO's priors, at 608"),
    "tiny_yolo_v2": Entry(yolo_v2.tiny_yolo_v2, YOLO_V2, yolo_v2_recipes.tiny_yolo_v2, "Darknet's tiny-yolo-voc.cfg"),
    "yolo_v2_ladder": Entry(
        yolo_v2_ladder.yolo_v2_ladder, YOLO_V2, yolo_v2_recipes.yolo_v2_ladder, "from YOLO to YOLOv2, rung by rung"
    ),
    "yolo9000": Entry(
        yolo9000.yolo9000, YOLO_V2, yolo_v2_recipes.yolo9000, "classes in a tree; start from darknet19_448"
    ),
    "yolo_v2_small": Entry(
        yolo_v2.yolo_v2_small, YOLO_V2, yolo_v2_recipes.yolo_v2_small, "a quarter as wide, from scratch"
    ),
}
