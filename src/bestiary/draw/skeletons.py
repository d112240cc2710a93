"""Which joints a limb joins, for the layouts in use, known by their number of joints."""

Limbs = tuple[tuple[int, int], ...]

COCO_LIMBS: Limbs = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (1,
    2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""COCO's 17 joints, nose first, left before right."""

LSP_LIMBS: Limbs = (
    (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11), (2, 3), (8, 12), (9, 12), (12, 13), (2, 8), (3,
    9),
)  # fmt: skip
"""Leeds Sports Pose's 14 joints, right ankle first, head top last; also the jointed category of
`bestiary.data.world`."""

MPII_LIMBS: Limbs = (
    (0, 1), (1, 2), (2, 6), (3, 6), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (10, 11), (11, 12), (12, 7), (7, 13), (13,
    14), (14, 15),
)  # fmt: skip
"""MPII's 16 joints, right ankle first, left wrist last."""


def limbs_of(num_joints: int) -> Limbs:
    """The limbs of the known layout with that many joints; none for others."""
    return {17: COCO_LIMBS, 16: MPII_LIMBS, 14: LSP_LIMBS}.get(num_joints, ())
