"""Distinctive points that survive scaling and turning, and what a picture looks like around them (Lowe, IJCV 2004)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int32, Shaped
from torch import Tensor

from bestiary.errors import UsageError
from bestiary.features.keypoints import Keypoints, grey_levels
from bestiary.features.scale_space import Octave, scale_space
from bestiary.ops._kernels.threads import in_threads
from bestiary.records import require

ORIENTATION_WINDOW = 1.5
"""Standard deviation of the window that orientations are taken from, in scales of the point."""

PEAK_SHARE = 0.8
"""A direction this strong beside the strongest makes a second point."""

CELL = 3.0
"""Side of a descriptor's cell, in scales of the point."""

CLIP = 0.2
"""Largest entry of a descriptor of length 1, so that no single edge decides it."""


@dataclass(frozen=True)
class SiftSettings:
    """What is found and how it is described.

    Attributes:
        intervals: levels an octave.
        contrast: smallest |difference of Gaussians| at a point, for greys 0..1, times `intervals`: OpenCV's meaning,
            0.04 / 3 by default. The paper's 0.03 is 0.09 here.
        edge: largest ratio of principal curvatures.
        sigma: blur of an octave's first level, in its own samples.
        doubled: also look between the picture's pixels, from an octave of twice its resolution.
        most: keep the strongest; None keeps all. A point of two orientations counts twice.
        upright: do not look for orientations: all angles are 0.
        root: RootSIFT (Arandjelovic, Zisserman, CVPR 2012): square roots of entries that sum to 1, so that Euclidean
            distances between descriptors compare them by the Hellinger kernel.
    """

    intervals: int = 3
    contrast: float | int = 0.04
    edge: float | int = 10.0
    sigma: float | int = 1.6
    doubled: bool = True
    most: int | None = None
    upright: bool = False
    root: bool = False

    def __post_init__(self) -> None:
        wrong = {
            "intervals": self.intervals < 1,
            "contrast": not self.contrast >= 0,
            "edge": not self.edge >= 1,
            "sigma": not 0.5 < self.sigma < 16,
            "most": self.most is not None and self.most < 0,
        }
        wanted = {
            "intervals": "at least 1", "contrast": "0 or more", "edge": "at least 1", "sigma": "above 0.5, below 16",
            "most": "0 or more, or None",
        }  # fmt: skip
        for name, bad in wrong.items():
            if bad:
                where = f"SiftSettings({name})"
                raise UsageError(f"got {getattr(self, name)}, wanted {wanted[name]}", where=where)


DEFAULT = SiftSettings()


def detect(image: Shaped[Tensor, "*C H W"], settings: SiftSettings = DEFAULT) -> Keypoints:
    """Points of a picture, strongest first.

    Convention: of each point, `xy` is in the house's pixels (the centre of the top-left pixel is (0.5, 0.5)); see
    `Keypoints` for OpenCV's. Nothing is found within five samples of a level's border.

    Args:
        image: what `grey_levels` takes; computed on the CPU.
        settings: see there.

    Raises:
        RecordError: the picture has another shape or type, or is too large for its scale space.
    """
    return _detected(_octaves(image, settings), settings)


def describe(
    image: Shaped[Tensor, "*C H W"], keypoints: Keypoints, settings: SiftSettings = DEFAULT
) -> Float32[Tensor, "N 128"]:
    """What the picture looks like around points, which need not be its own: 4 x 4 cells of 8 directions.

    Entry (4 r + c) 8 + o counts gradients of direction `angle - o pi / 4` in cell row r and column c, as in OpenCV.
    Rows have length 1 (OpenCV's are 512 times that, rounded); all zeros where nothing varies.

    Args:
        image: what `grey_levels` takes.
        keypoints: their `xy`, `scale` and `angle` alone matter.
        settings: `intervals`, `sigma`, `doubled` and `root` alone matter.

    Raises:
        RecordError: the picture has another shape or type, or is too large; a point is not finite or has no scale.
    """
    good = torch.isfinite(keypoints.xy).all() and torch.isfinite(keypoints.angle).all()
    require(bool(good), "describe(keypoints)", "a point that is not finite", "finite points")
    scaled = bool(((keypoints.scale > 0) & torch.isfinite(keypoints.scale)).all())
    require(scaled, "describe(keypoints.scale)", "a scale that is not above 0 and finite", "scales above 0")
    return _described(_octaves(image, settings), keypoints, settings)


def detect_and_describe(
    image: Shaped[Tensor, "*C H W"], settings: SiftSettings = DEFAULT
) -> tuple[Keypoints, Float32[Tensor, "N 128"]]:
    """`detect` and `describe` from one scale space.

    Raises:
        RecordError: the picture has another shape or type, or is too large for its scale space.
    """
    octaves = _octaves(image, settings)
    keypoints = _detected(octaves, settings)
    return keypoints, _described(octaves, keypoints, settings)


def root_sift(descriptors: Float32[Tensor, "N D"]) -> Float32[Tensor, "N D"]:
    """Square roots of rows scaled to sum to 1: of length 1 again; zeros stay."""
    return (descriptors / descriptors.sum(1, keepdim=True).clamp(min=1e-12)).sqrt()


def _octaves(image: Tensor, settings: SiftSettings) -> list[Octave]:
    grey = grey_levels(image)
    return scale_space(grey, settings.intervals, settings.sigma, settings.doubled) if grey.size else []


def _detected(octaves: list[Octave], settings: SiftSettings) -> Keypoints:
    columns = [column for octave in octaves if (column := _points_of(octave, settings)) is not None]
    if not columns:
        return Keypoints.empty()
    xy, scale, angle, number, response = (np.concatenate(part) for part in zip(*columns, strict=True))
    order = np.argsort(-response, kind="stable")[: settings.most]
    fields = (xy, scale, angle, number, response)
    return Keypoints(*(torch.from_numpy(np.ascontiguousarray(field[order])) for field in fields))


def _extrema(octave: Octave, settings: SiftSettings) -> tuple[Int32[np.ndarray, "K 3"], Float32[np.ndarray, "K 4"]]:
    """Nearest samples (level, row, column), and column, row, level and response, of an octave's stable points."""
    from bestiary.features._kernels import extrema

    levels, threads = octave.levels, torch.get_num_threads()
    # Half of what a point must have: the quadratic's extremum lies above the sample's own value.
    threshold = 0.5 * settings.contrast / settings.intervals * 255
    blocks = {0: np.empty((0, 3), np.int32)}

    def look(start: int, stop: int) -> None:
        found, first, last = np.empty((1024, 3), np.int32), start + extrema.BORDER, stop + extrema.BORDER
        while (count := extrema.find(levels, first, last, threshold, found)) > len(found):
            found = np.empty((count, 3), np.int32)
        blocks[start] = found[:count]

    rows = levels.shape[1] - 2 * extrema.BORDER
    if rows > 0 and levels.shape[2] > 2 * extrema.BORDER:
        in_threads(look, rows, threads, grain=32)
    samples = np.concatenate([blocks[start] for start in sorted(blocks)])
    placed = np.empty((len(samples), 4), np.float32)
    kept = extrema.refine(levels, samples, settings.contrast / settings.intervals * 255, float(settings.edge), placed)
    # Neighbours of equal height end at one and the same sample.
    samples, first = np.unique(samples[kept], axis=0, return_index=True)
    return samples, placed[kept][first]


def _points_of(octave: Octave, settings: SiftSettings) -> tuple[np.ndarray, ...] | None:
    """Place, scale, angle, octave and response of an octave's points, one row an orientation; None if it has none."""
    from bestiary.features._kernels import gradients

    samples, placed = _extrema(octave, settings)
    if not len(samples):
        return None
    scales = (settings.sigma * 2.0 ** (placed[:, 2] / settings.intervals)).astype(np.float32)
    angles, counts = np.zeros((len(samples), gradients.MOST_PEAKS), np.float32), np.ones(len(samples), np.int32)
    if not settings.upright:
        spreads = (ORIENTATION_WINDOW * scales).astype(np.float32)

        def turn(start: int, stop: int) -> None:
            gradients.orientations(octave.levels, samples, spreads, PEAK_SHARE, start, stop, angles, counts)

        in_threads(turn, len(samples), torch.get_num_threads(), grain=16)
    rows = np.repeat(np.arange(len(samples)), counts)
    peak = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    xy = (placed[rows, :2] * octave.step + octave.offset).astype(np.float32)
    response = placed[rows, 3] / np.float32(255)
    scale = (scales[rows] * octave.step).astype(np.float32)
    return xy, scale, angles[rows, peak], np.full(len(rows), octave.number), response


def _described(octaves: list[Octave], keypoints: Keypoints, settings: SiftSettings) -> Float32[Tensor, "N 128"]:
    from bestiary.features._kernels import gradients

    found = np.zeros((len(keypoints), gradients.LENGTH), np.float32)
    if octaves and len(keypoints):
        xy, scale, angle = (field.cpu().numpy() for field in (keypoints.xy, keypoints.scale, keypoints.angle))
        # Level i of an octave serves scales from half a level below to half a level above its own.
        heights = np.log2(scale / (settings.sigma * octaves[0].step)) * settings.intervals
        which = np.clip(np.floor((heights - 0.5) / settings.intervals), 0, len(octaves) - 1).astype(np.int64)
        level = np.clip(np.rint(heights - which * settings.intervals), 0, settings.intervals + 2)
        for k, octave in enumerate(octaves):
            chosen = np.flatnonzero(which == k)
            step = octave.step
            columns = [
                level[chosen], (xy[chosen, 1] - octave.offset) / step, (xy[chosen, 0] - octave.offset) / step,
                CELL * scale[chosen] / step, angle[chosen],
            ]  # fmt: skip
            found[chosen] = _described_in(octave, np.stack(columns, axis=1).astype(np.float32))
    descriptors = torch.from_numpy(found)
    return root_sift(descriptors) if settings.root else descriptors


def _described_in(octave: Octave, points: Float32[np.ndarray, "N 5"]) -> Float32[np.ndarray, "N 128"]:
    from bestiary.features._kernels import gradients

    found = np.zeros((len(points), gradients.LENGTH), np.float32)

    def work(start: int, stop: int) -> None:
        gradients.describe(octave.levels, points, CLIP, start, stop, found)

    in_threads(work, len(points), torch.get_num_threads(), grain=8)
    return found
