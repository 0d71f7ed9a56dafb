"""The stage behind the clips, with an estimator whose unit is not the cameras'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from actors.memory_bank import MemoryBankActor
from tests.actors.test_built_scene import PATHS, WORLD, exact_views, photo_spec
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import GenerationError
from worldstereo.formats.depth_maps import read_depth_maps
from worldstereo.formats.results import read_trajectory
from worldstereo.models.source import bundled_folder, read_model_config
from worldstereo.types import UInt8

# What the estimator takes a unit of the cameras for.
OFF = 0.4


class OffDepth:
    """Knows the depth of every frame that it was shown, in a unit of its own."""

    def __init__(self) -> None:
        self.known: dict[bytes, DepthMap] = {}

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        return [self.known[image.tobytes()] for image in images]


def test_estimated_depth_is_written_in_the_unit_of_the_cameras(tmp_path: Path) -> None:
    config = read_model_config(bundled_folder("worldstereo-tiny") / "worldstereo-memory-dmd")
    estimator = OffDepth()
    spec = replace(photo_spec(tmp_path, config), estimator=estimator)
    bank = MemoryBankActor(spec)
    bank.open("epoch")
    for name in PATHS:
        clip, _ = bank.prepare(f"renders/{name}")
        assert clip is not None
        frames = exact_views(clip.cameras)
        depths = WORLD.render(clip.cameras, samples=1).depths * np.float32(OFF)
        for frame, depth in zip(frames, depths, strict=True):
            estimator.known[frame.tobytes()] = DepthMap(depth, metric=True)
        assert bank.commit(clip.trajectory_id, frames, {})
    # The start image is frame 0 of every clip as it was given.
    for name in PATHS:
        first = read_trajectory(spec.output / "renders" / name).frames[0].tobytes()
        assert first in estimator.known
    bank.reconstruct(("points", "colmap", "depth"))
    check_unit(spec.output)
    (spec.input / "points.ply").unlink()  # as in a scene that was not built from an image
    bank.reconstruct(("points", "colmap", "depth"))
    check_unit(spec.output)


def check_unit(output: Path) -> None:
    for name in PATHS:
        cameras = read_trajectory(output / "renders" / name).cameras
        written = read_depth_maps(output / "depth" / "renders" / name).depths
        ratio = written / WORLD.render(cameras, samples=1).depths
        np.testing.assert_allclose(np.median(ratio, axis=(1, 2)), 1, atol=0.03)
    model = pycolmap.Reconstruction(str(output / "colmap"))
    # Points are seen where the depth says so: in unlike units in next to none.
    assert model.compute_mean_track_length() > 3


def test_what_needs_no_points_is_written_where_there_are_none(tmp_path: Path) -> None:
    config = read_model_config(bundled_folder("worldstereo-tiny") / "worldstereo-memory-dmd")
    spec = photo_spec(tmp_path, config)
    bank = MemoryBankActor(spec)
    bank.open("epoch")
    (spec.input / "points.ply").unlink()
    for name in PATHS:
        clip, _ = bank.prepare(f"renders/{name}")
        assert clip is not None
        grey = np.full_like(clip.render_video, 128)  # nothing that stereo could match
        bank.commit(clip.trajectory_id, grey, {})
    with pytest.raises(GenerationError, match="no points were found"):
        bank.reconstruct(("points", "transforms", "colmap"))
    assert (spec.output / "transforms.json").is_file()
    assert pycolmap.Reconstruction(str(spec.output / "colmap")).num_images() > 0
    assert not (spec.output / "points.ply").exists()
