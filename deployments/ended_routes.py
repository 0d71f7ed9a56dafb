"""Routes of what may happen to a scene after its end: resume, delete, and all its files at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from worldstereo_client.schemas import Scene

from deployments.archive_stream import stream_zip
from deployments.guard import CallerOf
from deployments.openapi import problems
from deployments.removal import remove_scene

if TYPE_CHECKING:
    from deployments.api import Backend

_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {}}, "description": "a zip, written as it is sent"}
}


def add_ended_routes(api: FastAPI, backend: Backend) -> None:
    """Add the routes to the API."""

    @api.post("/v1/scenes/{scene_id}/resume", status_code=202, responses=problems(404, 409, 429))
    async def resume(scene_id: str, caller: CallerOf) -> Scene:
        """Queue a failed scene again; its committed clips stay, the others are generated anew."""
        record = await backend.scene(scene_id, caller)
        await asyncio.to_thread(
            backend.store.resume_scene,
            scene_id,
            max_queued=backend.submitter.max_queued_scenes,
            # A key's own limit, not that of an administrator who resumes for others.
            max_queued_of_owner=caller.max_queued if caller.owner == record.owner else None,
        )
        await backend.wake()
        return await backend.shown(await backend.scene(scene_id, caller))

    @api.delete("/v1/scenes/{scene_id}", status_code=204, responses=problems(404, 409))
    async def delete(scene_id: str, caller: CallerOf) -> Response:
        """Remove a scene that has ended, with all its files."""
        await backend.scene(scene_id, caller)
        await asyncio.to_thread(remove_scene, backend.store, backend.folders, scene_id)
        return Response(status_code=204)

    @api.get(
        "/v1/scenes/{scene_id}/archive",
        response_class=StreamingResponse,
        responses=problems(404) | _ZIP,
    )
    async def archive(scene_id: str, caller: CallerOf) -> StreamingResponse:
        """The scene's files that are there so far, as one zip under their artefacts' names."""
        record = await backend.scene(scene_id, caller)
        files = await asyncio.to_thread(backend.folders.result_files, record.id)
        headers = {"Content-Disposition": f'attachment; filename="{record.name}.zip"'}
        return StreamingResponse(stream_zip(files), media_type="application/zip", headers=headers)
