"""The cameras of a result come back as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from worldstereo_client import AsyncClient, Client, errors
from worldstereo_client.cameras import parse_cameras

from tests.client.stub_server import Stub
from worldstereo.formats.results import camera_file
from worldstereo.types import Cameras

NAME = "renders/traj_up/cameras.json"


async def test_the_engines_cameras_come_back_to_the_bit(
    client: Client, async_client: AsyncClient, stub: Stub, scene_folder: Path
) -> None:
    random = np.random.default_rng(0)
    written = Cameras(
        random.standard_normal((21, 4, 4)).astype(np.float32),
        random.uniform(1, 1000, (21, 3, 3)).astype(np.float32),
        128,
        192,
    )
    job = client.scenes.submit(scene_folder)
    stub.scenes[job.id].artefacts[NAME] = camera_file(written).encode()
    twin = await async_client.scenes.job(job.id)
    for read in (job.cameras("renders/traj_up"), await twin.cameras("renders/traj_up")):
        assert len(read) == 21
        assert (read.height, read.width) == (128, 192)
        assert read.camera_from_world.dtype == np.float32
        np.testing.assert_array_equal(read.camera_from_world, written.camera_from_world)
        np.testing.assert_array_equal(read.intrinsics, written.intrinsics)
    with pytest.raises(errors.ArtefactNotFound):
        job.cameras("renders/traj_nowhere")


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"no json",
        b'{"camera_from_world_opencv": [[[1]]], "intrinsics": [[[1]]], "height": 1, "width": 1}',
        b'{"camera_from_world_opencv": [[[1], [1, 2]]], "intrinsics": [], "height": 1, "width": 1}',
    ],
)
def test_what_is_no_file_of_cameras(content: bytes) -> None:
    with pytest.raises(errors.UnexpectedResponse, match=r"cameras\.json: no cameras"):
        parse_cameras(content, NAME)
