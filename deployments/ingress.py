"""The ingress deployment: a process that serves the HTTP API. No tensor is touched here.

Owns putting the API's backend together; the routes are api.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from actors.log_lines import LogOptions, set_up_logging
from configs.settings import AuthSettings, IngressSettings, UploadLimits, UriSettings
from deployments.api import Backend, create_api
from deployments.copies import remove_copies_for_ever
from deployments.event_feed import EventFeed
from deployments.folders import SceneFolders
from deployments.key_store import KeyStore
from deployments.offers import Offers
from deployments.outage import wait_for_store
from deployments.readiness import ServeReadiness
from deployments.store import Store
from deployments.submission import Submitter
from worldstereo.config import ModelConfig, Variant

logger = logging.getLogger(__name__)

# How long a replica that starts waits for a store that is away, seconds.
_STORE_WAIT_S = 120.0


@dataclass(frozen=True)
class IngressSpec:
    """What the ingress is made from.

    Attributes:
        folders: of all scenes.
        database_url: of the store.
        settings, uploads: limits.
        source: where the model comes from, as it was configured.
        configs: config.json of each variant that is served.
        scales_to_zero: whether a variant may have no replica while nothing is to be done.
        offers: what can be done beside generating clips.
        auth: whether requests are asked for a key.
        uris: where scenes may be fetched from.
        logging: of its process.
    """

    folders: SceneFolders
    database_url: str
    settings: IngressSettings
    uploads: UploadLimits
    source: str
    configs: Mapping[Variant, ModelConfig]
    scales_to_zero: bool
    offers: Offers
    auth: AuthSettings
    uris: UriSettings
    logging: LogOptions | None = None


class Ingress:
    """The deployment; ``orchestrator`` is the handle of the orchestrator's deployment."""

    def __init__(self, spec: IngressSpec, orchestrator: Any) -> None:
        set_up_logging("ingress", spec.logging)
        self._orchestrator = orchestrator
        store = wait_for_store(
            lambda outage: Store(spec.database_url, outage=outage), _STORE_WAIT_S
        )
        self._backend = Backend(
            store=store,
            folders=spec.folders,
            submitter=Submitter(
                store,
                spec.folders,
                spec.configs,
                spec.uploads,
                spec.offers,
                max_queued_scenes=spec.settings.max_queued_scenes,
                max_validations=spec.settings.max_validations,
                uris=spec.uris,
            ),
            feed=EventFeed(
                store, poll_s=spec.settings.event_poll_s, heartbeat_s=spec.settings.heartbeat_s
            ),
            readiness=ServeReadiness(list(spec.configs), scales_to_zero=spec.scales_to_zero),
            wake=self._wake,
            source=spec.source,
            configs=spec.configs,
            offers=spec.offers,
            keys=KeyStore(spec.database_url) if spec.auth.required else None,
        )
        # Serve runs constructors in the loop that serves requests.
        self._copies = asyncio.get_running_loop().create_task(
            remove_copies_for_ever(store, spec.folders)
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor."""
        return create_api(self._backend)

    async def _wake(self) -> None:
        # Sent, not awaited: an orchestrator that is away finds the news when it is back.
        self._orchestrator.wake.remote()
