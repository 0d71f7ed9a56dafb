"""What was built: how far each path goes, how much of each frame is unknown, what to beware of.

Owns the report of a built scene and its file. It lies in the scene's folder as
``build_report.json``, which readers of scenes pass over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worldstereo.builder.specs import TrajectorySpec
from worldstereo.formats.atomic import atomic_write_text

REPORT_FILE = "build_report.json"
# A share of holes above which a frame is mostly the model's invention.
MANY_HOLES = 0.6
# A share of pixels with a depth below which a render is mostly holes from the start.
FEW_DEPTHS = 0.5
# Peak signal-to-noise ratio below which the points do not show the start image.
POOR_START_DB = 18.0

IntrinsicsSource = Literal["depth", "field_of_view", "assumed", "cameras", "panorama"]


class TrajectoryReport(BaseModel):
    """One built trajectory.

    The extents are the numbers of the path's spec that say how far it goes, in its own units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    preset: str
    asked: dict[str, float] = Field(description="extent that was asked for")
    used: dict[str, float] = Field(description="extent after shortening")
    factor: float = Field(gt=0, le=1, description="how far the path goes, of what was asked")
    shortened: bool
    clearance: float = Field(ge=0, description="distance to the points that was kept, scene units")
    smallest_distance: float = Field(
        ge=0, description="from the path to the points at its nearest, scene units"
    )
    hole_share: list[float] = Field(description="of each frame, what no point covers, 0 to 1")


class StartCheck(BaseModel):
    """The points seen from the camera that they were lifted from, against its image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="the start image's name in the scene")
    covered: float = Field(ge=0, le=1, description="share of pixels that a point covers")
    psnr_db: float = Field(description="peak signal-to-noise ratio on them, decibels")


class BuildReport(BaseModel):
    """A built scene.

    ``intrinsics`` [3, 3] are the start image's, in pixels of ``image_size``; of a panorama its
    views'. The pivot distance is the median depth that lengths are fractions of; a panorama has
    one for each view, of which this is the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["perspective", "panorama"]
    image_size: tuple[int, int] = Field(description="(height, width) of the start image, pixels")
    size: tuple[int, int] = Field(description="working size (height, width)")
    intrinsics: list[list[float]]
    intrinsics_from: IntrinsicsSource = Field(description="where the intrinsics came from")
    field_of_view: float = Field(description="horizontal, degrees")
    metric: bool = Field(description="whether the unit of length is the metre")
    pivot_distance: float = Field(gt=0, description="median depth, scene units")
    valid_depth: float = Field(ge=0, le=1, description="share of pixels that have a depth")
    points: int = Field(gt=0, description="that the renders were made from")
    start: list[StartCheck]
    trajectories: list[TrajectoryReport]
    warnings: list[str] = Field(default=[], description="what the caller should know")

    def to_json(self) -> str:
        """The report as a JSON text; the same report gives the same text."""
        return self.model_dump_json(indent=1) + "\n"

    def write(self, folder: Path) -> Path:
        """Write ``build_report.json`` into a folder, whole or not at all; its path."""
        atomic_write_text(folder / REPORT_FILE, self.to_json())
        return folder / REPORT_FILE


def trajectory_warnings(report: TrajectoryReport, spec: TrajectorySpec) -> list[str]:
    """What the caller should know about one trajectory: shortened, too near, mostly holes.

    Args:
        report: of the trajectory.
        spec: as it was asked for.
    """
    found = []
    if report.shortened:
        used = ", ".join(f"{field} {value:.4g}" for field, value in report.used.items())
        found.append(
            f"{report.id}: shortened to {report.factor:.0%} of what was asked ({used}), to stay "
            f"{report.clearance:.3g} away from the points"
        )
    elif not spec.scalable and report.smallest_distance < report.clearance:
        found.append(
            f"{report.id}: comes within {report.smallest_distance:.3g} of the points; given "
            "cameras are not changed"
        )
    many = [index for index, share in enumerate(report.hole_share) if share > MANY_HOLES]
    if many:
        worst = max(report.hole_share)
        found.append(
            f"{report.id}: {len(many)} of {len(report.hole_share)} frames have more than "
            f"{MANY_HOLES:.0%} holes, from frame {many[0]} on, at most {worst:.0%}"
        )
    return found


def start_warnings(check: StartCheck) -> list[str]:
    """What the caller should know about a start image: its points do not show it."""
    if check.psnr_db >= POOR_START_DB:
        return []
    return [
        f"{check.id}: drawn from the start camera the points do not look like the image "
        f"({check.psnr_db:.1f} dB on the {check.covered:.0%} that they cover)"
    ]


def depth_warnings(valid_depth: float) -> list[str]:
    """What the caller should know about a depth map: it says little."""
    if valid_depth >= FEW_DEPTHS:
        return []
    return [f"only {valid_depth:.0%} of the pixels have a depth; the others are holes"]
