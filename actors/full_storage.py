"""A storage without space: a condition that passes, so whoever meets it waits and fails nothing.

Owns telling it from other errors where scenes are kept. Who waits, and for how long, is
others'.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from worldstereo.errors import WorldStereoError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageAway(WorldStereoError):
    """What keeps the scenes' files cannot be written now; that passes, and what needs it waits."""


class StorageFull(StorageAway):
    """No space is left where scenes are kept; what was committed stays, and the rest waits."""


@contextmanager
def telling_full_storage() -> Iterator[None]:
    """Around code that writes there: an error for want of space becomes ``StorageFull``."""
    try:
        yield
    except Exception as error:
        if not _for_want_of_space(error):
            raise
        # Made anew: libraries' own errors may not survive the way to another process.
        raise StorageFull(
            "no space is left",
            where="data_dir",
            got="a full disk, or a quota that is used up",
            fix="make space: whatever waits for it goes on by itself",
        ) from None


def _for_want_of_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
