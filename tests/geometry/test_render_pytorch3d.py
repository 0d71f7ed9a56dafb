"""The adapter for PyTorch3D against a stand-in of its interface, and against the real one."""

import importlib.util
import sys

import pytest
import torch

from tests.geometry import pytorch3d_stand_in
from tests.geometry.clouds import assert_is_slow_render, random_cloud
from worldstereo.errors import MissingDependencyError, ParameterError
from worldstereo.geometry.render import PointRenderer, point_renderer, render_points


@pytest.fixture
def stand_in(monkeypatch) -> PointRenderer:
    for name, module in pytorch3d_stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return point_renderer("pytorch3d")


@pytest.mark.parametrize(("height", "width"), [(5, 8), (8, 5), (6, 6)])
@pytest.mark.parametrize("points_per_pixel", [2, 20])
def test_the_adapter_renders_the_definition(stand_in, height, width, points_per_pixel):
    cloud = random_cloud(height, 30, height, width)
    rendered = stand_in(**vars(cloud), radius_ndc=0.6, points_per_pixel=points_per_pixel)
    assert rendered.rgb.dtype == rendered.hole_mask.dtype == torch.float32
    assert assert_is_slow_render(rendered, cloud, 0.6, points_per_pixel) > 20


def test_both_renderers_agree_where_nothing_is_in_front(stand_in):
    cloud = random_cloud(0, 20, 5, 7)
    cloud.points[:, 2] = -cloud.points[:, 2].abs() - 5
    ours, theirs = (render(**vars(cloud)) for render in (render_points, stand_in))
    for rendered in (ours, theirs):
        assert (rendered.hole_mask == 1).all()
        assert (rendered.nearest_z == -1).all()
        assert rendered.rgb.shape == (2, 3, 5, 7)
        assert (rendered.rgb == 0).all()


def test_the_adapter_checks_its_arguments(stand_in):
    cloud = random_cloud(0, 5, 4, 4)
    with pytest.raises(ParameterError, match="points_per_pixel"):
        stand_in(**vars(cloud), points_per_pixel=0)


def test_without_pytorch3d_the_line_to_type_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    with pytest.raises(MissingDependencyError, match="pip install") as error:
        point_renderer("pytorch3d")
    assert "pytorch3d.git@v0.7.9" in str(error.value)
    assert "renderer: torch" in str(error.value)


@pytest.mark.skipif(
    importlib.util.find_spec("pytorch3d") is None, reason="PyTorch3D is not installed"
)
def test_the_real_pytorch3d_renders_the_definition():
    cloud = random_cloud(3, 40, 6, 9)
    rendered = point_renderer("pytorch3d")(**vars(cloud), radius_ndc=0.4, points_per_pixel=30)
    torch.testing.assert_close(
        rendered.hole_mask,
        render_points(**vars(cloud), radius_ndc=0.4, points_per_pixel=30).hole_mask,
    )
