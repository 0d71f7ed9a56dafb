"""The engine's exceptions, and how each one reads.

::

    WorldStereoError
    |-- InputError (ValueError)       the caller's input or arguments; nothing was generated
    |   |-- LayoutError               a scene folder that is no layout, two layouts, or lacks a file
    |   |-- CameraError               counts, shapes, non-finite or non-rigid matrices, intrinsics
    |   |-- MediaError                an image, video or depth map that cannot be used
    |   |-- PromptError               a missing or unusable text prompt
    |   `-- ParameterError            a variant, task, size, step count, ... outside its range
    |-- CheckpointError               weights or configuration files that are missing or do not fit
    |-- MissingDependencyError (ImportError)   an optional package that was asked for
    |-- GenerationError               a clip that failed while it was generated
    `-- GenerationCancelled           a clip that was stopped on request

A message says what is wrong, where, what was got, what is allowed and what to do.
"""

from typing import Any


class WorldStereoError(Exception):
    """Base of all errors that the engine raises on purpose.

    Args:
        what: the problem in one clause, without a full stop.
        where: the file, field, frame or argument that it was found in.
        got: what was found there.
        allowed: what would have been accepted.
        fix: what the reader can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: str | None = None,
        allowed: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.what = _as_utf8(what)
        self.where, self.got, self.allowed, self.fix = (
            None if part is None else _as_utf8(part) for part in (where, got, allowed, fix)
        )
        parts = [f"{self.where}: {self.what}" if where else self.what]
        parts += [f"got {self.got}"] if got else []
        parts += [f"allowed: {self.allowed}"] if allowed else []
        parts += [self.fix] if self.fix else []
        super().__init__("; ".join(parts))

    @property
    def fields(self) -> dict[str, str]:
        """The parts of the message that are set, by name."""
        parts = {
            "what": self.what,
            "where": self.where,
            "got": self.got,
            "allowed": self.allowed,
            "fix": self.fix,
        }
        return {name: text for name, text in parts.items() if text is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.fields)


def _as_utf8(text: str) -> str:
    """Escape what has no UTF-8 (a file's name may be any bytes): every message can be sent."""
    return text.encode(errors="backslashreplace").decode()


def _rebuild(cls: type[WorldStereoError], fields: dict[str, str]) -> WorldStereoError:
    what = fields.pop("what")
    return cls(what, **fields)


class InputError(WorldStereoError, ValueError):
    """The caller's input cannot be used. Nothing was generated and nothing was lost."""


class LayoutError(InputError):
    """A scene folder is in no published layout, in two at once, or lacks a file."""


class CameraError(InputError):
    """Cameras of the wrong count or shape, non-finite, non-rigid, or with absurd intrinsics."""


class MediaError(InputError):
    """An image, video, mask or depth map is missing frames, broken or of the wrong kind."""


class PromptError(InputError):
    """A prompt is missing, empty or not text."""


class ParameterError(InputError):
    """An argument is unknown or outside its range."""


class CheckpointError(WorldStereoError):
    """Model files are missing, or their keys and shapes do not fit the model."""


class MissingDependencyError(WorldStereoError, ImportError):
    """An optional package is needed for what was asked; the message holds the line to type."""


class GenerationError(WorldStereoError):
    """A clip failed while it was generated; the replica that ran it is still usable."""


class GenerationCancelled(WorldStereoError):
    """A clip was stopped between two denoising steps because someone asked for it."""
