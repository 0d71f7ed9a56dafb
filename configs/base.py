"""What all settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

GIB = 2**30
MIB = 2**20


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
