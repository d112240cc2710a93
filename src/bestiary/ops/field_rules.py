"""Which input pixels each value of a network can see: how one operator passes that on.

Known of a tensor, for each spatial axis of the input: the first and the last pixel that reach each of its values. Both
are kept as minima (the last one negated), infinity where nothing reaches, so that seeing two things is `minimum`. Such
an array has the tensor's shape, with stride 0 on every axis along which it is constant: it costs next to nothing.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bestiary.ops.dry_run import Step, Value

Reach = tuple[Tensor, ...]
Known = dict[int, Reach]
"""Number of a value to what reaches it."""
Rule = Callable[[Step, Known], list[Reach]]
"""Reach of the outputs, in order; outputs that are left out see nothing."""


def collapsed(reach: Tensor) -> Tensor:
    """Length 1 on every axis along which it is constant."""
    return reach[tuple(slice(0, 1) if step == 0 else slice(None) for step in reach.stride())]


def spread(reach: Tensor, shape: Sequence[int]) -> Tensor:
    """To `shape`, in no memory."""
    return collapsed(reach).expand(*shape)


def of_input(shape: Sequence[int]) -> Reach:
    """A picture batch `[B, C, *spatial]`: each pixel sees itself."""
    arrays = []
    for axis in range(2, len(shape)):
        here = torch.arange(shape[axis], dtype=torch.float64).view(-1, *(1,) * (len(shape) - axis - 1))
        arrays += [here.expand(*shape), (-here).expand(*shape)]
    return tuple(arrays)


def values_in(argument: object) -> list[Value]:
    """The values inside an argument, in order."""
    if isinstance(argument, Value):
        return [argument]
    return [value for part in argument for value in values_in(part)] if isinstance(argument, list | tuple) else []


def seen(argument: object, known: Known) -> list[Reach]:
    """What reaches the values inside an argument; none where nothing does."""
    return [known[value.number] for value in values_in(argument) if value.number in known]


def joined(reaches: Sequence[Reach], shape: Sequence[int]) -> Reach:
    """Each value sees what all of them see at its place (broadcast)."""
    arrays = []
    for parts in zip(*reaches, strict=True):
        total = collapsed(parts[0])
        for part in parts[1:]:
            total = torch.minimum(total, collapsed(part))
        arrays.append(total.expand(*shape))
    return tuple(arrays)


def over(reach: Reach, axes: Sequence[int], shape: Sequence[int]) -> Reach:
    """Each value sees whatever lies along `axes`; `shape` with these kept, dropped, or of any length."""
    arrays = []
    for part in reach:
        total = collapsed(part).amin([a % part.ndim for a in axes], keepdim=True) if axes else collapsed(part)
        if len(shape) < part.ndim:
            total = total.squeeze([a % part.ndim for a in axes])
        arrays.append(spread(total, shape))
    return tuple(arrays)


def through(reach: Reach, axis: int, taps: Tensor) -> Reach:
    """Along `axis`, output o sees inputs `taps[o]` (-1: none)."""
    there = taps >= 0
    arrays = []
    for part in reach:
        part = collapsed(part)
        if part.shape[axis] == 1:
            gathered = torch.where(there.any(1), 0.0, math.inf) if not there.any(1).all() else torch.zeros(1)
            shape = [1] * part.ndim
            shape[axis] = -1
            arrays.append(part + gathered.view(shape).to(part.dtype))
            continue
        at = part.index_select(axis, taps.clamp(min=0).flatten()).unflatten(axis, tuple(taps.shape))
        shape = [1] * at.ndim
        shape[axis : axis + 2] = taps.shape
        arrays.append(torch.where(there.view(shape), at, math.inf).amin(axis + 1))
    return tuple(arrays)


def window_taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Inputs that a sliding window reads."""
    at = (torch.arange(out) * stride - padding)[:, None] + torch.arange(kernel) * dilation
    return torch.where((at >= 0) & (at < size), at, -1)


def transposed_taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Inputs that reach each output of a transposed convolution."""
    at = (torch.arange(out) + padding)[:, None] - torch.arange(kernel) * dilation
    there = (at % stride == 0) & (at >= 0) & (at < size * stride)
    return torch.where(there, torch.div(at, stride, rounding_mode="floor"), -1)


def _convolution(step: Step, known: Known) -> list[Reach]:
    source, weight, _, strides, pads, dilations, transposed, _, groups = step.args[:9]
    if not seen(source, known) or seen(weight, known):
        return everything(step, known)
    (reach,) = seen(source, known)
    shape = step.outputs[0].shape
    arrays = []
    for part in reach:
        part = collapsed(part)
        if part.shape[1] > 1 and groups > 1:
            part = part.unflatten(1, (groups, -1)).amin(2).repeat_interleave(shape[1] // groups, dim=1)
        arrays.append(part.amin(1, keepdim=True) if groups == 1 else part)
    reach = tuple(arrays)
    taps_of = transposed_taps if transposed else window_taps
    for i, (s, p, d) in enumerate(zip(strides, pads, dilations, strict=True)):
        reach = through(reach, 2 + i, taps_of(source.shape[2 + i], shape[2 + i], weight.shape[2 + i], s, p, d))
    return [tuple(spread(part, shape) for part in reach)]


def _pooling(step: Step, known: Known) -> list[Reach]:
    (reach,) = seen(step.args[0], known)
    source, shape = step.args[0].shape, step.outputs[0].shape
    kernel = step.args[1]
    axes = len(kernel) if len(kernel) > 1 else int(step.name.removesuffix("_with_indices")[-2])
    given = [kernel, step.args[2] or kernel, step.args[3]]
    given += [step.args[4] if step.name.startswith("max") else [1]]
    windows = [list(g) * axes if len(g) == 1 else list(g) for g in given]
    for i, (k, s, p, d) in enumerate(zip(*windows, strict=True)):
        axis = len(source) - axes + i
        reach = through(reach, axis, window_taps(source[axis], shape[axis], k, s, p, d))
    return [tuple(spread(part, shape) for part in reach)] * len(step.outputs)


def _by_axis(taps_of: Callable[[Step, int], Tensor | None]) -> Rule:
    """A rule that treats every axis on its own: `taps_of(step, axis)`, None where the axis stays."""

    def rule(step: Step, known: Known) -> list[Reach]:
        (reach,) = seen(step.args[0], known)
        for axis in range(len(step.args[0].shape)):
            taps = taps_of(step, axis)
            if taps is not None:
                reach = through(reach, axis, taps)
        return [tuple(spread(part, step.outputs[0].shape) for part in reach)] * len(step.outputs)

    return rule


def _adaptive_taps(step: Step, axis: int) -> Tensor | None:
    size, out = step.args[0].shape[axis], step.outputs[0].shape[axis]
    if axis < len(step.args[0].shape) - len(step.args[1]):
        return None
    o = torch.arange(out)
    start, stop = o * size // out, -(-(o + 1) * size // out)
    at = start[:, None] + torch.arange(int((stop - start).max()))
    return torch.where(at < stop[:, None], at, -1)


def _resize_taps(step: Step, axis: int) -> Tensor | None:
    """From torch itself, by resizing the unit pictures of this axis; weights that are zero do not count."""
    size, out = step.args[0].shape, step.outputs[0].shape
    if axis < 2:
        return None
    axes = len(size) - 2
    flags, scales = step.args[2:-axes], step.args[-axes:]
    # Alike along the other axes. Two pixels there, not one: torch's antialiased kernel misreads maps of width 1.
    sides = [-1 if 2 + i == axis else 1 for i in range(axes)]
    units = torch.eye(size[axis], dtype=torch.float64).view(size[axis], 1, *sides)
    units = units.repeat(1, 1, *(1 if side == -1 else 2 for side in sides))
    target = [out[axis] if side == -1 else 2 for side in sides]
    own = [scale if side == -1 else None for side, scale in zip(sides, scales, strict=True)]
    weights = step.func(units, target, *flags, *own).movedim(axis, 1).flatten(2)[..., 0]  # [input, output]
    there = weights.T != 0
    widest = max(1, int(there.sum(1).max()))
    order = torch.argsort(there.to(torch.int8), dim=1, descending=True, stable=True)[:, :widest]
    return torch.where(there.gather(1, order), order, -1)


def _pad_taps(step: Step, axis: int) -> Tensor | None:
    size, out, pads = step.args[0].shape, step.outputs[0].shape, step.args[1]
    place = len(size) - 1 - axis
    if place >= len(pads) // 2:
        return None
    at, last = torch.arange(out[axis]) - pads[2 * place], size[axis] - 1
    if step.name.startswith("reflection"):
        at = last - (last - at.abs()).abs()
    elif step.name.startswith("replication"):
        at = at.clamp(0, last)
    return torch.where((at >= 0) & (at <= last), at, -1)[:, None]


def _flip_taps(step: Step, axis: int) -> Tensor | None:
    size = step.args[0].shape
    return torch.arange(size[axis]).flip(0)[:, None] if axis in {a % len(size) for a in step.args[1]} else None


def _shuffle(step: Step, known: Known) -> list[Reach]:
    """Pixel shuffles; what a map sees seldom differs between channels, so that blocks see what their pixel saw."""
    (reach,) = seen(step.args[0], known)
    if any(collapsed(part).shape[1] > 1 for part in reach):
        return [tuple(step.func(part, step.args[1]) for part in reach)]
    factor, shape = step.args[1], step.outputs[0].shape
    for axis in (2, 3):
        o = torch.arange(shape[axis])
        block = o[:, None] * factor + torch.arange(factor)
        reach = through(reach, axis, block if "un" in step.name else (o // factor)[:, None])
    return [tuple(spread(part, shape) for part in reach)]


def _as_torch_does(step: Step, known: Known) -> list[Reach]:
    """Views: the operator itself, on the arrays."""
    (reach,) = seen(step.args[0], known)
    if step.name in ("view", "_unsafe_view", "_reshape_alias"):
        results = [_reshaped(part, step.outputs[0].shape) for part in reach]
    else:
        given = sum(not argument.kwarg_only for argument in step.func._schema.arguments)
        results = [step.func(part, *step.args[1:given]) for part in reach]
    if isinstance(results[0], Tensor):
        return [tuple(results)]
    return [tuple(parts) for parts in zip(*results, strict=True)]


def _reshaped(part: Tensor, shape: Sequence[int]) -> Tensor:
    """`part.reshape(shape)`; axes at both ends that stay as they are and are only expanded are not made real."""
    most = min(part.ndim, len(shape))
    ahead = next((a for a in range(most) if part.shape[a] != shape[a]), most)
    behind = next((a for a in range(most - ahead) if part.shape[-1 - a] != shape[len(shape) - 1 - a]), most - ahead)
    changed = range(ahead, part.ndim - behind)
    once = [slice(0, 1) if part.stride(a) == 0 and a not in changed else slice(None) for a in range(part.ndim)]
    small = part[tuple(once)]
    middle = shape[ahead : len(shape) - behind]
    return small.reshape(*small.shape[:ahead], *middle, *small.shape[changed.stop :]).expand(*shape)


def _concatenation(step: Step, known: Known) -> list[Reach]:
    values, shape = step.args[0], step.outputs[0].shape
    axis = (step.args[1] if len(step.args) > 1 else 0) % len(shape)
    new = step.name == "stack"
    arrays = []
    for k in range(len(seen(values, known)[0])):
        parts = []
        for value in values:
            if math.prod(value.shape) == 0:
                continue
            reach = known.get(value.number)
            part = torch.full((1,) * len(value.shape), math.inf) if reach is None else collapsed(reach[k])
            part = part.unsqueeze(axis) if new else part
            length = 1 if new else value.shape[axis]
            parts.append(part.expand(*(length if a == axis else n for a, n in enumerate(part.shape))).to(torch.float64))
        widths = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
        widths[axis] = -1
        arrays.append(spread(torch.cat([part.expand(*widths) for part in parts], axis), shape))
    return [tuple(arrays)]


def _reduction(step: Step, known: Known) -> list[Reach]:
    (reach,) = seen(step.args[0], known)
    axes = list(range(len(step.args[0].shape)))
    given = step.args[1] if len(step.args) > 1 else None
    if isinstance(given, list | tuple):
        axes = list(given) or axes
    elif isinstance(given, int) and not isinstance(given, bool):
        axes = [given]
    return [over(reach, axes, step.outputs[0].shape)] * len(step.outputs)


def _scan(step: Step, known: Known) -> list[Reach]:
    """Running sums and maxima along an axis, and corner pooling: what came before in the scan."""
    (reach,) = seen(step.args[0], known)
    backwards = step.name == "corner_pool" and step.args[2] < 0
    axis, shape = step.args[1] % len(step.outputs[0].shape), step.outputs[0].shape
    arrays = []
    for part in reach:
        part = collapsed(part).flip(axis) if backwards else collapsed(part)
        part = torch.cummin(part, axis).values
        arrays.append(spread(part.flip(axis) if backwards else part, shape))
    return [tuple(arrays)] * len(step.outputs)


def _batch_norm(step: Step, known: Known) -> list[Reach]:
    (reach,) = seen(step.args[0], known)
    shape = step.outputs[0].shape
    if not next((a for a in step.args if isinstance(a, bool)), False):  # running statistics
        return [reach]
    return [over(reach, [0, *range(2, len(shape))], shape)]


def _group_norm(step: Step, known: Known) -> list[Reach]:
    (reach,) = seen(step.args[0], known)
    shape, groups = step.outputs[0].shape, step.args[6]
    arrays = []
    for part in over(reach, range(2, len(shape)), shape):
        part = collapsed(part)
        if part.shape[1] > 1:
            part = part.unflatten(1, (groups, -1)).amin(2).repeat_interleave(shape[1] // groups, dim=1)
        arrays.append(spread(part, shape))
    return [tuple(arrays)]


def _layer_norm(step: Step, known: Known) -> list[Reach]:
    (reach,) = seen(step.args[0], known)
    return [over(reach, range(-len(step.args[1]), 0), step.outputs[0].shape)]


def _product(step: Step, known: Known) -> list[Reach]:
    """Matrix products: a value sees its row of the left and its column of the right."""
    left, right = step.args[:2] if step.name in ("mm", "bmm") else step.args[1:3]
    shape, parts = step.outputs[0].shape, []
    if step.name not in ("mm", "bmm"):
        parts += seen(step.args[0], known)
    parts += [over(reach, [-1], (*left.shape[:-1], 1)) for reach in seen(left, known)]
    parts += [over(reach, [-2], (*right.shape[:-2], 1, right.shape[-1])) for reach in seen(right, known)]
    return [joined(parts, shape)]


def _attention(step: Step, known: Known) -> list[Reach]:
    query, key, value = step.args[:3]
    shape = step.outputs[0].shape
    row, column = (*shape[:-1], 1), (*shape[:-2], 1, shape[-1])
    parts = [over(reach, [-1], row) for reach in seen(query, known)]
    parts += [over(reach, [-1, -2], (*shape[:-2], 1, 1)) for reach in seen(key, known)]
    parts += [over(reach, [-2], column) for reach in seen(value, known)]
    return [joined(parts, shape)]


def pointwise(step: Step, known: Known) -> list[Reach]:
    """Every value sees what the arguments see at its place."""
    return [joined(seen(step.args, known), step.outputs[0].shape)] * len(step.outputs)


def everything(step: Step, known: Known) -> list[Reach]:
    """For want of a rule: every value sees all that any argument sees. Never too little, possibly too much."""
    reaches = seen(step.args, known)
    ends = [torch.stack([part.amin() for part in parts]).amin() for parts in zip(*reaches, strict=True)]
    return [tuple(end.expand(*out.shape) for end in ends) for out in step.outputs]


def _overwrite(step: Step, known: Known) -> list[Reach]:
    return [joined(seen(step.args[1], known), step.outputs[0].shape)] if seen(step.args[1], known) else []


def _nothing(step: Step, known: Known) -> list[Reach]:
    return []


def rule_of(step: Step) -> Rule | None:
    """The rule for the step's operator; None if there is none."""
    if step.name in _RULES:
        return _RULES[step.name]
    if step.name.startswith("_scaled_dot_product"):
        return _attention
    if step.name.startswith(("new_", "sym_")) or step.name.endswith("_like"):
        return _nothing
    if getattr(step.func, "is_view", False):
        return _as_torch_does
    return pointwise if torch.Tag.pointwise in step.func.tags else None


def _table() -> dict[str, Rule]:
    resize, pad = _by_axis(_resize_taps), _by_axis(_pad_taps)
    names: list[tuple[Rule, str]] = [
        (_convolution, "convolution"),
        (_pooling, "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"),
        (_by_axis(_adaptive_taps), "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"),
        (resize, "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d"),
        (resize, "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"),
        (resize, "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"),
        (pad, "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d"),
        (pad, "replication_pad1d replication_pad2d replication_pad3d"),
        (_by_axis(_flip_taps), "flip"),
        (_shuffle, "pixel_shuffle pixel_unshuffle"),
        (_as_torch_does, "view _unsafe_view _reshape_alias"),
        (_concatenation, "cat stack"),
        (_reduction, "mean sum prod amax amin max min argmax argmin var std var_mean logsumexp"),
        (_reduction, "_softmax _log_softmax linalg_vector_norm any all"),
        (_scan, "cumsum cumprod cummax cummin corner_pool"),
        (_batch_norm, "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training"),
        (_batch_norm, "cudnn_batch_norm"),
        (_group_norm, "native_group_norm"),
        (_layer_norm, "native_layer_norm"),
        (_product, "mm bmm addmm baddbmm"),
        (pointwise, "hardswish hardsigmoid relu6 native_dropout _to_copy clone contiguous lift_fresh"),
        (_overwrite, "copy"),
        (_nothing, "fill zero device size is_same_size"),
    ]
    return {name: rule for rule, words in names for name in words.split()}


_RULES: dict[str, Rule] = _table()
"""By aten's names. What torch marks as pointwise or as a view needs none."""
