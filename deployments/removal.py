"""How a scene goes: marked, then its rows, then its files.

So that a client sees a scene whole or not at all. A process that dies after the rows leaves the
mark, in the scene's folder or in the blob store, where ``remove_strays`` finds it. A scene without
it is never taken for one of those: the store may be another one than the folder's, by somebody's
mistake.
"""

from __future__ import annotations

import time
from contextlib import suppress
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
        OSError, BlobStoreAway: its files could not be removed; if it is gone, ``remove_strays``
            removes them.
    """
    store.scene(scene_id)  # a name that no scene has is none of a folder either
    folders.mark(scene_id)
    try:
        store.delete_scene(scene_id)
    except StateConflict:
        folders.unmark(scene_id)
        raise
    folders.remove(scene_id)


def remove_strays(store: Store, folders: SceneFolders) -> list[Path]:
    """Remove what deletions that were cut short left, and uploads that nobody sends any more.

    Returns:
        The folders that went.
    """
    marked = folders.marked()
    known = _known(store, marked)
    strays = [scene_id for scene_id in marked if scene_id not in known]
    for scene_id in strays:
        folders.remove(scene_id)
    uploads = _older_than(folders.uploads(), LONGEST_UPLOAD_S)
    for folder in uploads:
        remove_folder(folder)
    return [folders.scene(scene_id).root for scene_id in strays] + uploads


def unknown_scenes(store: Store, folders: SceneFolders) -> list[SceneFolder]:
    """Folders of scenes that the store does not know, those of new ones left out."""
    stored = folders.stored()
    known = _known(store, [folder.root.name for folder in stored])
    unknown = [folder for folder in stored if folder.root.name not in known]
    marked = [folder for folder in unknown if folder.deleted.exists()]
    old = set(_older_than([folder.root for folder in unknown], NEW_SCENE_S))
    return [folder for folder in unknown if folder in marked or folder.root in old]


def _known(store: Store, scene_ids: list[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(scene_ids), _AT_ONCE):
        known |= store.known(scene_ids[start : start + _AT_ONCE])
    return known


def _older_than(folders: list[Path], age_s: float) -> list[Path]:
    # The time of the entry's own last change: a rename counts, what happens deep below does not.
    latest = time.time() - age_s
    old = []
    for folder in folders:
        with suppress(FileNotFoundError):  # another process has removed it
            if folder.stat().st_ctime < latest:
                old.append(folder)
    return old
