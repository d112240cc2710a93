"""Who learns from which object: matchers, samplers and box codecs."""

from bestiary.assign.box_codec import BoxCodec
from bestiary.assign.matcher import IGNORE, NEGATIVE, POSITIVE, Assignment, ThresholdMatcher
from bestiary.assign.sampler import sample_balanced

__all__ = ["IGNORE", "NEGATIVE", "POSITIVE", "Assignment", "BoxCodec", "ThresholdMatcher", "sample_balanced"]
