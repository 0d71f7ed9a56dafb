"""The table of metrics, its documentation, the dashboard, and what jobs record."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worldstereo_client.schemas import SceneRequest, SceneStatus

from actors.memory_bank import BankSize
from actors.messages import Advanced, Failed, MemoryBankLost, WorkerLost
from deployments import metrics
from deployments.fair_slots import FairSlots
from deployments.metrics import METRICS, Metric
from deployments.queries import ServiceLoad
from deployments.records import NewScene
from deployments.scene_context import SceneContext
from deployments.scene_job import SceneJob
from deployments.store import Store
from deployments.telemetry import SceneWatch, Telemetry
from tests.deployments.doubles import FakeMemory, FakeReplicas
from tests.deployments.test_scene_job import BROKEN, PLAN, QUICK, new_scene, no_gpu

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "cluster" / "manifests" / "grafana" / "worldstereo.json"
VARIANT = "worldstereo-memory-dmd"


class Recorded:
    """A recorder that keeps what it is told, and takes nothing that Prometheus would not."""

    def __init__(self) -> None:
        self.values: Counter[tuple[str, ...]] = Counter()
        self.observed: list[tuple[str, ...]] = []

    def set(self, gauge: Metric, value: float, **labels: str) -> None:
        self.values[self._key(gauge, "gauge", labels)] = value  # type: ignore[assignment]

    def add(self, counter: Metric, value: float = 1, **labels: str) -> None:
        assert value >= 0
        self.values[self._key(counter, "counter", labels)] += value  # type: ignore[assignment]

    def observe(self, histogram: Metric, value: float, **labels: str) -> None:
        self.observed.append(self._key(histogram, "histogram", labels))

    def _key(self, metric: Metric, kind: str, labels: dict[str, str]) -> tuple[str, ...]:
        assert metric in METRICS
        assert metric.kind == kind
        assert set(labels) == set(metric.labels)
        return (metric.name, *(labels[name] for name in metric.labels))


def test_names_are_those_of_prometheus() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"worldstereo_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.boundaries) == (metric.kind == "histogram")
        assert list(metric.boundaries) == sorted(metric.boundaries)
        # Ids would make a series each.
        assert not set(metric.labels) & {"scene", "trajectory", "attempt", "url"}


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    table = text.split("<!-- metrics -->")[1].split("<!-- end of metrics -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.strip().splitlines()[2:]]
    assert rows == [
        [f"`{item.exported}`", item.kind, ", ".join(item.labels) or "-", item.description]
        for item in METRICS
    ]


def expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "expr")
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from expressions(item)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(board)
    known: dict[str, Metric] = {}
    for metric in METRICS:
        ends = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        known |= {metric.exported + end: metric for end in ends}
    found = set()
    for expression in expressions(board):
        assert expression.count("(") == expression.count(")"), expression
        assert expression.count("{") == expression.count("}"), expression
        names = set(re.findall(r"\bray_\w+", expression))
        assert names, expression
        assert names <= set(known), expression
        found |= names
        labels = {label for name in names for label in known[name].labels} | {"le"}
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in group.split(",")} <= labels, expression
        for name in re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression):
            assert name in labels, expression
        counters = [name for name in names if known[name].kind != "gauge"]
        assert ("rate(" in expression) == bool(counters), expression
    assert {known[name] for name in found} == set(METRICS)  # nothing is recorded to be unseen
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)


@pytest.mark.virtual_time
async def test_a_scene_records_what_happens_to_it(store: Store) -> None:
    new_scene(store)
    lost = [Advanced("encode"), Failed(WorkerLost("a worker died"), retry=True)]
    gone = [Advanced("retrieve"), Failed(MemoryBankLost("away"), retry=True)]
    replicas = FakeReplicas(2, {"v/a": [lost, gone], "v/c": [BROKEN]})
    replicas.step_s = 1.0
    recorded = Recorded()
    clock = asyncio.get_running_loop().time
    watch = SceneWatch(Telemetry(recorded, gpus={VARIANT: 4}, clock=clock), "one", VARIANT)

    async def memory_of(record: object) -> FakeMemory:
        return FakeMemory(PLAN)

    context = SceneContext(
        epoch="epoch",
        store=store,
        settings=QUICK.model_copy(update={"beat_timeout_s": 9.0}),
        slots=FairSlots(10),
        dispatch=replicas.dispatch,
        memory=memory_of,
        make=no_gpu,
        watch=watch,
    )
    with watch.running():
        await SceneJob(context, "one").run()
    values = recorded.values
    assert values[metrics.SCENES_ENDED.name, VARIANT, "failed"] == 1
    assert values[metrics.CLIPS_ENDED.name, VARIANT, "committed"] == 3
    assert values[metrics.CLIPS_ENDED.name, VARIANT, "failed"] == 1
    assert values[metrics.RETRIES.name, VARIANT, "WorkerLost"] == 1
    assert values[metrics.RETRIES.name, VARIANT, "MemoryBankLost"] == 1
    # Committed clips say how long each stage took; of others the signs are timed.
    assert recorded.observed == [(metrics.STAGE_SECONDS.name, "denoise", VARIANT)] * 3
    assert values[metrics.GPU_SECONDS.name, VARIANT, "committed"] == pytest.approx(3 * 0.5 * 4)
    assert values[metrics.GPU_SECONDS.name, VARIANT, "lost"] == pytest.approx(1.0 * 4)
    assert values[metrics.GPU_SECONDS.name, VARIANT, "failed"] == pytest.approx(1.0 * 4)


def test_the_store_tells_how_much_there_is_to_do(store: Store) -> None:
    assert store.load(5.0) == ServiceLoad(scenes={}, clips={}, oldest_queued_s=0.0)
    for name in ("a", "b", "c"):
        store.add_scene(NewScene(name, "s", SceneRequest(), ("v/a", "v/b")), max_queued=9)
    store.advance_scene("a", SceneStatus.IN_PROGRESS)
    store.advance_scene("a", SceneStatus.FAILED)
    now = store.scene("b").created_at + 60
    load = store.load(now)
    assert load.scenes == {"queued": 2, "failed": 1}
    assert load.clips == {"blocked": 4}  # those of an ended scene are left out
    assert load.oldest_queued_s == 60
    recorded = Recorded()
    Telemetry(recorded).load(load, [BankSize(3, 300), BankSize(4, 400)])
    assert recorded.values[metrics.QUEUE_SCENES.name,] == 2
    assert recorded.values[metrics.QUEUE_AGE.name,] == 60
    assert recorded.values[metrics.SCENES.name, "failed"] == 1
    assert recorded.values[metrics.CLIPS.name, "blocked"] == 4
    assert recorded.values[metrics.BANKS.name,] == 2
    assert recorded.values[metrics.BANK_FRAMES.name,] == 7
    assert recorded.values[metrics.BANK_BYTES.name,] == 700
