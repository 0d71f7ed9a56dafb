"""How a scene goes: marked, then its rows, then its files.

So that a client sees a scene whole or not at all. A process that dies after the rows leaves a
folder with the mark, which ``remove_strays`` finds. A folder without it is never taken for one of
those: the store may be another one than the folder's, by somebody's mistake.
"""

from __future__ import annotations

import time
from pathlib import Path

from deployments.errors import StateConflict
from deployments.folders import SceneFolder, SceneFolders, remove_folder
from deployments.store import Store

# An upload that has come is a scene's folder for a moment before it has a row; one that still comes
# may take long.
NEW_SCENE_S = 3600.0
LONGEST_UPLOAD_S = 24 * 3600.0

# Ids that the store is asked about at once.
_AT_ONCE = 500


def remove_scene(store: Store, folders: SceneFolders, scene_id: str) -> None:
    """Remove an ended scene and its files; blocks.

    Raises:
        SceneNotFound, StateConflict: there is no such scene; it has not ended.
        OSError: its files could not be removed; if it is gone, ``remove_strays`` removes them.
    """
    store.scene(scene_id)  # a name that no scene has is none of a folder either
    folder = folders.scene(scene_id)
    folder.root.mkdir(parents=True, exist_ok=True)  # its files may lie in the blob store alone
    folder.deleted.touch()
    try:
        store.delete_scene(scene_id)
    except StateConflict:
        folder.deleted.unlink(missing_ok=True)
        raise
    folders.remove(scene_id)


def remove_strays(store: Store, folders: SceneFolders) -> list[Path]:
    """Remove what deletions that were cut short left, and uploads that nobody sends any more.

    Returns:
        The folders that went.
    """
    strays = [folder.root for folder in unknown_scenes(store, folders) if folder.deleted.exists()]
    for folder in strays:
        folders.remove(folder.name)
    uploads = _older_than(folders.uploads(), LONGEST_UPLOAD_S)
    for folder in uploads:
        remove_folder(folder)
    return strays + uploads


def unknown_scenes(store: Store, folders: SceneFolders) -> list[SceneFolder]:
    """Folders of scenes that the store does not know, those of new ones left out."""
    stored = folders.stored()
    unknown = []
    for start in range(0, len(stored), _AT_ONCE):
        part = stored[start : start + _AT_ONCE]
        known = store.known([folder.root.name for folder in part])
        unknown += [folder for folder in part if folder.root.name not in known]
    marked = [folder for folder in unknown if folder.deleted.exists()]
    old = set(_older_than([folder.root for folder in unknown], NEW_SCENE_S))
    return [folder for folder in unknown if folder in marked or folder.root in old]


def _older_than(folders: list[Path], age_s: float) -> list[Path]:
    # The time of the entry's own last change: a rename counts, what happens deep below does not.
    latest = time.time() - age_s
    return [folder for folder in folders if folder.stat().st_ctime < latest]
