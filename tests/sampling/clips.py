"""Synthetic clips: a coloured pattern that slides past a camera on rails."""

import numpy as np

from worldstereo.types import Cameras, Clip, References


def make_clip(
    height: int = 32,
    width: int = 48,
    frames: int = 21,
    references: int = 2,
    seed: int = 1024,
    draw: int = 0,
    prompt: str = "A room with a red chair &amp; a window.",
) -> Clip:
    """A clip with ``references`` frames of its own later path as references (0: none)."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 7) * np.cos(y / 5))
    pattern = np.stack(channels, axis=-1)
    video = np.stack([np.roll(pattern, 2 * i, axis=1) for i in range(frames)]).astype(np.uint8)
    camera_from_world = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    camera_from_world[:, 0, 3] = np.linspace(0, 0.5, frames)
    camera_from_world[:, 2, 3] = 1 + np.linspace(0, 0.2, frames)
    intrinsics = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float32)
    cameras = Cameras(camera_from_world, np.tile(intrinsics, (frames, 1, 1)), height, width)
    holes = np.random.default_rng(seed).random((frames, height, width)) < 0.2
    holes[0] = False
    memory = None
    if references:
        rows = list(range(1, references + 1))
        names = tuple(f"renders/earlier/{i:04d}" for i in rows)
        index = tuple(row - 1 for row in rows)
        memory = References(names, video[rows], cameras[rows], index)
    return Clip(
        trajectory_id="renders/traj_up",
        prompt=prompt,
        start_image=video[0],
        render_video=video,
        hole_mask=holes,
        cameras=cameras,
        references=memory,
        seed=seed,
        draw=draw,
    )
