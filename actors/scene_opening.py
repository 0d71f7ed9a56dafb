"""What a memory bank is opened from, and opening it: the scene's input, its plan, its results.

Owns building an input from an image, estimating the depth that did not come, and showing what was
built. The actor around it is memory_bank.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actors.blobs import BlobStore
from actors.log_lines import LogOptions
from worldstereo.builder.parameters import BuildParameters
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.depth.protocol import DepthSource
from worldstereo.types import SceneInput

if TYPE_CHECKING:
    from worldstereo.scene import SceneRun

# Files of the result folder: the depth of an image that came without, and what a built scene's
# clips will be generated from.
ESTIMATED_DEPTH = "estimated_depth.npy"
CONTACT_SHEET, PREVIEW = "contact_sheet.png", "preview.mp4"


@dataclass(frozen=True)
class BuildSource:
    """An image that a scene is built from when it is first opened.

    Attributes:
        image: its file, already validated.
        parameters: how.
    """

    image: Path
    parameters: BuildParameters


@dataclass(frozen=True)
class BankSpec:
    """All that a memory bank is opened, and opened again, from.

    Attributes:
        service: tells the services of one Ray cluster apart; names the actor, too.
        scene_id: names the actor.
        input: the scene's folder, already validated; built from ``build`` where it is not there.
        depth: depth map that came beside it, or None.
        task_type: layout that the folder must have; ``auto`` takes any.
        output: the scene's result folder.
        parameters: of its generation.
        config: of the model that generates the clips.
        image_features: folder or repository of the network that chooses among references.
        local_files_only: whether the Hub must not be asked.
        build: the image of a scene that is built from one.
        estimator: of depth that did not come; must be picklable.
        blobs: what keeps the scene's files beside this node; None: all nodes see ``output``.
        folder: of the scene on this node, whose folders ``blobs`` keeps.
        logging: of its process; None leaves it as it is.
        idle_s: after so many seconds without a call its memory is given up, to be read from disk by
            the next one; None: never.
    """

    service: str
    scene_id: str
    input: Path
    depth: Path | None
    task_type: str
    output: Path
    parameters: SceneParameters
    config: ModelConfig
    image_features: str
    local_files_only: bool
    build: BuildSource | None = None
    estimator: DepthSource | None = None
    blobs: BlobStore | None = None
    folder: Path | None = None
    logging: LogOptions | None = None
    idle_s: float | None = None


def build_scene(spec: BankSpec, source: BuildSource) -> None:
    """Build a scene's input folder from its image; it appears whole."""
    from worldstereo.builder.build import build_input
    from worldstereo.formats.atomic import remove_leftovers

    remove_leftovers(spec.input.parent)  # of a process that died while it built
    build_input(
        source.image,
        spec.depth,
        spec.estimator,
        source.parameters,
        spec.input,
        scale_map=spec.config.scale_map,
        renderer=spec.parameters.renderer,
    )


def _show(scene: SceneInput, spec: BankSpec) -> None:
    """Write how a scene was built, and pictures of what its clips will be generated from."""
    from worldstereo.builder.contact_sheet import (
        contact_sheet,
        write_contact_sheet,
        write_preview,
    )
    from worldstereo.builder.report import REPORT_FILE
    from worldstereo.formats.atomic import atomic_write_bytes

    nframe = spec.config.nframe
    sheet, preview = spec.output / CONTACT_SHEET, spec.output / PREVIEW
    report = spec.output / REPORT_FILE
    if not report.is_file():  # the process died when the scene had just been built
        report.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(report, (spec.input / REPORT_FILE).read_bytes())
    if not sheet.is_file():
        write_contact_sheet(sheet, contact_sheet(scene, nframe=nframe))
    if not preview.is_file():
        write_preview(preview, scene, nframe=nframe)


def open_scene(spec: BankSpec) -> SceneRun:
    """The scene's run, from its input and what is committed; what is built shows itself."""
    from worldstereo.builder.estimate import with_estimated_depth
    from worldstereo.formats.scene_folder import read_scene
    from worldstereo.memory.features import DinoFeatures
    from worldstereo.scene import SceneRun

    def read(depth: Path | None) -> SceneInput:
        return read_scene(
            spec.input,
            scale_map=spec.config.scale_map,
            nframe=spec.config.nframe,
            align_nframe=spec.parameters.align_nframe,
            task_type=spec.task_type,
            depth=depth,
            needs_depth=spec.estimator is None,
        )

    # The depth of a panorama or picture that was built from is in its renders.
    scene = read(None if spec.build is not None else spec.depth)
    if spec.build is not None:
        _show(scene, spec)
    if spec.estimator is not None:
        scene = with_estimated_depth(scene, spec.estimator, spec.output / ESTIMATED_DEPTH)
    features = DinoFeatures.from_pretrained(
        spec.image_features, local_files_only=spec.local_files_only
    )
    return SceneRun.open(scene, spec.parameters, spec.config, spec.output, image_features=features)
