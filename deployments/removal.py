"""How a scene goes: first its rows, then its files.

So that a client sees a scene whole or not at all. A process that dies between the two leaves a
folder that no row names, which ``remove_strays`` finds.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from deployments.errors import SceneNotFound
from deployments.folders import SceneFolders
from deployments.store import Store

# An upload that has come is a scene's folder for a moment before it has a row; one that still comes
# may take long.
STRAY_SCENE_S = 3600.0
STRAY_UPLOAD_S = 24 * 3600.0


def remove_scene(store: Store, folders: SceneFolders, scene_id: str) -> None:
    """Remove an ended scene and its files; blocks.

    Raises:
        SceneNotFound, StateConflict: there is no such scene; it has not ended.
        OSError: it is gone, but files of it could not be removed; ``remove_strays`` will.
    """
    store.delete_scene(scene_id)
    _remove_folder(folders.scene(scene_id).root)


def remove_strays(store: Store, folders: SceneFolders) -> list[Path]:
    """Remove folders of scenes that the store does not know, and uploads that nobody sends.

    Returns:
        What was removed.
    """
    strays = []
    for folder in _older_than(folders.root / "scenes", STRAY_SCENE_S):
        try:
            store.scene(folder.name)
        except SceneNotFound:
            strays.append(folder)
    strays += _older_than(folders.root / "uploads", STRAY_UPLOAD_S)
    for folder in strays:
        _remove_folder(folder)
    return strays


def _older_than(parent: Path, age_s: float) -> list[Path]:
    if not parent.is_dir():
        return []
    # The time of the entry's own last change: a rename counts, what happens deep below does not.
    latest = time.time() - age_s
    folders = [path for path in sorted(parent.iterdir()) if path.is_dir()]
    return [path for path in folders if path.stat().st_ctime < latest]


def _remove_folder(folder: Path) -> None:
    # Two may remove the same folder: what one finds gone, the other has removed.
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
