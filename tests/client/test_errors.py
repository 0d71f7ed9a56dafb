"""The client's exceptions: one for each of the server's, with every part of its message."""

from __future__ import annotations

import inspect
import pickle

import pytest
import worldstereo_client.errors as mirrored
from worldstereo_client.errors import WIRE_ERRORS, ApiError, WorldStereoError, error_from_problem
from worldstereo_client.exit_codes import ExitCode, exit_code_of
from worldstereo_client.schemas import Problem

import deployments.errors
import worldstereo.errors as engine
from actors.blobs import BlobStoreAway
from actors.full_storage import StorageAway, StorageFull


def exceptions_of(*modules: object) -> dict[str, type[Exception]]:
    return {
        name: cls
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Exception)
    }


SERVER = exceptions_of(engine, deployments.errors) | {
    cls.__name__: cls for cls in (StorageAway, StorageFull, BlobStoreAway)
}


@pytest.mark.parametrize("name", sorted(SERVER))
def test_each_of_the_servers_errors_is_rebuilt(name: str) -> None:
    original = SERVER[name](
        "wrong", where="camera.json", got="3", allowed="21", fix="add the others"
    )
    assert isinstance(original, engine.WorldStereoError)
    body = Problem(
        title="t", status=422, detail=str(original), error=name, **original.fields
    ).model_dump_json()
    rebuilt = error_from_problem(Problem.model_validate_json(body))
    assert type(rebuilt).__name__ == name
    assert str(rebuilt) == str(original)
    assert rebuilt.fields == original.fields
    assert rebuilt.status == 422


@pytest.mark.parametrize("name", sorted(SERVER))
def test_the_families_are_the_same(name: str) -> None:
    def ancestors(cls: type) -> set[str]:
        # ApiError is the client's own branch.
        return {base.__name__ for base in cls.__mro__} - {"ApiError"}

    assert ancestors(WIRE_ERRORS[name]) == ancestors(SERVER[name])


def test_nothing_is_on_the_wire_that_no_server_sends() -> None:
    assert WIRE_ERRORS.keys() == SERVER.keys()


def test_a_name_of_a_newer_server() -> None:
    problem = Problem(title="Teapot", status=418, detail="short and stout", error="TeapotError")
    error = error_from_problem(problem)
    assert type(error) is ApiError
    assert (error.name, error.status, str(error)) == ("TeapotError", 418, "short and stout")


@pytest.mark.parametrize("name", sorted(exceptions_of(mirrored)))
def test_errors_survive_another_process_and_have_an_exit_code(name: str) -> None:
    problem = Problem(title="t", status=400, detail="d", error=name)
    original = getattr(mirrored, name)("wrong", where="here", problem=problem)
    copy = pickle.loads(pickle.dumps(original))
    assert type(copy) is type(original)
    assert (str(copy), copy.fields, copy.problem) == (str(original), original.fields, problem)
    assert exit_code_of(original) not in (ExitCode.OK, ExitCode.INTERRUPTED)


def test_the_tree_is_drawn_as_it_is() -> None:
    lines = (mirrored.__doc__ or "").splitlines()
    drawn: dict[str, int] = {}
    for line in lines:
        head, found, rest = line.partition("-- ")
        if found:
            drawn[rest.split()[0]] = len(head) // 4
    classes = exceptions_of(mirrored)
    own_depth = {
        name: len([c for c in cls.__mro__ if issubclass(c, WorldStereoError)]) - 1
        for name, cls in classes.items()
        if cls is not WorldStereoError
    }
    assert drawn == own_depth
