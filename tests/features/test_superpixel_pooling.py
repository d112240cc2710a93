import numpy as np
import pytest
import torch

from bestiary.features.superpixel_pooling import neighbourhood_boxes, superpixel_labels, superpixel_means

SEGMENTS = torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1], [3, 3, 2, 4]], dtype=torch.int32)


def patches(height: int, width: int, count: int, seed: int = 0) -> torch.Tensor:
    """A map of numbers of which each occurs."""
    numbers = torch.randint(0, count, (height * width,), generator=torch.Generator().manual_seed(seed))
    numbers[:count] = torch.arange(count)
    return numbers.view(height, width).int()


@pytest.mark.parametrize("cells", [(16, 24), (8, 12), (4, 3), (1, 1), (5, 7)])
def test_means_are_those_of_the_enlarged_maps(cells: tuple[int, int]) -> None:
    segments = patches(16, 24, 9)
    maps = torch.rand(5, *cells, dtype=torch.float64)
    rows = np.arange(16) * cells[0] // 16
    columns = np.arange(24) * cells[1] // 24
    enlarged = maps[:, rows][:, :, columns]
    found = superpixel_means(maps, segments, 9)
    for s in range(9):
        assert torch.allclose(found[s], enlarged[:, segments == s].mean(1), atol=1e-12)


def test_maps_may_cover_more_than_the_picture() -> None:
    maps, segments = torch.rand(2, 4, 4), patches(13, 10, 6)
    whole = torch.full((16, 16), 6, dtype=torch.int32)
    whole[:13, :10] = segments
    found = superpixel_means(maps, segments, 6, (16, 16))
    assert torch.allclose(found, superpixel_means(maps, whole, 7)[:6])


def test_numbers_of_superpixels_do_not_matter() -> None:
    maps, segments, order = torch.rand(3, 6, 6), patches(12, 12, 8), torch.randperm(8)
    renamed = order[segments.long()].int()
    assert torch.allclose(superpixel_means(maps, renamed, 8)[order], superpixel_means(maps, segments, 8))
    assert torch.equal(neighbourhood_boxes(renamed, 8, 1)[order], neighbourhood_boxes(segments, 8, 1))


def test_gradients_reach_the_maps_by_share() -> None:
    maps = torch.zeros(1, 2, 2, requires_grad=True)
    segments = torch.tensor([[0, 0, 0, 1]] * 4, dtype=torch.int32)
    superpixel_means(maps, segments, 2)[0].sum().backward()
    assert maps.grad is not None
    assert torch.allclose(maps.grad, torch.tensor([[[4 / 12, 2 / 12], [4 / 12, 2 / 12]]]))


def test_neighbourhoods_by_hand() -> None:
    own = [[0, 0, 2, 2], [2, 0, 4, 2], [1, 1, 3, 3], [0, 2, 2, 3], [3, 2, 4, 3]]
    assert neighbourhood_boxes(SEGMENTS, 5, 0).tolist() == own
    near = neighbourhood_boxes(SEGMENTS, 5, 1).tolist()
    assert near[3] == [0, 0, 3, 3]  # touches 0 and 2
    assert near[4] == [1, 0, 4, 3]  # touches 1 and 2
    assert neighbourhood_boxes(SEGMENTS, 5, 2).tolist() == [[0, 0, 4, 3]] * 5
    assert neighbourhood_boxes(torch.zeros(2, 3, dtype=torch.int32), 1, 3).tolist() == [[0, 0, 3, 2]]


def test_labels_are_the_most_frequent_known_ones() -> None:
    labels = torch.tensor([[7, 7, 255, 255], [3, 2, 1, 255], [255, 4, 255, 254]], dtype=torch.uint8)
    assert superpixel_labels(labels, SEGMENTS, 5).tolist() == [7, 255, 1, 4, 254]
