"""A handle on one scene: what a caller holds between submitting it and having its files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from worldstereo_client.archive_file import fetch_archive, fetch_archive_async
from worldstereo_client.cameras import TrajectoryCameras, parse_cameras
from worldstereo_client.errors import (
    GenerationCancelled,
    GenerationError,
    WorldStereoError,
    error_from_problem,
)
from worldstereo_client.events import Deadline
from worldstereo_client.progress import download_progress, scene_progress
from worldstereo_client.schemas import Artefact, Event, Scene, SceneStatus

if TYPE_CHECKING:
    from worldstereo_client.client import AsyncClient, Client


class SceneJob:
    """One scene of a server.

    Args:
        client: how to reach the server; must stay open.
        scene: the scene as it stood last; ``status`` asks anew.

    Example::

        job = client.scenes.submit("scenes/kitchen")
        for event in job.events():
            print(event)
        job.download("outputs/kitchen")
    """

    def __init__(self, client: Client, scene: Scene) -> None:
        self._client, self._scene = client, scene

    @property
    def id(self) -> str:
        """The scene's id."""
        return self._scene.id

    @property
    def name(self) -> str:
        """The scene's name, that of its result folder."""
        return self._scene.name

    def status(self) -> Scene:
        """The scene as it stands now."""
        self._scene = self._client.scenes.get(self.id)
        return self._scene

    def events(self, *, after: int = 0) -> Generator[Event, None, None]:
        """The scene's events as they happen, until it ends; lost connections are made again."""
        return self._client.scenes.events(self.id, after=after)

    def wait(
        self,
        *,
        progress: bool | Console = False,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Scene:
        """Wait until the scene ends.

        Args:
            progress: show how far it is, on the terminal or on the console that is given.
            timeout_s: seconds at most; None waits for ever.
            check: raise the scene's error when it did not complete.

        Returns:
            The scene in its last state.

        Raises:
            WaitTimeout: it did not end in time; it goes on running.
            GenerationCancelled: it was cancelled.
            WorldStereoError: it failed; the class is that of the scene's error.
        """
        events = self._client.scenes.events(self.id, timeout_s=timeout_s)
        with scene_progress(self._scene, progress) as show, closing(events):
            for event in events:
                show(event)
        scene = self.status()
        return checked(scene) if check else scene

    def cancel(self) -> Scene:
        """Ask for the scene to stop; StateConflict when it has completed or failed already."""
        self._scene = self._client.scenes.cancel(self.id)
        return self._scene

    def resume(self) -> Scene:
        """Run what failed of a failed scene again; StateConflict in any other state."""
        self._scene = self._client.scenes.resume(self.id)
        return self._scene

    def delete(self) -> None:
        """Remove the scene, which must have ended, and its files from the server."""
        self._client.scenes.delete(self.id)

    def artefacts(self) -> list[Artefact]:
        """The scene's files that are there so far."""
        return self._client.scenes.artefacts(self.id)

    def read(self, name: str) -> bytes:
        """The content of one small file of the scene, such as ``manifest.json``."""
        return self._client.scenes.read(self.id, name)

    def cameras(self, trajectory: str) -> TrajectoryCameras:
        """The cameras of a generated trajectory, by its id such as ``renders/traj_up``.

        Raises:
            ArtefactNotFound: there is no such trajectory, or it is not generated yet.
        """
        name = f"{trajectory}/cameras.json"
        return parse_cameras(self.read(name), name)

    def download(
        self,
        folder: str | Path,
        *,
        kinds: Collection[str] | None = None,
        progress: bool | Console = False,
    ) -> list[Path]:
        """Fetch the scene's files into a folder: resumed, verified, present ones skipped.

        Args:
            folder: made when needed; files keep their paths within the result.
            kinds: kinds of artefacts to fetch, for instance ``{"video"}``; None for all.
            progress: show how far it is, on the terminal or on the console that is given.

        Returns:
            The files, the manifest last.

        Raises:
            IntegrityError: a file was received twice with wrong bytes.
        """
        with download_progress(self.artefacts, kinds, progress) as show:
            return self._client.scenes.download(self.id, folder, kinds=kinds, on_file=show)

    def archive(self, path: str | Path) -> Path:
        """Fetch the scene's files that are there so far as one zip, which appears whole.

        It is verified by the zip's own checksums; a lost connection starts it anew, where
        ``download`` goes on.

        Raises:
            IntegrityError: it came damaged twice.
        """
        return fetch_archive(self._client, self.id, Path(path))

    def __repr__(self) -> str:
        return f"SceneJob(id={self.id!r}, name={self.name!r}, status={self._scene.status.value!r})"


class AsyncSceneJob:
    """One scene of a server, for asyncio; every method is that of ``SceneJob``.

    Args:
        client: how to reach the server; must stay open.
        scene: the scene as it stood last; ``status`` asks anew.
    """

    def __init__(self, client: AsyncClient, scene: Scene) -> None:
        self._client, self._scene = client, scene

    @property
    def id(self) -> str:
        """The scene's id."""
        return self._scene.id

    @property
    def name(self) -> str:
        """The scene's name, that of its result folder."""
        return self._scene.name

    async def status(self) -> Scene:
        """The scene as it stands now."""
        self._scene = await self._client.scenes.get(self.id)
        return self._scene

    def events(self, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """The scene's events as they happen, until it ends; lost connections are made again."""
        return self._client.scenes.events(self.id, after=after)

    async def wait(
        self,
        *,
        progress: bool | Console = False,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Scene:
        """Wait until the scene ends; arguments and errors as in ``SceneJob.wait``."""
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline, aclosing(self._client.scenes.events(self.id)) as events:
                with scene_progress(self._scene, progress) as show:
                    async for event in events:
                        show(event)
        except TimeoutError as error:
            if isinstance(error, WorldStereoError) or not deadline.expired():
                raise
            raise Deadline(self.id, timeout_s).error() from error
        scene = await self.status()
        return checked(scene) if check else scene

    async def cancel(self) -> Scene:
        """Ask for the scene to stop; StateConflict when it has completed or failed already."""
        self._scene = await self._client.scenes.cancel(self.id)
        return self._scene

    async def resume(self) -> Scene:
        """Run what failed of a failed scene again; StateConflict in any other state."""
        self._scene = await self._client.scenes.resume(self.id)
        return self._scene

    async def delete(self) -> None:
        """Remove the scene, which must have ended, and its files from the server."""
        await self._client.scenes.delete(self.id)

    async def artefacts(self) -> list[Artefact]:
        """The scene's files that are there so far."""
        return await self._client.scenes.artefacts(self.id)

    async def read(self, name: str) -> bytes:
        """The content of one small file of the scene, such as ``manifest.json``."""
        return await self._client.scenes.read(self.id, name)

    async def cameras(self, trajectory: str) -> TrajectoryCameras:
        """The cameras of a generated trajectory, as ``SceneJob.cameras``."""
        name = f"{trajectory}/cameras.json"
        return parse_cameras(await self.read(name), name)

    async def download(
        self, folder: str | Path, *, kinds: Collection[str] | None = None
    ) -> list[Path]:
        """Fetch the scene's files into a folder, as ``SceneJob.download``."""
        return await self._client.scenes.download(self.id, folder, kinds=kinds)

    async def archive(self, path: str | Path) -> Path:
        """Fetch the scene's files as one zip, as ``SceneJob.archive``."""
        return await fetch_archive_async(self._client, self.id, Path(path))

    def __repr__(self) -> str:
        return (
            f"AsyncSceneJob(id={self.id!r}, name={self.name!r}, "
            f"status={self._scene.status.value!r})"
        )


def checked(scene: Scene) -> Scene:
    """The scene itself when it completed; else its error is raised.

    Raises:
        GenerationCancelled: it was cancelled.
        WorldStereoError: it failed; the class is the one that its error names.
    """
    if scene.status is SceneStatus.CANCELLED:
        raise GenerationCancelled("the scene was cancelled", where=f"scene {scene.id}")
    if scene.status is SceneStatus.FAILED:
        # The scene's own error, else that of the first trajectory that failed.
        problems = [scene.error, *(trajectory.error for trajectory in scene.trajectories)]
        for problem in filter(None, problems):
            raise error_from_problem(problem)
        raise GenerationError("the scene failed", where=f"scene {scene.id}")
    return scene
