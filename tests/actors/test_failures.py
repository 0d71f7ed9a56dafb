"""What Ray's exceptions are taken for."""

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    OwnerDiedError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.failures import cause_of, first_line, is_gone_for_good, process_is_gone
from worldstereo.errors import GenerationError


def remotely(error: Exception) -> RayTaskError:
    """The error as it comes from another process, of a class made from two."""
    found: RayTaskError = RayTaskError("generate", "traceback", error).as_instanceof_cause()
    return found


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        ActorUnavailableError("away", b"0" * 16),
        OutOfMemoryError("its node is low on memory"),
        OwnerDiedError("0" * 56, b"", ""),
        WorkerCrashedError(),
        remotely(ActorDiedError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_other_side_is_gone(error: Exception) -> None:
    assert process_is_gone(error)


def test_an_actor_that_may_come_back_is_not_gone_for_good() -> None:
    assert is_gone_for_good(ActorDiedError())
    assert not is_gone_for_good(ActorUnavailableError("away", b"0" * 16))


def test_an_error_of_the_other_side_is_itself() -> None:
    error = remotely(GenerationError("broken", where="renders/a"))
    assert not process_is_gone(error)
    assert type(cause_of(error)) is GenerationError
    assert not process_is_gone(ValueError("odd"))


def test_errors_are_told_in_one_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
