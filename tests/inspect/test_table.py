"""The layer table, and receptive fields of single layers computed and measured."""

import copy
import json

import pytest
import torch
from tests.inspect.small_nets import branches
from tests.ops.chains import VGG16, chain
from torch import nn

from bestiary.errors import UsageError
from bestiary.inspect.fields import field_box, layer_field, measured_field
from bestiary.inspect.table import layer_table
from bestiary.layers.response_norm import LocalResponseNorm
from bestiary.zoo import build


def test_the_table_of_a_small_network_by_hand() -> None:
    table = layer_table(branches(), (1, 3, 16, 16))
    rows = {row.name: row for row in table.rows}
    assert list(rows) == ["conv1", "bn1", "pool", "conv2", "conv3", "fc"]
    assert rows["conv1"].output_shape == (1, 8, 16, 16)
    assert rows["conv1"].multiply_adds == 8 * 3 * 9 * 256
    assert rows["pool"].output_shape == (1, 8, 8, 8)
    assert rows["conv2"].multiply_adds == 8 * 2 * 9 * 64
    assert [rows[n].fields[0].size for n in ("conv1", "bn1", "pool", "conv2", "conv3")] == [3, 3, 5, 9, 13]  # type: ignore[index]
    assert rows["conv3"].fields[1].stride == 2  # type: ignore[index]
    assert rows["pool"].fields[0].offset == 1.5  # type: ignore[index]
    assert rows["fc"].fields is None
    assert rows["fc"].whole
    assert table.parameters == sum(p.numel() for p in branches().parameters())
    assert table.multiply_adds == sum(row.multiply_adds for row in table.rows)


def test_published_fields() -> None:
    table = layer_table(nn.Sequential(*chain(VGG16)), (1, 3, 224, 224))
    convolutions = [row for row in table.rows if row.kind == "Conv2d"]
    assert convolutions[-1].fields[0].size == 196  # type: ignore[index]
    assert table.rows[-1].fields[0].size == 212  # type: ignore[index]
    assert table.rows[-1].fields[0].stride == 32  # type: ignore[index]
    resnet = {row.name: row for row in layer_table(build("resnet18", ["a"]), (1, 3, 64, 64)).rows}
    assert resnet["layer4.1.bn2"].fields[0].size == 435  # type: ignore[index]
    assert not resnet["layer4.1.bn2"].whole


def test_layers_that_take_one_size_alone_and_layers_that_do_not_run() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 2, 3), LocalResponseNorm(), nn.Conv2d(2, 2, 3, dilation=2))
            self.fc, self.aside = nn.Linear(18, 4), nn.Linear(3, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.fc(self.body(pixels).flatten(1))

    net = Fixed()
    before = copy.deepcopy(net.state_dict())
    rows = {row.name: row for row in layer_table(net, (1, 3, 9, 9)).rows}
    assert rows["body.1"].fields[0].size == 3  # type: ignore[index]
    assert rows["body.2"].fields[0].size == 7  # type: ignore[index]
    assert rows["fc"].whole
    assert rows["aside"].output_shape == ()
    assert rows["aside"].parameters == 12
    # Response normalisation was passed over for the fields alone.
    assert "forward" not in net.body[1].__dict__
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_maps_of_one_size_are_looked_at_on_the_picture_given() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(4), nn.Conv2d(4, 4, 1))
    rows = layer_table(net, (1, 3, 32, 32)).rows
    assert [row.fields[0].size for row in rows] == [3, 10, 10]  # type: ignore[index]
    assert [row.fields[0].stride for row in rows] == [1, 8, 8]  # type: ignore[index]


def test_the_table_as_text_and_as_json() -> None:
    table = layer_table(branches(), (1, 3, 16, 16))
    lines = str(table).split("\n")
    assert lines[0].split()[:6] == ["layer", "kind", "output", "parameters", "multiply-adds", "sees"]
    assert lines[1].split() == ["conv1", "Conv2d", "8x16x16", "224", "55,296", "3", "1", "0.5"]
    assert lines[-1].startswith("total")
    plain = json.loads(json.dumps(table.to_dict()))
    assert plain["layers"][2]["field_size"] == [5, 5]
    assert plain["layers"][-1]["field_size"] == "whole"


@pytest.mark.parametrize("layer", ["conv1", "pool", "conv2", "conv3"])
@pytest.mark.parametrize("side", [12, 31])
def test_measured_and_computed_fields_are_one_box(layer: str, side: int) -> None:
    found = measured_field(branches(), (1, 3, side, side), layer)
    assert found.agree
    assert float(found.influence.sum()) == pytest.approx(1)
    x1, y1, x2, y2 = found.computed
    assert float(found.influence[y1:y2, x1:x2].sum()) == pytest.approx(1, abs=1e-12)


def test_boxes_of_positions() -> None:
    field = layer_field(branches(), (1, 3, 32, 32), "conv2")
    assert field_box(field, (8, 8)) == (13, 13, 22, 22)
    assert field_box(field, (0, 15)) == (27, 0, 32, 6)
    assert field_box(layer_field(branches(), (1, 3, 32, 32), ""), ()) == (0, 0, 32, 32)
    with pytest.raises(UsageError):
        field_box(field, (16, 0))
