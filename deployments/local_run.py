"""Generating on this machine: the input checked first, then a cluster for as long as it is needed.

What ``worldstereo run`` and ``worldstereo serve`` share. Starting Ray is cluster.local's, the
application is app.py's; scenes go through the client, since an embedded cluster is a server like
any other.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from worldstereo_client import Client, SceneJob, calls, errors
from worldstereo_client.archive import is_image
from worldstereo_client.cli import complain, failure_reason
from worldstereo_client.exit_codes import ExitCode, exit_code_of_scene
from worldstereo_client.results import fetch_results, summary
from worldstereo_client.schemas import SceneRequest, SceneStatus

from cluster.hardware import MachineGpus
from cluster.loopback import is_loopback_host
from configs.loader import load_model
from configs.settings import AppArgs, ModelSettings, Settings
from deployments.allotment import allot
from deployments.listening import opening
from deployments.weights import model_config_of
from worldstereo.config import variant_named
from worldstereo.errors import InputError, LayoutError, ParameterError
from worldstereo.formats.scene_folder import read_scene
from worldstereo.parallel.layout import ParallelLayout

if TYPE_CHECKING:
    from worldstereo.types import SceneInput

SettingsT = TypeVar("SettingsT", bound=Settings)

# How long scenes that were told to stop may take, at Ctrl-C.
STOP_TIMEOUT_S = 30.0


def app_args(fields: dict[str, Any]) -> AppArgs:
    """Arguments of the application from options of the command line.

    Raises:
        ParameterError: an unknown variant or model, or a value out of range.
    """
    for name in fields.get("variants", ()):
        variant_named(name)
    arguments = _validated(AppArgs, fields)
    model_of(arguments)
    return arguments


def with_layout(
    model: str | ModelSettings, cfg: int | None, ulysses: int | None, fsdp: bool
) -> str | ModelSettings:
    """A model with the ranks that the command line asks for; as it is where it asks for none.

    Args:
        model: a name, a YAML file, or settings.
        cfg, ulysses: degrees; None: those of the settings.
        fsdp: True: weights are sharded whatever the settings say.

    Raises:
        ParameterError: there is no such model, or it cannot be run in these ranks.
    """
    degrees = {"cfg": cfg, "ulysses": ulysses, "fsdp": fsdp or None}
    asked = {name: value for name, value in degrees.items() if value is not None}
    if not asked:
        return model
    settings = load_model(model) if isinstance(model, str) else model
    parallel = (settings.parallel or ParallelLayout()).model_dump() | asked
    return _validated(ModelSettings, settings.model_dump() | {"parallel": parallel})


def model_of(arguments: AppArgs) -> ModelSettings:
    """The model that an application serves; ParameterError when there is none of its name."""
    return load_model(arguments.model) if isinstance(arguments.model, str) else arguments.model


def validated_scenes(
    path: Path,
    arguments: AppArgs,
    parameters: dict[str, Any],
    image: dict[str, Any],
    console: Console,
) -> list[Path]:
    """Read and check every scene before a cluster is started, and tell what was found.

    Args:
        path: a scene folder, a folder of scenes, or an image.
        arguments: of the application that will generate them.
        parameters: arguments of ``client.scenes.submit``.
        image: those of them that say how a scene is built from an image.
        console: where the findings are shown.

    Returns:
        The scene folders, sorted by name.

    Raises:
        InputError: a scene cannot be used.
        CheckpointError: the model's configuration cannot be found.
    """
    if is_image(path):
        return [_validated_image(path, arguments, parameters["depth"], image, console)]
    variant, local = arguments.variants[0], arguments.local_files_only
    config = model_config_of(model_of(arguments), variant, local_files_only=local)
    found = read_scenes(
        path,
        lambda folder: read_scene(
            folder,
            scale_map=config.scale_map,
            nframe=config.nframe,
            align_nframe=parameters["align_nframe"],
            task_type=parameters["task_type"] or "auto",
            depth=parameters["depth"],
            needs_depth=arguments.depth is None,
        ),
    )
    if len(found) > 1 and parameters["depth"] is not None:
        raise ParameterError(
            "a depth map is that of one scene",
            where="--depth",
            got=f"{len(found)} scenes: {', '.join(folder.name for folder in found)}",
            fix="put each scene's own beside its image as depth.npy, or name one scene",
        )
    for scene in found.values():
        height, width = scene.size
        count = len(scene.trajectories)
        lines = [f"{scene.name}: {scene.layout}, {count} trajectories at {height}x{width}"]
        lines += [f"  {view} is left out: {reason}" for view, reason in scene.skipped.items()]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    return list(found)


def _validated_image(
    path: Path, arguments: AppArgs, depth: Path | None, image: dict[str, Any], console: Console
) -> Path:
    from deployments.submission import build_parameters
    from worldstereo.builder.parameters import trajectory_ids
    from worldstereo.builder.source import check_source

    fields = {name: value for name, value in image.items() if name != "panorama"}
    kind = "panorama" if image["panorama"] else None
    config = model_config_of(
        model_of(arguments), arguments.variants[0], local_files_only=arguments.local_files_only
    )
    request = SceneRequest(build=calls.build_request(kind=kind, **fields))
    build = build_parameters(request, config.nframe)
    check_source(path, depth, build, estimator=arguments.depth is not None)
    count = len(trajectory_ids(build))
    console.print(f"{path.name}: {build.kind} image, {count} trajectories", highlight=False)
    return path


def read_scenes(path: Path, read: Callable[[Path], SceneInput]) -> dict[Path, SceneInput]:
    """Read a scene folder, or each scene of a folder of them, before anything is generated.

    A folder that is no scene itself is a folder of scenes when any of its folders is one; names
    that begin with a dot are passed over.

    Args:
        path: the folder.
        read: reads and validates one scene folder.

    Returns:
        Scene folders and what they hold, sorted by name.

    Raises:
        InputError: of the first scene that cannot be used; of ``path`` itself when nothing in it
            is a scene.
    """
    try:
        return {path: read(path)}
    except LayoutError as alone:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        folders = [sub for sub in inside if sub.is_dir() and not sub.name.startswith(".")]
        found: dict[Path, SceneInput] = {}
        refused: list[InputError] = []
        for folder in folders:
            try:
                found[folder] = read(folder)
            except InputError as error:
                where = f"{folder.name}: {error.where}" if error.where else folder.name
                refused.append(type(error)(**{**error.fields, "where": where}))
        # Folders that are no scenes at all do not make their parent a folder of scenes.
        if not found and all(type(error) is LayoutError for error in refused):
            raise
        if refused:
            raise refused[0] from alone
        return found


@contextmanager
def embedded_cluster(
    arguments: AppArgs, *, port: int, console: Console, host: str = "127.0.0.1"
) -> Iterator[str]:
    """A cluster with the application on this machine; yields the address of its API.

    Args:
        arguments: of the application.
        port: of the API; 0 takes a free one.
        console: says what goes on.
        host: address of the API; ``listening.check_listening`` has allowed it. All else is on
            loopback.

    Raises:
        ParameterError: the port is taken, or the model cannot be run on these GPUs, or not in the
            layout that is set.
        MissingDependencyError: the model needs more GPUs than there are.
        InternalError: the cluster or the application did not start.
    """
    _check_port(host, port)
    allotments = allot(arguments, model_of(arguments), MachineGpus())
    # Ray takes seconds to import: not before the input is known to be good.
    from cluster.local import ClusterError, LocalCluster
    from deployments.app import build_application, required_resources

    need = required_resources(arguments, allotments)
    _check_gpus(int(need.num_gpus))
    for variant, allotment in allotments.items():
        console.print(f"{variant}: {allotment.reason}", highlight=False, soft_wrap=True)
    console.print("starting the embedded cluster: Ray, on loopback only", highlight=False)
    if not is_loopback_host(host):
        console.print(opening(host, arguments), style="yellow", highlight=False, soft_wrap=True)
    try:
        with LocalCluster(
            num_cpus=need.num_cpus,
            num_gpus=int(need.num_gpus),
            port=port,
            host=host,
            open_http=not is_loopback_host(host),
        ) as cluster:
            catch_termination()  # Ray installs handlers of its own
            cluster.deploy(build_application(arguments, allotments))
            yield cluster.url
            console.print("stopping the cluster", highlight=False)
    except ClusterError as error:
        raise errors.InternalError(
            str(error), where="the embedded cluster", fix="`worldstereo doctor` checks this machine"
        ) from error


def generate(
    client: Client,
    scenes: Sequence[Path],
    parameters: dict[str, Any],
    output: Path,
    console: Console,
    *,
    as_json: bool,
) -> ExitCode:
    """Submit scenes, follow them, fetch their results; whatever interrupts it cancels them.

    Args:
        client: of the server that generates.
        scenes: scene folders.
        parameters: arguments of ``client.scenes.submit``.
        output: results go to ``output/<scene>``.
        console: where progress is shown.
        as_json: print a JSON object a scene on standard output instead of a sentence.

    Returns:
        OK when every scene completed, else that of a failed or cancelled one.
    """
    jobs: list[SceneJob] = []
    try:
        for scene in scenes:
            jobs.append(client.scenes.submit(scene, **parameters))
        codes = {_finish(job, output, console, as_json) for job in jobs}
    except BaseException:
        _stop(jobs, console)
        raise
    return next(
        (code for code in (ExitCode.SCENE_FAILED, ExitCode.CANCELLED) if code in codes), ExitCode.OK
    )


def catch_termination() -> None:
    """Let SIGTERM end a command as Ctrl-C does: scenes are cancelled and the cluster stops."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # One is enough: an impatient second one would leave processes behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def _finish(job: SceneJob, output: Path, console: Console, as_json: bool) -> ExitCode:
    """Follow one scene to its end and fetch what it has, also of one that failed."""
    scene = job.wait(progress=console, check=False)
    folder, files = fetch_results(job, output, console)
    if scene.status is SceneStatus.FAILED:
        complain(f"scene {scene.name}: {failure_reason(scene)}")
    if as_json:
        found = {"id": scene.id, "name": scene.name, "status": scene.status.value}
        names = [str(path) for path in files]
        typer.echo(json.dumps({**found, "folder": str(folder), "files": names}))
    else:
        typer.echo(summary(job, folder, files))
    return exit_code_of_scene(scene)


def _stop(jobs: Sequence[SceneJob], console: Console) -> None:
    """Cancel the scenes that have not ended, and wait a while until they have."""
    if jobs:
        console.print("cancelling", highlight=False)
    cancelled = []
    for job in jobs:
        # What made us stop is what the user must hear of, not that a scene had ended already.
        with suppress(errors.WorldStereoError):
            job.cancel()
            cancelled.append(job)
    for job in cancelled:
        with suppress(errors.WorldStereoError):
            job.wait(timeout_s=STOP_TIMEOUT_S, check=False)


def _validated(kind: type[SettingsT], fields: dict[str, Any]) -> SettingsT:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        # A rule about several fields names them, and is in none of them.
        got = repr(first["input"]) if where else None
        raise ParameterError(first["msg"], where=where or None, got=got) from error


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ParameterError(
                "the port cannot be used",
                where="--host, --port",
                got=f"{host}, {port}: {error.strerror}",
                fix="name another port, or 0 for any free one; a host is this machine's own",
            ) from error


def _check_gpus(needed: int) -> None:
    if needed == 0:
        return
    import torch

    present = torch.cuda.device_count()
    if present < needed:
        raise errors.MissingDependencyError(
            f"the model needs {needed} GPU{'s' if needed > 1 else ''}",
            where="this machine",
            got=str(present),
            fix="ask for fewer --replicas or ranks, use --model worldstereo-tiny, which runs on a "
            "CPU, or see what `worldstereo doctor` says",
        )
