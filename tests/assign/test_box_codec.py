import math

import pytest
import torch

from bestiary.assign import BoxCodec
from bestiary.errors import RecordError


def boxes(count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * 500
    return torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=g) * 200], dim=1)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5)])
def test_round_trip(weights: tuple[int, int, int, int]) -> None:
    codec, truth, reference = BoxCodec(weights), boxes(200, 0).double(), boxes(200, 1).double()
    near = reference * 0.9 + truth * 0.1
    torch.testing.assert_close(codec.decode(codec.encode(near, reference), reference), near, rtol=0, atol=1e-9)
    assert not codec.encode(reference, reference).any()


def test_hand_worked_offsets() -> None:
    # Reference: centre (10, 20), size 20 x 10. Box: centre (15, 10), size 40 x 5.
    reference, box = torch.tensor([[0.0, 15, 20, 25]]), torch.tensor([[-5.0, 7.5, 35, 12.5]])
    got = BoxCodec((10, 10, 5, 5)).encode(box, reference)[0]
    torch.testing.assert_close(got, torch.tensor([10 * 0.25, 10 * -1.0, 5 * math.log(2), -5 * math.log(2)]))
    torch.testing.assert_close(BoxCodec((10, 10, 5, 5)).decode(got[None], reference), box)


def test_growth_is_cut() -> None:
    reference = torch.tensor([[0.0, 0, 16, 16]])
    got = BoxCodec().decode(torch.tensor([[0.0, 0, 50, 3]]), reference)[0]
    assert got[2] - got[0] == pytest.approx(1000, rel=1e-6)
    assert got[3] - got[1] == pytest.approx(16 * math.exp(3), rel=1e-6)
    assert BoxCodec(max_log_scale=0).decode(torch.tensor([[0.0, 0, 50, 3]]), reference).tolist() == reference.tolist()


def test_several_boxes_a_reference_are_decoded_alone() -> None:
    codec, reference = BoxCodec((10, 10, 5, 5)), boxes(6, 2)
    deltas = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    together = codec.decode(deltas, reference)
    assert together.shape == (6, 12)
    for k in range(3):
        assert torch.equal(together[:, 4 * k : 4 * k + 4], codec.decode(deltas[:, 4 * k : 4 * k + 4], reference))


def test_encode_and_decode_are_differentiable() -> None:
    codec, reference = BoxCodec((10, 10, 5, 5)), boxes(4, 3).double()
    deltas = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: codec.decode(d, reference), (deltas,))
    assert torch.autograd.gradcheck(lambda b: codec.encode(b, reference), (boxes(4, 4).double().requires_grad_(),))


def test_half_precision_offsets_are_decoded_in_float32_and_none_is_legal() -> None:
    codec, reference = BoxCodec(), boxes(3, 5)
    deltas = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert torch.equal(codec.decode(deltas, reference), codec.decode(deltas.float(), reference))
    assert codec.decode(torch.zeros(0, 8), torch.zeros(0, 4)).shape == (0, 8)
    assert codec.encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_misfits_are_named() -> None:
    with pytest.raises(RecordError, match="multiple of 4"):
        BoxCodec().decode(torch.zeros(2, 6), torch.zeros(2, 4))
    with pytest.raises(RecordError, match="four positive numbers"):
        BoxCodec((1, 1, 0, 1))
