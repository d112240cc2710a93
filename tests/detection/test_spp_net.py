"""SPP-net as a detector: scales, maps that are computed once, convolutions that stay, and its stages on shapes."""

import copy
from pathlib import Path

import pytest
import torch
from region_scenes import CATEGORIES, SIDE, Windows, judge, scene, trunk

from bestiary.array_cache import ArrayCache
from bestiary.backbones.vgg import vgg11_bn_half
from bestiary.backbones.zfnet import zfnet
from bestiary.detection.rcnn import rcnn_small
from bestiary.detection.spp_net import PAPER_SCALES, SPPNet, spp_net_small, spp_net_zf
from bestiary.errors import UsageError
from bestiary.heads.region_stages import RegionRules
from bestiary.layers.learned import make_room
from bestiary.layers.preprocess import Normalize
from bestiary.ops.pyramid_pooling import spatial_pyramid_pool
from bestiary.weights.load import load_state

TRAIN = [scene(seed) for seed in range(24)]
TEST = [scene(100 + seed) for seed in range(8)]


def build(scales: tuple[int, ...] = (64, 96), bins: tuple[int, ...] = (3, 2, 1)) -> SPPNet:
    """Its convolutions are random: that is enough for colours and outlines."""
    torch.manual_seed(0)
    return SPPNet(
        trunk(),
        24,
        CATEGORIES,
        proposer=Windows(),
        normalize=Normalize(),
        scales=scales,
        region_side=24,
        bins=bins,
        dropout=0.0,
        rules=RegionRules(per_step=64, background_from=0.1),
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> SPPNet:
    system = build()
    system.proposer.cache = ArrayCache(tmp_path_factory.mktemp("maps"))
    system.begin_stage("finetune")
    optimiser = torch.optim.SGD([p for p in system.parameters() if p.requires_grad], lr=0.03, momentum=0.9)
    system.train()
    for step in range(60):
        batch = [TRAIN[(4 * step + i) % len(TRAIN)] for i in range(4)]
        loss = system.loss([s.image for s in batch], [s.target for s in batch]).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        for name in ("svm", "boxes"):
            system.begin_stage(name)
            system.fit_stage(name, TRAIN)
    return system.eval()


def test_the_chain_learns_to_find_things(learned: SPPNet) -> None:
    recall, precision, overlap = judge(learned.predict([s.image for s in TEST]), TEST)
    assert recall > 0.75
    assert precision > 0.8
    assert overlap > 0.65
    assert list(learned.parts.seconds) == ["proposals", "features", "heads"]


def test_the_convolutions_stay_as_they_came(learned: SPPNet) -> None:
    fresh = build().backbone.state_dict()
    assert all(value.equal(fresh[name]) for name, value in learned.backbone.state_dict().items())
    system = build().train()
    assert not any(part.training for part in system.backbone.modules())
    assert system.roi_heads.training
    system.loss([TRAIN[0].image], [TRAIN[0].target]).total.backward()
    assert all(p.grad is None for p in system.backbone.parameters())
    assert all(p.grad is not None and p.grad.any() for p in system.roi_heads.parameters())


def test_regions_come_from_the_scale_that_brings_them_nearest_to_224() -> None:
    with torch.device("meta"):
        system = spp_net_zf(["a"])
    assert system.scales == PAPER_SCALES == (480, 576, 688, 864, 1200)
    sides = torch.tensor([400.0, 224.0, 190.0, 150.0, 112.0, 90.0, 20.0])
    regions = torch.stack([torch.zeros(7), torch.zeros(7), sides, sides], 1)
    found = system.nearest_scale((480, 640), regions).tolist()
    wanted = [
        min(range(5), key=lambda i, side=side: abs((side * PAPER_SCALES[i] / 480) ** 2 - 224**2))
        for side in sides.tolist()
    ]
    assert found == wanted == [0, 0, 1, 2, 3, 4, 4]
    flat = torch.tensor([[0.0, 0.0, 448.0, 112.0]])
    assert system.nearest_scale((480, 640), flat).tolist() == [0], "by area"


def test_a_region_that_is_the_picture_is_plain_spatial_pyramid_pooling() -> None:
    system = build(scales=(48,)).eval()
    image = TEST[0].image
    look = system.look(image)
    pooled = system.pooled([look], [torch.tensor([[0.0, 0.0, SIDE, SIDE]])])
    torch.testing.assert_close(pooled.flatten(1), spatial_pyramid_pool(look.maps[0], (3, 2, 1)))
    assert pooled.shape == (1, 16 * 14, 1, 1)


def test_each_region_is_pooled_from_its_own_scale_in_the_order_given() -> None:
    system = build().eval()
    look = system.look(TEST[0].image)
    assert [tuple(m.shape[-2:]) for m in look.maps] == [(16, 16), (24, 24)]
    regions = torch.tensor([[4.0, 4.0, 14.0, 14.0], [0.0, 0.0, 40.0, 40.0], [20.0, 8.0, 34.0, 18.0]])
    assert system.nearest_scale(look.size_hw, regions).tolist() == [1, 0, 1]
    together = system.pooled([look, look], [regions, regions[:1]])
    alone = [system.pooled([look], [row[None]]) for row in (*regions, regions[0])]
    torch.testing.assert_close(together, torch.cat(alone))


def test_maps_are_kept_while_learning_and_never_stale(tmp_path: Path, monkeypatch) -> None:
    system, image, looks = build(), TRAIN[0].image, []
    look = system.look
    monkeypatch.setattr(system, "look", lambda image: looks.append(1) or look(image))
    system.proposer.cache = ArrayCache(tmp_path)
    fresh = look(image)
    for _ in range(3):
        system.loss([image], [TRAIN[0].target])
    assert len(looks) == 1
    kept = system.kept_look(image, system.proposer.cache)
    assert kept.size_hw == fresh.size_hw
    for one, other in zip(kept.maps, fresh.maps, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    system.eval().predict([image])
    assert len(looks) == 2, "a prediction is measured as it is"
    system.loss([image.flip(-1)], [TRAIN[0].target])
    with torch.no_grad():
        system.backbone.get_parameter("features.0.weight").add_(0.1)
    system.loss([image], [TRAIN[0].target])
    system.scales = (48, 60)
    system.loss([image], [TRAIN[0].target])
    assert len(looks) == 5


def test_the_state_holds_all_that_was_learned(learned: SPPNet) -> None:
    twin = build().eval()
    make_room(twin, learned.state_dict())
    load_state(twin, learned.state_dict(), new_head=False)
    (one,), (other,) = learned.predict([TEST[0].image]), twin.predict([TEST[0].image])
    torch.testing.assert_close((one.boxes_xyxy, one.scores), (other.boxes_xyxy, other.scores))


@pytest.mark.parametrize(
    ("form", "parameters", "centre"), [(spp_net_zf, 73_026_709, 10.5), (spp_net_small, 9_136_533, 8.0)]
)
def test_the_forms(form, parameters: int, centre: float) -> None:
    with torch.device("meta"):
        system = form()
    assert sum(p.numel() for p in system.parameters()) == parameters
    assert system.roi_heads.box_head.fc6.in_features == 12_800, "50 bins of 256 channels"
    assert (system.stride, system.first_centre) == (16.0, centre)


def test_where_convolutions_come_from() -> None:
    system = spp_net_small(["a", "b"], proposals="sliding_windows")
    rcnn = rcnn_small(["x", "y", "z"], proposals="sliding_windows")
    rcnn.svm.learn("weight", torch.rand(3, 512))
    report = load_state(system, rcnn.state_dict())
    assert report.note == "starts from another detector: its convolutions"
    trained = rcnn.backbone.state_dict()
    assert all(value.equal(trained[name]) for name, value in system.backbone.state_dict().items())
    zf = spp_net_zf(["a", "b"], proposals="sliding_windows")
    taken, note = zf.start_state(zfnet(["x"]).state_dict())
    assert note.startswith("starts from a classifier: its convolutions")
    assert {name for name in taken if name.startswith("backbone.")} == {
        f"backbone.{name}" for name in zf.backbone.state_dict()
    }
    own = system.state_dict()
    assert system.start_state(own) == (own, "")


def test_sizes_that_cannot_be_are_refused() -> None:
    for scales in ((), (0,)):
        with pytest.raises(UsageError, match="scales"):
            SPPNet(vgg11_bn_half(), 8, ["a"], proposer=Windows(), normalize=Normalize(), scales=scales)
    with pytest.raises(UsageError, match="proposal_count"):
        spp_net_small(["a"], proposal_count=0)


def test_a_copy_is_whole(learned: SPPNet) -> None:
    twin = copy.deepcopy(learned)
    assert len(twin.predict([TEST[0].image])[0]) == len(learned.predict([TEST[0].image])[0])
