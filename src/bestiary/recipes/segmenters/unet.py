"""Recipe of the small U-Net of the paper's form."""

from bestiary.recipes import segmentation
from bestiary.recipes.recipe import Recipe
from bestiary.training.settings import Settings


def unet_small() -> Recipe:
    """The paper's augmentation and border weights (section 3) with AdamW over one cosine, for two cores. Ours.

    The number of epochs suits some tens of pictures.
    """
    settings = Settings(
        epochs=80,
        batch=1,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        schedule="cosine",
        warmup_steps=50,
        clip_norm=5.0,
        evaluate_every=10,
        workers=1,
    )
    pictures = segmentation.unet_paper().pictures
    return Recipe("segmentation", settings, pictures, "U-Net paper, section 3; AdamW 1e-3, cosine")
