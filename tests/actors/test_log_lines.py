"""Log lines: the ids in them, their form, and that a process says how."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from actors.log_lines import (
    OUR_LOGGERS,
    LogOptions,
    current_ids,
    log_ids,
    set_log_ids,
    set_up_logging,
)

Lines = pytest.CaptureFixture[str]


@pytest.fixture
def lines(capsys: Lines) -> Iterator[Lines]:
    """Standard error; all loggers are as before afterwards."""
    before = {
        name: (list(ours.handlers), ours.level, ours.propagate)
        for name in OUR_LOGGERS
        for ours in [logging.getLogger(name)]
    }
    yield capsys
    for name, (handlers, level, propagate) in before.items():
        ours = logging.getLogger(name)
        ours.handlers[:], ours.propagate = handlers, propagate
        ours.setLevel(level)


def logged(lines: Lines) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.readouterr().err.splitlines()]


def test_a_json_line_tells_all(lines: Lines) -> None:
    set_up_logging("worker 0", LogOptions("json"))
    logger = logging.getLogger("actors.model_worker")
    with log_ids(scene="s"), log_ids(trajectory="view/ü", attempt="a"):
        logger.info("took %d s\nand more", 3)
        try:
            raise ValueError("broke")
        except ValueError:
            logger.exception("it failed")
    logger.warning("lost", extra={"error": "WorkerLost"})
    logger.debug("not asked for")
    first, failed, lost = logged(lines)
    assert first.pop("ts") > 1e9
    assert first == {
        "level": "info",
        "logger": "actors.model_worker",
        "part": "worker 0",
        "message": "took 3 s\nand more",
        "scene": "s",
        "trajectory": "view/ü",
        "attempt": "a",
    }
    assert (failed["level"], failed["error"]) == ("error", "ValueError")
    assert "ValueError: broke" in failed["traceback"]
    assert lost["error"] == "WorkerLost"
    assert "scene" not in lost


def test_a_text_line_has_the_ids_at_its_end(lines: Lines) -> None:
    set_up_logging("orchestrator", LogOptions("text", "warning"))
    logger = logging.getLogger("deployments.orchestrator")
    with log_ids(scene="s", attempt="a"):
        logger.info("not asked for")
        logger.warning("lost")
    assert lines.readouterr().err.endswith(" WARNING orchestrator: lost scene=s attempt=a\n")


def test_set_up_twice_writes_each_line_once(lines: Lines) -> None:
    for _ in range(2):
        set_up_logging("ingress", LogOptions("json"))
    logging.getLogger("deployments.api").info("once")
    assert len(logged(lines)) == 1


def test_nothing_is_set_up_where_nobody_asks(lines: Lines) -> None:
    before = logging.getLogger("actors").handlers[:]
    set_up_logging("worker 0", None)
    assert logging.getLogger("actors").handlers == before


async def test_tasks_have_the_ids_of_whoever_started_them() -> None:
    seen: dict[str, dict[str, str]] = {}

    async def clip(name: str) -> None:
        with log_ids(trajectory=name):
            await asyncio.sleep(0)
            seen[name] = await asyncio.to_thread(current_ids)

    async def attempt() -> None:
        set_log_ids("s", "v/c", "a")
        seen["v/c"] = current_ids()

    with log_ids(scene="s"):
        await asyncio.gather(clip("v/a"), clip("v/b"), asyncio.create_task(attempt()))
        assert current_ids() == {"scene": "s"}
    assert current_ids() == {}
    assert seen["v/a"] == {"scene": "s", "trajectory": "v/a"}
    assert seen["v/b"] == {"scene": "s", "trajectory": "v/b"}
    assert seen["v/c"] == {"scene": "s", "trajectory": "v/c", "attempt": "a"}


def test_threads_of_an_actor_do_not_mix() -> None:
    seen: list[dict[str, str]] = []
    with log_ids(scene="s"):
        thread = threading.Thread(target=lambda: seen.append(current_ids()))
        thread.start()
        thread.join()
    assert seen == [{}]
