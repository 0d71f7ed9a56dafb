"""What a caller chooses about the scene that is built, and which trajectories it will have.

Owns the parameters, the published defaults and the ids that follow from them before anything is
computed. Needs no torch: a server checks a request with it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from worldstereo.builder.presets import Ellipse, Orbit
from worldstereo.builder.specs import Chain, TrajectorySpec, trajectory_names
from worldstereo.errors import ParameterError
from worldstereo.formats.canonical import VIEW_ORDER
from worldstereo.formats.limits import DEFAULT_LIMITS
from worldstereo.geometry.trajectories import FRAMES

# A path's share of what was asked that shortening leaves at least.
MINIMUM_EXTENT = 0.1
MAX_TRAJECTORIES = 64

# The published reconstruction scenes', in their order.
PERSPECTIVE_TRAJECTORIES: tuple[TrajectorySpec, ...] = (
    Ellipse(preset="ellipse", radius_x=0.3, radius_y=0.4, name="traj_eloop"),
    Orbit(preset="orbit", elevation=45, name="traj_up"),
    Orbit(preset="orbit", azimuth=180, name="traj_right"),
    Orbit(preset="orbit", azimuth=-180, name="traj_left"),
)
# Of each view of a panorama, in canonical order; the azimuth turns about the vertical, which a
# level view's start camera has as its own upward direction.
PANORAMA_TRAJECTORIES: tuple[TrajectorySpec, ...] = (
    Chain(
        preset="chain",
        segments=(
            Orbit(preset="orbit", elevation=45),
            Orbit(preset="orbit", azimuth=60, up=(0, -1, 0)),
        ),
        name="traj2",
    ),
    Orbit(preset="orbit", azimuth=120, name="traj0"),
    Orbit(preset="orbit", azimuth=-120, name="traj1"),
)
# A third of a turn apart.
PANORAMA_VIEWS = ("view0", "view1", "view2")


class BuildParameters(BaseModel):
    """What a caller may choose about a scene that is built from one image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["perspective", "panorama"] = Field(
        default="perspective", description="one view, or an equirectangular panorama"
    )
    prompt: str = Field(
        max_length=DEFAULT_LIMITS.max_prompt_chars, description="what the clips are conditioned on"
    )
    trajectories: Annotated[tuple[TrajectorySpec, ...], Field(max_length=MAX_TRAJECTORIES)] = Field(
        default=(), description="camera paths; none: the published ones of the kind"
    )
    field_of_view: float | None = Field(
        default=None,
        ge=5,
        le=160,
        allow_inf_nan=False,
        description="horizontal, in degrees; None: what the source of depth finds, else 60, and "
        "the report says that it was assumed",
    )
    clearance: float = Field(
        default=0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="how near a path may come to the points, in pivot distances; 0: any",
    )
    frames: int = Field(default=FRAMES, ge=2, le=257, description="keyframes of a trajectory")

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty; describe the scene")
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise ValueError("the prompt holds half a character, which has no form in UTF-8")
        return prompt

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = trajectory_names(self.paths)
        if self.kind == "panorama" and not set(names) <= set(VIEW_ORDER):
            raise ParameterError(
                "a view of a panorama has trajectories of fixed names",
                where="trajectories",
                got=", ".join(names),
                allowed=f"the names {', '.join(VIEW_ORDER)}",
            )
        return self

    @property
    def paths(self) -> tuple[TrajectorySpec, ...]:
        """The trajectories, or the defaults of the kind, in the order of generation."""
        if self.trajectories:
            return self.trajectories
        defaults = {
            "perspective": PERSPECTIVE_TRAJECTORIES,
            "panorama": PANORAMA_TRAJECTORIES,
        }
        return defaults[self.kind]


def check_kind(parameters: BuildParameters, kind: Literal["perspective", "panorama"]) -> None:
    """ParameterError where the parameters are those of another kind of image."""
    if parameters.kind != kind:
        raise ParameterError(
            "the parameters are those of another kind of image",
            where="kind",
            got=repr(parameters.kind),
            allowed=repr(kind),
        )


def trajectory_ids(parameters: BuildParameters) -> tuple[str, ...]:
    """The ids that the built scene's trajectories will have, in canonical order.

    ``renders/<name>`` in the order given; of a panorama ``<view>/<name>`` for each view.
    """
    names = trajectory_names(parameters.paths)
    if parameters.kind == "perspective":
        return tuple(f"renders/{name}" for name in names)
    order = [name for name in VIEW_ORDER if name in names]
    return tuple(f"{view}/{name}" for view in PANORAMA_VIEWS for name in order)
