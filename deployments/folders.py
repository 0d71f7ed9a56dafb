"""Where a scene's files lie below ``data_dir``, which every part of the service must see.

::

    data_dir/
      uploads/<random>/            a request body while it is received and checked
      scenes/<id>/input/<name>/    the scene's folder as it was sent, or as it was built
      scenes/<id>/source/<file>    the image that a scene is built from
      scenes/<id>/depth/<file>     the depth map that came beside it, and a .json with its unit
      scenes/<id>/output/          the results; what is here is what clients can fetch
      scenes/<id>/fetched/         copies of results that clients asked for, from a blob store

With a blob store each node has a ``data_dir`` of its own, and the store has what must outlive it.
Clients are then given ``fetched/output/`` alone, and never what a memory bank works on.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from actors.blobs import OUTPUT, BlobStore, BlobStoreAway
from configs.settings import AppArgs
from deployments.artefacts import finished_files, in_archive_order
from deployments.errors import ArtefactNotFound
from worldstereo.formats.atomic import is_temporary
from worldstereo.formats.manifest import ManifestFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneFolder:
    """The files of one scene, stored or about to be."""

    root: Path

    @property
    def input(self) -> Path:
        """Holds one folder, named as the scene."""
        return self.root / "input"

    @property
    def depth(self) -> Path:
        """Holds at most one map, and the .json that states its unit."""
        return self.root / "depth"

    @property
    def output(self) -> Path:
        """The result folder; made by whoever writes the first result."""
        return self.root / "output"

    @property
    def fetched(self) -> SceneFolder:
        """Copies of what a blob store has, in folders of the same names; nobody works on them."""
        return SceneFolder(self.root / "fetched")

    @property
    def deleted(self) -> Path:
        """A file that says that the scene is being deleted, where there is no blob store."""
        return self.root / ".deleted"

    @property
    def source(self) -> Path:
        """Holds at most one file."""
        return self.root / "source"

    def image_file(self) -> Path | None:
        """The image that the scene is built from, if it is, and if it is here."""
        return _only_entry(self.source)

    def depth_file(self) -> Path | None:
        """The depth map, if one came, and if it is here."""
        return _only_entry(self.depth, beside=".json")


@dataclass(frozen=True)
class SceneFolders:
    """All files of the service.

    Attributes:
        root: ``data_dir``.
        blobs: what keeps the files beside this node; None: all nodes see ``root``.
    """

    root: Path
    blobs: BlobStore | None = None

    @classmethod
    def of(cls, args: AppArgs) -> SceneFolders:
        """Of the service with these settings."""
        blobs = args.blobs and BlobStore(args.blobs.url.rstrip("/"), args.blobs.options)
        return cls(args.data_dir.expanduser().absolute(), blobs or None)

    @property
    def service(self) -> str:
        """A short name of the service that these files are of."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    def scene(self, scene_id: str) -> SceneFolder:
        """The folder of a stored scene."""
        return SceneFolder(self.root / "scenes" / scene_id)

    def keep(self, scene_id: str, parts: Iterable[str]) -> None:
        """Take these folders of a scene to the blob store, where there is one; blocks.

        Raises:
            BlobStoreAway: it does not answer.
        """
        if self.blobs is not None:
            blobs = self.blobs.scene(scene_id, self.scene(scene_id).root)
            for part in parts:
                blobs.push(part)

    def bring(self, scene_id: str, parts: Iterable[str]) -> None:
        """Bring these folders of a scene here, where there is a blob store; as ``keep``."""
        if self.blobs is not None:
            blobs = self.blobs.scene(scene_id, self.scene(scene_id).root)
            for part in parts:
                blobs.pull(part)

    def results_index(self, scene_id: str) -> Collection[ManifestFile] | None:
        """The results that a blob store has; None where there is none. Blocks, as ``keep``."""
        if self.blobs is None:
            return None
        return self.blobs.scene(scene_id, self.scene(scene_id).root).index(OUTPUT).values()

    def folder_with(self, scene_id: str, name: str) -> Path:
        """The folder that has one file of a scene's results, which is fetched from a blob store.

        Raises:
            ArtefactNotFound: the blob store has no such file. Without one nobody looks.
            BlobStoreAway: as ``keep``.
        """
        folder = self.scene(scene_id)
        if self.blobs is None:
            return folder.output
        try:
            self.blobs.scene(scene_id, folder.fetched.root).fetch(OUTPUT, name)
        except FileNotFoundError as error:
            raise ArtefactNotFound("no such file, or not yet", where=name[:200]) from error
        return folder.fetched.output

    def result_files(self, scene_id: str) -> list[tuple[str, Path]]:
        """Name and place of all finished results, the manifest last; with a blob store its own.

        Raises:
            ArtefactNotFound: one was removed meanwhile: the scene goes on, or is being deleted.
            BlobStoreAway: as ``keep``.
        """
        folder = self.scene(scene_id)
        if self.blobs is None:
            return finished_files(folder.output)
        try:
            fetched = self.blobs.scene(scene_id, folder.fetched.root).pull(OUTPUT)
        except FileNotFoundError as error:
            raise ArtefactNotFound(
                "the scene's files changed while they were fetched",
                where=f"scene {scene_id}",
                fix="ask again",
            ) from error
        return in_archive_order(fetched.items())

    def kept_bytes(self, scene_id: str) -> int | None:
        """Sum of the sizes of a scene's files in the blob store; None where there is none."""
        if self.blobs is None:
            return None
        return self.blobs.scene(scene_id, self.scene(scene_id).root).bytes()

    def mark(self, scene_id: str) -> None:
        """Say that a scene is being deleted, where every node finds it.

        Raises:
            BlobStoreAway: as ``keep``.
        """
        folder = self.scene(scene_id)
        if self.blobs is not None:
            self.blobs.scene(scene_id, folder.root).mark()
            return
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.deleted.touch()

    def unmark(self, scene_id: str) -> None:
        """Take it back; as ``mark``."""
        folder = self.scene(scene_id)
        if self.blobs is not None:
            self.blobs.scene(scene_id, folder.root).unmark()
        folder.deleted.unlink(missing_ok=True)

    def marked(self) -> list[str]:
        """Ids of scenes that are being deleted, or whose deletion was cut short; as ``mark``."""
        here = [folder.root.name for folder in self.stored() if folder.deleted.exists()]
        return here if self.blobs is None else sorted({*here, *self.blobs.marked()})

    def remove(self, scene_id: str) -> None:
        """Remove all files of a scene, here and from the blob store; twice is harmless.

        Raises:
            BlobStoreAway: it does not answer.
            OSError: a file cannot be removed.
        """
        root = self.scene(scene_id).root
        remove_folder(root)
        if self.blobs is not None:
            self.blobs.scene(scene_id, root).delete()

    def stored(self) -> list[SceneFolder]:
        """The folders of all scenes, also of those that nobody knows any more."""
        parent = self.root / "scenes"
        found = sorted(parent.iterdir()) if parent.is_dir() else []
        return [SceneFolder(path) for path in found if path.is_dir()]

    def uploads(self) -> list[Path]:
        """The folders of all requests whose bodies came."""
        parent = self.root / "uploads"
        return sorted(parent.iterdir()) if parent.is_dir() else []

    def discard(self, scene_id: str) -> None:
        """Remove the files of a scene that was not stored; those in a blob store if it answers."""
        try:
            self.remove(scene_id)
        except BlobStoreAway as error:
            logger.warning("scene %s: files of it may be left: %s", scene_id, error)

    def new_upload(self) -> SceneFolder:
        """A fresh folder for one request, on the file system that scenes are on."""
        folder = self.root / "uploads" / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return SceneFolder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it; nothing where there is none."""
    # Two may remove the same folder: what one finds gone, the other has removed.
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _only_entry(folder: Path, beside: str | None = None) -> Path | None:
    """The one finished file of a folder; None where it is not, or is just being removed."""
    try:
        entries = list(folder.iterdir())
    except FileNotFoundError:
        return None
    found = [
        path for path in entries if path.suffix != beside and not is_temporary(Path(path.name))
    ]
    assert len(found) <= 1, f"{folder} holds {len(found)} entries"
    return found[0] if found else None
