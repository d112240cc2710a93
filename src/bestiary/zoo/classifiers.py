"""The classifiers by name."""

from bestiary.backbones import (
    alexnet,
    darknet,
    extraction,
    googlenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    squeezenext,
    vgg,
    zfnet,
)
from bestiary.classification import (
    bag_of_words,
    colour_histogram,
    constellation,
    eigenfaces,
    image_search,
    nearest_neighbour,
    sift_fit,
    spatial_pyramid,
)
from bestiary.recipes import classification
from bestiary.recipes.classifiers import compact, early
from bestiary.recipes.classifiers import darknet as darknet_recipes
from bestiary.recipes.classifiers import extraction as extraction_recipes
from bestiary.recipes.classifiers import vgg as vgg_recipes
from bestiary.recipes.fitted import fitted_classifier
from bestiary.zoo.entry import Entry

ALEXNET = "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012"
ZFNET = "Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014"
GOOGLENET = "Szegedy et al.: Going Deeper with Convolutions, CVPR 2015"
VGG = "Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015"
YOLO_V1 = "Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection, CVPR 2016"
DARKNET = "Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017"
RESNET = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016"
RESNEXT = "Xie, Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017"
WIDE_RESNET = "Zagoruyko, Komodakis: Wide Residual Networks, BMVC 2016"
NEAREST_NEIGHBOUR = "Cover, Hart: Nearest Neighbor Pattern Classification, IEEE Transactions on Information Theory 1967"
SIFT = "Lowe: Distinctive Image Features from Scale-Invariant Keypoints, IJCV 2004"
COLOUR_INDEXING = "Swain, Ballard: Color Indexing, IJCV 1991"
CONSTELLATION = (
    "Fergus, Perona, Zisserman: Object Class Recognition by Unsupervised Scale-Invariant Learning, CVPR 2003"
)
VIDEO_GOOGLE = "Sivic, Zisserman: Video Google: A Text Retrieval Approach to Object Matching in Videos, ICCV 2003"
VISUAL_WORDS = "Csurka, Dance, Fan, Willamowski, Bray: Visual Categorization with Bags of Keypoints, ECCV workshop 2004"
SPATIAL_PYRAMID = (
    "Lazebnik, Schmid, Ponce: Beyond Bags of Features: Spatial Pyramid Matching for Recognizing Natural Scene "
    "Categories, CVPR 2006"
)
IMAGE_SEARCH = (
    "Philbin, Chum, Isard, Sivic, Zisserman: Object Retrieval with Large Vocabularies and Fast Spatial Matching, "
    "CVPR 2007"
)
EIGENFACES = "Turk, Pentland: Eigenfaces for Recognition, Journal of Cognitive Neuroscience 1991"
SQUEEZENET = (
    "Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet: AlexNet-Level Accuracy with 50x Fewer Parameters and "
    "<0.5MB Model Size, 2016"
)
SQUEEZENEXT = "Gholami et al.: SqueezeNext: Hardware-Aware Neural Network Design, CVPR workshops 2018"
MOBILENET_V1 = "Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017"
MOBILENET_V2 = (
    "Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018"
)
MOBILENET_V3 = "Howard, Sandler, Chu et al.: Searching for MobileNetV3, ICCV 2019"
SHUFFLENET_V1 = (
    "Zhang, Zhou, Lin, Sun: ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices, "
    "CVPR 2018"
)
SHUFFLENET_V2 = (
    "Ma, Zhang, Zheng, Sun: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018"
)

CLASSIFIERS: dict[str, Entry] = {
    "nearest_neighbour": Entry(
        nearest_neighbour.nearest_neighbour, NEAREST_NEIGHBOUR, fitted_classifier, "raw pixels, L1 or L2"
    ),
    "colour_histogram": Entry(
        colour_histogram.colour_histogram_classifier, COLOUR_INDEXING, fitted_classifier, "joint RGB or HSV histograms"
    ),
    "eigenfaces": Entry(eigenfaces.eigenfaces, EIGENFACES, fitted_classifier, "for registered faces"),
    "bag_of_words_tfidf": Entry(
        bag_of_words.bag_of_words_tfidf, VIDEO_GOOGLE, fitted_classifier, "dense SIFT, tf-idf, nearest by cosine"
    ),
    "bag_of_words_svm": Entry(
        bag_of_words.bag_of_words_svm, VISUAL_WORDS, fitted_classifier, "dense SIFT, an intersection SVM a class"
    ),
    "spatial_pyramid": Entry(
        spatial_pyramid.spatial_pyramid, SPATIAL_PYRAMID, fitted_classifier, "the exact pyramid match kernel"
    ),
    "spatial_pyramid_linear": Entry(
        spatial_pyramid.spatial_pyramid_linear,
        SPATIAL_PYRAMID,
        fitted_classifier,
        "patches of three sizes, the kernel by a feature map: for many pictures",
    ),
    "image_search": Entry(
        image_search.image_search, IMAGE_SEARCH, fitted_classifier, "inverted file, then spatial verification"
    ),
    "alexnet": Entry(alexnet.alexnet, ALEXNET, early.alexnet, "torchvision's single tower"),
    "alexnet_2012": Entry(alexnet.alexnet_2012, ALEXNET, early.alexnet_2012, "the paper's two columns"),
    "caffenet": Entry(alexnet.caffenet, ALEXNET, early.caffenet, "pools before norms; blue, green, red pixels"),
    "alexnet_cifar": Entry(
        alexnet.alexnet_cifar, ALEXNET, early.small_pictures, "stride-1 stem, 3/4 of the widths, for 32x32 pictures"
    ),
    "zfnet": Entry(zfnet.zfnet, ZFNET, early.zfnet),
    "zfnet_cifar": Entry(
        zfnet.zfnet_cifar, ZFNET, early.small_pictures, "stride-1 stem, 3/4 of the widths, for 32x32 pictures"
    ),
    "googlenet": Entry(googlenet.googlenet, GOOGLENET, early.googlenet, "torchvision's, with batch norm"),
    "googlenet_2014": Entry(
        googlenet.googlenet_2014, GOOGLENET, early.googlenet_2014, "the paper's, without batch norm"
    ),
    "googlenet_cifar": Entry(
        googlenet.googlenet_cifar,
        GOOGLENET,
        early.googlenet_small_pictures,
        "stride-1 stem, half the widths, for 32x32 pictures",
    ),
    "constellation": Entry(
        constellation.constellation, CONSTELLATION, fitted_classifier, "salient regions; for objects in clutter"
    ),
    "sift_fit": Entry(sift_fit.sift_fit, SIFT, fitted_classifier, "SIFT points, matched and verified by geometry"),
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
    "vgg11": Entry(vgg.vgg11, VGG, vgg_recipes.vgg, "configuration A"),
    "vgg13": Entry(vgg.vgg13, VGG, vgg_recipes.vgg, "configuration B"),
    "vgg16": Entry(vgg.vgg16, VGG, vgg_recipes.vgg, "configuration D"),
    "vgg19": Entry(vgg.vgg19, VGG, vgg_recipes.vgg, "configuration E"),
    "vgg11_bn": Entry(vgg.vgg11_bn, VGG, vgg_recipes.vgg_batch_norm, "A with batch norm"),
    "vgg13_bn": Entry(vgg.vgg13_bn, VGG, vgg_recipes.vgg_batch_norm, "B with batch norm"),
    "vgg16_bn": Entry(vgg.vgg16_bn, VGG, vgg_recipes.vgg_batch_norm, "D with batch norm"),
    "vgg19_bn": Entry(vgg.vgg19_bn, VGG, vgg_recipes.vgg_batch_norm, "E with batch norm"),
    "vgg16_caffe": Entry(vgg.vgg16_caffe, VGG, vgg_recipes.vgg, "D on BGR pixels 0..255, for the authors' files"),
    "vgg19_caffe": Entry(vgg.vgg19_caffe, VGG, vgg_recipes.vgg, "E on BGR pixels 0..255, for the authors' files"),
    "vgg11_bn_cifar": Entry(
        vgg.vgg11_bn_cifar, VGG, vgg_recipes.vgg_small_pictures, "A with batch norm, one hidden layer of 512, for 32x32"
    ),
    "vgg11_bn_half": Entry(
        vgg.vgg11_bn_half_classifier,
        VGG,
        vgg_recipes.vgg_from_scratch,
        "A with batch norm, half as wide, two hidden layers of 128",
    ),
    "darknet19": Entry(darknet.darknet19, DARKNET, darknet_recipes.darknet),
    "darknet19_448": Entry(darknet.darknet19_448, DARKNET, darknet_recipes.darknet_448, "at 448 pixels"),
    "darknet19_cifar": Entry(
        darknet.darknet19_cifar, DARKNET, darknet_recipes.darknet_small_pictures, "3/4 as wide, four pools, for 32x32"
    ),
    "yolo_v1_classifier": Entry(
        extraction.yolo_v1_classifier,
        YOLO_V1,
        extraction_recipes.extraction,
        "the first twenty convolutions of YOLO, which starts from it",
    ),
    "squeezenet1_0": Entry(squeezenet.squeezenet1_0, SQUEEZENET, compact.squeezenet),
    "squeezenet1_1": Entry(squeezenet.squeezenet1_1, SQUEEZENET, compact.squeezenet, "2.4 times less work than 1.0"),
    "squeezenet1_0_simple_bypass": Entry(
        squeezenet.squeezenet1_0_simple_bypass, SQUEEZENET, compact.squeezenet, "identities around every second fire"
    ),
    "squeezenet1_0_complex_bypass": Entry(
        squeezenet.squeezenet1_0_complex_bypass, SQUEEZENET, compact.squeezenet, "a way around every fire"
    ),
    "squeezenet_cifar": Entry(
        squeezenet.squeezenet_cifar,
        SQUEEZENET,
        compact.squeezenet_small_pictures,
        "1.1 with a stride-1 stem, for 32x32 pictures",
    ),
    "squeezenext23": Entry(squeezenext.squeezenext23, SQUEEZENEXT, compact.squeezenext, "1.0-SqNxt-23"),
    "squeezenext23_grouped": Entry(
        squeezenext.squeezenext23_grouped, SQUEEZENEXT, compact.squeezenext, "1.0-G-SqNxt-23"
    ),
    "squeezenext23v5": Entry(squeezenext.squeezenext23v5, SQUEEZENEXT, compact.squeezenext, "1.0-SqNxt-23v5"),
    "squeezenext23_x2": Entry(squeezenext.squeezenext23_x2, SQUEEZENEXT, compact.squeezenext, "2.0-SqNxt-23"),
    "squeezenext23v5_x2": Entry(squeezenext.squeezenext23v5_x2, SQUEEZENEXT, compact.squeezenext, "2.0-SqNxt-23v5"),
    "squeezenext_cifar": Entry(
        squeezenext.squeezenext_cifar,
        SQUEEZENEXT,
        compact.squeezenext_small_pictures,
        "stride-1 stem, no pooling, for 32x32 pictures",
    ),
    "mobilenet_v1": Entry(mobilenet_v1.mobilenet_v1, MOBILENET_V1, compact.mobilenet_v1),
    "mobilenet_v1_x0_75": Entry(mobilenet_v1.mobilenet_v1_x0_75, MOBILENET_V1, compact.mobilenet_v1, "width 0.75"),
    "mobilenet_v1_x0_5": Entry(mobilenet_v1.mobilenet_v1_x0_5, MOBILENET_V1, compact.mobilenet_v1, "width 0.5"),
    "mobilenet_v1_x0_25": Entry(mobilenet_v1.mobilenet_v1_x0_25, MOBILENET_V1, compact.mobilenet_v1, "width 0.25"),
    "mobilenet_v1_cifar": Entry(
        mobilenet_v1.mobilenet_v1_cifar, MOBILENET_V1, compact.small_pictures, "stride-1 stem, for 32x32 pictures"
    ),
    "mobilenet_v2": Entry(mobilenet_v2.mobilenet_v2, MOBILENET_V2, compact.mobilenet_v2),
    "mobilenet_v2_cifar": Entry(
        mobilenet_v2.mobilenet_v2_cifar,
        MOBILENET_V2,
        compact.small_pictures,
        "stride-1 stem, for 32x32 pictures",
    ),
    "mobilenet_v3_large": Entry(mobilenet_v3.mobilenet_v3_large, MOBILENET_V3, compact.mobilenet_v3),
    "mobilenet_v3_small": Entry(mobilenet_v3.mobilenet_v3_small, MOBILENET_V3, compact.mobilenet_v3),
    "mobilenet_v3_cifar": Entry(
        mobilenet_v3.mobilenet_v3_cifar,
        MOBILENET_V3,
        compact.small_pictures,
        "Large with a stride-1 stem, for 32x32 pictures",
    ),
    "shufflenet_v1_g1": Entry(shufflenet_v1.shufflenet_v1_g1, SHUFFLENET_V1, compact.shufflenet, "1 group"),
    "shufflenet_v1_g2": Entry(shufflenet_v1.shufflenet_v1_g2, SHUFFLENET_V1, compact.shufflenet, "2 groups"),
    "shufflenet_v1_g3": Entry(shufflenet_v1.shufflenet_v1_g3, SHUFFLENET_V1, compact.shufflenet, "3 groups"),
    "shufflenet_v1_g4": Entry(shufflenet_v1.shufflenet_v1_g4, SHUFFLENET_V1, compact.shufflenet, "4 groups"),
    "shufflenet_v1_g8": Entry(shufflenet_v1.shufflenet_v1_g8, SHUFFLENET_V1, compact.shufflenet, "8 groups"),
    "shufflenet_v1_cifar": Entry(
        shufflenet_v1.shufflenet_v1_cifar,
        SHUFFLENET_V1,
        compact.small_pictures,
        "3 groups, stride-1 stem, no pooling, for 32x32 pictures",
    ),
    "shufflenet_v2_x0_5": Entry(shufflenet_v2.shufflenet_v2_x0_5, SHUFFLENET_V2, compact.shufflenet),
    "shufflenet_v2_x1_0": Entry(shufflenet_v2.shufflenet_v2_x1_0, SHUFFLENET_V2, compact.shufflenet),
    "shufflenet_v2_x1_5": Entry(shufflenet_v2.shufflenet_v2_x1_5, SHUFFLENET_V2, compact.shufflenet),
    "shufflenet_v2_x2_0": Entry(shufflenet_v2.shufflenet_v2_x2_0, SHUFFLENET_V2, compact.shufflenet),
    "shufflenet_v2_cifar": Entry(
        shufflenet_v2.shufflenet_v2_cifar,
        SHUFFLENET_V2,
        compact.small_pictures,
        "1x with a stride-1 stem and no pooling, for 32x32 pictures",
    ),
}
