from collections.abc import Callable

import pytest
import torch
from tests.ops.chains import ALEXNET, VGG16, chain
from torch import nn
from torch.nn import functional as F

from bestiary.backbones.resnet import VARIANTS, ResNet
from bestiary.errors import RecordError
from bestiary.ops.corner_pooling import corner_pool
from bestiary.ops.influence import influence_map
from bestiary.ops.pooling import max_pool_with_indices
from bestiary.ops.receptive_fields import AxisReach, receptive_field
from bestiary.ops.response_norm import local_response_norm
from bestiary.ops.shapes import Field, Window, stacked_field
from bestiary.ops.unpooling import bed_of_nails
from bestiary.ops.upsampling import Method, resize_convolution, sub_pixel, upsample, upsample_bilinear_transposed

RESNETS = {
    "resnet18": (43, 99, 211, 435),
    "resnet34": (59, 179, 547, 899),
    "resnet50": (35, 91, 267, 427),
    "resnet50_msra": (35, 99, 291, 483),
    "resnet101_msra": (35, 99, 835, 1027),
    "resnet152": (35, 155, 1291, 1451),
}


@pytest.mark.parametrize("name", RESNETS)
def test_published_fields_of_residual_networks(name: str) -> None:
    with torch.device("meta"):
        trunk = ResNet(VARIANTS[name])
    fields = receptive_field(trunk, (1, 3, 3040, 3040))
    assert tuple(field.size for field in fields) == tuple((s, s) for s in RESNETS[name])
    assert [field.axes[0].field.stride for field in fields] == [4, 8, 16, 32]
    assert not any(field.clipped or field.widened for field in fields)


@pytest.mark.parametrize(("plan", "wanted"), [(ALEXNET, Field(195, 32.0, 31.5)), (VGG16, Field(212, 32.0, 16.0))])
def test_chains_as_the_arithmetic_says(plan: str, wanted: Field) -> None:
    layers = chain(plan)
    windows = [
        Window(*((v if isinstance(v, int) else v[0]) for v in (m.kernel_size, m.stride, m.padding)))
        for m in layers
        if isinstance(m, nn.Conv2d | nn.MaxPool2d)
    ]
    assert stacked_field(windows) == wanted
    (field,) = receptive_field(nn.Sequential(*layers), (1, 3, 600, 500))
    assert field.axes[0].field == field.axes[1].field == wanted
    for i in range(4, 9):
        assert (int(field.axes[0].first[i]), int(field.axes[0].last[i])) == wanted.span(i)
    (classified,) = receptive_field(nn.Sequential(*chain("8.3 M2"), nn.Flatten(), nn.Linear(8 * 36, 5)), (1, 3, 12, 12))
    assert classified.size == (12, 12)
    assert classified.clipped


def test_vgg_at_its_own_size_just_fits() -> None:
    (field,) = receptive_field(nn.Sequential(*chain(VGG16)), (1, 3, 224, 224))
    assert field.axes[0].field == Field(212, 32.0, 16.0)
    assert not field.clipped
    assert receptive_field(nn.Sequential(*chain(VGG16)), (1, 3, 192, 192))[0].clipped


class Of(nn.Module):
    """A function as a module, with a convolution before it."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], channels: int = 8) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(2, channels, 3, padding=1, bias=False), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


def uneven(x: torch.Tensor) -> torch.Tensor:
    """With equal weights channels are equal, and what is normalised over them would not depend on the input."""
    return x * torch.arange(8, dtype=x.dtype).view(1, 8, 1, 1)


def resized(method: Method, factor: float, align_corners: bool = False, antialias: bool = False) -> Callable:
    return lambda x: upsample(x, factor, None, method, align_corners, antialias)


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "strided": lambda x: F.conv2d(x, x.new_ones(4, 8, 3, 2), stride=(2, 3), padding=(0, 1)),
    "grouped": lambda x: F.conv2d(x, x.new_ones(4, 4, 3, 3), dilation=2, groups=2),
    "transposed": lambda x: F.conv_transpose2d(x, x.new_ones(8, 4, 3, 4), stride=(2, 3), padding=1, output_padding=1),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "dilated max pool": lambda x: F.max_pool2d(x, 2, 1, 0, 3),
    "max pool with places": lambda x: max_pool_with_indices(x, (2, 3), 2)[0],
    "mean pool": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, (5, 4)),
    "adaptive max pool": lambda x: F.adaptive_max_pool2d(x, (4, 5)),
    "nearest": resized("nearest", 1.5),
    "nearest exact": resized("nearest-exact", 1.5),
    "linear": resized("linear", 2),
    "linear, corners": resized("linear", 1.7, True),
    "linear, smaller": resized("linear", 0.4, False, True),
    "cubic": resized("cubic", 2),
    "bilinear transposed": lambda x: upsample_bilinear_transposed(x, 3),
    "sub-pixel": lambda x: sub_pixel(x, 2),
    "sub-pixel, other order": lambda x: sub_pixel(x, 2, "DCR"),
    "unshuffled": lambda x: F.pixel_unshuffle(x[..., :14, :16], 2),
    "nails": lambda x: bed_of_nails(x, 2, 1),
    "resize convolution": lambda x: resize_convolution(x, x.new_ones(3, 8, 3, 3)),
    "replicated": lambda x: F.pad(x, (2, 1, 3, 0), mode="replicate"),
    "cut": lambda x: F.pad(x, (-2, 1, 3, -1)),
    "flipped": lambda x: x.flip(2)[:, :, ::2],
    "branches": lambda x: torch.cat([F.avg_pool2d(x[:, :3], 3, 1, 1), x[:, 3:], F.avg_pool2d(x[:, :2], 5, 1, 2)], 1)[
        :, 1:8
    ],
    "residual": lambda x: x + F.avg_pool2d(x, (1, 5), 1, (0, 2)),
    "stacked": lambda x: torch.stack([x, F.avg_pool2d(x, 3, 1, 1)], 1).sum(1),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True),
    "row mean": lambda x: x + x.mean(3, keepdim=True),
    "response norm": local_response_norm,
    "torch's response norm": lambda x: F.local_response_norm(x, 3),
    "channels last": lambda x: F.layer_norm(uneven(x).permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)[:, :1],
    "channel softmax": lambda x: uneven(x).softmax(1)[:, :1],
    "running sum": lambda x: x.cumsum(3),
    "windows": lambda x: x[..., :14, :16].reshape(1, 8, 7, 2, 8, 2).permute(0, 1, 2, 4, 3, 5).mean((4, 5)),
    "linear layer": lambda x: F.linear(x.permute(0, 2, 3, 1), x.new_ones(3, 8)).permute(0, 3, 1, 2),
    "columns product": lambda x: x.new_ones(1, 8, 15, 15) @ x,
    "split": lambda x: x.chunk(2, 1)[0] * x.split(4, 1)[1],
    "clamped": lambda x: F.relu6(F.hardswish(x)).clamp(0, 9),
}


def ends_by_probing(module: nn.Module, shape: tuple[int, ...], position: tuple[int, int]) -> list[tuple[int, int]]:
    share = influence_map(module, shape, position)
    ends = []
    for axis in (0, 1):
        seen = torch.nonzero(share.sum(1 - axis)).flatten()
        ends.append((int(seen[0]), int(seen[-1])) if len(seen) else (-1, -1))
    return ends


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operator_as_the_gradients_say(name: str) -> None:
    module, shape = Of(FUNCTIONS[name]), (1, 2, 15, 17)
    (field,) = receptive_field(module, shape)
    assert field.widened == ()
    height, width = field.shape[2:]
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1), (height // 2, width // 2), (1, 2)]
    for position in corners:
        ends = [(int(axis.first[p]), int(axis.last[p])) for axis, p in zip(field.axes, position, strict=True)]
        if any(first > last for first, last in ends):  # in a row or column that nothing reaches
            ends = [(-1, -1)] * 2
        assert ends_by_probing(module, shape, position) == ends, position


def test_maxima_of_borders() -> None:
    (field,) = receptive_field(Of(lambda x: corner_pool(x, "left")), (1, 2, 9, 9))
    assert field.widened == ()
    assert field.axes[0].field.size == 3
    assert field.axes[1].first.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert field.axes[1].last.tolist() == [8] * 9
    (field,) = receptive_field(Of(lambda x: corner_pool(x, "bottom")), (1, 2, 9, 9))
    assert field.axes[0].last.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 8]


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.InstanceNorm2d(8, affine=True)])
def test_norms_over_positions_see_the_whole_map(norm: nn.Module) -> None:
    (field,) = receptive_field(Of(norm), (1, 2, 9, 12))
    assert field.size == (9, 12)
    assert field.widened == ()


def test_attention_sees_everything_and_tokens_are_one_position() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.layer = nn.Conv2d(3, 16, 4, 4), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            patches = self.patch(x)
            return patches, self.layer(patches.flatten(2).transpose(1, 2))

    patches, tokens = receptive_field(Tokens(), (1, 3, 12, 16))
    assert patches.axes[1].first.tolist() == [0, 4, 8, 12]
    assert patches.axes[1].field == Field(4, 4.0, 2.0)
    assert tokens.size == (12, 16)
    assert tokens.widened == ()


def test_what_has_no_rule_is_wide_and_says_so() -> None:
    (field,) = receptive_field(Of(lambda x: x.gather(3, torch.zeros(1, 8, 9, 9, dtype=torch.int64))), (1, 2, 9, 9))
    assert field.widened == ("gather",)
    assert field.size == (9, 9)

    def written(x: torch.Tensor) -> torch.Tensor:
        out = x.new_zeros(x.shape)
        out[:, :, ::2] = x[:, :, ::2]
        return out

    (field,) = receptive_field(Of(written), (1, 2, 9, 9))
    assert field.widened == ("writing into a view",)
    assert field.size == (9, 9)


def test_what_nothing_reaches() -> None:
    (field,) = receptive_field(Of(lambda x: F.conv2d(x, x.new_ones(1, 8, 1, 1), padding=2)), (1, 2, 5, 5))
    assert field.axes[0].sizes.tolist() == [0, 0, 2, 3, 3, 3, 2, 0, 0]
    (field,) = receptive_field(Of(lambda x: torch.zeros(1, 1, 4, 4)), (1, 2, 5, 5))
    assert field.size == (0, 0)
    assert influence_map(Of(lambda x: torch.zeros(1, 1, 4, 4)), (1, 2, 5, 5)).sum() == 0


def test_one_and_three_axes() -> None:
    (line,) = receptive_field(nn.Sequential(nn.Conv1d(1, 1, 3, 2), nn.MaxPool1d(3, 1), nn.AvgPool1d(2)), (1, 1, 60))
    assert line.axes[0].field == stacked_field([Window(3, 2), Window(3), Window(2, 2)])
    (cube,) = receptive_field(nn.Sequential(nn.Conv3d(1, 1, (3, 1, 1), 2), nn.MaxPool3d((1, 2, 3))), (1, 1, 30, 31, 32))
    assert cube.size == (3, 3, 5)
    assert [axis.field.stride for axis in cube.axes] == [2, 4, 6]


def test_strides_below_one_and_unknown_ones() -> None:
    (field,) = receptive_field(nn.Upsample(scale_factor=4), (1, 1, 32, 32))
    assert field.axes[0].field.stride == 0.25
    whole = AxisReach(torch.zeros(3, dtype=torch.int64), torch.full((3,), 9), 10)
    assert whole.field.size == 10
    assert whole.field.stride != whole.field.stride, "NaN"


def test_influence_is_the_kernel_itself() -> None:
    share = influence_map(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)), (1, 1, 7, 7))
    line = torch.tensor([0, 1, 2, 3, 2, 1, 0], dtype=torch.float64)
    torch.testing.assert_close(share, line[:, None] * line / 81, rtol=0, atol=1e-15)


def test_influence_leaves_the_network_as_it_was() -> None:
    trunk = ResNet(VARIANTS["resnet18"]).train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    for i, field in enumerate(receptive_field(trunk, (1, 3, 64, 96))):
        share = influence_map(trunk, (1, 3, 64, 96), output=i)
        assert share.sum().item() == pytest.approx(1)
        for axis in (0, 1):
            seen = torch.nonzero(share.sum(1 - axis)).flatten()
            middle = len(field.axes[axis].first) // 2
            assert (seen[0], seen[-1]) == (field.axes[axis].first[middle], field.axes[axis].last[middle])
    assert trunk.training
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert all(p.grad is None for p in trunk.parameters())


def test_what_does_not_fit() -> None:
    with pytest.raises(RecordError, match="spatial sizes"):
        receptive_field(nn.ReLU(), (1, 3))
    with pytest.raises(RecordError, match="0 to 0"):
        influence_map(nn.Conv2d(1, 1, 3), (1, 1, 5, 5), output=1)
    with pytest.raises(RecordError, match=r"inside \(3, 3\)"):
        influence_map(nn.Conv2d(1, 1, 3), (1, 1, 5, 5), position=(3, 0))
