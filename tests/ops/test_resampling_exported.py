"""Pooling, upsampling, corner pooling and normalisation, compiled, exported and in ONNX Runtime, in one network."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bestiary.ops.convolution import interleaved_convolution
from bestiary.ops.corner_pooling import corner_pool
from bestiary.ops.pooling import max_pool_with_indices, mean_pool
from bestiary.ops.response_norm import local_response_norm
from bestiary.ops.unpooling import bed_of_nails, max_unpool
from bestiary.ops.upsampling import resize_convolution, sub_pixel, upsample, upsample_bilinear_transposed


class Everything(nn.Module):
    """Each operator once, in a chain, so that one graph shows them all."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0)) / 6)

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pooled, indices = max_pool_with_indices(local_response_norm(maps), 2)
        unpooled = max_unpool(interleaved_convolution(pooled, self.weight, None, 2, 2), indices, maps.shape[2:])
        corners = corner_pool(unpooled, "top") + corner_pool(maps, "left")
        larger = upsample(mean_pool(corners, 3, 2, 1), size=maps.shape[2:], method="cubic")
        learnt = resize_convolution(sub_pixel(larger, 2), self.weight[:, :1], method="linear")
        return unpooled, corners, learnt, upsample_bilinear_transposed(bed_of_nails(pooled, 2), 2)


def maps() -> torch.Tensor:
    return torch.randn(2, 4, 9, 12, generator=torch.Generator().manual_seed(1))


def close(got: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_compiled_whole_with_its_gradient(unchecked: None) -> None:
    module = Everything()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    grads = []
    for call in (module, compiled):
        leaf = maps().requires_grad_()
        out = call(leaf)
        torch.stack([(part * part.detach().cos()).sum() for part in out]).sum().backward()
        grads.append(leaf.grad)
    close(compiled(maps()), module(maps()))
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4)


def test_exported_with_plain_operators_only(unchecked: None, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    module = Everything().eval()
    with torch.no_grad():
        wanted = module(maps())
        program = torch.export.export(module, (maps(),))
        close(program.module()(maps()), wanted)
        names = {str(node.target) for node in program.graph.nodes}
        assert not any(name.startswith("bestiary") for name in names), "other runtimes know none of ours"
        path = tmp_path / "everything.onnx"
        torch.onnx.export(program, (maps(),), str(path), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: maps().numpy()})
    close(tuple(torch.from_numpy(np.asarray(part)) for part in got), wanted)
