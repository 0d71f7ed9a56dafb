"""What /readyz is told of a variant, by what Serve says of its replicas."""

from types import SimpleNamespace
from typing import Any

import pytest

from deployments import readiness
from deployments.readiness import ServeReadiness

VARIANT = "worldstereo-memory-dmd"


def serve_that_says(monkeypatch: pytest.MonkeyPatch, deployments: dict[str, Any]) -> None:
    status = SimpleNamespace(applications={"app": SimpleNamespace(deployments=deployments)})
    context = SimpleNamespace(app_name="app")
    fake = SimpleNamespace(status=lambda: status, get_replica_context=lambda: context)
    monkeypatch.setattr(readiness, "serve", fake)


@pytest.mark.parametrize(
    ("status", "running", "to_zero", "ready"),
    [
        ("HEALTHY", 1, False, True),
        ("HEALTHY", 0, False, False),
        ("HEALTHY", 0, True, True),  # one comes when a clip waits
        ("UPSCALING", 0, True, True),
        ("UPDATING", 1, True, True),
        ("UNHEALTHY", 0, True, False),
        ("UNHEALTHY", 1, True, True),  # one of several has failed
        ("DEPLOY_FAILED", 0, True, False),  # none would come
    ],
)
async def test_a_variant_is_ready_when_its_clips_would_be_generated(
    monkeypatch: pytest.MonkeyPatch, status: str, running: int, to_zero: bool, ready: bool
) -> None:
    found = SimpleNamespace(status=status, replica_states={"RUNNING": running})
    serve_that_says(monkeypatch, {f"generator-{VARIANT}": found})
    answer = await ServeReadiness([VARIANT], scales_to_zero=to_zero).ready()
    assert answer == {VARIANT: ready}


async def test_a_variant_that_serve_does_not_know_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve_that_says(monkeypatch, {})
    assert await ServeReadiness([VARIANT], scales_to_zero=True).ready() == {VARIANT: False}
