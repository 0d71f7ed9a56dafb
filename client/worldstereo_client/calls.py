"""Requests of the HTTP API and how their answers are read, for both clients.

Each function builds one ``Call``: plain data plus a parser. Sending, repeating and waiting is the
clients' part; the bytes of uploads come from ``archive``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import pydantic

from worldstereo_client.errors import ParameterError, UnexpectedResponse
from worldstereo_client.schemas import (
    Artefact,
    ArtefactList,
    BuildRequest,
    Health,
    ModelInfo,
    ModelList,
    Scene,
    ScenePage,
    SceneRequest,
    SceneStatus,
)

T = TypeVar("T")
Model = TypeVar("Model", bound=pydantic.BaseModel)

# The server validates a whole scene before it answers a submit.
SUBMIT_TIMEOUT_S = 300.0
# A server sends a comment at least every few seconds while there is no event.
EVENTS_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and the parser of its successful answer.

    Args:
        method, path: of the request; the path is relative to the server's root.
        parse: turns a response, its body read, into the result.
        params, headers: of the request.
        files: multipart parts, as httpx takes them; file objects are rewound for each try.
        timeout_s: seconds without a byte after which the call fails; None: the client's.
        accept: status codes beside 2xx that ``parse`` understands.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: list[tuple[str, Any]] | None = None
    timeout_s: float | None = None
    accept: frozenset[int] = frozenset()

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """A fresh request; one is built for every try, since a sent body is used up."""
        timeout = httpx.Timeout(http.timeout)
        if self.timeout_s is not None:
            timeout.read = self.timeout_s
        return http.build_request(
            self.method,
            self.path,
            params=self.params,
            headers=self.headers,
            files=self.files,
            timeout=timeout,
        )

    def understands(self, response: httpx.Response) -> bool:
        """Whether ``parse`` is for this response; else it is an error."""
        return response.is_success or response.status_code in self.accept

    def checked(self, response: httpx.Response) -> httpx.Response:
        """The response itself; ``httpx.HTTPStatusError`` when it is an error."""
        return response if self.understands(response) else response.raise_for_status()


def json_parser(model: type[Model]) -> Callable[[httpx.Response], Model]:
    """A parser of JSON bodies that raises ``UnexpectedResponse`` for what is not a ``model``."""

    def parse(response: httpx.Response) -> Model:
        try:
            return model.model_validate_json(response.content)
        except pydantic.ValidationError as error:
            raise UnexpectedResponse(
                f"the answer is no {model.__name__}",
                where=f"{response.request.method} {response.request.url}",
                got=_first_problem(error),
                fix="is this the address of a WorldStereo server?",
            ) from error

    return parse


def scene_request(**parameters: Any) -> SceneRequest:
    """Parameters of a new scene, those that are None left at the server's defaults.

    Raises:
        ParameterError: an unknown name or a value outside its range.
    """
    return _checked(SceneRequest, parameters)


def build_request(**parameters: Any) -> BuildRequest | None:
    """How a scene is built from an image; None where nothing is said about it.

    Raises:
        ParameterError: an unknown name or a value outside its range, or no prompt.
    """
    given = {name: value for name, value in parameters.items() if value not in (None, (), [])}
    return _checked(BuildRequest, given) if given else None


def _checked(model: type[Model], parameters: Mapping[str, Any]) -> Model:
    try:
        return model(**{k: v for k, v in parameters.items() if v is not None})
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ParameterError(
            first["msg"][:1].lower() + first["msg"][1:],
            where=".".join(map(str, first["loc"])),
            got=repr(first.get("input")),
        ) from error


def submit(
    parts: Mapping[str, tuple[str, IO[bytes]]], parameters: SceneRequest, idempotency_key: str
) -> Call[Scene]:
    """``POST /v1/scenes``: a scene's files and its parameters in one body.

    The same arguments give the same bytes: the boundary comes from the key.

    Args:
        parts: file name and open file of ``scene`` (an archive) or ``image``, and perhaps of
            ``depth`` and ``depth_unit``.
        parameters: those at their defaults are not sent.
        idempotency_key: 1 to 255 visible ASCII characters.
    """
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", idempotency_key):
        raise ParameterError(
            "unusable as a header",
            where="idempotency_key",
            got=repr(idempotency_key),
            allowed="1 to 255 visible ASCII characters",
        )
    body = parameters.model_dump_json(exclude_defaults=True)
    files: list[tuple[str, Any]] = [("parameters", (None, body.encode(), "application/json"))]
    files += [
        (part, (name, file, "application/octet-stream")) for part, (name, file) in parts.items()
    ]
    boundary = hashlib.sha256(idempotency_key.encode()).hexdigest()[:40]
    return Call(
        "POST",
        "/v1/scenes",
        json_parser(Scene),
        headers={
            "Idempotency-Key": idempotency_key,
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        },
        files=files,
        timeout_s=SUBMIT_TIMEOUT_S,
    )


def get_scene(scene_id: str) -> Call[Scene]:
    """``GET /v1/scenes/{id}``."""
    return Call("GET", _scene_path(scene_id), json_parser(Scene))


def list_scenes(
    status: SceneStatus | None, cursor: str | None, limit: int | None
) -> Call[ScenePage]:
    """``GET /v1/scenes``: one page."""
    given = {"status": status, "cursor": cursor, "limit": limit}
    params = {name: str(value) for name, value in given.items() if value is not None}
    return Call("GET", "/v1/scenes", json_parser(ScenePage), params=params)


def cancel_scene(scene_id: str) -> Call[Scene]:
    """``POST /v1/scenes/{id}/cancel``."""
    return Call("POST", f"{_scene_path(scene_id)}/cancel", json_parser(Scene))


def resume_scene(scene_id: str) -> Call[Scene]:
    """``POST /v1/scenes/{id}/resume``."""
    return Call("POST", f"{_scene_path(scene_id)}/resume", json_parser(Scene))


def delete_scene(scene_id: str) -> Call[None]:
    """``DELETE /v1/scenes/{id}``."""
    return Call("DELETE", _scene_path(scene_id), _nothing)


def scene_archive(scene_id: str) -> Call[None]:
    """``GET /v1/scenes/{id}/archive``: the stream of a zip."""
    # What is in it is compressed already.
    headers = {"Accept": "application/zip", "Accept-Encoding": "identity"}
    return Call("GET", f"{_scene_path(scene_id)}/archive", _nothing, headers=headers)


def scene_events(scene_id: str, after: int, timeout_s: float) -> Call[None]:
    """``GET /v1/scenes/{id}/events``: the stream of events whose id is above ``after``."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if after:
        headers["Last-Event-ID"] = str(after)
    return Call(
        "GET", f"{_scene_path(scene_id)}/events", _nothing, headers=headers, timeout_s=timeout_s
    )


def list_artefacts(scene_id: str) -> Call[list[Artefact]]:
    """``GET /v1/scenes/{id}/artefacts``."""
    parse = json_parser(ArtefactList)
    return Call(
        "GET", f"{_scene_path(scene_id)}/artefacts", lambda response: parse(response).artefacts
    )


def artefact_bytes(scene_id: str, name: str, start: int = 0) -> Call[bytes]:
    """``GET /v1/scenes/{id}/artefacts/{name}``: the file's bytes from ``start`` on."""
    # Ranges count bytes of the file, so that it must come as it is.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    path = f"{_scene_path(scene_id)}/artefacts/{quote(name)}"
    return Call("GET", path, lambda response: response.content, headers=headers)


def list_models() -> Call[list[ModelInfo]]:
    """``GET /v1/models``."""
    parse = json_parser(ModelList)
    return Call("GET", "/v1/models", lambda response: parse(response).models)


def health(path: str) -> Call[Health]:
    """``GET /healthz`` or ``GET /readyz``; not being ready is an answer and no error."""
    return Call("GET", path, json_parser(Health), accept=frozenset({503}))


def _scene_path(scene_id: str) -> str:
    if scene_id in ("", ".", ".."):
        raise ParameterError("not the id of a scene", where="scene_id", got=repr(scene_id))
    return f"/v1/scenes/{quote(scene_id, safe='')}"


def _nothing(response: httpx.Response) -> None:
    """A stream, or an answer without a body, has nothing to parse."""


def _first_problem(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return json.dumps(f"{where}: {first['msg']}" if where else first["msg"])
