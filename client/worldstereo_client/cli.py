"""The command line ``worldstereo``: what talks to a server.

Commands that bring up a server (run, serve, doctor) belong to the server's distribution, which adds
them through the entry-point group ``worldstereo.commands``: functions that take the typer app.
Exit codes are in ``exit_codes``.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from worldstereo_client import options, tables
from worldstereo_client.client import Client
from worldstereo_client.errors import MissingDependencyError, WorldStereoError
from worldstereo_client.exit_codes import ExitCode, exit_code_of, exit_code_of_scene
from worldstereo_client.handles import SceneJob
from worldstereo_client.live_status import View, watch_scene, watch_scenes
from worldstereo_client.results import fetch_results, summary
from worldstereo_client.retry import RetryPolicy
from worldstereo_client.schemas import Scene, SceneStatus

SERVER_COMMANDS = {
    "run": "Generate scenes here, in a cluster that lives as long as the command.",
    "serve": "Serve the HTTP API on this machine until Ctrl-C.",
    "doctor": "Check this installation and say what to type.",
}
# Someone waits at the terminal: say soon that nobody answers.
QUICK = RetryPolicy(attempts=3, first_delay_s=0.2)


class ErrorReporting(TyperGroup):
    """Ends a command that failed with one clear line and its exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command line's command."""
        try:
            return super().invoke(ctx)
        except WorldStereoError as error:
            complain(str(error))
            raise typer.Exit(exit_code_of(error)) from None
        except OSError as error:
            complain(str(error))
            raise typer.Exit(ExitCode.BAD_INPUT) from None
        except ImportError as error:
            complain(f"this installation is incomplete or damaged: {error}")
            raise typer.Exit(ExitCode.INSTALLATION) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def complain(message: str) -> None:
    """Print an error as one line on standard error."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)


def build_app() -> typer.Typer:
    """The command line with all commands that are installed."""
    app = typer.Typer(
        name="worldstereo",
        cls=ErrorReporting,
        help="Camera-guided videos of one scene: submit scenes, follow them, fetch results.",
        epilog="Exit codes: 0 done, 1 scene failed, 2 bad input, 3 server unreachable, "
        "4 cancelled, 5 server error, 6 damaged files, 7 installation, 130 interrupted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(_root)
    for command in (submit, status, watch, cancel, resume, delete, download, models):
        app.command()(command)
    for entry in entry_points(group="worldstereo.commands"):
        try:
            entry.load()(app)
        except ImportError as error:
            complain(f"commands of {entry.value} are left out: {error}")
    present = {command.name for command in app.registered_commands}
    for name in sorted(SERVER_COMMANDS.keys() - present):
        _add_placeholder(app, name)
    return app


def main() -> None:
    """Entry point of the console script."""
    build_app()()


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    for name in ("worldstereo-client", "worldstereo-cluster"):
        try:
            typer.echo(f"{name} {version(name)}")
        except PackageNotFoundError:
            typer.echo(f"{name} is not installed")
    raise typer.Exit(ExitCode.OK)


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print versions and end."
        ),
    ] = False,
) -> None:
    """Options that stand before a command."""


def _add_placeholder(app: typer.Typer, name: str) -> None:
    """A command of the server's distribution that says how to get it."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(name, help=SERVER_COMMANDS[name], context_settings=settings)
    def absent(ctx: typer.Context) -> None:
        raise MissingDependencyError(
            "the server's part is not installed in this environment",
            where=f"worldstereo {name}",
            fix="install worldstereo-cluster: in a checkout of it, type "
            "`pip install -e client -e .`; to talk to a server that runs, use "
            "`worldstereo submit --url ...`",
        )


def submit(
    scene: options.Input = None,
    input_path: options.InputPath = None,
    model_type: options.Variant = None,
    seed: options.Seed = 1024,
    depth: options.Depth = None,
    task_type: options.TaskType = None,
    align_nframe: options.AlignNframe = 8,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    prompt: options.Prompt = None,
    trajectory: options.Trajectories = None,
    panorama: options.Panorama = False,
    fov: options.FieldOfView = None,
    clearance: options.Clearance = None,
    outputs: options.Outputs = None,
    name: Annotated[str | None, typer.Option(help="Name of the result folder.")] = None,
    priority: Annotated[
        int, typer.Option(help="Of waiting scenes the highest goes first; a key may limit it.")
    ] = 0,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submits with the same key and content are one scene.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", help="Address that is told of the scene's states.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the scene ends.")] = False,
    output_path: options.OptionalOutput = None,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Send a scene folder (or a zip or tar of one), or an image to build from, to a server."""
    with Client(url, api_key=api_key) as client:
        job = client.scenes.submit(
            options.one_input(scene, input_path),
            variant=model_type,
            seed=seed,
            depth=depth,
            idempotency_key=idempotency_key,
            task_type=task_type,
            align_nframe=align_nframe,
            num_inference_steps=steps,
            guidance_scale=guidance,
            name=name,
            priority=priority or None,
            outputs=options.output_names(outputs),
            webhook_url=webhook,
            **options.image_arguments(prompt, trajectory, panorama, fov, clearance),
        )
        if not (wait or output_path):
            current = job.status()
            typer.echo(current.model_dump_json() if as_json else job.id)
            return
        if not as_json:
            typer.echo(f"scene {job.id}", err=True)
        ended = _follow(job, as_json)
        if output_path and ended.status is SceneStatus.COMPLETED:
            folder, files = fetch_results(job, output_path, None if as_json else _stderr())
            if not as_json:
                typer.echo(summary(job, folder, files))
        if as_json:
            typer.echo(ended.model_dump_json())
        raise typer.Exit(exit_code_of_scene(ended))


def status(
    scene_id: Annotated[
        str | None, typer.Argument(metavar="SCENE_ID", help="A scene; without: all of them.")
    ] = None,
    state: Annotated[SceneStatus | None, typer.Option(help="Only scenes in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Scenes at most.")] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the scene, or all of them, have ended.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.05, help="With --watch: seconds between two looks.")
    ] = 1.0,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Show one scene as it stands, or list the scenes of a server."""
    if watch:
        view = View(Console(), as_json=as_json)
        with Client(url, api_key=api_key) as client:
            raise typer.Exit(
                watch_scenes(client, state, limit, view, interval)
                if scene_id is None
                else watch_scene(client, scene_id, view, interval)
            )
    with Client(url, retries=QUICK, api_key=api_key) as client:
        if scene_id is not None:
            scene = client.scenes.get(scene_id)
            _print(scene.model_dump(mode="json"), tables.scene_table(scene), as_json)
            return
        listed = client.scenes.list(status=state, page_size=min(limit, 100))
        rows = [row for row, _ in zip(listed, range(limit), strict=False)]
        _print([row.model_dump(mode="json") for row in rows], tables.scenes_table(rows), as_json)


def watch(
    scene_id: options.SceneId,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Follow a scene until it ends; with --json, one event a line."""
    with Client(url, api_key=api_key) as client:
        job = client.scenes.job(scene_id)
        if as_json:
            for event in job.events():
                typer.echo(event.model_dump_json(exclude_none=True))
            ended = job.status()
        else:
            ended = _follow(job, as_json)
        raise typer.Exit(exit_code_of_scene(ended))


def cancel(
    scene_id: options.SceneId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has stopped.")] = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Stop a scene between two denoising steps; its finished trajectories stay."""
    with Client(url, retries=QUICK, api_key=api_key) as client:
        scene = client.scenes.cancel(scene_id)
        if wait:
            scene = client.scenes.job(scene_id).wait(check=False)
        typer.echo(scene.model_dump_json() if as_json else f"{scene.id} {scene.status.value}")


def resume(
    scene_id: options.SceneId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the scene ends.")] = False,
    url: options.Url = options.DEFAULT_URL,
    as_json: options.Json = False,
) -> None:
    """Run the failed and skipped trajectories of a failed scene again."""
    with Client(url, retries=QUICK) as client:
        scene = client.scenes.resume(scene_id)
    if not wait:
        typer.echo(scene.model_dump_json() if as_json else f"{scene.id} {scene.status.value}")
        return
    with Client(url) as client:
        ended = _follow(client.scenes.job(scene_id), as_json)
    if as_json:
        typer.echo(ended.model_dump_json())
    raise typer.Exit(exit_code_of_scene(ended))


def delete(
    scene_id: options.SceneId,
    url: options.Url = options.DEFAULT_URL,
    as_json: options.Json = False,
) -> None:
    """Remove a scene that has ended, and all its files, from the server."""
    with Client(url, retries=QUICK) as client:
        client.scenes.delete(scene_id)
    typer.echo(json.dumps({"id": scene_id, "deleted": True}) if as_json else f"{scene_id} deleted")


def download(
    scene_id: options.SceneId,
    output_path: options.Output = Path("outputs"),
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the scene ends.")] = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Fetch a scene's files: resumed, verified, present ones skipped."""
    with Client(url, api_key=api_key) as client:
        job = client.scenes.job(scene_id)
        if wait:
            _follow(job, as_json)
        folder, files = fetch_results(job, output_path, None if as_json else _stderr())
        if as_json:
            typer.echo(json.dumps({"folder": str(folder), "files": [str(path) for path in files]}))
        else:
            typer.echo(summary(job, folder, files))


def models(
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """List the variants that a server offers."""
    with Client(url, retries=QUICK, api_key=api_key) as client:
        listed = client.models()
        _print([m.model_dump(mode="json") for m in listed], tables.models_table(listed), as_json)


def _follow(job: SceneJob, quiet: bool) -> Scene:
    """Wait for a scene with progress on standard error; complain about one that failed."""
    try:
        scene = job.wait(progress=False if quiet else _stderr(), check=False)
    except KeyboardInterrupt:
        typer.echo(f"the scene goes on; to stop it: worldstereo cancel {job.id}", err=True)
        raise
    if scene.status is SceneStatus.FAILED and not quiet:
        complain(f"scene {scene.id}: {failure_reason(scene)}")
    return scene


def failure_reason(scene: Scene) -> str:
    """Why a scene failed, in one line."""
    problems = [scene.error, *(item.error for item in scene.trajectories)]
    return next((problem.detail for problem in problems if problem), "failed without a reason")


def _print(data: Any, table: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(data))
    else:
        console = Console()
        # Without a terminal there is no width to fit into: do not cut ids.
        (console if console.is_terminal else Console(width=200)).print(table)


def _stderr() -> Console:
    return Console(stderr=True)
