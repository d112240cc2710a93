"""How the small dense labellers learn from random weights: one recipe, so that they can be compared."""

from bestiary.recipes.recipe import Recipe
from bestiary.recipes.segmentation import SegmentationPictures
from bestiary.training.settings import Settings


def from_scratch(source: str) -> Recipe:
    """AdamW over one cosine, 4 pictures a step, the running average of the weights measured; sizes and colours vary.
    Ours.

    The number of epochs suits some hundreds of pictures and two cores.

    Args:
        source: whose objective it is trained on.
    """
    settings = Settings(
        epochs=40,
        batch=4,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=1e-2,
        decay_norms=False,
        schedule="cosine",
        warmup_steps=50,
        clip_norm=5.0,
        ema=0.998,
        evaluate_every=5,
        channels_last=True,
        workers=1,
    )
    pictures = SegmentationPictures(scale=(0.8, 1.3), brightness=0.2, contrast=0.2)
    return Recipe("segmentation", settings, pictures, f"{source}; from scratch on small data: AdamW 0.002, cosine")
