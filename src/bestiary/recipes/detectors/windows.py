"""Recipes of the detectors that came before convolutional networks and scan a picture window by window."""

from bestiary.recipes.fitted import AsTheyAre
from bestiary.recipes.recipe import Recipe
from bestiary.training.fitting import FitSettings


def viola_jones() -> Recipe:
    """A boosted cascade for each category (Viola, Jones, IJCV 2004).

    The paper: 4,916 faces of 24 x 24 pixels and their mirror images, 10,000 non-faces a stage out of 350 million
    windows, each stage boosted from all features until rates on a validation set are reached, 38 stages with 6,060
    features in weeks of one machine. Here: the user's objects, each cut four times with a little jitter, 2,000 windows
    a stage, 4,000 features to choose from in each, 15 stages: minutes on two cores.
    """
    return Recipe("detection", FitSettings(), AsTheyAre(), "fitted, Viola and Jones, IJCV 2004; pool of features")


def hog_svm() -> Recipe:
    """A HOG template for each category by a linear SVM (Dalal, Triggs, CVPR 2005).

    The paper: 2,416 windows of people with their mirror images, ten random windows of each of 1,218 pictures without
    people, C 0.01, and again with all windows of those pictures that the first template took for people. Here pictures
    that hold objects give negatives too, apart from the objects, and three rounds take the 60 worst of each.
    """
    return Recipe("detection", FitSettings(), AsTheyAre(), "fitted, Dalal and Triggs, CVPR 2005; three hard rounds")
