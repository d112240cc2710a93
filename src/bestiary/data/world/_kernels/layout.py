"""What stands in which column of the arrays that scenes and kernels share; lengths in metres, colours linear 0..1."""

# Kinds of solids. The axis of a solid is its local y; a vertical one points down, as y does.
ELLIPSOID, BOX, FRUSTUM, CAPSULE, TORUS, PYRAMID = range(6)
# Sizes p, q, r of each kind, around the solid's middle:
#   ELLIPSOID  half axes along x, y, z             BOX      half sides along x, y, z
#   FRUSTUM    radius at +y, half height, at -y    CAPSULE  radius, half length of its axis
#   TORUS      radius of the ring, of its tube     PYRAMID  half side x at +y, half height, half side z; the tip at -y

# Parts of objects, in the object's frame: x along its heading, y down, z to its left.
PART_KIND, PART_OWNER, PART_CENTRE, PART_AXIS, PART_SIZE, PART_TINT, PART_PAINT, PART_COLUMNS = (
    0,
    1,
    2,
    5,
    8,
    11,
    12,
    13,
)
# Solids: parts in the camera frame. TURN holds the local axes as rows: local = TURN (p - CENTRE).
KIND, OWNER, CENTRE, TURN, SIZE, TINT, PAINT, REACH, SOLID_COLUMNS = 0, 1, 2, 5, 14, 17, 18, 19, 20
# Paints: the look of the object, dark (eyes), pale (stems, feet).
PAINT_LOOK, PAINT_DARK, PAINT_PALE = range(3)

# Looks of objects. FRAME and ORIGIN lead from the camera into the object's frame: FRAME (p - ORIGIN).
FRAME, ORIGIN, MAIN, SECOND, TEXTURE, PERIOD, PHASE, DIRECTION, SHINE, FIRST, LAST, SPHERE, LOOK_COLUMNS = (
    0, 9, 12, 15, 18, 19, 20, 23, 26, 27, 28, 29, 33,
)  # fmt: skip
# FIRST and LAST bound the rows of the object's solids; SPHERE is a sphere around it, centre and radius, in the camera
# frame.
PLAIN, STRIPED, CHECKERED, DOTTED, SPECKLED = range(5)

# The view: focal length and principal point in pixels, the camera's height, yaw and place, the direction to the sun
# (camera frame).
FOCAL, PRINCIPAL_X, PRINCIPAL_Y, HEIGHT, COS_YAW, SIN_YAW, PLACE_X, PLACE_Z, SUN, VIEW_COLUMNS = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    11,
)

# The surroundings.
SUN_COLOUR, AMBIENT, GROUND, GROUND_A, GROUND_B, GROUND_PERIOD, GROUND_COS, GROUND_SIN = 0, 3, 6, 7, 10, 13, 14, 15
WALL, WALL_Z, WALL_A, WALL_B, WALL_PERIOD, HAZE_COLOUR, HAZE, HILL, HILL_COLOUR, CLOUDS, PLACE_COLUMNS = (
    16, 17, 18, 21, 24, 25, 28, 29, 30, 33, 34,
)  # fmt: skip
SOIL, TILES, PLANKS, GRASS, PAVING = range(5)
SKY, PLASTER, WALLPAPER, BRICKS = range(4)
# Flat patches painted on ground and wall: surface (0, 1), form, middle, radius, colour, cosine and sine of their turn.
PATCH_SURFACE, PATCH_FORM, PATCH_MIDDLE, PATCH_RADIUS, PATCH_COLOUR, PATCH_COS, PATCH_SIN, PATCH_COLUMNS = (
    0,
    1,
    2,
    4,
    5,
    8,
    9,
    10,
)
DISC, SQUARE, TRIANGLE = range(3)

# What a pixel sees where it sees no solid.
SEES_GROUND, SEES_WALL = -1, -2
