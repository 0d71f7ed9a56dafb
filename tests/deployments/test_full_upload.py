"""An upload that there is no space for."""

import errno

import httpx
import pytest
from worldstereo_client.schemas import Problem

from deployments.folders import SceneFolders
from deployments.multipart import UploadReceiver


async def test_an_upload_without_space_is_refused_and_leaves_nothing(
    http: httpx.AsyncClient,
    folders: SceneFolders,
    kitchen_zip: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def feed(receiver: UploadReceiver, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadReceiver, "feed", feed)
    response = await http.post("/v1/scenes", files={"scene": ("scene.zip", kitchen_zip)})
    assert response.status_code == 507
    assert Problem.model_validate_json(response.content).error == "StorageFull"
    assert response.headers["Retry-After"] == "60"
    assert list((folders.root / "uploads").iterdir()) == []
