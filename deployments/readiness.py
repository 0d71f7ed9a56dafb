"""Whether a clip of each variant could be generated now, as Serve knows from its replicas.

A replica's own check asks its workers, so the controller's view is the replicas' answer; a call
to a replica would have to wait for the clip that it generates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ray import serve

from deployments.names import generator_name

# An answer is used again for this long, seconds: health checks are no faster.
_FRESH_S = 1.0


class ServeReadiness:
    """Asks Serve's controller.

    Args:
        variants: those that are served.
        scales_to_zero: whether having no replica is fine, since one comes when it is needed.
    """

    def __init__(self, variants: Sequence[str], *, scales_to_zero: bool) -> None:
        self._variants = variants
        self._scales_to_zero = scales_to_zero
        self._asked_at = float("-inf")
        self._answer: dict[str, bool] = {}

    async def ready(self) -> dict[str, bool]:
        """For each variant that is served, whether a replica can take a clip."""
        if time.monotonic() - self._asked_at > _FRESH_S:
            application = serve.get_replica_context().app_name
            status = await asyncio.to_thread(serve.status)
            found = status.applications.get(application)
            deployments = found.deployments if found else {}
            self._answer = {
                variant: self._can_run(deployments.get(generator_name(variant)))
                for variant in self._variants
            }
            self._asked_at = time.monotonic()
        return self._answer

    def _can_run(self, deployment: Any) -> bool:
        if deployment is None:
            return False
        running = deployment.replica_states.get("RUNNING", 0) > 0
        broken = deployment.status in ("UNHEALTHY", "DEPLOY_FAILED")
        return running or (self._scales_to_zero and not broken)
