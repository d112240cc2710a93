"""The box head's shapes and names."""

import torch

from bestiary.heads.box import BoxHead, BoxPredictor, RoIHeads, StageHead


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


def test_dropout_drops_while_training_alone() -> None:
    torch.manual_seed(0)
    head, pooled = BoxHead(4, bins=3, width=64, dropout=0.5), torch.rand(2, 4, 3, 3)
    assert not torch.equal(head(pooled), head(pooled))
    head.eval()
    assert torch.equal(head(pooled), head(pooled))
    assert head.out_features == 64


def test_a_head_without_dropout_draws_no_random_numbers() -> None:
    head = BoxHead(4, bins=3, width=8).train()
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    head(torch.rand(0, 4, 3, 3))
    head(torch.zeros(2, 4, 3, 3))
    assert torch.equal(torch.rand(3), wanted)


def test_a_stage_is_a_head() -> None:
    stage = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1)
    head, pooled = StageHead(stage, 6), torch.rand(5, 4, 14, 14)
    torch.testing.assert_close(head(pooled), stage(pooled).mean((2, 3)))
    assert head(torch.rand(0, 4, 14, 14)).shape == (0, 6)
