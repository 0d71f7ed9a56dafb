"""Results of a scene on this machine, under the names that scripts know."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from worldstereo_client.download import target_path
from worldstereo_client.handles import SceneJob
from worldstereo_client.schemas import SceneStatus

VIDEO = "video.mp4"


def fetch_results(job: SceneJob, output: Path, console: Console | None) -> tuple[Path, list[Path]]:
    """Fetch all files of a scene into ``output/<scene>`` and add the published names.

    Args:
        job: a scene, ended or not.
        output: folder of all results.
        console: where progress is shown; None shows nothing.

    Returns:
        The scene's folder and its files, the published names included.
    """
    scene = job.status()
    folder = target_path(output, scene.name)
    files = job.download(folder, progress=console or False)
    return folder, files + link_published_names(files, scene.parameters.variant)


def link_published_names(files: Iterable[Path], variant: str) -> list[Path]:
    """Give each ``video.mp4`` the name that the published program writes beside it.

    ``<view>/<trajectory>/<model_type>_result.mp4`` is a hard link, or a copy where the file system
    has none; one that is there already is replaced.

    Args:
        files: downloaded files; all but the videos are passed over.
        variant: the scene's variant, the published ``model_type``.

    Returns:
        The added paths.
    """
    added = []
    for video in (path for path in files if path.name == VIDEO):
        link = video.with_name(f"{variant}_result.mp4")
        new = link.with_name(f".{link.name}.new")
        new.unlink(missing_ok=True)
        try:
            os.link(video, new)
        except OSError:
            shutil.copyfile(video, new)
        # Renaming onto another link of the same file does nothing and leaves both (POSIX).
        link.unlink(missing_ok=True)
        new.replace(link)
        added.append(link)
    return added


def summary(job: SceneJob, folder: Path, files: list[Path]) -> str:
    """One line that says what lies where."""
    scene = job.status()
    videos = sum(path.name == VIDEO for path in files)
    state = "" if scene.status is SceneStatus.COMPLETED else f" ({scene.status.value})"
    return f"{scene.name}{state}: {videos} videos, {len(files)} files in {folder}"
