"""The box head's shapes and names."""

import torch

from bestiary.heads.box import BoxHead, BoxPredictor, RoIHeads


def test_background_has_the_first_output_and_every_class_its_own_box() -> None:
    torch.manual_seed(0)
    heads = RoIHeads(BoxHead(4, bins=3, width=10), BoxPredictor(10, 5))
    pooled = torch.rand(7, 4, 3, 3)
    logits, deltas = heads(pooled)
    assert logits.shape == (7, 6)
    assert deltas.shape == (7, 6, 4)
    vectors = heads.box_head(pooled)
    flat = heads.box_predictor.bbox_pred(vectors)
    assert torch.equal(deltas[:, 2], flat[:, 8:12])
    assert (vectors >= 0).all()


def test_no_region_is_legal() -> None:
    logits, deltas = RoIHeads(BoxHead(4, bins=3, width=10), BoxPredictor(10, 5))(torch.rand(0, 4, 3, 3))
    assert logits.shape == (0, 6)
    assert deltas.shape == (0, 6, 4)
