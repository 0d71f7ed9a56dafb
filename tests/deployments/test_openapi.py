"""The OpenAPI document against the server that it describes, by a property-based tester.

A run takes a few seconds: the seed is fixed and the examples are few. More of them:
``SCHEMATHESIS_EXAMPLES=200 pytest tests/deployments/test_openapi.py``.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from worldstereo_client.schemas import SceneRequest, SceneStatus

from deployments.api import Backend, create_api
from deployments.key_store import KeyStore
from deployments.records import NewScene
from tests.deployments.http_api import FakeOrchestrator
from worldstereo.formats.atomic import atomic_write_bytes

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12"))
# No schema says that bytes are a zip of a scene, nor which addresses an operator allows.
NOT_CHECKED = [positive_data_acceptance]
PROBLEMS = "application/problem+json"


@pytest.fixture
def ended(backend: Backend) -> str:
    """Id of a scene that has ended, with one file; its stream of events ends too."""
    backend.store.add_scene(
        NewScene("one", "kitchen", SceneRequest(), ("renders/a",)), max_queued=9
    )
    backend.store.advance_scene("one", SceneStatus.CANCELLING)
    backend.store.advance_scene("one", SceneStatus.CANCELLED)
    atomic_write_bytes(backend.folders.scene("one").output / "plan.json", b"{}")
    return "one"


@pytest.fixture
def keys(backend: Backend) -> Iterator[KeyStore]:
    opened = KeyStore(str(backend.store._engine.url))
    yield opened
    opened.close()


def check(api: FastAPI, headers: dict[str, str], known: dict[str, str]) -> set[tuple[str, int]]:
    """Try every route; the (route, status) that were seen."""
    seen: set[tuple[str, int]] = set()
    schema = schemathesis.openapi.from_asgi("/openapi.json", api)
    operations = [result.ok() for result in schema.get_all_operations()]
    # What is deleted is not there for the others.
    for operation in sorted(operations, key=lambda operation: operation.method == "delete"):

        def probe(case: Any, uses_known: bool) -> None:
            if uses_known and case.meta.generation.mode is GenerationMode.POSITIVE:
                # Made-up ids are of no scene: half of the tries are for one that is there.
                case.path_parameters = {
                    name: known.get(name, value)
                    for name, value in (case.path_parameters or {}).items()
                }
            response = case.call_and_validate(headers=headers, excluded_checks=NOT_CHECKED)
            seen.add((case.operation.label, response.status_code))

        cases = hypothesis.given(case=operation.as_strategy(), uses_known=st.booleans())(probe)
        few = hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        hypothesis.seed(1024)(few(cases))()
    return seen


def test_every_answer_is_as_the_document_says(api: FastAPI, ended: str) -> None:
    seen = check(api, {}, {"scene_id": ended, "name": "plan.json"})
    statuses = {status for _, status in seen}
    assert {200, 202, 404, 422} <= statuses
    assert not [pair for pair in seen if pair[1] >= 500]
    assert ("GET /v1/scenes/{scene_id}/artefacts/{name}", 200) in seen


def test_the_same_with_keys(backend: Backend, keys: KeyStore, ended: str) -> None:
    _, text = keys.create("tester", ["admin"])
    guarded = create_api(dataclasses.replace(backend, keys=keys))
    known = {"scene_id": ended, "name": "plan.json"}
    seen = check(guarded, {"Authorization": f"Bearer {text}"}, known)
    assert not [pair for pair in seen if pair[1] >= 500 or pair[1] == 403]


async def test_each_route_documents_its_problems(
    backend: Backend, keys: KeyStore, orchestrator: FakeOrchestrator
) -> None:
    plain = create_api(backend).openapi()
    guarded = create_api(dataclasses.replace(backend, keys=keys)).openapi()
    submit = plain["paths"]["/v1/scenes"]["post"]["responses"]
    assert submit.keys() == {"202", "400", "409", "413", "422", "429", "500"}
    assert "Retry-After" in submit["429"]["headers"]
    for path, operations in guarded["paths"].items():
        for operation in operations.values():
            is_open = path in ("/healthz", "/readyz")
            assert ("security" not in operation) == is_open
            assert ({"401", "403", "429"} <= operation["responses"].keys()) != is_open
            for status, response in operation["responses"].items():
                if status < "400" or (path, status) == ("/readyz", "503"):
                    continue
                (media_type,) = response["content"]
                (reference,) = response["content"][media_type]["schema"].values()
                openai = path.startswith("/v1/videos")
                assert media_type == ("application/json" if openai else PROBLEMS)
                assert reference.rpartition("/")[2] == ("ErrorAnswer" if openai else "Problem")
    for document in (plain, guarded):
        assert "HTTPValidationError" not in document["components"]["schemas"]
        # Every reference leads somewhere.
        names = set(document["components"]["schemas"])
        used = {
            part.split('"')[0] for part in str(document).replace("'", '"').split("schemas/")[1:]
        }
        assert used <= names
