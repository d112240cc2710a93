import math

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional as F

from bestiary.errors import RecordError
from bestiary.ops import deformable
from bestiary.ops.deformable import DeformConv2d, deform_conv2d

Shape = tuple[int, int, int, int, tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
SHAPES: list[Shape] = [  # channels in and out, groups of weights and offsets, kernel, stride, padding, dilation
    (4, 6, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    (4, 6, 2, 1, (3, 2), (2, 1), (1, 0), (1, 2)),
    (6, 6, 2, 3, (3, 3), (1, 2), (2, 1), (2, 1)),
    (6, 6, 6, 2, (1, 3), (1, 1), (0, 1), (1, 1)),
]


def problem(
    shape: Shape, dtype: torch.dtype = torch.float32, side: tuple[int, int] = (7, 8)
) -> dict[str, torch.Tensor]:
    """Offsets far enough to leave the map; those of the first picture are whole numbers."""
    channels, outs, groups, offset_groups, kernel, stride, padding, dilation = shape
    g = torch.Generator().manual_seed(0)
    out = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(side, padding, dilation, kernel, stride, strict=True)
    ]
    taps = offset_groups * kernel[0] * kernel[1]
    offset = torch.randn(2, 2 * taps, *out, generator=g, dtype=dtype) * 2
    offset[0] = offset[0].round()
    return {
        "input": torch.randn(2, channels, *side, generator=g, dtype=dtype),
        "offset": offset,
        "weight": torch.randn(outs, channels // groups, *kernel, generator=g, dtype=dtype),
        "bias": torch.randn(outs, generator=g, dtype=dtype),
        "mask": torch.rand(2, taps, *out, generator=g, dtype=dtype),
    }


def call(shape: Shape, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return deform_conv2d(**tensors, stride=shape[5], padding=shape[6], dilation=shape[7])


def naive(shape: Shape, t: dict[str, torch.Tensor]) -> torch.Tensor:
    """One loop for each index of the definition."""
    channels, outs, groups, offset_groups, (kernel_h, kernel_w), stride, padding, dilation = shape
    x, height, width = t["input"].double(), t["input"].shape[2], t["input"].shape[3]
    out = torch.zeros(len(x), outs, *t["offset"].shape[2:], dtype=torch.float64)
    for b, oy, ox in np.ndindex(len(x), *out.shape[2:]):
        for c, i, j in np.ndindex(channels, kernel_h, kernel_w):
            k = (c // (channels // offset_groups) * kernel_h + i) * kernel_w + j
            dy, dx = t["offset"][b, 2 * k, oy, ox].item(), t["offset"][b, 2 * k + 1, oy, ox].item()
            y, x_ = (
                oy * stride[0] - padding[0] + i * dilation[0] + dy,
                ox * stride[1] - padding[1] + j * dilation[1] + dx,
            )
            value = 0.0
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x_), math.floor(x_) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        value += x[b, c, row, column].item() * (1 - abs(y - row)) * (1 - abs(x_ - column))
            value *= t["mask"][b, k, oy, ox].item()
            group, inner = divmod(c, channels // groups)
            for o in range(group * outs // groups, (group + 1) * outs // groups):
                out[b, o, oy, ox] += value * t["weight"][o, inner, i, j].item()
    return out + t["bias"].double()[:, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_loops_of_the_definition(shape: Shape, dtype: torch.dtype) -> None:
    tensors = problem(shape, dtype, (5, 6))
    got = call(shape, tensors)
    torch.testing.assert_close(
        got.double(), naive(shape, tensors), rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-12
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_and_plain_torch_agree_with_all_gradients(shape: Shape, last: bool) -> None:
    single, double = problem(shape), problem(shape)
    layout = torch.channels_last if last else torch.contiguous_format
    single["input"] = single["input"].contiguous(memory_format=layout)
    single = {name: t.requires_grad_() for name, t in single.items()}
    double = {name: t.double().requires_grad_() for name, t in double.items()}
    got, wanted = call(shape, single), call(shape, double)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-5)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad(got, list(single.values()), weight)
    others = torch.autograd.grad(wanted, list(double.values()), weight.double())
    for name, a, b in zip(single, grads, others, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=5e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert a.is_contiguous(memory_format=layout if name == "input" else torch.contiguous_format)
    assert got.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", SHAPES[1:3])
def test_gradcheck_in_double_precision(shape: Shape) -> None:
    tensors = problem(shape, torch.float64, (4, 5))
    # The definition has kinks at whole numbers: keep the places away from them.
    whole = tensors["offset"].round()
    tensors["offset"] = whole + (tensors["offset"] - whole).clamp(-0.4, 0.4) + 0.5
    leaves = [t.requires_grad_() for t in tensors.values()]
    assert torch.autograd.gradcheck(lambda *t: call(shape, dict(zip(tensors, t, strict=True))), leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_offsets_it_is_a_convolution(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(2, 6, 9, 10, generator=g, dtype=dtype)
    weight = torch.randn(4, 3, 3, 3, generator=g, dtype=dtype)
    offset = torch.zeros(2, 18, 5, 10, dtype=dtype)
    wanted = F.conv2d(x, weight, None, (2, 1), 1, 1, 2)
    torch.testing.assert_close(deform_conv2d(x, offset, weight, None, (2, 1), 1), wanted)
    # An offset that is the same everywhere moves the map; a mask of a half halves it.
    offset[:, 0::2], offset[:, 1::2] = 2, -1
    half = torch.full((2, 9, 5, 10), 0.5, dtype=dtype)
    got = deform_conv2d(x, offset, weight, None, (2, 1), 1, mask=half)
    moved = F.pad(x, [2, 0, -1, 3])  # padding 1, and the row two below, the column one to the left
    torch.testing.assert_close(got, F.conv2d(moved, weight, None, (2, 1), 0, 1, 2) / 2)


def test_hand_worked_values_fade_out_beyond_the_border() -> None:
    ones, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1)

    def at(dy: float, dx: float, dtype: torch.dtype) -> float:
        offset = torch.zeros(1, 2, 3, 3, dtype=dtype)
        offset[0, 0], offset[0, 1] = dy, dx
        return deform_conv2d(ones.to(dtype), offset, weight.to(dtype))[0, 0, 0, 0].item()

    for dtype in (torch.float32, torch.float64):
        assert [at(0, 0, dtype), at(-0.25, 0, dtype), at(-1, 0, dtype), at(-1.5, 0, dtype)] == [1, 0.75, 0, 0]
        assert [at(2.5, 0, dtype), at(2.5, 2.5, dtype), at(3, 0, dtype), at(0, 1e9, dtype)] == [0.5, 0.25, 0, 0]
        assert [at(math.nan, 0, dtype), at(0, math.inf, dtype)] == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torchvisions_numbers(dtype: torch.dtype) -> None:
    # torchvision 0.28; the first offsets are whole numbers, where derivatives are those from the right.
    x = (torch.arange(50, dtype=dtype).reshape(1, 2, 5, 5) * 3 % 7 - 3).requires_grad_()
    weight = ((torch.arange(54, dtype=dtype).reshape(3, 2, 3, 3) * 5 % 9 - 4) / 4).requires_grad_()
    offset = ((torch.arange(162, dtype=dtype).reshape(1, 18, 3, 3) * 7 % 9 - 4) / 3).requires_grad_()
    mask = ((torch.arange(81, dtype=dtype).reshape(1, 9, 3, 3) * 4 % 5) / 4).requires_grad_()
    got = deform_conv2d(x, offset, weight, torch.tensor([0.5, -1, 0], dtype=dtype), 2, 1, 1, mask)
    first = [0.5, -0.375, 0.52778, -0.75, 0.5625, 0.44444, 0.90278, -0.875, 1.36806]
    wanted = [first, [v - 1.5 for v in first], [v - 0.5 for v in first]]
    torch.testing.assert_close(got[0].flatten(1), torch.tensor(wanted, dtype=dtype), rtol=0, atol=1e-5)
    grads = torch.autograd.grad(got.square().sum(), [x, offset, weight, mask])
    sums = [(-4.3038, 103.3628), (-88.5721, 502.4835), (-24.0174, 288.9541), (52.0116, 223.3264)]
    for grad, (total, size) in zip(grads, sums, strict=True):
        assert grad.sum().item() == pytest.approx(total, abs=2e-3)
        assert grad.abs().sum().item() == pytest.approx(size, abs=2e-3)


def test_onnx_runtime_agrees() -> None:
    shape = (4, 6, 2, 2, (3, 2), (2, 1), (1, 0), (1, 2))
    tensors = problem(shape)
    names = {"input": "x", "weight": "w", "offset": "o", "bias": "b", "mask": "m"}
    node = helper.make_node(
        "DeformConv",
        list(names.values()),
        ["y"],
        kernel_shape=shape[4],
        strides=shape[5],
        pads=[*shape[6], *shape[6]],
        dilations=shape[7],
        group=shape[2],
        offset_group=shape[3],
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in [*names.values(), "y"]]
    graph = helper.make_graph([node], "one", values[:-1], values[-1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        pytest.skip("this ONNX Runtime has no DeformConv")
    (wanted,) = session.run(None, {short: tensors[name].numpy() for name, short in names.items()})
    np.testing.assert_allclose(call(shape, tensors).numpy(), wanted, rtol=0, atol=2e-5)


def test_in_small_rounds_as_in_one_and_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (130, 8, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1))
    leaves = {name: t.requires_grad_() for name, t in problem(shape).items()}
    before, results = torch.get_num_threads(), []
    try:
        for threads, most in ((1, 1 << 23), (2, 1 << 23), (2, 130 * 9 * 11)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(deformable, "_COLUMNS_AT_ONCE", most)
            out = call(shape, leaves)
            results.append((out, *torch.autograd.grad(out.sum(), list(leaves.values()))))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_half_precision_is_computed_in_float32() -> None:
    shape = SHAPES[0]
    low = {name: t.bfloat16() for name, t in problem(shape).items()}
    got = call(shape, low)
    assert torch.equal(got, call(shape, {name: t.float() for name, t in low.items()}).bfloat16())


def test_no_picture_is_legal_and_what_does_not_fit_is_an_error() -> None:
    shape = SHAPES[0]
    tensors = problem(shape)
    none = {name: t[:0] if name in ("input", "offset", "mask") else t for name, t in tensors.items()}
    assert call(shape, none).shape == (0, 6, 7, 8)
    changes = {
        "offset": (tensors["offset"][:, :-2], "16 channels, wanted 2 x 9 taps"),
        "mask": (tensors["mask"][:, :-1], r"shape \(2, 8, 7, 8\), wanted \(2, 9, 7, 8\)"),
        "weight": (tensors["weight"][:, :3], "3 channels a group, wanted a divisor of the input's 4"),
        "bias": (tensors["bias"][:-1], r"shape \(5,\), wanted \(6,\)|Type-check"),
    }
    for name, (value, message) in changes.items():
        with pytest.raises(Exception, match=message):
            call(shape, {**tensors, name: value})
    with pytest.raises(RecordError, match="at least 1"):
        deform_conv2d(tensors["input"], tensors["offset"], tensors["weight"], stride=0)
    with pytest.raises(RecordError, match="a divisor of both"):
        DeformConv2d(4, 6, 3, groups=3)


def test_module_compiled_and_exported(unchecked: None) -> None:
    torch.manual_seed(0)
    module = DeformConv2d(4, 6, 3, padding=1)
    assert [tuple(p.shape) for p in module.parameters()] == [(6, 4, 3, 3), (6,)]
    assert module.weight.abs().max() <= 1 / 6
    assert "kernel_size=(3, 3)" in repr(module)
    t = problem(SHAPES[0])
    inputs = (t["input"].requires_grad_(), t["offset"].requires_grad_(), t["mask"].requires_grad_())
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    leaves = [*inputs, *module.parameters()]
    grads = [torch.autograd.grad(f(*inputs).square().sum(), leaves) for f in (module, compiled)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(module.eval(), tuple(i.detach() for i in inputs), dynamic_shapes=({0: batch},) * 3)
    more = tuple(torch.cat([i, i]).detach() for i in inputs)
    torch.testing.assert_close(exported.module()(*more), module(*more))


def test_operator_is_well_formed(unchecked: None) -> None:
    t = {name: tensor.requires_grad_() for name, tensor in problem(SHAPES[1]).items()}
    steps = [2, 1, 1, 0, 1, 2]
    for features in (t["input"], t["input"].detach().contiguous(memory_format=torch.channels_last).requires_grad_()):
        torch.library.opcheck(
            deformable._deform_conv2d, (features, t["offset"], t["weight"], t["bias"], t["mask"], steps)
        )
    torch.library.opcheck(deformable._deform_conv2d, (t["input"], t["offset"], t["weight"], None, None, steps))
