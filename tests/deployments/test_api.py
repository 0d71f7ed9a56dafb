"""The HTTP API, in process: every route, every error a problem body."""

import json
import re
from typing import Any

import httpx
import pytest
from worldstereo_client.errors import WIRE_ERRORS
from worldstereo_client.schemas import (
    ArtefactList,
    Event,
    ModelList,
    Scene,
    ScenePage,
    SceneStatus,
    TrajectoryStatus,
)

from deployments.folders import SceneFolders
from deployments.store import Store
from deployments.submission import scene_name
from tests.deployments import archive_files as make
from tests.deployments.http_api import VARIANT, FakeOrchestrator, problem_in
from worldstereo.config import ModelConfig
from worldstereo.formats.atomic import atomic_write_bytes


async def submit(http: httpx.AsyncClient, archive: bytes, **changes: Any) -> httpx.Response:
    parameters = changes.pop("parameters", {})
    files: list[tuple[str, Any]] = [("parameters", (None, json.dumps(parameters).encode()))]
    files += [("scene", (changes.pop("name", "kitchen.zip"), archive))]
    files += changes.pop("files", [])
    return await http.post("/v1/scenes", files=files, **changes)


async def test_a_scene_is_validated_and_queued(
    http: httpx.AsyncClient,
    store: Store,
    folders: SceneFolders,
    orchestrator: FakeOrchestrator,
    kitchen_zip: bytes,
) -> None:
    response = await submit(http, kitchen_zip, parameters={"seed": 5})
    assert response.status_code == 202, response.text
    scene = Scene.model_validate_json(response.content)
    assert response.headers["Location"] == scene.urls.self == f"/v1/scenes/{scene.id}"
    assert (scene.name, scene.status, scene.queue_position) == ("kitchen", SceneStatus.QUEUED, 0)
    assert scene.parameters.seed == 5
    assert [item.id for item in scene.trajectories] == ["renders/traj_eloop", "renders/traj_up"]
    assert orchestrator.woken == 1
    folder = folders.scene(scene.id)
    assert (folder.input / "kitchen" / "image.png").is_file()
    assert folder.image_file() is None
    assert folder.depth_file() is None
    assert list((folders.root / "uploads").iterdir()) == []
    again = await http.get(scene.urls.self)
    assert Scene.model_validate_json(again.content) == scene


async def test_the_same_key_makes_one_scene(http: httpx.AsyncClient, kitchen_zip: bytes) -> None:
    headers = {"Idempotency-Key": "key-1"}
    first = await submit(http, kitchen_zip, headers=headers)
    same = await submit(http, kitchen_zip, headers=headers, parameters={"align_nframe": 8})
    assert first.json()["id"] == same.json()["id"]
    other = await submit(http, kitchen_zip, headers=headers, parameters={"seed": 6})
    problem_in(other, 409, "IdempotencyConflict")
    bad = await submit(http, kitchen_zip, headers={"Idempotency-Key": "with space"})
    problem_in(bad, 422, "ValidationError")


def without(archive: bytes, pattern: str) -> bytes:
    """The archive without the entries that match."""
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        names = [name for name in opened.namelist() if not re.search(pattern, name)]
        return make.zip_of({name: opened.read(name) for name in names})


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"archive": b"no archive"}, 400, "UploadError"),
        ({"archive": make.zip_of({"../evil": b"x"})}, 400, "UploadError"),
        ({"archive": make.zip_of({"big": b"\0" * 1_100_000})}, 413, "UploadTooLarge"),
        ({"archive": b"x" * 2_100_000}, 413, "UploadTooLarge"),
        ({"archive": make.zip_of({"readme.txt": b"x"})}, 422, "LayoutError"),
        ({"without": "image.png"}, 422, "LayoutError"),
        ({"without": "traj_up/render.mp4"}, 422, "LayoutError"),
        ({"without": "prompt.json"}, 422, "PromptError"),
        ({"parameters": {"variant": "worldstereo-9"}}, 422, "ParameterError"),
        ({"parameters": {"variant": "worldstereo-camera"}}, 422, "ParameterError"),
        ({"parameters": {"guidance_scale": 5.0}}, 422, "ParameterError"),
        ({"parameters": {"align_nframe": 21}}, 422, "ParameterError"),
        ({"parameters": {"task_type": "panorama"}}, 422, "ParameterError"),
        ({"parameters": {"task_type": "film"}}, 422, "ValidationError"),
        ({"parameters": {"seed": -1}}, 422, "ValidationError"),
        ({"parameters": {"sead": 1}}, 422, "ValidationError"),
        ({"parameters": {"name": "../up"}}, 422, "ValidationError"),
        ({"parameters": {"outputs": ["points", "glb"]}}, 422, "ParameterError"),
        ({"parameters": {"outputs": ["films"]}}, 422, "ValidationError"),
        ({"parameters": {"build": {"prompt": "a room"}}}, 422, "ValidationError"),
        ({"files": [("image", ("i.png", b"x"))]}, 422, "ValidationError"),
        ({"parameters": "text"}, 422, "ValidationError"),
        ({"files": [("depth", ("d.npy", b"no array"))]}, 422, "ParameterError"),
        ({"files": [("extra", ("d.npy", b"x"))]}, 422, "ValidationError"),
    ],
)
async def test_bad_uploads_are_refused_and_leave_nothing(
    change: dict[str, Any],
    status: int,
    error: str,
    http: httpx.AsyncClient,
    folders: SceneFolders,
    orchestrator: FakeOrchestrator,
    kitchen_zip: bytes,
) -> None:
    change = dict(change)
    archive = change.pop("archive", kitchen_zip)
    if "without" in change:
        archive = without(kitchen_zip, change.pop("without"))
    problem = problem_in(await submit(http, archive, **change), status, error)
    assert error in WIRE_ERRORS
    assert str(folders.root) not in problem.detail
    assert ScenePage.model_validate_json((await http.get("/v1/scenes")).content).scenes == []
    for name in ("uploads", "scenes"):
        assert list((folders.root / name).glob("*")) == []
    assert orchestrator.woken == 0


async def test_a_full_queue_says_when_to_come_back(
    http: httpx.AsyncClient, kitchen_zip: bytes
) -> None:
    for _ in range(3):
        assert (await submit(http, kitchen_zip)).status_code == 202
    refused = await submit(http, kitchen_zip)
    problem_in(refused, 429, "QueueFull")
    assert int(refused.headers["Retry-After"]) > 0


async def test_errors_of_http_itself_are_problems_too(http: httpx.AsyncClient) -> None:
    problem_in(await http.get("/v2/scenes"), 404, "NotFound")
    problem_in(await http.delete("/v1/scenes"), 405, "MethodNotAllowed")
    problem_in(await http.get("/v1/scenes?limit=0"), 422, "ValidationError")
    problem_in(await http.get("/v1/scenes?cursor=abc"), 422, "ValidationError")
    problem_in(await http.get("/v1/scenes?status=lost"), 422, "ValidationError")
    problem_in(await http.post("/v1/scenes", json={"uri": "x"}), 422, "UriError")
    for path in ("", "/events", "/artefacts", "/artefacts/plan.json"):
        problem_in(await http.get(f"/v1/scenes/none{path}"), 404, "SceneNotFound")
    problem_in(await http.post("/v1/scenes/none/cancel"), 404, "SceneNotFound")


async def test_an_unforeseen_failure_tells_nothing_of_the_server(
    http: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(scene_id: str) -> None:
        raise OSError("/var/lib/secret: no space left")

    monkeypatch.setattr(store, "scene", broken)
    problem = problem_in(await http.get("/v1/scenes/one"), 500, "InternalError")
    assert "secret" not in problem.model_dump_json()


async def test_scenes_are_listed_in_pages(http: httpx.AsyncClient, kitchen_zip: bytes) -> None:
    made = [(await submit(http, kitchen_zip)).json()["id"] for _ in range(3)]
    first = ScenePage.model_validate_json((await http.get("/v1/scenes?limit=2")).content)
    cursor = first.next_cursor
    second = ScenePage.model_validate_json(
        (await http.get(f"/v1/scenes?limit=2&cursor={cursor}")).content
    )
    assert [row.id for row in [*first.scenes, *second.scenes]] == made[::-1]
    assert second.next_cursor is None
    empty = await http.get("/v1/scenes?status=completed")
    assert empty.json() == {"scenes": [], "next_cursor": None}


async def test_cancel_can_be_repeated_until_the_scene_has_ended(
    http: httpx.AsyncClient, store: Store, orchestrator: FakeOrchestrator, kitchen_zip: bytes
) -> None:
    scene = (await submit(http, kitchen_zip)).json()
    for woken in (2, 3):
        response = await http.post(scene["urls"]["cancel"])
        assert (response.status_code, response.json()["status"]) == (202, "cancelling")
        assert orchestrator.woken == woken
    store.advance_scene(scene["id"], SceneStatus.CANCELLED)
    assert (await http.post(scene["urls"]["cancel"])).json()["status"] == "cancelled"
    done = (await submit(http, kitchen_zip)).json()
    store.advance_scene(done["id"], SceneStatus.IN_PROGRESS)
    store.advance_scene(done["id"], SceneStatus.COMPLETED)
    problem = problem_in(await http.post(done["urls"]["cancel"]), 409, "StateConflict")
    assert problem.got == "completed -> cancelling"


def events_in(text: str) -> list[Event]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    found = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        event = Event.model_validate_json(fields["data"])
        assert fields["id"] == str(event.id)
        assert fields["event"] == event.type
        found.append(event)
    return found


async def test_events_of_an_ended_scene_end_and_resume(
    http: httpx.AsyncClient, store: Store, kitchen_zip: bytes
) -> None:
    scene = (await submit(http, kitchen_zip)).json()
    store.advance_scene(scene["id"], SceneStatus.IN_PROGRESS)
    store.advance_trajectory(scene["id"], "renders/traj_up", TrajectoryStatus.QUEUED)
    for step in range(600):
        if step == 0:
            store.start_attempt(scene["id"], "renders/traj_up", "attempt", 1)
        store.record_progress(scene["id"], "renders/traj_up", "denoise", step, 600)
    store.advance_trajectory(scene["id"], "renders/traj_up", TrajectoryStatus.COMPLETED)
    store.advance_scene(scene["id"], SceneStatus.COMPLETED)
    response = await http.get(scene["urls"]["events"])
    assert response.headers["Content-Type"].startswith("text/event-stream")
    events = events_in(response.text)
    assert [event.id for event in events] == list(range(1, 607))
    assert (events[-1].type, events[-1].status) == ("scene", "completed")
    for last in (600, 606, 700):
        rest = await http.get(scene["urls"]["events"], headers={"Last-Event-ID": str(last)})
        assert [event.id for event in events_in(rest.text)] == list(range(last + 1, 607))
    wrong = await http.get(scene["urls"]["events"], headers={"Last-Event-ID": "abc"})
    problem_in(wrong, 422, "ValidationError")


async def test_artefacts_are_listed_and_served_in_ranges(
    http: httpx.AsyncClient, folders: SceneFolders, kitchen_zip: bytes
) -> None:
    scene = (await submit(http, kitchen_zip)).json()
    assert (await http.get(scene["urls"]["artefacts"])).json() == {"artefacts": []}
    output = folders.scene(scene["id"]).output
    content = bytes(range(256)) * 100
    atomic_write_bytes(output / "renders/traj up/video.mp4", content)
    atomic_write_bytes(output / "plan.json", b"{}")
    atomic_write_bytes(output / "renders/traj up/frames/0000.png", b"png")
    (output / ".plan.json.1234.tmp").write_bytes(b"half")
    (output / "link.json").symlink_to("/etc/passwd")
    listed = ArtefactList.model_validate_json((await http.get(scene["urls"]["artefacts"])).content)
    assert [(item.name, item.kind, item.media_type) for item in listed.artefacts] == [
        ("plan.json", "plan", "application/json"),
        ("renders/traj up/frames/0000.png", "frame", "image/png"),
        ("renders/traj up/video.mp4", "video", "video/mp4"),
    ]
    video = listed.artefacts[-1]
    whole = await http.get(video.url)
    assert whole.content == content
    assert whole.headers["ETag"] == f'"{video.sha256}"'
    part = await http.get(video.url, headers={"Range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, content[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(content)}"
    rest = await http.get(video.url, headers={"Range": "bytes=25000-"})
    assert (rest.status_code, rest.content) == (206, content[25000:])
    beyond = await http.get(video.url, headers={"Range": "bytes=99999-"})
    assert beyond.status_code == 416
    known = await http.get(video.url, headers={"If-None-Match": whole.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "none.json",
        "renders",
        ".plan.json.1234.tmp",
        "..%2Finput%2Fkitchen%2Fimage.png",
        "%2Fetc%2Fpasswd",
        "link.json",
        "plan.json%00",
        "a" * 400,
    ],
)
async def test_only_finished_files_of_the_result_are_served(
    name: str, http: httpx.AsyncClient, folders: SceneFolders, kitchen_zip: bytes
) -> None:
    scene = (await submit(http, kitchen_zip)).json()
    output = folders.scene(scene["id"]).output
    atomic_write_bytes(output / "renders" / "plan.json", b"{}")
    (output / ".plan.json.1234.tmp").write_bytes(b"half")
    (output / "link.json").symlink_to("/etc/passwd")
    response = await http.get(f"{scene['urls']['artefacts']}/{name}")
    problem_in(response, 404, "ArtefactNotFound")


async def test_models_and_health(
    http: httpx.AsyncClient, orchestrator: FakeOrchestrator, tiny_config: ModelConfig
) -> None:
    (model,) = ModelList.model_validate_json((await http.get("/v1/models")).content).models
    assert (model.id, model.source, model.ready) == (VARIANT, "worldstereo-tiny", True)
    assert (model.num_inference_steps, model.guidance_scale) == (tiny_config.dmd_steps, None)
    assert model.sizes == list(tiny_config.scale_map)
    assert (await http.get("/healthz")).json()["status"] == "ok"
    assert (await http.get("/readyz")).status_code == 200
    orchestrator.is_ready = False
    not_ready = await http.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["status"]) == (503, "not_ready")
    assert VARIANT in not_ready.json()["reason"]


async def test_the_openapi_document_describes_the_contract(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert set(document["paths"]) >= {"/v1/scenes", "/v1/scenes/{scene_id}/events", "/readyz"}
    assert "Problem" in document["components"]["schemas"]
    body = document["paths"]["/v1/scenes"]["post"]["requestBody"]
    assert "multipart/form-data" in body["content"]


def test_a_name_is_made_from_the_archives() -> None:
    assert scene_name("My kitchen (2)") == "My-kitchen-2"
    assert scene_name("..") == "scene"
    assert scene_name("küche") == "k-che"
    assert len(scene_name("x" * 500)) == 128
