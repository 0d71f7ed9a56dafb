"""Python client of a WorldStereo Cluster server: no torch, no Ray.

::

    from worldstereo_client import Client, orbit

    with Client("http://127.0.0.1:8000") as client:
        job = client.scenes.submit("scenes/kitchen", variant="worldstereo-memory-dmd")
        job.wait(progress=True)
        job.download("outputs/kitchen")
        # or from one image, along camera paths:
        client.scenes.submit("photo.jpg", prompt="A harbour", trajectories=[orbit(azimuth=30)])

``AsyncClient`` is the same for asyncio; ``errors`` draws the tree of exceptions, ``schemas`` is the
wire contract.
"""

from worldstereo_client import errors, schemas
from worldstereo_client.cameras import TrajectoryCameras
from worldstereo_client.client import DEFAULT_URL, AsyncClient, Client
from worldstereo_client.errors import WorldStereoError
from worldstereo_client.handles import AsyncSceneJob, SceneJob
from worldstereo_client.retry import RetryPolicy
from worldstereo_client.trajectories import (
    chain,
    dolly,
    dolly_zoom,
    ellipse,
    figure8,
    given_cameras,
    keyframes,
    orbit,
    pan,
    pedestal,
    roll,
    spiral,
    tilt,
    truck,
    zoom,
)

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "AsyncSceneJob",
    "Client",
    "RetryPolicy",
    "SceneJob",
    "TrajectoryCameras",
    "WorldStereoError",
    "chain",
    "dolly",
    "dolly_zoom",
    "ellipse",
    "errors",
    "figure8",
    "given_cameras",
    "keyframes",
    "orbit",
    "pan",
    "pedestal",
    "roll",
    "schemas",
    "spiral",
    "tilt",
    "truck",
    "zoom",
]
