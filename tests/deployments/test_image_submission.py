"""A scene from one image, over HTTP: the form, what is checked at once, what is kept."""

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from worldstereo_client.schemas import ModelList, Scene

from deployments.folders import SceneFolders
from deployments.offers import Offers
from tests.deployments.http_api import problem_in

PROMPT = {"prompt": "a small room"}


def lens(focal: float) -> dict[str, Any]:
    """Cameras that stand still and have this focal length in pixels of 60 x 192."""
    intrinsics = [[focal, 0, 30], [0, focal, 96], [0, 0, 1]]
    still = [np.eye(4).tolist()] * 2
    camera = {"camera_from_world": still, "intrinsics": [intrinsics]}
    return {"preset": "cameras", **camera, "height": 192, "width": 60}


def png(height: int = 128, width: int = 192) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def npy(height: int = 128, width: int = 192) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((height, width), 2.0, dtype=np.float32))
    return file.getvalue()


async def send(
    http: httpx.AsyncClient, build: Any, *, image: bytes | None = None, **parts: bytes
) -> httpx.Response:
    files: list[tuple[str, Any]] = [
        ("parameters", (None, json.dumps({"build": build, "outputs": []}).encode()))
    ]
    files += [("image", ("Harbour view.jpg", image or png()))]
    names = {"depth": "depth.npy", "depth_unit": "depth.json"}
    files += [(name, (names[name], content)) for name, content in parts.items()]
    return await http.post("/v1/scenes", files=files)


async def test_an_image_with_depth_is_queued(
    http: httpx.AsyncClient, folders: SceneFolders
) -> None:
    trajectories = [
        {"preset": "orbit", "azimuth": 30, "name": "right"},
        {"preset": "gen3c:left"},
    ]
    response = await send(http, PROMPT | {"trajectories": trajectories}, depth=npy())
    assert response.status_code == 202, response.text
    scene = Scene.model_validate_json(response.content)
    assert scene.name == "Harbour-view"
    assert scene.trajectories[0].id == "renders/right"
    assert len(scene.trajectories) == 2
    folder = folders.scene(scene.id)
    image, depth = folder.image_file(), folder.depth_file()
    assert image is not None
    assert depth is not None
    assert image.read_bytes() == png()
    assert depth.read_bytes() == npy()
    assert list(folder.input.iterdir()) == [], "it is built when the scene begins"
    assert list((folders.root / "uploads").iterdir()) == []


async def test_the_published_trajectories_are_the_default(http: httpx.AsyncClient) -> None:
    scene = Scene.model_validate_json((await send(http, PROMPT, depth=npy())).content)
    assert [item.id for item in scene.trajectories] == [
        "renders/traj_eloop",
        "renders/traj_up",
        "renders/traj_right",
        "renders/traj_left",
    ]


async def test_a_panorama_has_three_views(http: httpx.AsyncClient) -> None:
    build = PROMPT | {"kind": "panorama"}
    response = await send(http, build, image=png(128, 256), depth=npy(128, 256))
    scene = Scene.model_validate_json(response.content)
    views = [f"view{view}/traj{index}" for view in range(3) for index in (2, 0, 1)]
    assert [item.id for item in scene.trajectories] == views


async def test_a_png_depth_map_comes_with_its_unit(
    http: httpx.AsyncClient, folders: SceneFolders
) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((128, 192), 2500, dtype=np.uint16)).save(file, format="PNG")
    without = await send(http, PROMPT, depth=file.getvalue())
    assert "states no unit" in problem_in(without, 422, "MediaError").detail
    unit = b'{"unit": "millimetre"}'
    response = await send(http, PROMPT, depth=file.getvalue(), depth_unit=unit)
    folder = folders.scene(response.json()["id"])
    depth = folder.depth_file()
    assert depth is not None
    assert depth.with_suffix(".json").read_bytes() == unit


@pytest.mark.parametrize(
    ("build", "error", "where"),
    [
        (None, "ValidationError", "parameters: build"),
        ({}, "ValidationError", "parameters: build.prompt"),
        ({"prompt": "  "}, "ParameterError", "build"),
        (PROMPT | {"kind": "sphere"}, "ValidationError", "parameters: build.kind"),
        (PROMPT | {"field_of_view": 180}, "ValidationError", "parameters: build.field_of_view"),
        (PROMPT | {"clearance": -1}, "ValidationError", "parameters: build.clearance"),
        (PROMPT | {"speed": 1}, "ValidationError", "parameters: build.speed"),
        (PROMPT | {"trajectories": [{}]}, "ValidationError", "build.trajectories.0.preset"),
        (PROMPT | {"trajectories": [{"preset": "swing"}]}, "ParameterError", "trajectories"),
        (PROMPT | {"trajectories": [{"preset": "pan"}]}, "ParameterError", "degrees"),
        (PROMPT | {"trajectories": [{"preset": "pan", "degrees": "1"}]}, "ParameterError", "degr"),
        (PROMPT | {"trajectories": [{"preset": "seva:fly"}]}, "ParameterError", "trajectories"),
        (
            PROMPT | {"trajectories": [{"preset": "roll", "degrees": 1, "name": "../up"}]},
            "ParameterError",
            "name",
        ),
    ],
)
async def test_a_bad_request_to_build_is_refused(
    http: httpx.AsyncClient, folders: SceneFolders, build: Any, error: str, where: str
) -> None:
    problem = problem_in(await send(http, build, depth=npy()), 422, error)
    assert where in (problem.where or ""), problem
    assert not (folders.root / "scenes").exists()


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "no depth map and no depth estimator"),
        ({"image": b"GIF89a", "depth": npy()}, "no readable image"),
        ({"image": png()[:-500], "depth": npy()}, "cannot be decoded"),
        ({"depth": b"numbers"}, "no readable depth map"),
        ({"depth": npy(100, 100)}, "not of its image's shape"),
        ({"image": png(40, 400), "depth": npy(40, 400)}, "up to 4 times as long"),
    ],
)
async def test_a_bad_image_or_depth_is_refused(
    http: httpx.AsyncClient, folders: SceneFolders, parts: dict[str, bytes], text: str
) -> None:
    assert text in problem_in(await send(http, PROMPT, **parts), 422, "MediaError").detail
    assert not (folders.root / "scenes").exists()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        ({"field_of_view": 160.0}, "focal lengths do not fit"),
        ({"trajectories": [lens(60), lens(90)]}, "other intrinsics"),
    ],
)
async def test_a_lens_that_the_image_cannot_have_is_refused(
    http: httpx.AsyncClient, build: dict[str, Any], text: str
) -> None:
    response = await send(http, PROMPT | build, image=png(192, 60), depth=npy(192, 60))
    assert text in problem_in(response, 422, "CameraError").detail


async def test_a_unit_without_a_depth_map_is_refused(http: httpx.AsyncClient) -> None:
    response = await send(http, PROMPT, depth_unit=b'{"unit": "metre"}')
    assert problem_in(response, 422, "ValidationError").where == "depth_unit"


async def test_a_picture_is_no_panorama(http: httpx.AsyncClient) -> None:
    response = await send(http, PROMPT | {"kind": "panorama"}, depth=npy())
    problem_in(response, 422, "MediaError")


@pytest.mark.parametrize("offers", [Offers(outputs=("points",), depth_estimator="depth_pro")])
async def test_an_estimator_makes_depth_optional(http: httpx.AsyncClient) -> None:
    told = ModelList.model_validate_json((await http.get("/v1/models")).content)
    assert (told.depth_estimator, told.outputs) == ("depth_pro", ["points"])
    response = await http.post(
        "/v1/scenes",
        files=[
            ("parameters", (None, json.dumps({"build": PROMPT, "outputs": ["points"]}).encode())),
            ("image", ("room.png", png())),
        ],
    )
    assert response.status_code == 202, response.text
