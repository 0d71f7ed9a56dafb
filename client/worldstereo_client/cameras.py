"""The cameras of a generated trajectory as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydantic
from numpy.typing import NDArray

from worldstereo_client.errors import UnexpectedResponse


@dataclass(frozen=True, eq=False)
class TrajectoryCameras:
    """F pinhole cameras, one for each frame of a trajectory.

    Args:
        camera_from_world: [F, 4, 4] float32, rigid, world to camera; OpenCV axes (x right, y
            down, z forward).
        intrinsics: [F, 3, 3] float32, pixels of ``height`` x ``width``, pixel centres at +0.5.
        height: rows of the frames.
        width: their columns.
    """

    camera_from_world: NDArray[np.float32]
    intrinsics: NDArray[np.float32]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.camera_from_world)


class _CameraFile(pydantic.BaseModel):
    """What is read of a cameras.json; fields of newer servers are ignored."""

    camera_from_world_opencv: list[list[list[float]]]
    intrinsics: list[list[list[float]]]
    height: int
    width: int


def parse_cameras(content: bytes, name: str) -> TrajectoryCameras:
    """Read a result's cameras.json.

    Args:
        content: the file.
        name: what errors call it.

    Raises:
        UnexpectedResponse: it is no file of cameras.
    """
    try:
        file = _CameraFile.model_validate_json(content)
        cameras = np.array(file.camera_from_world_opencv, dtype=np.float32)
        intrinsics = np.array(file.intrinsics, dtype=np.float32)
    except ValueError as error:
        got = " ".join(str(error).split())[:200]
        raise UnexpectedResponse("no cameras", where=name, got=got) from error
    count = len(cameras)
    if cameras.shape != (count, 4, 4) or intrinsics.shape != (count, 3, 3):
        raise UnexpectedResponse(
            "no cameras",
            where=name,
            got=f"shapes {list(cameras.shape)} and {list(intrinsics.shape)}",
            allowed="[F, 4, 4] and [F, 3, 3]",
        )
    return TrajectoryCameras(cameras, intrinsics, file.height, file.width)
