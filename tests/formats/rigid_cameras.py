"""Random rigid cameras, and a known one, for the tests of every camera format."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from worldstereo.types import Cameras


def rigid(quaternion: list[float], center: list[float]) -> np.ndarray:
    """[4, 4] camera_from_world of a camera with this xyzw world-from-camera turn and centre."""
    matrix = np.eye(4)
    turn = Rotation.from_quat(quaternion).inv()
    matrix[:3, :3] = turn.as_matrix()
    matrix[:3, 3] = -turn.apply(center)
    return matrix


def some_cameras(seed: int, count: int, *, zoom: bool = True, reach: float = 10.0) -> Cameras:
    """``count`` cameras of 96 x 160 pixels, turned anyhow, within ``reach`` of the origin."""
    random = np.random.default_rng(seed)
    poses = [rigid(random.normal(size=4), random.uniform(-reach, reach, 3)) for _ in range(count)]
    lenses = np.tile(np.eye(3), (count, 1, 1))
    lenses[:, 0, 0] = 120.3
    lenses[:, 1, 1] = 121.7
    lenses[:, :2, 2] = [79.25, 48.5]
    if zoom:
        lenses[:, :2, :2] *= random.uniform(0.8, 1.5, (count, 1, 1))
    return Cameras(np.stack(poses).astype(np.float32), lenses.astype(np.float32), 96, 160)


def aside() -> Cameras:
    """One camera at (1, 0, 0) that looks along +z, upright (OpenCV: the world's y is down)."""
    pose = np.eye(4, dtype=np.float32)
    pose[0, 3] = -1
    lens = np.array([[100, 0, 80], [0, 110, 48], [0, 0, 1]], dtype=np.float32)
    return Cameras(pose[None], lens[None], 96, 160)


def turned_right() -> Cameras:
    """One camera at (0, 0, 2) that looks along the world's +x, upright."""
    half = np.sqrt(0.5)
    pose = rigid([0, half, 0, half], [0, 0, 2]).astype(np.float32)
    return Cameras(pose[None], aside().intrinsics, 96, 160)


def same(read: Cameras, written: Cameras, tolerance: float = 0.0) -> None:
    """Assert that cameras came back: places and turns within ``tolerance``, sizes exactly."""
    assert (read.height, read.width) == (written.height, written.width)
    assert read.camera_from_world.dtype == read.intrinsics.dtype == np.float32
    np.testing.assert_allclose(
        read.camera_from_world, written.camera_from_world, rtol=tolerance, atol=tolerance
    )
    np.testing.assert_allclose(read.intrinsics, written.intrinsics, rtol=tolerance, atol=0)


cameras = st.builds(some_cameras, st.integers(0, 2**32 - 1), st.integers(1, 6), zoom=st.booleans())
