"""The reconstructor: a replica by itself, and the caller's side.

What a replica makes is stood in for by functions that report, fail and wait as they are told.
"""

import asyncio
import pickle
import threading
from contextlib import aclosing
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from ray.exceptions import ActorDiedError, RayTaskError

from configs.settings import AppArgs, ReconstructorSettings
from deployments import reconstructor
from deployments.reconstructor import (
    RECONSTRUCTOR_NAME,
    Reconstructor,
    ReconstructorLost,
    ReconstructorService,
    offered_outputs,
    reconstructor_deployment,
)
from worldstereo.errors import (
    GenerationCancelled,
    GenerationError,
    LayoutError,
    ParameterError,
)
from worldstereo.reconstruction.splats import SplatParameters
from worldstereo.reconstruction.worldmirror_run import LICENCE_NOTICE, WorldMirrorSettings

HY_WORLD = WorldMirrorSettings(path=Path("/hy-world"), licence_accepted=True)
SETTINGS = ReconstructorSettings(
    splats=SplatParameters(steps=3),
    worldmirror=HY_WORLD,
    beat_interval_s=0.05,
    beat_timeout_s=5,
    stop_timeout_s=5,
    retry_delay_s=0,
)
FOLDER = Path("/results/hall")


class Work:
    """Stands for train_splats and run_worldmirror."""

    def __init__(self) -> None:
        self.calls = []
        self.go = threading.Event()
        self.go.set()
        self.begun, self.stopped = threading.Event(), threading.Event()
        self.error = None
        self.deaf = False
        self.lines = []

    def splats(self, folder, parameters, *, on_stage, stop):
        self.calls.append((folder, parameters))
        on_stage("splats", 1, 3)
        self._wait(stop)
        on_stage("splats", 3, 3)
        return folder / "splats.ply"

    def worldmirror(self, folder, settings, *, on_stage, on_line, stop):
        self.calls.append((folder, settings))
        on_stage("worldmirror", 0, 0)
        for line in self.lines:
            on_line(line)
        self._wait(stop)
        return []

    def _wait(self, stop):
        self.begun.set()
        while not self.go.wait(0.01):
            if stop() and not self.deaf:
                self.stopped.set()
                raise GenerationCancelled("stopped")
        if self.error is not None:
            raise self.error


@pytest.fixture
def work(monkeypatch):
    stand_in = Work()
    monkeypatch.setattr(reconstructor, "train_splats", stand_in.splats)
    monkeypatch.setattr(reconstructor, "run_worldmirror", stand_in.worldmirror)
    monkeypatch.setattr(reconstructor, "TELL_EVERY_S", 0.01)
    return stand_in


@pytest.fixture
def exits(monkeypatch):
    """What the process would have ended with."""
    codes = []
    monkeypatch.setattr(reconstructor.os, "_exit", codes.append)
    monkeypatch.setattr(reconstructor, "_LAST_WORD_S", 0.01)
    return codes


async def signs_of(replica, output="splats"):
    return [sign async for sign in replica.make(str(FOLDER), output, "job")]


async def test_an_output_is_made_and_tells_how_far_it_is(work):
    signs = await signs_of(Reconstructor(SETTINGS))
    assert (signs[0], signs[-1]) == (("prepare", 0, 0), ("splats", 3, 3))
    assert work.calls == [(FOLDER, SETTINGS.splats)]


async def test_work_without_news_is_heard_of(work):
    work.go.clear()
    async with aclosing(Reconstructor(SETTINGS).make(str(FOLDER), "splats", "job")) as stream:
        while await anext(stream) != ("splats", 1, 3):
            pass
        assert [await anext(stream) for _ in range(2)] == [("splats", 1, 3)] * 2


async def test_a_line_that_counts_nothing_is_told_without_places(work):
    work.go.clear()
    work.lines = ["8/9 images", "Saving /srv/secret/points.ply to disk"]
    replica = Reconstructor(SETTINGS)
    async with aclosing(replica.make(str(FOLDER), "worldmirror_results", "job")) as stream:
        assert await anext(stream) == ("prepare", 0, 0)
        await asyncio.to_thread(work.begun.wait)
        told = {await anext(stream) for _ in range(2)}
    assert ("worldmirror: Saving ... to disk", 0, 0) in told
    assert not any("srv" in stage for stage, _, _ in told)
    assert work.calls == [(FOLDER, HY_WORLD)]


async def test_closing_the_stream_stops_the_work_before_the_next_begins(work, exits):
    work.go.clear()
    replica = Reconstructor(SETTINGS)
    stream = replica.make(str(FOLDER), "splats", "job")
    await anext(stream)
    await stream.aclose()
    assert work.stopped.is_set()
    work.go.set()
    assert (await signs_of(replica))[-1] == ("splats", 3, 3)
    assert exits == []


async def test_a_cancelled_task_stops_the_work(work, exits):
    work.go.clear()
    replica = Reconstructor(SETTINGS)
    task = asyncio.ensure_future(signs_of(replica))
    await asyncio.to_thread(work.begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.stopped.is_set()
    assert exits == []


async def test_work_that_does_not_stop_ends_the_process(work, exits):
    work.go.clear()
    work.deaf = True
    replica = Reconstructor(SETTINGS.model_copy(update={"stop_timeout_s": 0.05}))
    stream = replica.make(str(FOLDER), "splats", "job")
    await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0.05)
    assert exits == [1]
    with pytest.raises(ReconstructorLost, match="the replica ends"):
        await replica.check_health()
    work.go.set()


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (LayoutError("there is no cloud", where="points.ply"), LayoutError, "no cloud"),
        (RuntimeError("shapes differ"), GenerationError, "RuntimeError: shapes differ"),
        (torch.OutOfMemoryError("CUDA out of memory"), GenerationError, "lower max_gaussians"),
    ],
)
async def test_a_failure_is_told_and_the_replica_goes_on(work, exits, error, expected, message):
    replica = Reconstructor(SETTINGS)
    work.error = error
    with pytest.raises(expected, match=message):
        await signs_of(replica)
    work.error = None
    assert (await signs_of(replica))[-1] == ("splats", 3, 3)
    await replica.check_health()
    assert exits == []


async def test_a_lost_device_ends_the_process(work, exits):
    work.error = torch.AcceleratorError("an illegal memory access was encountered")
    with pytest.raises(ReconstructorLost, match="the device failed"):
        await signs_of(Reconstructor(SETTINGS))
    await asyncio.sleep(0.05)
    assert exits == [1]


async def test_what_was_not_set_is_not_made(work):
    replica = Reconstructor(SETTINGS.model_copy(update={"worldmirror": None}))
    with pytest.raises(ParameterError, match="got worldmirror_results; allowed: splats"):
        await signs_of(replica, "worldmirror_results")
    assert work.calls == []


class Stream:
    """A response generator of Serve: yields signs, then ends, or raises the error at its end."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.cancelled = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.answers:
            raise StopAsyncIteration
        answer = self.answers.pop(0)
        if answer == "silence":
            await asyncio.sleep(60)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Serve's handle, as the service uses it: ``handle.options(stream=True).make.remote(...)``."""

    def __init__(self, *streams: Stream) -> None:
        self.streams = list(streams)
        self.asked = []

    def options(self, *, stream):
        assert stream
        return self

    @property
    def make(self):
        return self

    def remote(self, folder, output, job_id):
        self.asked.append((folder, output, job_id))
        return self.streams[len(self.asked) - 1]


def service_of(handle: Handle, **fields) -> ReconstructorService:
    settings = {"timeout_s": 5, "beat_timeout_s": 5, "retry_delay_s": 0, **fields}
    return ReconstructorService(handle, **settings)


def remotely(error: Exception) -> RayTaskError:
    """An error as it comes from another process, of a class made from two."""
    found: RayTaskError = RayTaskError("make", "traceback", error).as_instanceof_cause()
    return found


async def test_the_service_tells_the_stages_until_the_output_is_there():
    stages = []
    handle = Handle(Stream(("splats", 1, 3), ("splats", 3, 3)))
    await service_of(handle).make(FOLDER, "splats", lambda *sign: stages.append(sign), job_id="a")
    assert stages == [("wait", 0, 0), ("splats", 1, 3), ("splats", 3, 3)]
    assert handle.asked == [(str(FOLDER), "splats", "a")]


async def test_an_error_of_the_replica_is_raised_as_itself():
    handle = Handle(Stream(("splats", 1, 3), remotely(LayoutError("no cloud", where="points.ply"))))
    with pytest.raises(LayoutError, match=r"points\.ply: no cloud") as caught:
        await service_of(handle).make(FOLDER, "splats")
    assert type(caught.value) is LayoutError
    assert len(handle.asked) == 1


@pytest.mark.parametrize(
    "loss", [ActorDiedError(), remotely(ReconstructorLost("the device failed")), "silence"]
)
async def test_a_lost_output_is_asked_for_again(loss, exits):
    handle = Handle(Stream(("splats", 1, 3), loss), Stream(loss), Stream(("splats", 3, 3)))
    if loss == "silence":  # one that waits for a replica is not lost
        handle.streams.pop(1)
    stages = []
    service = service_of(handle, beat_timeout_s=0.05)
    await service.make(FOLDER, "splats", lambda *sign: stages.append(sign))
    assert stages[-2:] == [("wait", 0, 0), ("splats", 3, 3)]
    assert [stream.cancelled for stream in handle.streams] == [True] * len(handle.streams)


async def test_attempts_are_bounded(exits):
    handle = Handle(*(Stream(ActorDiedError()) for _ in range(5)))
    with pytest.raises(ReconstructorLost, match="died at each of 2 attempts"):
        await service_of(handle, max_attempts=2).make(FOLDER, "splats")
    assert len(handle.asked) == 2


async def test_the_deadline_holds_for_the_wait_too():
    handle = Handle(Stream("silence"))
    with pytest.raises(GenerationError, match=r"output splats: not done within 0\.05 s"):
        await service_of(handle, timeout_s=0.05).make(FOLDER, "splats")
    assert handle.streams[0].cancelled


async def test_cancelling_the_service_cancels_the_work():
    handle = Handle(Stream(("splats", 1, 3), "silence"))
    told = asyncio.Event()
    making = service_of(handle).make(FOLDER, "splats", lambda *sign: sign[1] and told.set())
    task = asyncio.ensure_future(making)
    await told.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.streams[0].cancelled


def test_the_service_takes_its_limits_from_the_settings_and_can_be_sent():
    settings = SETTINGS.model_copy(update={"timeout_s": 12, "max_attempts": 5})
    service = ReconstructorService.of("handle", settings)
    assert pickle.loads(pickle.dumps(service)) == ReconstructorService("handle", 12, 5, 5, 0)


def test_the_deployment_follows_the_settings():
    settings = SETTINGS.model_copy(update={"num_gpus": 2})
    deployment = reconstructor_deployment(settings)._bound_deployment
    assert deployment.name == RECONSTRUCTOR_NAME
    assert deployment.ray_actor_options == {"num_cpus": 1.0, "num_gpus": 2}
    scale = deployment._deployment_config.autoscaling_config
    assert (scale.min_replicas, scale.max_replicas) == (0, 1)
    assert deployment.max_ongoing_requests == 1


def test_the_licence_is_asked_for_before_anything_is_served():
    refused = HY_WORLD.model_copy(update={"licence_accepted": False})
    with pytest.raises(ParameterError, match="licence was not accepted") as caught:
        reconstructor_deployment(SETTINGS.model_copy(update={"worldmirror": refused}))
    assert LICENCE_NOTICE in str(caught.value)


def test_what_is_set_is_offered():
    assert offered_outputs(SETTINGS) == ("splats", "worldmirror_results")
    assert offered_outputs(SETTINGS.model_copy(update={"splats": None})) == ("worldmirror_results",)
    assert offered_outputs(AppArgs().reconstructor) == ()
    args = AppArgs.model_validate({"reconstructor": {"splats": {}}})
    assert offered_outputs(args.reconstructor) == ("splats",)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "nothing would be made"),
        ({"splats": {"step": 3}}, "step"),
        ({"splats": {}, "num_gpus": 1.5}, "neither whole nor at most 1"),
        ({"worldmirror": {"path": "/hy", "gpus": 4}, "num_gpus": 2}, "gpus 4 is above num_gpus 2"),
        ({"splats": {}, "beat_timeout_s": 3}, "less than two beats"),
        ({"splats": {}, "min_replicas": 2}, "min_replicas"),
    ],
)
def test_settings_that_cannot_be(fields, problem):
    with pytest.raises(ValidationError, match=problem):
        AppArgs.model_validate({"reconstructor": fields})
