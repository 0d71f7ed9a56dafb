"""Make the demo scene: ``python -m examples.make_demo_scene [--single-view] [FOLDER]``.

The room of one seed of ``worldstereo.synthetic``: its picture with exact depth, lifted to points
and rendered along four paths, in the published reconstruction layout: image.png, prompt.json and
renders/<trajectory>/ with render.mp4, render_mask.mp4 and camera.json. With ``--single-view`` the
same room in the single-view layout: image.png, prompt.json, camera.json and its depth.npy. The
same command gives the same files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from worldstereo.geometry.trajectories import FRAMES
from worldstereo.synthetic import SyntheticWorld, make_world
from worldstereo.synthetic.paths import PRESETS
from worldstereo.synthetic.scene_folder import write_synthetic_scene, write_synthetic_view

FOLDER = Path(__file__).parent / "demo_scene"
# A bright room whose furniture is seen whole, and whose paths uncover what it hides; from 10000 up,
# so that the bundled model was not trained on it.
SEED = 10_049
SIZE = (256, 384)
# x264's of renders and masks: the bundled scene stays well below a megabyte.
RATE_FACTORS = (20, 14)


def demo_world() -> SyntheticWorld:
    """The room."""
    return make_world(SEED, "room")


def make_demo_scene(folder: Path, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> Path:
    """Write the scene in the reconstruction layout; its files that are there are replaced.

    Args:
        folder: where to.
        size: (height, width) of its picture and videos, even.
        frames: of each video.

    Raises:
        ParameterError: the folder holds something else.
    """
    remove_scene(folder)
    return write_synthetic_scene(
        demo_world(), folder, size, frames=frames, depth=False, rate_factors=RATE_FACTORS
    )


def make_demo_view(folder: Path, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> Path:
    """Write the room in the single-view layout, with its exact depth; arguments as above."""
    remove_scene(folder)
    return write_synthetic_view(demo_world(), folder, size, frames=frames)


def remove_scene(folder: Path) -> None:
    """Remove what this script wrote, file by file, and the folders that are empty then."""
    names = ["image.png", "prompt.json", "camera.json", "depth.npy"]
    for path in PRESETS:
        names += [f"renders/{path}/{file}" for file in ("render.mp4", "render_mask.mp4")]
        names.append(f"renders/{path}/camera.json")
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for part in [*sorted(folder.glob("renders/*")), folder / "renders"]:
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()


def main() -> None:
    """Read the command line and write the scene."""
    parser = argparse.ArgumentParser(prog="python -m examples.make_demo_scene", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--single-view", action="store_true", help="the single-view layout")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make = make_demo_view if arguments.single_view else make_demo_scene
    print(make(arguments.folder))


if __name__ == "__main__":
    main()
