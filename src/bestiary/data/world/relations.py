"""Which thing stands how to which other: read off the 3D boxes in the camera frame.

| predicate | A stands so to B where |
|---|---|
| left of, right of | A's box ends on the left (right) before B's begins: their spans of x do not meet |
| in front of, behind | A's box ends nearer (farther) than B's begins: their spans of z do not meet |
| on, under | A was put on B (B on A): A's lowest point is B's highest, and A's middle is above B |
| larger than, smaller than | the volume of A's box is at least 1.5 times B's (at most 1 / 1.5) |
"""

from collections.abc import Sequence

import numpy as np

from bestiary.data.world.vocabulary import PREDICATES

VOLUME_RATIO = 1.5
LEFT, RIGHT, FRONT, BEHIND, ON, UNDER, LARGER, SMALLER = range(len(PREDICATES))


def spans(boxes_3d: np.ndarray) -> np.ndarray:
    """The least and greatest x, y and z `[N, 3, 2]` of upright boxes `[N, 7]`."""
    cos, sin = np.abs(np.cos(boxes_3d[:, 6])), np.abs(np.sin(boxes_3d[:, 6]))
    length, height, width = boxes_3d[:, 3], boxes_3d[:, 4], boxes_3d[:, 5]
    half = 0.5 * np.stack([cos * length + sin * width, height, sin * length + cos * width], axis=1)
    return np.stack([boxes_3d[:, :3] - half, boxes_3d[:, :3] + half], axis=2)


def relations(boxes_3d: np.ndarray, supports: Sequence[int | None]) -> np.ndarray:
    """Rows (subject, predicate, object) `[R, 3]`, ordered by subject, object, predicate.

    Args:
        boxes_3d: `[N, 7]`.
        supports: index of the thing that each stands on, or None.
    """
    span, volume = spans(boxes_3d), boxes_3d[:, 3:6].prod(axis=1)
    rows = []
    for a in range(len(boxes_3d)):
        for b in range(len(boxes_3d)):
            if a == b:
                continue
            holds = {
                LEFT: span[a, 0, 1] < span[b, 0, 0],
                RIGHT: span[a, 0, 0] > span[b, 0, 1],
                FRONT: span[a, 2, 1] < span[b, 2, 0],
                BEHIND: span[a, 2, 0] > span[b, 2, 1],
                ON: supports[a] == b,
                UNDER: supports[b] == a,
                LARGER: volume[a] >= VOLUME_RATIO * volume[b],
                SMALLER: volume[b] >= VOLUME_RATIO * volume[a],
            }
            rows += [(a, predicate, b) for predicate, true in holds.items() if true]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
