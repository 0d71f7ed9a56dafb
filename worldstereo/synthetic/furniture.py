"""Furniture: pieces that stand on a floor, their fronts towards -z.

Owns the shapes and materials of things that rooms are furnished with. Where they stand is for
rooms.py; small things lie in ornaments.py.
"""

from __future__ import annotations

from worldstereo.synthetic import palette
from worldstereo.synthetic.blocks import ball, block, legs, moved, post
from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Material, Part, Piece
from worldstereo.synthetic.ornaments import things_on
from worldstereo.synthetic.palette import DARK, STEEL, WHITE, of, scaled, upright


def upholstery(draw: Draw) -> tuple[str, Material]:
    """A named cover for seats and beds."""
    name, color = (palette.strong_color if draw.chance(0.65) else palette.soft_color)(draw)
    salt = draw.integer(1, 10**6)
    kind = draw.choice(["fabric", "fabric", "striped", "plaid", "dots"])
    if kind == "fabric":
        return name, of(kind, color, scaled(color, 0.6), salt=salt)
    other = scaled(color, 0.45) if max(color) > 0.5 else palette.blended(color, WHITE, 0.65)
    word = {"striped": "striped", "plaid": "plaid", "dots": "dotted"}[kind]
    thin = {"striped": 0.05, "plaid": 0.09, "dots": 0.12}[kind]
    return f"{word} {name}", of(kind, color, other, WHITE, scale=thin, salt=salt)


def sofa(draw: Draw) -> Piece:
    """Two or three seats between arms."""
    name, cover = upholstery(draw)
    seats = draw.integer(2, 3)
    width, depth, arm = 0.62 * seats + 0.36, 0.88, 0.18
    _, wood = palette.some_wood(draw)
    parts = [
        *legs(width - 0.1, depth - 0.1, 0.1, 0.06, wood),
        block(0, 0.1, 0, (width, 0.2, depth), cover),
        block(0, 0.3, depth / 2 - 0.12, (width, draw.uniform(0.45, 0.6), 0.24), cover),
    ]
    for side in (-1, 1):
        parts.append(block(side * (width - arm) / 2, 0.3, -0.12, (arm, 0.28, depth - 0.24), cover))
    for seat in range(seats):
        x = (seat - (seats - 1) / 2) * 0.62
        parts.append(block(x, 0.3, -0.13, (0.6, 0.15, depth - 0.28), cover))
    _, accent = palette.strong_color(draw)
    pillow = of("fabric", accent, WHITE, salt=7)
    parts.append(block(-width / 2 + 0.38, 0.45, 0.12, (0.34, 0.3, 0.12), pillow))
    return Piece(f"a {name} sofa", tuple(parts))


def armchair(draw: Draw) -> Piece:
    """One seat between arms."""
    name, cover = upholstery(draw)
    _, wood = palette.some_wood(draw)
    parts = [
        *legs(0.72, 0.7, 0.12, 0.05, wood),
        block(0, 0.12, -0.06, (0.52, 0.32, 0.68), cover),
        block(0, 0.12, 0.33, (0.8, 0.82, 0.18), cover),
        block(-0.34, 0.12, -0.06, (0.14, 0.48, 0.62), cover),
        block(0.34, 0.12, -0.06, (0.14, 0.48, 0.62), cover),
    ]
    return Piece(f"a {name} armchair", tuple(parts))


def bed(draw: Draw) -> Piece:
    """A bed with its head at the wall, a blanket and two pillows."""
    name, cover = upholstery(draw)
    _, wood = palette.some_wood(draw)
    width = draw.uniform(1.2, 1.7)
    linen = of("fabric", WHITE, (0.7, 0.72, 0.75), salt=5)
    parts = [
        *legs(width, 1.95, 0.14, 0.08, wood),
        block(0, 0.14, 0, (width, 0.16, 2.0), wood),
        block(0, 0, 1.0, (width + 0.06, draw.uniform(0.8, 1.1), 0.07), wood),
        block(0, 0.3, -0.02, (width - 0.08, 0.2, 1.92), linen),
        block(0, 0.3, -0.31, (width - 0.04, 0.24, 1.4), cover),
        block(-width / 4, 0.5, 0.72, (width / 2 - 0.14, 0.13, 0.36), linen),
        block(width / 4, 0.5, 0.72, (width / 2 - 0.14, 0.13, 0.36), linen),
    ]
    return Piece(f"a bed with a {name} blanket", tuple(parts))


def bookshelf(draw: Draw) -> Piece:
    """Boards with books of many colours."""
    name, wood = palette.some_wood(draw)
    width, depth, rows = draw.uniform(0.8, 1.3), 0.3, draw.integer(4, 5)
    step, thick = 0.38, 0.03
    height = rows * step + thick
    side = upright(wood)
    parts = [
        block(-width / 2 + thick / 2, 0, 0, (thick, height, depth), side),
        block(width / 2 - thick / 2, 0, 0, (thick, height, depth), side),
        block(0, 0, depth / 2 - 0.01, (width - 0.04, height, 0.02), side),
    ]
    for row in range(rows + 1):
        parts.append(block(0, row * step, -0.011, (width - 2 * thick, thick, depth - 0.022), wood))
    for row in range(rows):
        parts += _row_of_books(draw, width - 2 * thick - 0.02, row * step + thick, depth)
    return Piece(f"a {name} bookshelf full of colourful books", tuple(parts))


def _row_of_books(draw: Draw, width: float, bottom: float, depth: float) -> list[Part]:
    parts: list[Part] = []
    x, end = -width / 2, width / 2 - draw.uniform(0, 0.4) * width
    while (thick := draw.uniform(0.035, 0.09)) + x < end:
        name, color = palette.strong_color(draw)
        tall, deep = draw.uniform(0.2, 0.31), draw.uniform(0.15, depth - 0.07)
        cover = of("plain", scaled(color, 0.9), salt=len(name) + len(parts))
        parts.append(
            block(x + thick / 2, bottom, depth / 2 - 0.03 - deep / 2, (thick, tall, deep), cover)
        )
        x += thick + 0.004
    return parts


def wardrobe(draw: Draw) -> Piece:
    """Two doors with knobs."""
    if draw.chance(0.4):
        name, color = palette.soft_color(draw)
        body = of("plain", color, salt=3)
        front = of("panels", color, scaled(color, 0.85), salt=3)
    else:
        name, wood = palette.some_wood(draw)
        body = upright(wood)
        front = of("panels", wood.colors[1], wood.colors[0], salt=wood.salt)
    width, height = draw.uniform(1.0, 1.4), draw.uniform(1.8, 2.1)
    knob = of("plain", STEEL)
    parts = [block(0, 0, 0.01, (width, height, 0.56), body)]
    for side in (-1, 1):
        x = side * width / 4
        parts.append(block(x, 0.08, -0.28, (width / 2 - 0.02, height - 0.14, 0.03), front))
        parts.append(ball(side * 0.06, height / 2, -0.31, 0.025, knob))
    return Piece(f"a {name} wardrobe", tuple(parts))


def sideboard(draw: Draw) -> Piece:
    """A low cabinet with drawers and something on it."""
    name, wood = palette.some_wood(draw)
    width, height, depth = draw.uniform(1.1, 1.6), draw.uniform(0.65, 0.85), 0.42
    front = upright(wood) if draw.chance(0.5) else of("plain", palette.soft_color(draw)[1], salt=2)
    knob = of("plain", STEEL)
    parts = [
        *legs(width, depth, 0.12, 0.05, wood),
        block(0, 0.12, 0.01, (width, height - 0.12, depth - 0.02), wood),
    ]
    columns = draw.integer(2, 3)
    for column in range(columns):
        x = (column - (columns - 1) / 2) * width / columns
        for row in range(2):
            bottom, tall = 0.16 + row * (height - 0.18) / 2, (height - 0.26) / 2
            size = (width / columns - 0.04, tall, 0.02)
            parts.append(block(x, bottom, -depth / 2 + 0.01, size, front))
            parts.append(ball(x, bottom + tall / 2 - 0.015, -depth / 2 - 0.01, 0.016, knob))
    words, things = things_on(draw, width - 0.2, depth - 0.1, 2)
    parts += moved(things, 0, height, 0)
    return Piece(f"a {name} sideboard with {words}", tuple(parts))


def table(draw: Draw) -> Piece:
    """A dining table, round or with corners, with things on it."""
    name, wood = palette.some_wood(draw)
    height = draw.uniform(0.7, 0.78)
    if draw.chance(0.45):
        radius = draw.uniform(0.5, 0.7)
        parts = [
            post(0, height - 0.05, 0, radius, 0.05, wood),
            post(0, 0.04, 0, 0.07, height - 0.09, upright(wood)),
            post(0, 0, 0, radius * 0.55, 0.04, wood),
        ]
        words, things = things_on(draw, radius * 1.3, radius * 1.3, draw.integer(2, 3))
        form = "round "
    else:
        width, depth = draw.uniform(1.1, 1.6), draw.uniform(0.7, 0.9)
        top = of("wood", *wood.colors[:2], scale=0.14, salt=wood.salt)
        parts = [
            block(0, height - 0.05, 0, (width, 0.05, depth), top),
            *legs(width - 0.06, depth - 0.06, height - 0.05, 0.07, upright(wood)),
        ]
        words, things = things_on(draw, width - 0.3, depth - 0.25, draw.integer(2, 3))
        form = ""
    parts += moved(things, 0, height, 0)
    return Piece(f"a {form}{name} table with {words}", tuple(parts))


def coffee_table(draw: Draw) -> Piece:
    """A low table with things on it."""
    name, wood = palette.some_wood(draw)
    width, depth, height = draw.uniform(0.8, 1.1), draw.uniform(0.5, 0.65), 0.4
    parts = [
        block(0, height - 0.04, 0, (width, 0.04, depth), wood),
        block(0, 0.12, 0, (width - 0.14, 0.025, depth - 0.1), wood),
        *legs(width, depth, height - 0.04, 0.05, upright(wood)),
    ]
    words, things = things_on(draw, width - 0.25, depth - 0.2, 2)
    parts += moved(things, 0, height, 0)
    return Piece(f"a low {name} table with {words}", tuple(parts))


def desk(draw: Draw) -> Piece:
    """A desk at a wall with a screen and drawers."""
    name, wood = palette.some_wood(draw)
    width, depth = draw.uniform(1.2, 1.5), 0.62
    black, steel = of("plain", DARK), of("plain", STEEL)
    _, first = palette.strong_color(draw)
    _, second = palette.soft_color(draw)
    picture = of("abstract", first, second, WHITE, salt=draw.integer(1, 999), glow=0.75)
    parts = [
        block(0, 0.7, 0, (width, 0.04, depth), wood),
        block(-width / 2 + 0.03, 0, 0, (0.06, 0.7, depth - 0.06), upright(wood)),
        block(width / 2 - 0.22, 0, 0, (0.42, 0.7, depth - 0.06), upright(wood)),
        block(0.1, 0.74, 0.12, (0.26, 0.015, 0.18), steel),
        block(0.1, 0.755, 0.16, (0.04, 0.14, 0.03), steel),
        block(0.1, 0.86, 0.13, (0.62, 0.38, 0.03), black),
        block(0.1, 0.875, 0.11, (0.59, 0.35, 0.015), picture),
        block(0.05, 0.74, -0.14, (0.42, 0.02, 0.14), black),
    ]
    for row in range(3):
        front = (0.38, 0.19, 0.02)
        parts.append(block(width / 2 - 0.22, 0.06 + row * 0.21, 0.03 - depth / 2, front, wood))
    return Piece(f"a {name} desk with a screen", tuple(parts))


def chair(draw: Draw) -> Piece:
    """A chair whose back stands at +z."""
    if draw.chance(0.5):
        name, color = palette.strong_color(draw)
        wood = of("plain", color, salt=4)
    else:
        name, wood = palette.some_wood(draw)
    parts = [
        block(0, 0.43, 0, (0.42, 0.04, 0.42), wood),
        *legs(0.42, 0.42, 0.43, 0.04, upright(wood)),
        block(-0.17, 0.47, 0.17, (0.04, 0.46, 0.04), upright(wood)),
        block(0.17, 0.47, 0.17, (0.04, 0.46, 0.04), upright(wood)),
        block(0, 0.78, 0.17, (0.3, 0.12, 0.03), wood),
        block(0, 0.6, 0.17, (0.3, 0.07, 0.03), wood),
    ]
    return Piece(f"a {name} chair", tuple(parts))


def stool(draw: Draw) -> Piece:
    """A round seat on a foot."""
    name, color = palette.strong_color(draw)
    parts = [
        post(0, 0.42, 0, 0.2, 0.09, of("fabric", color, scaled(color, 0.6), salt=8)),
        post(0, 0.02, 0, 0.035, 0.4, of("plain", STEEL)),
        post(0, 0, 0, 0.17, 0.02, of("plain", STEEL)),
    ]
    return Piece(f"a {name} stool", tuple(parts))


def floor_lamp(draw: Draw) -> Piece:
    """A shade on a pole."""
    name, color = palette.soft_color(draw)
    metal = of("plain", DARK if draw.chance(0.5) else STEEL)
    parts = [
        post(0, 0, 0, 0.15, 0.025, metal),
        post(0, 0.025, 0, 0.015, 1.33, metal),
        post(0, 1.36, 0, 0.2, 0.28, of("plain", color, glow=0.7)),
    ]
    return Piece(f"a floor lamp with a {name} shade", tuple(parts))


def plant(draw: Draw) -> Piece:
    """A pot with a leafy bush."""
    name, color = palette.soft_color(draw)
    radius, height = draw.uniform(0.14, 0.2), draw.uniform(0.26, 0.4)
    green = of(
        "leaves", (0.03, 0.13, 0.04), (0.09, 0.28, 0.07), (0.3, 0.5, 0.12), salt=draw.integer(1, 99)
    )
    parts = [
        post(0, 0, 0, radius, height, of("plain", color, salt=6)),
        post(0, height, 0, radius - 0.02, 0.01, of("gravel", (0.06, 0.04, 0.03))),
        post(0, height, 0, 0.025, 0.3, of("plain", (0.13, 0.08, 0.04))),
    ]
    for x, bottom, z, r in (
        (0, 0.22, 0, 0.24),
        (0.13, 0.1, -0.08, 0.17),
        (-0.14, 0.12, 0.03, 0.17),
    ):
        parts.append(ball(x, height + bottom, z, r * draw.uniform(0.9, 1.15), green))
    parts.append(ball(0.02, height + 0.5, 0.03, 0.16, green))
    return Piece(f"a leafy plant in a {name} pot", tuple(parts))
