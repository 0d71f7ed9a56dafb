"""How large an input may be before anything of it is decoded.

Owns the numbers. Readers take them as a parameter, so that a server may set tighter ones; what
an upload may weigh in all is the server's business.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Upper and lower bounds that the readers check from headers, before decoding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side: int = Field(default=16, ge=1, description="pixels of an image's shorter side")
    max_image_pixels: int = Field(default=64_000_000, ge=1, description="pixels of one image")
    max_frame_pixels: int = Field(default=9_437_184, ge=1, description="pixels of a video frame")
    max_frames: int = Field(default=1024, ge=1, description="frames of a video")
    max_seconds: float = Field(default=600.0, gt=0, description="duration of a video, seconds")
    max_cameras: int = Field(default=4096, ge=1, description="cameras of one file")
    max_json_bytes: int = Field(default=16_777_216, ge=1, description="bytes of a JSON file")
    max_prompt_chars: int = Field(default=20_000, ge=1, description="characters of a prompt")
    max_trajectories: int = Field(default=512, ge=1, description="trajectories of a scene")
    max_start_frames: int = Field(default=512, ge=1, description="start frames of a scene")


DEFAULT_LIMITS = Limits()
