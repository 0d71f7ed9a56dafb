"""Results on their way to disk: resumed, verified, and written nowhere else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from worldstereo_client import Client, RetryPolicy, errors

from tests.client.stub_scenes import result_files
from tests.client.stub_server import Stub


def test_an_interrupted_download_is_resumed(
    client: Client, stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    job = client.scenes.submit(scene_folder)
    stub.fail_next("GET", "traj_up/video.mp4", cut_after=70_000)
    stub.fail_next("GET", "traj_up/video.mp4", cut_after=90_000)
    job.download(tmp_path / "out")
    video = tmp_path / "out/renders/traj_up/video.mp4"
    assert video.read_bytes() == result_files()["renders/traj_up/video.mp4"]
    starts = [headers.get("range") for headers in stub.seen("GET", "traj_up/video.mp4")]
    assert starts[0] is None
    assert len(starts) == 3
    offsets = [int(text.removeprefix("bytes=").rstrip("-")) for text in starts[1:] if text]
    assert 0 < offsets[0] <= 70_000 < offsets[1] <= 160_000


def test_a_download_goes_on_in_another_process(
    client: Client, stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    job = client.scenes.submit(scene_folder)
    stub.fail_next("GET", "traj_up/video.mp4", cut_after=70_000)
    with (
        Client(stub.url, retries=RetryPolicy(attempts=1)) as impatient,
        pytest.raises(errors.ServerUnreachable),
    ):
        impatient.scenes.download(job.id, tmp_path / "out", kinds={"video"})
    assert not (tmp_path / "out/renders/traj_up/video.mp4").exists()
    job.download(tmp_path / "out", kinds={"video"})
    assert "range" in stub.seen("GET", "traj_up/video.mp4")[-1]
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["video.mp4"] * 2


def test_a_wrong_byte_is_found_and_fetched_anew(
    client: Client, stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    job = client.scenes.submit(scene_folder)
    stub.fail_next("GET", "traj_up/video.mp4", flip=1234)
    job.download(tmp_path / "out", kinds={"video"})
    video = tmp_path / "out/renders/traj_up/video.mp4"
    assert video.read_bytes() == result_files()["renders/traj_up/video.mp4"]


def test_wrong_bytes_that_stay_are_an_error(
    client: Client, stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    job = client.scenes.submit(scene_folder)
    stub.fail_next("GET", "traj_up/video.mp4", times=2, flip=1234)
    with pytest.raises(errors.IntegrityError, match=r"renders/traj_up/video\.mp4"):
        job.download(tmp_path / "out")
    assert not (tmp_path / "out/renders/traj_up/video.mp4").exists()
    assert not (tmp_path / "out/manifest.json").exists()


def test_files_that_are_right_are_not_fetched_again(
    client: Client, stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    job = client.scenes.submit(scene_folder)
    job.download(tmp_path)
    damaged = tmp_path / "renders/traj_up/frames/0000.png"
    damaged.write_bytes(bytes(1_000))
    before = len(stub.requests)
    job.download(tmp_path)
    fetched = [path for _, path, _ in stub.requests[before:] if "/artefacts/" in path]
    assert [path.split("/artefacts/")[1] for path in fetched] == ["renders/traj_up/frames/0000.png"]
    assert damaged.read_bytes() == result_files()["renders/traj_up/frames/0000.png"]


@pytest.mark.parametrize("name", ["../escaped", "/etc/escaped", "a/../../escaped", "a\\b", "c:x"])
def test_a_servers_paths_are_not_trusted(
    client: Client, stub: Stub, scene_folder: Path, tmp_path: Path, name: str
) -> None:
    job = client.scenes.submit(scene_folder)
    stub.scenes[job.id].artefacts[name] = b"x"
    with pytest.raises(errors.IntegrityError, match="no plain relative path"):
        job.download(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_output_leads_nowhere(
    client: Client, scene_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/renders").symlink_to(tmp_path / "elsewhere")
    job = client.scenes.submit(scene_folder)
    with pytest.raises(errors.IntegrityError, match="outside"):
        job.download(tmp_path / "out")


def test_reading_one_file(client: Client, scene_folder: Path) -> None:
    job = client.scenes.submit(scene_folder)
    assert job.read("manifest.json") == result_files()["manifest.json"]
    listed = {item.name: item.sha256 for item in job.artefacts()}
    assert listed["manifest.json"] == hashlib.sha256(job.read("manifest.json")).hexdigest()
    with pytest.raises(errors.ArtefactNotFound):
        job.read("nothing.png")
