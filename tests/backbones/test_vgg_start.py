import torch

from bestiary.backbones.vgg import VGG, VGGClassifier
from bestiary.backbones.vgg_start import classifier_layers, start_named
from bestiary.backbones.vgg_table import DEPTHS


def classifier(batch_norm: bool) -> VGGClassifier:
    trunk = VGG(DEPTHS["vgg11"], batch_norm=batch_norm, width=1 / 32)
    return VGGClassifier(trunk, ("a", "b", "c"), hidden=(12, 10))


def test_layers_have_the_papers_names_and_fully_connected_ones_are_convolutions() -> None:
    net = classifier(False)
    found = classifier_layers(net.state_dict(), DEPTHS["vgg11"])
    convolutions = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2")
    assert {name.split(".")[0] for name in found} == {*convolutions, "fc6", "fc7"}
    assert torch.equal(found["conv3_2.weight"], net.features[8].weight)
    assert (found["fc6.weight"].shape, found["fc7.weight"].shape) == ((12, 16, 7, 7), (10, 12, 1, 1))


@torch.no_grad()
def test_as_convolutions_they_say_of_a_picture_what_the_classifier_says() -> None:
    net = classifier(False).eval()
    layers = classifier_layers(net.state_dict(), DEPTHS["vgg11"])
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    maps = net.features(pixels)
    fc6 = torch.nn.functional.conv2d(maps, layers["fc6.weight"], layers["fc6.bias"]).relu()
    fc7 = torch.nn.functional.conv2d(fc6, layers["fc7.weight"], layers["fc7.bias"]).relu()
    torch.testing.assert_close(net.classifier[6](fc7.flatten(1)), net(pixels), rtol=1e-5, atol=1e-6)


def test_norms_go_with_their_convolutions() -> None:
    net = classifier(True)
    found = classifier_layers(net.state_dict(), DEPTHS["vgg11"])
    assert torch.equal(found["conv2_1_bn.running_var"], net.features[5].running_var)
    assert torch.equal(found["conv2_1.weight"], net.features[4].weight)


def test_nothing_of_other_networks() -> None:
    assert classifier_layers(classifier(True).state_dict(), DEPTHS["vgg16"]) == {}
    assert classifier_layers({"stem.weight": torch.zeros(3)}, DEPTHS["vgg11"]) == {}


def test_what_fits_is_taken_by_the_networks_own_names() -> None:
    state = classifier(False).state_dict()
    own = {"encoder.conv1_1.weight": torch.zeros(2, 3, 3, 3), "fc6.weight": torch.zeros(5, 16, 7, 7)}
    taken, line = start_named(state, own, DEPTHS["vgg11"], {"conv": "encoder.", "fc": ""})
    assert set(taken) == {"encoder.conv1_1.weight"}  # fc6 is of another width
    assert line == "starts from a classifier: its convolutions"
    own["fc6.weight"] = torch.zeros(12, 16, 7, 7)
    assert start_named(state, own, DEPTHS["vgg11"], {"conv": "encoder.", "fc": ""})[1].endswith("convolutions, fc6")
    assert start_named(own, own, DEPTHS["vgg11"], {"conv": "encoder."}) == (own, "")
