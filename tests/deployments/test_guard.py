"""Requests and their keys: who is let in, what each sees, how much each may send."""

import dataclasses
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from worldstereo_client.schemas import Scene, ScenePage, SceneStatus

from deployments.api import Backend, create_api
from deployments.errors import RateLimited
from deployments.guard import Rates
from deployments.key_store import KeyStore
from deployments.keys import Caller
from deployments.store import Store
from tests.deployments.http_api import problem_in
from worldstereo.formats.atomic import atomic_write_bytes


@pytest.fixture
def keys(store: Store) -> Iterator[KeyStore]:
    opened = KeyStore(str(store._engine.url))
    yield opened
    opened.close()


@pytest.fixture
async def http(backend: Backend, keys: KeyStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that asks for keys; it has none."""
    api = create_api(dataclasses.replace(backend, keys=keys))
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


def bearer(keys: KeyStore, *scopes: Any, **limits: Any) -> dict[str, str]:
    _, text = keys.create("test", scopes or ("read", "write"), **limits)
    return {"Authorization": f"Bearer {text}"}


async def submit(
    http: httpx.AsyncClient, archive: bytes, headers: dict[str, str], **parameters: Any
) -> httpx.Response:
    files: list[tuple[str, Any]] = [("parameters", (None, json.dumps(parameters).encode()))]
    files += [("scene", ("kitchen.zip", archive))]
    return await http.post("/v1/scenes", files=files, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ws_0_0")],
        [("Authorization", "Basic d3M6d3M=")],
        [("Authorization", "Bearer ws_" + "0" * 16 + "_" + "A" * 43)],
        [("Authorization", "Bearer " + "A" * 50_000)],
        [("Authorization", b"Bearer \xff\xfe")],
        "twice",
    ],
    ids=str,
)
async def test_without_a_good_key_nothing_is_said(
    headers: Any, http: httpx.AsyncClient, keys: KeyStore
) -> None:
    if headers == "twice":
        good = bearer(keys)["Authorization"]
        headers = [("Authorization", good), ("Authorization", good)]
    for method, path in (
        ("GET", "/v1/scenes"),
        ("POST", "/v1/scenes"),
        ("GET", "/v1/models"),
        ("GET", "/v1/scenes/none/artefacts/plan.json"),
        ("DELETE", "/v1/nothing/of/this/name"),
    ):
        refused = await http.request(method, path, headers=headers)
        problem_in(refused, 401, "AuthenticationError")
        assert refused.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
async def test_probes_and_the_description_ask_for_no_key(
    path: str, http: httpx.AsyncClient
) -> None:
    assert (await http.get(path)).status_code == 200


async def test_a_key_does_what_its_scopes_say(
    http: httpx.AsyncClient, keys: KeyStore, kitchen_zip: bytes
) -> None:
    reader, writer, admin = (bearer(keys, scope) for scope in ("read", "write", "admin"))
    assert (await http.get("/v1/scenes", headers=reader)).status_code == 200
    problem_in(await submit(http, kitchen_zip, reader), 403, "PermissionDenied")
    assert (await submit(http, kitchen_zip, writer)).status_code == 202
    problem_in(await http.get("/v1/scenes", headers=writer), 403, "PermissionDenied")
    scene = (await submit(http, kitchen_zip, admin)).json()
    problem_in(await http.post(scene["urls"]["cancel"], headers=reader), 403, "PermissionDenied")
    assert (await http.post(scene["urls"]["cancel"], headers=admin)).status_code == 202


async def test_a_key_sees_its_own_scenes_alone(
    http: httpx.AsyncClient, keys: KeyStore, kitchen_zip: bytes, backend: Backend
) -> None:
    one, two, admin = bearer(keys), bearer(keys), bearer(keys, "admin")
    scene = Scene.model_validate_json((await submit(http, kitchen_zip, one)).content)
    other = Scene.model_validate_json((await submit(http, kitchen_zip, two)).content)
    atomic_write_bytes(backend.folders.scene(scene.id).output / "plan.json", b"{}")
    for path in ("", "/artefacts", "/artefacts/plan.json"):
        assert (await http.get(scene.urls.self + path, headers=one)).status_code == 200
        assert (await http.get(scene.urls.self + path, headers=admin)).status_code == 200
    for path in ("", "/events", "/artefacts", "/artefacts/plan.json"):
        hidden = await http.get(scene.urls.self + path, headers=two)
        absent = await http.get(f"/v1/scenes/{'0' * 20}{path}", headers=two)
        assert problem_in(hidden, 404, "SceneNotFound").what == absent.json()["what"]
    problem_in(await http.post(scene.urls.cancel, headers=two), 404, "SceneNotFound")
    assert backend.store.scene(scene.id).status is SceneStatus.QUEUED

    async def listed(headers: dict[str, str]) -> list[str]:
        pages = []
        cursor = ""
        while True:
            answer = await http.get(f"/v1/scenes?limit=1{cursor}", headers=headers)
            page = ScenePage.model_validate_json(answer.content)
            pages += [row.id for row in page.scenes]
            if page.next_cursor is None:
                return pages
            cursor = f"&cursor={page.next_cursor}"

    assert await listed(one) == [scene.id]
    assert await listed(two) == [other.id]
    assert await listed(admin) == [other.id, scene.id]


async def test_idempotency_keys_are_each_owners_own(
    http: httpx.AsyncClient, keys: KeyStore, kitchen_zip: bytes
) -> None:
    one, two = bearer(keys), bearer(keys)
    key = {"Idempotency-Key": "same"}
    first = (await submit(http, kitchen_zip, one | key)).json()["id"]
    other = (await submit(http, kitchen_zip, two | key, seed=9)).json()["id"]
    again = (await submit(http, kitchen_zip, one | key)).json()["id"]
    assert first == again != other


async def test_a_revoked_key_is_refused_at_once(http: httpx.AsyncClient, keys: KeyStore) -> None:
    headers = bearer(keys, "read")
    assert (await http.get("/v1/scenes", headers=headers)).status_code == 200
    keys.revoke(keys.all_keys()[0].id)
    problem_in(await http.get("/v1/scenes", headers=headers), 401, "AuthenticationError")


async def test_a_key_has_its_own_queue(
    http: httpx.AsyncClient, keys: KeyStore, kitchen_zip: bytes, backend: Backend
) -> None:
    small, other = bearer(keys, max_queued=1), bearer(keys)
    scene = (await submit(http, kitchen_zip, small)).json()
    refused = await submit(http, kitchen_zip, small)
    problem_in(refused, 429, "QueueFull")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await submit(http, kitchen_zip, other)).status_code == 202
    backend.store.advance_scene(scene["id"], SceneStatus.IN_PROGRESS)
    assert (await submit(http, kitchen_zip, small)).status_code == 202
    assert list((backend.folders.root / "uploads").iterdir()) == []


async def test_a_repeated_submission_needs_no_place_in_the_queue(
    http: httpx.AsyncClient, keys: KeyStore, kitchen_zip: bytes
) -> None:
    """Its answer was lost, and its own scene fills the queue of its key."""
    key = bearer(keys, max_queued=1)
    first, again = [
        await submit(http, kitchen_zip, key | {"Idempotency-Key": "same"}) for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    problem_in(await submit(http, kitchen_zip, key), 429, "QueueFull")


async def test_a_key_resumes_no_more_scenes_than_may_wait(
    http: httpx.AsyncClient, keys: KeyStore, kitchen_zip: bytes, store: Store
) -> None:
    key, admin = bearer(keys, max_queued=1), bearer(keys, "admin", max_queued=1)
    paths = []
    for _ in range(2):
        scene = Scene.model_validate_json((await submit(http, kitchen_zip, key)).content)
        store.advance_scene(scene.id, SceneStatus.IN_PROGRESS)
        store.advance_scene(scene.id, SceneStatus.FAILED)
        paths.append(f"{scene.urls.self}/resume")
    assert (await http.post(paths[0], headers=key)).status_code == 202
    problem_in(await http.post(paths[1], headers=key), 429, "QueueFull")
    assert (await http.post(paths[1], headers=admin)).status_code == 202


async def test_a_priority_is_kept_as_far_as_the_key_allows(
    http: httpx.AsyncClient, keys: KeyStore, kitchen_zip: bytes, backend: Backend
) -> None:
    headers = bearer(keys, max_priority=5)
    scene = (await submit(http, kitchen_zip, headers, priority=5)).json()
    assert backend.store.scene(scene["id"]).priority == 5
    refused = await submit(http, kitchen_zip, headers, priority=6)
    assert problem_in(refused, 403, "PermissionDenied").allowed == "at most 5"
    problem_in(await submit(http, kitchen_zip, headers, priority=101), 422, "ValidationError")


async def test_a_key_has_its_own_rate(http: httpx.AsyncClient, keys: KeyStore) -> None:
    slow, other = bearer(keys, requests_per_minute=3), bearer(keys)
    for _ in range(3):
        assert (await http.get("/v1/scenes", headers=slow)).status_code == 200
    refused = await http.get("/v1/scenes", headers=slow)
    problem_in(refused, 429, "RateLimited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    assert (await http.get("/v1/scenes", headers=other)).status_code == 200


def test_a_bucket_refills_steadily_and_never_overflows() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    caller = Caller("one", frozenset(), requests_per_minute=6)

    def taken() -> int:
        count = 0
        with suppress(RateLimited):
            while True:
                rates.take(caller)
                count += 1
        return count

    assert taken() == 6
    with pytest.raises(RateLimited) as caught:
        rates.take(caller)
    assert caught.value.retry_after_s == pytest.approx(10)
    now += 9.9
    assert taken() == 0
    now += 0.2
    assert taken() == 1
    now += 3600
    assert taken() == 6
