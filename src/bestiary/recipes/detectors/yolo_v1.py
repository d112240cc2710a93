"""Recipes of YOLO.

The authors' code follows half of the gradient of the paper's equation 3. The same steps come from half their learning
rates and twice their weight decay, which is what stands here.
"""

from bestiary.recipes.darknet_pictures import DarknetPictures
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings

VOC_0712 = 16_551
"""Pictures of VOC's trainval of 2007 and 2012 together."""


def yolo_v1() -> Recipe:
    """The paper's training for detection (section 2.2): 135 epochs of VOC 2007 and 2012, 64 pictures a step, momentum
    0.9, decay 5e-4, a learning rate that rises from 0.001 to 0.01, stays for 75 epochs, and is 0.001 and 0.0001 for 30
    each; frames moved by up to 20 %, exposure and saturation by a factor of up to 1.5.

    Start with `--weights` from a trained `yolo_v1_classifier`. The paper: 63.4 mAP on VOC 2007, Fast YOLO 52.7 (not run
    by us: it needs ImageNet and a GPU). Deviations: the rise takes one epoch, the paper says "the first epochs"; mirror
    images, as the authors' code has them.
    """
    settings = Settings(
        epochs=135,
        batch=16,
        accumulate=4,
        lr=0.005,
        weight_decay=0.001,
        schedule="step",
        milestones=(75 / 135, 105 / 135),
        warmup_steps=VOC_0712 // 64,
        warmup_factor=0.1,
        evaluate_every=5,
        workers=2,
        channels_last=True,
    )
    return Recipe("detection", settings, DarknetPictures(hue=0.0), "YOLO paper, section 2.2")


def yolo_v1_darknet() -> Recipe:
    """As `yolov1.cfg` says: 40,000 steps of 64 pictures, the learning rate rises tenfold within 600 steps to 0.005 and
    is divided by 10 after 20,000 and 30,000; hue too is turned, by up to 0.1.

    Start with `--weights extraction.conv.weights`, or from a `yolo_v1_classifier` made with `--norm true`. Deviation:
    the rate rises in a line, in the file in three steps.
    """
    settings = Settings(
        epochs=-(-40_000 * 64 // VOC_0712),
        steps=40_000,
        batch=16,
        accumulate=4,
        lr=0.0025,
        weight_decay=0.001,
        schedule="step",
        milestones=(0.5, 0.75),
        warmup_steps=600,
        warmup_factor=0.1,
        evaluate_every=5,
        workers=2,
        channels_last=True,
    )
    return Recipe("detection", settings, DarknetPictures(), "Darknet's yolov1.cfg")


def yolo_v1_from_scratch() -> Recipe:
    """The small form with batch norm from random weights: AdamW, 4 pictures a step, one cosine from 0.002; side 320.

    The places of objects within their cells are learned slowly by plain SGD: sums of squares have steep and shallow
    directions. The number of epochs suits some hundreds of pictures and two cores.
    """
    settings = Settings(
        epochs=40,
        batch=4,
        optimizer="adamw",
        lr=0.002,
        weight_decay=0.01,
        schedule="cosine",
        warmup_steps=100,
        clip_norm=20.0,
        evaluate_every=5,
        workers=1,
        channels_last=True,
    )
    return Recipe("detection", settings, DarknetPictures(size=320), "from scratch on small data: AdamW, one cosine")
