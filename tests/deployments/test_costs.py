"""What clips cost in GPU-seconds, and when a scene's will be done."""

import pytest
from worldstereo_client.schemas import SceneRequest, SceneStatus, TrajectoryInfo, TrajectoryStatus

from actors.messages import Advanced, Beat, Committed, Failed, Message, Started, WorkerLost
from deployments.gpu_meter import GpuMeter
from deployments.records import SceneRecord
from deployments.store import Store
from tests.deployments.doubles import FakeReplicas, Script
from tests.deployments.test_scene_job import job_of, new_scene

BLOCKED, RUNNING, DONE, SKIPPED = (
    TrajectoryStatus.BLOCKED,
    TrajectoryStatus.IN_PROGRESS,
    TrajectoryStatus.COMPLETED,
    TrajectoryStatus.SKIPPED,
)
WHOLE: list[tuple[float, Message]] = [
    (0, Started("worker", 4)),
    (0, Advanced("retrieve")),
    (8, Beat()),
    (10, Advanced("encode")),
    (11, Advanced("denoise", 0, 2)),
    (14, Advanced("denoise", 2, 2)),
    (15, Advanced("decode")),
    (16, Advanced("commit")),
    (30, Committed(first=True)),
]
LOST = (14.5, Failed(WorkerLost("gone"), retry=True))


@pytest.mark.parametrize(
    ("messages", "until", "cost"),
    [
        (WHOLE, 30, 4 * 6),  # neither the wait for its turn nor the commit
        ([*WHOLE[:6], LOST], 14.5, 4 * 4.5),
        ([*WHOLE[:3], LOST], 14.5, 0),
        ([], 3, 0),
    ],
)
def test_workers_are_counted_while_they_are_the_clips(
    messages: list[tuple[float, Message]], until: float, cost: float
) -> None:
    meter = GpuMeter()
    for now, message in messages:
        meter.see(message, now)
    assert meter.gpu_seconds(until) == cost


@pytest.mark.virtual_time
async def test_all_attempts_of_a_clip_are_paid_for(store: Store) -> None:
    new_scene(store)
    # Each message takes 1 s: the first attempt holds a worker from encode to its loss.
    lost: Script = [
        Advanced("encode"),
        Advanced("denoise", 1, 2),
        Failed(WorkerLost("a worker died"), retry=True),
    ]
    replicas = FakeReplicas(5, {"v/a": [lost]})
    replicas.step_s = 1.0
    await job_of(store, replicas, beat_timeout_s=60).run()
    costs = {item.id: item.gpu_seconds for item in store.scene("one").trajectories}
    assert costs["v/a"] == pytest.approx(2 + 3, abs=0.01)
    assert costs["v/e"] == pytest.approx(3, abs=0.01)
    assert store.page(None, None, 1)[0][0].trajectories[0].gpu_seconds == 0, "not in lists"


def scene(
    *clips: tuple[TrajectoryStatus, int, float | None],
    status: SceneStatus = SceneStatus.IN_PROGRESS,
) -> SceneRecord:
    """A scene that began at 100 s, of clips (state, denoising steps of 4, end)."""
    below = tuple(
        TrajectoryInfo(
            id=f"v/{index}",
            position=index,
            status=state,
            depends_on=[],
            stage="denoise" if state is RUNNING else None,
            step=step,
            steps=4,
            finished_at=end,
        )
        for index, (state, step, end) in enumerate(clips)
    )
    request = SceneRequest()
    return SceneRecord(1, "one", "s", status, request, 0.0, 100.0, None, None, 1, below)


def test_the_pace_so_far_tells_the_rest() -> None:
    waiting, first, second = (BLOCKED, 0, None), (DONE, 0, 110.0), (DONE, 0, 120.0)
    assert scene(first, waiting, waiting).eta_s(110) == pytest.approx(20)
    assert scene(first, second, waiting).eta_s(120) == pytest.approx(10)
    assert scene(waiting, waiting).eta_s(110) is None
    assert scene(first, second).eta_s(130) is None, "its outputs are another matter"
    half = scene((RUNNING, 2, None), waiting)
    assert half.eta_s(110) == pytest.approx(10 * 1.5 / 0.5)
    assert half.on_the_wire(None, 110).eta_s == half.eta_s(110)


def test_only_what_was_done_since_the_beginning_counts() -> None:
    earlier, now, waiting = (DONE, 0, 50.0), (DONE, 0, 110.0), (BLOCKED, 0, None)
    assert scene(earlier, now, waiting).eta_s(110) == pytest.approx(10)
    assert scene(earlier, waiting).eta_s(110) is None
    assert scene(now, (SKIPPED, 0, 110.0), waiting).eta_s(110) == pytest.approx(10)


@pytest.mark.parametrize("status", [s for s in SceneStatus if s is not SceneStatus.IN_PROGRESS])
def test_a_scene_that_does_not_run_has_no_eta(status: SceneStatus) -> None:
    assert scene((DONE, 0, 110.0), (BLOCKED, 0, None), status=status).eta_s(110) is None
