"""Planned retrieval, the reduction to a few references, and the WorldMirror files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from tests.golden.recipe import gaussian
from tests.golden.report import (
    Case,
    Options,
    attempt,
    failed,
    largest_difference,
    largest_length_difference,
)
from worldstereo.config import SceneParameters
from worldstereo.formats.canonical import is_iterative, panorama_order, reconstruction_order
from worldstereo.formats.scene_folder import START_FRAME_ID
from worldstereo.formats.worldmirror import worldmirror_files
from worldstereo.memory.bank import Described, retrieved_again
from worldstereo.memory.plan import ScenePlan, TrajectoryPlan, clip_cameras, plan_scene
from worldstereo.memory.retrieval import (
    CONTINUITY_BONUS,
    Frusta,
    continuity,
    first_uses,
    frusta,
    score,
    target_indices,
    view_angles,
)
from worldstereo.memory.selection import camera_features, farthest_points, quality, select_rows
from worldstereo.types import (
    BankFrame,
    Cameras,
    Float32,
    SceneInput,
    TrajectoryInput,
    UInt8,
)

SCORE_TOLERANCE, ANGLE_TOLERANCE, FEATURE_TOLERANCE = 1e-4, 0.05, 1e-5
MATRIX_TOLERANCE = 1e-5
FEATURE_SIZE = 768
OWN_FOLDER = Path(__file__).parent


def mismatches(actual: Sequence[object], expected: Sequence[object]) -> int:
    """Places at which two sequences differ; missing and surplus ones count."""
    differing = sum(a != b for a, b in zip(actual, expected, strict=False))
    return differing + abs(len(actual) - len(expected))


def _beside(folder: Path, file: str) -> Path:
    """A file of this folder, or of the project's copy where the folder holds a part only."""
    return folder / file if (folder / file).is_file() else OWN_FOLDER / "retrieval" / file


def _views(trajectory_ids: Iterable[str]) -> list[str]:
    return [trajectory_id.partition("/")[0] for trajectory_id in trajectory_ids]


def canonical_order(trajectory_ids: Iterable[str]) -> list[str]:
    """The order that the readers give a scene of these trajectories."""
    ids = sorted(trajectory_ids)
    pairs = [(view, name) for view, _, name in (i.partition("/") for i in ids)]
    if set(_views(ids)) == {"renders"}:
        return [f"renders/{name}" for name in reconstruction_order(name for _, name in pairs)]
    return ["/".join(pair) for pair in panorama_order(pairs)]


class GoldenScene:
    """The scene of ``retrieval.json``: a panorama known by its cameras alone."""

    def __init__(self, folder: Path) -> None:
        self.content: dict[str, Any] = json.loads(_beside(folder, "retrieval.json").read_text())
        self.tensors = load_file(_beside(folder, "retrieval.safetensors"))
        self.nframe: int = self.content.get("nframe", 21)
        self.parameters = SceneParameters(
            align_nframe=self.content["align_nframe"], max_reference=self.content["max_reference"]
        )

    def start_frame(self, number: int) -> str:
        if set(_views(self.content["order"])) == {"renders"}:
            return START_FRAME_ID
        return f"pano_bank/{number:04d}"

    def cameras(self, name: str) -> Cameras:
        return Cameras(
            self.tensors[f"{name}.world_to_camera"],
            self.tensors[f"{name}.intrinsics"],
            self.content["image_height"],
            self.content["image_width"],
        )

    @cached_property
    def input(self) -> SceneInput:
        bank = self.cameras("bank")
        trajectories = []
        for trajectory_id in self.content["order"]:
            view, name = trajectory_id.split("/")
            iterative = is_iterative(view, name)
            trajectories.append(
                TrajectoryInput(
                    view=view,
                    name=name,
                    cameras=self.cameras(trajectory_id),
                    prompt="",
                    start_image=None if iterative else Path("start_frame.png"),
                    starts_after=f"{view}/traj0" if iterative else None,
                )
            )
        return SceneInput(
            name="golden",
            layout="panorama",
            root=Path(),
            size=(bank.height, bank.width),
            start_frames=tuple(
                BankFrame(self.start_frame(i), Path("start.png"), bank[[i]])
                for i in range(len(bank))
            ),
            trajectories=tuple(trajectories),
        )

    @cached_property
    def plan(self) -> ScenePlan:
        return plan_scene(self.input, self.parameters, self.nframe)

    @cached_property
    def bank(self) -> dict[str, Cameras]:
        """Every frame that the memory holds at the end, in bank order."""
        cameras = {frame.id: frame.camera for frame in self.input.start_frames}
        for trajectory in self.plan.trajectories:
            clip = clip_cameras(self.input.trajectory(trajectory.id), self.nframe)
            cameras |= {frame_id: clip[[index]] for frame_id, index in trajectory.adds}
        return cameras

    def described(self, frame_ids: Sequence[str]) -> Described:
        """Features and quality as the golden files seed them, by frame id."""
        salt = self.content.get("salt", 0)
        features = [gaussian(f"feature.{i}", (FEATURE_SIZE,), salt).numpy() for i in frame_ids]
        qualities = [5 + float(gaussian(f"quality.{i}", (1,), salt)[0]) for i in frame_ids]
        return Described(np.stack(features), np.array(qualities))

    def retrieved(self, plan: TrajectoryPlan) -> tuple[str, ...]:
        """The frame used for each target, after any reduction."""
        if not plan.reduced:
            return plan.nearest
        return retrieved_again(
            plan,
            np.concatenate([self.bank[i].camera_from_world for i in plan.nearest]),
            self.described(plan.nearest),
            self.parameters.max_reference,
        )


@dataclass
class Differences:
    """Differences, and where each was found."""

    values: list[float] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def see(self, value: float, where: str) -> None:
        self.values.append(value)
        self.places.append(where)

    def case(self, name: str, tolerance: float) -> Case:
        """The largest of them (NaN is larger than all); infinity when nothing was compared."""
        if not self.values:
            return Case(name, float("inf"), tolerance, "nothing was compared")
        worst = int(np.argmax(self.values))
        return Case(name, self.values[worst], tolerance, self.places[worst])


def check_retrieval(folder: Path, options: Options) -> Iterator[Case]:
    scene = GoldenScene(folder)
    content, plan = scene.content, scene.plan
    names = [trajectory.id for trajectory in plan.trajectories]
    rows = {f"{row['view']}/{row['trajectory']}": row for row in content["rows"]}
    ordered = canonical_order(rows)
    yield Case("retrieval canonical order", mismatches(ordered, content["order"]), 0)
    yield Case("retrieval order of rows", mismatches(names, list(rows)), 0)
    scores, angles = Differences(), Differences()
    every = {frame_id: frusta(cameras) for frame_id, cameras in scene.bank.items()}
    for trajectory in plan.trajectories:
        row = rows[trajectory.id]
        used = scene.retrieved(trajectory)
        wrong = {
            "bank_size": int(trajectory.bank_size != row["bank_size"]),
            "nearest": mismatches(trajectory.nearest, row["nearest"]),
            "reduced": int(trajectory.reduced != row["reduced"]),
            "retrieved": mismatches(used, row["retrieved"]),
            "ref_index": mismatches(
                first_uses(used)[1] if trajectory.reduced else trajectory.ref_index,
                row["ref_index"],
            ),
            "depends_on": mismatches(trajectory.depends_on, row["depends_on"]),
            "level": int(trajectory.level != content["level"][trajectory.id]),
            "targets": _check_targets(scene, trajectory, used, row, every, scores, angles),
        }
        note = ", ".join(f"{name} {count}" for name, count in wrong.items() if count)
        yield Case(f"retrieval {trajectory.id}", sum(wrong.values()), 0, note)
    yield scores.case("retrieval scores", SCORE_TOLERANCE)
    yield angles.case("retrieval angles in degrees", ANGLE_TOLERANCE)
    critical_path = abs(plan.critical_path - content["critical_path"])
    yield Case("retrieval critical path", critical_path, 0)


def _check_targets(
    scene: GoldenScene,
    plan: TrajectoryPlan,
    used: Sequence[str],
    row: dict[str, Any],
    every: dict[str, Frusta],
    scores: Differences,
    angles: Differences,
) -> int:
    """Compare scores and angles target by target; the number of misplaced targets."""
    cameras = scene.cameras(plan.id)
    targets = frusta(cameras[target_indices(len(cameras), scene.nframe)])
    view, name = plan.id.split("/")
    in_bank = list(every)[: plan.bank_size]
    owners = [frame_id.rpartition("/")[0] for frame_id in in_bank]
    bonus = {} if plan.reduced else continuity(view, name, owners, len(targets))
    expected = {
        int(target): (int(reference), *values)
        for reference, of in row["targets"].items()
        for target, values in of.items()
    }
    first = {frame_id: index for frame_id, index in zip(*first_uses(used), strict=True)}
    wrong = abs(len(expected) - len(used))
    for target, frame_id in enumerate(used, start=1):
        if target not in expected or expected[target][0] != first[frame_id]:
            wrong += 1
            continue
        _, expected_score, expected_angle = expected[target]
        of, bank = targets[target : target + 1], every[frame_id]
        # The recorded scores hold the bonus, except among the few chosen by a reduction.
        held = target in bonus and in_bank[bonus[target]] == frame_id
        actual = float(score(of, bank)) + (CONTINUITY_BONUS if held else 0.0)
        where = f"{plan.id} target {target}"
        scores.see(abs(actual - expected_score), where)
        angles.see(abs(float(view_angles(of, bank)) - expected_angle), where)
    return wrong


RECIPE = re.compile(r"g\((?P<name>[^,()]+), ?\((?P<shape>[\d, ]+)\)\)")


def recipe_of(text: str, salt: int, **fields: int) -> torch.Tensor:
    """The tensor that a recipe like ``5+g(name,(20,))`` names; ``fields`` fill in its name."""
    match = RECIPE.search(text)
    assert match is not None, text
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    offset = re.match(r"(-?[\d.]+)\+g\(", text)
    name = match["name"].format(**fields)
    return (float(offset[1]) if offset else 0.0) + gaussian(name, shape, salt)


def quality_image(text: str, salt: int, i: int) -> UInt8:
    """An image made as ``uint8(255*sigmoid(g(...)*(i+1)/3))`` says; the divisor is read."""
    divisor = re.search(r"\(i\+1\)/([\d.]+)\)", text)
    assert divisor is not None, text
    values = recipe_of(text, salt, i=i) * (i + 1) / float(divisor[1])
    image: UInt8 = (255 * torch.sigmoid(values)).to(torch.uint8).numpy()
    return image


def example_cameras(folder: Path, name: str) -> Float32:
    """Cameras of the folder's own ``cameras.safetensors``, else of the project's copy."""
    for parent in (folder.parent, OWN_FOLDER):
        file = parent / "cameras" / "cameras.safetensors"
        if file.is_file():
            tensors = load_file(file)
            if name in tensors:
                return tensors[name]
    raise KeyError(f"{name} is in no cameras/cameras.safetensors")


def check_selection(folder: Path, options: Options) -> Iterator[Case]:
    content: dict[str, Any] = json.loads((folder / "selection.json").read_text())
    described = {"salt", "image", "fps_features", "fps_quality", "fps_k", "fps_quality_bias"}
    for key in [key for key in content if key not in described]:
        name = f"selection {key}"
        if key == "quality":
            yield from attempt(name, _check_quality, name, content)
        elif key == "fps_indices":
            yield from attempt(name, _check_farthest_points, name, content)
        elif re.fullmatch(r"camera_features_\w+_every_2nd", key):
            yield from attempt(name, _check_camera_features, name, folder, content[key])
        elif key.startswith("reduction"):
            salt = content.get("salt", 0)
            yield from attempt(name, _check_reduction, name, folder, content[key], salt)
        else:
            yield failed(name, "there is no check of this")


def _check_quality(name: str, content: dict[str, Any]) -> Iterator[Case]:
    recorded, salt = torch.tensor(content["quality"], dtype=torch.float64), content.get("salt", 0)
    images = (quality_image(content["image"], salt, i) for i in range(len(recorded)))
    qualities = torch.tensor([quality(image) for image in images], dtype=torch.float64)
    yield Case(name, largest_difference(qualities, recorded), SCORE_TOLERANCE)


def _check_farthest_points(name: str, content: dict[str, Any]) -> Iterator[Case]:
    salt = content.get("salt", 0)
    chosen = farthest_points(
        recipe_of(content["fps_features"], salt).numpy(),
        recipe_of(content["fps_quality"], salt).numpy(),
        content["fps_k"],
        bias=content["fps_quality_bias"],
    )
    yield Case(name, mismatches(chosen, content["fps_indices"]), 0)


def _check_camera_features(name: str, folder: Path, recorded: list[list[float]]) -> Iterator[Case]:
    """The rows are cameras 0, 2, 4, ... of a path of which every 4th camera is at hand."""
    path = name.removeprefix("selection camera_features_").removesuffix("_every_2nd")
    rows = torch.tensor(recorded, dtype=torch.float64)[::2]
    cameras = example_cameras(folder, f"{path}.world_to_camera")[: len(rows)]
    difference = largest_length_difference(torch.from_numpy(camera_features(cameras)), rows)
    note = f"{len(rows)} of {len(recorded)} rows; the cameras of the others are not recorded"
    yield Case(name, difference, FEATURE_TOLERANCE, note)


def _check_reduction(
    name: str, folder: Path, reduction: dict[str, Any], salt: int
) -> Iterator[Case]:
    which = re.fullmatch(r"the first (\d+) rows of (\S+)", reduction["cameras"])
    assert which is not None, reduction["cameras"]
    chosen = select_rows(
        example_cameras(folder, which[2])[: int(which[1])],
        recipe_of(reduction["features"], salt).numpy(),
        recipe_of(reduction["quality"], salt).numpy(),
        reduction["k"],
    )
    yield Case(name, mismatches(chosen, reduction["indices"]), 0)


def _worldmirror(folder: Path) -> tuple[str, str]:
    """cameras.json and name_map.json of the scene of ``retrieval.json``."""
    name = "myscene"
    if (folder / "worldmirror_name_map.json").is_file():
        keys = json.loads((folder / "worldmirror_name_map.json").read_text())
        start = next((key for key in keys if "/pano_bank/" in key), f"{name}/pano_bank/")
        name = start.partition("/pano_bank/")[0]
    bank = GoldenScene(folder).bank
    frames = [(i, camera.camera_from_world[0], camera.intrinsics[0]) for i, camera in bank.items()]
    return worldmirror_files(frames, name)


def check_worldmirror_cameras(folder: Path, options: Options) -> Iterator[Case]:
    actual = _worldmirror(folder)[0]
    expected = (folder / "worldmirror_cameras.json").read_text()
    # All to the letter, but that an inverse in float32 may differ in its last digit.
    number = re.compile(r"(?<![\w\"-])-?\d[\d.e+-]*")
    lines, values = [], []
    for text in (actual, expected):
        inverses, intrinsics = text.split('"intrinsics"')
        lines.append(number.sub("#", inverses).splitlines() + intrinsics.splitlines())
        numbers = [float(value) for value in number.findall(inverses)]
        values.append(torch.tensor(numbers, dtype=torch.float64))
    differing = mismatches(actual.splitlines(), expected.splitlines())
    note = f"{differing} lines differ" if differing else "the same to the letter"
    yield Case("worldmirror cameras.json all but inverses", mismatches(*lines), 0, note)
    difference = largest_length_difference(*values)
    yield Case("worldmirror cameras.json inverses", difference, MATRIX_TOLERANCE)


def check_worldmirror_name_map(folder: Path, options: Options) -> Iterator[Case]:
    actual = _worldmirror(folder)[1].splitlines()
    expected = (folder / "worldmirror_name_map.json").read_text().splitlines()
    wrong = mismatches(actual, expected)
    yield Case("worldmirror name_map.json lines", wrong, 0)
