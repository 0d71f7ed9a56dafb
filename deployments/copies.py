"""A node's own files of scenes that are gone, where a blob store keeps what counts.

Whoever deletes a scene removes the files of its own node and those of the blob store. Every other
node finds out by itself, here.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from deployments.folders import SceneFolders, remove_folder
from deployments.removal import unknown_scenes
from deployments.store import Store

logger = logging.getLogger(__name__)

# How often the ingress looks, seconds.
LOOK_S = 600.0


def remove_copies(store: Store, folders: SceneFolders) -> list[Path]:
    """Remove this node's files of scenes that the store does not know, those of new ones left out.

    Without a blob store they may be the only ones, and stay. Blocks.

    Returns:
        The folders that went.
    """
    if folders.blobs is None:
        return []
    gone = [folder.root for folder in unknown_scenes(store, folders)]
    for folder in gone:
        remove_folder(folder)
    return gone


async def remove_copies_for_ever(store: Store, folders: SceneFolders) -> None:
    """``remove_copies`` at intervals, as long as there is a blob store."""
    while folders.blobs is not None:
        try:
            for folder in await asyncio.to_thread(remove_copies, store, folders):
                logger.info("%s removed: the scene is gone", folder)
        except Exception:
            # A store that is away, or a file that cannot be removed: the next look tries again.
            logger.exception("cannot remove files of scenes that are gone")
        await asyncio.sleep(LOOK_S)
