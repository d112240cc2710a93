"""The verbs behind the Python API and the command line."""

from bestiary.backbones.cutting import cut
from bestiary.verbs.embedding import embed
from bestiary.verbs.evaluating import Evaluation, evaluate
from bestiary.verbs.exporting import export
from bestiary.verbs.models import create, describe, load, save
from bestiary.verbs.scoring import score
from bestiary.verbs.training import train
from bestiary.zoo import list_models

__all__ = [
    "Evaluation",
    "create",
    "cut",
    "describe",
    "embed",
    "evaluate",
    "export",
    "list_models",
    "load",
    "save",
    "score",
    "train",
]
