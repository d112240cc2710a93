"""How deformable part models are learned."""

from bestiary.recipes.fitted import AsTheyAre
from bestiary.recipes.recipe import Recipe
from bestiary.training.fitting import FitSettings


def dpm() -> Recipe:
    """All mixtures from all training pictures as they lie on disk; the constructor's arguments are the fields.

    The release's recipe (voc-release5): 3 components in mirrored pairs, roots of 3,000 to 5,000 square pixels, 8 parts
    of 6 x 6 cells, C 0.001, overlap 0.7; roots from warped positives and random negatives; 1 round for the mixture of
    roots, 8 with parts, each of up to 10 passes over 200 pictures without the category, at last 2,000; pyramids of 10
    levels an octave at test, 5 for positives and 4 for negatives; hours a category.

    Here, for minutes of two cores: 1 component, C 0.01 (small data have few positives to set against the regulariser),
    roots from 1,500 square pixels, 3 rounds of 2 passes over 100 pictures, 400 positives, 5 levels an octave at test.
    Roots of one group of aspects have no latent round of their own. Negatives come from all pictures, away from the
    objects.
    """
    return Recipe("detection", FitSettings(), AsTheyAre(), "voc-release5, with fewer rounds, pictures and levels")
