"""WordTree: probabilities among siblings, products down to the leaves, and who learns from a label."""

from pathlib import Path

import pytest
import torch

from bestiary.errors import DataError, UsageError
from bestiary.heads.word_tree import NO_PARENT, TreeClasses, WordTree, read_tree, write_tree

EDGES = ("animal=", "thing=", "cat=animal", "dog=animal", "bird=animal", "terrier=dog", "beagle=dog", "chair=thing")
LEAVES = ("cat", "bird", "terrier", "beagle", "chair")


def tree() -> WordTree:
    return WordTree.of(LEAVES, EDGES)


def test_a_tree_from_edges_keeps_their_order_and_adds_what_they_leave_out() -> None:
    known = tree()
    assert known.names == ("animal", "thing", "cat", "dog", "bird", "terrier", "beagle", "chair")
    assert known.parents == (-1, -1, 0, 0, 0, 3, 3, 1)
    assert known.edges == EDGES
    assert known.path(6) == (6, 3, 0)
    short = WordTree.of(("cat", "rock"), ("cat=animal",))
    assert (short.names, short.parents) == (("cat", "animal", "rock"), (1, NO_PARENT, NO_PARENT))
    assert WordTree.of(("a", "b"), ()).parents == (-1, -1)


def test_darknets_file_survives_byte_for_byte(tmp_path: Path) -> None:
    text = "n01 -1\nn02 -1\nn03 0\nn04 0\nn05 3\n"
    (tmp_path / "a.tree").write_text(text, encoding="utf-8")
    found = read_tree(tmp_path / "a.tree")
    assert found.parents == (-1, -1, 0, 0, 3)
    write_tree(tmp_path / "b.tree", found)
    assert (tmp_path / "b.tree").read_bytes() == text.encode()
    assert WordTree.of(found.names, found.edges) == found


def test_probabilities_by_hand_and_leaves_sum_to_1() -> None:
    logits = torch.randn(4, 3, 8)
    classes = TreeClasses(tree(), LEAVES)
    probs = classes.probs(logits)
    torch.testing.assert_close(probs.sum(-1), torch.ones(4, 3))
    top, animals, dogs = logits[..., :2].softmax(-1), logits[..., 2:5].softmax(-1), logits[..., 5:7].softmax(-1)
    torch.testing.assert_close(probs[..., 3], top[..., 0] * animals[..., 1] * dogs[..., 1])
    torch.testing.assert_close(probs[..., 4], top[..., 1])
    every = TreeClasses(tree(), tree().names).probs(logits)
    torch.testing.assert_close(every[..., 2:5].sum(-1), every[..., 0])
    torch.testing.assert_close(every[..., :2].sum(-1), torch.ones(4, 3))


def test_a_label_teaches_only_the_groups_on_its_way_up() -> None:
    logits = torch.randn(1, 8, requires_grad=True)
    classes = TreeClasses(tree(), tree().names)
    (loss,) = classes.losses(logits, torch.tensor([3]))  # a dog of unknown kind
    loss.backward()
    assert loss.item() == pytest.approx(-classes.absolute(logits)[0, 3].item(), abs=1e-6)
    assert logits.grad is not None
    wanted = torch.cat([logits[0, :2].softmax(0), logits[0, 2:5].softmax(0), torch.zeros(3)]).detach()
    wanted[[0, 3]] -= 1
    torch.testing.assert_close(logits.grad[0], wanted)  # minus Darknet's delta


def test_large_numbers_stay_finite() -> None:
    logits = torch.tensor([[500.0, -500, 300, -300, 0, 90, -90, 2000]], requires_grad=True)
    classes = TreeClasses(tree(), LEAVES)
    loss = classes.losses(logits, torch.tensor([0])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-4)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(classes.probs(logits)).all()


def test_an_answer_goes_down_for_as_long_as_it_is_sure() -> None:
    logits = torch.zeros(4, 8)
    logits[:, 0] = 5.0  # an animal
    logits[1, 3] = 6.0  # a dog, of unknown kind
    logits[2, 3], logits[2, 6] = 6.0, 6.0  # a beagle
    logits[3] = 0.0  # nothing is sure: the best of the highest
    classes = TreeClasses(tree(), tree().names)
    assert classes.descend(logits, 0.5).tolist() == [0, 3, 6, 0]
    probs = TreeClasses(tree(), ("animal", "beagle", "chair"), threshold=0.5).probs(logits)
    assert probs.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert TreeClasses(tree(), LEAVES, threshold=0.5).probs(logits)[1].tolist() == [0] * 5


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    for edges in (("a",), ("=b",), ("a=b", "a=c")):
        with pytest.raises(UsageError, match="child=parent"):
            WordTree.of((), edges)
    with pytest.raises(UsageError, match="circle"):
        WordTree.of((), ("a=b", "b=a"))
    with pytest.raises(UsageError, match="not in the tree: wolf"):
        TreeClasses(tree(), ["cat", "wolf"])
    (tmp_path / "bad.tree").write_text("a -1\nb x\n", encoding="utf-8")
    for name in ("bad.tree", "none.tree"):
        with pytest.raises(DataError, match=name):
            read_tree(tmp_path / name)
