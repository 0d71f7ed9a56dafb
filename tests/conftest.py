"""Fixtures that all tests share."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from tests.virtual_time import VirtualTimeLoop

# The machines that run the suite are shared: a slow example says nothing about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Ray starts its workers at nice 15: beside another test that keeps the CPUs busy a cluster would
# take minutes to start.
os.environ.setdefault("RAY_worker_niceness", "0")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def examples_folder() -> Path:
    """The published example scenes: not part of the project, so tests that need them may skip."""
    folder = Path(os.environ.get("WORLDSTEREO_EXAMPLES", ROOT.parent / "shared" / "examples"))
    if not folder.is_dir():
        pytest.skip(
            f"no published example scenes at {folder}; set WORLDSTEREO_EXAMPLES to have them"
        )
    return folder


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualTimeLoop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the recovery matrix only some cells run, unless it is asked for by its mark."""
    if "recovery" not in config.option.markexpr:
        marks = {item: item.get_closest_marker("recovery") for item in items}
        left_out = [item for item, mark in marks.items() if mark and not mark.kwargs["by_default"]]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
