"""The HTTP API: thin routes that validate, call and translate. The contract is schemas.py.

Everything behind the routes comes in as ``Backend``; nothing here knows Ray.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from worldstereo_client.schemas import (
    Artefact,
    ArtefactList,
    Event,
    Health,
    ModelInfo,
    ModelList,
    Scene,
    ScenePage,
    SceneStatus,
    UriSubmission,
)

from deployments import http_errors
from deployments.artefacts import find_artefact, list_artefacts, listed_artefacts
from deployments.ended_routes import add_ended_routes
from deployments.errors import SceneNotFound, StateConflict, StoreAway, ValidationError
from deployments.event_feed import EventFeed
from deployments.folders import SceneFolders
from deployments.guard import CallerOf, Guard
from deployments.key_store import KeyStore
from deployments.keys import Caller
from deployments.offers import Offers
from deployments.openapi import Responses, document, problems, reference
from deployments.ranges import RangedFile
from deployments.records import SceneRecord, scene_urls
from deployments.store import Store
from deployments.submission import Submitter, refuse_encoding
from deployments.videos import add_video_routes
from worldstereo.config import ModelConfig, Variant, published_guidance, published_steps

# Ids of scenes; what is none of them is not looked for.
_SCENE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


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
        keys: that requests are asked for; None: nobody is asked, and everybody may do all.
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
    keys: KeyStore | None = None

    async def shown(self, record: SceneRecord) -> Scene:
        """The scene as HTTP shows it."""
        position = await asyncio.to_thread(self.store.queue_position, record)
        return record.on_the_wire(position, time.time())

    async def scene(self, scene_id: str, caller: Caller) -> SceneRecord:
        """The scene; SceneNotFound when there is none, or none that the caller may see."""
        found = _SCENE_ID.fullmatch(scene_id)
        record = await asyncio.to_thread(self.store.scene, scene_id) if found else None
        if record is None or not caller.sees(record.owner):
            # In the words of one that is not there: nobody learns of other people's scenes.
            raise SceneNotFound("no such scene", where=f"scene {scene_id[:100]}")
        return record

    async def cancel(self, scene_id: str, caller: Caller) -> SceneRecord:
        """Ask for a scene's end; asking again changes nothing.

        Raises:
            StateConflict: it has completed or failed.
        """
        record = await self.scene(scene_id, caller)
        if record.status not in (SceneStatus.CANCELLING, SceneStatus.CANCELLED):
            try:
                await asyncio.to_thread(self.store.advance_scene, scene_id, SceneStatus.CANCELLING)
            except StateConflict:
                record = await self.scene(scene_id, caller)
                if record.status not in (SceneStatus.CANCELLING, SceneStatus.CANCELLED):
                    raise
        await self.wake()
        return await self.scene(scene_id, caller)

    def artefacts(self, scene_id: str) -> list[Artefact]:
        """The files of a scene that are there so far; blocks."""
        url = scene_urls(scene_id).self
        index = self.folders.results_index(scene_id)
        if index is not None:
            return listed_artefacts(index, url)
        return list_artefacts(self.folders.scene(scene_id).output, url)

    def artefact(self, scene_id: str, name: str) -> tuple[Path, Artefact]:
        """One file of a scene and its description; blocks. ArtefactNotFound where it is none."""
        folder = self.folders.folder_with(scene_id, name)
        return find_artefact(folder, name, scene_urls(scene_id).self)

    async def why_not_ready(self) -> str | None:
        """What keeps clips from being generated now; None: nothing."""
        try:
            await asyncio.to_thread(self.store.check)
        except StoreAway as error:
            return str(error)
        missing = [name for name, ready in (await self.readiness.ready()).items() if not ready]
        return f"no replica can take a clip of {', '.join(missing)}" if missing else None

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
                guidance_scale=published_guidance(variant, config),
                ready=ready.get(variant, False),
            )
            for variant, config in self.configs.items()
        ]


def create_api(backend: Backend) -> FastAPI:
    """The application that serves ``backend`` over HTTP."""
    api = FastAPI(title="WorldStereo", version="1")
    api.openapi = document(api, keys_required=backend.keys is not None)  # type: ignore[method-assign]
    http_errors.install(api)
    if backend.keys is not None:
        api.add_middleware(Guard, keys=backend.keys)
    _add_scene_routes(api, backend)
    _add_result_routes(api, backend)
    _add_server_routes(api, backend)
    add_ended_routes(api, backend)
    add_video_routes(api, backend)
    return api


def _add_scene_routes(api: FastAPI, backend: Backend) -> None:
    @api.post(
        "/v1/scenes",
        status_code=202,
        response_model=Scene,
        openapi_extra=_SUBMIT_BODY,
        responses=problems(400, 409, 413, 422, 429),
    )
    async def submit(
        request: Request,
        response: Response,
        caller: CallerOf,
        content_type: Annotated[str, Header()] = "",
        content_length: Annotated[str | None, Header()] = None,
        content_encoding: Annotated[str, Header()] = "",
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Scene:
        """Validate and queue a scene."""
        refuse_encoding(content_encoding)
        record = await backend.submitter.submit(
            request.stream(), content_type, content_length, idempotency_key, caller
        )
        await backend.wake()
        response.headers["Location"] = scene_urls(record.id).self
        return await backend.shown(record)

    @api.get("/v1/scenes", responses=problems(422))
    async def scenes(
        caller: CallerOf,
        status: SceneStatus | None = None,
        cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> ScenePage:
        """Scenes, newest first."""
        before = int(cursor) if cursor else None
        owner = None if caller.sees_all else caller.owner
        found, last = await asyncio.to_thread(backend.store.page, status, before, limit, owner)
        cursor = None if last is None else str(last)
        return ScenePage(scenes=[record.summary() for record in found], next_cursor=cursor)

    @api.get("/v1/scenes/{scene_id}", responses=problems(404))
    async def scene(scene_id: str, caller: CallerOf) -> Scene:
        """One scene as it stands."""
        return await backend.shown(await backend.scene(scene_id, caller))

    @api.post("/v1/scenes/{scene_id}/cancel", status_code=202, responses=problems(404, 409))
    async def cancel(scene_id: str, caller: CallerOf) -> Scene:
        """Stop a scene at the next denoising step of each of its clips."""
        return await backend.shown(await backend.cancel(scene_id, caller))

    @api.get(
        "/v1/scenes/{scene_id}/events",
        response_class=StreamingResponse,
        responses=problems(404, 422) | _EVENT_STREAM,
    )
    async def events(
        scene_id: str, caller: CallerOf, last_event_id: Annotated[str | None, Header()] = None
    ) -> StreamingResponse:
        """The scene's events, those after Last-Event-ID first, until it ends."""
        after = _event_id(last_event_id)
        await backend.scene(scene_id, caller)
        return StreamingResponse(
            backend.feed.stream(scene_id, after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


def _add_result_routes(api: FastAPI, backend: Backend) -> None:
    @api.get("/v1/scenes/{scene_id}/artefacts", responses=problems(404))
    async def artefacts(scene_id: str, caller: CallerOf) -> ArtefactList:
        """The files of a scene that are there so far."""
        record = await backend.scene(scene_id, caller)
        return ArtefactList(artefacts=await asyncio.to_thread(backend.artefacts, record.id))

    @api.get(
        "/v1/scenes/{scene_id}/artefacts/{name:path}",
        response_class=RangedFile,
        responses=problems(404, 416, 422) | _FILE,
    )
    async def artefact(
        scene_id: str,
        name: str,
        caller: CallerOf,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """One file, whole or in ranges."""
        record = await backend.scene(scene_id, caller)
        path, about = await asyncio.to_thread(backend.artefact, record.id, name)
        headers = {"ETag": f'"{about.sha256}"', "Cache-Control": "private, no-cache"}
        if if_none_match and headers["ETag"] in if_none_match:
            return Response(status_code=304, headers=headers)
        return RangedFile(path, media_type=about.media_type, headers=headers)


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

    @api.get("/readyz", response_model=Health, responses={503: {"model": Health}})
    async def readyz() -> Response:
        """Whether a clip can be generated now."""
        reason = await backend.why_not_ready()
        if reason is None:
            return JSONResponse(Health(status="ok").model_dump())
        health = Health(status="not_ready", reason=reason)
        return JSONResponse(health.model_dump(), status_code=503, headers={"Retry-After": "5"})


def _event_id(header: str | None) -> int:
    if header is None or header == "":
        return 0
    if not header.isdecimal() or len(header) > 18:
        raise ValidationError("not an event's id", where="Last-Event-ID", got=repr(header[:50]))
    return int(header)


_EVENT_STREAM: Responses = {
    200: {
        "description": "server-sent events",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "required": ["id", "event", "data"],
                    "properties": {
                        "id": {"type": "string", "description": "for Last-Event-ID"},
                        "event": {"enum": ["scene", "trajectory", "progress"]},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": reference(Event),
                        },
                    },
                }
            }
        },
    },
}
# OpenAPI 3.1: bytes have no schema.
_BYTES: dict[str, dict[str, str]] = {"*/*": {}}
_FILE: Responses = {
    200: {"description": "the whole file", "content": _BYTES},
    206: {"description": "the ranges that were asked for", "content": _BYTES},
    304: {"description": "the file that If-None-Match names"},
}
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
            },
            "application/json": {"schema": reference(UriSubmission)},
        },
    }
}
