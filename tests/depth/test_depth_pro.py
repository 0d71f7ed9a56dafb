"""Depth Pro on a tiny real network of transformers' own class, loaded as the published one is."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.depth import tiny_depth_pro
from worldstereo.depth import depth_pro
from worldstereo.depth.depth_pro import DepthPro, Preprocessing, metres, prepare
from worldstereo.depth.estimators import load_estimator
from worldstereo.errors import CheckpointError, MediaError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_depth_pro.save(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def source(folder):
    return load_estimator("depth_pro", source=str(folder), local_files_only=True)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bilinear(values, height, width):
    """[h, w] at another size, pixel by pixel: centres at +0.5, edges repeated, no antialiasing."""
    rows, columns = values.shape
    found = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((column + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = values[top, left] * (1 - x + left) + values[top, right] * (x - left)
            lower = values[bottom, left] * (1 - x + left) + values[bottom, right] * (x - left)
            found[row, column] = upper * (1 - y + top) + lower * (y - top)
    return found


@pytest.mark.parametrize("size", [(20, 30), (45, 25)])
def test_the_published_way_from_image_to_depth(source, size):
    """Each step as transformers' image processor has it, written out slowly."""
    height, width = size
    seen = image(height, width)
    side = tiny_depth_pro.SIZE
    normalised = (seen / 255 - 0.5) / 0.5
    pixels = np.stack([bilinear(normalised[..., c], side, side) for c in range(3)])
    with torch.no_grad():
        output = tiny_depth_pro.network()(torch.from_numpy(pixels[None]).float())
    degrees = float(output.field_of_view[0])
    assert degrees > 0
    focal = 0.5 * width / np.tan(np.radians(degrees) / 2)
    inverse = bilinear(output.predicted_depth[0].numpy() * width / focal, height, width)
    expected = 1 / np.clip(inverse, 1e-4, 1e4)

    (found,) = source.depths_of([seen])
    assert found.metric
    assert found.depth.dtype == found.intrinsics.dtype == np.float32
    assert found.depth.shape == size
    np.testing.assert_allclose(1 / found.depth, 1 / expected, rtol=1e-3, atol=2e-5)
    centred = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
    np.testing.assert_allclose(found.intrinsics, centred, rtol=1e-5)


def test_the_same_as_the_image_processor_of_transformers(source, folder):
    pytest.importorskip("torchvision")
    from transformers import DepthProImageProcessor

    processor = DepthProImageProcessor.from_pretrained(folder)
    for seen in (image(40, 60), image(70, 33)):
        pixels = processor(images=torch.from_numpy(seen).permute(2, 0, 1), return_tensors="pt")
        np.testing.assert_allclose(
            prepare(seen, Preprocessing.model_validate(processor.to_dict()), CPU),
            pixels.pixel_values,
            atol=1e-5,
        )
        with torch.no_grad():
            output = tiny_depth_pro.network()(pixels.pixel_values)
        (expected,) = processor.post_process_depth_estimation(output, [seen.shape[:2]])
        (found,) = source.depths_of([seen])
        np.testing.assert_allclose(found.depth, expected["predicted_depth"], rtol=1e-3)
        assert found.intrinsics[0, 0] == pytest.approx(float(expected["focal_length"]), rel=1e-5)


@settings(max_examples=8)
@given(sizes=st.lists(st.tuples(st.integers(2, 50), st.integers(2, 50)), max_size=3))
def test_any_images_give_usable_maps_with_the_same_bits_as_one_by_one(source, sizes):
    images = [image(*size, seed) for seed, size in enumerate(sizes)]
    maps = source.depths_of(images)
    assert len(maps) == len(images)
    for seen, found in zip(images, maps, strict=True):
        height, width = seen.shape[:2]
        assert found.depth.shape == (height, width)
        assert found.valid.all()
        assert np.isfinite(found.depth).all()
        # The image's left edge is seen half the field of view away from the axis.
        angle = 2 * np.degrees(np.arctan(width / 2 / found.intrinsics[0, 0]))
        assert 30 < angle < 120
        (alone,) = source.depths_of([seen])
        np.testing.assert_array_equal(alone.depth, found.depth)
        np.testing.assert_array_equal(alone.intrinsics, found.intrinsics)


def test_metres_of_known_inverse_depth():
    inverse = torch.full((1, 8, 8), 0.5)
    np.testing.assert_allclose(metres(inverse, torch.tensor(300.0), 4, 600), np.ones((4, 600)))
    far, near = metres(torch.zeros(1, 2, 2), torch.tensor(1.0), 1, 1), torch.full((1, 2, 2), 1e9)
    assert float(far) == pytest.approx(1e4)
    assert float(metres(near, torch.tensor(1.0), 1, 1)) == pytest.approx(1e-4)


def test_half_precision_gives_a_map_in_single_precision_close_by(source, folder):
    preprocessing = Preprocessing.model_validate_json(
        (folder / "preprocessor_config.json").read_bytes()
    )
    half = DepthPro(tiny_depth_pro.network().half(), preprocessing, "tiny")
    seen = image(40, 60)
    (found,), (expected,) = half.depths_of([seen]), source.depths_of([seen])
    assert found.depth.dtype == found.intrinsics.dtype == np.float32
    np.testing.assert_allclose(1 / found.depth, 1 / expected.depth, rtol=0.01, atol=0.03)
    np.testing.assert_allclose(found.intrinsics, expected.intrinsics, rtol=0.01)


def test_an_image_that_no_one_may_write_to(source):
    seen = image(9, 12)
    expected = source.depths_of([seen])[0].depth
    seen.setflags(write=False)
    np.testing.assert_array_equal(source.depths_of([seen])[0].depth, expected)


def test_the_published_repository_is_the_default(monkeypatch, folder):
    asked = []

    def fetch(repo, patterns, *, local_files_only):
        asked.append((repo, set(patterns), local_files_only))
        return folder

    monkeypatch.setattr(depth_pro, "fetch", fetch)
    load_estimator("depth_pro", local_files_only=True)
    files = {"config.json", "preprocessor_config.json", "*.safetensors"}
    assert asked == [("apple/DepthPro-hf", {*files, "*.safetensors.index.json"}, True)]


@pytest.mark.parametrize("name", ["nobody/no-such-depth-pro", "/no/such/folder"])
def test_weights_that_are_nowhere(name):
    with pytest.raises(CheckpointError, match=rf"{name}: .*cannot be found.*type: hf download"):
        DepthPro.from_pretrained(name, local_files_only=True)


def test_a_folder_that_lacks_a_file_or_half_of_it(copy):
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match=r"cannot be loaded.*hf download apple/DepthPro-hf"):
        DepthPro.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be loaded.*hf download apple/DepthPro-hf"):
        DepthPro.from_pretrained(copy)
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: .*lacks a file"):
        DepthPro.from_pretrained(copy)


def test_missing_weights_are_not_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["head.layers.4.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights; got no head\.layers\.4\.weight"):
        DepthPro.from_pretrained(copy)


def test_preprocessing_that_is_not_the_published_one_is_refused(copy):
    file = copy / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "resample": 3}))
    with pytest.raises(CheckpointError, match="resample"):
        DepthPro.from_pretrained(copy)


def test_a_network_without_field_of_view_has_no_unit(tmp_path):
    tiny_depth_pro.save(tmp_path / "fixed", field_of_view=False)
    with pytest.raises(CheckpointError, match="use_fov_model false"):
        DepthPro.from_pretrained(tmp_path / "fixed")


def test_an_estimate_that_is_none(tmp_path, copy):
    tiny_depth_pro.save(tmp_path / "wide", degrees=200.0)
    with pytest.raises(MediaError, match=r"field of view.*got 2\d\d.*degrees"):
        DepthPro.from_pretrained(tmp_path / "wide").depths_of([image(8, 8)])
    weights = load_file(copy / "model.safetensors")
    weights["head.layers.4.bias"].fill_(torch.nan)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MediaError, match="no depth is found"):
        DepthPro.from_pretrained(copy).depths_of([image(8, 8)])
