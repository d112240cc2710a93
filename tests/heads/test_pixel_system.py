from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bestiary.errors import RecordError
from bestiary.heads.segmentation import PixelSystem, extend, of_equal_size, require_label_maps, stack_weights
from bestiary.layers.preprocess import Normalize
from bestiary.records import Target


class Threshold(PixelSystem):
    """Class 1 where a picture is bright, found in strips of three rows; counts its passes."""

    def __init__(self, **told: object) -> None:
        super().__init__(("dark", "bright"), Normalize([0.0], [1.0]))
        self.take(told)
        self.passes: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([0.5 - pixels, pixels - 0.5], 1)

    def logit_windows(self, images: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        self.passes.append(len(images))
        for top in range(0, images.shape[-2], 3):
            height = min(3, images.shape[-2] - top)
            yield top, 0, self(self.prepare(images, top, 0, (height, int(images.shape[-1]))))


def test_windows_are_put_together() -> None:
    image = torch.rand(1, 8, 5)
    (prediction,) = Threshold().predict_images([image])
    assert torch.equal(prediction.label_map, (image[0] > 0.5).to(torch.uint8))
    assert torch.allclose(Threshold().predict_logits(image[None])[0, 1], image[0] - 0.5)


def test_ties_go_to_the_lower_index() -> None:
    (prediction,) = Threshold().predict_images([torch.full((1, 2, 2), 0.5)])
    assert prediction.label_map.sum() == 0


def test_equal_pictures_share_a_pass_and_keep_their_order() -> None:
    net = Threshold()
    images = [torch.full((1, 4, 4), 0.9), torch.full((1, 5, 4), 0.9), torch.full((1, 4, 4), 0.1)]
    images.append(torch.full((1, 4, 4), 200, dtype=torch.uint8))
    found = net.predict_images(images)
    assert net.passes == [2, 1, 1]
    assert [int(p.label_map.max()) for p in found] == [1, 1, 0, 1]
    assert [p.size_hw for p in found] == [(4, 4), (5, 4), (4, 4), (4, 4)]


def test_probs_are_the_softmax_and_the_label_map_their_argmax() -> None:
    image = torch.rand(1, 6, 7)
    (prediction,) = Threshold(keep_probs=True).predict_images([image])
    assert prediction.probs is not None
    assert torch.allclose(prediction.probs[1], torch.sigmoid(2 * image[0] - 1), atol=1e-6)


@pytest.mark.parametrize(("size", "scaled"), [((40, 60), (10, 15)), ((60, 40), (15, 10)), ((4, 7), (10, 18))])
def test_predict_size_is_that_of_the_shorter_side(size: tuple[int, int], scaled: tuple[int, int]) -> None:
    net, seen = Threshold(predict_size=10), []
    normalise = net.normalize
    normalise.register_forward_pre_hook(lambda _m, got: seen.append(got[0].shape[-2:]))
    (prediction,) = net.predict_images([torch.randint(0, 256, (3, *size), dtype=torch.uint8)])
    assert prediction.label_map.shape == size
    assert (sum(s[0] for s in seen), seen[0][1]) == scaled


def test_pictures_that_stack() -> None:
    byte, real = torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2)
    assert of_equal_size([byte, real, byte, torch.zeros(1, 2, 3)]) == [[0, 2], [1], [3]]


def test_extend_adds_on_the_right_and_bottom() -> None:
    assert extend(torch.ones(1, 2), (2, 3), 7).tolist() == [[1, 1, 7], [7, 7, 7]]


def test_weights_of_a_batch() -> None:
    truth = [torch.zeros(1, 2, dtype=torch.uint8)] * 2
    assert stack_weights([Target(), Target()], truth, (1, 2)) is None
    maps = stack_weights([Target(weight_map=torch.full((1, 2), 5.0)), Target()], truth, (1, 3))
    assert maps is not None
    assert maps.tolist() == [[[5, 5, 0]], [[1, 1, 0]]]


def test_label_maps_are_demanded() -> None:
    with pytest.raises(RecordError, match="0 pictures and 0 targets"):
        require_label_maps([], [])
    maps = [Target(label_map=torch.zeros(2, 2, dtype=torch.uint8)), Target()]
    with pytest.raises(RecordError, match=r"targets\[1\]\.label_map: got None"):
        require_label_maps([torch.zeros(1, 2, 2)] * 2, maps)
