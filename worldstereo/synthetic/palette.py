"""Colours that have a name, woods, and materials made of them.

Owns the colours. They are linear light: the ray caster encodes a value v as 255 sqrt(v).
"""

from __future__ import annotations

from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Color, Material

# Encoded values 0..255, as an image shows them in plain light.
STRONG = {
    "red": (196, 46, 42),
    "orange": (226, 124, 38),
    "yellow": (232, 190, 52),
    "green": (58, 142, 70),
    "dark green": (36, 92, 62),
    "turquoise": (44, 158, 158),
    "blue": (46, 94, 178),
    "navy blue": (36, 52, 108),
    "purple": (122, 62, 150),
    "pink": (222, 118, 156),
    "white": (236, 234, 228),
    "black": (44, 44, 48),
    "grey": (134, 138, 142),
}
SOFT = {
    "cream": (236, 226, 200),
    "white": (238, 237, 232),
    "pale blue": (190, 210, 226),
    "pale green": (198, 216, 188),
    "sage": (164, 180, 150),
    "sand-coloured": (222, 202, 166),
    "peach": (238, 204, 178),
    "lavender": (206, 196, 226),
    "light grey": (206, 208, 210),
    "terracotta": (200, 132, 104),
    "mustard": (214, 178, 94),
    "teal": (96, 150, 152),
}
WOODS = {
    "oak": ((120, 84, 48), (190, 146, 94)),
    "walnut": ((70, 44, 28), (124, 82, 54)),
    "pine": ((186, 140, 84), (228, 190, 132)),
    "cherry wood": ((112, 50, 30), (168, 88, 56)),
    "grey-stained wood": ((110, 106, 100), (164, 160, 152)),
}
WHITE: Color = (0.86, 0.85, 0.82)
DARK: Color = (0.03, 0.03, 0.035)
STEEL: Color = (0.36, 0.37, 0.39)


def linear(encoded: tuple[int, int, int], gain: float = 1.0) -> Color:
    """An encoded colour 0..255 in linear light."""
    r, g, b = (min(1.0, gain * (value / 255) ** 2) for value in encoded)
    return r, g, b


def scaled(color: Color, gain: float) -> Color:
    """A colour made lighter or darker."""
    r, g, b = (min(1.0, value * gain) for value in color)
    return r, g, b


def blended(first: Color, second: Color, share: float) -> Color:
    """A colour between two."""
    r, g, b = (a + share * (z - a) for a, z in zip(first, second, strict=True))
    return r, g, b


def strong_color(draw: Draw, but: tuple[str, ...] = ()) -> tuple[str, Color]:
    """A named strong colour, a little varied."""
    name = draw.choice([name for name in STRONG if name not in but])
    return name, linear(STRONG[name], draw.uniform(0.85, 1.15))


def soft_color(draw: Draw, but: tuple[str, ...] = ()) -> tuple[str, Color]:
    """A named soft colour, a little varied."""
    name = draw.choice([name for name in SOFT if name not in but])
    return name, linear(SOFT[name], draw.uniform(0.9, 1.05))


def of(
    texture: str,
    first: Color,
    second: Color | None = None,
    third: Color | None = None,
    *,
    scale: float = 0.1,
    salt: int = 0,
    glow: float = 0.0,
    turned: bool = False,
) -> Material:
    """A material; colours that are not given are the first."""
    colors = (first, first if second is None else second, first if third is None else third)
    return Material(texture, colors, scale, salt, glow, turned)


def some_wood(draw: Draw, *, turned: bool = False) -> tuple[str, Material]:
    """A named wood as one piece of timber."""
    name = draw.choice(list(WOODS))
    dark, light = WOODS[name]
    return name, of(
        "timber", linear(dark), linear(light), salt=draw.integer(1, 10**6), turned=turned
    )


def upright(material: Material) -> Material:
    """The same material with its pattern along the other direction."""
    return Material(
        material.texture,
        material.colors,
        material.scale,
        material.salt,
        material.glow,
        not material.turned,
    )
