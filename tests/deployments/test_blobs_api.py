"""The HTTP API where the files of scenes lie in S3: two nodes that share no folder."""

import asyncio
import dataclasses
import io
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from worldstereo_client.schemas import SceneStatus

from actors.blobs import BlobStore, BlobStoreAway, SceneBlobs
from configs.settings import RetentionSettings
from deployments import removal
from deployments.copies import remove_copies, remove_copies_for_ever
from deployments.folders import SceneFolders
from deployments.removal import remove_scene, remove_strays
from deployments.retention import Retention, folder_bytes
from deployments.store import Store
from tests.actors.s3 import s3_server
from tests.deployments.http_api import FakeOrchestrator, problem_in
from worldstereo.formats import manifest
from worldstereo.formats.atomic import atomic_write_bytes
from worldstereo.formats.manifest import sha256_of

FILES = {"plan.json": b"{}", "renders/a/video.mp4": b"film" * 500, "manifest.json": b"{}"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[BlobStore]:
    with s3_server() as store:
        yield store


@pytest.fixture
def blobs(bucket: BlobStore, tmp_path: Path) -> BlobStore:
    return dataclasses.replace(bucket, url=f"{bucket.url}/{tmp_path.name}")


@pytest.fixture
def folders(tmp_path: Path, blobs: BlobStore) -> SceneFolders:
    """Of the ingress' node."""
    return SceneFolders(tmp_path / "ingress", blobs)


@pytest.fixture
def elsewhere(tmp_path: Path, blobs: BlobStore) -> SceneFolders:
    """Of the node that the scene's memory bank is on."""
    return SceneFolders(tmp_path / "elsewhere", blobs)


async def submitted(http: httpx.AsyncClient, archive: bytes) -> str:
    response = await http.post("/v1/scenes", files={"scene": ("kitchen.zip", archive)})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def finish_elsewhere(store: Store, elsewhere: SceneFolders, scene_id: str) -> None:
    """What a memory bank on another node leaves."""
    for name, content in FILES.items():
        atomic_write_bytes(elsewhere.scene(scene_id).output / name, content)
    elsewhere.keep(scene_id, ["output"])
    store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
    store.advance_scene(scene_id, SceneStatus.COMPLETED)


async def test_an_input_reaches_another_node(
    http: httpx.AsyncClient, kitchen_zip: bytes, elsewhere: SceneFolders, folders: SceneFolders
) -> None:
    scene_id = await submitted(http, kitchen_zip)
    elsewhere.bring(scene_id, ["input"])
    here, there = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (folders.scene(scene_id).input, elsewhere.scene(scene_id).input)
    )
    assert there
    assert here == there


async def test_results_of_another_node_are_listed_fetched_and_deleted(
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    store: Store,
    elsewhere: SceneFolders,
    folders: SceneFolders,
    blobs: BlobStore,
) -> None:
    scene_id = await submitted(http, kitchen_zip)
    root = f"/v1/scenes/{scene_id}"
    assert (await http.get(f"{root}/artefacts")).json() == {"artefacts": []}
    finish_elsewhere(store, elsewhere, scene_id)
    shutil.rmtree(elsewhere.root)  # and that node is lost
    listed = (await http.get(f"{root}/artefacts")).json()["artefacts"]
    assert {item["name"]: item["bytes"] for item in listed} == {
        name: len(content) for name, content in FILES.items()
    }
    assert not folders.scene(scene_id).output.exists(), "a list fetches nothing"
    for item in listed:
        response = await http.get(item["url"])
        assert response.content == FILES[item["name"]]
        assert response.headers["ETag"] == f'"{item["sha256"]}"'
    part = await http.get(f"{root}/artefacts/renders/a/video.mp4", headers={"Range": "bytes=1-4"})
    assert (part.status_code, part.content) == (206, b"ilmf")
    problem_in(await http.get(f"{root}/artefacts/no.txt"), 404, "ArtefactNotFound")

    shutil.rmtree(folders.scene(scene_id).fetched.root)
    archive = zipfile.ZipFile(io.BytesIO((await http.get(f"{root}/archive")).content))
    assert {name: archive.read(name) for name in archive.namelist()} == FILES

    assert (await http.delete(root)).status_code == 204
    assert not folders.scene(scene_id).root.exists()
    scene = blobs.scene(scene_id, folders.root)
    assert scene.index("output") == scene.index("input") == {}


async def test_what_the_bank_works_on_is_neither_shown_nor_touched(
    http: httpx.AsyncClient, kitchen_zip: bytes, store: Store, folders: SceneFolders
) -> None:
    """The ingress shares the node of the bank, which has written what it has not pushed yet."""
    scene_id = await submitted(http, kitchen_zip)
    finish_elsewhere(store, folders, scene_id)
    root, output = f"/v1/scenes/{scene_id}", folders.scene(scene_id).output
    atomic_write_bytes(output / "plan.json", b"rewritten")
    atomic_write_bytes(output / "renders/b/video.mp4", b"not pushed")
    response = await http.get(f"{root}/artefacts/plan.json")
    assert response.content == FILES["plan.json"]
    problem_in(await http.get(f"{root}/artefacts/renders/b/video.mp4"), 404, "ArtefactNotFound")
    archive = zipfile.ZipFile(io.BytesIO((await http.get(f"{root}/archive")).content))
    assert {name: archive.read(name) for name in archive.namelist()} == FILES
    assert archive.namelist()[-1] == "manifest.json"
    assert (output / "plan.json").read_bytes() == b"rewritten"


async def test_a_copy_of_what_is_gone_is_not_shown(
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    blobs: BlobStore,
    elsewhere: SceneFolders,
    folders: SceneFolders,
) -> None:
    scene_id = await submitted(http, kitchen_zip)
    bank = SceneBlobs(blobs, scene_id, elsewhere.scene(scene_id).root)
    for name, content in FILES.items():
        atomic_write_bytes(elsewhere.scene(scene_id).output / name, content)
    bank.push("output")
    url = f"/v1/scenes/{scene_id}"
    assert (await http.get(f"{url}/artefacts/manifest.json")).status_code == 200
    (elsewhere.scene(scene_id).output / "manifest.json").unlink()  # the scene was resumed
    bank.push("output")
    problem_in(await http.get(f"{url}/artefacts/manifest.json"), 404, "ArtefactNotFound")
    archive = zipfile.ZipFile(io.BytesIO((await http.get(f"{url}/archive")).content))
    assert set(archive.namelist()) == set(FILES) - {"manifest.json"}

    shutil.rmtree(folders.scene(scene_id).fetched.root)
    bank._files.rm_file(bank._blob("output", "plan.json"))  # while the archive is put together
    problem_in(await http.get(f"{url}/archive"), 404, "ArtefactNotFound")


async def test_a_fetched_file_is_read_once_to_be_verified(
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    store: Store,
    elsewhere: SceneFolders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene_id = await submitted(http, kitchen_zip)
    finish_elsewhere(store, elsewhere, scene_id)
    url = f"/v1/scenes/{scene_id}/artefacts/renders/a/video.mp4"
    first = await http.get(url)
    read: list[Path] = []
    monkeypatch.setattr(manifest, "sha256_of", lambda path: (read.append(path), sha256_of(path))[1])
    again = [await http.get(url) for _ in range(3)]
    assert [item.content for item in again] == [first.content] * 3
    assert len({item.headers["ETag"] for item in [first, *again]}) == 1
    assert read == []


async def test_a_deletion_that_was_cut_short_is_finished_by_another_node(
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    store: Store,
    elsewhere: SceneFolders,
    blobs: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene_id, kept = [await submitted(http, kitchen_zip) for _ in range(2)]
    finish_elsewhere(store, elsewhere, scene_id)
    assert remove_strays(store, elsewhere) == []

    def away(*arguments: object) -> None:
        raise BlobStoreAway("the blob store cannot be used", where="s3://bucket")

    with monkeypatch.context() as broken:
        broken.setattr(SceneBlobs, "delete", away)
        response = await http.delete(f"/v1/scenes/{scene_id}")
    problem_in(response, 503, "BlobStoreAway")
    problem_in(await http.get(f"/v1/scenes/{scene_id}"), 404, "SceneNotFound")
    assert blobs.marked() == [scene_id]
    scene = blobs.scene(scene_id, elsewhere.root)
    assert scene.bytes() > 0
    assert remove_strays(store, elsewhere) == [elsewhere.scene(scene_id).root]
    assert scene.bytes() == 0
    assert blobs.marked() == []
    assert not elsewhere.scene(scene_id).root.exists()
    assert blobs.scene(kept, elsewhere.root).bytes() > 0


async def test_a_scene_that_goes_on_is_not_marked(
    http: httpx.AsyncClient, kitchen_zip: bytes, blobs: BlobStore
) -> None:
    scene_id = await submitted(http, kitchen_zip)
    problem_in(await http.delete(f"/v1/scenes/{scene_id}"), 409, "StateConflict")
    assert blobs.marked() == []


async def test_a_limit_of_bytes_counts_what_the_blob_store_has(
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    store: Store,
    elsewhere: SceneFolders,
    folders: SceneFolders,
) -> None:
    """The orchestrator's node has none of the files."""
    scene_id = await submitted(http, kitchen_zip)
    finish_elsewhere(store, elsewhere, scene_id)
    inputs = folder_bytes(folders.scene(scene_id).input)
    whole = inputs + sum(len(content) for content in FILES.values())
    orchestrator = dataclasses.replace(folders, root=folders.root / "orchestrator")
    fits = Retention(store, orchestrator, RetentionSettings(max_bytes=whole))
    assert fits.sweep() == []
    (gone,) = Retention(store, orchestrator, RetentionSettings(max_bytes=whole - 1)).sweep()
    assert (gone.scene.id, gone.bytes) == (scene_id, whole)


async def test_copies_of_a_scene_that_another_node_deleted_go(
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    store: Store,
    elsewhere: SceneFolders,
    folders: SceneFolders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone, kept = [await submitted(http, kitchen_zip) for _ in range(2)]
    finish_elsewhere(store, elsewhere, gone)
    remove_scene(store, elsewhere, gone)
    copies = folders.scene(gone).root
    assert copies.is_dir()
    assert remove_copies(store, folders) == [], "it may be one that is just being submitted"
    monkeypatch.setattr(removal, "NEW_SCENE_S", -1.0)
    shared = dataclasses.replace(folders, blobs=None)
    assert remove_copies(store, shared) == [], "without a blob store they may be the only ones"
    looking = asyncio.create_task(remove_copies_for_ever(store, folders))
    deadline = time.monotonic() + 20
    while copies.exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    looking.cancel()
    assert folders.scene(kept).input.is_dir()

    folders.scene("another").output.mkdir(parents=True)
    Retention(store, folders, RetentionSettings()).tidy()
    assert [folder.root.name for folder in folders.stored()] == [kept]


async def test_a_submission_that_cannot_be_kept_is_told_and_leaves_nothing(
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
    store: Store,
    folders: SceneFolders,
    orchestrator: FakeOrchestrator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The blob store goes away: while the input is kept, and still when it would be removed."""

    def away(*arguments: object) -> None:
        raise BlobStoreAway("the blob store cannot be used", where="s3://bucket")

    monkeypatch.setattr(SceneBlobs, "push", away)
    monkeypatch.setattr(SceneBlobs, "delete", away)
    response = await http.post("/v1/scenes", files={"scene": ("kitchen.zip", kitchen_zip)})
    problem_in(response, 503, "BlobStoreAway")
    assert response.headers["Retry-After"] == "5"
    assert store.queued() == orchestrator.woken == 0
    assert not folders.uploads()
    assert not folders.stored()
