"""The borders of the house: who may import whom, and that importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package -> the project's own packages that it may import, itself included.
MAY_IMPORT = {
    "worldstereo": {"worldstereo"},
    "worldstereo_client": {"worldstereo_client"},
    "configs": {"configs", "worldstereo"},
    "actors": {"actors", "worldstereo"},
    "cluster": {"cluster", "worldstereo"},
    "deployments": {
        "deployments",
        "actors",
        "cluster",
        "configs",
        "worldstereo",
        "worldstereo_client",
    },
}
FOLDERS = {"worldstereo_client": ROOT / "client" / "worldstereo_client"}
OURS = {*MAY_IMPORT, "tests", "training", "benchmarks", "examples"}


def imported_packages(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every absolute import, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def breaches(package: str) -> list[str]:
    allowed = MAY_IMPORT[package]
    found = []
    for file in sorted(FOLDERS.get(package, ROOT / package).rglob("*.py")):
        for line, target in imported_packages(file.read_text()):
            if target in OURS and target not in allowed:
                found.append(f"{file.relative_to(ROOT)}:{line} imports {target}")
            if target == "ray" and package in {"worldstereo", "worldstereo_client"}:
                found.append(f"{file.relative_to(ROOT)}:{line} imports ray")
            if target in {"torch", "diffusers"} and package == "worldstereo_client":
                found.append(f"{file.relative_to(ROOT)}:{line} imports {target}")
            if target == "fastapi" and package in {"worldstereo", "actors", "cluster"}:
                found.append(f"{file.relative_to(ROOT)}:{line} imports fastapi")
    return found


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_go_one_way(package: str) -> None:
    assert breaches(package) == []


def test_the_check_sees_a_breach() -> None:
    source = "def f():\n    import deployments.app\n    from ray import serve\n"
    assert list(imported_packages(source)) == [(2, "deployments"), (3, "ray")]


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in sys.modules of a fresh process that ran ``statement``."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_client_loads_neither_torch_nor_ray() -> None:
    loaded = loaded_after("import worldstereo_client, worldstereo_client.cli")
    assert "worldstereo_client" in loaded
    assert not loaded & {"torch", "ray", "diffusers", "transformers", "worldstereo", "deployments"}


def test_the_engine_loads_no_ray() -> None:
    loaded = loaded_after("import worldstereo.sampling.pipeline, worldstereo.scene")
    assert "torch" in loaded
    assert not loaded & {"ray", "actors", "deployments", "worldstereo_client", "pytorch3d", "moge"}


def test_reading_a_scene_folder_needs_no_torch() -> None:
    loaded = loaded_after("import worldstereo, worldstereo.formats.scene_folder")
    assert "worldstereo" in loaded
    assert not loaded & {"torch", "diffusers", "ray"}


def test_importing_leaves_environment_and_log_levels_alone() -> None:
    # The libraries' own doings (diffusers makes torch name a cache folder) are not ours.
    code = (
        "import logging, os\n"
        "from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel\n"
        "from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPVisionModel\n"
        "from transformers import Dinov2Model, UMT5EncoderModel\n"
        "before = dict(os.environ), logging.getLogger().level\n"
        "import worldstereo.sampling.pipeline, worldstereo.scene, worldstereo.memory.features\n"
        "assert (dict(os.environ), logging.getLogger().level) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty_names = {"utils.py", "helpers.py", "common.py", "misc.py"}
    sources = [file for package in OURS for file in (ROOT / package).rglob("*.py")]
    assert [str(file) for file in sources if file.name in empty_names] == []
