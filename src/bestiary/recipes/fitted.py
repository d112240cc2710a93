"""Recipes of the systems that are fitted, not trained by gradients: only a seed, all else is the constructor's."""

from dataclasses import dataclass
from typing import Any

from bestiary.recipes.recipe import Recipe
from bestiary.training.fitting import FitSettings
from bestiary.transforms.compose import Compose, Transform


@dataclass(frozen=True)
class AsTheyAre:
    """Pictures go to `fit` as they lie on disk."""

    def train_transform(self, joint_pairs: tuple[tuple[int, int], ...] = ()) -> Transform:
        """Nothing."""
        return Compose(())

    def arguments(self) -> dict[str, Any]:
        """None."""
        return {}


def fitted_classifier() -> Recipe:
    """A classifier fitted once to all training pictures; its constructor's arguments are the fields."""
    return Recipe("classification", FitSettings(), AsTheyAre(), "fitted once to all training pictures")
