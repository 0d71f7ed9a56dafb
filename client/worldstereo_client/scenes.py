"""``client.scenes``: everything that the API does with scenes, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import builtins
import threading
import time
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import httpx_sse

from worldstereo_client import calls
from worldstereo_client.download import PARALLEL_DOWNLOADS, Download, plan_downloads
from worldstereo_client.errors import ServerUnreachable
from worldstereo_client.events import Deadline, EventCursor, watch
from worldstereo_client.handles import AsyncSceneJob, SceneJob
from worldstereo_client.schemas import (
    Artefact,
    Event,
    Scene,
    SceneStatus,
    SceneSummary,
    TrajectorySpec,
)
from worldstereo_client.submission import open_parts, submit_request

if TYPE_CHECKING:
    from worldstereo_client.client import AsyncClient, Client

OnFile = Callable[[Artefact, Path], None]


class Scenes:
    """Scenes of one server; use it as ``client.scenes``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(
        self,
        scene: str | Path,
        *,
        variant: str | None = None,
        seed: int | None = None,
        depth: str | Path | None = None,
        prompt: str | None = None,
        trajectories: Sequence[TrajectorySpec] = (),
        panorama: bool = False,
        field_of_view: float | None = None,
        clearance: float | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> SceneJob:
        """Send a scene, or an image that one is built from, and queue it.

        Args:
            scene: a scene folder, or a zip, tar or tar.gz of one; or a PNG, JPEG or WebP image.
            variant: ``worldstereo-camera``, ``worldstereo-memory`` or ``worldstereo-memory-dmd``.
            seed: of the whole scene's noise.
            depth: depth map of the image, or of the start image of a scene that has no renders:
                .npy, .exr, or a 16-bit .png beside a .json that states its unit; None: the
                scene's own, or what the server estimates.
            prompt: what an image shows; needed to build from one.
            trajectories: camera paths from an image (``worldstereo_client.trajectories``);
                none: the published four.
            panorama: the image is equirectangular.
            field_of_view: of the image, horizontal, in degrees; None: the depth estimator's.
            clearance: how near a path may come to the points, as a share of the median depth.
            idempotency_key: submits with the same key and content are one scene; one is made up
                when None, so that a try that is repeated by itself never starts a second scene.
            parameters: further fields of ``SceneRequest``: name, task_type, align_nframe,
                max_reference, num_inference_steps, guidance_scale, renderer, outputs,
                webhook_url.

        Returns:
            A handle on the queued scene.

        Raises:
            InputError: the scene or a parameter cannot be used (its subclass says which).
            QueueFull, NotReady: the server does not take it now.
        """
        request = submit_request(
            Path(scene),
            prompt=prompt,
            trajectories=trajectories,
            panorama=panorama,
            field_of_view=field_of_view,
            clearance=clearance,
            variant=variant,
            seed=seed,
            **parameters,
        )
        with ExitStack() as stack:
            parts = open_parts(stack, Path(scene), depth)
            key = idempotency_key or uuid.uuid4().hex
            submitted = self._client.send(calls.submit(parts, request, key))
        return SceneJob(self._client, submitted)

    def job(self, scene_id: str) -> SceneJob:
        """A handle on a scene that was submitted before."""
        return SceneJob(self._client, self.get(scene_id))

    def get(self, scene_id: str) -> Scene:
        """A scene as it stands; SceneNotFound when there is none with this id."""
        return self._client.send(calls.get_scene(scene_id))

    def list(
        self, *, status: SceneStatus | None = None, page_size: int | None = None
    ) -> Iterator[SceneSummary]:
        """All scenes, newest first, those in one state if given; pages are fetched as needed."""
        cursor: str | None = None
        while True:
            page = self._client.send(calls.list_scenes(status, cursor, page_size))
            yield from page.scenes
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel(self, scene_id: str) -> Scene:
        """Ask for a scene to stop; it does so between two denoising steps.

        Raises:
            StateConflict: the scene has completed or failed already.
        """
        return self._client.send(calls.cancel_scene(scene_id))

    def resume(self, scene_id: str) -> Scene:
        """Run what failed or was skipped of a failed scene again; StateConflict for any other."""
        return self._client.send(calls.resume_scene(scene_id))

    def delete(self, scene_id: str) -> None:
        """Remove a scene and its files from the server; StateConflict while it has not ended."""
        self._client.send(calls.delete_scene(scene_id))

    def events(
        self, scene_id: str, *, after: int = 0, timeout_s: float | None = None
    ) -> Generator[Event, None, None]:
        """The scene's events as they happen, until the scene ends.

        A lost connection is made again; nothing is missed and nothing comes twice.

        Args:
            scene_id: the scene.
            after: id of the last event that is known already; 0 starts with the first.
            timeout_s: seconds in all; None waits for ever.

        Raises:
            WaitTimeout: the scene did not end in time.
        """
        cursor, deadline = EventCursor(scene_id, after), Deadline(scene_id, timeout_s)
        attempts = self._client.attempts(cursor.call())
        while True:
            deadline.check()
            before = cursor.last_id
            try:
                with self._client.open(cursor.call(deadline)) as response:
                    watch(response, deadline)
                    for message in httpx_sse.EventSource(response).iter_sse():
                        if event := cursor.accept(message):
                            attempts.progressed()
                            yield event
            except httpx.HTTPError as failure:
                deadline.check()
                pause_s = attempts.after(failure)
            else:
                # The server ends the stream of a scene that has ended; a failed one may have been
                # resumed since its earlier end, so that only the last event counts.
                if cursor.finished:
                    return
                if cursor.last_id == before and self.get(scene_id).status.terminal:
                    return
                pause_s = attempts.after(ServerUnreachable("the events ended early"))
            time.sleep(deadline.limit(pause_s))

    def artefacts(self, scene_id: str) -> builtins.list[Artefact]:
        """The scene's files that are there so far."""
        return self._client.send(calls.list_artefacts(scene_id))

    def read(self, scene_id: str, name: str) -> bytes:
        """The content of one small file of a scene, such as ``manifest.json``."""
        return self._client.send(calls.artefact_bytes(scene_id, name))

    def download(
        self,
        scene_id: str,
        folder: str | Path,
        *,
        kinds: Collection[str] | None = None,
        on_file: OnFile | None = None,
    ) -> builtins.list[Path]:
        """Fetch a scene's files that are there so far into a folder.

        Files that are in place already are kept, interrupted ones are resumed, each is verified by
        its SHA-256 before it gets its name; the manifest comes last.

        Args:
            scene_id: the scene.
            folder: made when needed; files keep their paths within the result.
            kinds: kinds of artefacts to fetch, for instance ``{"video"}``; None for all.
            on_file: called after each file, from several threads.

        Returns:
            The files, in the order of the server's list, the manifest last.

        Raises:
            IntegrityError: a file was received twice with wrong bytes.
        """
        files, manifest = plan_downloads(scene_id, self.artefacts(scene_id), Path(folder), kinds)
        stop = threading.Event()

        def fetch(item: Download) -> Path:
            path = self._fetch(item, stop)
            if on_file:
                on_file(item.artefact, path)
            return path

        with ThreadPoolExecutor(PARALLEL_DOWNLOADS, "worldstereo-download") as pool:
            try:
                return [*pool.map(fetch, files), *pool.map(fetch, manifest)]
            finally:
                stop.set()

    def _fetch(self, item: Download, stop: threading.Event) -> Path:
        if item.is_done():
            return item.target
        attempts = self._client.attempts(item.call())

        def once() -> Path:
            if not item.is_received:
                with self._client.open(item.call()) as response, item.receiving(response) as write:
                    for chunk in response.iter_bytes():
                        if stop.is_set():  # another file failed, or the user gave up
                            raise CancelledError
                        write(chunk)
                        attempts.progressed()
            return item.finish()

        return self._client.repeat(once, attempts)


class AsyncScenes:
    """Scenes of one server; use it as ``client.scenes`` of an ``AsyncClient``."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(
        self,
        scene: str | Path,
        *,
        depth: str | Path | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> AsyncSceneJob:
        """Send a scene or an image and queue it; arguments and errors as in ``Scenes.submit``."""
        request = submit_request(Path(scene), **parameters)
        with ExitStack() as stack:
            parts = await asyncio.to_thread(open_parts, stack, Path(scene), depth)
            key = idempotency_key or uuid.uuid4().hex
            submitted = await self._client.send(calls.submit(parts, request, key))
        return AsyncSceneJob(self._client, submitted)

    async def job(self, scene_id: str) -> AsyncSceneJob:
        """A handle on a scene that was submitted before."""
        return AsyncSceneJob(self._client, await self.get(scene_id))

    async def get(self, scene_id: str) -> Scene:
        """A scene as it stands; SceneNotFound when there is none with this id."""
        return await self._client.send(calls.get_scene(scene_id))

    async def list(
        self, *, status: SceneStatus | None = None, page_size: int | None = None
    ) -> AsyncIterator[SceneSummary]:
        """All scenes, newest first, those in one state if given; pages are fetched as needed."""
        cursor: str | None = None
        while True:
            page = await self._client.send(calls.list_scenes(status, cursor, page_size))
            for summary in page.scenes:
                yield summary
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel(self, scene_id: str) -> Scene:
        """Ask for a scene to stop; StateConflict when it has completed or failed already."""
        return await self._client.send(calls.cancel_scene(scene_id))

    async def resume(self, scene_id: str) -> Scene:
        """Run what failed of a scene again, as ``Scenes.resume``."""
        return await self._client.send(calls.resume_scene(scene_id))

    async def delete(self, scene_id: str) -> None:
        """Remove a scene that has ended, as ``Scenes.delete``."""
        await self._client.send(calls.delete_scene(scene_id))

    async def events(self, scene_id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """The scene's events as they happen, until the scene ends, as in ``Scenes.events``."""
        cursor = EventCursor(scene_id, after)
        attempts = self._client.attempts(cursor.call())
        while True:
            before = cursor.last_id
            try:
                async with self._client.open(cursor.call()) as response:
                    async for message in httpx_sse.EventSource(response).aiter_sse():
                        if event := cursor.accept(message):
                            attempts.progressed()
                            yield event
            except httpx.HTTPError as failure:
                pause_s = attempts.after(failure)
            else:
                # The server ends the stream of a scene that has ended; a failed one may have been
                # resumed since its earlier end, so that only the last event counts.
                if cursor.finished:
                    return
                if cursor.last_id == before and (await self.get(scene_id)).status.terminal:
                    return
                pause_s = attempts.after(ServerUnreachable("the events ended early"))
            await asyncio.sleep(pause_s)

    async def artefacts(self, scene_id: str) -> builtins.list[Artefact]:
        """The scene's files that are there so far."""
        return await self._client.send(calls.list_artefacts(scene_id))

    async def read(self, scene_id: str, name: str) -> bytes:
        """The content of one small file of a scene, such as ``manifest.json``."""
        return await self._client.send(calls.artefact_bytes(scene_id, name))

    async def download(
        self,
        scene_id: str,
        folder: str | Path,
        *,
        kinds: Collection[str] | None = None,
        on_file: OnFile | None = None,
    ) -> builtins.list[Path]:
        """Fetch a scene's files that are there so far into a folder, as ``Scenes.download``."""
        files, manifest = plan_downloads(
            scene_id, await self.artefacts(scene_id), Path(folder), kinds
        )
        free = asyncio.Semaphore(PARALLEL_DOWNLOADS)

        async def fetch(item: Download) -> Path:
            async with free:
                path = await self._fetch(item)
            if on_file:
                on_file(item.artefact, path)
            return path

        return [*await _all(map(fetch, files)), *await _all(map(fetch, manifest))]

    async def _fetch(self, item: Download) -> Path:
        if await asyncio.to_thread(item.is_done):
            return item.target
        attempts = self._client.attempts(item.call())

        async def once() -> Path:
            if not item.is_received:
                async with self._client.open(item.call()) as response:
                    with item.receiving(response) as write:
                        async for chunk in response.aiter_bytes():
                            write(chunk)
                            attempts.progressed()
            return await asyncio.to_thread(item.finish)

        return await self._client.repeat(once, attempts)


async def _all(downloads: Iterable[Coroutine[Any, Any, Path]]) -> builtins.list[Path]:
    """The results in order; the first error stops the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(download) for download in downloads]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
