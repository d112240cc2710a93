"""WordTree: classes that contain one another (Redmon, Farhadi: YOLO9000, CVPR 2017, section 4).

Each node has a probability given its parent, by a softmax over itself and its siblings; the nodes without parent are
siblings, too. What a node is worth on its own is the product up to the root. A label says something of the nodes on its
way up, and nothing of those beneath it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import DataError, UsageError
from bestiary.heads.region_network import Classes

NO_PARENT = -1


@dataclass(frozen=True)
class WordTree:
    """Names and who stands above them.

    Attributes:
        names: M, each once; their order is that of the network's numbers.
        parents: index of each one's parent, or NO_PARENT.

    Raises:
        UsageError: names twice, a parent that is none of them, or a circle.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or len(self.parents) != len(self.names):
            raise UsageError("got a name twice, or not one parent a name", where="tree")
        for node, parent in enumerate(self.parents):
            if not NO_PARENT <= parent < len(self.names):
                raise UsageError(f"got the parent {parent} of {self.names[node]!r}", where="tree")
        for node in range(len(self.names)):
            self.path(node)

    @classmethod
    def of(cls, categories: Sequence[str], edges: Sequence[str]) -> "WordTree":
        """The tree of edges written `child=parent` (`child=` for one without parent), in their order; parents that
        have no edge of their own, and then categories, follow without parent.

        Raises:
            UsageError: an edge of another form, or no tree.
        """
        above: dict[str, str] = {}
        for edge in edges:
            child, equals, parent = (part.strip() for part in edge.partition("="))
            if not equals or not child or child in above:
                raise UsageError(f"got {edge!r}, wanted child=parent, each child once", where="tree")
            above[child] = parent
        for name in [*above.values(), *categories]:
            if name:
                above.setdefault(name, "")
        places = {name: i for i, name in enumerate(above)}
        return cls(tuple(above), tuple(places[parent] if parent else NO_PARENT for parent in above.values()))

    @property
    def edges(self) -> tuple[str, ...]:
        """As `of` reads them."""
        above = ("" if parent == NO_PARENT else self.names[parent] for parent in self.parents)
        return tuple(f"{name}={parent}" for name, parent in zip(self.names, above, strict=True))

    def path(self, node: int) -> tuple[int, ...]:
        """The node and all above it, upwards; raises `UsageError` in a circle."""
        found = [node]
        while self.parents[found[-1]] != NO_PARENT:
            found.append(self.parents[found[-1]])
            if len(found) > len(self.names):
                raise UsageError(f"got a circle above {self.names[node]!r}", where="tree")
        return tuple(found)


def read_tree(path: str | Path) -> WordTree:
    """Darknet's `.tree` file: in each line a name and the line of its parent, counted from 0, or -1.

    Raises:
        DataError: no such file, or not one of these.
    """
    try:
        rows = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        return WordTree(tuple(row[0] for row in rows), tuple(int(row[1]) for row in rows))
    except OSError as error:
        raise DataError(f"it cannot be read ({error})", where=str(path)) from error
    except (IndexError, ValueError, UsageError) as error:
        raise DataError(f"got something else than names and parents ({error})", where=str(path)) from error


def write_tree(path: str | Path, tree: WordTree) -> None:
    """Write Darknet's form, which `read_tree` reads."""
    lines = (f"{name} {parent}\n" for name, parent in zip(tree.names, tree.parents, strict=True))
    Path(path).write_text("".join(lines), encoding="utf-8")


class TreeClasses(Classes):
    """What the M class numbers of a place mean where classes form a tree.

    Args:
        tree: of M nodes.
        categories: K names among them.
        threshold: None: a place answers for every category. Otherwise for one: downwards from the top the likeliest
            child is taken for as long as its probability is above this.

    Raises:
        UsageError: a category that is not in the tree.
    """

    def __init__(self, tree: WordTree, categories: Sequence[str], threshold: float | None = None) -> None:
        super().__init__()
        missing = [name for name in categories if name not in tree.names]
        if missing:
            raise UsageError(f"got categories that are not in the tree: {', '.join(missing[:5])}", where="tree")
        self.tree, self.threshold = tree, threshold
        place = {name: i for i, name in enumerate(tree.names)}
        paths = [tree.path(node) for node in range(len(tree.names))]
        depth = max(map(len, paths))
        padded = torch.tensor([[*path, *[len(paths)] * (depth - len(path))] for path in paths])
        groups = {parent: g for g, parent in enumerate(dict.fromkeys(tree.parents))}
        category = {place[name]: k for k, name in enumerate(categories)}
        nearest = [next((category[n] for n in path if n in category), len(categories)) for path in paths]
        self._keep("nodes", torch.tensor([place[name] for name in categories]))
        self._keep("paths", padded)  # [M, depth], M where a path is shorter
        self._keep("groups", torch.tensor([groups[parent] for parent in tree.parents]))
        self._keep("depths", torch.tensor([len(path) for path in paths]))
        self._keep("categories_of_nodes", torch.tensor(nearest))  # K where no category stands above
        self.group_count = len(groups)

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def conditional(self, logits: Float[Tensor, "*N M"]) -> Float[Tensor, "*N M"]:
        """log p(node | parent): log-softmax among siblings."""
        index = self.get_buffer("groups").expand(logits.shape)
        tops = logits.new_full((*logits.shape[:-1], self.group_count), -torch.inf)
        tops = tops.scatter_reduce(-1, index, logits.detach(), "amax")
        shifted = logits - tops.gather(-1, index)
        sums = torch.zeros_like(tops).scatter_add(-1, index, shifted.exp())
        return shifted - sums.gather(-1, index).log()

    def absolute(self, logits: Float[Tensor, "*N M"]) -> Float[Tensor, "*N M"]:
        """log p(node): the sum along its path."""
        padded = F.pad(self.conditional(logits), (0, 1))
        paths = self.get_buffer("paths")
        return sum((padded[..., paths[:, level]] for level in range(1, paths.shape[1])), padded[..., paths[:, 0]])

    def probs(self, logits: Float[Tensor, "*N M"]) -> Float[Tensor, "*N K"]:
        """Of each category on its own, or with a threshold 1 for the one that is chosen and 0 for the others."""
        nodes = self.get_buffer("nodes")
        if self.threshold is None:
            return self.absolute(logits)[..., nodes].exp()
        chosen = self.get_buffer("categories_of_nodes")[self.descend(logits, self.threshold)]
        return F.one_hot(chosen, len(nodes) + 1)[..., :-1].to(logits.dtype)

    def descend(self, logits: Float[Tensor, "*N M"], threshold: float) -> Int64[Tensor, "*N"]:
        """The deepest node on the way of likeliest children whose probability is above the threshold; at least one
        of the highest.
        """
        conditional, paths = self.conditional(logits), self.get_buffer("paths")
        index = self.get_buffer("groups").expand(logits.shape)
        tops = conditional.new_full((*logits.shape[:-1], self.group_count), -torch.inf)
        is_top = conditional >= tops.scatter_reduce(-1, index, conditional, "amax").gather(-1, index)
        passes = is_top & ((self.absolute(logits).exp() > threshold) | (self.get_buffer("depths") == 1))
        padded = F.pad(passes, (0, 1), value=True)
        whole = torch.stack([padded[..., paths[:, level]] for level in range(paths.shape[1])]).all(0)
        return (whole * self.get_buffer("depths")).argmax(-1)

    def losses(self, logits: Float[Tensor, "T M"], labels: Int64[Tensor, " T"]) -> Float[Tensor, " T"]:
        """-log p of the label's node: cross entropy in each group on its way up, nothing in any other."""
        padded = F.pad(self.conditional(logits), (0, 1))
        return -padded.gather(1, self.get_buffer("paths")[self.get_buffer("nodes")[labels]]).sum(1)
