import pytest
import torch
from torch.nn import functional as F

from bestiary.layers.switched import (
    SwitchedEncoder,
    Switches,
    UnpoolingDecoder,
    mirrored_rows,
    start_by_inputs,
)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_a_pooling_is_undone_where_its_maxima_were() -> None:
    grid = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])[None, None]
    values, indices = F.max_pool2d(grid, 2, return_indices=True)
    assert values[0, 0].tolist() == [[5, 6], [7, 8]]
    back = Switches(indices, (4, 4)).put_back(torch.tensor([[1.0, 2], [3, 4]])[None, None])
    assert back[0, 0].tolist() == [[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]


@pytest.mark.parametrize(("size", "pooled"), [((360, 480), (12, 15)), ((1, 1), (1, 1)), ((33, 64), (2, 2))])
def test_poolings_round_up_and_the_way_back_has_the_sizes_of_the_way_down(
    size: tuple[int, int], pooled: tuple[int, int]
) -> None:
    encoder, decoder = SwitchedEncoder(1, (1,) * 5, (2,) * 5), UnpoolingDecoder(2, [(2,)] * 5)
    features, switches = encoder.eval()(noise(1, 1, *size))
    assert tuple(features.shape[-2:]) == pooled
    assert decoder.eval()(features, switches).shape[-2:] == size
    if size == (360, 480):  # of the authors' file: upsample5 is 23 x 30, upsample4 45 x 60
        assert [s.size_hw for s in switches] == [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30)]


def test_nothing_is_learned_in_unpooling_and_layers_have_the_papers_names() -> None:
    encoder, decoder = SwitchedEncoder(3, (2, 1), (4, 6)), UnpoolingDecoder(6, [(6, 4), (4,)])
    layers = {name.rsplit(".", 1)[0] for name in encoder.state_dict()}
    assert layers == {"conv1_1", "conv1_1_bn", "conv1_2", "conv1_2_bn", "conv2_1", "conv2_1_bn"}
    layers = {name.rsplit(".", 1)[0] for name in decoder.state_dict()}
    assert layers == {"conv2_1", "conv2_1_bn", "conv2_2", "conv2_2_bn", "conv1_1", "conv1_1_bn"}


def test_other_switches_give_another_map() -> None:
    encoder, decoder = SwitchedEncoder(1, (1, 1), (3, 3)), UnpoolingDecoder(3, [(3,), (3,)])
    features, switches = encoder.eval()(noise(1, 1, 8, 8))
    usual = decoder.eval()(features, switches)
    first = Switches(torch.zeros_like(switches[0].indices), switches[0].size_hw)
    assert not torch.allclose(decoder(features, [first, switches[1]]), usual)


def test_a_decoder_without_rectification_lets_negative_values_through() -> None:
    torch.manual_seed(0)
    features, switches = SwitchedEncoder(1, (1,), (3,)).eval()(noise(1, 1, 6, 6))
    plain, rectified = (UnpoolingDecoder(3, [(4,)], rectified=kind) for kind in (False, True))
    rectified.load_state_dict(plain.state_dict())
    got = plain.eval()(features, switches)
    assert got.min() < 0
    assert torch.equal(rectified.eval()(features, switches), got.relu())


def test_transposed_convolutions_of_stride_1_are_convolutions_with_the_kernel_turned() -> None:
    torch.manual_seed(0)
    features, switches = SwitchedEncoder(1, (1,), (3,)).eval()(noise(1, 1, 6, 6))
    plain, turned = UnpoolingDecoder(3, [(4,)]).eval(), UnpoolingDecoder(3, [(4,)], transposed=True).eval()
    state = plain.state_dict()
    state["conv1_1.weight"] = state["conv1_1.weight"].transpose(0, 1).flip(2, 3)
    turned.load_state_dict(state)
    torch.testing.assert_close(turned(features, switches), plain(features, switches))


def test_the_mirror_image_of_vgg16() -> None:
    rows = mirrored_rows((2, 2, 3, 3, 3), (64, 128, 256, 512, 512))
    assert rows == ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64, 64))


def test_the_start_keeps_the_spread_of_values() -> None:
    torch.manual_seed(0)
    encoder = SwitchedEncoder(64, (1,), (256,), kernel_size=7)
    start_by_inputs(encoder)
    weight = encoder["conv1_1"].weight
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.01)
    assert float(encoder["conv1_1_bn"].bias[0].detach()) == pytest.approx(0.001)
