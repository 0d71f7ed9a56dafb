"""The client is light: a fresh process that imports it has neither torch nor Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
import {module}
heavy = {{"torch", "ray", "worldstereo", "deployments", "diffusers"}} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "module", ["worldstereo_client", "worldstereo_client.cli", "worldstereo_client.schemas"]
)
def test_a_fresh_process_has_no_engine(module: str) -> None:
    subprocess.run([sys.executable, "-c", CODE.format(module=module)], check=True)
