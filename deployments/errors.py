"""What the service adds to the engine's exceptions; http_errors.py gives each its status.

::

    WorldStereoError
    |-- InputError
    |   |-- UploadError            a broken or forbidden archive or request body
    |   |-- UploadTooLarge         more bytes or files than the server takes
    |   |-- UriError               an address that is not read from, or that gave nothing
    |   `-- ValidationError        malformed fields of a request
    |-- AuthenticationError        no key, or none that is good
    |-- PermissionDenied           the key does not allow this
    |-- RateLimited                the key has sent as many requests as it may
    |-- SceneNotFound
    |-- ArtefactNotFound
    |-- RangeNotSatisfiable        the file has no such bytes
    |-- StateConflict              not possible in the present state
    |-- IdempotencyConflict        the key was used for another request
    |-- QueueFull                  as many scenes wait as the server takes
    |-- NotReady                   no replica can take a clip now
    |-- StoreAway                  the database is stopped, cut off, locked or full
    `-- InternalError              a failure that nobody foresaw
"""

from worldstereo.errors import InputError, WorldStereoError


class UploadError(InputError):
    """The request body or the archive in it is broken, or holds something forbidden."""


class UploadTooLarge(InputError):
    """The upload has more bytes or files than the server takes."""


class ValidationError(InputError):
    """Fields of a request are malformed."""


class UriError(InputError):
    """The server does not read from this address, or got nothing that it can use."""


class AuthenticationError(WorldStereoError):
    """The request comes without an API key, or with one that is not good."""


class PermissionDenied(WorldStereoError):
    """The API key does not allow this."""


class RateLimited(WorldStereoError):
    """The API key has sent as many requests as it may; ``retry_after_s`` says when to go on."""

    retry_after_s: float = 1.0


class SceneNotFound(WorldStereoError):
    """There is no scene with this id."""


class ArtefactNotFound(WorldStereoError):
    """The scene has no such file, or not yet."""


class RangeNotSatisfiable(WorldStereoError):
    """The file, of ``file_bytes`` bytes, has none of those that were asked for."""

    file_bytes: int = 0


class StateConflict(WorldStereoError):
    """The present state of the scene or trajectory does not allow this."""


class IdempotencyConflict(WorldStereoError):
    """The idempotency key belongs to a request with another body."""


class QueueFull(WorldStereoError):
    """As many scenes wait as the server takes."""


class NotReady(WorldStereoError):
    """No replica can take a clip now."""


class StoreAway(WorldStereoError):
    """The database does not answer or takes no writes now; what was asked may be asked again."""


class InternalError(WorldStereoError):
    """The server failed in a way that nobody foresaw; the log has the rest."""
