"""Random cameras for the laws, by hypothesis."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float64 = NDArray[np.float64]

# How the laws are run: the same examples in every run, however busy the machine is.
laws = settings(
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)


def rigid(rotation_vector: list[float], center: list[float]) -> Float64:
    """camera_from_world [4, 4] of a camera at ``center``, turned by ``rotation_vector``."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_vector).inv().as_matrix()
    matrix[:3, 3] = -matrix[:3, :3] @ np.asarray(center)
    return matrix


def _vectors(bound: float) -> st.SearchStrategy[list[float]]:
    # A grid of thousandths: cameras that are hardly apart are tested on their own.
    number = st.integers(-int(1000 * bound), int(1000 * bound)).map(lambda n: n / 1000)
    return st.lists(number, min_size=3, max_size=3)


poses: st.SearchStrategy[Float64] = st.builds(rigid, _vectors(1.8), _vectors(5))


def clips(minimum: int = 2, maximum: int = 6) -> st.SearchStrategy[torch.Tensor]:
    """camera_from_world [N, 4, 4] float64."""
    return st.lists(poses, min_size=minimum, max_size=maximum).map(
        lambda matrices: torch.from_numpy(np.stack(matrices))
    )


@st.composite
def pinholes(draw: st.DrawFn, height: int, width: int) -> torch.Tensor:
    """Intrinsics [3, 3] float64 of an image of ``height`` x ``width`` pixels."""
    focal = draw(st.floats(0.5, 2)) * width
    center_x, center_y = draw(st.floats(0.3, 0.7)) * width, draw(st.floats(0.3, 0.7)) * height
    matrix = [[focal, 0, center_x], [0, 1.1 * focal, center_y], [0, 0, 1]]
    return torch.tensor(matrix, dtype=torch.float64)
