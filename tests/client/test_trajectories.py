"""What the client writes about camera paths is what the engine reads."""

import inspect
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from worldstereo_client import errors, trajectories
from worldstereo_client.schemas import BuildRequest, SceneRequest, TrajectorySpec
from worldstereo_client.trajectories import read_trajectories

from configs.settings import UploadLimits
from deployments.submission import build_parameters
from worldstereo.builder import specs
from worldstereo.errors import ParameterError

POSE = np.eye(4)
POSE[0, 3] = -0.25
EVERY = [
    trajectories.dolly(0.5),
    trajectories.truck(-0.2, unit="scene"),
    trajectories.pedestal(0.1),
    trajectories.pan(30, name="look_right"),
    trajectories.tilt(-10),
    trajectories.roll(45),
    trajectories.orbit(30, 10, up=[0, -1, 0]),
    trajectories.ellipse(0.3, 0.4),
    trajectories.spiral(0.2, 0.2, 0.3, 1.5),
    trajectories.figure8(0.3, 0.1),
    trajectories.zoom(1.5),
    trajectories.dolly_zoom(0.4),
    trajectories.keyframes(POSE),
    trajectories.given_cameras(np.stack([np.eye(4), POSE])),
    trajectories.chain([trajectories.pan(20), trajectories.dolly(0.3)]),
]


def sent(spec: TrajectorySpec) -> specs.TrajectorySpec:
    """What the engine understands of a spec after its way over the wire."""
    request = SceneRequest(build=BuildRequest(prompt="a room", trajectories=(spec,)))
    received = SceneRequest.model_validate_json(request.model_dump_json(exclude_defaults=True))
    (understood,) = build_parameters(received, 21).trajectories
    return understood


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.preset)
def test_every_preset_arrives_as_it_was_written(spec: TrajectorySpec) -> None:
    understood = sent(spec).model_dump(mode="json", exclude_unset=True)
    assert understood == json.loads(spec.model_dump_json(exclude_none=True))


def test_given_intrinsics_arrive() -> None:
    intrinsics = np.array([[100.0, 0, 48], [0, 100, 32], [0, 0, 1]])
    spec = trajectories.given_cameras(np.stack([np.eye(4), POSE]), intrinsics, height=64, width=96)
    understood = sent(spec)
    assert isinstance(understood, specs.GivenCameras)
    np.testing.assert_array_equal(understood.camera_from_world, [np.eye(4), POSE])
    np.testing.assert_array_equal(understood.intrinsics, [intrinsics])
    assert (understood.height, understood.width, understood.unit) == (64, 96, "scene")


def test_the_client_has_a_function_for_each_preset_of_the_engine() -> None:
    union = get_args(get_args(specs.TrajectorySpec)[0])
    presets = {get_args(model.model_fields["preset"].annotation)[0] for model in union}
    assert {spec.preset for spec in EVERY} == presets
    functions = {
        name
        for name, function in inspect.getmembers(trajectories, inspect.isfunction)
        if function.__module__ == trajectories.__name__ and not name.startswith(("_", "read_"))
    }
    assert functions == presets - {"cameras"} | {"given_cameras"}


def test_a_bad_trajectory_is_refused_with_its_field() -> None:
    with pytest.raises(ParameterError, match="azimuth"):
        sent(TrajectorySpec(preset="orbit", azimuth="far"))
    with pytest.raises(ParameterError, match="speed"):
        sent(TrajectorySpec(preset="pan", degrees=3, speed=2))
    with pytest.raises(ParameterError, match="swing"):
        sent(TrajectorySpec(preset="swing"))


def test_a_request_with_four_camera_lists_fits_the_servers_limit() -> None:
    matrices = np.tile(np.eye(4), (300, 1, 1))
    matrices[:, 0, 3] = -np.linspace(0, 1, 300) / 3
    lenses = np.tile([[500 / 3, 0, 320 / 3], [0, 500 / 3, 240 / 3], [0, 0, 1]], (300, 1, 1))
    paths = [trajectories.given_cameras(matrices, lenses, height=160, width=213) for _ in range(4)]
    request = SceneRequest(build=BuildRequest(prompt="a", trajectories=tuple(paths)))
    size = len(request.model_dump_json(exclude_defaults=True))
    assert 64 * 1024 < size < UploadLimits().max_parameters_bytes


def test_numbers_of_numpy_are_sent() -> None:
    orbit = trajectories.orbit(np.arange(30, 31)[0], np.float32(5), up=np.array([0, -1, 0]))
    assert sent(orbit) == sent(trajectories.orbit(30, 5.0, up=[0, -1, 0]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orbit", {"preset": "orbit"}),
        (
            "orbit:azimuth=30, elevation=-5.5,name=right",
            {"preset": "orbit", "azimuth": 30, "elevation": -5.5, "name": "right"},
        ),
        ("pan:degrees=20,name=12", {"preset": "pan", "degrees": 20, "name": "12"}),
        ("dolly:amount=0.2,unit=scene", {"preset": "dolly", "amount": 0.2, "unit": "scene"}),
        ("gen3c:left", {"preset": "gen3c:left"}),
        ("gen3c:left:distance=0.5", {"preset": "gen3c:left", "distance": 0.5}),
        ("seva:dolly zoom-in", {"preset": "seva:dolly zoom-in"}),
    ],
)
def test_the_short_form_is_read(text: str, expected: dict[str, object]) -> None:
    (spec,) = read_trajectories(text)
    assert spec.model_dump(exclude_none=True) == expected


@pytest.mark.parametrize(
    "text", ["", "orbit:azimuth=30,fast", "orbit:preset=pan", "orbit:=3", "or/bit", "absent.json"]
)
def test_what_is_no_trajectory_is_refused(text: str) -> None:
    with pytest.raises(errors.ParameterError, match=r"not a trajectory|not a file|absent"):
        read_trajectories(text)


def test_a_file_holds_one_or_several(tmp_path: Path) -> None:
    file = tmp_path / "paths.json"
    file.write_text('[{"preset": "pan", "degrees": 5}, {"preset": "zoom", "factor": 2}]')
    assert [spec.preset for spec in read_trajectories(str(file))] == ["pan", "zoom"]
    file.write_text('{"preset": "pan", "degrees": 5}')
    assert [spec.preset for spec in read_trajectories(str(file))] == ["pan"]
    file.write_text('[{"degrees": 5}]')
    with pytest.raises(errors.ParameterError, match="preset"):
        read_trajectories(str(file))
