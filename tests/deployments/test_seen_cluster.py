"""What the service tells of itself, as seen from outside a real cluster that runs a scene."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from worldstereo_client.schemas import Scene
from worldstereo_client.webhooks import verify

from configs.settings import AppArgs, GeneratorSettings, ModelSettings, OrchestratorSettings
from configs.telling import LoggingSettings, TracingSettings, WebhookSettings
from deployments import metrics
from deployments.app import build_app
from deployments.metrics import Metric
from tests.clusters import running_cluster
from tests.deployments.otlp import spans_in
from tests.deployments.served import Service, check_completed
from tests.receiver import Received, Receiver, receiving

pytestmark = pytest.mark.cluster

SECRET = "whsec_" + "c2VjcmV0" * 4
VARIANT = "worldstereo-memory-dmd"
# What a webhook is told of a scene that nothing happens to.
STATES_TOLD = ("scene.queued", "scene.in_progress", "scene.completed")
# Ray's agent collects every 10 s, and the orchestrator's gauges are up to 5 s old; each series for
# itself, and all later on a busy machine.
METRICS_PATIENCE_S = 90.0
T = TypeVar("T")


@dataclass
class Seen:
    """A service, one scene of it that has completed, and who was told of it."""

    service: Service
    scene: Scene
    hooks: Receiver
    collector: Receiver


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, kitchen_zip: bytes) -> Iterator[Seen]:
    with (
        receiving() as hooks,
        receiving(lambda number: 200) as collector,
        # The fake engine takes a GPU that is a number in Ray's books.
        running_cluster(num_cpus=4, num_gpus=1) as cluster,
    ):
        args = AppArgs(
            model=ModelSettings(
                source="worldstereo-tiny",
                image_features="worldstereo-tiny/dinov2",
                torch_threads=None,
                worker_num_cpus=0.1,
                worker_num_gpus=1,
                engine="tests.deployments.fake_engine:load",
            ),
            data_dir=tmp_path_factory.mktemp("seen") / "data",
            local_files_only=True,
            generator=GeneratorSettings(coordinator_num_cpus=0.01),
            orchestrator=OrchestratorSettings(
                num_cpus=0.01, bank_num_cpus=0.01, poll_interval_s=0.2
            ),
            logging=LoggingSettings(format="json"),
            tracing=TracingSettings(endpoint=f"{collector.url}/v1/traces"),
            webhooks=WebhookSettings(
                secrets=(SecretStr(SECRET),), allow_http=True, allowed_hosts=("127.0.0.1",)
            ),
        )
        cluster.deploy(build_app(args))
        service = Service(cluster, args.data_dir)
        submitted = service.submit(kitchen_zip, webhook_url=f"{hooks.url}/told")
        service.wait(submitted)
        scene = service.scene(submitted)
        check_completed(scene)
        yield Seen(service, scene, hooks, collector)
        service.close()


def until(look: Callable[[], T], patience_s: float) -> T:
    """What ``look`` returns, called again as long as it asserts what is not so yet."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return look()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.3)


def test_log_lines_of_a_clip_have_its_ids_in_every_process(seen: Seen) -> None:
    logs = seen.service.cluster.run_folder / "ray" / "session_latest" / "logs"
    clip = seen.scene.trajectories[0].id

    def lines() -> list[dict[str, Any]]:
        """Every line of ours: whatever is in a log and is no object is Ray's."""
        return [
            json.loads(line)
            for file in Path(logs).glob("worker-*.err")
            for line in file.read_text().splitlines()
            if line.startswith("{")
        ]

    def of_the_clip() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for line in lines():
            about = (line.get("scene"), line.get("trajectory"))
            if about == (seen.scene.id, clip) and "attempt" in line:
                found.setdefault(line["part"], set()).add(line["attempt"])
        assert set(found) == {"orchestrator", "memory bank", "coordinator", "worker 0"}
        return found

    found = until(of_the_clip, 10)
    assert len(set.union(*found.values())) == 1  # one attempt, the same id everywhere
    for line in lines():
        assert {"ts", "level", "logger", "part", "message"} <= set(line), line
        assert line["logger"].partition(".")[0] in ("actors", "deployments", "worldstereo")
    told = {line["message"] for line in lines() if line.get("scene") == seen.scene.id}
    assert {"scene taken up", "clip prepared", "clip taken", "clip committed"} <= told
    assert [line for line in lines() if line["part"] == "ingress" and line.get("scene")]


class Scrape:
    """What the node exports at one time."""

    def __init__(self, metrics_url: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(httpx.get(metrics_url).text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def value(self, metric: Metric, suffix: str = "", **labels: str) -> float | None:
        """Of the first series with these labels."""
        series = self._samples.get(metric.exported + suffix, [])
        return next((value for have, value in series if labels.items() <= have.items()), None)


def test_metrics_of_scenes_are_exported_by_the_node(seen: Seen, kitchen_zip: bytes) -> None:
    """Of one that has completed, and one that runs."""
    clips = len(seen.scene.trajectories)
    running = seen.service.submit(kitchen_zip, num_inference_steps=500)

    def check() -> None:
        found = Scrape(seen.service.cluster.metrics_url)
        assert found.value(metrics.QUEUE_SCENES) == 0
        assert found.value(metrics.QUEUE_AGE) == 0
        assert found.value(metrics.SCENES, state="completed") == 1
        assert found.value(metrics.SCENES, state="in_progress") == 1
        assert found.value(metrics.SCENES_ENDED, state="completed") == 1
        assert found.value(metrics.CLIPS, state="in_progress") == 1
        assert found.value(metrics.CLIPS_ENDED, variant=VARIANT, outcome="committed") == clips
        assert found.value(metrics.WEBHOOKS, outcome="delivered") == len(STATES_TOLD)
        on_gpu = 0.0
        for stage in ("retrieve", "encode", "denoise", "decode", "commit"):
            about = {"variant": VARIANT, "stage": stage}
            assert found.value(metrics.STAGE_SECONDS, "_count", **about) == clips, stage
            seconds = sum(item.stage_seconds[stage] for item in seen.scene.trajectories)
            if stage in ("encode", "denoise", "decode"):
                on_gpu += seconds
        gpu_seconds = found.value(metrics.GPU_SECONDS, variant=VARIANT, outcome="committed")
        assert gpu_seconds == pytest.approx(on_gpu)
        assert found.value(metrics.BANKS) == 1
        frames, size = found.value(metrics.BANK_FRAMES), found.value(metrics.BANK_BYTES)
        assert frames
        assert size
        # Working sizes of the bundled model, three bytes a pixel.
        assert size / frames / 3 in (128 * 192, 144 * 192)

    until(check, METRICS_PATIENCE_S)
    seen.service.http.post(running.urls.cancel)


def test_the_webhook_is_told_of_each_state_in_order(seen: Seen) -> None:
    def all_told() -> list[Received]:
        assert len(seen.hooks.received) == len(STATES_TOLD)
        return seen.hooks.received

    told = until(all_told, 10)
    events = [verify(message.body, message.headers, SECRET) for message in told]
    assert tuple(event.type for event in events) == STATES_TOLD
    assert {event.data.id for event in events} == {seen.scene.id}
    assert {message.path for message in told} == {"/told"}


def test_spans_reach_the_collector(seen: Seen) -> None:
    trace_id = hashlib.sha256(seen.scene.id.encode()).digest()[:16]

    def spans() -> list[Any]:
        found = [span for message in seen.collector.received for span in spans_in(message.body)]
        found = [span for span in found if span.trace_id == trace_id]
        assert any(span.name == "scene" for span in found)
        return found

    found = until(spans, 10)
    names = [span.name for span in found]
    assert names.count("trajectory") == names.count("attempt") == len(seen.scene.trajectories)
