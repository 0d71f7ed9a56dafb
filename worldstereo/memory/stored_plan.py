"""The plan of a scene in its output folder: made once, then read by whoever goes on.

Owns plan.json and the rule that a folder belongs to one scene, one model configuration and one
set of parameters. What a plan says is plan.py's; everything else in the folder is scene.py's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.errors import ParameterError
from worldstereo.formats.atomic import atomic_write_text
from worldstereo.memory.features import ImageFeatures
from worldstereo.memory.plan import ScenePlan, check_targets, plan_scene
from worldstereo.types import Cameras, SceneInput

PLAN_FILE = "plan.json"


def open_plan(
    scene: SceneInput,
    parameters: SceneParameters,
    config: ModelConfig,
    output: Path,
    image_features: ImageFeatures | None,
) -> ScenePlan:
    """The plan in an output folder; made and written where there is none yet.

    Args:
        scene: the scene that was read.
        parameters: must be those that the folder was started with, if it was.
        config: of the model that generates the clips.
        output: the result folder, which exists.
        image_features: loaded where the plan leaves a choice to the images.

    Raises:
        ParameterError: the folder holds results of something else; parameters outside their
            range; image features are needed and not given.
        CameraError: cameras that no plan can be made for.
        CheckpointError: the image features cannot be loaded.
    """
    digest = input_digest(scene, config)
    plan = _read_plan(output / PLAN_FILE)
    if plan is not None:
        _check_plan(plan, parameters, digest, output)
        _require_features(plan, image_features)
        return plan
    _refuse_results_without_plan(scene, output)
    plan = plan_scene(scene, parameters, config.nframe)
    check_targets(scene, plan)
    plan = plan.model_copy(update={"input_sha256": digest})
    # Before the plan is written: what cannot be generated leaves no trace in the folder.
    _require_features(plan, image_features)
    atomic_write_text(output / PLAN_FILE, plan.model_dump_json(indent=1) + "\n")
    return plan


def input_digest(scene: SceneInput, config: ModelConfig) -> str:
    """SHA-256 of all that a scene's results depend on beside its parameters.

    Cameras, prompts, order, working size, the model's configuration and the bytes of every
    image, video and depth map; not where the files lie.
    """
    digest = hashlib.sha256(config.model_dump_json().encode())
    for record in _records(scene):
        digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _records(scene: SceneInput) -> Iterator[dict[str, Any]]:
    yield {"layout": scene.layout, "size": list(scene.size)}
    for frame in scene.start_frames:
        yield {"id": frame.id, "image": _sha256(frame.image), **_camera_record(frame.camera)}
    for trajectory in scene.trajectories:
        files = ("start_image", "render", "render_mask", "depth")
        yield {
            "id": trajectory.id,
            "prompt": trajectory.prompt,
            "starts_after": trajectory.starts_after,
            **{name: _sha256(getattr(trajectory, name)) for name in files},
            "depth_unit": _sha256(_unit_file(trajectory.depth)),
            **_camera_record(trajectory.cameras),
        }


def _camera_record(cameras: Cameras) -> dict[str, Any]:
    return {
        "camera_from_world": cameras.camera_from_world.astype("<f4").tolist(),
        "intrinsics": cameras.intrinsics.astype("<f4").tolist(),
        "camera_size": [cameras.height, cameras.width],
    }


def _unit_file(depth: Path | None) -> Path | None:
    """The JSON file that states the unit of a depth map in a PNG, where there is one."""
    beside = depth.with_suffix(".json") if depth is not None else None
    return beside if beside is not None and beside.is_file() else None


def _sha256(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_plan(path: Path) -> ScenePlan | None:
    """The stored plan; None where there is no file."""
    if not path.exists():
        return None
    try:
        return ScenePlan.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ParameterError(
            "the output folder holds a plan that this version cannot read",
            where=str(path),
            got=f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}",
            fix="choose another output folder",
        ) from problem


def _check_plan(plan: ScenePlan, parameters: SceneParameters, digest: str, output: Path) -> None:
    """Refuse to go on in a folder that was started with something else."""
    stored, wanted = plan.parameters.model_dump(), parameters.model_dump()
    different = [name for name in wanted if stored[name] != wanted[name]]
    if different:
        raise ParameterError(
            "the output folder was started with other parameters",
            where=str(output / PLAN_FILE),
            got=", ".join(f"{name} {wanted[name]!r}" for name in different),
            allowed=", ".join(f"{name} {stored[name]!r}" for name in different),
            fix="choose another output folder, or the same parameters",
        )
    if plan.input_sha256 != digest:
        raise ParameterError(
            "the output folder was started with another scene or model",
            where=str(output / PLAN_FILE),
            got=f"input {digest[:12]}",
            allowed=f"input {plan.input_sha256[:12]}",
            fix="choose another output folder",
        )


def _refuse_results_without_plan(scene: SceneInput, output: Path) -> None:
    for trajectory in scene.trajectories:
        if (output / trajectory.view / trajectory.name).exists():
            raise ParameterError(
                "the output folder holds results without a plan",
                where=str(output),
                got=trajectory.id,
                allowed="an empty folder, or one that a scene was started in",
                fix="choose another output folder",
            )


def _require_features(plan: ScenePlan, image_features: ImageFeatures | None) -> None:
    """Open the image features now if any clip will need them, so that none fails late."""
    reduced = [trajectory.id for trajectory in plan.trajectories if trajectory.reduced]
    if not reduced:
        return
    if image_features is None:
        raise ParameterError(
            "image features are needed to choose among the references",
            where="image_features",
            got="none",
            allowed="a DINOv2 network",
            fix=f"give one, or raise max_reference: {len(reduced)} clips have more candidates",
        )
    image_features.load()
