"""A trunk with one classifier or two: what each sees, when it runs, and what it starts from."""

import pytest
import torch
from torch import Tensor, nn

from bestiary.backbones.levels import Level, Trunk
from bestiary.heads.trunk_labeller import TrunkLabeller, start_trunk
from bestiary.records import Target
from bestiary.weights.load import load_state

CATEGORIES = ("sky", "road", "car")


class TwoMaps(Trunk):
    levels = (Level("C1", 4, 2), Level("C2", 6, 4))
    in_channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        first = self.first(pixels).relu()
        return first, self.second(first).relu()


def labeller(auxiliary: bool = True) -> TrunkLabeller:
    torch.manual_seed(0)
    aux = nn.Conv2d(4, 3, 1) if auxiliary else None
    return TrunkLabeller(TwoMaps(), nn.Conv2d(6, 3, 1), CATEGORIES, aux_classifier=aux).eval()


def test_logits_are_the_last_maps_at_the_pictures_size() -> None:
    system, pixels = labeller(), torch.rand(2, 3, 37, 50)
    first, last = system.backbone(pixels)
    wanted = nn.functional.interpolate(system.classifier(last), (37, 50), mode="bilinear")
    said = system.outputs(pixels)
    assert torch.equal(said.logits, wanted)
    assert torch.equal(system(pixels), wanted)
    assert torch.equal(said.auxiliary["aux"], system.aux_classifier(first))  # type: ignore[misc]


def test_the_auxiliary_classifier_learns_and_does_not_run_in_predictions() -> None:
    system, calls = labeller(), []
    assert system.aux_classifier is not None
    system.aux_classifier.register_forward_hook(lambda *_: calls.append(1))
    image = torch.rand(3, 40, 40)
    system.predict_images([image])
    assert calls == []
    losses = system.loss([image], [Target(label_map=torch.randint(0, 3, (40, 40), dtype=torch.uint8))])
    assert calls == [1]
    assert list(losses.terms) == ["cross_entropy", "aux_cross_entropy"]
    said = system.outputs(system.normalize(image)[None])
    assert said.auxiliary["aux"].shape[-2:] == (20, 20)
    losses.total.backward()
    assert all(p.grad is not None for p in system.parameters())


def test_the_auxiliary_loss_counts_half() -> None:
    system, image = labeller(), torch.rand(3, 40, 48)
    target = Target(label_map=torch.randint(0, 3, (40, 48), dtype=torch.uint8))
    aux = system.outputs(system.normalize(image)[None]).auxiliary["aux"]
    resized = nn.functional.interpolate(aux, (40, 48), mode="bilinear")
    wanted = 0.5 * nn.functional.cross_entropy(resized, target.label_map[None].long())  # type: ignore[index]
    torch.testing.assert_close(system.loss([image], [target]).terms["aux_cross_entropy"], wanted)


def test_a_small_picture_lies_on_a_canvas_of_the_mean_colour() -> None:
    system, image = labeller(), torch.rand(3, 5, 40)
    canvas = torch.zeros(1, 3, 32, 40)
    canvas[..., :5, :] = system.normalize(image)
    torch.testing.assert_close(system.predict_logits(image[None]), system(canvas)[..., :5, :])


def test_it_starts_from_a_classifier_by_its_trunk() -> None:
    system, trunk = labeller(), TwoMaps()
    report = load_state(system, {**trunk.state_dict(), "fc.weight": torch.rand(10, 6)})
    assert report.summary() == "starts from a classifier: its convolutions"
    assert torch.equal(system.backbone.second.weight, trunk.second.weight)


def test_heads_of_other_categories_start_fresh() -> None:
    system, other = labeller(), labeller()
    state = other.state_dict()
    for name in ("classifier", "aux_classifier"):
        state |= {f"{name}.weight": state[f"{name}.weight"][:2], f"{name}.bias": state[f"{name}.bias"][:2]}
    assert {m.name.split(".")[0] for m in load_state(system, state).new_head} == {"classifier", "aux_classifier"}


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_state_with_an_auxiliary_classifier_fits_a_system_without(auxiliary: bool) -> None:
    system, state = labeller(auxiliary), {n: torch.rand_like(v) for n, v in labeller().state_dict().items()}
    load_state(system, state)
    assert all(torch.equal(value, state[name]) for name, value in system.state_dict().items())


def test_heads_are_named() -> None:
    assert labeller().head_names == ("classifier", "aux_classifier")
    assert labeller(auxiliary=False).head_names == ("classifier",)


def test_a_state_of_something_else_comes_back_as_it_is() -> None:
    own = labeller().state_dict()
    for state in (
        {"what.weight": torch.rand(1)},
        {"backbone.first.weight": torch.rand(1), "first.bias": torch.rand(4)},
    ):
        assert start_trunk(state, own) == (state, "")
