import pytest
import torch
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.ops.response_norm import local_response_norm


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 2.0), (3, 0.5, 0.75, 1), (1, 2, 1, 0.1), (7, 1, 0.5, 1)]
)
def test_by_the_papers_formula(size: int, alpha: float, beta: float, k: float) -> None:
    maps = random(2, 6, 3, 2)
    got = local_response_norm(maps, size, alpha, beta, k)
    for i in range(6):
        low, high = max(0, i - size // 2), min(5, i + size // 2)
        total = sum(maps[:, j] ** 2 for j in range(low, high + 1))
        torch.testing.assert_close(got[:, i], maps[:, i] / (k + alpha * total) ** beta, rtol=0, atol=1e-14)


def test_worked_number_and_torchs_other_alpha() -> None:
    ones = torch.ones(1, 9, 1, 1, dtype=torch.float64)
    assert local_response_norm(ones)[0, 4].item() == pytest.approx(1 / (2 + 5e-4) ** 0.75, abs=1e-15)
    assert local_response_norm(ones)[0, 0].item() == pytest.approx(1 / (2 + 3e-4) ** 0.75, abs=1e-15)
    maps = random(2, 7, 4, 5)
    torch.testing.assert_close(
        local_response_norm(maps), F.local_response_norm(maps, 5, 5e-4, 0.75, 2.0), rtol=0, atol=1e-14
    )
    assert not torch.allclose(local_response_norm(maps), F.local_response_norm(maps, 5, 1e-4, 0.75, 2.0), atol=1e-6)


@pytest.mark.parametrize("beta", [0.75, 1.5])
def test_gradcheck(beta: float) -> None:
    maps = random(2, 6, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: local_response_norm(m, 3, 0.7, beta, 1.2), (maps,))


def test_ranks_layouts_precisions_and_empty() -> None:
    maps = random(2, 6, 4, 5).float()
    wanted = local_response_norm(maps)
    assert torch.equal(local_response_norm(maps.contiguous(memory_format=torch.channels_last)), wanted)
    assert torch.equal(local_response_norm(maps.repeat_interleave(2, 3)[..., ::2]), wanted)
    assert torch.equal(local_response_norm(maps[..., 0, 0]), wanted[..., 0, 0])
    assert torch.equal(local_response_norm(maps[:, :, :, None]), wanted[:, :, :, None])
    for dtype in (torch.bfloat16, torch.float16):
        half = (maps * 300).to(dtype)  # a float16 square would overflow
        assert torch.equal(local_response_norm(half), local_response_norm(half.float()).to(dtype))
    assert local_response_norm(maps[:0]).shape == (0, 6, 4, 5)


def test_what_does_not_fit() -> None:
    with pytest.raises(RecordError, match="an odd number"):
        local_response_norm(torch.zeros(1, 2, 1, 1), 4)
    with pytest.raises(RecordError, match="k > 0"):
        local_response_norm(torch.zeros(1, 2, 1, 1), k=0)
