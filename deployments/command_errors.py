"""Errors of the engine at the command line: one line and an exit code, as the client's have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from worldstereo_client import errors

from worldstereo import errors as engine


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise an error of the engine as the client's class of the same name.

    The command line then ends with one line and the same exit code, whichever side found it.
    """
    try:
        yield
    except engine.WorldStereoError as error:
        names = [cls.__name__ for cls in type(error).__mro__]
        mirrored = errors.WIRE_ERRORS[next(name for name in names if name in errors.WIRE_ERRORS)]
        raise mirrored(
            error.what, where=error.where, got=error.got, allowed=error.allowed, fix=error.fix
        ) from error
