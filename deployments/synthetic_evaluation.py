"""The product on synthetic scenes: an embedded cluster generates them, the engine scores them.

Owns which scenes ``worldstereo evaluate --synthetic`` makes and how they are generated. What is
measured, and how, is ``worldstereo.evaluation``'s.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from worldstereo_client import Client, errors

if TYPE_CHECKING:
    from configs.settings import AppArgs
    from worldstereo.evaluation.report import Report
    from worldstereo.synthetic import SyntheticWorld

GENERATION_SEED = 1024


@dataclass(frozen=True)
class SyntheticScenes:
    """Which scenes are made of worlds.

    Attributes:
        photographs: true pictures that a scene's memory begins with beside the start picture;
            0: scenes of one picture.
        shuffle_photographs: these pictures, not their cameras, are those of the next seed's world.
    """

    photographs: int = 0
    shuffle_photographs: bool = False

    def check(self) -> None:
        """Refuse, before anything is made, what cannot be; ParameterError."""
        from worldstereo.synthetic.photographs import check_count

        if self.photographs:
            check_count(self.photographs)
        elif self.shuffle_photographs:
            raise errors.ParameterError(
                "there are no photographs to shuffle",
                where="--shuffle-photographs",
                got="no photographs",
                fix="say how many there are: --photographs 4",
            )

    def write(self, world: SyntheticWorld, folder: Path, size: tuple[int, int]) -> Path:
        """Make a world's scene of this size (height, width) in a folder; returns the scene's."""
        from worldstereo.synthetic import make_world
        from worldstereo.synthetic.photographs import write_photographed_scene
        from worldstereo.synthetic.scene_folder import write_synthetic_scene

        scene = folder / f"synthetic-{world.seed}"
        if not self.photographs:
            return write_synthetic_scene(world, scene, size)
        other = make_world(world.seed + 1) if self.shuffle_photographs else None
        return write_photographed_scene(world, scene, size, self.photographs, pictures_of=other)


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled.

    Attributes:
        align_nframe: frames of each clip that enter the memory.
        steps: denoising steps; None: the variant's published count.
        guidance: of the variants that have it; None: the model's own scale.
    """

    align_nframe: int
    steps: int | None = None
    guidance: float | None = None

    def parameters(self, variant: str) -> dict[str, Any]:
        """What a scene is submitted with."""
        from worldstereo.config import is_distilled, variant_named

        return {
            "variant": variant,
            "seed": GENERATION_SEED,
            "align_nframe": self.align_nframe,
            "num_inference_steps": self.steps,
            "guidance_scale": None if is_distilled(variant_named(variant)) else self.guidance,
            "outputs": ("points",),
        }


def run_synthetic(
    seeds: Sequence[int],
    variants: tuple[str, ...],
    console: Console,
    *,
    model: str = "worldstereo-tiny",
    replicas: int = 1,
    steps: int | None = None,
    guidance: float | None = None,
    size: str | None = None,
    scenes: SyntheticScenes = SyntheticScenes(),
    keep: Path | None = None,
) -> Report:
    """Make scenes, have an embedded cluster generate them, and score them.

    Args:
        seeds: of the synthetic worlds.
        variants: that are compared.
        console: where progress is shown.
        model: a name or a YAML file, as of ``worldstereo run``.
        replicas: clips of a variant generated at once.
        steps: denoising steps; None: each variant's published count.
        guidance: of the variants that have it; None: the model's own scale.
        size: ``HEIGHTxWIDTH`` of the scenes; None: the model's first working size.
        scenes: which are made of the worlds.
        keep: where ``scenes`` and ``results/<variant>`` stay; None: nowhere.
    """
    from deployments import local_run
    from deployments.weights import model_config_of
    from worldstereo.config import variant_named
    from worldstereo.evaluation.synthetic import SyntheticSettings, evaluate_synthetic
    from worldstereo.synthetic import make_world

    scenes.check()
    kept = empty_folder(keep) if keep else None
    local_run.catch_termination()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="worldstereo-")))
        arguments = application_arguments(model, variants, replicas, work)
        config = model_config_of(local_run.model_of(arguments), variant_named(variants[0]))
        height, width = working_size(size, config.scale_map)
        settings = SyntheticSettings(
            variants=arguments.variants, scale_map=config.scale_map, nframe=config.nframe
        )
        sampling = Sampling(settings.align_nframe, steps, guidance)
        generate = cluster_generation(arguments, console, stack, sampling)
        say(console, f"making {len(seeds)} scenes of {height}x{width}")
        return evaluate_synthetic(
            [make_world(seed) for seed in seeds],
            generate,
            partial(scenes.write, size=(height, width)),
            settings,
            kept or work,
            told={
                "model": Path(model).name,
                "size": [height, width],
                "steps": steps,
                "guidance": guidance,
                "generation_seed": GENERATION_SEED,
                **asdict(scenes),
            },
            on_scene=lambda name: say(console, f"scored {name}"),
            processes=min(len(seeds), os.cpu_count() or 1),
        )


def empty_folder(folder: Path) -> Path:
    """Make a folder, or take an empty one; ParameterError for one with something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise errors.ParameterError(
            "scenes and results are kept in a folder of their own",
            where="--keep",
            got=f"{folder}, which " + ("holds files" if folder.is_dir() else "is a file"),
            allowed="a new or an empty folder",
            fix="name another one",
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def application_arguments(
    model: str, variants: Sequence[str], replicas: int, work: Path
) -> AppArgs:
    """The application's arguments, its data in a new folder ``data`` of ``work``."""
    from deployments import local_run

    data = work / "data"
    data.mkdir()
    return local_run.app_args(
        {
            "model": model,
            "variants": list(dict.fromkeys(variants)),
            "data_dir": str(data),
            "generator": {"replicas": replicas},
        }
    )


def working_size(text: str | None, scale_map: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) from ``HEIGHTxWIDTH``: one of the model's; None: its first.

    Raises:
        ParameterError: it is none of them.
    """
    sizes = {f"{height}x{width}": (height, width) for height, width in scale_map}
    if text is None:
        return scale_map[0][0], scale_map[0][1]
    if text not in sizes:
        raise errors.ParameterError(
            "the model does not work at this size",
            where="--size",
            got=repr(text),
            allowed=", ".join(sizes),
        )
    return sizes[text]


def cluster_generation(
    arguments: AppArgs,
    console: Console,
    stack: ExitStack,
    sampling: Sampling,
) -> Callable[[Sequence[Path], str, Path], Mapping[str, str]]:
    """A function that generates scenes on an embedded cluster, as ``run`` does.

    The cluster starts with the first call and stops with ``stack``.

    Args:
        arguments: of the application.
        console: where progress is shown.
        stack: owns the cluster.
        sampling: how clips are sampled.
    """
    from deployments import local_run

    started: list[Client] = []

    def generate(scenes: Sequence[Path], variant: str, output: Path) -> Mapping[str, str]:
        if not started:
            url = stack.enter_context(
                local_run.embedded_cluster(arguments, port=0, console=console)
            )
            started.append(stack.enter_context(Client(url)))
        return submitted(started[0], scenes, sampling.parameters(variant), output, console)

    return generate


def submitted(
    client: Client,
    scenes: Sequence[Path],
    parameters: Mapping[str, Any],
    output: Path,
    console: Console,
) -> dict[str, str]:
    """Submit scenes together, wait for them in turn, and fetch what each of them has.

    Returns:
        Why scenes did not complete, by name; the others are not in it.
    """
    from worldstereo_client.cli import failure_reason
    from worldstereo_client.schemas import SceneStatus

    reasons = {}
    jobs = [client.scenes.submit(scene, **parameters) for scene in scenes]
    for scene, job in zip(scenes, jobs, strict=True):
        ended = job.wait(check=False)
        job.download(output / scene.name)
        if ended.status is not SceneStatus.COMPLETED:
            reasons[scene.name] = failure_reason(ended)
        say(console, f"{parameters['variant']}: {scene.name} {ended.status.value}")
    return reasons


def say(console: Console, line: str) -> None:
    """Show a line of progress as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
