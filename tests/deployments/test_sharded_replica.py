"""A replica of two ranks on a real embedded cluster: whatever dies, stands still or is short.

One cluster and one deployment for the module. The ranks meet in each step over Gloo.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ray import serve

from actors.messages import Advanced, Committed, Failed, Started
from cluster.local import APPLICATION
from cluster.loopback import listeners
from cluster.processes import is_running
from tests import scenes
from tests.actors.engines import fault
from tests.clusters import running_cluster
from tests.deployments.fake_engine import fake_frames
from tests.deployments.sharded import DEADLINES, STEPS, Ranks, ShardedGenerator, placement_groups
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.errors import GenerationError
from worldstereo.formats.scene_folder import read_scene
from worldstereo.scene import SceneRun
from worldstereo.types import Clip

pytestmark = pytest.mark.cluster

# A rank that stands still is seen by then, and one that is gone much earlier.
DEADLINE_S = max(
    DEADLINES.step_s + DEADLINES.beat_interval_s,
    2 * DEADLINES.beat_interval_s + DEADLINES.beat_timeout_s,
    DEADLINES.grace_s + DEADLINES.beat_timeout_s,
)


@pytest.fixture(scope="module")
def clip(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = scenes.make_reconstruction(tmp_path_factory.mktemp("scenes") / "kitchen")
    scene = read_scene(folder, scale_map=tiny_config.scale_map, nframe=tiny_config.nframe)
    run = SceneRun.open(scene, SceneParameters(), tiny_config, tmp_path_factory.mktemp("prepared"))
    return run.prepare("renders/traj_eloop")


@pytest.fixture(scope="module")
def generator(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedGenerator]:
    with running_cluster(num_cpus=1, num_gpus=0) as cluster:
        yield ShardedGenerator(cluster, tmp_path_factory.mktemp("faults"), clip)
        pids = cluster.processes
        serve.delete(APPLICATION)
        assert placement_groups() == []
    assert pids
    assert [pid for pid in pids if is_running(pid)] == []


@pytest.fixture(scope="module")
def truth(clip: Clip) -> np.ndarray:
    return fake_frames(clip)


def test_two_ranks_make_a_clip_and_none_listens_to_others(
    generator: ShardedGenerator, truth: np.ndarray
) -> None:
    before = generator.processes()
    assert isinstance(generator.attempt("first"), Committed)
    np.testing.assert_array_equal(generator.frames("first"), truth)
    assert generator.processes() == before
    found = listeners(generator.cluster.processes)
    assert {entry.pid for entry in found} >= set(before.ranks)
    assert [entry for entry in found if not entry.loopback] == []


def kill(rank: int) -> Callable[[ShardedGenerator, Ranks], None]:
    return lambda generator, now: os.kill(now.ranks[rank], signal.SIGKILL)


FAULTS: dict[str, Callable[[ShardedGenerator, Ranks], None]] = {
    "rank 0 is killed": kill(0),
    "rank 1 is killed": kill(1),
    "the coordinator is killed": lambda generator, now: os.kill(now.coordinator, signal.SIGKILL),
    "rank 1 is stopped": lambda generator, now: os.kill(now.ranks[1], signal.SIGSTOP),
    "rank 1 hangs": lambda generator, now: fault(generator.faults, "hang", 1),
}


@pytest.mark.parametrize("what", FAULTS)
def test_the_clip_is_made_again_by_a_new_replica(
    what: str,
    generator: ShardedGenerator,
    truth: np.ndarray,
    record_property: Callable[[str, object], None],
) -> None:
    old = generator.processes()
    begun: list[float] = []

    def act() -> None:
        begun.append(time.monotonic())
        FAULTS[what](generator, old)

    last = generator.attempt(what, act)
    seen = time.monotonic()
    assert isinstance(last, Failed), last
    assert last.retry
    generator.until_committed(what)
    again = time.monotonic()
    np.testing.assert_array_equal(generator.frames(what), truth)
    gone_s = generator.wait_until_gone(old)
    assert not set(generator.processes().all) & set(old.all)
    tell(record_property, what, seen - begun[0], again - begun[0], str(last.error))
    assert seen - begun[0] < 3 * DEADLINE_S
    assert gone_s < 20


def test_a_clip_too_large_for_all_ranks_fails_alone(
    generator: ShardedGenerator,
    truth: np.ndarray,
    record_property: Callable[[str, object], None],
) -> None:
    before = generator.processes()
    for rank in range(2):
        fault(generator.faults, "memory", rank)
    begun = time.monotonic()
    last = generator.attempt("too large")
    seen = time.monotonic()
    assert isinstance(last, Failed)
    assert not last.retry
    assert isinstance(last.error, GenerationError)
    assert last.error.got == "out of memory, 7 GiB are free"
    generator.until_committed("small enough")
    tell(record_property, "memory on all", seen - begun, time.monotonic() - begun, str(last.error))
    np.testing.assert_array_equal(generator.frames("small enough"), truth)
    assert generator.processes() == before


def test_a_clip_too_large_for_one_rank_fails_and_the_group_is_made_anew(
    generator: ShardedGenerator,
    truth: np.ndarray,
    record_property: Callable[[str, object], None],
) -> None:
    old = generator.processes()
    fault(generator.faults, "memory", 1)
    begun = time.monotonic()
    last = generator.attempt("too large for one")
    seen = time.monotonic()
    assert isinstance(last, Failed)
    assert not last.retry
    assert isinstance(last.error, GenerationError)
    assert last.error.got == "out of memory, 6 GiB are free"
    generator.until_committed("next")
    tell(record_property, "memory on one", seen - begun, time.monotonic() - begun, str(last.error))
    np.testing.assert_array_equal(generator.frames("next"), truth)
    generator.wait_until_gone(old)
    assert not set(generator.processes().all) & set(old.all)


def test_clips_that_wait_or_are_given_up_leave_the_ranks_in_step(
    generator: ShardedGenerator, truth: np.ndarray
) -> None:
    before = generator.processes()
    with ThreadPoolExecutor(1) as pool:
        stream = generator.ask("running")
        said = iter(stream)
        assert isinstance(next(said), Started)
        while next(said) != Advanced("denoise", 2, STEPS):
            continue
        waiting = pool.submit(generator.attempt, "waiting", lambda: None)
        rest = list(said)
        assert isinstance(rest[-1], Committed)
        assert isinstance(waiting.result(), Committed)
    np.testing.assert_array_equal(generator.frames("waiting"), truth)

    stream = generator.ask("given up", steps=1000)
    said = iter(stream)
    while next(said) != Advanced("denoise", 2, 1000):
        continue
    start = time.monotonic()
    stream.cancel()
    last = generator.attempt("next")
    assert isinstance(last, Committed), (last, generator.reasons())
    assert time.monotonic() - start < 25  # all 1000 steps would take 50 s
    assert generator.processes() == before


def tell(
    record: Callable[[str, object], None], what: str, seen_s: float, again_s: float, said: str
) -> None:
    """Put down how long it took until the failure was told, and until a clip was made again."""
    record("seen_s", round(seen_s, 2))
    record("served_again_s", round(again_s, 2))
    print(f"{what}: told after {seen_s:.1f} s ({said}); the next clip was there {again_s:.1f} s")
