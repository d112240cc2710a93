"""Making maps larger: interpolation, the bilinear transposed convolution, sub-pixel and resize convolution.

All of them align pixels by area (output pixel i covers input from i / factor to (i + 1) / factor: "half-pixel",
`align_corners=False`) unless told otherwise. One to three spatial axes, told by the input's rank.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bestiary.errors import UsageError
from bestiary.ops.pooling import require_spatial
from bestiary.ops.shapes import per_axis
from bestiary.records import require

Method = Literal["nearest", "nearest-exact", "linear", "cubic"]
ChannelOrder = Literal["CRD", "DCR"]

_TORCH_MODES = {"linear": ("linear", "bilinear", "trilinear"), "cubic": (None, "bicubic", None)}


def upsample(
    input: Float[Tensor, "B C *spatial"],
    factor: int | float | None = None,
    size: int | Sequence[int] | None = None,
    method: Method = "linear",
    align_corners: bool = False,
    antialias: bool = False,
) -> Float[Tensor, "B C *larger"]:
    """The map at another size, interpolated by torch.

    Convention: sample positions follow from the two sizes alone, never from `factor` (which only says the size:
    floor(n * factor)), so that a network resized to its input's size is aligned with it. Output pixel i reads input
    position (i + 0.5) * n / m - 0.5; with `align_corners`, i * (n - 1) / (m - 1). Beyond the border the border's value
    counts. "nearest" takes floor(i * n / m) as the published pyramids do (up to a pixel up-left of the truth where the
    factor is not whole), "nearest-exact" the pixel that the centre falls on. "cubic" is Keys' kernel with a = -0.75
    (-0.5 when antialiased). Half precision is interpolated in float32.

    Args:
        input: one to three spatial axes; "cubic" and `antialias` need two.
        factor: of every axis; give this or `size`.
        size: of the output.
        method: "linear" is bilinear with two axes, trilinear with three; "cubic" bicubic.
        align_corners: corner pixels' centres stay on each other; for "linear" and "cubic".
        antialias: widen the kernel where the map gets smaller, as Pillow does; for "linear" and "cubic".

    Raises:
        RecordError: no or two sizes, or not positive.
        UsageError: an unknown method, or one that this rank or option does not have.
    """
    axes = require_spatial("upsample(input)", input)
    require((factor is None) != (size is None), "upsample", f"factor={factor}, size={size}", "one of the two")
    if factor is not None:
        require(factor > 0, "upsample(factor)", factor, "above 0")
        size = [math.floor(n * factor) for n in input.shape[2:]]
    target = per_axis(size if size is not None else 0, axes, "upsample(size)")
    mode = _torch_mode(method, axes, align_corners, antialias)
    corners = align_corners if method in _TORCH_MODES else None
    half = input.dtype in (torch.float16, torch.bfloat16) and method in _TORCH_MODES
    wide = input.float() if half else input
    if antialias and target[1] == 1:
        return _to_one_column(wide, target[0], mode, corners).to(input.dtype)
    return F.interpolate(wide, list(target), mode=mode, align_corners=corners, antialias=antialias).to(input.dtype)


def _to_one_column(maps: Tensor, height: int, mode: str, align_corners: bool | None) -> Tensor:
    """Antialiased to `(height, 1)`, axis by axis: torch (2.13, CPU) misreads the rows of maps one pixel wide."""

    def along_height(maps: Tensor, height: int) -> Tensor:
        wide = maps if maps.shape[3] > 1 else maps.repeat(1, 1, 1, 2)
        out = F.interpolate(wide, [height, wide.shape[3]], mode=mode, align_corners=align_corners, antialias=True)
        return out[..., : maps.shape[3]]

    return along_height(along_height(maps, height).mT, 1).mT


def _torch_mode(method: str, axes: int, align_corners: bool, antialias: bool) -> str:
    if method not in get_args(Method):
        raise UsageError(f"got {method!r}, wanted one of {get_args(Method)}", where="upsample(method)")
    smooth = method in _TORCH_MODES
    if (align_corners or antialias) and not smooth:
        raise UsageError(f"{method!r} has no align_corners or antialias", where="upsample", mend='Use "linear"')
    mode = _TORCH_MODES[method][axes - 1] if smooth else method
    if mode is None or (antialias and axes != 2):
        raise UsageError(f"{method!r} with antialias={antialias} needs two spatial axes, got {axes}", where="upsample")
    return mode


def bilinear_filler(
    kernel_size: int, channels: int, groups: int = 1, axes: int = 2, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "C _channels_a_group *kernel"]:
    """Weight with which a transposed convolution starts as linear interpolation (Caffe's filler; Long, Shelhamer,
    Darrell: FCN, CVPR 2015, section 4.3).

    Convention: per axis, with f = ceil(k / 2), c = f - 1 for odd k and f - 1/2 for even: 1 - |i - c| / f; their product
    over the axes, on the diagonal between channels. One kernel's sum is stride ** axes for k = 2 stride - stride % 2.

    Args:
        kernel_size: of every axis.
        channels: in and out.
        groups: 1 gives the dense weight of FCN's files, `channels` the depthwise one: same map, far fewer zeros.
        axes: spatial axes.
        dtype: of the weight.

    Returns:
        In the layout of `nn.ConvTranspose2d`: `[in channels, out channels / groups, ...]`.

    Raises:
        RecordError: channels are not a multiple of the groups.
    """
    (kernel_size,) = per_axis(kernel_size, 1, "bilinear_filler(kernel_size)")
    fits = groups >= 1 and channels >= 1 and channels % groups == 0
    require(fits, "bilinear_filler(groups)", groups, f"a divisor of {channels} channels")
    half = math.ceil(kernel_size / 2)
    centre = half - 1 if kernel_size % 2 else half - 0.5
    line = 1 - (torch.arange(kernel_size, dtype=torch.float64) - centre).abs() / half
    kernel = line
    for _ in range(axes - 1):
        kernel = kernel[..., None] * line
    width = channels // groups
    weight = torch.zeros(channels, width, *kernel.shape, dtype=dtype)
    weight[torch.arange(channels), torch.arange(channels) % width] = kernel.to(dtype)
    return weight


def upsample_bilinear_transposed(input: Float[Tensor, "B C *spatial"], factor: int) -> Float[Tensor, "B C *larger"]:
    """Transposed convolution with the fixed `bilinear_filler`, stride `factor`, exactly `factor` times larger.

    Convention: Caffe's choice for a factor f: kernel 2 f - f % 2, padding ceil((f - 1) / 2). Away from the border it
    equals `upsample(input, f)`; within f / 2 of it zeros are mixed in, as a convolution pads with them. Half precision
    is computed in float32.

    Args:
        input: one to three spatial axes.
        factor: whole.

    Raises:
        RecordError: a factor below 1.
    """
    axes = require_spatial("upsample_bilinear_transposed(input)", input)
    (factor,) = per_axis(factor, 1, "upsample_bilinear_transposed(factor)")
    channels = input.shape[1]
    wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    weight = bilinear_filler(2 * factor - factor % 2, channels, channels, axes, wide.dtype).to(wide.device)
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    return transposed(wide, weight, stride=factor, padding=factor // 2, groups=channels).to(input.dtype)


def sub_pixel(
    input: Float[Tensor, "B C *spatial"], factor: int, channel_order: ChannelOrder = "CRD"
) -> Float[Tensor, "B _fewer *larger"]:
    """Channels become the pixels of blocks (Shi et al.: Real-Time Single Image and Video Super-Resolution, CVPR 2016,
    equation 4): after a convolution to `factor ** axes` times the channels, a learned upsampling.

    Convention: with r = `factor` in two axes, output (c, y r + i, x r + j) is input channel c r² + i r + j at (y, x)
    ("CRD", torch's `pixel_shuffle`), or channel (i r + j) C + c ("DCR", TensorFlow's `depth_to_space`, C output
    channels); ONNX's names. The two agree for one output channel.

    Args:
        input: one to three spatial axes.
        factor: side of a block.
        channel_order: which channels make a block.

    Raises:
        RecordError: channels that are not a multiple of the block's pixels.
        UsageError: an unknown order.
    """
    axes = require_spatial("sub_pixel(input)", input)
    (factor,) = per_axis(factor, 1, "sub_pixel(factor)")
    pixels = factor**axes
    require(input.shape[1] % pixels == 0, "sub_pixel(input)", f"{input.shape[1]} channels", f"a multiple of {pixels}")
    if channel_order not in get_args(ChannelOrder):
        raise UsageError(f"got {channel_order!r}, wanted one of {get_args(ChannelOrder)}", where="sub_pixel")
    if axes == 2 and channel_order == "CRD":
        return F.pixel_shuffle(input, factor)
    size, channels, block = input.shape[2:], input.shape[1] // pixels, (factor,) * axes
    if channel_order == "CRD":
        blocks = input.reshape(input.shape[0], channels, *block, *size)
    else:
        blocks = input.reshape(input.shape[0], *block, channels, *size).movedim(1 + axes, 1)
    # [B, C, i, j, y, x] -> [B, C, y, i, x, j]
    order = [position for axis in range(axes) for position in (2 + axes + axis, 2 + axis)]
    return blocks.permute(0, 1, *order).reshape(input.shape[0], channels, *(n * factor for n in size))


def icnr_(
    weight: Float[Tensor, "C2 _c *kernel"], factor: int, initialise: Callable[[Tensor], object] | None = None
) -> Float[Tensor, "C2 _c *kernel"]:
    """Fill, in place, the weight of the convolution before `sub_pixel` ("CRD") so that the pair starts as a convolution
    followed by nearest upsampling: no checkerboard (Aitken et al., arXiv:1707.02937, section 3).

    Convention: the channels that `sub_pixel` lays side by side, in the order "CRD", start with one and the same kernel.

    Args:
        weight: `[out channels, in channels, ...]`, out channels a multiple of `factor ** spatial axes`.
        factor: as handed to `sub_pixel`.
        initialise: fills a smaller weight in place; `torch.nn.init.kaiming_normal_` if None.

    Returns:
        `weight`.

    Raises:
        RecordError: channels that are not a multiple of the block's pixels.
    """
    pixels = factor ** (weight.ndim - 2)
    require(len(weight) % pixels == 0, "icnr_(weight)", f"{len(weight)} channels", f"a multiple of {pixels}")
    one = torch.empty_like(weight[::pixels])
    (initialise or torch.nn.init.kaiming_normal_)(one)
    with torch.no_grad():
        return weight.copy_(one.repeat_interleave(pixels, dim=0))


def resize_convolution(
    input: Float[Tensor, "B C *spatial"],
    weight: Float[Tensor, "D C *kernel"],
    bias: Float[Tensor, " D"] | None = None,
    factor: int = 2,
    method: Method = "nearest",
) -> Float[Tensor, "B D *larger"]:
    """Upsampling, then a convolution of stride 1: no checkerboard, as every output pixel sees equally many taps
    (Odena, Dumoulin, Olah: Deconvolution and Checkerboard Artifacts, Distill 2016).

    Convention: the border is reflected (its own pixel not repeated) so that the size stays `factor` times the input's.

    Args:
        input: one to three spatial axes.
        weight: odd kernel sizes.
        bias: of the convolution.
        factor: whole.
        method: of `upsample`.

    Raises:
        RecordError: an even kernel, or a map too small to be reflected.
    """
    axes = require_spatial("resize_convolution(input)", input)
    kernel = tuple(weight.shape[2:])
    fits = len(kernel) == axes and all(k % 2 == 1 for k in kernel)
    require(fits, "resize_convolution(weight)", f"kernel {kernel}", f"{axes} odd sizes")
    (factor,) = per_axis(factor, 1, "resize_convolution(factor)")
    large = all(n * factor > k // 2 for n, k in zip(input.shape[2:], kernel, strict=True))
    require(
        large, "resize_convolution(input)", f"size {tuple(input.shape[2:])}", f"more than the kernel {kernel} reflects"
    )
    larger = F.pad(upsample(input, factor, method=method), [k // 2 for k in reversed(kernel) for _ in "ab"], "reflect")
    return (F.conv1d, F.conv2d, F.conv3d)[axes - 1](larger, weight, bias)
