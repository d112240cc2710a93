"""The mixtures of all categories as one learned part of a system."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F

from bestiary.features.part_models import Component, Templates
from bestiary.layers.learned import Learned


class PartMixture(Learned):
    """M components, each of one category, with what they say of boxes.

    Attributes:
        labels: [M], int64, the category of each; ascending.
        sizes_hw: [M, 2], int64, cells of each root.
        roots: [M, 32, H, W], smaller ones followed by zeros.
        parts: [M, P, 32, 6, 6].
        anchors: [M, P, 2], int64.
        deformations: [M, P, 4].
        biases: [M].
        box_weights: [M, 2 P + 1, 4].
    """

    labels: Tensor
    sizes_hw: Tensor
    roots: Tensor
    parts: Tensor
    anchors: Tensor
    deformations: Tensor
    biases: Tensor
    box_weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("labels", "sizes_hw", "roots", "parts", "anchors", "deformations", "biases", "box_weights")

    def keep(self, found: Sequence[tuple[int, Component, Float32[Tensor, "F 4"]]]) -> None:
        """Hold (category, component, its box weights) of all; at least one, all with the same number of parts."""
        labels, components, boxes = zip(*found, strict=True)
        tall, wide = (max(c.size_hw[axis] for c in components) for axis in range(2))
        roots = [F.pad(c.root, (0, wide - c.size_hw[1], 0, tall - c.size_hw[0])) for c in components]
        self.learn("labels", torch.tensor(labels))
        self.learn("sizes_hw", torch.tensor([c.size_hw for c in components]))
        self.learn("roots", torch.stack(roots))
        for name, field in (("parts", "parts"), ("anchors", "anchors"), ("deformations", "deformations")):
            self.learn(name, torch.stack([getattr(c, field) for c in components]))
        self.learn("biases", torch.stack([c.bias for c in components]))
        self.learn("box_weights", torch.stack(boxes))

    def component(self, number: int) -> Component:
        """One of the M."""
        tall, wide = self.sizes_hw[number].tolist()
        return Component(
            self.roots[number, :, :tall, :wide].contiguous(),
            self.parts[number],
            self.anchors[number],
            self.deformations[number],
            self.biases[number],
        )

    def templates(self) -> Templates:
        """All components, ready to be looked for."""
        return Templates([self.component(number) for number in range(len(self.labels))])
