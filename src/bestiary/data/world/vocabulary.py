"""The words of the world: categories, joints, attributes, predicates."""

CATEGORIES = ("ball", "box", "can", "cone", "ring", "pyramid", "mushroom", "beast", "walker")
"""What things are. Their colours, patterns, sizes and places say nothing about it: only their shapes do."""

JOINT_NAMES = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "right wrist", "right elbow",
    "right shoulder", "left shoulder", "left elbow", "left wrist", "neck", "head top",
)  # fmt: skip
"""Of a walker, in the order of Leeds Sports Pose; other categories have no joints."""

JOINT_PAIRS = ((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9))
"""Joints that change places in a mirror."""

COLOURS = {
    "red": (201, 40, 38),
    "orange": (240, 130, 28),
    "yellow": (245, 205, 45),
    "green": (58, 160, 66),
    "teal": (32, 166, 160),
    "blue": (42, 92, 205),
    "purple": (128, 62, 178),
    "pink": (240, 130, 175),
    "brown": (126, 78, 44),
    "white": (236, 234, 228),
}
"""Main colours, sRGB."""

TEXTURES = ("plain", "striped", "checkered", "dotted", "speckled")
SIZES = ("small", "medium", "large")
SIZE_LIMITS = (0.6, 0.9)
"""Largest extent in metres below which a thing is small, below which it is medium."""
FINISHES = ("matte", "shiny")

ATTRIBUTE_NAMES = (*COLOURS, *TEXTURES, *SIZES, *FINISHES)
"""Exactly one of each of the four groups holds for an object."""

PREDICATES = ("left of", "right of", "in front of", "behind", "on", "under", "larger than", "smaller than")
"""See `bestiary.data.world.relations`."""

BACKGROUND = "background"
"""First class of the label maps: ground, wall and sky."""
