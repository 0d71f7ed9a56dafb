"""Checks of an installation, each with what to type when it fails.

Every package that a stage needs is really imported and every codec really used: what is only
missing when a result is saved is found here. Nothing is changed and nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.hardware import Gpus, MachineGpus
from configs.loader import load_model
from configs.settings import AppArgs, ModelSettings
from deployments.allotment import allot
from deployments.weights import weights_of
from worldstereo.config import Variant, variant_named
from worldstereo.errors import CheckpointError, WorldStereoError

GIB = 2**30
LEAST_FREE_DISK = 5 * GIB
# Ray keeps objects in shared memory: below the first it does not start, below the second it spills.
LEAST_SHARED_MEMORY, ENOUGH_SHARED_MEMORY = 128 * 2**20, 2 * GIB

# Import name and distribution of what each stage needs.
REQUIRED: dict[str, dict[str, str]] = {
    "engine": {
        "torch": "torch",
        "diffusers": "diffusers",
        "transformers": "transformers",
        "accelerate": "accelerate",
        "safetensors": "safetensors",
        "huggingface_hub": "huggingface_hub",
        "scipy": "scipy",
        "ftfy": "ftfy",
    },
    "formats": {
        "numpy": "numpy",
        "av": "av",
        "PIL": "pillow",
        "pycolmap": "pycolmap",
        "plyfile": "plyfile",
        "trimesh": "trimesh",
    },
    "service": {
        "ray.serve": "ray",
        "fastapi": "fastapi",
        "python_multipart": "python-multipart",
        "sqlalchemy": "sqlalchemy",
        "fsspec": "fsspec",
        "yaml": "pyyaml",
    },
    "client": {"httpx": "httpx", "httpx_sse": "httpx-sse", "rich": "rich", "typer": "typer"},
}
# Import name (also the distribution's), what it is for, how to get it.
OPTIONAL: tuple[tuple[str, str, str], ...] = (
    (
        "pytorch3d",
        "renders points as the published program does",
        "pip install --no-build-isolation -e '.[pytorch3d]'",
    ),
    ("moge", "estimates depth", "pip install -e '.[moge]'"),
    ("OpenEXR", "reads .exr depth maps", "pip install -e '.[exr]'"),
    ("evo", "aligns trajectories, for worldstereo evaluate", "pip install -e '.[evaluate]'"),
    ("gsplat", "trains Gaussian splats", "pip install -e '.[splats]'"),
    ("kernels", "fetches FlashAttention-3", "pip install -e '.[flash3]'"),
    ("cudnn", "attends in 8 bits", "pip install -e '.[fp8]'"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group, name: what.
        state: ``ok``, ``note`` (works, worth knowing) or ``fails``.
        detail: what was found.
        fix: what to do about it.
    """

    group: str
    name: str
    state: Literal["ok", "note", "fails"]
    detail: str
    fix: str = ""


def examine(model: str, variant: str, port: int, data: Path) -> list[Check]:
    """Look at everything that generating with a model on this machine needs.

    Args:
        model: name or YAML file of a model family.
        variant: the variant that is wanted.
        port: where the HTTP API would listen.
        data: folder that results would go to.

    Raises:
        ParameterError: there is no such model or variant.
    """
    settings, wanted = load_model(model), variant_named(variant)
    found = [*_packages(), *_optional_packages(), _gpus(settings), attention_check(settings)]
    found.append(_codecs())
    try:
        parts = weights_of(settings, wanted, local_files_only=True)
        found += [Check("weights", part.what, "ok", str(part.folder)) for part in parts]
    except WorldStereoError as error:
        fix = f"worldstereo fetch-weights --model {model} --variants {variant}"
        found.append(Check("weights", variant, "fails", str(error), fix))
    found.append(topology_check(settings, wanted, MachineGpus()))
    return [*found, _port(port), _disk(data), _shared_memory()]


def is_fine(checks: list[Check]) -> bool:
    """Whether nothing fails."""
    return all(check.state != "fails" for check in checks)


def show(checks: list[Check], *, as_json: bool) -> None:
    """Print the checks on standard output, as a table or as JSON."""
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
        return
    colours = {"ok": "green", "note": "yellow", "fails": "bold red"}
    table = Table("", "", "", "found", box=None, pad_edge=False)
    for check in checks:
        found = Text(check.detail)
        if check.fix:
            found.append(f"\n{check.fix}", "cyan")
        state = Text(check.state, colours[check.state])
        table.add_row(check.group, Text(check.name), state, found)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    failed = sum(check.state == "fails" for check in checks)
    typer.echo(f"{failed} of {len(checks)} checks fail" if failed else "everything is there")


def _packages() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    yield Check("python", version, "ok" if fine else "fails", sys.executable)
    for group, names in REQUIRED.items():
        for name, distribution in names.items():
            problem = _import_problem(name)
            if problem is None:
                yield Check(group, name, "ok", _version(distribution))
            else:
                yield Check(
                    group, name, "fails", problem, f"pip install --force-reinstall {distribution}"
                )


def _optional_packages() -> Iterator[Check]:
    for name, purpose, install in OPTIONAL:
        if importlib.util.find_spec(name) is None:
            yield Check("optional", name, "note", f"not installed: it {purpose}", install)
            continue
        problem = _import_problem(name)
        state: Literal["ok", "fails"] = "ok" if problem is None else "fails"
        yield Check("optional", name, state, problem or _version(name))


def _import_problem(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything at all
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _gpus(settings: ModelSettings) -> Check:
    needed = settings.device == "cuda"
    problem = _import_problem("torch")
    if problem is not None:
        return Check("hardware", "GPU", "fails" if needed else "note", f"torch: {problem}")
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        detail = f"none that torch {torch.__version__} (built with {built}) can use"
        if not needed:
            return Check("hardware", "GPU", "ok", f"{detail}; this model runs on the CPU")
        fix = "check nvidia-smi, and install a torch built for its CUDA version: pytorch.org"
        return Check("hardware", "GPU", "fails", detail, fix)
    lines, fine = [], True
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        size = f"{device.total_memory / GIB:.0f} GiB"
        lines.append(f"{device.name}, {size}, sm_{device.major}{device.minor}")
        fine &= has_kernels_for(device.major, device.minor, torch.cuda.get_arch_list())
    fix = "" if fine else "install a torch that is built for this GPU: pytorch.org"
    return Check("hardware", "GPU", "ok" if fine else "note", "; ".join(lines), fix)


def has_kernels_for(major: int, minor: int, built_for: Sequence[str]) -> bool:
    """Whether a torch built for these architectures runs on a GPU of this compute capability.

    Machine code (``sm_90``) runs on later GPUs of the same major capability, PTX (``compute_90``)
    on all later ones; code with a letter (``sm_90a``) on exactly its own.
    """
    for name in built_for:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")
        if digits != number:
            if number == f"{major}{minor}a":
                return True
            continue
        own = (int(digits[:-1]), int(digits[-1]))
        if own <= (major, minor) and (kind == "compute" or own[0] == major):
            return True
    return False


def attention_check(settings: ModelSettings) -> Check:
    """Whether the model's attention backend is there and computes on its device."""
    problem = _import_problem("worldstereo.models.attention_backend")
    if problem is not None:
        return Check("engine", "attention", "fails", problem)
    import torch

    from worldstereo.models.attention_backend import attention_backend, attention_backends

    name, allowed = settings.attention, attention_backends()
    fix = "set attention in the model's configuration"
    if name not in allowed:
        fix = f"{fix} to one of {', '.join(allowed)}"
        return Check("engine", "attention", "fails", f"there is no {name!r}", fix)
    if settings.device == "cuda" and not torch.cuda.is_available():
        return Check("engine", "attention", "note", f"{name}: cannot be tried without a GPU")
    if settings.device == "cuda" and name.endswith("_hub"):
        problem = _import_problem("kernels")
        if problem is None:
            detail = f"{name}: a worker that starts downloads its kernel"
            return Check("engine", "attention", "ok", detail)
        return Check("engine", "attention", "fails", problem, f"pip install kernels, or {fix}")
    try:
        attention_backend(name, torch.device(settings.device))
    except WorldStereoError as error:
        return _failure("engine", "attention", error, fix)
    return Check("engine", "attention", "ok", name)


def topology_check(settings: ModelSettings, variant: Variant, gpus: Gpus) -> Check:
    """Replicas and ranks that a variant gets of these GPUs, or what it would take."""
    args = AppArgs(model=settings, variants=(variant,), local_files_only=True)
    problem = _import_problem("torch") if settings.device == "cuda" else None
    if problem is not None:
        return Check("hardware", "topology", "fails", f"torch: {problem}")
    try:
        (allotment,) = allot(args, settings, gpus).values()
    except CheckpointError as error:
        detail = f"chosen once the weights are there: {error.what}"
        return Check("hardware", "topology", "note", detail)
    except WorldStereoError as error:
        return _failure("hardware", "topology", error)
    if settings.device == "cuda" and not any(gpus.per_node()):
        fix = "use a machine with GPUs, or --model worldstereo-tiny, which runs on a CPU"
        return Check("hardware", "topology", "fails", allotment.reason, fix)
    return Check("hardware", "topology", "ok", allotment.reason)


def _failure(group: str, name: str, error: WorldStereoError, fix: str = "") -> Check:
    """A check that fails with this error, whose own advice stands where advice does."""
    parts = error.fields
    advice = parts.pop("fix", fix)
    return Check(group, name, "fails", str(WorldStereoError(parts.pop("what"), **parts)), advice)


def _codecs() -> Check:
    """Write a short H.264 video and read it back."""
    from worldstereo.formats.video import read_video, write_video

    frames = np.zeros((3, 32, 48, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        try:
            write_video(path, frames)
            count = len(read_video(path))
        except Exception as error:  # noqa: BLE001 - whatever it is, videos cannot be written
            fix = "pip install --force-reinstall av (its wheels hold FFmpeg with libx264)"
            return Check("hardware", "H.264", "fails", f"{type(error).__name__}: {error}", fix)
    return Check("formats", "H.264", "ok" if count == 3 else "fails", f"{count} of 3 frames")


def _port(port: int) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            fix = "worldstereo serve --port 0 takes a free one"
            return Check("machine", f"port {port}", "note", str(error.strerror), fix)
    return Check("machine", f"port {port}", "ok", "free")


def _disk(data: Path) -> Check:
    folder = data.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free < LEAST_FREE_DISK:
        return Check("machine", "disk", "note", detail, "choose another --data or --output_path")
    return Check("machine", "disk", "ok", detail)


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("machine", "shared memory", "note", "no /dev/shm; Ray uses the disk instead")
    size = shutil.disk_usage(folder).total
    detail = f"{size / GIB:.1f} GiB in /dev/shm"
    fix = "in a container: docker run --shm-size=8g"
    if size < LEAST_SHARED_MEMORY:
        return Check("machine", "shared memory", "fails", detail, fix)
    if size < ENOUGH_SHARED_MEMORY:
        return Check("machine", "shared memory", "note", detail, fix)
    return Check("machine", "shared memory", "ok", detail)
