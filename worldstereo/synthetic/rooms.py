"""Furnished rooms: sizes, surfaces, windows, and where the furniture stands.

Owns the layout of worlds of the kind ``room``. The layout's axes are the room's: its middle at
x = z = 0, the camera near the wall at low z, looking towards the far wall at high z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from worldstereo.synthetic import furniture, ornaments, palette
from worldstereo.synthetic.blocks import block, height_of
from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Beam, Color, Layout, Light, Material, Part, Piece, Vector
from worldstereo.synthetic.palette import DARK, WHITE, of, scaled
from worldstereo.synthetic.solids import bounds
from worldstereo.synthetic.windows import Window, make_window, window_piece

Builder = Callable[[Draw], Piece]
# Walls by the direction that what stands there is turned: far, left, right.
FAR, LEFT, RIGHT = 0.0, -math.pi / 2, math.pi / 2

TALL: tuple[Builder, ...] = (furniture.bookshelf, furniture.wardrobe)
LOW: tuple[Builder, ...] = (
    furniture.sofa,
    furniture.sideboard,
    furniture.desk,
    furniture.bed,
    furniture.armchair,
)
ON_FLOOR: tuple[Builder, ...] = (
    ornaments.beach_ball,
    ornaments.crate,
    ornaments.pouf,
    ornaments.toy_blocks,
    furniture.plant,
    furniture.stool,
    furniture.armchair,
    furniture.chair,
)
# Room that the camera keeps around itself, and what stays free between two things, in metres.
FREE_AROUND_CAMERA, GAP = 1.15, 0.06


@dataclass
class Room:
    """A room while it is furnished.

    Attributes:
        half_x, half_z, height: of the room.
        camera: where it stands on the floor (x, z).
        yaw: where it looks.
        pieces: what stands and hangs in the room so far.
    """

    half_x: float
    half_z: float
    height: float
    camera: tuple[float, float]
    yaw: float
    pieces: list[Piece] = field(default_factory=list)

    def fits(self, piece: Piece, gap: float = GAP) -> bool:
        """Whether a piece stays inside, off the camera, and touches nothing that is there."""
        low, high = bounds(piece)
        if low[0] < -self.half_x or high[0] > self.half_x:
            return False
        if low[2] < -self.half_z or high[2] > self.half_z:
            return False
        dx = max(low[0] - self.camera[0], 0.0, self.camera[0] - high[0])
        dz = max(low[2] - self.camera[1], 0.0, self.camera[1] - high[2])
        if math.hypot(dx, dz) < FREE_AROUND_CAMERA:
            return False
        return not any(_touch(piece, other, gap) for other in self.pieces)

    def along_wall(self, wall: float, piece: Piece, at: float, height: float = 0.0) -> Piece:
        """A piece with its back at a wall, ``at`` along it: x at the far wall, else z."""
        depth = max(part.center[2] + part.half[2] for part in piece.parts)
        # Off the skirting boards, or off the wall itself.
        depth += 0.022 if height == 0 else 0.003
        if wall == FAR:
            place = (at, -height, self.half_z - depth)
        else:
            side = -1.0 if wall == LEFT else 1.0
            place = (side * (self.half_x - depth), -height, at)
        return replace(piece, position=place, yaw=wall)

    def seen_place(self, draw: Draw, near: float, far: float, spread: float) -> tuple[float, float]:
        """A place on the floor that the camera looks at: distances, and radians off its axis."""
        angle = self.yaw + draw.uniform(-spread, spread)
        distance = draw.uniform(near, far)
        x = self.camera[0] + distance * math.sin(angle)
        return x, self.camera[1] + distance * math.cos(angle)


def _touch(one: Piece, other: Piece, gap: float) -> bool:
    (low, high), (other_low, other_high) = bounds(one), bounds(other)
    return all(
        low[axis] < other_high[axis] + gap and other_low[axis] < high[axis] + gap
        for axis in range(3)
    )


def furnished_room(draw: Draw) -> Layout:
    """Draw a room; whether its start view is a good one is for the caller to judge."""
    room = _empty_room(draw)
    window = make_window(draw, room.half_x, room.half_z, room.height)
    hanging = list(window_piece(draw, window))
    room.pieces += hanging[:1]
    lamp, bulb = _ceiling_lamp(draw, room)
    _furnish_walls(draw, room)
    _furnish_middle(draw, room)
    _furnish_floor(draw, room)
    _hang_pictures(draw, room)
    shell, setting = _surfaces(draw, room, window)
    warm = bulb
    sun_share = draw.uniform(0.35, 1.0)
    lights = (
        Light(lamp, 0.12, scaled_light(warm, draw.uniform(1.6, 2.6))),
        Light(
            window.center, 0.3, scaled_light((0.75, 0.88, 1.0), 1.3 * sun_share), 1.0, 0.3, False
        ),
    )
    beam = None
    if window.sun is not None:
        color = scaled_light((1.0, 0.86, 0.66), 1.8 * sun_share)
        beam = Beam(window.center, window.half, window.axis, window.sun, color)
    return Layout(
        pieces=(shell, *room.pieces, *hanging[1:], _bulb(lamp, warm)),
        lights=lights,
        beam=beam,
        ambient=((0.32, 0.32, 0.33), (0.27, 0.25, 0.23)),
        position=(room.camera[0], -draw.uniform(1.25, 1.5), room.camera[1]),
        yaw=room.yaw,
        field_of_view=math.radians(draw.uniform(62, 74)),
        reach=math.inf,
        setting=setting,
    )


def scaled_light(color: Color, power: float) -> Color:
    """A light's colour times its power."""
    return color[0] * power, color[1] * power, color[2] * power


def _empty_room(draw: Draw) -> Room:
    half_x, half_z = draw.uniform(1.9, 2.8), draw.uniform(2.3, 3.1)
    turn = draw.uniform(-0.55, 0.55)
    x = -turn / 0.55 * (half_x - 1.0) * 0.8 + draw.uniform(-0.25, 0.25)
    z = -half_z + draw.uniform(0.5, 0.8)
    return Room(half_x, half_z, draw.uniform(2.4, 2.85), (x, z), turn)


def _ceiling_lamp(draw: Draw, room: Room) -> tuple[Vector, Color]:
    """Where a lamp hangs, and its colour; its cord is put into the room."""
    x, z = draw.uniform(-0.4, 0.4) * room.half_x, draw.uniform(-0.15, 0.45) * room.half_z
    drop = draw.uniform(0.2, 0.45)
    cord = Part("cylinder", (0, drop / 2, 0), (0.012, drop / 2, 0.012), of("plain", DARK))
    room.pieces.append(Piece("", (cord,), (x, -room.height, z), casts_shadow=False))
    color = draw.choice([(1.0, 0.88, 0.7), (1.0, 0.94, 0.84), (1.0, 0.8, 0.58)])
    return (x, -room.height + drop + 0.1, z), color


def _bulb(at: Vector, color: Color) -> Piece:
    glass = of("plain", color, glow=1.0)
    return Piece("", (Part("sphere", (0, 0, 0), (0.1, 0.1, 0.1), glass),), at, casts_shadow=False)


def _furnish_walls(draw: Draw, room: Room) -> None:
    """Big pieces with their backs at the far wall and the parts of both sides that are seen."""
    order = draw.shuffled(TALL) + draw.shuffled(LOW)
    order = [order[0], *draw.shuffled(order[1:])]
    wanted = draw.integer(4, 5)
    for make in order[:wanted]:
        piece = make(draw)
        for _ in range(14):
            wall = draw.choice([FAR, FAR, LEFT, RIGHT])
            if wall == FAR:
                at = draw.uniform(-room.half_x, room.half_x)
            else:
                at = draw.uniform(room.camera[1] + 1.4, room.half_z)
            placed = room.along_wall(wall, piece, at)
            if room.fits(placed):
                room.pieces.append(placed)
                break


def _furnish_middle(draw: Draw, room: Room) -> None:
    """A table with chairs, or a low table, on a rug."""
    dining = draw.chance(0.6)
    piece = furniture.table(draw) if dining else furniture.coffee_table(draw)
    for _ in range(24):
        x, z = room.seen_place(draw, 1.9, 3.4, 0.35)
        placed = replace(piece, position=(x, 0.0, z), yaw=draw.uniform(-0.5, 0.5))
        if room.fits(placed, 0.3):
            break
    else:
        return
    _lay_rug(draw, room, placed)
    room.pieces.append(placed)
    if dining:
        for turn in draw.shuffled([0.0, 0.5, 1.0, 1.5])[: draw.integer(1, 3)]:
            _set_chair(draw, room, placed, turn * math.pi + placed.yaw)


def _lay_rug(draw: Draw, room: Room, table: Piece) -> None:
    first, one = palette.strong_color(draw)
    second, two = palette.soft_color(draw)
    third = palette.strong_color(draw, (first,))[1]
    thick = 0.012
    if draw.chance(0.35):
        r = draw.uniform(1.0, 1.35)
        look = of("round_rug", one, two, third, salt=draw.integer(1, 999))
        part = Part("cylinder", (0, -thick / 2, 0), (r, thick / 2, r), look)
        form = "round "
    else:
        texture = draw.choice(["rug", "rug", "plaid", "striped"])
        look = of(texture, one, two, third, scale=0.14, salt=draw.integer(1, 999))
        part = block(0, 0, 0, (draw.uniform(1.9, 2.6), thick, draw.uniform(1.4, 1.9)), look)
        form = ""
    phrase = f"a {form}{first} and {second} rug"
    rug = Piece(phrase, (part,), table.position, table.yaw, casts_shadow=False)
    low, high = bounds(rug)
    # Rugs lie under furniture; only the room's edge and feet at the walls keep them out.
    shift_x = max(0.0, -room.half_x + 0.05 - low[0]) - max(0.0, high[0] - room.half_x + 0.05)
    shift_z = max(0.0, -room.half_z + 0.05 - low[2]) - max(0.0, high[2] - room.half_z + 0.05)
    x, _, z = rug.position
    room.pieces.append(replace(rug, position=(x + shift_x, 0.0, z + shift_z)))


def _set_chair(draw: Draw, room: Room, table: Piece, angle: float) -> None:
    """A chair at a table, looking at it from the side at ``angle``."""
    chair = furniture.chair(draw)
    low, high = bounds(replace(table, yaw=0.0, position=(0.0, 0.0, 0.0)))
    wide = abs(math.sin(angle - table.yaw)) > 0.5
    reach = (high[0] - low[0]) / 2 if wide else (high[2] - low[2]) / 2
    distance = reach + draw.uniform(0.1, 0.3)
    # A chair's back is at +z of its frame: it stands out from the table in that direction.
    x = table.position[0] + distance * math.sin(angle)
    z = table.position[2] + distance * math.cos(angle)
    placed = replace(chair, position=(x, 0.0, z), yaw=angle)
    others = [piece for piece in room.pieces if piece is not table]
    alone = replace(room, pieces=[piece for piece in others if height_of(piece) > 0.05])
    if alone.fits(placed):
        room.pieces.append(placed)


def _furnish_floor(draw: Draw, room: Room) -> None:
    """Smaller things where the camera sees them."""
    options = draw.shuffled([*ON_FLOOR, furniture.floor_lamp])
    for make in options[: draw.integer(3, 5)]:
        piece = make(draw)
        for _ in range(16):
            x, z = room.seen_place(draw, 1.6, 4.5, 0.5)
            placed = replace(piece, position=(x, 0.0, z), yaw=draw.uniform(-math.pi, math.pi))
            off_rugs = replace(room, pieces=[p for p in room.pieces if height_of(p) > 0.05])
            if off_rugs.fits(placed, 0.1):
                room.pieces.append(placed)
                break


def _hang_pictures(draw: Draw, room: Room) -> None:
    """Paintings, a clock and a door where walls are free."""
    makers: list[Builder] = [ornaments.picture for _ in range(draw.integer(2, 4))]
    makers.append(_door)
    if draw.chance(0.5):
        makers.append(ornaments.wall_clock)
    for make in makers:
        piece = make(draw)
        for _ in range(14):
            wall = draw.choice([FAR, FAR, LEFT, RIGHT])
            half = room.half_x if wall == FAR else room.half_z
            height = 0.0 if make is _door else draw.uniform(1.45, 1.65)
            placed = room.along_wall(wall, piece, draw.uniform(-half, half), height)
            if room.fits(placed, 0.12):
                room.pieces.append(placed)
                break


def _door(draw: Draw) -> Piece:
    if draw.chance(0.5):
        name, color = palette.soft_color(draw)
        look = of("panels", color, scaled(color, 0.8))
    else:
        name, wood = palette.some_wood(draw)
        look = of("panels", wood.colors[1], wood.colors[0])
    frame, knob = of("plain", WHITE), of("plain", (0.5, 0.4, 0.16))
    parts = [
        block(0, 0, -0.02, (0.84, 1.98, 0.04), look),
        block(-0.46, 0, -0.025, (0.08, 2.06, 0.05), frame),
        block(0.46, 0, -0.025, (0.08, 2.06, 0.05), frame),
        block(0, 1.98, -0.025, (0.84, 0.08, 0.05), frame),
        Part("sphere", (0.34, -1.02, -0.07), (0.03, 0.03, 0.03), knob),
    ]
    return Piece(f"a {name} door", tuple(parts))


def _surfaces(draw: Draw, room: Room, window: Window) -> tuple[Piece, str]:
    """Floor, ceiling, walls and skirting boards, and the sentence about them."""
    words, floor = _floor(draw)
    wall_words, wall, accent = _walls(draw)
    white = of("plain", (0.8, 0.8, 0.78), salt=17)
    a, b, h = room.half_x, room.half_z, room.height
    parts = [
        Part("plane", (0, 0, 0), (a, 0, b), floor, 1, -1),
        Part("plane", (0, -h, 0), (a, 0, b), white, 1, 1),
        Part("plane", (0, -h / 2, b), (a, h / 2, 0), accent, 2, -1),
        Part("plane", (0, -h / 2, -b), (a, h / 2, 0), wall, 2, 1),
        Part("plane", (-a, -h / 2, 0), (0, h / 2, b), wall, 0, 1),
        Part("plane", (a, -h / 2, 0), (0, h / 2, b), wall, 0, -1),
    ]
    skirting = of("plain", (0.72, 0.71, 0.68), salt=5)
    for sign in (-1, 1):
        parts.append(block(0, 0, sign * (b - 0.009), (2 * a, 0.09, 0.018), skirting))
        parts.append(block(sign * (a - 0.009), 0, 0, (0.018, 0.09, 2 * b), skirting))
    mood = "A sunlit room" if window.sun is not None else "A room"
    return Piece("", tuple(parts)), f"{mood} with {wall_words} and {words}."


def _floor(draw: Draw) -> tuple[str, Material]:
    kind = draw.choice(["wood", "wood", "wood", "tiles", "checker", "carpet"])
    salt, turned = draw.integer(1, 10**6), draw.chance(0.5)
    if kind == "wood":
        name = draw.choice(list(palette.WOODS))
        dark, light = (palette.linear(color) for color in palette.WOODS[name])
        wide = draw.uniform(0.12, 0.22)
        return f"a {name} plank floor", of(
            "wood", dark, light, scale=wide, salt=salt, turned=turned
        )
    name, color = palette.soft_color(draw)
    if kind == "carpet":
        return f"a {name} carpet", of("fabric", scaled(color, 0.75), scaled(color, 0.5), salt=salt)
    size = draw.uniform(0.3, 0.5)
    if kind == "tiles":
        look = of("tiles", color, scaled(color, 0.78), (0.3, 0.29, 0.27), scale=size, salt=salt)
        return f"a {name} tiled floor", look
    other, dark = palette.strong_color(draw, ("white",))
    look = of("checker", scaled(color, 0.9), scaled(dark, 0.8), scale=size, salt=salt)
    return f"a {name} and {other} checkered floor", look


def _walls(draw: Draw) -> tuple[str, Material, Material]:
    """Words, and materials of the plain walls and of the far one."""
    name, color = palette.soft_color(draw)
    salt = draw.integer(1, 10**6)
    wall = of("plain", scaled(color, 0.85), salt=salt)
    kind = draw.choice(["plain", "striped", "dots", "bricks", "accent", "striped"])
    if kind == "striped":
        look = of("striped", scaled(color, 0.86), scaled(color, 0.7), scale=draw.uniform(0.1, 0.25))
        return f"{name} striped wallpaper", look, look
    if kind == "dots":
        look = of("dots", scaled(color, 0.85), scaled(color, 0.6), scale=draw.uniform(0.15, 0.3))
        return f"{name} dotted wallpaper", wall, look
    if kind == "bricks":
        look = of(
            "bricks",
            (0.36, 0.13, 0.08),
            (0.5, 0.22, 0.13),
            (0.5, 0.47, 0.42),
            scale=0.075,
            salt=salt,
        )
        return f"{name} walls, one of red bricks,", wall, look
    if kind == "accent":
        other, strong = palette.strong_color(draw, ("white", "black"))
        look = of("plain", palette.blended(strong, WHITE, 0.25), salt=salt)
        return f"{name} walls, one of them {other},", wall, look
    return f"{name} walls", wall, wall
