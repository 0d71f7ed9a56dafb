"""What a server can do beside generating clips, and the refusal of what it cannot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from worldstereo_client.schemas import Output

from deployments.outbound import OutboundRules, check_url
from worldstereo.errors import ParameterError


@dataclass(frozen=True)
class Offers:
    """What a server can do beside generating clips.

    Attributes:
        outputs: what a scene's ``outputs`` may name.
        depth_estimator: of images that come without depth; None: they must bring it.
        webhooks: where they may be; None: the server sends none.
    """

    outputs: tuple[Output, ...]
    depth_estimator: str | None = None
    webhooks: OutboundRules | None = None

    def check(self, wanted: Collection[Output]) -> None:
        """ParameterError where something is wanted that is not offered."""
        missing = [name for name in wanted if name not in self.outputs]
        if missing:
            raise ParameterError(
                "this server cannot make the output",
                where="outputs",
                got=", ".join(missing),
                allowed=", ".join(self.outputs),
            )

    def check_webhook(self, url: str | None) -> None:
        """ParameterError for a webhook that this server will not tell of anything."""
        if url is None:
            return
        if self.webhooks is None:
            raise ParameterError(
                "this server sends no webhooks",
                where="webhook_url",
                got=repr(url[:200]),
                fix="follow the scene's events, or set webhooks in the server's settings",
            )
        check_url(url, self.webhooks, "webhook_url")
