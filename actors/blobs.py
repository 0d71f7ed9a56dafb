"""A scene's files in a blob store that all nodes reach, such as S3, beside a node's own folder.

Owns what is where in the store, and bringing a node's folder and the store together. Files are
worked on in a local folder as ever; ``push`` takes what is new there to the store, ``pull`` brings
what is missing here. A part's index is written after its files: what it does not name never
happened, so that a part is seen whole or as it was before.

::

    <url>/<scene>/<part>.json       the index: name, bytes and sha256 of each file
    <url>/<scene>/<part>/<name>     the files; parts are the folders of a scene
    <url>/<scene>.deleted           says that the scene is being deleted; goes last

One process at a time pushes a part: the ingress that took the scene its inputs, the scene's memory
bank its results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from actors.full_storage import StorageAway
from worldstereo.errors import WorldStereoError
from worldstereo.formats.atomic import is_temporary, temporary_sibling
from worldstereo.formats.manifest import ManifestFile, sha256_of, sha256_of_seen, to_json

# The folders of a scene that are kept.
INPUT, SOURCE, DEPTH, OUTPUT = PARTS = ("input", "source", "depth", "output")
_MARK = ".deleted"


class BlobStoreAway(StorageAway):
    """The blob store does not answer, or takes nothing."""


class BlobDamaged(WorldStereoError):
    """The blob store holds another file than its index says."""


@dataclass(frozen=True)
class BlobStore:
    """Where the blobs are.

    Attributes:
        url: of the folder above the scenes', by fsspec: ``s3://bucket/prefix``.
        options: of fsspec's file system for it.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def scene(self, scene_id: str, folder: Path) -> SceneBlobs:
        """The blobs of one scene, whose local folder is ``folder``."""
        return SceneBlobs(self, scene_id, folder)

    def marked(self) -> list[str]:
        """Ids of the scenes whose deletion has begun; blocks.

        Raises:
            BlobStoreAway: the store does not answer.
        """
        files, root = self.files()
        try:
            paths = _call(self, files, "ls", root, detail=False)
        except FileNotFoundError:  # nothing was ever kept
            return []
        names = [PurePosixPath(path).name for path in paths]
        return sorted(name.removesuffix(_MARK) for name in names if name.endswith(_MARK))

    def files(self) -> tuple[Any, str]:
        """fsspec's file system of the store, and the path of the folder above the scenes'."""
        import fsspec

        # Listings are never kept: other nodes write, too.
        options = {"use_listings_cache": False, "skip_instance_cache": True, **self.options}
        files, root = fsspec.core.url_to_fs(self.url, **options)
        return files, root.rstrip("/")


class SceneBlobs:
    """One scene's files in the store and on this node.

    Every method blocks, and raises ``BlobStoreAway`` when the store does not answer.

    Args:
        store: where they are.
        scene_id: of the scene.
        folder: of its files here; parts are folders in it.
    """

    def __init__(self, store: BlobStore, scene_id: str, folder: Path) -> None:
        self._store = store
        self._files, root = store.files()
        self._root = f"{root}/{scene_id}"
        self._folder = folder
        # What this process knows to be in the store: its size and time here when it was pushed, or
        # pulled.
        self._known: dict[str, dict[str, tuple[int, int]]] = {}

    def push(self, part: str) -> None:
        """Make a part in the store what it is here: new, changed and removed files.

        Removed are those that this process has pulled or pushed and that are gone here. Of others
        it knows nothing: one that was replaced and comes back late must not undo its successor's.
        """
        known = self._known.setdefault(part, {})
        index = self.index(part)
        here = {path.relative_to(self._folder / part).as_posix() for path in self._finished(part)}
        # A part that is not here at all was lost with its folder: nobody has removed its files.
        lost = not (self._folder / part).is_dir()
        removed = set() if lost else (known.keys() - here) & index.keys()
        changed = bool(removed)
        for name in removed:
            del index[name]
        for path in sorted(self._finished(part)):
            name = path.relative_to(self._folder / part).as_posix()
            seen = _size_and_time(path)
            if known.get(name) == seen and name in index:
                continue
            entry = ManifestFile(name=name, bytes=seen[0], sha256=sha256_of(path))
            if index.get(name) != entry:
                self._call("put_file", str(path), self._blob(part, name))
                index[name], changed = entry, True
            known[name] = seen
        if changed or not self._call("exists", self._index_file(part)):
            entries = [entry.model_dump() for _, entry in sorted(index.items())]
            self._call("pipe_file", self._index_file(part), to_json({"files": entries}).encode())
        for name in removed:
            known.pop(name)
            self._call("rm_file", self._blob(part, name))

    def pull(self, part: str) -> dict[str, Path]:
        """Bring the files of a part that are missing or different here.

        Returns:
            Where the files of the index are here, by name.
        """
        here = {}
        known = self._known.setdefault(part, {})
        for name, entry in self.index(part).items():
            here[name] = self._fetch(part, entry)
            known[name] = _size_and_time(here[name])
        return here

    def fetch(self, part: str, name: str) -> Path:
        """One file of a part, here.

        Raises:
            FileNotFoundError: the index does not name it.
            BlobDamaged: the store's file is not the one of the index.
        """
        entry = self.index(part).get(name)
        if entry is None:
            raise FileNotFoundError(name)
        return self._fetch(part, entry)

    def _fetch(self, part: str, entry: ManifestFile) -> Path:
        path = self._folder / part / entry.name
        if (
            path.is_file()
            and path.stat().st_size == entry.bytes
            and sha256_of_seen(path) == entry.sha256
        ):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        try:
            self._call("get_file", self._blob(part, entry.name), str(temporary))
            if sha256_of(temporary) != entry.sha256:
                raise BlobDamaged(
                    "a file of the blob store is not the one that was written",
                    where=self._blob(part, entry.name),
                    got=f"sha256 {sha256_of(temporary)}",
                    allowed=entry.sha256,
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def index(self, part: str) -> dict[str, ManifestFile]:
        """The files of a part in the store, by name; empty when nothing was pushed."""
        try:
            text = self._call("cat_file", self._index_file(part))
        except FileNotFoundError:
            return {}
        files = [ManifestFile.model_validate(entry) for entry in json.loads(text)["files"]]
        return {file.name: file for file in files}

    def bytes(self) -> int:
        """Sum of the sizes of all files in the store."""
        return sum(entry.bytes for part in PARTS for entry in self.index(part).values())

    def mark(self) -> None:
        """Say to all nodes that the scene is being deleted; ``delete`` takes it back at its end."""
        self._call("pipe_file", self._root + _MARK, b"")

    def unmark(self) -> None:
        """Take back that the scene is being deleted; twice is harmless."""
        with suppress(FileNotFoundError):
            self._call("rm_file", self._root + _MARK)

    def delete(self) -> None:
        """Remove everything of the scene from the store; twice is harmless."""
        with suppress(FileNotFoundError):  # another process is at it, too
            if self._call("exists", self._root):
                self._call("rm", self._root, recursive=True)
        self.unmark()

    def _finished(self, part: str) -> list[Path]:
        folder = self._folder / part
        return [
            path
            for path in folder.rglob("*")
            if path.is_file() and not is_temporary(path.relative_to(folder))
        ]

    def _blob(self, part: str, name: str) -> str:
        return f"{self._root}/{part}/{name}"

    def _index_file(self, part: str) -> str:
        return f"{self._root}/{part}.json"

    def _call(self, operation: str, *arguments: Any, **options: Any) -> Any:
        return _call(self._store, self._files, operation, *arguments, **options)


def _call(store: BlobStore, files: Any, operation: str, *arguments: Any, **options: Any) -> Any:
    try:
        return getattr(files, operation)(*arguments, **options)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the driver of a store raises
        raise BlobStoreAway(
            "the blob store cannot be used",
            where=store.url,
            got=f"{operation}: {type(error).__name__}: {error}"[:500],
            fix="see that it is up and that its credentials hold; work goes on when it is back",
        ) from error


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
