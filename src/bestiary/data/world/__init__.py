"""A small procedural world whose every picture comes with all annotations there are: for the demo, for teaching, for
tests."""

from bestiary.data.world.dataset import World
from bestiary.data.world.vocabulary import ATTRIBUTE_NAMES, CATEGORIES, JOINT_NAMES, JOINT_PAIRS, PREDICATES

__all__ = ["ATTRIBUTE_NAMES", "CATEGORIES", "JOINT_NAMES", "JOINT_PAIRS", "PREDICATES", "World"]
