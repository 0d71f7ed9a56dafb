"""Make the animated cameras of a generated scene inside Blender.

Run it there, with the cameras.json that lies beside it::

    blender --python import_cameras.py

or open it in Blender's text editor and press Run. It adds one camera for each trajectory, with a
key at every frame from frame 1 on, and sets the render's size and frame rate. The world is
Blender's, Z up: points.glb, imported with File > Import > glTF, lies where the cameras see it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIRST_FRAME = 1


def add_cameras(description: dict[str, Any], bpy: Any, matrix: Any) -> list[Any]:
    """Add the cameras to the current scene.

    Args:
        description: the content of cameras.json.
        bpy: Blender's module.
        matrix: ``mathutils.Matrix``.

    Returns:
        The camera objects, in the order of the file; the first becomes the scene's camera.
    """
    scene = bpy.context.scene
    scene.render.resolution_x = description["width"]
    scene.render.resolution_y = description["height"]
    scene.render.resolution_percentage = 100
    scene.render.pixel_aspect_x = description["pixel_aspect_x"]
    scene.render.pixel_aspect_y = description["pixel_aspect_y"]
    scene.render.fps = description["fps"]
    scene.render.fps_base = 1.0
    scene.frame_start = FIRST_FRAME
    frames = max(len(entry["frames"]) for entry in description["cameras"])
    scene.frame_end = FIRST_FRAME + frames - 1
    cameras = []
    for entry in description["cameras"]:
        lens = bpy.data.cameras.new(entry["name"])
        lens.sensor_fit = "HORIZONTAL"
        lens.sensor_width = description["sensor_width_mm"]
        camera = bpy.data.objects.new(entry["name"], lens)
        camera.rotation_mode = "QUATERNION"
        scene.collection.objects.link(camera)
        animate(camera, entry["frames"], matrix)
        cameras.append(camera)
    scene.camera = cameras[0]
    scene.frame_set(FIRST_FRAME)
    return cameras


def animate(camera: Any, frames: list[dict[str, Any]], matrix: Any) -> None:
    """Set a camera's place, lens and shifts at every frame, each with a key."""
    before = None
    for number, frame in enumerate(frames, start=FIRST_FRAME):
        camera.matrix_world = matrix(frame["matrix_world"])
        # q and -q are one rotation, but between two keys the path must not go the long way.
        if before is not None and before.dot(camera.rotation_quaternion) < 0:
            camera.rotation_quaternion.negate()
        before = camera.rotation_quaternion.copy()
        camera.data.lens = frame["lens_mm"]
        camera.data.shift_x = frame["shift_x"]
        camera.data.shift_y = frame["shift_y"]
        for path in ("location", "rotation_quaternion"):
            camera.keyframe_insert(path, frame=number)
        for path in ("lens", "shift_x", "shift_y"):
            camera.data.keyframe_insert(path, frame=number)


def beside(bpy: Any) -> Path:
    """The folder of this script, also where Blender's text editor runs it."""
    here = Path(__file__)
    if not here.is_file():
        here = Path(bpy.path.abspath(bpy.context.space_data.text.filepath))
    return here.resolve().parent


def main() -> None:
    """Read cameras.json beside this script and add its cameras."""
    import bpy  # type: ignore[import-not-found]
    import mathutils  # type: ignore[import-not-found]

    text = (beside(bpy) / "cameras.json").read_text(encoding="utf-8")
    add_cameras(json.loads(text), bpy, mathutils.Matrix)


if __name__ == "__main__":
    main()
