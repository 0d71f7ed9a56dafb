"""A worker group by itself; with real processes it is tested in test_on_ray.py."""

from types import SimpleNamespace
from typing import Any

from actors.worker_group import WorkerGroup


def test_after_shutdown_a_cancel_asks_nobody() -> None:
    said: list[Any] = []
    worker: Any = SimpleNamespace(cancel=said.append, kill=lambda: said.append("killed"))
    group = WorkerGroup([worker])
    group.cancel("first")
    group.shutdown()
    group.cancel("second")
    assert said == ["first", "killed"]
