"""Exceptions as RFC 9457 problem bodies: one table from class to status, and the handlers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from worldstereo_client.schemas import Problem

from actors.blobs import BlobStoreAway
from actors.full_storage import StorageAway, StorageFull
from deployments import errors
from worldstereo.errors import (
    CheckpointError,
    GenerationCancelled,
    GenerationError,
    InputError,
    MissingDependencyError,
    WorldStereoError,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# The first class that an exception is an instance of counts, so subclasses stand first.
STATUS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (errors.UploadError, HTTPStatus.BAD_REQUEST),
    (errors.UploadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.AuthenticationError, HTTPStatus.UNAUTHORIZED),
    (errors.PermissionDenied, HTTPStatus.FORBIDDEN),
    (errors.RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (errors.SceneNotFound, HTTPStatus.NOT_FOUND),
    (errors.ArtefactNotFound, HTTPStatus.NOT_FOUND),
    (errors.RangeNotSatisfiable, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    (errors.StateConflict, HTTPStatus.CONFLICT),
    (errors.IdempotencyConflict, HTTPStatus.CONFLICT),
    (errors.QueueFull, HTTPStatus.TOO_MANY_REQUESTS),
    (errors.NotReady, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.StoreAway, HTTPStatus.SERVICE_UNAVAILABLE),
    (StorageFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (StorageAway, HTTPStatus.SERVICE_UNAVAILABLE),
    (GenerationCancelled, HTTPStatus.CONFLICT),
    (GenerationError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (CheckpointError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (MissingDependencyError, HTTPStatus.INTERNAL_SERVER_ERROR),
)

RETRY_AFTER_S: Mapping[type[Exception], int] = {
    errors.QueueFull: 30,
    errors.NotReady: 5,
    errors.StoreAway: 5,
    StorageFull: 60,
    BlobStoreAway: 5,
}


def status_of(error: Exception) -> HTTPStatus:
    """The HTTP status that an exception answers with; 500 for any that is not in the table."""
    for cls, status in STATUS:
        if isinstance(error, cls):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: Exception, instance: str | None = None) -> Problem:
    """The problem body of an exception.

    Args:
        error: a ``WorldStereoError`` tells its parts; any other is an ``InternalError`` that
            tells nothing, since its text may hold paths of the server.
        instance: path of the request, or id of the scene or trajectory.
    """
    if not isinstance(error, WorldStereoError):
        error = errors.InternalError(
            "the server failed in a way that it did not foresee", fix="the server's log has more"
        )
    status = status_of(error)
    return Problem(
        title=status.phrase,
        status=status,
        detail=str(error),
        instance=instance,
        error=type(error).__name__,
        **error.fields,
    )


def answer(error: Exception, request: Request) -> Response:
    """The response to a request that ended in this exception."""
    return _response(problem_of(error, request.url.path), _headers_of(error))


def _headers_of(error: Exception) -> dict[str, str]:
    """What an error tells beside its body."""
    if isinstance(error, errors.AuthenticationError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.RangeNotSatisfiable):
        return {"Content-Range": f"bytes */{error.file_bytes}"}
    if isinstance(error, errors.RateLimited):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    wait_s = RETRY_AFTER_S.get(type(error))
    return {} if wait_s is None else {"Retry-After": str(wait_s)}


def install(app: FastAPI) -> None:
    """Make every error of this application a problem body."""
    app.add_exception_handler(WorldStereoError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_any)


async def _on_ours(request: Request, error: Exception) -> Response:
    return answer(error, request)


async def _on_malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    malformed = errors.ValidationError(
        str(first["msg"]).lower(),
        where=".".join(str(part) for part in first["loc"]),
        got=repr(first.get("input"))[:200],
    )
    return answer(malformed, request)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=f"{request.method} {request.url.path}: {error.detail}",
        instance=request.url.path,
        error="".join(word.capitalize() for word in status.phrase.split()),
        what=str(error.detail),
        where=f"{request.method} {request.url.path}",
    )
    return _response(problem, dict(error.headers or {}))


async def _on_any(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer(error, request)


def _response(problem: Problem, headers: Mapping[str, str]) -> Response:
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=dict(headers),
        media_type=MEDIA_TYPE,
    )
