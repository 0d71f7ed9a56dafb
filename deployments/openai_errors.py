"""Errors of the OpenAI-compatible paths, in the shape that OpenAI's clients read.

``{"error": {"message", "type", "param", "code"}}``. Which error has which status is
http_errors.py's; the one difference is that what cannot be used is 400 here and not 422.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from worldstereo_client.schemas import Problem

VIDEOS_PATH = "/v1/videos"


class ErrorBody(BaseModel):
    """What went wrong; ``param`` is the field that it is about, where it is about one."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every error of the OpenAI-compatible paths."""

    error: ErrorBody


def is_meant_for(path: str) -> bool:
    """Whether this path of a request is OpenAI's."""
    return path == VIDEOS_PATH or path.startswith(f"{VIDEOS_PATH}/")


def response(problem: Problem, headers: Mapping[str, str]) -> Response:
    """The problem as OpenAI would say it."""
    unusable = problem.status == HTTPStatus.UNPROCESSABLE_ENTITY
    status = HTTPStatus.BAD_REQUEST if unusable else HTTPStatus(problem.status)
    body = ErrorBody(
        message=problem.detail,
        type=_type(status),
        param=problem.where if unusable else None,
        code=code_of(problem),
    )
    return JSONResponse(
        ErrorAnswer(error=body).model_dump(), status_code=status, headers=dict(headers)
    )


def code_of(problem: Problem) -> str:
    """The error's class in OpenAI's spelling, e.g. ``parameter_error``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", problem.error).lower()


def _type(status: HTTPStatus) -> str:
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
