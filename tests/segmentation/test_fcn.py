"""FCN-32s, 16s and 8s: sizes, crops, alignment, and how each starts from the one before."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.fcn_vgg import AS_PUBLISHED, SAME_SIZE, ConvolutionalVGG, Paddings
from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_table import DEPTHS
from bestiary.layers.preprocess import Normalize
from bestiary.losses.pixel_objective import PixelObjective
from bestiary.ops.upsampling import bilinear_filler
from bestiary.records import Target
from bestiary.segmentation import fcn
from bestiary.segmentation.fcn import FCN, SKIPS, Stride, Upsampling
from bestiary.training.freezing import freeze
from bestiary.weights.load import load_state

CATEGORIES = ("sky", "road", "car")
STRIDES: tuple[Stride, ...] = (32, 16, 8)


def thin(
    stride: Stride,
    paddings: Paddings = AS_PUBLISHED,
    upsampling: Upsampling = "fixed",
    categories: tuple[str, ...] = CATEGORIES,
    seed: int = 0,
    scored: bool = True,
) -> FCN:
    """VGG-16 a sixteenth as wide, with scores that say something."""
    torch.manual_seed(seed)
    trunk = ConvolutionalVGG(maps=tuple(reversed(SKIPS[stride])), width=1 / 16, fc_width=8, paddings=paddings)
    normalize = Normalize(fcn.CAFFE_MEAN, (1.0, 1.0, 1.0), "bgr")
    system = FCN(trunk, categories, stride=stride, upsampling=upsampling, normalize=normalize)
    for name in system.head_names if scored else ():
        nn.init.normal_(system.get_parameter(f"{name}.weight"), 0, 0.3)
    return system.double().eval()


def flat_maps(system: FCN, pixels: Tensor) -> dict[str, Tensor]:
    return {level.name: maps for level, maps in zip(system.backbone.levels, system.backbone(pixels), strict=True)}


def test_parameters_are_the_published_nets() -> None:
    with torch.device("meta"):
        counts = {build.__name__: build() for build in (fcn.fcn32s, fcn.fcn16s, fcn.fcn8s, fcn.fcn8s_at_once)}
    sums = {name: sum(p.numel() for p in system.parameters()) for name, system in counts.items()}
    assert sums == {
        "fcn32s": 136_152_917,
        "fcn16s": 134_815_994,
        "fcn8s": 134_489_759,
        "fcn8s_at_once": 134_489_759,
    }
    without = [p for name, p in counts["fcn32s"].named_parameters() if not name.startswith("upscore")]
    assert sum(p.numel() for p in without) == 134_346_581
    for system in counts.values():  # nothing learns that the published code keeps
        kept = {name for name, p in system.named_parameters() if not p.requires_grad}
        assert kept == {name for name, _ in system.named_parameters() if name.startswith("upscore")}
        assert system.objective.terms == ("cross_entropy_sum",)
        assert len(system.categories) == 21
    assert counts["fcn8s_at_once"].skip_scales == {"pool4": 0.01, "pool3": 0.0001}
    assert counts["fcn8s"].skip_scales == {"pool4": 1.0, "pool3": 1.0}


def test_the_small_forms_share_one_trunk() -> None:
    with torch.device("meta"):
        small = [build(CATEGORIES) for build in (fcn.fcn32s_small, fcn.fcn16s_small, fcn.fcn8s_small)]
    trunks = [{n: v.shape for n, v in system.backbone.state_dict().items()} for system in small]
    assert trunks[0] == trunks[1] == trunks[2]
    learn = [sum(p.numel() for p in system.parameters() if p.requires_grad) for system in small]
    assert learn == [3_931_651, 3_932_422, 3_932_809]
    assert small[0].objective.terms == ("cross_entropy",)


def test_crops_are_the_published_ones() -> None:
    assert [thin(stride).crops for stride in STRIDES] == [(19,), (5, 27), (5, 9, 31)]
    # where maps have the picture's size over their stride, the raised scores are cropped by one, not the skips
    assert [thin(stride, SAME_SIZE).crops for stride in STRIDES] == [(16,), (-1, 8), (-1, -1, 4)]


def test_maps_at_224_are_the_published_ones() -> None:
    with torch.device("meta"):
        system = fcn.fcn8s()
        seen: dict[str, int] = {}
        for name, module in system.named_children():
            module.register_forward_hook(lambda _m, _i, out, n=name: seen.update({n: out[0].shape[-1]}))
        system(torch.rand(1, 3, 224, 224))
    del seen["backbone"]
    assert seen == {
        "score_fr": 8,
        "upscore2": 18,
        "score_pool4": 27,
        "upscore_pool4": 38,
        "score_pool3": 53,
        "upscore8": 312,
    }


@pytest.mark.parametrize("stride", STRIDES)
def test_the_output_has_the_inputs_size(stride: Stride) -> None:
    """Check (b)."""
    with torch.device("meta"):
        for paddings in (AS_PUBLISHED, SAME_SIZE):
            system = thin(stride, paddings)
            for side in (1, 31, 97, 224, 333, 500):
                assert system(torch.rand(1, 3, side, 65, dtype=torch.float64)).shape == (1, 3, side, 65)


def test_every_height_to_a_thousand_fits() -> None:
    """By the sizes alone: what a crop takes is there."""
    for paddings, stride in itertools.product((AS_PUBLISHED, SAME_SIZE), STRIDES):
        crops = thin(stride, paddings).crops
        for side in range(1, 1001):
            maps, size = {}, side + 2 * (paddings.picture - 1)
            for block in range(1, 6):
                size = -(-size // 2)
                maps[f"pool{block}"] = size
            scores = size + 2 * paddings.fc6 - 6
            for name, offset in zip(SKIPS[stride], crops, strict=False):
                raised = 2 * scores + 2
                scores = raised if offset >= 0 else maps[name]
                assert max(0, offset) + scores <= maps[name], (side, name)
                assert max(0, -offset) + scores <= raised, (side, name)
            assert crops[-1] + side <= stride * (scores + 1), side


@pytest.mark.parametrize("paddings", [AS_PUBLISHED, SAME_SIZE])
@pytest.mark.parametrize("stride", STRIDES)
def test_a_constant_score_map_stays_constant(stride: Stride, paddings: Paddings) -> None:
    """Check (c): between the middles of the outermost cells; beyond them the published kernels fade."""
    system = thin(stride, paddings, scored=False)
    nn.init.constant_(system.score_fr.bias, 0.7)  # type: ignore[arg-type]
    logits = system(torch.rand(1, 3, 150, 150, dtype=torch.float64))
    inner = logits[..., 32:118, 32:118]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.7), rtol=0, atol=1e-12)
    assert (logits[..., 0, 0] < 0.6).all()


@pytest.mark.parametrize("paddings", [AS_PUBLISHED, SAME_SIZE])
@pytest.mark.parametrize("stride", STRIDES)
def test_a_ramp_of_scores_comes_out_where_it_was(stride: Stride, paddings: Paddings) -> None:
    """Scores that say at every level where their cell's middle lies say of every pixel where it is in the end."""
    system = thin(stride, paddings, scored=False)
    with torch.no_grad():
        for name in system.head_names:
            weight = system.get_parameter(f"{name}.weight")
            weight[0, 0] = 1.0
    pixels = torch.rand(1, 3, 150, 150, dtype=torch.float64)
    maps = flat_maps(system, pixels)
    count = len(system.head_names)
    for level in system.backbone.levels:
        ramp = system.backbone.centres[level.name] + level.stride * torch.arange(maps[level.name].shape[-1]).double()
        maps[level.name] = (ramp / count).expand_as(maps[level.name])
    found = system.upsampled(maps, (150, 150))[0, 0]
    wanted = torch.arange(150, dtype=torch.float64).expand(150, 150)
    torch.testing.assert_close(found[40:110, 40:110], wanted[40:110, 40:110], rtol=0, atol=1e-9)


def test_the_summed_loss_doubles_with_the_batch_and_the_mean_does_not() -> None:
    """Check (d)."""
    image, target = torch.rand(3, 20, 31), Target(label_map=torch.randint(0, 3, (20, 31), dtype=torch.uint8))
    system = thin(8).float()
    summed = [float(system.loss([image] * n, [target] * n).total.detach()) for n in (1, 2)]
    assert summed[1] == pytest.approx(2 * summed[0], rel=1e-6)
    wanted = nn.functional.cross_entropy(
        system.predict_logits(image[None]),
        target.label_map[None].long(),  # type: ignore[index]
        reduction="sum",
    )
    assert summed[0] == pytest.approx(float(wanted.detach()), rel=1e-5)
    system.objective = PixelObjective(("cross_entropy",))
    mean = [float(system.loss([image] * n, [target] * n).total.detach()) for n in (1, 2)]
    assert mean[1] == pytest.approx(mean[0], rel=1e-6)
    assert mean[0] == pytest.approx(summed[0] / (20 * 31), rel=1e-5)


def raised(scores: Tensor, *kernels: int) -> Tensor:
    for kernel in kernels:
        weight = bilinear_filler(kernel, scores.shape[1], dtype=torch.float64)
        scores = nn.functional.conv_transpose2d(scores, weight, stride=kernel // 2)
    return scores


def test_without_skips_8s_is_a_cascade_that_is_smoother_than_one_kernel() -> None:
    """Check (e): the same alignment, but equal on straight scores alone."""
    system = thin(8, scored=False)
    nn.init.normal_(system.score_fr.weight, 0, 0.3)
    maps = flat_maps(system, torch.rand(1, 3, 100, 131, dtype=torch.float64))
    scores = system.score_fr(maps["fc7"])
    cascade, once = raised(scores, 4, 4, 16), raised(scores, 64)
    # Crops of the 8s: its three kernels put the first cell's middle at 1.5, 4.5 and 43.5; one kernel of 64 at 31.5.
    torch.testing.assert_close(system.upsampled(maps, (100, 131)), cascade[..., 31:131, 31:162], rtol=0, atol=1e-12)
    mine, plain = cascade[..., 31:131, 31:162], once[..., 19:119, 19:150]
    assert not torch.allclose(mine, plain, atol=1e-2)

    def roughness(maps: Tensor) -> float:
        return float((maps.diff(n=2, dim=-1).square().sum() + maps.diff(n=2, dim=-2).square().sum()).detach())

    assert roughness(mine) < 0.9 * roughness(plain)
    straight = (torch.arange(8.0)[:, None] + 2 * torch.arange(9.0)).double().expand(1, 3, 8, 9)
    one, three = raised(straight, 64)[..., 19:, 19:], raised(straight, 4, 4, 16)[..., 31:, 31:]
    torch.testing.assert_close(one[..., 64:150, 64:150], three[..., 64:150, 64:150], rtol=0, atol=1e-10)


@pytest.mark.parametrize("stride", STRIDES)
def test_scores_start_at_zero_and_upsampling_as_interpolation(stride: Stride) -> None:
    system = thin(stride, scored=False)
    for name in system.head_names:
        assert all(not p.any() for p in system.get_submodule(name).parameters())
    kernels = {n: m for n, m in system.named_modules() if isinstance(m, nn.ConvTranspose2d)}
    sums = {"upscore2": 4, "upscore_pool4": 4, "upscore8": 64, "upscore16": 256, "upscore": 1024}
    for name, layer in kernels.items():
        summed = layer.weight.sum((2, 3))
        assert torch.equal(summed, sums[name] * torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("upsampling", "learning"),
    [
        ("fixed", []),
        ("intermediate", ["upscore2", "upscore_pool4"]),
        ("learned", ["upscore2", "upscore_pool4", "upscore8"]),
    ],
)
def test_which_upsampling_learns(upsampling: Upsampling, learning: list[str]) -> None:
    system = thin(8, upsampling=upsampling)
    found = [n.split(".")[0] for n, p in system.named_parameters() if n.startswith("up") and p.requires_grad]
    assert found == learning
    image, target = torch.rand(3, 40, 40), Target(label_map=torch.randint(0, 3, (40, 40), dtype=torch.uint8))
    system.loss([image.double()], [target]).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in system.parameters() if p.requires_grad)
    assert all(p.grad is None for p in system.parameters() if not p.requires_grad)


def test_at_once_scores_what_was_scaled_down() -> None:
    plain, scaled = thin(8), thin(8)
    scaled.skip_scales = dict(fcn.AT_ONCE)
    pixels = torch.rand(1, 3, 60, 60, dtype=torch.float64)
    maps = flat_maps(plain, pixels)
    shrunk = {**maps, "pool4": 0.01 * maps["pool4"], "pool3": 0.0001 * maps["pool3"]}
    torch.testing.assert_close(scaled(pixels), plain.upsampled(shrunk, (60, 60)), rtol=0, atol=1e-12)
    assert not torch.allclose(scaled(pixels), plain(pixels), atol=1e-3)


# -- starting from another net --------------------------------------------------------------------------------------


def test_each_starts_from_the_one_before_and_says_the_same_but_smoother() -> None:
    systems = [thin(stride, seed=i, scored=stride == 32) for i, stride in enumerate(STRIDES)]
    pixels = torch.rand(1, 3, 80, 80, dtype=torch.float64)
    for before, after in itertools.pairwise(systems):
        report = load_state(after, before.state_dict())
        assert report.summary().startswith("starts from an FCN: its convolutions, fc6, fc7, score_fr")
        for name, value in before.state_dict().items():
            if name in after.state_dict():
                assert torch.equal(after.state_dict()[name], value), name
        said, heard = before(pixels), after(pixels)
        assert said.std() > 0.05
        # the new skip's scores are zero, so only the kernels differ
        assert (said - heard).abs().mean() < 0.2 * said.std()
    assert torch.equal(systems[2].score_fr.weight, systems[0].score_fr.weight)


def test_an_fcn_of_other_categories_gives_all_but_what_names_them() -> None:
    two, three = thin(8, categories=("a", "b"), seed=1), thin(8, scored=False)
    report = load_state(three, two.state_dict())
    assert report.summary() == "starts from an FCN: its convolutions, fc6, fc7"
    assert torch.equal(three.backbone.fc6.weight, two.backbone.fc6.weight)
    assert not three.score_fr.weight.any()
    assert torch.equal(three.get_parameter("upscore2.weight"), thin(8).get_parameter("upscore2.weight"))


def test_its_own_state_comes_back_as_it_is() -> None:
    one, other = thin(16, seed=3), thin(16)
    assert load_state(other, one.state_dict()).note == ""
    pixels = torch.rand(1, 3, 33, 40, dtype=torch.float64)
    assert torch.equal(one(pixels), other(pixels))


def test_learned_upsampling_is_taken_over_where_it_may_learn_on() -> None:
    learned = thin(8, upsampling="learned", seed=2)
    nn.init.normal_(learned.get_parameter("upscore2.weight"), 0, 0.3)
    further = thin(8, upsampling="learned")
    assert load_state(further, learned.state_dict()).note == ""
    fixed = thin(8, scored=False)
    report = load_state(fixed, learned.state_dict())
    assert report.summary().endswith("fc6, fc7, score_fr, score_pool3, score_pool4, upscore8, upscore_pool4")
    assert torch.equal(fixed.get_parameter("upscore2.weight"), thin(8).get_parameter("upscore2.weight"))
    assert torch.equal(fixed.score_pool3.weight, learned.score_pool3.weight)


def test_a_small_form_starts_from_its_trunks_classifier() -> None:
    torch.manual_seed(0)
    trunk = VGG(DEPTHS["vgg11"], batch_norm=True, width=0.5, maps=("C5",))
    classifier = VGGClassifier(trunk, [str(i) for i in range(7)], hidden=(128, 128))
    system = fcn.fcn16s_small(CATEGORIES)
    report = load_state(system, classifier.state_dict())
    assert report.summary() == "starts from a classifier: its convolutions, fc6, fc7"
    taken = {n for n in system.state_dict() if n.startswith("backbone.")}
    assert set(report.loaded) == taken
    assert torch.equal(system.backbone.fc6.weight.flatten(1), classifier.classifier[0].weight)
    assert not system.score_fr.weight.any()


def test_the_last_layer_alone_can_learn() -> None:
    """The paper's 32s-fixed."""
    system = fcn.fcn32s_small(CATEGORIES)
    frozen = freeze(system, (), ("score_fr",))
    learning = [name for name, p in system.named_parameters() if p.requires_grad]
    assert learning == ["score_fr.weight", "score_fr.bias"]
    system.train()
    frozen.hold()
    before = {n: v.clone() for n, v in system.backbone.state_dict().items()}
    target = Target(label_map=torch.randint(0, 3, (33, 40), dtype=torch.uint8))
    system.loss([torch.rand(3, 33, 40)], [target]).total.backward()
    assert all(torch.equal(v, before[n]) for n, v in system.backbone.state_dict().items())
    assert system.head_names == ("score_fr",)


# -- as a labeller ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (40, 3)])
def test_any_picture_is_predicted_and_learned(size: tuple[int, int]) -> None:
    for system in (thin(8).float(), fcn.fcn8s_small(CATEGORIES)):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        labels = torch.randint(0, 3, size, dtype=torch.uint8)
        assert system.train().loss([image], [Target(label_map=labels)]).total.isfinite()
        (prediction,) = system.eval().predict_images([image])
        assert prediction.label_map.shape == size


def test_a_batch_of_several_sizes_learns_as_its_pictures() -> None:
    """A smaller picture of the batch has zeros around it as it has alone: Caffe's padding."""
    system = thin(8)
    images = [torch.rand(3, 40, 57, dtype=torch.float64), torch.rand(3, 33, 20, dtype=torch.float64)]
    targets = [Target(label_map=torch.randint(0, 3, tuple(i.shape[-2:]), dtype=torch.uint8)) for i in images]
    both = system.loss(images, targets).total
    alone = [system.loss([i], [t]).total for i, t in zip(images, targets, strict=True)]
    # not bit for bit: on the larger canvas the maps go on beyond the smaller picture's last cell
    torch.testing.assert_close(both, alone[0] + alone[1], rtol=1e-3, atol=0)
    for image, prediction in zip(images, system.predict_images(images), strict=True):
        (single,) = system.predict_images([image])
        assert torch.equal(single.label_map, prediction.label_map)


def test_nothing_labelled_is_a_loss_of_zero() -> None:
    system = fcn.fcn8s_small(CATEGORIES)
    losses = system.loss([torch.rand(3, 40, 40)], [Target(label_map=torch.full((40, 40), 255, dtype=torch.uint8))])
    assert losses.total == 0
    losses.total.backward()


def test_pixels_are_caffes_and_of_any_number_of_channels() -> None:
    with torch.device("meta"):
        system = fcn.fcn32s(CATEGORIES)
    red = torch.zeros(3, 2, 2)
    red[0] = 1.0
    with torch.device("cpu"):
        normalize = Normalize(fcn.CAFFE_MEAN, (1 / 255,) * 3, "bgr")
    assert system.normalize.channel_order == "bgr"
    wanted = torch.tensor([-104.00699, -116.66877, 255 - 122.67892])
    torch.testing.assert_close(normalize(red)[:, 0, 0], wanted, rtol=0, atol=1e-4)
    five = fcn.fcn8s_small(CATEGORIES, in_channels=5).eval()
    assert five.predict_logits(torch.rand(1, 5, 33, 40)).shape == (1, 3, 33, 40)
    with torch.device("meta"):
        assert fcn.fcn32s(CATEGORIES, pixels="imagenet").normalize.channel_order == "rgb"
        assert fcn.fcn32s(CATEGORIES, in_channels=1).backbone.features[0].in_channels == 1


@pytest.mark.parametrize("build", [fcn.fcn32s_small, fcn.fcn8s_small])
def test_training_reaches_every_parameter_and_lowers_the_loss(build) -> None:
    torch.manual_seed(0)
    system = build(CATEGORIES).train()
    image = torch.rand(3, 48, 64)
    labels = torch.zeros(48, 64, dtype=torch.uint8)
    labels[:, :24], labels[24:, 30:] = 1, 2
    image[:, :, :24] *= 0.3
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for step in range(12):
        optimizer.zero_grad()
        loss = system.loss([image, image.flip(-1)], [Target(label_map=m) for m in (labels, labels.flip(-1))]).total
        loss.backward()
        if step == 1:  # scores start at zero: behind them nothing learns in the first step
            assert [n for n, p in system.named_parameters() if p.requires_grad and not p.grad.any()] == []
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.6 * history[0]
