"""What a measurement was taken on, and where it is written.

Owns the description of commit, hardware and versions, and the folder of results. One script a
claim calls ``write_result``; tables in the README come from these files.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "diffusers", "transformers", "ray", "numpy", "scipy", "pytorch3d")


def environment() -> dict[str, Any]:
    """Commit, hardware and versions of this process, ready for JSON."""
    return {"commit": _commit(), "hardware": _hardware(), "versions": _versions()}


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write one benchmark's numbers to ``benchmarks/results/<name>.json``.

    Args:
        name: of the claim; the file's stem.
        result: the numbers, ready for JSON, units in their names.

    Returns:
        The file that was written.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"benchmark": name, **result, "environment": environment()}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def read_result(name: str) -> dict[str, Any]:
    """One benchmark's numbers, as ``write_result`` wrote them."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _commit() -> dict[str, Any]:
    """The commit that is checked out, and whether tracked files other than results differ."""
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results"
    )
    # A copy without its history, on a machine with a GPU, is told its commit.
    commit = _git("rev-parse", "HEAD") or os.environ.get("GIT_COMMIT")
    return {"id": commit, "changed": None if changed is None else bool(changed)}


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpus": gpus,
    }


def _processor() -> str:
    """The processor's name; Linux keeps it in /proc/cpuinfo only."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory_gib() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return round(pages * size / 2**30, 1)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return versions
