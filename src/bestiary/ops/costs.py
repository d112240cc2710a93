"""What a network costs: parameters, multiply-adds and activations, layer by layer, for any `nn.Module`."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from bestiary.ops.dry_run import dry_run


@dataclass(frozen=True)
class LayerCost:
    """One module that owns parameters or multiplies.

    Attributes:
        name: dotted path; empty for the network itself.
        kind: its class.
        calls: how often it ran (a shared head: once a level).
        output_shape: of the last call's first tensor; empty if it never ran.
        parameters: its own, not its children's; a shared parameter counts where it comes first.
        multiply_adds: of all calls together, its children's not among them.
        activations: values that its multiplying operators gave, of all calls together.
    """

    name: str
    kind: str
    calls: int
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activations: int


@dataclass(frozen=True)
class NetworkCosts:
    """The layers, in the order of the network's definition, and their sums.

    Attributes:
        input_shape: that was run.
        layers: those that own parameters or multiply.
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerCost, ...]

    @property
    def parameters(self) -> int:
        """Numbers to be learnt, each once; frozen ones are among them, buffers are not."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of the whole batch."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activations(self) -> int:
        """Of the whole batch."""
        return sum(layer.activations for layer in self.layers)

    def __str__(self) -> str:
        head = ("layer", "kind", "calls", "output", "parameters", "multiply-adds", "activations")
        rows = [
            (
                layer.name or "(itself)",
                layer.kind,
                str(layer.calls),
                "x".join(map(str, layer.output_shape)),
                f"{layer.parameters:,}",
                f"{layer.multiply_adds:,}",
                f"{layer.activations:,}",
            )
            for layer in self.layers
        ]
        shape = "x".join(map(str, self.input_shape))
        total = (
            "total",
            "",
            "",
            shape,
            f"{self.parameters:,}",
            f"{self.multiply_adds:,}",
            f"{self.activations:,}",
        )
        table = [head, *rows, total]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        left = 2  # names to the left, numbers to the right
        lines = []
        for row in table:
            cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def network_costs(module: nn.Module, input_shape: Sequence[int]) -> NetworkCosts:
    """Costs of one forward pass in evaluation mode.

    Convention: one multiply-add is one multiplication with its addition (half of what some call FLOPs). Counted are
    convolutions, plain and transposed, matrix products and attention, wherever they are called (also by functions
    inside a `forward`). Biases, normalisation, activations, pooling and interpolation are not, nor are fused recurrent
    layers.
    Activations are the values that the counted operators give (Radosavovic et al.: Designing Network Design Spaces,
    CVPR 2020, appendix A), the usual measure of the memory traffic. The batch of `input_shape` multiplies all but the
    parameters.

    Nothing is computed where the network does not look at values: a large input costs no more than a small one.

    Args:
        module: left as it was.
        input_shape: batch first, as (1, 3, 224, 224).

    Raises:
        RecordError: sizes that are not positive. What the module raises on such an input passes through.
    """
    run = dry_run(module, input_shape)
    multiply_adds: dict[str, int] = {}
    activations: dict[str, int] = {}
    for step in run.steps:
        if step.multiply_adds:
            multiply_adds[step.layer] = multiply_adds.get(step.layer, 0) + step.multiply_adds
            values = 1
            for n in step.outputs[0].shape:
                values *= n
            activations[step.layer] = activations.get(step.layer, 0) + values
    counted: set[int] = set()
    layers = []
    for name, part in module.named_modules():
        own = [p for p in part.parameters(recurse=False) if id(p) not in counted]
        counted.update(id(p) for p in own)
        if not own and name not in multiply_adds:
            continue
        call = run.calls.get(name)
        layers.append(
            LayerCost(
                name,
                type(part).__name__,
                call.times if call else 0,
                call.output_shape if call else (),
                sum(p.numel() for p in own),
                multiply_adds.get(name, 0),
                activations.get(name, 0),
            )
        )
    return NetworkCosts(tuple(int(n) for n in input_shape), tuple(layers))
