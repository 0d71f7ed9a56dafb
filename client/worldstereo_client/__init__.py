"""Python client of a WorldStereo Cluster server: no torch, no Ray.

::

    from worldstereo_client import Client

    with Client("http://127.0.0.1:8000") as client:
        job = client.scenes.submit("scenes/kitchen", variant="worldstereo-memory-dmd")
        job.wait(progress=True)
        job.download("outputs/kitchen")

``AsyncClient`` is the same for asyncio; ``errors`` draws the tree of exceptions, ``schemas`` is the
wire contract.
"""

from worldstereo_client import errors, schemas
from worldstereo_client.cameras import TrajectoryCameras
from worldstereo_client.client import DEFAULT_URL, AsyncClient, Client
from worldstereo_client.errors import WorldStereoError
from worldstereo_client.handles import AsyncSceneJob, SceneJob
from worldstereo_client.retry import RetryPolicy

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "AsyncSceneJob",
    "Client",
    "RetryPolicy",
    "SceneJob",
    "TrajectoryCameras",
    "WorldStereoError",
    "errors",
    "schemas",
]
