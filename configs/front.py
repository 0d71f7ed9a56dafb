"""What stands in front of the service: limits, keys, addresses, what is kept and where."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from configs.base import GIB, MIB, Settings


class UploadLimits(Settings):
    """What one upload may be; checked while it streams, before anything is decoded."""

    max_upload_bytes: int = Field(default=2 * GIB, ge=1, description="the whole request body")
    max_extracted_bytes: int = Field(default=8 * GIB, ge=1, description="sum over an archive")
    max_file_bytes: int = Field(default=1 * GIB, ge=1, description="one file of an archive")
    max_files: int = Field(default=20_000, ge=1)
    max_parameters_bytes: int = Field(
        default=1 * MIB, ge=1, description="the JSON beside a file; cameras take most of it"
    )


class IngressSettings(Settings):
    """The HTTP deployment."""

    replicas: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=0.1, gt=0)
    max_ongoing_requests: int = Field(
        default=1000, ge=1, description="a replica's; every open event stream is one"
    )
    max_validations: int = Field(
        default=2, ge=1, description="uploads that one replica unpacks and validates at once"
    )
    max_queued_scenes: int = Field(
        default=10_000, ge=1, description="submission beyond it is refused with 429"
    )
    heartbeat_s: float = Field(default=5.0, gt=0, description="comment line of an idle stream")
    event_poll_s: float = Field(default=0.1, gt=0, description="how soon a stream sees an event")


class AuthSettings(Settings):
    """Who may use the HTTP API."""

    required: bool = Field(
        default=False,
        description="each request but health's brings an API key, and sees its own scenes alone",
    )
    allow_unauthenticated: bool = Field(
        default=False,
        description="listen beyond loopback without keys: whoever reaches the port can send, see "
        "and cancel every scene",
    )


class UriSettings(Settings):
    """Where the server reads scenes from when a submission names an address instead of files."""

    allowed: tuple[str, ...] = Field(
        default=(),
        description="prefixes such as https://scenes.example.org/ready/ or s3://bucket/; none: "
        "nothing is read",
    )
    timeout_s: float = Field(default=600.0, gt=0, description="of a whole download")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="and between two bytes")
    max_redirects: int = Field(default=3, ge=0, description="each to an allowed place again")

    @field_validator("allowed")
    @classmethod
    def _prefixes(cls, allowed: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in allowed:
            scheme, found, rest = prefix.partition("://")
            if scheme not in ("https", "s3") or not found or not rest.strip("/"):
                raise ValueError(f"{prefix!r} is none of https://HOST/PATH/ and s3://BUCKET/PATH/")
            if not prefix.endswith("/"):
                raise ValueError(f"{prefix!r} must end with /, or it would allow more than it says")
        return allowed


class BlobSettings(Settings):
    """What keeps the files of scenes where nodes share no folder."""

    url: str = Field(
        pattern=r"^[a-z0-9]+://.+", description="by fsspec, such as s3://bucket/prefix"
    )
    options: dict[str, Any] = Field(
        default={},
        description="of fsspec's file system, such as endpoint_url; credentials are better left "
        "to the environment",
    )


class RetentionSettings(Settings):
    """How long ended scenes are kept; with both limits null, until somebody deletes them."""

    max_age_s: float | None = Field(
        default=None, gt=0, description="a scene goes this long after its end; null: never"
    )
    max_bytes: int | None = Field(
        default=None,
        ge=0,
        description="of all ended scenes' files together; beyond it the oldest go; null: any",
    )
    sweep_interval_s: float = Field(default=300.0, gt=0)
    max_scenes_per_sweep: int = Field(
        default=20, ge=1, description="how many are removed at once; the next sweep goes on"
    )
