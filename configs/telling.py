"""How the service tells of itself: logs, traces, webhooks. Metrics have nothing to choose."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator

from configs.base import Settings

_SECRET_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)


class LoggingSettings(Settings):
    """The project's own log lines, in all processes; Ray's and Serve's are theirs."""

    format: Literal["text", "json"] = Field(
        default="text", description="json: an object a line, with the ids of scene and clip"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lines below it are left out"
    )


class TracingSettings(Settings):
    """OpenTelemetry spans of scenes, trajectories, attempts and stages; takes the extra tracing."""

    endpoint: AnyHttpUrl = Field(
        description="OTLP over HTTP, the whole address: http://collector:4318/v1/traces"
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="sent with each export, such as a token"
    )
    timeout_s: float = Field(default=10.0, gt=0, description="of one export")


class WebhookSettings(Settings):
    """Telling of scenes to the addresses that their senders name."""

    secrets: tuple[SecretStr, ...] = Field(
        min_length=1,
        description="whsec_ and 24 to 64 bytes in base64; each signs, so that receivers can go "
        "over from one to the next",
    )
    allow_http: bool = Field(default=False, description="whether a URL may be http")
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="names or addresses that may be private, loopback or link-local",
    )
    timeout_s: float = Field(default=10.0, gt=0, description="of one request, the answer included")
    first_retry_s: float = Field(default=5.0, gt=0, description="doubles with each failure")
    longest_retry_s: float = Field(default=3600.0, gt=0)
    give_up_after_s: float = Field(
        default=86_400.0, gt=0, description="since the scene's change that could not be told"
    )
    max_in_flight: int = Field(default=16, ge=1, description="requests at once")

    @field_validator("secrets")
    @classmethod
    def _secrets_are_long_enough(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            prefix, found, encoded = secret.get_secret_value().partition(_SECRET_PREFIX)
            try:
                key = base64.b64decode(encoded, validate=True) if found and not prefix else b""
            except binascii.Error:
                key = b""
            if len(key) not in _SECRET_BYTES:
                raise ValueError(
                    "a webhook secret is whsec_ and 24 to 64 bytes in base64; make one with "
                    "`echo whsec_$(head -c 32 /dev/urandom | base64)`"
                )
        return secrets
