"""Which part of a system makes its answers: trained when nothing else is; features are what it sees."""

from torch import nn

from bestiary.errors import UsageError
from bestiary.system import System


def head_names(system: System) -> tuple[str, ...]:
    """Paths of the parts that make the answers.

    A system may say so itself in an attribute `head_names`. Of a classifier it is otherwise the last linear layer or
    convolution, in the order of its parts, that has one output a category.

    Raises:
        UsageError: neither.
    """
    said = getattr(system, "head_names", None)
    if said:
        return tuple(said)
    outputs = len(system.categories)
    fitting = [
        name
        for name, module in system.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == outputs)
        or (isinstance(module, nn.Conv2d) and module.out_channels == outputs)
    ]
    if not fitting or system.task != "classification":
        name = system.model_name or type(system).__name__
        raise UsageError(f"{name} does not say which part is its head", mend="Name the part by its path")
    return (fitting[-1],)
