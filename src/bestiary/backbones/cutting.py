"""A net cut at any named layer: what comes after it is gone, what stays keeps its names, parameters and state.

    trunk = bestiary.cut(net, "layer3")                      one map
    maps = bestiary.cut(net, ["layer2", "layer4.1.conv1"])   a dictionary of maps

The cut is a module of its own (a `torch.fx.GraphModule`): it trains, exports, compiles and stands in other nets. It
shares parameters and buffers with the net; `copy.deepcopy` parts them. Input is what the net's `forward` takes: for a
system, normalised pixels.
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from bestiary.errors import UsageError

SHOWN = 12


def cut(net: nn.Module, end_with: str | Sequence[str]) -> fx.GraphModule:
    """The part of `net` that leads to the named layers.

    A name is looked up as a module's path (`features.21`, `layer3.2.conv1`; of a module that runs several times, its
    last run), then as a paper's name, which nets may have in `layer_names` (`conv4_3`), then as a level (`C4`), then as
    an operation of the traced graph (`mean`, `add_3`).

    Args:
        net: a network whose `forward` runs through without looking at values; it stays as it is.
        end_with: one layer, whose output the cut returns; or several, of which it returns a dictionary.

    Raises:
        UsageError: no such layer (the nearest is named), or a net that cannot be traced.
    """
    names = (end_with,) if isinstance(end_with, str) else tuple(end_with)
    if not names:
        raise UsageError("got no layer, wanted at least one", where="end_with")
    graph, tracer = _trace(net)
    known = _names(net, tracer, graph)
    ends = {name: _find(name, known) for name in names}
    return _part(net, graph, ends[names[0]] if isinstance(end_with, str) else ends, known)


def cut_before(net: nn.Module, layer: str) -> fx.GraphModule:
    """The part of `net` that makes the input of one layer: `cut_before(net, "fc")` gives what a classifier sees.

    Args:
        net: as for `cut`.
        layer: path of a module or the paper's name of one; of its runs the last counts.

    Raises:
        UsageError: as `cut`; or a layer that is no module, or has no input or several.
    """
    graph, tracer = _trace(net)
    path = layer if layer in tracer.inputs else _paper_names(net).get(layer, layer)
    if path not in tracer.inputs:
        raise _unknown(layer, [*tracer.inputs, *_paper_names(net)])
    before = tracer.inputs[path]
    if len(before) != 1:
        raise UsageError(f"the layer {layer!r} takes {len(before)} maps, wanted one", where="layer")
    return _part(net, graph, before[0], _names(net, tracer, graph))


def layers_of(net: nn.Module) -> tuple[str, ...]:
    """Paths of the modules that `cut` can end with, in the order in which they finish.

    Raises:
        UsageError: a net that cannot be traced.
    """
    return tuple(_trace(net)[1].outputs)


class _Tracer(fx.Tracer):
    """Modules without children are one node each; of all others it is noted where they end."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}
        self.inputs: dict[str, list[fx.Node]] = {}
        self._paths: dict[nn.Module, list[str]] = {}

    def note_paths(self, root: nn.Module) -> None:
        """A module may stand at several places; each is its name."""
        for path, module in root.named_modules(remove_duplicate=False):
            self._paths.setdefault(module, []).append(path)

    def note_calls(self, graph: fx.Graph) -> None:
        """The layers of a graph that was traced before."""
        for node in graph.nodes:
            if node.op == "call_module":
                self.outputs[str(node.target)] = node
                self.inputs[str(node.target)] = node.all_input_nodes

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """What torch itself calls a leaf (its attention, say), and whatever has no parts."""
        return not any(True for _ in m.children()) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As torch, noting what goes in and comes out."""
        out = super().call_module(m, forward, args, kwargs)
        for path in self._paths.get(m, ()):
            self.inputs[path] = [v.node for v in (*args, *kwargs.values()) if isinstance(v, fx.Proxy)]
            if isinstance(out, fx.Proxy):
                self.outputs.pop(path, None)  # so that the order is that of the last run
                self.outputs[path] = out.node
        return out


def _trace(net: nn.Module) -> tuple[fx.Graph, _Tracer]:
    tracer = _Tracer()
    if isinstance(net, fx.GraphModule):  # traced before: a second trace would number its operations anew
        graph = copy.deepcopy(net.graph)
        tracer.note_calls(graph)
        return graph, tracer
    tracer.note_paths(net)
    try:
        graph = tracer.trace(net)
    except (TraceError, TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        # whatever a proxy meets in a forward that looks at values
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        mend = "Cut the part of it that is a plain network (its backbone, say)"
        raise UsageError(f"{type(net).__name__} cannot be traced ({reason})", where="cut", mend=mend) from error
    for node in graph.nodes:
        node.type = None  # the annotations are those of the whole net
    return graph, tracer


Names = dict[str, fx.Node]


def _names(net: nn.Module, tracer: _Tracer, graph: fx.Graph) -> tuple[Names, Names]:
    """What can be cut at: layers, by all the names they have, and operations."""
    operations = {node.name: node for node in graph.nodes if node.op not in ("placeholder", "output", "get_attr")}
    places = {**operations, **tracer.outputs}
    papers = {paper: places[path] for paper, path in _paper_names(net).items() if path in places}
    return {**_levels(net, graph), **papers, **tracer.outputs}, operations


def _find(name: str, known: tuple[Names, Names]) -> fx.Node:
    layers, operations = known
    if name not in layers and name not in operations:
        raise _unknown(name, list(layers))
    return layers[name] if name in layers else operations[name]


def _paper_names(net: nn.Module) -> Mapping[str, str]:
    if isinstance(net, fx.GraphModule):
        return net.meta.get("layer_names", {})
    return getattr(net, "layer_names", None) or {}


def _levels(net: nn.Module, graph: fx.Graph) -> dict[str, fx.Node]:
    """The maps that a backbone returns, by the names of its levels."""
    levels: Sequence[Any] = getattr(net, "levels", ())
    returned = next(node.args[0] for node in reversed(graph.nodes) if node.op == "output")
    if not isinstance(returned, tuple | list) or len(returned) != len(levels):
        return {}
    return {level.name: node for level, node in zip(levels, returned, strict=True) if isinstance(node, fx.Node)}


def _unknown(name: str, known: Sequence[str]) -> UsageError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    shown = ", ".join(known[:SHOWN]) + (" ..." if len(known) > SHOWN else "")
    mend = f"Did you mean {close[0]!r}?" if close else f"There are {len(known)} layers: {shown}"
    return UsageError(f"no layer is called {name!r}", where="end_with", mend=mend)


def _part(net: nn.Module, graph: fx.Graph, ends: fx.Node | Names, known: tuple[Names, Names]) -> fx.GraphModule:
    _end_at(graph, ends)
    part = fx.GraphModule(net, graph, class_name=f"Cut{type(net).__name__.removeprefix('Cut')}")
    left = set(graph.nodes)
    part.meta["layer_names"] = {name: node.name for name, node in known[0].items() if node in left}
    _wake_dropout(part)
    own = set(net.modules())
    for module in part.modules():  # the net's own modules keep the mode they are in, new ones take the net's
        if module not in own:
            module.training = net.training
    return part


def _end_at(graph: fx.Graph, ends: fx.Node | Names) -> None:
    """Let the graph return `ends`, without all that they do not need."""
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    output.args = (ends,)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    order = {node: place for place, node in enumerate(graph.nodes)}
    writers = [place for node, place in order.items() if _writes_in_place(node, graph.owning_module)]
    for node in dict.fromkeys((ends,) if isinstance(ends, fx.Node) else ends.values()):
        # An activation that works in place would write over a map that is to be returned.
        if len(node.users) > 1 and any(place > order[node] for place in writers):
            with graph.inserting_after(node):
                kept = graph.call_function(torch.clone, (node,))
            output.replace_input_with(node, kept)
    graph.lint()


def _writes_in_place(node: fx.Node, root: nn.Module | None) -> bool:
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", True)) if root is not None else True
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or name in IN_PLACE_OPERATORS or (name.endswith("_") and name[:1] != "_")


IN_PLACE_OPERATORS = frozenset(["iadd", "isub", "imul", "itruediv", "setitem"])


def _wake_dropout(part: fx.GraphModule) -> None:
    """Give functional dropouts the mode of the cut: the trace holds the mode that the net was in."""
    for node in list(part.graph.nodes):
        kind = DROPOUTS.get(node.target) if node.op == "call_function" else None
        if kind is None:
            continue
        said = {**dict(zip(("input", "p", "training", "inplace"), node.args, strict=False)), **node.kwargs}
        if "training" not in said:
            continue
        part.add_submodule(node.name, kind(said.get("p", 0.5), bool(said.get("inplace", False))))
        with part.graph.inserting_after(node):
            awake = part.graph.call_module(node.name, (said["input"],))
        node.replace_all_uses_with(awake)
        part.graph.erase_node(node)
    part.recompile()


DROPOUTS: Mapping[Any, type[nn.Module]] = {
    nn.functional.dropout: nn.Dropout,
    nn.functional.dropout1d: nn.Dropout1d,
    nn.functional.dropout2d: nn.Dropout2d,
    nn.functional.dropout3d: nn.Dropout3d,
}
