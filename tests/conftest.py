"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

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
