"""Every folder of the table is refused before anything is generated, and the message helps."""

import dataclasses
from pathlib import Path

import pytest

from tests.formats.bad_scenes import CASES, BadScene
from worldstereo.config import DEFAULT_SCALE_MAP
from worldstereo.formats.scene_folder import read_scene


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_it_is_refused(bad: BadScene, tmp_path: Path) -> None:
    folder = bad.build(tmp_path)
    arguments = {
        name: tmp_path / value if isinstance(value, Path) else value
        for name, value in bad.arguments.items()
    }
    with pytest.raises(bad.error) as caught:
        read_scene(folder, scale_map=DEFAULT_SCALE_MAP, nframe=21, **arguments)
    assert type(caught.value) is bad.error
    message = str(caught.value)
    for part in bad.mentions:
        assert part in message
    error = caught.value
    assert error.where, message
    assert error.got, message
    if bad.uploadable and "depth" not in bad.arguments:
        assert str(tmp_path) not in message


def test_names_are_unique() -> None:
    names = [bad.name for bad in CASES]
    assert len(names) == len(set(names)) >= 60
    assert all(dataclasses.is_dataclass(bad) and bad.mentions for bad in CASES)
