"""The synchronous client against a server that fails in the middle of things."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from worldstereo_client import Client, RetryPolicy, chain, dolly, errors, orbit, pan
from worldstereo_client.schemas import SceneStatus

from tests.client.conftest import QUICK
from tests.client.stub_scenes import (
    completed_script,
    failed_script,
    problem,
    queued_script,
    result_files,
)
from tests.client.stub_server import Stub


def test_a_scene_from_folder_to_files(client: Client, stub: Stub, scene_folder: Path) -> None:
    job = client.scenes.submit(scene_folder, variant="worldstereo-memory", seed=7)
    assert job.name == "kitchen"
    assert [event.id for event in job.events()] == list(range(1, len(completed_script()) + 1))
    assert job.wait().status is SceneStatus.COMPLETED
    output = scene_folder.parent / "out"
    paths = job.download(output)
    assert {p.relative_to(output).as_posix(): p.read_bytes() for p in paths} == result_files()
    assert paths[-1].name == "manifest.json"
    assert sorted(p for p in output.rglob("*") if p.is_file()) == sorted(paths)
    sent = stub.scenes[job.id]
    assert sorted(sent.files) == ["image.png", "prompt.json", "renders/traj_up/camera.json"]
    assert (sent.parameters.variant, sent.parameters.seed) == ("worldstereo-memory", 7)


def test_a_depth_file_goes_along(client: Client, stub: Stub, scene_folder: Path) -> None:
    depth = scene_folder.parent / "depth.npy"
    depth.write_bytes(b"numbers")
    job = client.scenes.submit(scene_folder, depth=depth)
    assert stub.scenes[job.id].depth == b"numbers"
    assert stub.scenes[job.id].depth_unit is None
    picture = b"\x89PNG\r\n\x1a\ngrey"
    depth.with_suffix(".png").write_bytes(picture)
    depth.with_suffix(".json").write_text('{"unit": "millimetre"}')
    job = client.scenes.submit(scene_folder, depth=depth.with_suffix(".png"))
    assert stub.scenes[job.id].depth == picture
    assert stub.scenes[job.id].depth_unit == b'{"unit": "millimetre"}'
    with pytest.raises(errors.ParameterError, match="no such depth file"):
        client.scenes.submit(scene_folder, depth=depth.with_name("absent.npy"))


def test_an_image_is_sent_with_how_to_build_from_it(
    client: Client, stub: Stub, tmp_path: Path
) -> None:
    photo = tmp_path / "harbour.jpg"
    photo.write_bytes(b"\xff\xd8\xff\xe0 a photo")
    job = client.scenes.submit(
        photo,
        prompt="a harbour",
        trajectories=[orbit(azimuth=30, name="right"), chain([pan(20), dolly(0.3)])],
        field_of_view=70,
        outputs=["points"],
    )
    scene = stub.scenes[job.id]
    assert scene.files["image.png"] == photo.read_bytes()
    assert scene.parameters.outputs == ("points",)
    build = scene.parameters.build
    assert build is not None
    assert (build.prompt, build.kind, build.field_of_view) == ("a harbour", "perspective", 70)
    assert [spec.model_dump(exclude_none=True) for spec in build.trajectories] == [
        {"preset": "orbit", "name": "right", "azimuth": 30, "elevation": 0},
        {
            "preset": "chain",
            "segments": [
                {"preset": "pan", "degrees": 20},
                {"preset": "dolly", "amount": 0.3, "unit": "pivot"},
            ],
        },
    ]


def test_what_is_said_of_an_image_needs_one(
    client: Client, scene_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(errors.ParameterError, match=r"only an image.*got prompt"):
        client.scenes.submit(scene_folder, prompt="a room")
    image = tmp_path / "image.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(errors.ParameterError, match="a prompt is needed"):
        client.scenes.submit(image)
    with pytest.raises(errors.ParameterError, match="greater than or equal to 5"):
        client.scenes.submit(image, prompt="a room", field_of_view=0)
    with pytest.raises(errors.LayoutError, match="no such image"):
        client.scenes.submit(tmp_path / "absent.png", prompt="a room")
    image.write_bytes(b"GIF89a")
    with pytest.raises(errors.LayoutError, match=r"not an image.*allowed: a PNG, JPEG or WebP"):
        client.scenes.submit(image, prompt="a room")


def test_an_archive_is_sent_as_it_is(client: Client, stub: Stub, scene_folder: Path) -> None:
    archive = shutil.make_archive(str(scene_folder), "zip", scene_folder)
    job = client.scenes.submit(archive)
    assert job.name == "kitchen"
    assert stub.scenes[job.id].files["image.png"] == b"image"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_busy_answers_are_tried_again(client: Client, stub: Stub, status: int) -> None:
    stub.fail_next("GET", "/v1/models", times=3, status=status)
    assert [model.id for model in client.models()] == ["worldstereo-memory-dmd"]
    assert len(stub.seen("GET", "/v1/models")) == 4


def test_retry_after_is_kept(client: Client, stub: Stub) -> None:
    stub.fail_next("GET", "/v1/models", status=429, error="QueueFull", headers={"Retry-After": "1"})
    start = time.monotonic()
    client.models()
    assert time.monotonic() - start >= 1.0


def test_a_long_retry_after_is_the_callers_matter(client: Client, stub: Stub) -> None:
    headers = {"Retry-After": "3600"}
    stub.fail_next("GET", "/v1/models", status=429, error="QueueFull", headers=headers)
    with pytest.raises(errors.QueueFull):
        client.models()
    assert len(stub.seen("GET", "/v1/models")) == 1


def test_tries_end(client: Client, stub: Stub) -> None:
    stub.fail_next("GET", "/v1/models", times=9, status=503)
    with pytest.raises(errors.NotReady) as caught:
        client.models()
    assert caught.value.status == 503
    assert len(stub.seen("GET", "/v1/models")) == QUICK.attempts


def test_other_errors_are_not_tried_again(client: Client, stub: Stub) -> None:
    stub.fail_next("GET", "/v1/models", status=500, error="InternalError")
    with pytest.raises(errors.InternalError):
        client.models()
    assert len(stub.seen("GET", "/v1/models")) == 1


def test_a_submit_whose_answer_was_lost_makes_one_scene(
    client: Client, stub: Stub, scene_folder: Path
) -> None:
    stub.fail_next("POST", "/v1/scenes", cut_after=10)
    stub.fail_next("POST", "/v1/scenes", status=503)
    job = client.scenes.submit(scene_folder)
    sent = stub.seen("POST", "/v1/scenes")
    assert len(sent) == 3
    assert len({headers["idempotency-key"] for headers in sent}) == 1
    assert len({headers["content-type"] for headers in sent}) == 1
    assert list(stub.scenes) == [job.id]


def test_the_callers_key_finds_the_same_scene(
    client: Client, stub: Stub, scene_folder: Path
) -> None:
    first = client.scenes.submit(scene_folder, idempotency_key="mine")
    (scene_folder / "image.png").touch()
    assert client.scenes.submit(scene_folder, idempotency_key="mine").id == first.id
    with pytest.raises(errors.IdempotencyConflict):
        client.scenes.submit(scene_folder, idempotency_key="mine", seed=2)
    with pytest.raises(errors.ParameterError, match="idempotency_key"):
        client.scenes.submit(scene_folder, idempotency_key="two words")


def test_events_go_on_after_lost_connections(
    client: Client, stub: Stub, scene_folder: Path
) -> None:
    stub.tick_s = 0.02
    job = client.scenes.submit(scene_folder)
    stub.fail_next("GET", "/events", cut_after=150)
    stub.fail_next("GET", "/events", status=502)
    stub.fail_next("GET", "/events", cut_after=0)
    stub.fail_next("GET", "/events", cut_after=333)
    seen = list(job.events())
    assert seen == completed_script()
    resumed = [headers.get("last-event-id") for headers in stub.seen("GET", "/events")]
    assert resumed[0] is None
    assert len(resumed) == 5
    numbers = [int(last) for last in resumed[1:] if last is not None]
    assert numbers == sorted(numbers)
    assert numbers[0] >= 1


def test_events_after_a_known_one(client: Client, scene_folder: Path) -> None:
    job = client.scenes.submit(scene_folder)
    last = len(completed_script())
    assert [event.id for event in job.events(after=last - 2)] == [last - 1, last]
    assert list(job.events(after=last)) == []


def test_waiting_ends_with_the_deadline_although_nothing_happens(
    client: Client, stub: Stub, scene_folder: Path
) -> None:
    stub.script = queued_script
    job = client.scenes.submit(scene_folder)
    start = time.monotonic()
    with pytest.raises(errors.WaitTimeout, match=r"within 0\.3 s"):
        job.wait(timeout_s=0.3)
    assert 0.3 <= time.monotonic() - start < 15
    assert job.status().status is SceneStatus.QUEUED


def test_a_silent_server_does_not_outlast_the_deadline(
    client: Client, stub: Stub, scene_folder: Path
) -> None:
    stub.script, stub.heartbeat_s = queued_script, 30.0
    job = client.scenes.submit(scene_folder)
    start = time.monotonic()
    with pytest.raises(errors.WaitTimeout):
        job.wait(timeout_s=0.3)
    assert time.monotonic() - start < 15


def test_a_failed_scene_raises_its_own_error(
    client: Client, stub: Stub, scene_folder: Path
) -> None:
    stub.script = lambda: failed_script(
        problem(500, "GenerationError", "out of memory", where="renders/traj_up")
    )
    job = client.scenes.submit(scene_folder)
    with pytest.raises(errors.GenerationError, match="renders/traj_up: out of memory"):
        job.wait()
    assert job.wait(check=False).status is SceneStatus.FAILED


def test_cancel(client: Client, stub: Stub, scene_folder: Path) -> None:
    stub.script = queued_script
    job = client.scenes.submit(scene_folder)
    job.cancel()
    with pytest.raises(errors.GenerationCancelled):
        job.wait()
    assert job.cancel().status is SceneStatus.CANCELLED
    stub.script = completed_script
    with pytest.raises(errors.StateConflict):
        client.scenes.submit(scene_folder).cancel()


def test_lists_fetch_pages_as_needed(client: Client, stub: Stub, scene_folder: Path) -> None:
    ids = [client.scenes.submit(scene_folder).id for _ in range(5)]
    assert [scene.id for scene in client.scenes.list()] == ids[::-1]
    assert len(stub.seen("GET", "/v1/scenes")) == 3
    assert list(client.scenes.list(status=SceneStatus.FAILED)) == []


def test_health_and_readiness_are_answers(client: Client, stub: Stub) -> None:
    assert client.health().status == "ok"
    assert client.ready().status == "ok"
    stub.ready = False
    answer = client.ready()
    assert (answer.status, answer.reason) == ("not_ready", "no replica is up")


def test_unknown_scenes_and_bad_scenes(client: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.SceneNotFound, match="scene nope: no such scene") as caught:
        client.scenes.job("nope")
    assert caught.value.status == 404
    with pytest.raises(errors.ParameterError):
        client.scenes.get("..")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "notes.txt").write_text("hello")
    with pytest.raises(errors.LayoutError) as refused:
        client.scenes.submit(tmp_path / "bad")
    assert refused.value.fields == {"what": "no layout", "where": "scene", "fix": "add image.png"}
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("parameters", "where"),
    [({"seed": -1}, "seed"), ({"stepz": 4}, "stepz"), ({"task_type": "movie"}, "task_type")],
)
def test_parameters_are_checked_before_anything_is_sent(
    client: Client, stub: Stub, scene_folder: Path, parameters: dict[str, object], where: str
) -> None:
    with pytest.raises(errors.ParameterError, match=where):
        client.scenes.submit(scene_folder, **parameters)
    assert stub.requests == []


def test_nobody_there() -> None:
    with (
        Client("http://127.0.0.1:9", retries=QUICK) as client,
        pytest.raises(errors.ServerUnreachable, match="worldstereo serve") as caught,
    ):
        client.health()
    assert isinstance(caught.value, ConnectionError)


def test_a_server_that_does_not_answer(stub: Stub, scene_folder: Path) -> None:
    stub.script, stub.heartbeat_s = queued_script, 30.0
    with Client(stub.url, retries=RetryPolicy(attempts=1)) as client:
        job = client.scenes.submit(scene_folder)
        stub.fail_next("GET", job.id, cut_after=0)
        with pytest.raises(errors.ServerUnreachable, match="connection was lost"):
            job.status()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port", ""])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(errors.ParameterError, match="url"):
        Client(url)


def test_another_program_answers(client: Client, stub: Stub) -> None:
    stub.fail_next("GET", "/v1/models", status=404, body=b"<h1>nginx</h1>")
    with pytest.raises(errors.UnexpectedResponse, match="HTTP 404 '<h1>nginx</h1>'"):
        client.models()
    stub.fail_next("GET", "/v1/models", status=200, body=b"<h1>hello</h1>")
    with pytest.raises(errors.UnexpectedResponse, match="is no ModelList"):
        client.models()


def test_a_stream_that_is_none(client: Client, stub: Stub, scene_folder: Path) -> None:
    job = client.scenes.submit(scene_folder)
    stub.fail_next("GET", "/events", status=200, body=b"hello")
    with pytest.raises(errors.UnexpectedResponse, match="text/event-stream"):
        list(job.events())
