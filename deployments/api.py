"""The HTTP API: thin routes that validate, call and translate. The contract is schemas.py.

Everything behind the routes comes in as ``Backend``; nothing here knows Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from worldstereo_client.schemas import (
    ArtefactList,
    Health,
    ModelInfo,
    ModelList,
    Problem,
    Scene,
    ScenePage,
    SceneStatus,
)

from deployments import http_errors
from deployments.artefacts import find_artefact, list_artefacts
from deployments.ended_routes import add_ended_routes
from deployments.errors import StateConflict, ValidationError
from deployments.event_feed import EventFeed
from deployments.folders import SceneFolders
from deployments.records import SceneRecord, scene_urls
from deployments.store import Store
from deployments.submission import Offers, Submitter
from deployments.videos import add_video_routes
from worldstereo.config import ModelConfig, Variant, published_guidance, published_steps

_PROBLEMS: dict[int | str, dict[str, object]] = {
    "default": {"model": Problem, "description": "a problem body"}
}


class Readiness(Protocol):
    """Tells which variants can be generated."""

    async def ready(self) -> dict[str, bool]:
        """For each variant that is served, whether a replica can take a clip."""
        ...


@dataclass(frozen=True)
class Backend:
    """What the routes call.

    Attributes:
        store: all scenes.
        folders: their files.
        submitter: takes new ones.
        feed: streams their events.
        readiness: tells which variants can be generated.
        wake: tells the orchestrator that the store has news; losing one does no harm.
        source: where the model comes from, as it was configured.
        configs: config.json of each variant that is served.
        offers: what can be done beside generating clips.
    """

    store: Store
    folders: SceneFolders
    submitter: Submitter
    feed: EventFeed
    readiness: Readiness
    wake: Callable[[], Awaitable[None]]
    source: str
    configs: Mapping[Variant, ModelConfig]
    offers: Offers

    async def shown(self, record: SceneRecord) -> Scene:
        """The scene as HTTP shows it."""
        position = await asyncio.to_thread(self.store.queue_position, record)
        return record.on_the_wire(position, time.time())

    async def scene(self, scene_id: str) -> SceneRecord:
        """The scene; SceneNotFound when there is none."""
        return await asyncio.to_thread(self.store.scene, scene_id)

    async def cancel(self, scene_id: str) -> SceneRecord:
        """Ask for a scene's end; asking again changes nothing.

        Raises:
            StateConflict: it has completed or failed.
        """
        record = await self.scene(scene_id)
        if record.status not in (SceneStatus.CANCELLING, SceneStatus.CANCELLED):
            try:
                await asyncio.to_thread(self.store.advance_scene, scene_id, SceneStatus.CANCELLING)
            except StateConflict:
                record = await self.scene(scene_id)
                if record.status not in (SceneStatus.CANCELLING, SceneStatus.CANCELLED):
                    raise
        await self.wake()
        return await self.scene(scene_id)

    async def models(self) -> list[ModelInfo]:
        """The variants that are served."""
        ready = await self.readiness.ready()
        # A folder of the server is nobody's business.
        source = Path(self.source).name if Path(self.source).is_absolute() else self.source
        return [
            ModelInfo(
                id=variant,
                source=source,
                nframe=config.nframe,
                sizes=list(config.scale_map),
                num_inference_steps=published_steps(variant, config),
                guidance_scale=published_guidance(variant),
                ready=ready.get(variant, False),
            )
            for variant, config in self.configs.items()
        ]


def create_api(backend: Backend) -> FastAPI:
    """The application that serves ``backend`` over HTTP."""
    api = FastAPI(title="WorldStereo", version="1", responses=_PROBLEMS)
    http_errors.install(api)
    _add_scene_routes(api, backend)
    _add_result_routes(api, backend)
    _add_server_routes(api, backend)
    add_ended_routes(api, backend)
    add_video_routes(api, backend)
    return api


def _add_scene_routes(api: FastAPI, backend: Backend) -> None:
    @api.post("/v1/scenes", status_code=202, response_model=Scene, openapi_extra=_SUBMIT_BODY)
    async def submit(
        request: Request,
        response: Response,
        content_type: Annotated[str, Header()] = "",
        content_length: Annotated[str | None, Header()] = None,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Scene:
        """Validate and queue a scene."""
        record = await backend.submitter.submit(
            request.stream(), content_type, content_length, idempotency_key
        )
        await backend.wake()
        response.headers["Location"] = scene_urls(record.id).self
        return await backend.shown(record)

    @api.get("/v1/scenes")
    async def scenes(
        status: SceneStatus | None = None,
        cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> ScenePage:
        """Scenes, newest first."""
        before = int(cursor) if cursor else None
        found, last = await asyncio.to_thread(backend.store.page, status, before, limit)
        cursor = None if last is None else str(last)
        return ScenePage(scenes=[record.summary() for record in found], next_cursor=cursor)

    @api.get("/v1/scenes/{scene_id}")
    async def scene(scene_id: str) -> Scene:
        """One scene as it stands."""
        return await backend.shown(await backend.scene(scene_id))

    @api.post("/v1/scenes/{scene_id}/cancel", status_code=202)
    async def cancel(scene_id: str) -> Scene:
        """Stop a scene at the next denoising step of each of its clips."""
        return await backend.shown(await backend.cancel(scene_id))

    @api.get("/v1/scenes/{scene_id}/events", response_class=StreamingResponse)
    async def events(
        scene_id: str, last_event_id: Annotated[str | None, Header()] = None
    ) -> StreamingResponse:
        """The scene's events, those after Last-Event-ID first, until it ends."""
        after = _event_id(last_event_id)
        await backend.scene(scene_id)
        return StreamingResponse(
            backend.feed.stream(scene_id, after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


def _add_result_routes(api: FastAPI, backend: Backend) -> None:
    @api.get("/v1/scenes/{scene_id}/artefacts")
    async def artefacts(scene_id: str) -> ArtefactList:
        """The files of a scene that are there so far."""
        record = await backend.scene(scene_id)
        output, url = backend.folders.scene(record.id).output, scene_urls(record.id).self
        return ArtefactList(artefacts=await asyncio.to_thread(list_artefacts, output, url))

    @api.get("/v1/scenes/{scene_id}/artefacts/{name:path}", response_class=FileResponse)
    async def artefact(
        scene_id: str, name: str, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """One file, whole or in ranges."""
        record = await backend.scene(scene_id)
        output, url = backend.folders.scene(record.id).output, scene_urls(record.id).self
        path, about = await asyncio.to_thread(find_artefact, output, name, url)
        headers = {"ETag": f'"{about.sha256}"', "Cache-Control": "private, no-cache"}
        if if_none_match and headers["ETag"] in if_none_match:
            return Response(status_code=304, headers=headers)
        return FileResponse(path, media_type=about.media_type, headers=headers)


def _add_server_routes(api: FastAPI, backend: Backend) -> None:
    @api.get("/v1/models")
    async def models() -> ModelList:
        """The variants that this server offers."""
        return ModelList(
            models=await backend.models(),
            depth_estimator=backend.offers.depth_estimator,
            outputs=list(backend.offers.outputs),
        )

    @api.get("/healthz")
    async def healthz() -> Health:
        """Whether this process answers."""
        return Health(status="ok")

    @api.get("/readyz", response_model=Health)
    async def readyz() -> Response:
        """Whether a clip can be generated now."""
        missing = [name for name, ready in (await backend.readiness.ready()).items() if not ready]
        if not missing:
            return JSONResponse(Health(status="ok").model_dump())
        reason = f"no replica can take a clip of {', '.join(missing)}"
        health = Health(status="not_ready", reason=reason)
        return JSONResponse(health.model_dump(), status_code=503, headers={"Retry-After": "5"})


def _event_id(header: str | None) -> int:
    if header is None or header == "":
        return 0
    if not header.isdecimal() or len(header) > 18:
        raise ValidationError("not an event's id", where="Last-Event-ID", got=repr(header[:50]))
    return int(header)


_SUBMIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "either scene or image",
                    "properties": {
                        "scene": {
                            "type": "string",
                            "format": "binary",
                            "description": "zip, tar or tar.gz of one scene folder",
                        },
                        "image": {
                            "type": "string",
                            "format": "binary",
                            "description": "PNG, JPEG or WebP to build a scene from, as the "
                            "parameter build says",
                        },
                        "depth": {
                            "type": "string",
                            "format": "binary",
                            "description": "depth map of the start image: .npy, .exr or .png",
                        },
                        "depth_unit": {
                            "type": "string",
                            "format": "binary",
                            "description": "JSON that states the unit of a .png depth map",
                        },
                        "parameters": {
                            "type": "string",
                            "description": "SceneRequest as JSON",
                        },
                    },
                }
            }
        },
    }
}
