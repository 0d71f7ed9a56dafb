"""Small things: what stands on tables, lies on floors and hangs on walls.

Owns their shapes and materials. Parts are given around the origin, standing at height 0; what
hangs on a wall has the wall at z = 0 and its front towards -z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worldstereo.synthetic import palette
from worldstereo.synthetic.blocks import ball, block, moved, post
from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Color, Part, Piece
from worldstereo.synthetic.palette import DARK, WHITE, of, scaled

# A name with its article, parts, and the radius that they need.
Thing = tuple[str, list[Part], float]


def vase(draw: Draw) -> Thing:
    """A belly with a neck."""
    name, color = palette.strong_color(draw)
    glaze = of(
        draw.choice(["plain", "striped", "dots"]), color, scaled(color, 0.5), scale=0.03, salt=2
    )
    r = draw.uniform(0.08, 0.12)
    parts = [
        post(0, 0, 0, r * 0.6, 0.02, glaze),
        ball(0, 0.015, 0, r, glaze),
        post(0, 1.75 * r, 0, r * 0.42, r * 1.1, glaze),
        post(0, 2.8 * r, 0, r * 0.58, 0.02, glaze),
    ]
    return f"a {name} vase", parts, r


def orb(draw: Draw) -> Thing:
    """A plain ball."""
    name, color = palette.strong_color(draw)
    r = draw.uniform(0.09, 0.15)
    return f"a {name} ball", [ball(0, 0, 0, r, of("plain", color, salt=4))], r


def small_globe(draw: Draw) -> Thing:
    """The earth on a foot."""
    r = draw.uniform(0.11, 0.15)
    sea = of("globe", (0.05, 0.2, 0.5), (0.2, 0.42, 0.1), WHITE, salt=draw.integer(1, 999))
    metal = of("plain", (0.5, 0.36, 0.12))
    parts = [post(0, 0, 0, r * 0.6, 0.02, metal), post(0, 0.02, 0, 0.015, 0.08, metal)]
    return "a globe", [*parts, ball(0, 0.08, 0, r, sea)], r


def cubes(draw: Draw) -> Thing:
    """Two boxes on each other."""
    first, one = palette.strong_color(draw)
    second, two = palette.strong_color(draw, (first,))
    a, b = draw.uniform(0.18, 0.26), draw.uniform(0.11, 0.16)
    kind = draw.choice(["plain", "checker", "dots"])
    under = of(kind, one, palette.blended(one, WHITE, 0.6), scale=a / 4, salt=3)
    parts = [block(0, 0, 0, (a, a, a), under), block(0.02, a, 0, (b, b, b), of("plain", two))]
    return f"a {second} box on a {first} one", parts, a * 0.75


def books(draw: Draw) -> Thing:
    """A pile of lying books."""
    parts, bottom = [], 0.0
    for number in range(draw.integer(3, 5)):
        _, color = palette.strong_color(draw)
        thick, wide = draw.uniform(0.03, 0.05), draw.uniform(0.22, 0.3)
        size = (wide, thick, wide * 0.7)
        parts.append(
            block(draw.uniform(-0.02, 0.02), bottom, 0, size, of("plain", color, salt=number))
        )
        bottom += thick
    return "a pile of books", parts, 0.17


def bottle(draw: Draw) -> Thing:
    """A bottle with a neck and a label."""
    name, color = palette.strong_color(draw, ("white",))
    glass = of("plain", scaled(color, 0.7), salt=9)
    parts = [
        post(0, 0, 0, 0.045, 0.2, glass),
        post(0, 0.05, 0, 0.0465, 0.09, of("striped", WHITE, color, scale=0.04)),
        ball(0, 0.155, 0, 0.044, glass),
        post(0, 0.2, 0, 0.018, 0.11, glass),
    ]
    return f"a {name} bottle", parts, 0.06


def fruit(draw: Draw) -> Thing:
    """Fruits on a plate."""
    name, color = draw.choice(
        [
            ("oranges", palette.linear(palette.STRONG["orange"])),
            ("apples", palette.linear((150, 190, 60))),
            ("red apples", palette.linear(palette.STRONG["red"])),
            ("lemons", palette.linear(palette.STRONG["yellow"])),
        ]
    )
    skin = of("plain", color, salt=13)
    parts = [post(0, 0, 0, 0.15, 0.025, of("plain", WHITE, salt=2))]
    for x, z in ((-0.06, -0.04), (0.065, -0.03), (0.0, 0.065)):
        parts.append(ball(x, 0.025, z, 0.052, skin))
    parts.append(ball(0, 0.105, 0, 0.05, skin))
    return f"a plate of {name}", parts, 0.16


def table_lamp(draw: Draw) -> Thing:
    """A small lamp with a shade."""
    name, color = palette.soft_color(draw)
    _, foot = palette.strong_color(draw)
    parts = [
        post(0, 0, 0, 0.07, 0.02, of("plain", foot)),
        ball(0, 0.01, 0, 0.06, of("plain", foot, salt=3)),
        post(0, 0.12, 0, 0.012, 0.1, of("plain", DARK)),
        post(0, 0.2, 0, 0.12, 0.16, of("plain", color, glow=0.7)),
    ]
    return f"a lamp with a {name} shade", parts, 0.13


def mug(draw: Draw) -> Thing:
    """A mug with a handle."""
    name, color = palette.strong_color(draw)
    kind = draw.choice(["plain", "striped", "dots"])
    clay = of(kind, color, palette.blended(color, WHITE, 0.8), scale=0.025, salt=3)
    parts = [post(0, 0, 0, 0.045, 0.1, clay), block(0.055, 0.025, 0, (0.03, 0.055, 0.015), clay)]
    return f"a {name} mug", parts, 0.08


THINGS: tuple[Callable[[Draw], Thing], ...] = (
    vase,
    orb,
    small_globe,
    cubes,
    books,
    bottle,
    fruit,
    table_lamp,
    mug,
)


def things_on(draw: Draw, width: float, depth: float, count: int) -> tuple[str, list[Part]]:
    """Different things side by side on a top of ``width`` x ``depth``.

    Returns:
        What they are in words, and their parts around the middle of the top.
    """
    words, parts = [], []
    for number, make in enumerate(draw.shuffled(THINGS)[:count]):
        phrase, own, radius = make(draw)
        field = width / count
        room = max(0.0, field / 2 - radius)
        x = (number + 0.5) * field - width / 2 + draw.uniform(-room, room)
        reach = max(0.0, depth / 2 - radius)
        parts += moved(own, x, 0, draw.uniform(-reach, reach))
        words.append(phrase)
    return listed(words), parts


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    if len(words) <= 1:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def beach_ball(draw: Draw) -> Piece:
    """A ball of coloured segments on the floor."""
    first, one = palette.strong_color(draw, ("white",))
    second, two = palette.strong_color(draw, (first, "white"))
    r = draw.uniform(0.2, 0.3)
    cover = of("segments", one, WHITE, two)
    return Piece(
        f"a beach ball in {first}, white and {second}", (ball(0, 0, 0, r, cover),), yaw=0.7
    )


def crate(draw: Draw) -> Piece:
    """A wooden box."""
    name, wood = palette.some_wood(draw)
    size = draw.uniform(0.4, 0.6)
    side = of("slats", wood.colors[1], wood.colors[0], salt=wood.salt)
    return Piece(f"a {name} crate", (block(0, 0, 0, (size, size, size), side),))


def pouf(draw: Draw) -> Piece:
    """A round cushion on the floor."""
    name, color = palette.strong_color(draw)
    kind = draw.choice(["plaid", "striped", "dots", "fabric"])
    cover = of(kind, color, palette.blended(color, WHITE, 0.5), WHITE, scale=0.09, salt=5)
    return Piece(f"a {name} pouf", (post(0, 0, 0, draw.uniform(0.24, 0.32), 0.36, cover),))


def toy_blocks(draw: Draw) -> Piece:
    """Three cubes of three colours."""
    names: list[str] = []
    parts: list[Part] = []
    for x, bottom, z in ((-0.13, 0.0, 0.0), (0.13, 0.0, 0.03), (0.0, 0.24, 0.01)):
        name, color = palette.strong_color(draw, tuple(names))
        names.append(name)
        kind = of(draw.choice(["plain", "dots"]), color, WHITE, scale=0.12, salt=len(names))
        parts.append(block(x, bottom, z, (0.24, 0.24, 0.24), kind))
    return Piece(f"toy blocks in {listed(names)}", tuple(parts))


def picture(draw: Draw) -> Piece:
    """A framed painting."""
    width, height = draw.uniform(0.55, 1.1), draw.uniform(0.5, 0.8)
    name, colors = draw.choice(
        [
            ("landscape", _landscape(draw)),
            ("abstract", _three(draw)),
            ("rings", _three(draw)),
        ]
    )
    frame = of("plain", draw.choice([DARK, (0.4, 0.28, 0.1), WHITE, (0.16, 0.08, 0.04)]))
    painting = of(name, *colors, salt=draw.integer(1, 10**6))
    thick = draw.uniform(0.03, 0.06)
    parts = (
        block(0, -height / 2 - thick, -0.016, (width + 2 * thick, height + 2 * thick, 0.03), frame),
        block(0, -height / 2, -0.02, (width, height, 0.035), painting),
    )
    words = {"landscape": "landscape painting", "abstract": "abstract painting"}
    return Piece(f"a framed {words.get(name, 'painting of rings')}", parts)


def _three(draw: Draw) -> tuple[Color, Color, Color]:
    first, one = palette.strong_color(draw)
    _, two = palette.strong_color(draw, (first,))
    third = palette.soft_color(draw)[1] if draw.chance(0.6) else palette.strong_color(draw)[1]
    return one, two, third


def _landscape(draw: Draw) -> tuple[Color, Color, Color]:
    return draw.choice(
        [
            ((0.45, 0.62, 0.85), (0.16, 0.3, 0.42), (0.18, 0.32, 0.1)),
            ((0.95, 0.55, 0.25), (0.42, 0.14, 0.2), (0.12, 0.06, 0.12)),
            ((0.75, 0.8, 0.8), (0.35, 0.48, 0.55), (0.5, 0.38, 0.14)),
        ]
    )


def wall_clock(draw: Draw) -> Piece:
    """A round clock."""
    r = draw.uniform(0.16, 0.24)
    _, rim = palette.strong_color(draw)
    dial = of("clock", WHITE, DARK, rim)
    part = Part("cylinder", (0, 0, -0.02), (r, r, 0.02), dial, axis=2)
    return Piece("a wall clock", (part,))
