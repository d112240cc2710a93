"""What R-CNN and SPP-net have in common: a network on proposed regions, fine-tuned, and SVMs and box regressors fitted
to its features one stage after the other (Girshick et al., CVPR 2014; He et al., ECCV 2014, section 4).

Stages: "finetune" trains the network as a classifier of K + 1 kinds of region; "svm" fits one SVM a category to the
last hidden layer; "boxes" fits ridge regressions to the pooled features. Before the SVMs are there the softmax answers,
so that fine-tuning can be validated. Where regions' features come from is the subclass's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from bestiary.array_cache import ArrayCache, key_of
from bestiary.assign.box_codec import BoxCodec
from bestiary.errors import UsageError
from bestiary.geometry.boxes import clip_boxes, large_enough
from bestiary.heads.box import BoxHead, RegionSettings
from bestiary.heads.detection import Detector
from bestiary.heads.fitted_detection import Found, ScoreScale, judged
from bestiary.heads.kept_features import StateHash, at_least_for_now, kept
from bestiary.heads.part_times import PartTimes
from bestiary.heads.region_learning import proposals_of, sample_regions, weights_with_background
from bestiary.heads.region_rules import regression_pairs, svm_negatives
from bestiary.heads.region_svm import RegionExamples, RegionSVM
from bestiary.heads.ridge_boxes import RidgeBoxes
from bestiary.heads.truth import Truth, truths_of
from bestiary.layers.preprocess import Normalize
from bestiary.ops import batched_nms
from bestiary.predictions import Detections
from bestiary.proposals.proposer import Proposer
from bestiary.records import Losses, Sample, Target
from bestiary.system import Images, evaluation_mode

STAGES = ("finetune", "svm", "boxes")

CALIBRATED_ON = 200
"""Training pictures, evenly spread, that say what probability a margin of the SVMs means."""


@dataclass(frozen=True)
class RegionRules:
    """Which regions the stages learn from, and which are answers.

    Attributes:
        max_proposals: boxes of a picture that are looked at, the best.
        per_step: regions of one step of fine-tuning, from all pictures of its batch.
        positive_share: at most this share of them positive.
        positive_iou: overlap with an object that makes a region positive there.
        background_from: negatives overlap some object by at least this; 0 for all.
        negative_iou: negatives of the SVMs overlap the category's objects by less.
        regression_iou: regions that learn to move overlap their object by more.
        min_margin: regions below this margin are no answers.
        min_score: before there are SVMs: regions below this probability are none.
        per_category: regions of a category that suppression looks at, the best.
        nms_iou: of the suppression within each category.
        at_once: regions that go through the network together in prediction.
    """

    max_proposals: int = 2000
    per_step: int = 128
    positive_share: float = 0.25
    positive_iou: float = 0.5
    background_from: float = 0.0
    negative_iou: float = 0.3
    regression_iou: float = 0.6
    min_margin: float = -1.5
    min_score: float = 0.05
    per_category: int = 100
    nms_iou: float = 0.3
    at_once: int = 128


PAPER_RULES = RegionRules()


class RegionClassifier(nn.Module):
    """The network behind the pooled features. It starts as He et al., ICCV 2015, the last layer normal with 0.01.

    Args:
        box_head: to the hidden layer that the SVMs read.
        num_categories: K.
    """

    def __init__(self, box_head: BoxHead, num_categories: int) -> None:
        super().__init__()
        self.box_head, self.cls_score = box_head, nn.Linear(box_head.out_features, num_categories + 1)
        for layer in (box_head.fc6, box_head.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.cls_score.weight, 0, 0.01)
        nn.init.zeros_(self.cls_score.bias)

    def forward(self, pooled: Float[Tensor, "R C S S"]) -> Float[Tensor, "R K1"]:
        """Logits, the background's first."""
        return self.cls_score(self.box_head(pooled))


class StagedRegions(Detector):
    """Base of the two. A subclass adds `look` and `pooled`.

    Args:
        backbone: the convolutions.
        box_head: pooled features to the hidden layer that the SVMs read.
        categories: K names.
        proposer: says where objects may be.
        normalize: pixels as the trunk wants them.
        rules: see `RegionRules`.
        box_examples: regions of a category that its box regressor learns from; None for all.
        class_weights: factors on the loss of each category in fine-tuning; the background has 1.

    Attributes:
        parts: seconds that predictions spent on "proposals", "features" and "heads" since `parts.clear()`.
        codec: offsets of the box regressors.
        pooling_part: the part of a prediction that `pooled` counts for.
    """

    head_names = ("roi_heads.cls_score",)
    pooling_part: ClassVar[str] = "heads"
    class_weights: Tensor | None
    backbone: nn.Module
    svm: RegionSVM
    score_scale: ScoreScale
    box_regressors: RidgeBoxes
    proposer: Proposer

    def __init__(
        self,
        backbone: nn.Module,
        box_head: BoxHead,
        categories: Sequence[str],
        *,
        proposer: Proposer,
        normalize: Normalize,
        rules: RegionRules = PAPER_RULES,
        box_examples: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(categories)
        count = len(self.categories)
        self.backbone, self.roi_heads = backbone, RegionClassifier(box_head, count)
        self.proposer, self.normalize = proposer, normalize
        self.svm, self.score_scale = RegionSVM(count), ScoreScale(count)
        self.box_regressors = RidgeBoxes(count, most=box_examples)
        self.rules, self.codec = rules, BoxCodec()
        self.parts, self._state_hash = PartTimes(), StateHash()
        self.register_buffer("class_weights", weights_with_background(class_weights, count), persistent=False)

    @property
    def proposal_count(self) -> int:
        """Boxes a picture that it learns from."""
        return self.rules.max_proposals

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return self.roi_heads.cls_score.weight.device

    # -- what a subclass says ------------------------------------------------------------------------------------------

    def look(self, image: Shaped[Tensor, "C H W"]) -> Any:
        """Whatever of a picture is computed once for all its regions."""
        raise NotImplementedError

    def kept_look(self, image: Shaped[Tensor, "C H W"], cache: ArrayCache | None) -> Any:
        """`look`, from the cache where it is worth keeping; for learning, which sees a picture again and again. A
        prediction computes it: what it costs is what it is measured by.
        """
        return self.look(image)

    def pooled(self, looks: Sequence[Any], regions_xyxy: Sequence[Float[Tensor, "_r 4"]]) -> Float[Tensor, "R P 1 1"]:
        """Features of the regions of each picture, one after the other, that the box head reads.

        Args:
            looks: what `look` gave of each picture.
            regions_xyxy: of each picture, in its own pixels.
        """
        raise NotImplementedError

    def settings(self) -> Any:
        """Everything beside picture, regions and what was learned that decides the features: plain JSON."""
        raise NotImplementedError

    # -- fine-tuning ---------------------------------------------------------------------------------------------------

    def begin_stage(self, name: str) -> None:
        """Fine-tuning changes the features: what was fitted to the former ones is forgotten."""
        if name not in STAGES:
            raise UsageError(f"got {name!r}, wanted one of {', '.join(STAGES)}", where="stage")
        for part in {"finetune": (self.svm, self.box_regressors), "svm": (self.svm,)}.get(name, ()):
            part.forget()

    def loss(self, images: Images, targets: Sequence[Target]) -> Losses:
        """Cross entropy of K + 1 kinds over regions drawn from the pictures of the batch, an equal number of each.

        Raises:
            RecordError: a target without objects or without proposals, or a label that is no category.
        """
        rules, truths = self.rules, truths_of(targets, len(images), len(self.categories))
        device = self.device
        settings = RegionSettings(
            positive_iou=rules.positive_iou,
            per_image=max(1, rules.per_step // max(1, len(images))),
            positive_share=rules.positive_share,
        )
        regions, classes = [], []
        for proposals, truth in zip(proposals_of(targets), truths, strict=True):
            candidates = proposals[: rules.max_proposals]
            sampled = sample_regions(candidates, truth.to(candidates.device), settings, rules.background_from)
            regions.append(sampled.boxes_xyxy.to(device))
            classes.append(sampled.classes)
        wanted = torch.cat(classes).to(device)
        looks = [self.kept_look(image, self.proposer.cache) for image in images]
        logits = self.roi_heads(self.pooled(looks, regions)).float()
        each = F.cross_entropy(logits, wanted, weight=self.class_weights, reduction="none")
        return Losses({"region_class": each.sum() / max(1, len(wanted))})

    # -- fitting -------------------------------------------------------------------------------------------------------

    def fit_stage(
        self, name: str, samples: Sequence[Sample], seed: int = 0, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Fit the SVMs or the box regressors to all pictures, with the proposer's boxes in their targets.

        Features of regions are computed once and kept in the proposer's cache, or, where it has none, in a folder that
        is gone afterwards. Memory is bounded: pictures come one by one.

        Raises:
            UsageError: no such stage, or no picture.
            RecordError: a target without objects or without proposals, or a label that is no category.
        """
        if len(samples) == 0:
            raise UsageError("got no picture, wanted at least one", where="fit_stage(samples)")
        with evaluation_mode(self), torch.no_grad(), at_least_for_now(self.proposer.cache) as cache:
            pictures = TrainingRegions(self, samples, cache)
            if name == "svm":
                self.svm.fit(pictures, seed, say)
                self._calibrate(pictures)
            elif name == "boxes":
                self._fit_boxes(pictures, say)
            else:
                raise UsageError(f"got {name!r}, wanted svm or boxes", where="stage")
        self.to(self.device)

    def _calibrate(self, pictures: "TrainingRegions") -> None:
        found: list[Found] = []
        kinds: list[Tensor] = []
        for i in range(0, len(pictures), -(-len(pictures) // CALIBRATED_ON)):
            _, proposed, truth = pictures.read(i)
            margins = self.svm(pictures[i].features[: len(proposed)])
            rows, labels = self._candidates(margins)
            answers = Found(proposed[rows], labels, margins[rows, labels])
            keep = batched_nms(answers.boxes_xyxy, answers.margins, answers.labels, self.rules.nms_iou)
            found.append(answers[keep])
            kinds.append(judged(found[-1], truth))
        self.score_scale.fit(Found.joined(found), torch.cat(kinds))

    def _fit_boxes(self, pictures: "TrainingRegions", say: Callable[[str], None]) -> None:
        offsets, labels = [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]
        with TemporaryFile(prefix="bestiary-pooled-") as file:
            for features, moves, of in pictures.pairs():
                file.write(features.numpy().tobytes())
                offsets.append(moves)
                labels.append(of)
            file.flush()
            wanted, kinds = torch.cat(offsets), torch.cat(labels)
            say(f"box regressors: {len(wanted):,} regions overlap an object by more than {self.rules.regression_iou}")
            shape = (len(wanted), self.roi_heads.box_head.fc6.in_features)
            # "c": torch wants memory that may be written, and the file stays as it is.
            rows = np.memmap(file, np.float32, "c", shape=shape) if len(wanted) else np.zeros(shape, np.float32)
            self.box_regressors.fit(torch.from_numpy(rows), wanted, kinds)

    def features_key(self, image: Shaped[Tensor, "C H W"], regions_xyxy: Float[Tensor, "R 4"]) -> str:
        """What the features of a picture's regions are kept under."""
        learned = self._state_hash.of([self.backbone, self.roi_heads.box_head])
        return key_of("region features", self.settings(), learned, image, regions_xyxy)

    # -- prediction ----------------------------------------------------------------------------------------------------

    def detect_images(self, images: Sequence[Shaped[Tensor, "C _h _w"]]) -> list[Detections]:
        """What is found in each picture, in its own pixels, clipped, best first."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Shaped[Tensor, "C H W"]) -> Detections:
        size_hw, device = (int(image.shape[-2]), int(image.shape[-1])), self.device
        with self.parts.of("proposals"):
            proposed = self.proposer.propose(image).boxes_xyxy[: self.rules.max_proposals].to(device)
        with self.parts.of("features", self):
            look = self.look(image)
        answers = [torch.zeros(0, len(self.categories), device=device)]
        offsets = [torch.zeros(0, len(self.categories), 4, device=device)]
        for some in proposed.split(self.rules.at_once):
            with self.parts.of(self.pooling_part, self):
                pooled = self.pooled([look], [some])
            with self.parts.of("heads", self):
                answers.append(self._answers(self.roi_heads.box_head(pooled)))
                if self.box_regressors.is_fitted:
                    offsets.append(self.box_regressors(pooled.flatten(1)))
        with self.parts.of("heads", self):
            return self._decode(proposed, torch.cat(answers), torch.cat(offsets), size_hw)

    def _answers(self, hidden: Float[Tensor, "R D"]) -> Float[Tensor, "R K"]:
        """Margins of the SVMs; as long as there are none, probabilities of the softmax."""
        if self.svm.is_fitted:
            return self.svm(hidden)
        return self.roi_heads.cls_score(hidden).float().softmax(1)[:, 1:]

    def _candidates(self, answers: Float[Tensor, "R K"]) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Regions and labels of what may be an answer: the best of each category, best first."""
        least = self.rules.min_margin if self.svm.is_fitted else self.rules.min_score
        values, rows = answers.T.topk(min(self.rules.per_category, len(answers)), dim=1)
        labels = torch.arange(len(values), device=values.device)[:, None].expand_as(rows)
        return rows[values > least], labels[values > least]

    def _decode(
        self,
        regions_xyxy: Float[Tensor, "R 4"],
        answers: Float[Tensor, "R K"],
        offsets: Float[Tensor, "_m K 4"],
        size_hw: tuple[int, int],
    ) -> Detections:
        """Regions to answers: each category's best are moved, clipped and suppressed."""
        rows, labels = self._candidates(answers)
        boxes, scores = regions_xyxy[rows], answers[rows, labels]
        if len(offsets):
            boxes = self.codec.decode(offsets[rows, labels], boxes)
        boxes = clip_boxes(boxes, size_hw)
        if self.svm.is_fitted:
            scores = self.score_scale(Found(boxes, labels, scores))
        large = large_enough(boxes, 1.0)
        boxes, labels, scores = boxes[large], labels[large], scores[large]
        keep, kept_scores = self.suppress(boxes, scores, labels, self.rules.nms_iou)
        keep, kept_scores = keep[: self.max_detections], kept_scores[: self.max_detections]
        return Detections(boxes[keep], labels[keep], kept_scores, size_hw=size_hw, categories=self.categories)


class TrainingRegions(Sequence[RegionExamples]):
    """The regions of training pictures, proposals and then the objects themselves, with their features.

    Args:
        system: whose features.
        samples: the pictures, with proposals.
        cache: where features are kept.
    """

    def __init__(self, system: StagedRegions, samples: Sequence[Sample], cache: ArrayCache) -> None:
        self.system, self.samples, self.cache = system, samples, cache

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | slice) -> Any:
        """What the SVMs learn from in one picture, or a list of that."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        system = self.system
        image, proposed, truth = self.read(index)
        regions = torch.cat([proposed, truth.boxes_xyxy])
        device = system.device

        def compute() -> dict[str, Tensor]:
            look = system.kept_look(image.to(device), self.cache)
            some = regions.to(device).split(system.rules.at_once)
            return {"hidden": torch.cat([system.roi_heads.box_head(system.pooled([look], [part])) for part in some])}

        features = kept(self.cache, system.features_key(image, regions), compute)["hidden"]
        labels = torch.cat([torch.full((len(proposed),), -1), truth.labels])
        below = system.rules.negative_iou
        return RegionExamples(features, labels, svm_negatives(regions, truth, len(system.categories), below))

    def read(self, index: int) -> tuple[Shaped[Tensor, "C H W"], Float32[Tensor, "P 4"], Truth]:
        """A picture, its proposals and its objects.

        Raises:
            RecordError: the target has no objects or no proposals, or a label that is no category.
        """
        sample = self.samples[index]
        truth = truths_of([sample.target], 1, len(self.system.categories))[0]
        return sample.image, proposals_of([sample.target])[0][: self.system.rules.max_proposals], truth

    def pairs(self) -> Iterator[tuple[Float32[Tensor, "N P"], Float32[Tensor, "N 4"], Int64[Tensor, " N"]]]:
        """Picture by picture, what box regressors learn from: pooled features, wanted offsets, categories."""
        system = self.system
        device = system.device
        for index in range(len(self)):
            image, proposed, truth = self.read(index)
            rows, objects = regression_pairs(proposed, truth, system.rules.regression_iou)
            if not len(rows):
                continue
            look, regions = system.kept_look(image.to(device), self.cache), proposed[rows]
            parts = [system.pooled([look], [some]) for some in regions.to(device).split(system.rules.at_once)]
            wanted = system.codec.encode(truth.boxes_xyxy[objects], regions)
            yield torch.cat(parts).flatten(1).float().cpu(), wanted, truth.labels[objects]
