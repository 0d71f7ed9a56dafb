"""A worker's own side, without Ray: progress, cancellation, failures, and one clip at a time."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from actors.engine import load_engine
from actors.messages import Advanced
from actors.model_worker import ModelWorker
from tests.actors.engines import spec_of
from tests.deployments.fake_engine import fake_frames
from worldstereo.errors import (
    CheckpointError,
    GenerationCancelled,
    GenerationError,
    ParameterError,
)
from worldstereo.types import Clip


@pytest.fixture
def worker() -> ModelWorker:
    made = ModelWorker(spec_of("choosy"))
    made.load()
    return made


def test_progress_is_told_in_order_and_whole(worker: ModelWorker, clip: Clip) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(worker.generate, "attempt", clip, 5, None)
        seen: list[Advanced] = []
        deadline = time.monotonic() + 20
        while not future.done() or worker.progress("attempt", len(seen), 0):
            seen += worker.progress("attempt", len(seen), 0.5)
            assert time.monotonic() < deadline
        frames, report = future.result()
    steps = [Advanced("denoise", step, 5) for step in range(1, 6)]
    assert seen == [Advanced("encode"), *steps, Advanced("decode")]
    np.testing.assert_array_equal(frames, fake_frames(clip))
    assert set(report.stage_seconds) == {"encode", "denoise", "decode"}
    assert worker.ping().signs == len(seen)


def test_asking_for_progress_waits_for_news(worker: ModelWorker, clip: Clip) -> None:
    start = time.monotonic()
    assert worker.progress("attempt", 0, 0.2) == []
    assert time.monotonic() - start >= 0.2
    worker.generate("attempt", clip, 5, None)
    start = time.monotonic()
    assert worker.progress("attempt", 7, 10) == []  # it has ended: there will be none
    assert worker.progress("another", 0, 0.0) == []
    assert time.monotonic() - start < 5


def test_cancel_stops_at_the_next_step(worker: ModelWorker, clip: Clip) -> None:
    def stop_later() -> None:
        while len(worker.progress("attempt", 3, 5)) < 1:
            continue
        worker.cancel("attempt")

    thread = threading.Thread(target=stop_later)
    thread.start()
    with pytest.raises(GenerationCancelled):
        worker.generate("attempt", clip, 400, None)
    thread.join()
    assert 4 <= len(worker.progress("attempt", 0, 0)) <= 6
    assert worker.ping().attempt_id is None


def test_an_attempt_cancelled_before_it_starts_never_starts(
    worker: ModelWorker, clip: Clip
) -> None:
    worker.cancel("attempt")
    with pytest.raises(GenerationCancelled):
        worker.generate("attempt", clip, 400, None)
    assert worker.ping().signs == 0
    worker.generate("another", clip, 4, None)


def test_a_failed_clip_leaves_the_worker_usable(worker: ModelWorker, clip: Clip) -> None:
    with pytest.raises(GenerationError, match="ZeroDivisionError: broke") as broke:
        worker.generate("one", clip, 1, None)
    assert broke.value.where == clip.trajectory_id
    assert broke.value.__cause__ is None  # it would keep the engine's tensors alive
    with pytest.raises(GenerationError, match="failed"):
        worker.generate("two", clip, 2, None)
    worker.generate("three", clip, 4, None)


def test_a_device_that_is_lost_takes_the_process_along(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def illegal() -> None:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    worker = ModelWorker(replace(spec_of("choosy"), device="cuda"))
    worker.load()
    with pytest.raises(GenerationError):
        worker.generate("one", clip, 1, None)
    assert exits == []
    monkeypatch.setattr(torch.cuda, "synchronize", illegal)
    with pytest.raises(GenerationError):
        worker.generate("two", clip, 1, None)
    assert exits == [1]


def test_an_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(ParameterError, match="engines:nothing"):
        load_engine(spec_of("nothing"), None)
    with pytest.raises(ParameterError, match="no_such_module"):
        load_engine(replace(spec_of("x"), factory="no_such_module:x"), None)
    with pytest.raises(CheckpointError):
        load_engine(spec_of("no_weights"), None)


def test_threads_are_set_for_every_clip(clip: Clip) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        made = ModelWorker(replace(spec_of("choosy"), torch_threads=1))
        made.load()
        torch.set_num_threads(before + 1)
        made.generate("attempt", clip, 4, None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
