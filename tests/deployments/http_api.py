"""The HTTP API with a double behind it, and how its answers are checked."""

from dataclasses import dataclass

import httpx
from worldstereo_client.schemas import Problem

VARIANT = "worldstereo-memory-dmd"


@dataclass
class FakeOrchestrator:
    """Counts calls and says what is ready."""

    woken: int = 0
    is_ready: bool = True

    async def wake(self) -> None:
        self.woken += 1

    async def ready(self) -> dict[str, bool]:
        return {VARIANT: self.is_ready}


def problem_in(response: httpx.Response, status: int, error: str) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert (problem.status, problem.error) == (status, error)
    assert problem.instance == response.request.url.path
    return problem
