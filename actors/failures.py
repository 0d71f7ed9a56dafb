"""What Ray's exceptions mean here: the engine's own error, or a process that is gone."""

from __future__ import annotations

from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    PlasmaObjectNotAvailable,
    RayActorError,
    RaySystemError,
    RayTaskError,
    RpcError,
    TaskCancelledError,
    WorkerCrashedError,
)

# Ray has no base class for them.
_LOST = (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,  # Ray ended the process, since its node ran out of memory
    PlasmaObjectNotAvailable,
    RayActorError,
    RaySystemError,
    RpcError,
    TaskCancelledError,
    WorkerCrashedError,
)


def cause_of(error: BaseException) -> BaseException:
    """What was raised on the other side; the error itself where nothing was."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, BaseException) else error
    return error


def process_is_gone(error: BaseException) -> bool:
    """Whether the other side died or cannot be reached, so that its answer will never come."""
    return isinstance(cause_of(error), _LOST)


def is_gone_for_good(error: BaseException) -> bool:
    """Whether the other side is an actor that will not come back."""
    cause = cause_of(error)
    return isinstance(cause, RayActorError) and not isinstance(cause, ActorUnavailableError)


def first_line(error: BaseException) -> str:
    """The error in one line: Ray's texts go on with the logs of whatever died."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
