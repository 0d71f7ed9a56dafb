"""``/v1/videos``: OpenAI's video API over scenes of one trajectory.

Owns how such a scene looks to OpenAI's clients. A video is a scene of kind ``video``: it is queued,
generated and kept as any other, and its id is the scene's with a prefix.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Header, Query, Request, Response
from worldstereo_client.schemas import Problem, SceneStatus

from actors.blobs import SOURCE
from deployments.errors import ArtefactNotFound, SceneNotFound
from deployments.guard import CallerOf
from deployments.keys import Caller
from deployments.openai_errors import VIDEOS_PATH, ErrorAnswer, code_of
from deployments.ranges import RangedFile
from deployments.records import SceneRecord
from deployments.removal import remove_scene
from deployments.video_form import VideoForm, seconds_of, size_of
from deployments.video_schemas import Video, VideoDeleted, VideoError, VideoList, VideoStatus
from worldstereo.config import ModelConfig
from worldstereo.formats.images import image_size

if TYPE_CHECKING:
    from deployments.api import Backend

_PREFIX = "video_"
# What ids are made of; anything else is not worth a question to the store.
_ID = re.compile(rf"{_PREFIX}([0-9a-f]{{1,64}})")
# How soon the openai package asks again, unless its caller says otherwise.
_POLL_AFTER = {"openai-poll-after-ms": "1000"}
# OpenAI knows neither of the states of a scene that is being cancelled, or was.
_STATUS: Mapping[SceneStatus, VideoStatus] = {
    SceneStatus.QUEUED: "queued",
    SceneStatus.IN_PROGRESS: "in_progress",
    SceneStatus.CANCELLING: "in_progress",
    SceneStatus.COMPLETED: "completed",
    SceneStatus.FAILED: "failed",
    SceneStatus.CANCELLED: "failed",
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"model": ErrorAnswer, "description": "an error as OpenAI's API tells it"}
}
_MP4: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}}, "description": "the video"}
}


class Videos:
    """Scenes of kind ``video`` as OpenAI's API shows them.

    Args:
        backend: what the API's routes call.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.form = partial(VideoForm, configs=backend.configs)

    async def record(self, video_id: str, caller: Caller) -> SceneRecord:
        """The scene of a video; SceneNotFound where there is none."""
        missing = SceneNotFound("no such video", where=f"video {video_id[:100]}")
        match = _ID.fullmatch(video_id)
        if match is None:
            raise missing
        try:
            found = await self._backend.scene(match[1], caller)
        except SceneNotFound as error:
            raise missing from error
        if found.kind != "video":
            raise missing
        return found

    async def page(
        self, after: str | None, limit: int, oldest_first: bool, caller: Caller
    ) -> VideoList:
        """Up to ``limit`` videos that follow the video ``after``."""
        start = (await self.record(after, caller)).number if after else None
        owner = None if caller.sees_all else caller.owner
        store = self._backend.store
        found, more = await asyncio.to_thread(
            store.page, None, start, limit, owner, kind="video", oldest_first=oldest_first
        )
        data = [await self.shown(record) for record in found]
        return VideoList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=more is not None,
        )

    async def shown(self, record: SceneRecord) -> Video:
        """The video as OpenAI's API shows it."""
        build = record.parameters.build
        assert build is not None, "a video is built from an image"
        completed = record.status is SceneStatus.COMPLETED
        return Video(
            id=_PREFIX + record.id,
            model=record.parameters.variant,
            status=_STATUS[record.status],
            progress=100 if completed else min(99, int(record.progress * 100)),
            created_at=int(record.created_at),
            completed_at=int(record.finished_at) if completed and record.finished_at else None,
            prompt=build.prompt,
            error=_error(record),
            **await asyncio.to_thread(self._form_of, record),
        )

    def _form_of(self, record: SceneRecord) -> dict[str, str]:
        configs: Mapping[str, ModelConfig] = {str(k): v for k, v in self._backend.configs.items()}
        config = configs.get(record.parameters.variant)
        unknown = {"seconds": "unknown", "size": "unknown"}
        if config is None:  # of a variant that is no longer served
            return unknown
        try:
            self._backend.folders.bring(record.id, [SOURCE])
            image = self._backend.folders.scene(record.id).image_file()
            size = _size_of_file(image) if image is not None else None
        except FileNotFoundError:  # the scene is just being deleted
            return unknown
        return (
            unknown
            if size is None
            else {"seconds": seconds_of(config), "size": size_of(size, config)}
        )

    def content(self, record: SceneRecord) -> tuple[Path, str]:
        """The video's file and its SHA-256; ArtefactNotFound where it is not there yet."""
        where = f"video {_PREFIX}{record.id}"
        if record.status is not SceneStatus.COMPLETED:
            raise ArtefactNotFound(
                "the video is not ready",
                where=where,
                got=_STATUS[record.status],
                fix=f"GET {VIDEOS_PATH}/{_PREFIX}{record.id} tells its status",
            )
        name = f"{record.trajectories[0].id}/video.mp4"
        path, about = self._backend.artefact(record.id, name)
        return path, about.sha256


def add_video_routes(api: FastAPI, backend: Backend) -> None:
    """Add the routes to the API."""
    videos = Videos(backend)
    shared: dict[str, Any] = {"responses": _ERRORS, "tags": ["videos"]}

    @api.post(VIDEOS_PATH, response_model=Video, openapi_extra=_CREATE_BODY, **shared)
    async def create_video(
        request: Request,
        response: Response,
        caller: CallerOf,
        content_type: Annotated[str, Header()] = "",
        content_length: Annotated[str | None, Header()] = None,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Video:
        """Queue the video that one camera path gives of an image."""
        record = await backend.submitter.submit(
            request.stream(),
            content_type,
            content_length,
            idempotency_key,
            caller,
            form=videos.form,
            kind="video",
        )
        await backend.wake()
        response.headers.update(_POLL_AFTER)
        return await videos.shown(record)

    @api.get(VIDEOS_PATH, **shared)
    async def list_videos(
        caller: CallerOf,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """Videos, newest first unless asked otherwise."""
        return await videos.page(after, limit, order == "asc", caller)

    @api.get(VIDEOS_PATH + "/{video_id}", **shared)
    async def retrieve_video(video_id: str, response: Response, caller: CallerOf) -> Video:
        """One video job as it stands."""
        response.headers.update(_POLL_AFTER)
        return await videos.shown(await videos.record(video_id, caller))

    @api.delete(VIDEOS_PATH + "/{video_id}", **shared)
    async def delete_video(video_id: str, caller: CallerOf) -> VideoDeleted:
        """Remove a video that has completed or failed; 409 while it runs."""
        record = await videos.record(video_id, caller)
        await asyncio.to_thread(remove_scene, backend.store, backend.folders, record.id)
        return VideoDeleted(id=video_id)

    @api.get(
        VIDEOS_PATH + "/{video_id}/content",
        response_class=RangedFile,
        responses=_ERRORS | _MP4,
        tags=["videos"],
    )
    async def video_content(
        video_id: str, caller: CallerOf, variant: Literal["video"] = "video"
    ) -> RangedFile:
        """The MP4 of a completed video, whole or in ranges."""
        record = await videos.record(video_id, caller)
        path, sha256 = await asyncio.to_thread(videos.content, record)
        headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, no-cache"}
        return RangedFile(path, media_type="video/mp4", headers=headers)


def _error(record: SceneRecord) -> VideoError | None:
    if _STATUS[record.status] != "failed":
        return None
    if record.status is SceneStatus.CANCELLED:
        return VideoError(code="cancelled", message="the video was cancelled")
    # The trajectory tells why; the scene may only tell that it failed.
    told: list[Problem | None] = [*(item.error for item in record.trajectories), record.error]
    problem = next((item for item in told if item is not None), None)
    if problem is None:
        return VideoError(code="failed", message="the video failed without a reason")
    return VideoError(code=code_of(problem), message=problem.detail)


@lru_cache(maxsize=10_000)
def _size_of_file(image: Path) -> tuple[int, int]:
    return image_size(image)


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


_CREATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["prompt", "input_reference"],
                    "properties": {
                        "prompt": _text("what the image shows"),
                        "input_reference": {
                            "type": "string",
                            "format": "binary",
                            "description": "PNG, JPEG or WebP that the video starts from",
                        },
                        "model": _text("a variant of GET /v1/models"),
                        "seconds": _text("nothing, or how long the model's clips last"),
                        "size": _text("nothing, or the size that the image is worked at"),
                        "trajectory": _text("camera path such as orbit:azimuth=20, or JSON"),
                        "seed": _text("of the noise, a whole number"),
                    },
                }
            }
        },
    }
}
