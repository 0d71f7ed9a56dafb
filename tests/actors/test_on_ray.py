"""Workers, groups and memory banks as real processes on an embedded cluster of their own."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from actors.engine import EngineSpec
from actors.failures import cause_of, is_gone_for_good
from actors.memory_bank import BankSpec, SceneBank
from actors.messages import ClipReport, Preparation, WorkerLost
from actors.worker_group import Execution, GroupSpec, WorkerGroup
from cluster.local import ClusterError, LocalCluster
from cluster.loopback import listeners
from cluster.processes import is_running
from tests.actors.engines import TWO_RANKS, fault, spec_of
from tests.clusters import running_cluster
from tests.deployments.fake_engine import fake_frames
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.errors import (
    CheckpointError,
    GenerationCancelled,
    GenerationError,
    ParameterError,
    WorldStereoError,
)
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.types import Clip

pytestmark = pytest.mark.cluster


def children(cluster: LocalCluster) -> list[int]:
    """Ray's processes that this one started; workers come and go below them."""
    found = []
    for pid in cluster.processes:
        stat = Path("/proc", str(pid), "stat")
        with suppress(OSError):  # ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(pid)
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running_cluster(num_cpus=2, num_gpus=0) as running:
        yield running
        pids, folder = running.processes, running.run_folder
        ours = children(running)
        running.shutdown()  # and once more when the block ends
    assert ours
    assert [pid for pid in ours if Path("/proc", str(pid)).exists()] == [], "zombies"
    assert [pid for pid in pids if is_running(pid)] == []
    assert not folder.exists()


def group_spec(engine: EngineSpec, start_timeout_s: float = 60) -> GroupSpec:
    return GroupSpec(engine, engine.parallel.world_size, 0.1, 0, start_timeout_s)


@asynccontextmanager
async def running_group(cluster: LocalCluster, engine: EngineSpec) -> AsyncIterator[WorkerGroup]:
    group = await WorkerGroup.create(group_spec(engine), None)
    try:
        yield group
    finally:
        group.shutdown()
        group.shutdown()
        await wait_until_none_is_left(cluster)


async def report_of(execution: Execution) -> ClipReport:
    return await execution.report(grace_s=5, answer_s=20)


def processes_of(cluster: LocalCluster, actor: str) -> list[int]:
    titles = {pid: Path(f"/proc/{pid}/cmdline") for pid in cluster.processes}
    return [pid for pid, file in titles.items() if file.exists() and actor in file.read_text()]


async def wait_until_none_is_left(cluster: LocalCluster) -> None:
    async with asyncio.timeout(60):
        while processes_of(cluster, "ModelWorker"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def failure_of(call: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await call  # type: ignore[misc]
    return caught.value


async def test_a_group_runs_a_clip_on_all_ranks(
    cluster: LocalCluster, clip: Clip, tmp_path: Path
) -> None:
    async with running_group(cluster, spec_of("meeting", TWO_RANKS, str(tmp_path))) as group:
        states = await group.ping()
        assert len({state.pid for state in states}) == 2
        # The ranks' store and Gloo's sockets, too, are out of other machines' reach.
        found = listeners([state.pid for state in states])
        assert found
        assert [entry for entry in found if not entry.loopback] == []
        prepared = ray.put(clip)

        execution = group.execute("first", prepared, 5, None)
        report = await report_of(execution)
        assert set(report.stage_seconds) == {"encode", "denoise"}
        np.testing.assert_array_equal(await execution.frames, fake_frames(clip))
        assert [sign.step for sign in await group.progress("first", 1, 0)] == [1, 2, 3, 4, 5]
        assert [state.signs for state in await group.ping()] == [6, 0]  # rank 0 alone tells

        execution = group.execute("second", prepared, 400, None)
        assert await group.progress("second", 2, 10)
        group.cancel("second")
        assert isinstance(await failure_of(report_of(execution)), GenerationCancelled)
        await group.leader.cancel("third")  # before it starts
        failure = await failure_of(report_of(group.execute("third", prepared, 400, None)))
        assert isinstance(failure, GenerationCancelled)
        assert await group.progress("third", 0, 0) == []
        assert await group.is_cancelled("third")
        assert not await group.is_cancelled("first")

        for kind, error in (
            ("memory", "7 GiB are free"),
            ("break", "ZeroDivisionError: rank 0 broke"),
        ):
            fault(tmp_path, kind, 0)
            fault(tmp_path, kind, 1)
            failure = await failure_of(report_of(group.execute(kind, prepared, 5, None)))
            assert isinstance(failure, GenerationError)
            assert error in (failure.got or "")
        execution = group.execute("last", prepared, 5, None)
        await report_of(execution)
        np.testing.assert_array_equal(await execution.frames, fake_frames(clip))
        assert [state.pid for state in await group.ping()] == [state.pid for state in states]


async def test_cancel_reaches_a_running_clip(cluster: LocalCluster, clip: Clip) -> None:
    async with running_group(cluster, spec_of("choosy")) as group:
        execution = group.execute("attempt", ray.put(clip), 400, None)
        assert await group.progress("attempt", 2, 10)
        start = time.monotonic()
        group.cancel("attempt")
        error = cause_of(await failure_of(report_of(execution)))
        assert isinstance(error, GenerationCancelled)
        assert time.monotonic() - start < 10  # all 400 steps would take 20 s
        (state,) = await group.ping()
        assert state.attempt_id is None


async def test_a_worker_that_dies_is_noticed_at_once(cluster: LocalCluster, clip: Clip) -> None:
    async with running_group(cluster, spec_of("choosy")) as group:
        execution = group.execute("attempt", ray.put(clip), 3, None)
        start = time.monotonic()
        error = await failure_of(report_of(execution))
        assert isinstance(error, WorkerLost)
        assert time.monotonic() - start < 30
        assert isinstance(await failure_of(group.check(20)), WorkerLost)
        assert is_gone_for_good(await failure_of(group.ping()))


@pytest.mark.parametrize(
    ("engine", "ranks", "timeout_s", "expected"),
    [
        ("no_weights", 1, 60, CheckpointError),
        ("nothing", 1, 60, ParameterError),
        ("never", 1, 3, WorkerLost),
        ("no_weights_on_rank_1", 2, 60, CheckpointError),
        ("dies_on_rank_1", 2, 60, WorkerLost),
    ],
)
async def test_a_group_comes_up_whole_or_not_at_all(
    cluster: LocalCluster,
    engine: str,
    ranks: int,
    timeout_s: float,
    expected: type[WorldStereoError],
) -> None:
    spec = spec_of(engine, ParallelLayout(ulysses=ranks))
    creation = WorkerGroup.create(group_spec(spec, start_timeout_s=timeout_s), None)
    assert isinstance(cause_of(await failure_of(creation)), expected)
    await wait_until_none_is_left(cluster)


def bank_spec(kitchen: Path, output: Path, config: ModelConfig) -> BankSpec:
    return BankSpec(
        service="tests",
        scene_id=output.name,
        input=kitchen,
        depth=None,
        task_type="auto",
        output=output,
        parameters=SceneParameters(),
        config=config,
        image_features="worldstereo-tiny",
        local_files_only=True,
    )


async def test_a_memory_bank_comes_back_from_disk(
    cluster: LocalCluster, kitchen: Path, tmp_path: Path, tiny_config: ModelConfig
) -> None:
    spec = bank_spec(kitchen, tmp_path / "one", tiny_config)
    bank = SceneBank.get_or_create(spec, num_cpus=0.1)
    again = SceneBank.get_or_create(spec, num_cpus=0.1)
    assert again.actor._actor_id == bank.actor._actor_id
    assert SceneBank.scenes("tests") == {"one"}
    assert SceneBank.scenes("test") == set()
    opened = await bank.open("epoch")
    assert [clip.id for clip in opened.clips] == ["renders/traj_eloop", "renders/traj_up"]
    assert opened.clips[1].depends_on == ("renders/traj_eloop",)
    assert opened.committed == frozenset()
    assert await bank.wanted("epoch")
    assert not await bank.wanted("earlier")

    reference, preparation = bank.prepare("renders/traj_eloop")
    assert await preparation == Preparation(committed=False)
    frames = ray.put(fake_frames(await reference))
    assert await bank.commit("renders/traj_eloop", frames, {}) is True
    assert await bank.commit("renders/traj_eloop", frames, {}) is False
    before, _ = bank.prepare("renders/traj_up")
    before = await before

    (pid,) = processes_of(cluster, "MemoryBankActor")
    os.kill(pid, signal.SIGKILL)
    after, _ = bank.prepare("renders/traj_up")  # repeated by Ray until it is answered
    after = await after
    np.testing.assert_array_equal(fake_frames(after), fake_frames(before))
    assert await bank.wanted("earlier")  # nobody has opened it since
    assert (await bank.open("later")).committed == {"renders/traj_eloop"}
    _, preparation = bank.prepare("renders/traj_eloop")
    assert await preparation == Preparation(committed=True)

    frames = ray.put(fake_frames(after))
    assert await bank.commit("renders/traj_up", frames, {})
    await bank.finish({"renders/traj_eloop": "completed", "renders/traj_up": "completed"})
    assert (tmp_path / "one" / "manifest.json").is_file()
    bank.close()
    bank.close()

    async def ask_again() -> None:
        while True:
            await bank.wanted("later")

    # Ray ends the process in its own time; a call that is there first is answered.
    async with asyncio.timeout(60):
        assert is_gone_for_good(await failure_of(ask_again()))


async def test_errors_of_a_memory_bank_keep_their_class(
    cluster: LocalCluster, kitchen: Path, tmp_path: Path, tiny_config: ModelConfig
) -> None:
    spec = bank_spec(kitchen, tmp_path / "two", tiny_config)
    wrong = replace(spec, parameters=SceneParameters(align_nframe=21))
    bank = SceneBank.get_or_create(wrong, num_cpus=0.1)
    error = cause_of(await failure_of(bank.open("epoch")))
    assert isinstance(error, ParameterError)
    assert error.where == "align_nframe"
    bank.close()


def test_one_cluster_at_a_time(cluster: LocalCluster) -> None:
    pids = children(cluster)
    with pytest.raises(ClusterError, match="one cluster at a time"):
        LocalCluster().start()
    with pytest.raises(ClusterError, match="cannot listen"):
        LocalCluster(port=cluster.port)._start_serve()
    assert ray.is_initialized()
    assert pids
    assert all(is_running(pid) for pid in pids)
    assert [entry for entry in listeners(cluster.processes) if not entry.loopback] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "no.such.host.invalid"])
def test_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(ParameterError, match="loopback"):
        LocalCluster(host=host)


def test_a_run_folder_must_be_short(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="40 characters"):
        LocalCluster(run_folder=tmp_path / ("x" * 60))
