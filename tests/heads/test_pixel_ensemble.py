import pytest
import torch
from torch import Tensor, nn

from bestiary.errors import UsageError
from bestiary.heads.pixel_ensemble import PixelEnsemble
from bestiary.heads.whole_picture import PixelOutputs, WholePicture
from bestiary.layers.preprocess import Normalize
from bestiary.predictions import Segmentation
from bestiary.records import Target


class Pointwise(WholePicture):
    """A 1x1 convolution."""

    def __init__(self, seed: int, categories: tuple[str, ...] = ("a", "b", "c")) -> None:
        super().__init__(categories, Normalize([0.5] * 3, [0.25] * 3))
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, len(categories), 1)

    def outputs(self, pixels: Tensor) -> PixelOutputs:
        return PixelOutputs(self.conv(pixels))


IMAGES = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_probabilities_are_the_mean_of_the_members() -> None:
    one, two = Pointwise(1).eval(), Pointwise(2).eval()
    pair = PixelEnsemble([one, two]).eval()
    pair.take({"keep_probs": True})
    wanted = (one.predict_probs(IMAGES) + two.predict_probs(IMAGES)) / 2
    for found, probs in zip(pair.predict_images(list(IMAGES)), wanted, strict=True):
        assert isinstance(found, Segmentation)
        torch.testing.assert_close(found.probs, probs)
        assert torch.equal(found.label_map, probs.argmax(0).to(torch.uint8))


@torch.inference_mode()
def test_scores_are_multiplied_where_both_are_positive() -> None:
    one, two = Pointwise(1).eval(), Pointwise(2).eval()
    pair = PixelEnsemble([one, two], "product").eval()
    wanted = one.predict_logits(IMAGES).clamp(min=0) * two.predict_logits(IMAGES).clamp(min=0)
    torch.testing.assert_close(pair.predict_logits(IMAGES), wanted)
    assert (wanted == 0).any()
    assert (wanted > 0).any()


@torch.inference_mode()
@pytest.mark.parametrize("rule", ["mean", "product"])
def test_every_member_looks_at_its_own_size(rule: str) -> None:
    one, two = Pointwise(1).eval(), Pointwise(2).eval()
    plain = PixelEnsemble([one, two], rule).predict_logits(IMAGES)  # type: ignore[arg-type]
    two.take({"predict_size": 4})
    coarse = PixelEnsemble([one, two], rule).predict_logits(IMAGES)  # type: ignore[arg-type]
    assert coarse.shape == plain.shape
    assert not torch.allclose(coarse, plain)


@torch.inference_mode()
def test_a_crf_refines_the_joint_answer() -> None:
    pair = PixelEnsemble([Pointwise(1), Pointwise(2)]).eval()
    pair.take({"crf": "deconvnet"})
    assert pair.crf is not None
    wanted = pair.crf.refine(IMAGES[0], pair.probs_of(pair.predict_logits(IMAGES[:1]))[0])
    torch.testing.assert_close(pair.predict_probs(IMAGES[:1])[0], wanted)


def test_it_is_not_trained_and_its_members_must_agree() -> None:
    pair = PixelEnsemble([Pointwise(1), Pointwise(2)])
    with pytest.raises(UsageError, match="not trained"):
        pair.loss([IMAGES[0]], [Target(label_map=torch.zeros(8, 10, dtype=torch.uint8))])
    with pytest.raises(UsageError, match="got a, b, wanted a, b, c"):
        PixelEnsemble([Pointwise(1), Pointwise(2, ("a", "b"))])
    with pytest.raises(UsageError, match="two members"):
        PixelEnsemble([Pointwise(1)])
    overlapping = Pointwise(2)
    overlapping.take({"multi_label": True})
    with pytest.raises(UsageError, match="overlap"):
        PixelEnsemble([Pointwise(1), overlapping])
