"""Scene folders in all three layouts, at a tiny size, and a stand-in for the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.memory.scenes import MeanColors, random_cameras, random_clip, ready
from worldstereo.config import ControlNetConfig, ModelConfig, SceneParameters
from worldstereo.formats.scene_folder import read_scene
from worldstereo.formats.video import write_video
from worldstereo.scene import SceneRun
from worldstereo.types import Clip, SceneInput, UInt8

FRAMES, SIZE, IMAGE_SIZE = 5, (32, 48), (64, 96)
PARAMETERS = SceneParameters(seed=7, align_nframe=2, max_reference=2)
CONFIG = ModelConfig(
    base_model="base",
    nframe=FRAMES,
    latent_cond_mode="full_vae",
    scale_map=(SIZE,),
    controlnet_cfg=ControlNetConfig(
        dim=8,
        ffn_dim=8,
        num_heads=1,
        num_layers=1,
        time_embed_dim=8,
        conv_out_dim=8,
        add_channels=7,
        mid_channels=8,
    ),
)
TRAJECTORIES = ("renders/traj_eloop", "renders/traj_up", "renders/traj_right", "renders/traj_left")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def camera_json(seed: int, count: int = FRAMES) -> dict[str, object]:
    """Cameras that start at the identity and turn about the scene, for images of IMAGE_SIZE."""
    height, width = IMAGE_SIZE
    cameras = random_cameras(np.random.default_rng(seed), count, height=height, width=width)
    relative = cameras.camera_from_world @ np.linalg.inv(cameras.camera_from_world[0])
    return {
        "extrinsic": relative.tolist(),
        "intrinsic": cameras.intrinsics.tolist(),
        "height": height,
        "width": width,
    }


def write_render(folder: Path, seed: int) -> None:
    """Render, mask and cameras of one trajectory."""
    folder.mkdir(parents=True)
    height, width = IMAGE_SIZE
    values = np.random.default_rng(seed).integers(0, 256, (FRAMES, 3), dtype=np.uint8)
    video = np.broadcast_to(values[:, None, None], (FRAMES, height, width, 3))
    mask = np.zeros((FRAMES, height, width, 3), dtype=np.uint8)
    mask[:, :, : width // 2] = 255
    write_video(folder / "render.mp4", np.ascontiguousarray(video))
    write_video(folder / "render_mask.mp4", mask)


def start_image() -> UInt8:
    rows, columns = np.mgrid[: IMAGE_SIZE[0], : IMAGE_SIZE[1]]
    return np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)


def write_reconstruction(folder: Path) -> Path:
    """A folder in the reconstruction layout with four trajectories."""
    folder.mkdir(parents=True)
    Image.fromarray(start_image()).save(folder / "image.png")
    write_json(folder / "prompt.json", {"prompt": "a hall"})
    for seed, trajectory in enumerate(TRAJECTORIES):
        write_render(folder / trajectory, seed)
        write_json(folder / trajectory / "camera.json", camera_json(seed))
    return folder


def write_panorama(folder: Path) -> Path:
    """A folder in the panorama layout whose last trajectory starts where another one ends."""
    bank = {}
    for number in range(3):
        cameras = camera_json(20 + number, 1)
        name = f"{number:04d}"
        bank[name] = {key: cameras[key][0] for key in ("extrinsic", "intrinsic")}  # type: ignore[index]
        (folder / "pano_bank" / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_clip(name, 1, IMAGE_SIZE)[0]).save(
            folder / "pano_bank" / "images" / f"{name}.png"
        )
    write_json(folder / "pano_bank" / "cameras.json", bank)
    (folder / "reconstruct_0").mkdir()
    Image.fromarray(start_image()).save(folder / "reconstruct_0" / "start_frame.png")
    for seed, name in enumerate(("traj0", "traj1")):
        trajectory = folder / "reconstruct_0" / name
        write_render(trajectory, 30 + seed)
        write_json(trajectory / "camera.json", camera_json(30 + seed))
        write_json(trajectory / "traj_caption.json", {"prompt": "a tower"})
    return folder


def write_single_view(folder: Path) -> Path:
    """One image with its depth and a path that moves to the right of it."""
    folder.mkdir(parents=True)
    Image.fromarray(start_image()).save(folder / "image.png")
    write_json(folder / "prompt.json", {"prompt": "a shelf"})
    height, width = IMAGE_SIZE
    matrices = np.tile(np.eye(4), (9, 1, 1))
    matrices[:, 2, 3] = 3.0
    matrices[:, 0, 3] = -np.linspace(0, 1.5, 9)
    intrinsics = np.array([[80.0, 0, width / 2], [0, 80.0, height / 2], [0, 0, 1]])
    write_json(
        folder / "camera.json",
        {"extrinsic": matrices.tolist(), "intrinsic": np.tile(intrinsics, (9, 1, 1)).tolist()},
    )
    np.save(folder / "depth.npy", np.full(IMAGE_SIZE, 3.0, dtype=np.float32))
    return folder


def read(folder: Path) -> SceneInput:
    depth = folder / "depth.npy"
    return read_scene(
        folder,
        scale_map=CONFIG.scale_map,
        nframe=FRAMES,
        align_nframe=PARAMETERS.align_nframe,
        depth=depth if depth.is_file() else None,
    )


def open_run(folder: Path, output: Path, **changed: object) -> SceneRun:
    parameters = PARAMETERS.model_copy(update=changed)
    return SceneRun.open(read(folder), parameters, CONFIG, output, image_features=MeanColors())


def generated(clip: Clip) -> UInt8:
    """A stand-in for the model: frames that depend on every value of the clip."""
    parts = [clip.start_image, clip.render_video, clip.hole_mask, clip.cameras.camera_from_world]
    if clip.references is not None:
        parts += [clip.references.frames, np.array(clip.references.ref_index)]
    numbers = [
        int(np.frombuffer(part.tobytes(), np.uint8).astype(np.int64).sum()) for part in parts
    ]
    random = np.random.default_rng([*numbers, clip.seed, clip.draw])
    return random.integers(0, 256, (FRAMES, *SIZE, 3), dtype=np.uint8)


def run_all(run: SceneRun) -> dict[str, UInt8]:
    """Generate everything that is not committed yet, in the order that is ready."""
    frames = {}
    while waiting := ready(run.plan, run.committed):
        frames[waiting[0]] = generated(run.prepare(waiting[0]))
        assert run.commit(waiting[0], frames[waiting[0]], {"attempt": 1})
    return frames


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
