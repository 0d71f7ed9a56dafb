"""The adapter of MoGe-2, with a stand-in for its package (see moge_stand_in.py): the package is on
no index, so what is tested is what the adapter makes of its published interface.
"""

import sys

import numpy as np
import pytest
import torch

from tests.depth import moge_stand_in
from worldstereo.depth.estimators import load_estimator
from worldstereo.depth.moge import in_pixels
from worldstereo.errors import CheckpointError, MediaError, MissingDependencyError


@pytest.fixture
def moge(monkeypatch):
    moge_stand_in.LOADED.clear()
    for name, module in moge_stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def absent(monkeypatch):
    for name in moge_stand_in.modules():
        monkeypatch.setitem(sys.modules, name, None)


def image(height, width, seed=0):
    made = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    made[0, 0] = (100, 0, 0)  # valid in any case
    return made


def test_metric_depth_where_the_mask_is_true(moge):
    first = image(6, 9)
    first[1, 2] = (moge_stand_in.BROKEN_RED, 0, 0)
    (found,) = load_estimator("moge").depths_of([first])
    valid = first[..., 1] < 127.5
    valid[1, 2] = False
    assert found.metric
    assert found.depth.dtype == np.float32
    np.testing.assert_array_equal(found.valid, valid)
    expected = moge_stand_in.NEAR + 10.0 * first[..., 0] / 255
    np.testing.assert_allclose(found.depth, np.where(valid, expected, 0), rtol=1e-6)


def test_intrinsics_are_in_pixels_of_the_image(moge):
    for height, width in [(6, 10), (10, 6)]:
        (found,) = load_estimator("moge").depths_of([image(height, width)])
        # 90 degrees over the width, square pixels.
        half = width / 2
        expected = [[half, 0, half], [0, half, height / 2], [0, 0, 1]]
        assert found.intrinsics.dtype == np.float32
        np.testing.assert_allclose(found.intrinsics, expected, rtol=1e-6)
        # The principal point is seen straight ahead, the image's edge at 45 degrees.
        ray = np.linalg.inv(found.intrinsics) @ [width, height / 2, 1]
        np.testing.assert_allclose(ray, [1, 0, 1], atol=1e-6)


def test_in_pixels_keeps_rays():
    normalised = np.array([[0.8, 0, 0.5], [0, 1.2, 0.4], [0, 0, 1]], dtype=np.float32)
    ray = np.array([0.3, -0.2, 1])
    u, v, _ = normalised @ ray
    np.testing.assert_allclose(in_pixels(normalised, 480, 768) @ ray, [u * 768, v * 480, 1])


def test_many_images_are_as_one_by_one(moge):
    source = load_estimator("moge")
    images = [image(4, 7, seed) for seed in range(3)] + [image(5, 5)]
    maps = source.depths_of(images)
    assert [found.depth.shape for found in maps] == [(4, 7)] * 3 + [(5, 5)]
    for one, found in zip(images, maps, strict=True):
        np.testing.assert_array_equal(source.depths_of([one])[0].depth, found.depth)
    assert source.depths_of([]) == []


def test_weights_come_from_the_hub_a_file_or_a_folder(moge, tmp_path):
    weights = {"model": moge_stand_in.MoGeModel(60.0).state_dict()}
    torch.save(weights, tmp_path / "model.pt")
    for source in (tmp_path, tmp_path / "model.pt"):
        (found,) = load_estimator("moge", source=str(source)).depths_of([image(4, 8)])
        assert found.intrinsics[0, 0] == pytest.approx(4 / np.tan(np.radians(30)))
    load_estimator("moge", local_files_only=True)
    *local, published = moge_stand_in.LOADED
    assert local == [(str(tmp_path / "model.pt"), {})] * 2
    assert published == ("Ruicheng/moge-2-vitl-normal", {"local_files_only": True})


def test_weights_that_cannot_be_loaded(moge, tmp_path):
    fetch = "hf download Ruicheng/moge-2-vitl-normal model.pt"
    with pytest.raises(CheckpointError, match=r"nobody/nothing: .*" + fetch):
        load_estimator("moge", source="nobody/nothing")
    (tmp_path / "model.pt").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=fetch):
        load_estimator("moge", source=str(tmp_path))


def test_an_image_without_depth_or_field_of_view(moge, tmp_path):
    sky = np.full((4, 4, 3), 255, dtype=np.uint8)
    with pytest.raises(MediaError, match="no depth is found in the image"):
        load_estimator("moge").depths_of([image(4, 4), sky])
    torch.save({"model": {"degrees": torch.tensor(torch.nan)}}, tmp_path / "model.pt")
    with pytest.raises(MediaError, match="no usable field of view"):
        load_estimator("moge", source=str(tmp_path)).depths_of([image(4, 4)])


def test_without_the_package_the_line_to_type(absent):
    with pytest.raises(MissingDependencyError) as caught:
        load_estimator("moge")
    line = 'pip install "moge @ git+https://github.com/microsoft/MoGe.git@0286b495230a074aadf1c76c'
    assert line in str(caught.value)
