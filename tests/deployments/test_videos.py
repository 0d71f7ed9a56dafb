"""The openai package against /v1/videos of a real server; what a cluster does, a thread does."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from worldstereo_client import Client
from worldstereo_client.schemas import SceneRequest, SceneStatus, TrajectoryStatus

from configs.settings import UploadLimits
from deployments.api import Backend, create_api
from deployments.event_feed import EventFeed
from deployments.folders import SceneFolders
from deployments.http_errors import problem_of
from deployments.offers import Offers
from deployments.records import NewScene
from deployments.store import Store
from deployments.submission import Submitter
from tests.client.stub_server import serving
from tests.deployments.http_api import VARIANT, FakeOrchestrator
from worldstereo.config import ModelConfig
from worldstereo.errors import GenerationError
from worldstereo.formats.atomic import temporary_sibling
from worldstereo.formats.results import write_trajectory
from worldstereo.formats.video import read_video
from worldstereo.types import Cameras

# OpenAI retires its own service; the package says so at each call.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

PROMPT = "a small harbour at noon"


@dataclass
class Server:
    """An API on loopback, the store and the files behind it."""

    url: str
    store: Store
    folders: SceneFolders
    config: ModelConfig

    def generate(
        self,
        video_id: str,
        error: GenerationError | None = None,
        go_on: threading.Event | None = None,
    ) -> None:
        """Do to a video what the cluster does; half-way, wait until it may go on."""
        scene_id = video_id.removeprefix("video_")
        (clip,) = self.store.scene(scene_id).trajectories
        self.store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
        self.store.advance_trajectory(scene_id, clip.id, TrajectoryStatus.QUEUED)
        self.store.start_attempt(scene_id, clip.id, f"attempt of {scene_id}", 1)
        self.store.record_progress(scene_id, clip.id, "denoise", 2, 4)
        assert go_on is None or go_on.wait(60)
        if error is not None:
            problem = problem_of(error, clip.id)
            self.store.advance_trajectory(scene_id, clip.id, TrajectoryStatus.FAILED, problem)
            self.store.advance_scene(scene_id, SceneStatus.FAILED, problem)
            return
        count = self.config.nframe
        frames = np.full((count, 32, 48, 3), 90, dtype=np.uint8)
        identity = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
        cameras = Cameras(identity, identity[:, :3, :3], 32, 48)
        write_trajectory(self.folders.scene(scene_id).output / clip.id, frames, cameras, ())
        self.store.advance_trajectory(scene_id, clip.id, TrajectoryStatus.COMPLETED)
        self.store.advance_scene(scene_id, SceneStatus.COMPLETED)


@contextmanager
def served(
    store: Store, folders: SceneFolders, config: ModelConfig, estimator: str | None
) -> Iterator[str]:
    """The API on loopback; nobody is behind the store."""
    orchestrator = FakeOrchestrator()
    offers = Offers(outputs=("colmap",), depth_estimator=estimator)
    configs = {VARIANT: config}
    limits = UploadLimits()
    submitter = Submitter(
        store, folders, configs, limits, offers, max_queued_scenes=6, max_validations=1
    )
    feed = EventFeed(store, poll_s=0.01, heartbeat_s=0.2)
    wake = orchestrator.wake
    backend = Backend(store, folders, submitter, feed, orchestrator, wake, "tiny", configs, offers)
    with serving(create_api(backend)) as url:
        yield url


@pytest.fixture
def server(store: Store, folders: SceneFolders, tiny_config: ModelConfig) -> Iterator[Server]:
    with served(store, folders, tiny_config, "moge") as url:
        yield Server(url, store, folders, tiny_config)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as client:
        yield client


def image(height: int = 128, width: int = 192) -> tuple[str, bytes]:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 128, dtype=np.uint8)).save(file, format="PNG")
    return "harbour.png", file.getvalue()


def test_a_video_is_created_polled_and_downloaded(
    server: Server, client: openai.OpenAI, tmp_path: Path
) -> None:
    done: list[openai.types.Video] = []

    def create() -> None:
        done.append(
            client.videos.create_and_poll(
                prompt=PROMPT,
                model=VARIANT,
                input_reference=image(),
                extra_body={"trajectory": "orbit:azimuth=20", "seed": 7},
                poll_interval_ms=50,
            )
        )

    creating = threading.Thread(target=create)
    creating.start()
    deadline = time.monotonic() + 20
    while not (queued := client.videos.list().data):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first = queued[0]
    assert (first.object, first.status, first.progress) == ("video", "queued", 0)
    assert (first.model, first.prompt, first.size) == (VARIANT, PROMPT, "192x128")
    assert first.seconds == f"{server.config.nframe / 16:g}"
    with pytest.raises(openai.NotFoundError, match="not ready"):
        client.videos.download_content(first.id)
    server.generate(first.id)
    creating.join()
    (video,) = done
    assert (video.id, video.status, video.progress) == (first.id, "completed", 100)
    assert video.error is None
    assert video.completed_at is not None
    assert video.completed_at >= video.created_at
    file = tmp_path / "video.mp4"
    client.videos.download_content(video.id).write_to_file(file)
    assert read_video(file).shape == (server.config.nframe, 32, 48, 3)

    request = server.store.scene(video.id.removeprefix("video_")).parameters
    assert request.build is not None
    (spec,) = request.build.trajectories
    assert spec.model_dump(exclude_none=True) == {"preset": "orbit", "azimuth": 20}
    assert (request.seed, request.outputs) == (7, ())

    gone = client.videos.delete(video.id)
    assert (gone.id, gone.object, gone.deleted) == (video.id, "video.deleted", True)
    with pytest.raises(openai.NotFoundError, match="no such video"):
        client.videos.retrieve(video.id)
    assert not server.folders.scene(video.id.removeprefix("video_")).root.exists()


def test_a_running_video_tells_how_far_it_is_and_is_not_deleted(
    server: Server, client: openai.OpenAI
) -> None:
    video = client.videos.create(prompt=PROMPT, model=VARIANT, input_reference=image())
    go_on = threading.Event()
    generating = threading.Thread(target=server.generate, args=(video.id, None, go_on))
    generating.start()
    deadline = time.monotonic() + 60
    while (now := client.videos.retrieve(video.id)).status == "queued" or not now.progress:
        assert time.monotonic() < deadline
    assert now.status == "in_progress"
    assert 0 < now.progress < 100
    with pytest.raises(openai.ConflictError, match="has not ended"):
        client.videos.delete(video.id)
    go_on.set()
    generating.join()


def test_a_video_whose_image_is_just_coming_or_going_is_shown(
    server: Server, client: openai.OpenAI
) -> None:
    video = client.videos.create(prompt=PROMPT, model=VARIANT, input_reference=image())
    source = server.folders.scene(video.id.removeprefix("video_")).source
    (file,) = source.iterdir()
    beside = temporary_sibling(file)
    beside.write_bytes(b"half of it")
    assert client.videos.retrieve(video.id).size == "192x128"
    file.unlink()
    assert client.videos.retrieve(video.id).size == "unknown"
    beside.unlink()
    assert client.videos.retrieve(video.id).seconds == "unknown"
    source.rmdir()
    assert [item.size for item in client.videos.list().data] == ["unknown"]


def test_videos_are_listed_in_pages_and_apart_from_scenes(
    server: Server, client: openai.OpenAI
) -> None:
    server.store.add_scene(NewScene("0a1b", "s", SceneRequest(), ("v/a",)), max_queued=9)
    made = [
        client.videos.create(prompt=f"{PROMPT} {number}", input_reference=image()).id
        for number in range(3)
    ]
    newest_first = [video.id for video in client.videos.list(limit=2)]
    assert newest_first == made[::-1], "the package asks on by itself"
    assert [video.id for video in client.videos.list(limit=1, order="asc")] == made
    page = client.videos.list(limit=2, after=made[2])
    assert ([video.id for video in page.data], page.has_more) == ([made[1], made[0]], False)
    with pytest.raises(openai.NotFoundError):
        client.videos.list(after="video_none")
    with Client(server.url) as scenes:
        assert [scene.id for scene in scenes.scenes.list()] == ["0a1b"]
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve("video_0a1b")
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve("0a1b")


def test_a_video_that_failed_or_was_cancelled_says_so(
    server: Server, client: openai.OpenAI
) -> None:
    failed, cancelled = (
        client.videos.create(prompt=PROMPT, input_reference=image()) for _ in range(2)
    )
    server.generate(failed.id, GenerationError("out of memory", got="9 of 8 GB"))
    video = client.videos.retrieve(failed.id)
    assert (video.status, video.error and video.error.code) == ("failed", "generation_error")
    assert video.error is not None
    assert "9 of 8 GB" in video.error.message
    with Client(server.url) as scenes:  # the scene behind a video can be cancelled as any other
        scenes.scenes.cancel(cancelled.id.removeprefix("video_"))
    assert client.videos.retrieve(cancelled.id).status == "in_progress"
    server.store.advance_scene(cancelled.id.removeprefix("video_"), SceneStatus.CANCELLED)
    video = client.videos.retrieve(cancelled.id)
    assert (video.status, video.error and video.error.code) == ("failed", "cancelled")
    assert client.videos.delete(failed.id).deleted


REFUSED = {
    "input_reference": ({}, "a video starts from an image"),
    "model": ({"model": "sora-2"}, f"allowed.*{VARIANT}"),
    "seconds": ({"seconds": "12"}, "1.3125"),
    "size": ({"size": "1280x720"}, "192x128"),
    "trajectory": ({"extra_body": {"trajectory": "/etc/hosts.json"}}, "preset"),
    "trajectory ": ({"extra_body": {"trajectory": "orbit:azimuth=fast"}}, "'fast'"),
    "trajectory  ": ({"extra_body": {"trajectory": "{}"}}, "orbit:azimuth=20"),
    "seed": ({"extra_body": {"seed": "-1"}}, "greater than or equal to 0"),
    "style": ({"extra_body": {"style": "noir"}}, "unknown part"),
    "prompt": ({"prompt": " "}, "what the image shows is not said"),
}


@pytest.mark.parametrize("param", REFUSED)
def test_what_the_model_cannot_do_is_refused_in_openais_shape(
    param: str, client: openai.OpenAI, server: Server
) -> None:
    changes, said = REFUSED[param]
    fields = {"prompt": PROMPT, **changes}
    if param != "input_reference":
        fields["input_reference"] = image()
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.videos.create(**fields)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == param.strip()
    assert caught.value.code in ("validation_error", "parameter_error")
    assert client.videos.list().data == []
    assert list((server.folders.root / "uploads").iterdir()) == []


def test_an_unusable_image_and_a_full_queue(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="image") as caught:
        client.videos.create(prompt=PROMPT, input_reference=("a.png", b"no picture"))
    assert caught.value.code == "media_error"
    for _ in range(6):
        client.videos.create(prompt=PROMPT, input_reference=image())
    with pytest.raises(openai.RateLimitError) as full:
        client.videos.create(prompt=PROMPT, input_reference=image())
    assert full.value.response.headers["Retry-After"] == "30"


def test_the_errors_of_other_paths_stay_problem_bodies(server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as plain:
        json_body = plain.post("/v1/videos", json={"prompt": PROMPT})
        assert json_body.status_code == 400
        assert json_body.json()["error"]["param"] == "Content-Type"
        assert plain.get("/v1/videos?limit=0").json()["error"]["param"] == "query.limit"
        assert plain.post("/v1/videos/video_one/remix").json()["error"]["code"] == "not_found"
        assert plain.get("/v1/videosandmore").json()["error"] == "NotFound"
        assert plain.get("/v1/scenes/none").json()["error"] == "SceneNotFound"


def test_a_server_without_an_estimator_of_depth_says_what_is_missing(
    store: Store, folders: SceneFolders, tiny_config: ModelConfig
) -> None:
    form = {"data": {"prompt": PROMPT}, "files": {"input_reference": image()}}
    with served(store, folders, tiny_config, None) as url, httpx.Client(trust_env=False) as plain:
        response = plain.post(f"{url}/v1/videos", **form)
    assert response.status_code == 400
    assert "no depth estimator" in response.json()["error"]["message"]
