"""The OpenAPI document: each answer of each route, with the media type that it really has.

Owns what FastAPI does not know: that errors are ``application/problem+json``, which statuses a
route answers with, and that a key is needed where one is.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from worldstereo_client.schemas import Event, Problem, UriSubmission

from deployments import openai_errors
from deployments.guard import OPEN_PATHS
from deployments.http_errors import MEDIA_TYPE

BODIES: tuple[type[BaseModel], ...] = (UriSubmission, Event)
_BODY_REFERENCE = "#/components/schemas/{model}Body"

Responses = dict[int | str, dict[str, Any]]

_WHAT: dict[int, str] = {
    400: "a broken or forbidden upload, or malformed header",
    401: "no API key, or none that is good",
    403: "the API key does not allow this",
    404: "no such scene or file",
    409: "not possible in the present state, or the idempotency key is another request's",
    413: "too large",
    416: "no such bytes in the file",
    422: "input that cannot be used",
    500: "the server failed; its log has the rest",
    429: "too many scenes wait, or too many requests came",
}
_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}}


def problems(*statuses: int) -> Responses:
    """The problem answers of a route, for its ``responses``."""
    return {
        status: {
            "model": Problem,
            "description": _WHAT[status],
            **({"headers": _RETRY_AFTER} if status == HTTPStatus.TOO_MANY_REQUESTS else {}),
        }
        for status in statuses
    }


def reference(model: type[BaseModel]) -> dict[str, str]:
    """The schema of a body that FastAPI does not read itself; ``BODIES`` must name its model."""
    assert model in BODIES
    return {"$ref": _BODY_REFERENCE.format(model=model.__name__)}


def document(api: FastAPI, *, keys_required: bool) -> Callable[[], dict[str, Any]]:
    """What answers for the document of ``api`` in place of FastAPI's own."""

    def described() -> dict[str, Any]:
        if api.openapi_schema is None:
            found = get_openapi(title=api.title, version=api.version, routes=api.routes)
            for path, operations in found["paths"].items():
                error = _openai_response if openai_errors.is_meant_for(path) else _problem_response
                for operation in operations.values():
                    guarded = keys_required and path not in OPEN_PATHS
                    _describe(operation, error, guarded=guarded)
            if keys_required:
                schemes = found.setdefault("components", {}).setdefault("securitySchemes", {})
                schemes["key"] = {"type": "http", "scheme": "bearer"}
            _add_bodies(found)
            _drop_unused(found)
            api.openapi_schema = found
        return api.openapi_schema

    return described


def _describe(
    operation: dict[str, Any], error: Callable[[int], dict[str, Any]], *, guarded: bool
) -> None:
    responses: dict[str, Any] = operation["responses"]
    responses.setdefault("500", error(500))
    if guarded:
        operation["security"] = [{"key": []}]
        for status in (401, 403, 429):
            responses.setdefault(str(status), error(status))
    for response in responses.values():
        content: dict[str, Any] = response.get("content", {})
        sent_as_json = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if sent_as_json.endswith("/HTTPValidationError"):
            response |= error(422)
        elif sent_as_json.endswith("/Problem"):
            content[MEDIA_TYPE] = content.pop("application/json")


def _problem_response(status: int) -> dict[str, Any]:
    return _error_response(status, MEDIA_TYPE, "Problem")


def _openai_response(status: int) -> dict[str, Any]:
    return _error_response(status, "application/json", "ErrorAnswer")


def _error_response(status: int, media_type: str, model: str) -> dict[str, Any]:
    headers = {401: {"headers": _CHALLENGE}, 429: {"headers": _RETRY_AFTER}}.get(status, {})
    schema = {"schema": {"$ref": f"#/components/schemas/{model}"}}
    return {"description": _WHAT[status], "content": {media_type: schema}, **headers}


def _add_bodies(found: dict[str, Any]) -> None:
    """Bodies have names of their own: what is sent may leave fields out, what is answered not."""
    for model in BODIES:
        schema = model.model_json_schema(ref_template=_BODY_REFERENCE)
        for name, definition in schema.pop("$defs", {}).items():
            found["components"]["schemas"][f"{name}Body"] = definition
        found["components"]["schemas"][f"{model.__name__}Body"] = schema


def _drop_unused(found: dict[str, Any]) -> None:
    """FastAPI's own form of errors, which is not sent."""
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
