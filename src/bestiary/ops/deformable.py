"""Deformable convolution (Dai et al., ICCV 2017, equation 2), modulated (Zhu et al., CVPR 2019, equation 1).

Each tap of the kernel reads the map bilinearly where an offset of its own takes it; a mask may scale what it reads.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bestiary.ops.exporting import exporting
from bestiary.ops.rois import empty_in_layout, is_channels_last, pixels_first, room_in_layout
from bestiary.records import require

_COLUMNS_AT_ONCE = 1 << 23
"""Numbers in the buffer of columns (32 MB): enough for the matrix product to run at full speed."""


def deform_conv2d(
    input: Float[Tensor, "B C H W"],
    offset: Float[Tensor, "B _o _oh _ow"],
    weight: Float[Tensor, "D _c _kh _kw"],
    bias: Float[Tensor, " D"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    mask: Float[Tensor, "B _m _oh _ow"] | None = None,
) -> Float[Tensor, "B D _oh _ow"]:
    """Convolution whose taps are moved by `offset` and, in version 2, scaled by `mask`.

    Convention: as torchvision's. Tap (i, j) of output pixel (y, x) reads the map at
    (y stride - padding + i dilation + dy, x stride - padding + j dilation + dx) in pixel indices. Off the map all is 0:
    within a pixel beyond the border values fade out. Where a place is a whole number, its derivative is
    that from the right. A place that is not finite reads 0. Half precision is computed in float32. On the CPU the
    gradients with respect to input, offset and mask do not depend on the number of threads.

    Args:
        input: the map; channels-last memory is used as it is, and then the output is channels-last too.
        offset: channel 2 (g kh kw + i kw + j) is dy and the next one dx of tap (i, j) for offset group g, which serves
            the g-th run of C / groups input channels; pixels of the map.
        weight: C / c groups, as in `conv2d`.
        bias: added to each output channel.
        stride: map pixels between output pixels, (down, across) or one for both.
        padding: zeros around the map.
        dilation: map pixels between taps.
        mask: channel g kh kw + i kw + j scales that tap; None for all ones (version 1).

    Raises:
        RecordError: shapes do not fit.
    """
    steps = (*_two(stride, "stride", 1), *_two(padding, "padding", 0), *_two(dilation, "dilation", 1))
    _require_shapes(input, offset, weight, bias, steps, mask)
    on_cpu = input.device.type == "cpu"
    if exporting() and on_cpu:
        return _deform_conv2d(input, offset, weight, bias, mask, steps)
    if not on_cpu or input.dtype == torch.float64:
        return _in_torch(input, offset, weight, bias, mask, steps)
    single = [None if t is None else t.float() for t in (offset, weight, bias, mask)]
    return _deform_conv2d(input.float(), *single, steps).to(input.dtype)


class DeformConv2d(nn.Module):
    """`deform_conv2d` with weights of its own, under torchvision's name and arguments.

    `forward(input, offset, mask=None)`. Weights begin uniform in +-1 / sqrt(fan in), as those of `nn.Conv2d`.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        fits = groups > 0 and in_channels % groups == 0 and out_channels % groups == 0
        where, got = "DeformConv2d(groups)", f"{groups} for {in_channels} and {out_channels} channels"
        require(fits, where, got, "a divisor of both")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = _two(kernel_size, "kernel_size", 1)
        self.stride, self.padding = _two(stride, "stride", 1), _two(padding, "padding", 0)
        self.dilation = _two(dilation, "dilation", 1)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and bias anew."""
        bound = self.weight[0].numel() ** -0.5
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(
        self,
        input: Float[Tensor, "B C H W"],
        offset: Float[Tensor, "B _o _oh _ow"],
        mask: Float[Tensor, "B _m _oh _ow"] | None = None,
    ) -> Float[Tensor, "B D _oh _ow"]:
        """See `deform_conv2d`."""
        return deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask=mask)

    def extra_repr(self) -> str:
        """Channels, kernel and steps."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


def _two(value: int | Sequence[int], name: str, least: int) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else tuple(int(v) for v in value)
    fits = len(values) == 2 and min(values) >= least
    require(fits, f"deform_conv2d({name})", value, f"one number or two, at least {least}")
    return values[0], values[1]


def _out_side(side: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _out_hw(input: Tensor, weight: Tensor, steps: Sequence[int]) -> tuple[int, int]:
    height = _out_side(input.shape[2], weight.shape[2], steps[0], steps[2], steps[4])
    return height, _out_side(input.shape[3], weight.shape[3], steps[1], steps[3], steps[5])


def _require_shapes(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, steps: Sequence[int], mask: Tensor | None
) -> None:
    for name, tensor in (("input", input), ("offset", offset), ("weight", weight)):
        require(tensor.ndim == 4, f"deform_conv2d({name})", f"shape {tuple(tensor.shape)}", "four axes")
    (batch, channels), (out_channels, group_channels, kernel_h, kernel_w) = input.shape[:2], weight.shape
    fits = group_channels > 0 and channels % group_channels == 0
    wanted = f"a divisor of the input's {channels} channels"
    require(fits, "deform_conv2d(weight)", f"{group_channels} channels a group", wanted)
    groups, taps = channels // group_channels, kernel_h * kernel_w
    got = f"{out_channels} output channels"
    require(out_channels % groups == 0, "deform_conv2d(weight)", got, f"a multiple of the {groups} groups")
    out = _out_hw(input, weight, steps)
    require(out[0] > 0 and out[1] > 0, "deform_conv2d(input)", f"an output of {out[0]} x {out[1]}", "at least 1 x 1")
    offset_groups = offset.shape[1] // (2 * taps)
    fits = offset.shape[1] % (2 * taps) == 0 and offset_groups > 0 and channels % offset_groups == 0
    wanted = f"2 x {taps} taps x a divisor of {channels}"
    require(fits, "deform_conv2d(offset)", f"{offset.shape[1]} channels", wanted)
    fields = [("offset", offset, 2)] if mask is None else [("offset", offset, 2), ("mask", mask, 1)]
    for name, field, each in fields:
        shape = (batch, each * offset_groups * taps, *out)
        require(field.shape == shape, f"deform_conv2d({name})", f"shape {tuple(field.shape)}", str(shape))
    fits = bias is None or bias.shape == (out_channels,)
    got = f"shape {None if bias is None else tuple(bias.shape)}"
    require(fits, "deform_conv2d(bias)", got, f"({out_channels},)")


def _places(offset: Tensor, mask: Tensor | None, weight: Tensor, steps: Sequence[int]) -> Tensor:
    """y, x (pixel indices of the map) and modulation of each output pixel, tap and offset group: [B, h, w, K, G, 3]."""
    batch, _, height, width = offset.shape
    kernel_h, kernel_w = weight.shape[2:]
    moved = offset.view(batch, -1, kernel_h * kernel_w, 2, height, width).permute(0, 4, 5, 2, 1, 3)
    kind = {"dtype": offset.dtype, "device": offset.device}
    taps_y, taps_x = torch.arange(kernel_h, **kind) * steps[4], torch.arange(kernel_w, **kind) * steps[5]
    y = (torch.arange(height, **kind) * steps[0] - steps[2])[:, None, None, None] + taps_y[:, None]
    x = (torch.arange(width, **kind) * steps[1] - steps[3])[None, :, None, None] + taps_x
    shape = (height, width, kernel_h, kernel_w)
    grid = torch.stack([y.expand(shape), x.expand(shape)], dim=-1).flatten(2, 3)[:, :, :, None]
    places = moved + grid
    if mask is None:
        scale = torch.ones_like(places[..., :1])
    else:
        scale = mask.view(batch, -1, kernel_h * kernel_w, height, width).permute(0, 3, 4, 2, 1)[..., None]
    return torch.cat([places, scale], dim=-1)


def _in_torch(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, steps: Sequence[int]
) -> Tensor:
    """The definition by gathers and one matrix product: for any device and precision, differentiable to any order."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    (batch, channels, height, width), (out_channels, group_channels) = input.shape, weight.shape[:2]
    places = _places(offset.to(dtype), None if mask is None else mask.to(dtype), weight, steps)
    out_h, out_w, taps, offset_groups = places.shape[1:5]
    flat = input.to(dtype).reshape(batch * offset_groups, channels // offset_groups, height * width)
    # [B G, 1, h w K]
    y, x, scale = places.permute(5, 0, 4, 1, 2, 3).reshape(3, batch * offset_groups, 1, -1)
    top, left = torch.floor(y.detach()), torch.floor(x.detach())
    beyond_y, beyond_x = y - top, x - left
    columns = torch.zeros((), dtype=dtype, device=input.device)
    for down in (0, 1):
        for across in (0, 1):
            row, column = top + down, left + across
            on_map = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            cells = torch.where(on_map, row * width + column, 0).to(torch.int64)
            share = (beyond_y if down else 1 - beyond_y) * (beyond_x if across else 1 - beyond_x) * scale
            values = flat.gather(2, cells.expand(-1, flat.shape[1], -1))
            columns = columns + torch.where(on_map, share, 0) * values
    groups, pixels = channels // group_channels, out_h * out_w
    columns = columns.view(batch, groups, group_channels, pixels, taps).transpose(3, 4).flatten(2, 3)
    matrix = weight.to(dtype).reshape(groups, out_channels // groups, group_channels * taps)
    out = (matrix @ columns).reshape(batch, out_channels, out_h, out_w)
    out = out if bias is None else out + bias.to(dtype)[:, None, None]
    return out.to(input.dtype)


class _Columns(NamedTuple):
    """What the kernels work on, and how much of it at a time.

    Attributes:
        image: [B, H, W, C].
        places: [B, P, K, G, 3].
        matrix: the weights as [W, output channels of a group, K c], as the columns are ordered.
        rows: output pixels whose columns are held at once.
    """

    image: Tensor
    places: Tensor
    matrix: Tensor
    rows: int

    @classmethod
    def of(cls, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, steps: Sequence[int]) -> "_Columns":
        groups = input.shape[1] // weight.shape[1]
        places = _places(offset.detach(), None if mask is None else mask.detach(), weight, steps).flatten(1, 2)
        matrix = weight.detach().permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)
        pixels, most = places.shape[1], max(1, _COLUMNS_AT_ONCE // (input.shape[1] * places.shape[2]))
        rounds = -(-pixels // most)
        # Rounds of equal length: a short last one would leave the matrix product little to do.
        return cls(pixels_first(input.detach()), places.contiguous(), matrix, -(-pixels // max(1, rounds)))

    def buffer(self) -> Tensor:
        """Room for the columns [W, rows, K c]."""
        return room_in_layout((self.matrix.shape[0], self.rows, self.matrix.shape[2]), self.image)

    def fill(self, buffer: Tensor, picture: int, first: int, count: int) -> Tensor:
        """The columns of output pixels `first : first + count`, in the buffer."""
        from bestiary.ops._kernels.deformable import columns_forward
        from bestiary.ops._kernels.threads import in_threads

        part = buffer[:, :count]
        image, places = self.image[picture].numpy(), self.places[picture].numpy()
        target = part.unflatten(2, (places.shape[1], -1)).numpy()

        def work(start: int, stop: int) -> None:
            columns_forward(image, places, first, start, stop, target)

        in_threads(work, count, torch.get_num_threads(), grain=64)
        return part

    def spread(self, grad: Tensor, picture: int, first: int, places_grad: Tensor, image_grad: Tensor) -> None:
        """Take the columns' gradient [W, count, K c] to places and map."""
        from bestiary.ops._kernels.deformable import image_backward, places_backward
        from bestiary.ops._kernels.threads import in_threads

        image, places = self.image[picture].numpy(), self.places[picture].numpy()
        source = grad.unflatten(2, (places.shape[1], -1)).numpy()
        to_places, to_image = places_grad[picture].numpy(), image_grad[picture].numpy()

        def by_pixels(start: int, stop: int) -> None:
            places_backward(image, places, source, first, start, stop, to_places)

        def by_channels(begin: int, end: int) -> None:
            image_backward(places, source, first, begin, end, to_image)

        in_threads(by_pixels, grad.shape[1], torch.get_num_threads(), grain=64)
        in_threads(by_channels, image.shape[2], torch.get_num_threads(), grain=64)


@torch.library.custom_op("bestiary::deform_conv2d", mutates_args=())
def _deform_conv2d(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, steps: Sequence[int]
) -> Tensor:
    """`steps`: stride, padding and dilation, each down and across."""
    if input.device.type != "cpu" or input.dtype != torch.float32:
        return _in_torch(input, offset, weight, bias, mask, steps)
    last = is_channels_last(input)
    out = room_in_layout((input.shape[0], weight.shape[0], *offset.shape[2:]), input, last)
    if not out.numel():
        return out
    work = _Columns.of(input, offset, weight, mask, steps)
    buffer = work.buffer()
    # [B, W, d, P], whose pixels or channels are neighbours in memory, as the layout has it
    by_group = out.unflatten(1, (work.matrix.shape[0], -1)).flatten(3)
    for picture in range(len(out)):
        for first in range(0, by_group.shape[3], work.rows):
            count = min(work.rows, by_group.shape[3] - first)
            columns = work.fill(buffer, picture, first, count)
            by_group[picture, :, :, first : first + count] = (
                torch.bmm(columns, work.matrix.mT).mT if last else torch.bmm(work.matrix, columns.mT)
            )
    return out if bias is None else out.add_(bias[:, None, None])


@torch.library.custom_op("bestiary::deform_conv2d_backward", mutates_args=())
def _deform_conv2d_backward(
    grad: Tensor, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, steps: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, offset, weight and mask (of ones where there is none)."""
    work = _Columns.of(input, offset, weight, mask, steps)
    batch, (groups, per_group, _) = len(input), work.matrix.shape
    image_grad, places_grad = torch.zeros_like(work.image), torch.zeros_like(work.places)
    matrix_grad = torch.zeros_like(work.matrix)
    columns, columns_grad = work.buffer(), work.buffer()
    source = grad.detach().float().reshape(batch, groups, per_group, -1)
    for picture in range(batch):
        for first in range(0, source.shape[3], work.rows):
            part = source[picture, :, :, first : first + work.rows]
            count = part.shape[2]
            torch.bmm(part.mT, work.matrix, out=columns_grad[:, :count])
            work.spread(columns_grad[:, :count], picture, first, places_grad, image_grad)
            matrix_grad.baddbmm_(part, work.fill(columns, picture, first, count))
    kernel_h, kernel_w = weight.shape[2:]
    weight_grad = matrix_grad.view(weight.shape[0], kernel_h, kernel_w, -1).permute(0, 3, 1, 2).contiguous()
    # [B, P, K, G, 3] to [B, G, K, 3, P]
    moved = places_grad.permute(0, 3, 2, 4, 1)
    out = empty_in_layout(input.shape, input, is_channels_last(input))
    out.copy_(image_grad.permute(0, 3, 1, 2))
    mask_shape = (batch, offset.shape[1] // 2, *offset.shape[2:])
    # Contiguous, so that they are two tensors and not two views of one.
    offset_grad = moved[:, :, :, :2].reshape(offset.shape).contiguous()
    return out, offset_grad, weight_grad, moved[:, :, :, 2].reshape(mask_shape).contiguous()


@_deform_conv2d.register_fake
def _(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, steps: Sequence[int]
) -> Tensor:
    return empty_in_layout((input.shape[0], weight.shape[0], *offset.shape[2:]), input, is_channels_last(input))


@_deform_conv2d_backward.register_fake
def _(
    grad: Tensor, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, steps: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mask_shape = (offset.shape[0], offset.shape[1] // 2, *offset.shape[2:])
    features = empty_in_layout(input.shape, input, is_channels_last(input))
    contiguous = [torch.empty(t, dtype=input.dtype, device=input.device) for t in (offset.shape, weight.shape)]
    return features, contiguous[0], contiguous[1], input.new_empty(mask_shape)


# ctx is Any: torch hands in a class of its own making, and what is set on it here is read there.
def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, offset, weight, bias, mask, ctx.steps = inputs
    ctx.save_for_backward(features, offset, weight, mask)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    features, offset, weight, mask = ctx.saved_tensors
    grads = _deform_conv2d_backward(grad, features, offset, weight, mask, ctx.steps)
    bias_grad = grad.sum(dim=(0, 2, 3)) if ctx.has_bias else None
    return grads[0], grads[1], grads[2], bias_grad, grads[3] if mask is not None else None, None


_deform_conv2d.register_autograd(_backward, setup_context=_remember)
