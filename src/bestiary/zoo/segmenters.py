"""The dense labellers by name."""

from bestiary.recipes import segmentation
from bestiary.segmentation import unet
from bestiary.zoo.entry import Entry

UNET = "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015"

SEGMENTERS: dict[str, Entry] = {
    "unet": Entry(unet.unet, UNET, segmentation.unet_paper, "the paper's valid convolutions, overlap-tile"),
    "unet_padded": Entry(unet.unet_padded, UNET, segmentation.unet_padded, "padded convolutions and batch norm"),
    "unet_padded_bilinear": Entry(
        unet.unet_padded_bilinear, UNET, segmentation.unet_padded, "padded, bilinear upsampling"
    ),
    "unet_padded_small": Entry(unet.unet_padded_small, UNET, segmentation.unet_padded, "padded, a quarter as wide"),
}
