"""Commands that the server's distribution adds to ``worldstereo``.

Here are run, serve, doctor and fetch-weights; build, export and evaluate have files of their own.
The modules that do the work import Ray, torch and the engine; they are imported by the command
that needs them, so that ``worldstereo status`` and ``--help`` stay quick.
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from worldstereo_client import Client, calls, errors, options
from worldstereo_client.exit_codes import ExitCode
from worldstereo_client.schemas import DEFAULT_VARIANT

from deployments.build_command import build
from deployments.command_errors import engine_errors
from deployments.evaluate_command import evaluate
from deployments.export_command import export
from deployments.gc_command import gc
from deployments.keys_command import keys_app

Scenes = Annotated[Path | None, typer.Argument(metavar="INPUT", help="The same as --input_path.")]
ScenesPath = Annotated[
    Path | None,
    typer.Option(
        "--input_path", "--input-path", help="A scene folder, a folder of them, or an image."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", help="worldstereo-tiny (bundled), worldstereo (published), or a YAML file."
    ),
]
OptionalModel = Annotated[
    str | None, typer.Option("--model", help="As in run; default: the configuration's.")
]
Estimator = Annotated[
    str | None,
    typer.Option("--estimator", help="Of depth that is not given: moge or depth_pro."),
]
Variants = Annotated[
    str | None, typer.Option("--variants", help="Names of variants, with commas between them.")
]
Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        min=1,
        help="Clips of a variant generated at once; default: what the GPUs allow, one on a CPU.",
    ),
]
Fsdp = Annotated[
    bool,
    typer.Option("--fsdp", help="Shard the weights over a clip's GPUs: with --cfg or --ulysses."),
]
Cfg = Annotated[
    int | None,
    typer.Option("--cfg", min=1, max=2, help="2: both passes of a guided step at once, 2 GPUs."),
]
Ulysses = Annotated[
    int | None,
    typer.Option("--ulysses", min=1, help="GPUs that the tokens of a clip are split over."),
]
LocalFilesOnly = Annotated[
    bool,
    typer.Option("--local_files_only", "--local-files-only", help="Never download weights."),
]


def register(app: typer.Typer) -> None:
    """Add the server's commands to the command line."""
    app.command("run")(run)
    app.command("serve")(serve)
    app.command("build")(build)
    app.command("export")(export)
    app.command("evaluate")(evaluate)
    app.command("doctor")(doctor)
    app.command("gc")(gc)
    app.command("fetch-weights")(fetch_weights)
    app.add_typer(keys_app)


def run(
    scene: Scenes = None,
    input_path: ScenesPath = None,
    output_path: options.Output = Path("outputs"),
    model_type: options.Variant = DEFAULT_VARIANT,
    task_type: options.TaskType = None,
    align_nframe: options.AlignNframe = 8,
    seed: options.Seed = 1024,
    depth: options.Depth = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    prompt: options.Prompt = None,
    trajectory: options.Trajectories = None,
    panorama: options.Panorama = False,
    fov: options.FieldOfView = None,
    clearance: options.Clearance = None,
    outputs: options.Outputs = None,
    estimator: Estimator = None,
    local_files_only: LocalFilesOnly = False,
    fsdp: Fsdp = False,
    cfg: Cfg = None,
    ulysses: Ulysses = None,
    model: Model = "worldstereo-tiny",
    replicas: Replicas = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Use this server instead of an embedded cluster.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Generate a scene, every scene of a folder of scenes, or one built from an image.

    Without --url a cluster runs on this machine, on loopback, for as long as the command does.
    """
    path = options.one_input(scene, input_path)
    if url is not None and (fsdp or cfg is not None or ulysses is not None):
        raise _servers_own_layout()
    variant = model_type or DEFAULT_VARIANT
    parameters = {
        "variant": variant,
        "seed": seed,
        "depth": depth,
        "task_type": task_type,
        "align_nframe": align_nframe,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "outputs": options.output_names(outputs),
    }
    image = options.image_arguments(prompt, trajectory, panorama, fov, clearance)
    console = Console(stderr=True, quiet=as_json)
    with engine_errors(), ExitStack() as stack:
        from deployments import local_run

        local_run.catch_termination()
        calls.scene_request(**{k: v for k, v in parameters.items() if k != "depth"})
        scenes = [path]
        if url is None:
            data = stack.enter_context(tempfile.TemporaryDirectory(prefix="worldstereo-"))
            arguments = local_run.app_args(
                {
                    "model": local_run.with_layout(model, cfg, ulysses, fsdp),
                    "variants": [variant],
                    "local_files_only": local_files_only,
                    "data_dir": data,
                    "generator": {"replicas": replicas},
                    "depth": estimator and {"estimator": estimator},
                }
            )
            scenes = local_run.validated_scenes(path, arguments, parameters, image, console)
            url = stack.enter_context(
                local_run.embedded_cluster(arguments, port=0, console=console)
            )
        client = stack.enter_context(Client(url))
        parameters |= image
        code = local_run.generate(client, scenes, parameters, output_path, console, as_json=as_json)
    raise typer.Exit(code)


def serve(
    config: Annotated[
        str, typer.Option("--config", help="Cluster: a name in configs/clusters or a YAML file.")
    ] = "local",
    host: Annotated[
        str, typer.Option("--host", help="Beyond loopback with --require-keys only.")
    ] = "127.0.0.1",
    require_keys: Annotated[
        bool,
        typer.Option("--require-keys", help="Ask for API keys: `worldstereo keys create`."),
    ] = False,
    allow_unauthenticated: Annotated[
        bool,
        typer.Option(
            "--allow-unauthenticated",
            help="Let whoever reaches --host send, see and cancel all scenes, without a key.",
        ),
    ] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of uploads, results and the store.")
    ] = None,
    model: OptionalModel = None,
    variants: Variants = None,
    replicas: Replicas = None,
    fsdp: Fsdp = False,
    cfg: Cfg = None,
    ulysses: Ulysses = None,
    estimator: Estimator = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Serve the HTTP API on this machine until Ctrl-C, in an embedded cluster."""
    console = Console(stderr=True)
    with engine_errors():
        from configs.loader import load_cluster
        from deployments import local_run
        from deployments.listening import check_listening

        settings = load_cluster(config)
        fields = settings.app.model_dump(exclude_unset=True)
        asked = {"required": require_keys, "allow_unauthenticated": allow_unauthenticated}
        fields["auth"] = {**fields.get("auth", {}), **{k: v for k, v in asked.items() if v}}
        if replicas is not None:
            fields["generator"] = {**fields.get("generator", {}), "replicas": replicas}
        if estimator is not None:
            fields["depth"] = {**(fields.get("depth") or {}), "estimator": estimator}
        changed: dict[str, Any] = {
            "data_dir": data,
            "model": local_run.with_layout(model or settings.app.model, cfg, ulysses, fsdp),
            "variants": variants and variants.split(","),
            "local_files_only": local_files_only or None,
        }
        fields |= {name: value for name, value in changed.items() if value is not None}
        arguments = local_run.app_args(fields)
        check_listening(host, arguments)
        local_run.catch_termination()
        wanted = settings.http_port if port is None else port
        with (
            suppress(KeyboardInterrupt),
            local_run.embedded_cluster(arguments, port=wanted, console=console, host=host) as url,
        ):
            typer.echo(f"serving at {url}; description of the API: {url}/docs; Ctrl-C stops it")
            threading.Event().wait()


def doctor(
    model: Model = "worldstereo-tiny",
    variant: options.Variant = DEFAULT_VARIANT,
    port: Annotated[int, typer.Option("--port", help="Port that serve would take.")] = 8000,
    data: Annotated[Path, typer.Option("--data", help="Folder that serve would write to.")] = Path(
        "data"
    ),
    as_json: options.Json = False,
) -> None:
    """Check packages, GPUs, codecs, weights, port and disk; say what to type where one lacks."""
    with engine_errors():
        from deployments import doctor as checks

        found = checks.examine(model, variant or DEFAULT_VARIANT, port, data)
        checks.show(found, as_json=as_json)
    raise typer.Exit(ExitCode.OK if checks.is_fine(found) else ExitCode.INSTALLATION)


def fetch_weights(
    model: Model = "worldstereo",
    variants: Variants = DEFAULT_VARIANT,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Download a model's weights, or go on with a download, and print where they lie."""
    with engine_errors():
        from configs.loader import load_model
        from deployments.weights import weights_of
        from worldstereo.config import variant_named

        settings = load_model(model)
        for name in (variants or DEFAULT_VARIANT).split(","):
            parts = weights_of(settings, variant_named(name), local_files_only=local_files_only)
            for part in parts:
                typer.echo(f"{part.what}: {part.folder}")


def _servers_own_layout() -> errors.ParameterError:
    return errors.ParameterError(
        "how a clip is split over GPUs is that server's own",
        where="--url",
        got="one of --fsdp, --cfg, --ulysses beside it",
        fix="leave them out, or name them to `worldstereo serve` there",
    )
