"""Result folders: exact round trips, whole or not at all, and a manifest that verifies."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.scenes import intrinsics, path, picture
from worldstereo.errors import LayoutError, MediaError
from worldstereo.formats import results
from worldstereo.formats.atomic import atomic_write_text, remove_leftovers
from worldstereo.formats.manifest import read_manifest, verify_manifest, write_manifest
from worldstereo.formats.results import (
    Reference,
    camera_file,
    read_camera_file,
    read_frame,
    read_trajectory,
    write_trajectory,
)
from worldstereo.formats.video import video_info
from worldstereo.types import Cameras, References

SIZE = (32, 48)
FRAMES = np.stack([picture(seed, SIZE) for seed in range(5)])
CAMERAS = Cameras(path(5), intrinsics(5, SIZE), *SIZE)
REFERENCES = References(
    ids=("pano_bank/0000", "view0/traj2/0003"),
    frames=FRAMES[:2],
    cameras=CAMERAS[:2],
    ref_index=(0, 4),
)
GENERATION = {"seed": 1024, "draw": 3, "steps": 4}


def write(folder: Path) -> bool:
    return write_trajectory(folder, FRAMES, CAMERAS, REFERENCES, GENERATION)


def files_under(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_trajectory_comes_back_exactly(tmp_path: Path) -> None:
    assert write(tmp_path / "view0" / "traj0")
    assert files_under(tmp_path) == [
        "view0/traj0/cameras.json",
        *(f"view0/traj0/frames/{index:04d}.png" for index in range(5)),
        "view0/traj0/generation.json",
        "view0/traj0/references.json",
        "view0/traj0/video.mp4",
    ]
    result = read_trajectory(tmp_path / "view0" / "traj0")
    assert np.array_equal(result.frames, FRAMES)
    assert np.array_equal(result.cameras.camera_from_world, CAMERAS.camera_from_world)
    assert np.array_equal(result.cameras.intrinsics, CAMERAS.intrinsics)
    assert (result.cameras.height, result.cameras.width) == SIZE
    assert [(r.id, r.ref_index) for r in result.references] == [
        ("pano_bank/0000", 0),
        ("view0/traj2/0003", 4),
    ]
    assert result.generation == GENERATION
    assert video_info(tmp_path / "view0/traj0/video.mp4").frames == 5
    assert np.array_equal(read_frame(tmp_path / "view0" / "traj0", 3), FRAMES[3])


def test_the_same_clip_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name)
    for name in files_under(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_cameras_say_their_convention(tmp_path: Path) -> None:
    write(tmp_path / "clip")
    content = json.loads((tmp_path / "clip" / "cameras.json").read_text())
    assert {"camera_from_world_opencv", "intrinsics", "width", "height"} <= set(content)
    assert (content["width"], content["height"]) == (48, 32)


matrices = arrays(
    np.float32, (3, 4, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@settings(max_examples=40, deadline=None)
@given(camera_from_world=matrices)
def test_float32_survives_json(
    tmp_path_factory: pytest.TempPathFactory, camera_from_world: np.ndarray
) -> None:
    cameras = Cameras(camera_from_world, camera_from_world[:, :3, :3], 32, 48)
    folder = tmp_path_factory.getbasetemp()
    (folder / "cameras.json").write_text(camera_file(cameras))
    read = read_camera_file(folder)
    assert read.camera_from_world.tobytes() == camera_from_world.tobytes()
    assert read.intrinsics.tobytes() == np.ascontiguousarray(cameras.intrinsics).tobytes()


def test_no_references_and_no_generation(tmp_path: Path) -> None:
    write_trajectory(tmp_path / "clip", FRAMES, CAMERAS, None)
    result = read_trajectory(tmp_path / "clip")
    assert result.references == ()
    assert result.generation == {}
    write_trajectory(tmp_path / "other", FRAMES, CAMERAS, [Reference(id="a/b/c", ref_index=2)])
    assert read_trajectory(tmp_path / "other").references[0].ref_index == 2


def test_the_first_writer_wins(tmp_path: Path) -> None:
    assert write(tmp_path / "clip")
    before = (tmp_path / "clip" / "cameras.json").stat().st_mtime_ns
    assert not write_trajectory(tmp_path / "clip", FRAMES[::-1], CAMERAS, None)
    assert np.array_equal(read_trajectory(tmp_path / "clip").frames, FRAMES)
    assert (tmp_path / "clip" / "cameras.json").stat().st_mtime_ns == before
    assert os.listdir(tmp_path) == ["clip"]


def test_a_writer_that_is_overtaken_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(path: Path, frames: np.ndarray, fps: int) -> None:
        path.write_bytes(b"video")
        shutil.copytree(path.parent, tmp_path / "clip")

    monkeypatch.setattr(results, "write_video", overtaken)
    assert not write(tmp_path / "clip")
    assert os.listdir(tmp_path) == ["clip"]


def test_a_writer_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(results, "write_video", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "clip")
    assert os.listdir(tmp_path) == []


def test_leftovers_of_killed_writers_are_not_results(tmp_path: Path) -> None:
    write(tmp_path / "view0" / "traj0")
    left = tmp_path / "view0" / ".traj1.0123456789abcdef.tmp"
    (left / "frames").mkdir(parents=True)
    (left / "frames" / "0000.png").write_bytes(b"half")
    (tmp_path / ".plan.json.0123456789abcdef.tmp").write_text("{")
    (tmp_path / ".of-someone-else.tmp").write_text("kept")
    write_manifest(tmp_path, {"name": "scene"})
    listed = [file.name for file in read_manifest(tmp_path)[1] if ".tmp" in file.name]
    assert listed == [".of-someone-else.tmp"]
    verify_manifest(tmp_path)
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if ".tmp" in p.name] == listed
    assert read_trajectory(tmp_path / "view0" / "traj0").frames.shape == (5, *SIZE, 3)


def test_atomic_text(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a" / "plan.json", "first ä")
    atomic_write_text(tmp_path / "a" / "plan.json", "second")
    assert (tmp_path / "a" / "plan.json").read_text() == "second"
    assert os.listdir(tmp_path / "a") == ["plan.json"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cameras.json", "{"),
        ("cameras.json", "[]"),
        ("cameras.json", '{"width": 48}'),
        ("references.json", '{"references": [{"id": 3}]}'),
        ("references.json", "{}"),
        ("generation.json", "7"),
    ],
)
def test_files_that_are_not_ours(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path / "clip")
    (tmp_path / "clip" / name).write_text(content)
    with pytest.raises(LayoutError, match=name.replace(".", r"\.")):
        read_trajectory(tmp_path / "clip")


def test_missing_and_broken_frames(tmp_path: Path) -> None:
    write(tmp_path / "clip")
    (tmp_path / "clip/frames/0002.png").unlink()
    with pytest.raises(LayoutError, match=r"0002\.png.*missing"):
        read_trajectory(tmp_path / "clip")
    (tmp_path / "clip/frames/0002.png").write_bytes(b"\x89PNG")
    with pytest.raises(MediaError, match=r"0002\.png"):
        read_trajectory(tmp_path / "clip")


def manifest(folder: Path) -> Path:
    write(folder / "view0" / "traj0")
    atomic_write_text(folder / "plan.json", "{}")
    return write_manifest(folder, {"name": "kitchen", "units": "scene"})


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    file = manifest(tmp_path)
    content = verify_manifest(tmp_path)
    assert content == json.loads(file.read_text())
    assert content["name"] == "kitchen"
    names = [entry["name"] for entry in content["files"]]
    assert names == [name for name in files_under(tmp_path) if name != "manifest.json"]
    for entry in content["files"]:
        assert entry["bytes"] == (tmp_path / entry["name"]).stat().st_size


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_any_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "verified"
    if not folder.exists():
        manifest(folder)
    name = data.draw(st.sampled_from([f for f in files_under(folder) if f != "manifest.json"]))
    before = (folder / name).read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[place] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(changed)
    try:
        with pytest.raises(MediaError, match="sha256"):
            verify_manifest(folder)
    finally:
        (folder / name).write_bytes(before)
    verify_manifest(folder)


def test_another_name_of_a_listed_file_beside_it_is_fine(tmp_path: Path) -> None:
    manifest(tmp_path)
    clip = tmp_path / "view0" / "traj0"
    os.link(clip / "video.mp4", clip / "worldstereo-memory-dmd_result.mp4")
    shutil.copy(clip / "video.mp4", clip / "copy.mp4")
    verify_manifest(tmp_path)
    with (clip / "copy.mp4").open("ab") as file:
        file.write(b"more")
    with pytest.raises(LayoutError, match=r"view0/traj0/copy\.mp4"):
        verify_manifest(tmp_path)


def test_what_a_manifest_does_not_forgive(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="not finished"):
        verify_manifest(tmp_path)
    file = manifest(tmp_path)
    (tmp_path / "extra.txt").write_text("surplus")
    with pytest.raises(LayoutError, match=r"extra\.txt"):
        verify_manifest(tmp_path)
    # Neither elsewhere in the folder nor changed is it another name of a listed file.
    shutil.copy(tmp_path / "view0/traj0/video.mp4", tmp_path / "extra.txt")
    with pytest.raises(LayoutError, match=r"extra\.txt.*1 such files"):
        verify_manifest(tmp_path)
    (tmp_path / "extra.txt").unlink()
    (tmp_path / "plan.json").unlink()
    with pytest.raises(LayoutError, match=r"plan\.json.*missing"):
        verify_manifest(tmp_path)
    content = json.loads(file.read_text())
    content["files"][0]["name"] = "../outside"
    file.write_text(json.dumps(content))
    with pytest.raises(LayoutError, match="outside its folder"):
        verify_manifest(tmp_path)
    file.write_text('{"files": 3}')
    with pytest.raises(LayoutError, match="does not read"):
        verify_manifest(tmp_path)
