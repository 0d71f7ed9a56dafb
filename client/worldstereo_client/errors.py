"""The client's exceptions, and how a server's problem body becomes one of them.

The upper half mirrors the engine's tree name by name; the rest is what HTTP and the network add.

::

    WorldStereoError
    |-- InputError (ValueError)       the caller's input or arguments; nothing was generated
    |   |-- LayoutError               a scene folder that is no layout, two layouts, or lacks a file
    |   |-- CameraError               counts, shapes, non-finite or non-rigid matrices, intrinsics
    |   |-- MediaError                an image, video or depth map that cannot be used
    |   |-- PromptError               a missing or unusable text prompt
    |   |-- ParameterError            a variant, task, size, step count, ... outside its range
    |   |-- UploadError               400: a broken or forbidden archive
    |   |-- UploadTooLarge            413: more bytes or files than the server takes
    |   |-- UriError                  422: an address that the server does not read from
    |   `-- ValidationError           422: malformed fields of a request
    |-- CheckpointError               weights or configuration files that are missing or do not fit
    |-- MissingDependencyError (ImportError)   an optional package that was asked for
    |-- GenerationError               a clip that failed while it was generated
    |-- GenerationCancelled           a clip or scene that was stopped on request
    |-- ApiError                      the server understood and said no
    |   |-- AuthenticationError       401: no API key, or none that is good
    |   |-- PermissionDenied          403: the key does not allow this
    |   |-- RateLimited               429: the key has sent as many requests as it may
    |   |-- SceneNotFound             404
    |   |-- ArtefactNotFound          404
    |   |-- RangeNotSatisfiable       416: the file has no such bytes
    |   |-- StateConflict             409: not possible in the scene's present state
    |   |-- IdempotencyConflict       409: the key was used for another request
    |   |-- QueueFull                 429
    |   |-- NotReady                  503: no replica can take a clip
    |   |-- StoreAway                 503: the server's database does not answer now
    |   |-- StorageAway               503: the server cannot keep files now
    |   |   |-- BlobStoreAway         503: what keeps them does not answer
    |   |   `-- StorageFull           507: there is no space for them
    |   `-- InternalError             500
    |-- TransportError                no usable answer came
    |   |-- ServerUnreachable (ConnectionError)
    |   |-- ServerTimeout (TimeoutError)
    |   `-- UnexpectedResponse        an answer that is not of this API
    |-- IntegrityError                received bytes are not the ones that the server announced
    `-- WaitTimeout (TimeoutError)    the scene did not end within the time given to ``wait``

Every error keeps the parts of its message (``what``, ``where``, ``got``, ``allowed``, ``fix``) and,
when a server sent it, the ``problem`` body.
"""

from __future__ import annotations

from typing import Any

from worldstereo_client.schemas import Problem


class WorldStereoError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        what: the problem in one clause, without a full stop.
        where: the file, field, address or argument that it was found in.
        got: what was found there.
        allowed: what would have been accepted.
        fix: what the reader can do about it.
        problem: the body that the server sent, when it was the server who said so.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: str | None = None,
        allowed: str | None = None,
        fix: str | None = None,
        problem: Problem | None = None,
    ) -> None:
        self.what, self.where, self.got, self.allowed, self.fix = what, where, got, allowed, fix
        self.problem = problem
        parts = [f"{where}: {what}" if where else what]
        parts += [f"got {got}"] if got else []
        parts += [f"allowed: {allowed}"] if allowed else []
        parts += [fix] if fix else []
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

    @property
    def status(self) -> int | None:
        """HTTP status that the error came with; None when it arose on this side."""
        return self.problem.status if self.problem else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.fields, self.problem)


def _rebuild(
    cls: type[WorldStereoError], fields: dict[str, str], problem: Problem | None
) -> WorldStereoError:
    what = fields.pop("what")
    return cls(what, **fields, problem=problem)


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


class UploadError(InputError):
    """The archive that was sent is broken or holds something forbidden (400)."""


class UploadTooLarge(InputError):
    """The upload has more bytes or files than the server takes (413)."""


class ValidationError(InputError):
    """Fields of a request are malformed (422)."""


class UriError(InputError):
    """The server does not read from this address, or got nothing that it can use (422)."""


class CheckpointError(WorldStereoError):
    """Model files are missing, or their keys and shapes do not fit the model."""


class MissingDependencyError(WorldStereoError, ImportError):
    """An optional package is needed for what was asked; the message holds the line to type."""


class GenerationError(WorldStereoError):
    """A clip failed while it was generated."""


class GenerationCancelled(WorldStereoError):
    """A clip or a whole scene was stopped because someone asked for it."""


class ApiError(WorldStereoError):
    """The server understood the request and refused it; also any error name that is unknown here.

    ``name`` is the name that the server gave.
    """

    @property
    def name(self) -> str:
        """The error's name on the wire."""
        return self.problem.error if self.problem else type(self).__name__


class AuthenticationError(ApiError):
    """The request came without an API key, or with one that is not good (401)."""


class PermissionDenied(ApiError):
    """The API key does not allow this (403)."""


class RateLimited(ApiError):
    """The API key has sent as many requests as it may (429)."""


class SceneNotFound(ApiError):
    """There is no scene with this id (404)."""


class ArtefactNotFound(ApiError):
    """The scene has no such file, or not yet (404)."""


class RangeNotSatisfiable(ApiError):
    """The file has none of the bytes that were asked for (416)."""


class StateConflict(ApiError):
    """The scene's present state does not allow this (409)."""


class IdempotencyConflict(ApiError):
    """The idempotency key belongs to a request with another body (409)."""


class QueueFull(ApiError):
    """The server has as many waiting scenes as it takes (429)."""


class NotReady(ApiError):
    """No replica can take a clip now (503)."""


class StoreAway(ApiError):
    """The server's database does not answer or takes no writes now; ask again a little later."""


class StorageAway(ApiError):
    """The server cannot keep files now; that passes, so ask again a little later."""


class BlobStoreAway(StorageAway):
    """What keeps the server's files does not answer now (503)."""


class StorageFull(StorageAway):
    """The server has no space for files now (507); ask again when somebody has made some."""


class InternalError(ApiError):
    """The server failed in a way that it did not foresee (500)."""


class TransportError(WorldStereoError):
    """No usable answer came from the server."""


class ServerUnreachable(TransportError, ConnectionError):
    """No connection to the server, or it was lost and could not be had again."""


class ServerTimeout(TransportError, TimeoutError):
    """The server did not answer in time."""


class UnexpectedResponse(TransportError):
    """The answer is not of this API: another program or a proxy answered."""


class IntegrityError(WorldStereoError):
    """Received bytes do not have the announced size or SHA-256."""


class WaitTimeout(WorldStereoError, TimeoutError):
    """The scene did not end within the time that was given; it goes on running."""


# What a problem body's ``error`` may name.
WIRE_ERRORS: dict[str, type[WorldStereoError]] = {
    cls.__name__: cls
    for cls in (
        WorldStereoError,
        InputError,
        LayoutError,
        CameraError,
        MediaError,
        PromptError,
        ParameterError,
        UploadError,
        UploadTooLarge,
        UriError,
        ValidationError,
        CheckpointError,
        MissingDependencyError,
        GenerationError,
        GenerationCancelled,
        AuthenticationError,
        PermissionDenied,
        RateLimited,
        SceneNotFound,
        ArtefactNotFound,
        RangeNotSatisfiable,
        StateConflict,
        IdempotencyConflict,
        QueueFull,
        NotReady,
        StoreAway,
        StorageAway,
        BlobStoreAway,
        StorageFull,
        InternalError,
    )
}


def error_from_problem(problem: Problem) -> WorldStereoError:
    """The exception that a problem body stands for.

    Args:
        problem: body as the server sent it.

    Returns:
        An instance of the class that ``problem.error`` names; an ``ApiError`` for a name that
        this version does not know.
    """
    cls = WIRE_ERRORS.get(problem.error, ApiError)
    if problem.what is None:
        return cls(problem.detail, problem=problem)
    return cls(
        problem.what,
        where=problem.where,
        got=problem.got,
        allowed=problem.allowed,
        fix=problem.fix,
        problem=problem,
    )
