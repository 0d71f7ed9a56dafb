"""Cameras from elsewhere: content tells the format, and every bad file is refused with reasons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats import bad_camera_models, bad_camera_texts
from tests.formats.bad_camera_table import (
    CASES,
    COUNT,
    SIZE,
    cameras,
    colmap,
    colmap_project,
    colmap_text,
    colmap_without_rigs,
    names,
    npz,
    path,
    published,
    published_with_size,
    realestate,
    result,
    transforms,
    transforms_folder,
)
from tests.formats.rigid_cameras import same
from worldstereo.errors import CameraError
from worldstereo.formats.foreign_cameras import read_foreign_cameras
from worldstereo.formats.limits import Limits
from worldstereo.formats.named_cameras import numbered

FORMATS = [
    colmap,
    colmap_text,
    colmap_without_rigs,
    colmap_project,
    transforms,
    transforms_folder,
    realestate,
    npz,
    path,
    result,
    published,
    published_with_size,
]


@pytest.mark.parametrize("make", FORMATS)
def test_content_tells_the_format(make: Callable[[Path], Path], tmp_path: Path) -> None:
    read = read_foreign_cameras(make(tmp_path), image_size=SIZE)
    same(read.cameras, cameras(), 1e-5)
    if make in (npz, result, published, published_with_size):
        assert read.names == numbered(COUNT)
    elif make is not realestate:
        assert read.names == names()
    assert read.metric is (True if make is path else None)


@pytest.mark.parametrize("make", FORMATS)
def test_a_size_is_needed_where_the_file_states_none(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    place = make(tmp_path)
    if make in (realestate, published):
        with pytest.raises(CameraError, match="give the image size"):
            read_foreign_cameras(place)
    else:
        assert read_foreign_cameras(place).cameras.width == 160


@pytest.mark.parametrize("make", FORMATS)
def test_more_than_allowed(make: Callable[[Path], Path], tmp_path: Path) -> None:
    place = make(tmp_path)
    with pytest.raises(CameraError, match=f"{COUNT} cameras"):
        read_foreign_cameras(place, image_size=SIZE, limits=Limits(max_cameras=COUNT - 1))


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path(tmp_path))
    same(read_foreign_cameras(tmp_path / "link").cameras, cameras())


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    bad = CASES[name]
    place = bad.make(tmp_path)
    bad.spoil(place)
    with pytest.raises(CameraError) as caught:
        read_foreign_cameras(place, image_size=SIZE)
    error = caught.value
    for part in bad.mentions:
        assert part in str(error)
    assert error.where, error
    assert error.where.startswith(place.name), error
    assert error.got, error
    assert error.allowed, error
    assert str(tmp_path) not in str(error)


def test_the_table_is_whole() -> None:
    parts = (bad_camera_models, bad_camera_texts)
    cases = [part for part in parts for name in vars(part) if name in CASES]
    assert len(cases) == len(CASES) >= 70
