import torch

from bestiary.heads.padded_groups import by_padded_size


def test_pictures_that_round_up_alike_are_together() -> None:
    sizes = [(33, 64), (64, 33), (65, 64), (34, 40), (1, 1)]
    images = [torch.zeros(3, *size) for size in sizes]
    assert by_padded_size(images, 32) == [[0, 1, 3], [2], [4]]
    assert by_padded_size(images, 1) == [[0], [1], [2], [3], [4]]
    assert by_padded_size([], 32) == []
