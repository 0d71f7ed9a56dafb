"""What a synthetic world is made of: materials, parts, pieces, lights, and a whole layout.

Owns the values that the builders hand to the ray caster. Lengths in metres, angles in radians.

A layout has axes of its own: x right, y down, z away, the floor at y = 0, so that what stands on
it lies at negative y. A piece is made of parts in the piece's frame, whose origin is where it
stands; ``yaw`` turns it about the vertical. Parts are aligned with their piece's axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Vector = tuple[float, float, float]
# Linear light, 0 to 1 for surfaces.
Color = tuple[float, float, float]
Shape = Literal["box", "sphere", "cylinder", "plane", "dome"]


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        texture: a name of ``textures.TEXTURES``; it mixes the three colours.
        colors: three colours.
        scale: size of the texture's pattern in metres, where it has one.
        salt: tells equal textures apart.
        glow: share of its colour that does not depend on the light: 1 for a lamp.
        turned: the pattern runs along the other direction of the surface.
    """

    texture: str
    colors: tuple[Color, Color, Color]
    scale: float = 0.1
    salt: int = 0
    glow: float = 0.0
    turned: bool = False


@dataclass(frozen=True)
class Part:
    """A solid, or one of the surfaces around everything.

    Attributes:
        shape: ``plane`` and ``dome`` are seen from inside, the others are solids.
        center: in the piece's frame.
        half: half sizes along the axes; a cylinder's radius across its axis; a sphere's and a
            dome's radius three times; 0 along a plane's axis.
        axis: 0, 1, 2: along which a cylinder stands, across which a plane lies.
        side: of a plane: 1 when its normal points along the axis, else -1.
    """

    shape: Shape
    center: Vector
    half: Vector
    material: Material
    axis: int = 1
    side: float = 1.0


@dataclass(frozen=True)
class Piece:
    """One thing: a table with what stands on it, a picture, the room itself.

    Attributes:
        phrase: how a caption names it, with its article; "" for what no caption names.
        parts: in the piece's frame.
        position: where the frame's origin is in the layout.
        yaw: turns local x towards -z for yaw > 0 (about y, which points down).
        casts_shadow: False for lamps and panes.
    """

    phrase: str
    parts: tuple[Part, ...]
    position: Vector = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    casts_shadow: bool = True


@dataclass(frozen=True)
class Light:
    """A lamp or the sun.

    A surface at distance r with the light at an angle theta to its normal gets
    color x cos(theta) / (near + decay r^2).

    Attributes:
        position: of its centre.
        radius: its shadows are as soft as a ball of this radius makes them.
        color: its colour times its power.
        near, decay: how it falls off; 1 and 0 for the sun.
        shadows: whether things stand in its way.
    """

    position: Vector
    radius: float
    color: Color
    near: float = 0.6
    decay: float = 1.0
    shadows: bool = True


@dataclass(frozen=True)
class Beam:
    """Sunlight through a window, which lies in a plane across an axis of the layout.

    Attributes:
        center: of the window.
        half: half sizes of the window; 0 along the axis.
        axis: 0 or 2.
        direction: from the window into the room, not unit.
        color: colour times power.
    """

    center: Vector
    half: Vector
    axis: int
    direction: Vector
    color: Color


@dataclass(frozen=True)
class Layout:
    """A whole world before it is looked at.

    Attributes:
        pieces: the first one is what surrounds the others.
        lights: with or without shadows.
        beam: of a window, or None.
        ambient: light from everywhere onto what faces up, and onto what faces down.
        position, yaw: of the start camera, which is level.
        field_of_view: of the longer side of its images.
        reach: what lies farther than this from the camera is a backdrop.
        setting: the caption's first sentence.
    """

    pieces: tuple[Piece, ...]
    lights: tuple[Light, ...]
    beam: Beam | None
    ambient: tuple[Color, Color]
    position: Vector
    yaw: float
    field_of_view: float
    reach: float
    setting: str
