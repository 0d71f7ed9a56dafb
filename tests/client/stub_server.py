"""An HTTP server that keeps the wire contract without any cluster, and fails on request.

Scenes run by the clock: their events become visible one by one. Faults are honest: real status
codes, real sockets that close in the middle, real wrong bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import socket
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from worldstereo_client.schemas import Artefact, Event, Problem, Scene, SceneRequest

from tests.client.stub_scenes import KINDS, StubScene, completed_script, problem, result_files


def problem_response(body: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(
        body.model_dump_json(),
        status_code=body.status,
        media_type="application/problem+json",
        headers=headers,
    )


@dataclass
class Fault:
    """What happens to one matching request.

    ``status`` answers instead of the server; ``cut_after`` lets so many bytes of the real body
    through and closes the socket; ``flip`` inverts one byte of the real body.
    """

    method: str
    path: str
    status: int | None = None
    error: str = "NotReady"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    flip: int | None = None


class Stub:
    """The server's state, which a test sets up and looks into."""

    def __init__(self) -> None:
        self.scenes: dict[str, StubScene] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.script: Callable[[], list[Event]] = completed_script
        self.tick_s = 0.0
        self.by_looks = False  # a scene goes on by an event each time that it is looked at
        self.heartbeat_s = 0.05
        self.ready = True
        self.url = ""

    def fail_next(self, method: str, path: str, *, times: int = 1, **fault: Any) -> None:
        """The next requests of this method whose path ends with ``path`` fail so."""
        self.faults += [Fault(method, path, **fault)] * times

    def seen(self, method: str, path: str) -> list[dict[str, str]]:
        """Headers of the requests of this method whose path ends with ``path``."""
        return [h for m, p, h in self.requests if m == method and p.endswith(path)]

    def take_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and path.endswith(fault.path):
                self.faults.remove(fault)
                return fault
        return None


class FaultInjector:
    def __init__(self, app: ASGIApp, stub: Stub) -> None:
        self.app, self.stub = app, stub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.stub.requests.append((scope["method"], scope["path"], headers))
        fault = self.stub.take_fault(scope["method"], scope["path"])
        if fault is None:
            await self.app(scope, receive, send)
        elif fault.status is not None:
            body = problem(fault.status, fault.error, "injected")
            answer = problem_response(body, fault.headers)
            if fault.body is not None:
                answer = Response(fault.body, fault.status, fault.headers)
            await answer(scope, receive, send)
        else:
            await self.app(scope, receive, self._spoiling(send, fault))

    def _spoiling(self, send: Send, fault: Fault) -> Send:
        position = 0

        async def spoiled(message: Message) -> None:
            nonlocal position
            if message["type"] == "http.response.body":
                body = bytearray(message.get("body", b""))
                if fault.flip is not None and position <= fault.flip < position + len(body):
                    body[fault.flip - position] ^= 0xFF
                if fault.cut_after is not None and position + len(body) > fault.cut_after:
                    rest = bytes(body[: fault.cut_after - position])
                    await send({"type": "http.response.body", "body": rest, "more_body": True})
                    await asyncio.sleep(0.05)  # what was sent so far reaches the client
                    raise ConnectionAbortedError("injected")
                position += len(body)
                message = {**message, "body": bytes(body)}
            await send(message)

        return spoiled


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def build_app(stub: Stub) -> ASGIApp:
    app = FastAPI()

    def scene_of(scene_id: str) -> StubScene | Response:
        scene = stub.scenes.get(scene_id)
        return scene or problem_response(
            problem(404, "SceneNotFound", "no such scene", where=f"scene {scene_id}")
        )

    @app.post("/v1/scenes", response_model=None)
    async def submit(request: Request) -> Response:
        async with request.form() as form:
            upload = form["image"] if "image" in form else form["scene"]
            assert isinstance(upload, UploadFile)
            content, filename = await upload.read(), upload.filename or "scene"
            parameters = form.get("parameters", "{}")
            assert isinstance(parameters, str), "parameters is a text part"
            beside = {
                name: await part.read()
                for name, part in form.items()
                if isinstance(part, UploadFile) and name.startswith("depth")
            }
            is_image = "image" in form
        key = request.headers["idempotency-key"]
        body_hash = hashlib.sha256(content + parameters.encode()).hexdigest()
        if key in stub.keys:
            scene_id, known = stub.keys[key]
            if known != body_hash:
                return problem_response(problem(409, "IdempotencyConflict", "another body"))
            return accepted(stub.scenes[scene_id])
        if is_image:
            content = zipped("image.png", content)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                files = {name: archive.read(name) for name in archive.namelist()}
        except zipfile.BadZipFile:
            return problem_response(problem(400, "UploadError", "not an archive"))
        if "image.png" not in files:
            return problem_response(
                problem(422, "LayoutError", "no layout", where="scene", fix="add image.png")
            )
        wanted = SceneRequest.model_validate_json(parameters)
        scene = StubScene(
            id=f"scene-{len(stub.scenes)}",
            name=wanted.name or filename.removesuffix(".zip"),
            parameters=wanted,
            script=stub.script(),
            artefacts=result_files(),
            files=files,
            depth=beside.get("depth"),
            depth_unit=beside.get("depth_unit"),
            created=time.monotonic(),
            tick_s=stub.tick_s,
            by_looks=stub.by_looks,
        )
        stub.scenes[scene.id] = scene
        stub.keys[key] = (scene.id, body_hash)
        return accepted(scene)

    def accepted(scene: StubScene) -> Response:
        body = scene.snapshot()
        return Response(
            body.model_dump_json(), 202, {"Location": body.urls.self}, "application/json"
        )

    @app.get("/v1/scenes", response_model=None)
    async def list_scenes(status: str = "", cursor: str = "0", limit: int = 2) -> Response:
        every = [scene.snapshot() for scene in reversed(stub.scenes.values())]
        every = [scene for scene in every if status in ("", scene.status)]
        start = int(cursor)
        rows = [
            {**scene.model_dump(mode="json"), "variant": scene.parameters.variant}
            for scene in every[start : start + limit]
        ]
        more = start + limit < len(every)
        return JSONResponse({"scenes": rows, "next_cursor": str(start + limit) if more else None})

    @app.get("/v1/scenes/{scene_id}", response_model=None)
    async def get_scene(scene_id: str) -> Response | Scene:
        scene = scene_of(scene_id)
        return scene if isinstance(scene, Response) else scene.snapshot()

    @app.post("/v1/scenes/{scene_id}/cancel", status_code=202, response_model=None)
    async def cancel(scene_id: str) -> Response | Scene:
        scene = scene_of(scene_id)
        if isinstance(scene, Response):
            return scene
        status = scene.snapshot().status
        if status in ("completed", "failed"):
            return problem_response(problem(409, "StateConflict", f"the scene is {status}"))
        if status != "cancelled":
            scene.cancel()
        return scene.snapshot()

    @app.get("/v1/scenes/{scene_id}/events", response_model=None)
    async def events(scene_id: str, request: Request) -> Response:
        scene = scene_of(scene_id)
        if isinstance(scene, Response):
            return scene
        last = int(request.headers.get("last-event-id", "0"))

        async def stream(after: int) -> AsyncIterator[str]:
            while True:
                fresh = [event for event in scene.visible() if event.id > after]
                for event in fresh:
                    data = event.model_dump_json(exclude_none=True)
                    yield f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
                    after = event.id
                if scene.snapshot().status.terminal:
                    return
                if not fresh:
                    yield ": heartbeat\n\n"
                await asyncio.sleep(min(stub.heartbeat_s, scene.tick_s or 1.0))

        return StreamingResponse(stream(last), media_type="text/event-stream")

    @app.get("/v1/scenes/{scene_id}/artefacts", response_model=None)
    async def artefacts(scene_id: str) -> Response:
        scene = scene_of(scene_id)
        if isinstance(scene, Response):
            return scene
        listed = [
            Artefact(
                name=name,
                kind=next((kind for end, kind in KINDS.items() if name.endswith(end)), "file"),
                media_type="application/octet-stream",
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                url=f"/v1/scenes/{scene_id}/artefacts/{name}",
            ).model_dump()
            for name, content in scene.artefacts.items()
        ]
        return JSONResponse({"artefacts": listed})

    @app.get("/v1/scenes/{scene_id}/artefacts/{name:path}", response_model=None)
    async def artefact(scene_id: str, name: str, request: Request) -> Response:
        scene = scene_of(scene_id)
        if isinstance(scene, Response):
            return scene
        if name not in scene.artefacts:
            return problem_response(problem(404, "ArtefactNotFound", "no such file", where=name))
        content, given = scene.artefacts[name], request.headers.get("range")
        if given is None:
            return Response(content)
        start = int(given.removeprefix("bytes=").split("-")[0])
        if start >= len(content):
            return Response(status_code=416)
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Response(content[start:], 206, {"Content-Range": span})

    @app.get("/v1/models", response_model=None)
    async def models() -> Response:
        model = {
            "id": "worldstereo-memory-dmd",
            "source": "worldstereo-tiny",
            "nframe": 21,
            "sizes": [[128, 192]],
            "num_inference_steps": 4,
            "guidance_scale": None,
            "ready": stub.ready,
        }
        return JSONResponse({"models": [model]})

    @app.get("/healthz", response_model=None)
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", response_model=None)
    async def readyz() -> Response:
        if stub.ready:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not_ready", "reason": "no replica is up"}, 503)

    return FaultInjector(app, stub)


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port of 127.0.0.1 in a thread; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
