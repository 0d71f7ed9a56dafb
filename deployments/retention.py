"""Which ended scenes are no longer kept, and the sweeper that removes them.

Owns the rules: by age first, then the oldest while all together are too large. A scene that has
not ended is never looked at, and one that is resumed meanwhile stays: the store decides.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.settings import RetentionSettings
from deployments.copies import remove_copies
from deployments.errors import SceneNotFound, StateConflict, StoreAway
from deployments.folders import SceneFolders
from deployments.records import EndedScene
from deployments.removal import remove_scene, remove_strays
from deployments.store import Store

logger = logging.getLogger(__name__)

# Folders that one sweep measures: the sizes of the others are those of an earlier sweep, or wait.
MEASURED_AT_ONCE = 500


@dataclass(frozen=True)
class Expired:
    """A scene that goes, the size of its files in bytes, and which limit it is beyond."""

    scene: EndedScene
    bytes: int
    reason: Literal["age", "size"]


class Retention:
    """The rules, applied to one service.

    Args:
        store: all scenes.
        folders: their files.
        settings: the limits.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        folders: SceneFolders,
        settings: RetentionSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._store = store
        self._folders = folders
        self._clock = clock
        # Of scenes by id: when it ended, and its bytes since then.
        self._sizes: dict[str, tuple[float, int]] = {}

    def expired(self, measure: int | None = None) -> list[Expired]:
        """What goes, oldest first; blocks.

        Args:
            measure: folders to measure at most, None for all. What is not measured yet counts as
                empty, so that too little goes and never too much.
        """
        ended = self._store.ended()
        latest = self._clock() - (self.settings.max_age_s or 0.0)
        by_age = self.settings.max_age_s is not None
        gone = [scene for scene in ended if by_age and scene.finished_at < latest]
        self._measure(gone if self.settings.max_bytes is None else ended, measure)
        found = [Expired(scene, self._bytes(scene), "age") for scene in gone]
        if self.settings.max_bytes is None:
            return found
        kept = ended[len(gone) :]
        excess = sum(self._bytes(scene) for scene in kept) - self.settings.max_bytes
        for scene in kept:
            if excess <= 0:
                break
            found.append(Expired(scene, self._bytes(scene), "size"))
            excess -= self._bytes(scene)
        return found

    def sweep(self) -> list[Expired]:
        """Remove some of what goes, oldest first; blocks. Returns what went."""
        gone = []
        for item in self.expired(MEASURED_AT_ONCE)[: self.settings.max_scenes_per_sweep]:
            if self.remove(item):
                gone.append(item)
        return gone

    def remove(self, item: Expired) -> bool:
        """Remove one scene; False where it was resumed or deleted meanwhile.

        Raises:
            OSError: its files cannot be removed.
        """
        try:
            remove_scene(self._store, self._folders, item.scene.id)
        except (SceneNotFound, StateConflict):
            return False
        self._sizes.pop(item.scene.id, None)
        logger.info("scene %s removed (%s, %d bytes)", item.scene.id, item.reason, item.bytes)
        return True

    def tidy(self) -> None:
        """Remove what a deletion left that was cut short, or done by another node; blocks."""
        left = remove_strays(self._store, self._folders)
        for folder in left + remove_copies(self._store, self._folders):
            logger.info("%s removed: it was left over", folder)

    def _measure(self, ended: list[EndedScene], most: int | None) -> None:
        known = {scene.id for scene in ended}
        self._sizes = {key: size for key, size in self._sizes.items() if key in known}
        # A resumed scene has ended again, with other files.
        unmeasured = [
            scene for scene in ended if self._sizes.get(scene.id, (None, 0))[0] != scene.finished_at
        ]
        for scene in unmeasured[:most]:
            size = self._folders.kept_bytes(scene.id)
            if size is None:
                size = folder_bytes(self._folders.scene(scene.id).root)
            self._sizes[scene.id] = scene.finished_at, size

    def _bytes(self, scene: EndedScene) -> int:
        return self._sizes.get(scene.id, (0.0, 0))[1]


async def sweep_for_ever(retention: Retention) -> None:
    """Tidy up at once and at intervals; there sweep, too, if there is a limit."""
    settings = retention.settings
    limited = settings.max_age_s is not None or settings.max_bytes is not None
    work: list[Callable[[], object]] = [retention.tidy]
    while True:
        for step in work:
            try:
                await asyncio.to_thread(step)
            except StoreAway:
                # The store has logged it; the next one tries again.
                logger.debug("no sweep")
            except Exception:
                # A file that cannot be removed, say: the next one tries again.
                logger.exception("cannot remove scenes that are no longer kept")
        work = [retention.tidy, retention.sweep] if limited else [retention.tidy]
        await asyncio.sleep(settings.sweep_interval_s)


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of all files below a folder; 0 where there is none."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # removed meanwhile
                total += Path(parent, name).lstat().st_size
    return total
