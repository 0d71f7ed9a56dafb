"""Free-standing things: what scenes of the kind ``objects`` show, and what closes their backs.

Owns their shapes and materials; where they stand is for object_scenes.py.
"""

from __future__ import annotations

import math

from worldstereo.synthetic import ornaments, palette
from worldstereo.synthetic.blocks import ball, block, legs, moved, post
from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Material, Part, Piece
from worldstereo.synthetic.palette import DARK, STEEL, WHITE, of, scaled, upright

STONE = (0.5, 0.48, 0.44)


def _stone(draw: Draw) -> tuple[str, Material]:
    name, color = draw.choice(
        [
            ("white marble", (0.72, 0.71, 0.68)),
            ("grey stone", (0.36, 0.36, 0.37)),
            ("sandstone", (0.62, 0.47, 0.3)),
            ("green marble", (0.2, 0.36, 0.27)),
        ]
    )
    texture = "marble" if "marble" in name else "gravel"
    vein = palette.blended(color, DARK, 0.6)
    return name, of(texture, color, vein, scaled(color, 1.2), salt=draw.integer(1, 10**6))


def column(draw: Draw) -> Piece:
    """A column with a ball on it."""
    name, stone = _stone(draw)
    word, color = palette.strong_color(draw)
    r, height = draw.uniform(0.14, 0.2), draw.uniform(0.8, 1.4)
    parts = (
        block(0, 0, 0, (3 * r, 0.12, 3 * r), stone),
        post(0, 0.12, 0, r * 1.2, 0.07, stone),
        post(0, 0.19, 0, r, height, stone),
        block(0, 0.19 + height, 0, (2.8 * r, 0.09, 2.8 * r), stone),
        ball(0, 0.28 + height, 0, r * 1.1, of("plain", color, salt=3)),
    )
    return Piece(f"a {name} column with a {word} ball on top", parts)


def tree(draw: Draw) -> Piece:
    """A trunk with a round crown."""
    bark = of("timber", (0.1, 0.06, 0.035), (0.22, 0.14, 0.08), salt=3, turned=True)
    light = draw.choice([(0.16, 0.36, 0.09), (0.32, 0.4, 0.08), (0.42, 0.22, 0.05)])
    green = of(
        "leaves", scaled(light, 0.35), light, scaled(light, 1.7), salt=draw.integer(1, 10**6)
    )
    tall, r = draw.uniform(0.7, 1.1), draw.uniform(0.42, 0.6)
    parts = [post(0, 0, 0, 0.08, tall + 0.3, bark), ball(0, tall, 0, r, green)]
    for number in range(5):
        angle = number * 2 * math.pi / 5 + draw.uniform(-0.3, 0.3)
        size = r * draw.uniform(0.5, 0.68)
        x, z = 0.72 * r * math.cos(angle), 0.72 * r * math.sin(angle)
        parts.append(ball(x, tall + draw.uniform(-0.05, 0.5) * r, z, size, green))
    parts.append(ball(0, tall + 1.1 * r, 0, r * 0.62, green))
    word = "an autumn tree" if light[0] > 0.4 else "a green tree"
    return Piece(word, tuple(parts))


def robot(draw: Draw) -> Piece:
    """A toy robot of boxes."""
    first, body = palette.strong_color(draw)
    second, limbs = palette.strong_color(draw, (first,))
    shell, joints = of("plain", body, salt=2), of("plain", limbs, salt=5)
    steel, dark = of("plain", STEEL), of("plain", DARK)
    glowing = of("plain", (1.0, 0.9, 0.3), glow=0.8)
    buttons = of("dots", scaled(body, 0.5), WHITE, scale=0.09)
    parts = [
        block(-0.13, 0, -0.03, (0.17, 0.09, 0.28), joints),
        block(0.13, 0, -0.03, (0.17, 0.09, 0.28), joints),
        post(-0.13, 0.09, 0, 0.06, 0.26, steel),
        post(0.13, 0.09, 0, 0.06, 0.26, steel),
        block(0, 0.35, 0, (0.5, 0.48, 0.32), shell),
        block(0, 0.45, -0.165, (0.3, 0.24, 0.02), buttons),
        post(0, 0.83, 0, 0.07, 0.06, steel),
        block(0, 0.89, 0, (0.36, 0.28, 0.28), shell),
        ball(-0.08, 1.0, -0.14, 0.045, glowing),
        ball(0.08, 1.0, -0.14, 0.045, glowing),
        block(0, 0.94, -0.145, (0.18, 0.03, 0.02), dark),
        post(0, 1.17, 0, 0.012, 0.14, steel),
        ball(0, 1.3, 0, 0.035, joints),
    ]
    for side in (-1, 1):
        parts.append(post(side * 0.31, 0.42, 0, 0.055, 0.34, joints))
        parts.append(ball(side * 0.31, 0.7, 0, 0.075, joints))
        parts.append(ball(side * 0.31, 0.34, 0, 0.07, steel))
    return Piece(f"a {first} and {second} toy robot", tuple(parts))


def snowman(draw: Draw) -> Piece:
    """Three balls with a hat."""
    name, color = palette.strong_color(draw, ("white",))
    snow = of("gravel", (0.82, 0.84, 0.88), (0.74, 0.77, 0.84), salt=4)
    coal, hat = of("plain", DARK), of("fabric", color, scaled(color, 0.6), salt=9)
    carrot = of("plain", (0.85, 0.3, 0.04))
    nose = Part("cylinder", (0, -1.14, -0.24), (0.028, 0.028, 0.09), carrot, axis=2)
    parts = [
        ball(0, -0.04, 0, 0.36, snow),
        ball(0, 0.54, 0, 0.26, snow),
        ball(0, 0.95, 0, 0.19, snow),
        nose,
        ball(-0.07, 1.18, -0.165, 0.025, coal),
        ball(0.07, 1.18, -0.165, 0.025, coal),
        post(0, 1.27, 0, 0.23, 0.03, hat),
        post(0, 1.3, 0, 0.145, 0.2, hat),
        post(0, 0.93, 0, 0.165, 0.07, hat),
    ]
    for height in (0.68, 0.8, 0.92):
        parts.append(ball(0, height - 0.03, -0.25 + 0.3 * abs(height - 0.8), 0.025, coal))
    return Piece(f"a snowman with a {name} hat", tuple(parts))


def arch(draw: Draw) -> Piece:
    """Two pillars and a lintel."""
    name, stone = _stone(draw)
    wide, tall = draw.uniform(0.8, 1.1), draw.uniform(1.2, 1.6)
    parts = [block(0, tall, 0, (wide + 0.5, 0.22, 0.4), stone)]
    parts.append(block(0, tall + 0.22, 0, (wide + 0.2, 0.12, 0.34), stone))
    for side in (-1, 1):
        parts.append(block(side * wide / 2, 0, 0, (0.36, 0.14, 0.36), stone))
        parts.append(post(side * wide / 2, 0.14, 0, 0.13, tall - 0.14, stone))
    return Piece(f"a {name} gateway", tuple(parts))


def bench(draw: Draw) -> Piece:
    """A garden bench."""
    name, wood = palette.some_wood(draw)
    steel = of("plain", DARK)
    parts: list[Part] = []
    for side in (-0.55, 0.55):
        parts.append(block(side, 0, 0, (0.06, 0.42, 0.4), steel))
        parts.append(block(side, 0.42, 0.2, (0.06, 0.42, 0.05), steel))
    for number in range(3):
        parts.append(block(0, 0.42, -0.14 + 0.13 * number, (1.35, 0.035, 0.11), wood))
        parts.append(block(0, 0.5 + 0.12 * number, 0.16, (1.35, 0.09, 0.03), wood))
    return Piece(f"a {name} bench", tuple(parts))


def barrel(draw: Draw) -> Piece:
    """A barrel with hoops."""
    name, wood = palette.some_wood(draw)
    r, height = draw.uniform(0.26, 0.34), draw.uniform(0.65, 0.85)
    staves = of("wood", *wood.colors[:2], scale=0.09, salt=wood.salt, turned=True)
    hoop = of("plain", scaled(STEEL, 0.5))
    parts = [post(0, 0, 0, r, height, staves)]
    for share in (0.06, 0.3, 0.64, 0.88):
        parts.append(post(0, share * height, 0, r + 0.012, 0.045, hoop))
    return Piece(f"a {name} barrel", tuple(parts))


def crates(draw: Draw) -> Piece:
    """Crates on each other."""
    parts: list[Part] = []
    bottom, size = 0.0, draw.uniform(0.5, 0.62)
    name, wood = palette.some_wood(draw)
    side = of("slats", wood.colors[1], wood.colors[0], salt=wood.salt)
    for _ in range(draw.integer(2, 3)):
        x = draw.uniform(-0.06, 0.06)
        parts.append(block(x, bottom, draw.uniform(-0.05, 0.05), (size, size, size), side))
        bottom += size
        size *= draw.uniform(0.6, 0.8)
    return Piece(f"a stack of {name} crates", tuple(parts))


def pyramid(draw: Draw) -> Piece:
    """A pyramid of coloured cubes."""
    parts: list[Part] = []
    names: list[str] = []
    for level, count in enumerate((3, 2, 1)):
        for number in range(count):
            name, color = palette.strong_color(draw)
            names += [name] if name not in names else []
            kind = draw.choice(["plain", "plain", "dots", "checker", "striped"])
            look = of(kind, color, palette.blended(color, WHITE, 0.6), scale=0.085, salt=number)
            x = (number - (count - 1) / 2) * 0.37
            parts.append(block(x, level * 0.34, 0, (0.34, 0.34, 0.34), look))
    return Piece(f"a pyramid of cubes in {ornaments.listed(names[:3])}", tuple(parts))


def pedestal_globe(draw: Draw) -> Piece:
    """A large globe on a pedestal."""
    name, stone = _stone(draw)
    r, height = draw.uniform(0.3, 0.42), draw.uniform(0.35, 0.6)
    sea = of("globe", (0.04, 0.17, 0.46), (0.18, 0.38, 0.09), WHITE, salt=draw.integer(1, 999))
    parts = (
        block(0, 0, 0, (0.6, 0.08, 0.6), stone),
        block(0, 0.08, 0, (0.46, height, 0.46), stone),
        post(0, 0.08 + height, 0, 0.1, 0.06, of("plain", (0.5, 0.36, 0.12))),
        ball(0, 0.12 + height, 0, r, sea),
    )
    return Piece(f"a big globe on a {name} pedestal", parts)


def lamp_post(draw: Draw) -> Piece:
    """A street lamp."""
    metal = of("plain", (0.06, 0.1, 0.08))
    tall = draw.uniform(1.5, 1.9)
    parts = (
        post(0, 0, 0, 0.12, 0.14, metal),
        post(0, 0.14, 0, 0.04, tall, metal),
        post(0, 0.14 + tall, 0, 0.1, 0.03, metal),
        ball(0, 0.17 + tall, 0, 0.15, of("plain", (1.0, 0.95, 0.8), glow=0.6)),
        post(0, 0.45 + tall, 0, 0.06, 0.05, metal),
    )
    return Piece("a street lamp", parts)


def giant_vase(draw: Draw) -> Piece:
    """A tall pot."""
    name, color = palette.strong_color(draw)
    kind = draw.choice(["striped", "dots", "marble", "checker"])
    glaze = of(kind, color, palette.blended(color, WHITE, 0.7), WHITE, scale=0.08, salt=3)
    r = draw.uniform(0.28, 0.36)
    parts = (
        post(0, 0, 0, 0.6 * r, 0.08, glaze),
        ball(0, 0.03, 0, r, glaze),
        post(0, 1.7 * r, 0, 0.5 * r, 1.1 * r, glaze),
        post(0, 2.8 * r, 0, 0.7 * r, 0.05, glaze),
    )
    return Piece(f"a tall {name} vase", parts)


def picnic_table(draw: Draw) -> Piece:
    """A garden table with things on it."""
    name, wood = palette.some_wood(draw)
    top = of("wood", *wood.colors[:2], scale=0.12, salt=wood.salt)
    words, things = ornaments.things_on(draw, 0.95, 0.55, 3)
    parts = [
        block(0, 0.66, 0, (1.2, 0.05, 0.75), top),
        *legs(1.1, 0.65, 0.66, 0.07, upright(wood)),
        *moved(things, 0, 0.71, 0),
    ]
    return Piece(f"a {name} table with {words}", tuple(parts))


def big_ball(draw: Draw) -> Piece:
    """A big beach ball."""
    piece = ornaments.beach_ball(draw)
    cover = piece.parts[0].material
    return Piece(piece.phrase, (ball(0, 0, 0, draw.uniform(0.32, 0.48), cover),), yaw=0.4)


def garden_wall(draw: Draw) -> Piece:
    """A long wall, hedge or fence."""
    wide, tall = draw.uniform(9, 15), draw.uniform(1.7, 2.6)
    kind = draw.choice(["bricks", "hedge", "fence", "painted"])
    if kind == "bricks":
        look = of(
            "bricks", (0.38, 0.14, 0.09), (0.52, 0.25, 0.15), (0.5, 0.48, 0.44), scale=0.085, salt=4
        )
        top = of("gravel", STONE, scaled(STONE, 0.8), salt=2)
        parts = [
            block(0, 0, 0, (wide, tall, 0.3), look),
            block(0, tall, 0, (wide + 0.1, 0.1, 0.4), top),
        ]
        return Piece("a brick wall", tuple(parts))
    if kind == "hedge":
        look = of("leaves", (0.04, 0.13, 0.03), (0.1, 0.26, 0.06), (0.2, 0.42, 0.1), salt=3)
        return Piece("a green hedge", (block(0, 0, 0, (wide, tall, 0.8), look),))
    if kind == "fence":
        name, wood = palette.some_wood(draw)
        look = of("wood", *wood.colors[:2], scale=0.16, salt=wood.salt, turned=True)
        parts = [block(0, 0, 0, (wide, tall, 0.05), look)]
        for number in range(int(wide / 2)):
            parts.append(block(number * 2 - wide / 2, 0, 0, (0.1, tall + 0.1, 0.12), upright(wood)))
        return Piece(f"a {name} fence", tuple(parts))
    name, color = palette.soft_color(draw)
    look = of("striped", scaled(color, 0.9), scaled(color, 0.7), scale=0.7)
    return Piece(f"a {name} striped wall", (block(0, 0, 0, (wide, tall, 0.25), look),))


MONUMENTS = (
    column,
    tree,
    robot,
    snowman,
    arch,
    bench,
    barrel,
    crates,
    pyramid,
    pedestal_globe,
    lamp_post,
    giant_vase,
    picnic_table,
    big_ball,
)
