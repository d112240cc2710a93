"""SIFT on a picture of 640 x 480, and matching, beside OpenCV's (which has as many threads as torch here)."""

import cv2
import numpy as np
import torch
from benchmarks.op_cases import Case, Peers

from bestiary.features.matching import match
from bestiary.features.sift import detect, detect_and_describe


def _wall(height: int, width: int) -> np.ndarray:
    """Discs of all sizes and shades under a camera's blur and noise: about two thousand points."""
    rng = np.random.default_rng(0)
    canvas = np.full((height, width), 128, np.uint8)
    for _ in range(900):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(2, 22)), int(rng.integers(2, 22)))
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(256)), -1, cv2.LINE_AA)
    noisy = cv2.GaussianBlur(canvas, (0, 0), 0.8) + rng.normal(0, 2, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def cases(peers: Peers) -> list[Case]:
    """Points alone, points with descriptors, and the ratio test between two pictures' descriptors."""
    cv2.setNumThreads(torch.get_num_threads())
    grey = _wall(480, 640)
    picture, theirs = torch.from_numpy(grey), cv2.SIFT_create()
    points, descriptors = detect_and_describe(picture)
    other = detect_and_describe(picture.flip(0).flip(1).contiguous())[1]
    one, two, matcher = descriptors.numpy(), other.numpy(), cv2.BFMatcher(cv2.NORM_L2)
    return [
        Case("sift detect 640 x 480", lambda: detect(picture), lambda: theirs.detect(grey, None), 0.67, "opencv"),
        Case(
            f"sift detect_and_describe 640 x 480, {len(points)} points",
            lambda: detect_and_describe(picture),
            lambda: theirs.detectAndCompute(grey, None),
            0.67,
            "opencv",
        ),
        Case(
            f"match {len(one)} x {len(two)} descriptors, ratio 0.8",
            lambda: match(descriptors, other),
            lambda: matcher.knnMatch(one, two, k=2),
            1.0,
            "opencv",
        ),
    ]
