"""What the command line's exit status says; scripts may rely on it.

====  ==========================================================================
code  meaning
====  ==========================================================================
0     done
1     the scene failed while it was generated
2     bad usage, bad input or no valid API key: nothing was generated
3     the server cannot be reached, does not answer, or is no WorldStereo server
4     the scene was cancelled
5     the server is full, not ready, or failed inside: the same may work later
6     received files are not what the server announced
7     this installation lacks something: a package, weights, a device, a codec
130   interrupted (Ctrl-C)
====  ==========================================================================
"""

from __future__ import annotations

from enum import IntEnum

from worldstereo_client import errors
from worldstereo_client.schemas import Scene, SceneStatus


class ExitCode(IntEnum):
    """Exit status of the command line."""

    OK = 0
    SCENE_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    CANCELLED = 4
    SERVER_ERROR = 5
    DAMAGED = 6
    INSTALLATION = 7
    INTERRUPTED = 130


# The first class that an error is an instance of decides.
_BY_CLASS: tuple[tuple[type[Exception], ExitCode], ...] = (
    (errors.InputError, ExitCode.BAD_INPUT),
    (errors.AuthenticationError, ExitCode.BAD_INPUT),
    (errors.PermissionDenied, ExitCode.BAD_INPUT),
    (errors.SceneNotFound, ExitCode.BAD_INPUT),
    (errors.ArtefactNotFound, ExitCode.BAD_INPUT),
    (errors.RangeNotSatisfiable, ExitCode.BAD_INPUT),
    (errors.StateConflict, ExitCode.BAD_INPUT),
    (errors.IdempotencyConflict, ExitCode.BAD_INPUT),
    (errors.TransportError, ExitCode.UNREACHABLE),
    (errors.GenerationCancelled, ExitCode.CANCELLED),
    (errors.GenerationError, ExitCode.SCENE_FAILED),
    (errors.IntegrityError, ExitCode.DAMAGED),
    (errors.CheckpointError, ExitCode.INSTALLATION),
    (errors.MissingDependencyError, ExitCode.INSTALLATION),
    (errors.WorldStereoError, ExitCode.SERVER_ERROR),
)


def exit_code_of(error: errors.WorldStereoError) -> ExitCode:
    """The exit status for an error that ends a command."""
    return next(code for cls, code in _BY_CLASS if isinstance(error, cls))


def exit_code_of_scene(scene: Scene) -> ExitCode:
    """The exit status for a scene that has ended."""
    if scene.status is SceneStatus.COMPLETED:
        return ExitCode.OK
    return ExitCode.CANCELLED if scene.status is SceneStatus.CANCELLED else ExitCode.SCENE_FAILED
