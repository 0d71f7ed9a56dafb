"""Reaching the files of one scene folder: what exists, links that leave it, JSON.

Owns the rule that nothing outside the scene folder is read, and that errors name files by their
path inside it. What a file must hold is left to the readers.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldstereo.errors import InputError, LayoutError
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class SceneFiles:
    """The files under a scene folder, addressed by paths relative to it with ``/``.

    Attributes:
        root: the scene folder, absolute, links resolved.
        limits: bounds for everything that is read.
    """

    root: Path
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def open(cls, folder: Path, limits: Limits = DEFAULT_LIMITS) -> SceneFiles:
        """Open a folder.

        Raises:
            LayoutError: it does not exist or is no folder.
        """
        if not os.path.exists(folder):  # Path.exists raises without permission
            raise LayoutError(
                "the scene folder does not exist",
                where=str(folder),
                got="no such path",
                allowed="a folder in one of the published layouts",
            )
        if not folder.is_dir():
            raise LayoutError(
                "a scene is a folder",
                where=str(folder),
                got="a file",
                allowed="a folder in one of the published layouts",
                fix="unpack an archive first, or give the folder that the file lies in",
            )
        return cls(folder.resolve(), limits)

    def _inside(self, name: str) -> Path:
        path = self.root / name
        try:
            outside = not path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):  # a circle of links
            outside = True
        if outside:
            raise LayoutError(
                "a link leads out of the scene folder",
                where=name.removeprefix("./"),
                got="a symbolic link to a place outside, or in a circle",
                allowed="files and links inside the scene folder",
                fix="put a copy of the file in the scene folder",
            )
        return path

    def _kind(self, name: str) -> str:
        """What ``name`` is, in words of an error."""
        path = self._inside(name)
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return "no such file"
        except PermissionError as problem:
            raise _no_permission(name, LayoutError) from problem
        if stat.S_ISREG(mode):
            return "a file"
        return "a folder" if stat.S_ISDIR(mode) else "no regular file"

    def has_file(self, name: str) -> bool:
        """Whether ``name`` is a file inside the scene folder; LayoutError when it leads out."""
        return self._kind(name) == "a file"

    def has_folder(self, name: str) -> bool:
        """Whether ``name`` is a folder inside the scene folder; LayoutError when it leads out."""
        return self._kind(name) == "a folder"

    def file(
        self, name: str, what: str, error: type[InputError] = LayoutError, fix: str | None = None
    ) -> Path:
        """The path of a file that must be there.

        Args:
            name: path inside the scene folder.
            what: what the file is for, in words of the error ("the start image").
            error: class of the error for a missing file.
            fix: what to do when it is missing.
        """
        kind = self._kind(name)
        if kind != "a file":
            raise error(
                f"{what} is missing", where=name, got=kind, allowed=f"a file {name}", fix=fix
            )
        _check_readable(self.root / name, name, error)
        return self.root / name

    def folders(self, name: str = ".") -> list[str]:
        """Names of the folders in ``name``, sorted; those that start with a dot are left out."""
        return [entry for entry in self._entries(name) if self.has_folder(f"{name}/{entry}")]

    def files(self, name: str = ".") -> list[str]:
        """Names of the files in ``name``, sorted; those that start with a dot are left out."""
        return [entry for entry in self._entries(name) if self.has_file(f"{name}/{entry}")]

    def _entries(self, name: str) -> Iterator[str]:
        folder = self._inside(name)
        _check_readable(folder, name, LayoutError)
        yield from sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")

    def read_json(self, name: str, error: type[InputError]) -> Any:
        """Parse a JSON file that is known to be there.

        Raises:
            InputError: of class ``error``: too large, not UTF-8, no JSON.
        """
        path = self._inside(name)
        _check_readable(path, name, error)
        size = path.stat().st_size
        if size > self.limits.max_json_bytes:
            raise error(
                "the file is too large",
                where=name,
                got=f"{size} bytes",
                allowed=f"up to {self.limits.max_json_bytes} bytes",
            )
        try:
            return json.loads(path.read_bytes().decode("utf-8-sig"))
        except (ValueError, RecursionError) as problem:
            raise error(
                "the file is no JSON",
                where=name,
                got=f"{type(problem).__name__}: {str(problem)[:200]}",
                allowed="JSON in UTF-8",
            ) from problem

    def read_object(self, name: str, error: type[InputError]) -> dict[str, Any]:
        """Parse a JSON file that must hold an object."""
        value = self.read_json(name, error)
        if not isinstance(value, dict):
            raise error(
                "the file must hold a JSON object",
                where=name,
                got=describe_json(value),
                allowed="an object {...}",
            )
        return value


def _check_readable(path: Path, name: str, error: type[InputError]) -> None:
    if not os.access(path, os.R_OK):
        raise _no_permission(name, error)


def _no_permission(name: str, error: type[InputError]) -> InputError:
    return error(
        "it may not be read",
        where=name.removeprefix("./"),
        got="no permission",
        allowed="files and folders that this process may read",
    )


def describe_json(value: object) -> str:
    """A short name of what a JSON value is, for error messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value!r}"[:80]
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return f"the text {shown!r}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    assert isinstance(value, dict), type(value)
    return f"an object with {len(value)} fields"
