"""Depth files: what is read, and what is refused."""

import json
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from worldstereo.depth import provided
from worldstereo.depth.provided import ProvidedDepth, check_depth_size, read_depth, resize_depth
from worldstereo.errors import MediaError, MissingDependencyError

DEPTH = np.array([[1.0, 2.5, 0.0], [0.25, 8.0, 4.0]], dtype=np.float32)


def save_png(path, values, **unit) -> None:
    Image.fromarray(values).save(path)
    if unit:
        path.with_suffix(".json").write_text(json.dumps(unit))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["depth.npy", "depth.png"])
def test_npy_by_content(tmp_path, name, dtype):
    with (tmp_path / name).open("wb") as file:
        np.save(file, DEPTH.astype(dtype))
    depth = read_depth(tmp_path / name)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, DEPTH)


def test_what_is_not_finite_is_invalid(tmp_path):
    np.save(tmp_path / "depth.npy", np.array([[np.nan, np.inf], [-np.inf, 1e300], [0, 3.0]]))
    np.testing.assert_array_equal(read_depth(tmp_path / "depth.npy"), [[0, 0], [0, 0], [0, 3]])


@pytest.mark.parametrize(
    ("unit", "metres"),
    [
        ({"unit": "millimetre"}, 0.001),
        ({"unit": "centimeter", "scale": 2}, 0.02),
        ({"unit": "metre", "scale": 0.00025}, 0.00025),
        ({"unit": "scene", "scale": 0.5}, 0.5),
    ],
)
def test_16_bit_png_in_its_unit(tmp_path, unit, metres):
    values = np.array([[0, 1, 256], [1000, 32768, 65535]], dtype=np.uint16)
    save_png(tmp_path / "depth.png", values, **unit)
    np.testing.assert_allclose(read_depth(tmp_path / "depth.png"), values * metres, rtol=1e-6)


def test_16_bit_png_of_half_floats(tmp_path):
    bits = DEPTH.astype(np.float16).view(np.uint16)
    save_png(tmp_path / "depth.png", bits, unit="metre", encoding="float16")
    np.testing.assert_array_equal(read_depth(tmp_path / "depth.png"), DEPTH)


def refused(path) -> str:
    with pytest.raises(MediaError) as error:
        read_depth(path)
    assert error.value.got or error.value.allowed
    return str(error.value)


def test_files_that_are_no_depth_maps(tmp_path):
    path = tmp_path / "depth.npy"
    assert "No such file" in refused(path)
    path.write_bytes(b"")
    assert "starts with b''" in refused(path)
    path.write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    assert ".npy (float), .exr" in refused(path)
    np.save(path, DEPTH)
    path.write_bytes(path.read_bytes()[:-4])
    assert "broken .npy" in refused(path)
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)
    assert "broken .npy" in refused(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3), dtype=np.int32), "dtype int32"),
        (np.ones((2, 3, 3)), r"shape \[2, 3, 3\]"),
        (np.ones(4), r"shape \[4\]"),
        (np.ones((0, 3)), "npy|size"),
        (np.zeros((2, 3)), "positive finite"),
        (np.full((2, 3), np.nan), "positive finite"),
        (np.array([[1.0, 2.0], [3.0, -0.5]]), "row 1, column 1"),
    ],
)
def test_arrays_that_are_no_depth_maps(tmp_path, array, message):
    np.save(tmp_path / "depth.npy", array)
    with pytest.raises(MediaError, match=message):
        read_depth(tmp_path / "depth.npy", "scene/depth.npy")


def test_a_header_that_claims_terabytes_allocates_nothing(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"
    header = header.ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64
    (tmp_path / "depth.npy").write_bytes(content)
    assert "broken .npy" in refused(tmp_path / "depth.npy")


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 5)}",
        b"{'descr': ',f4', 'fortran_order': False, 'shape': (4, 5)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1%s)}" % (b"0" * 30),
    ],
)
def test_a_header_of_nonsense_is_refused(tmp_path, header):
    header = header.ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64
    (tmp_path / "depth.npy").write_bytes(content)
    assert "broken .npy" in refused(tmp_path / "depth.npy")


def test_a_png_with_a_text_that_unpacks_to_too_much_is_refused(tmp_path):
    path = tmp_path / "depth.png"
    save_png(path, np.ones((50, 50), dtype=np.uint16), unit="metre")
    text = b"zTXta\0\0" + zlib.compress(bytes(2**21))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk + content[33:])
    assert "broken .png" in refused(path)


def test_pngs_that_are_no_depth_maps(tmp_path):
    path = tmp_path / "depth.png"
    grey = np.ones((2, 3), dtype=np.uint16)
    save_png(path, grey)
    assert "no file depth.json" in refused(path)
    for unit in ({"unit": "inch"}, {"unit": "metre", "scale": 0}, {"unit": "metre", "x": 1}, {}):
        path.with_suffix(".json").write_text(json.dumps(unit))
        assert "unit: metre" in refused(path)
    path.with_suffix(".json").write_text("{unit")
    assert "depth.json" in refused(path)
    for values in (np.ones((2, 3), dtype=np.uint8), np.ones((2, 3, 3), dtype=np.uint8)):
        save_png(path, values, unit="metre")
        assert "16-bit" in refused(path)
    save_png(path, np.ones((50, 50), dtype=np.uint16), unit="metre")
    path.write_bytes(path.read_bytes()[:60])
    assert "broken .png" in refused(path)
    path.write_bytes(path.read_bytes()[:20])
    assert "broken .png" in refused(path)


def test_exr_without_its_package_tells_the_line_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "depth.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(16))
    with pytest.raises(MissingDependencyError, match="pip install 'OpenEXR"):
        read_depth(tmp_path / "depth.exr")


def test_exr(tmp_path):
    exr = pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
    path = tmp_path / "depth.exr"
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    for channels in ({"Y": DEPTH}, {"Z": DEPTH, "A": np.ones_like(DEPTH)}):
        with exr.File(header, channels) as file:
            file.write(str(path))
        np.testing.assert_array_equal(read_depth(path), DEPTH)
    with exr.File(header, {"RGB": np.stack([DEPTH] * 3, axis=-1)}) as file:
        file.write(str(path))
    assert "B (float32), G (float32), R (float32)" in refused(path)
    path.write_bytes(path.read_bytes()[:100])
    assert "broken .exr" in refused(path)


def test_an_exr_with_a_thousand_channels_is_not_decoded(tmp_path, monkeypatch):
    exr = pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
    monkeypatch.setattr(provided, "MAX_EXR_VALUES", 9 * DEPTH.size)
    path = tmp_path / "depth.exr"
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, {"Z": DEPTH, **{f"c{i}": DEPTH for i in range(9)}}) as file:
        file.write(str(path))
    assert f"{10 * DEPTH.size} values" in refused(path)


def test_resizing_takes_the_pixel_that_each_center_lies_in():
    np.testing.assert_array_equal(resize_depth(DEPTH, 2, 3), DEPTH)
    doubled = resize_depth(DEPTH, 4, 6)
    np.testing.assert_array_equal(doubled, DEPTH.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(resize_depth(doubled, 2, 3), DEPTH)
    np.testing.assert_array_equal(resize_depth(DEPTH, 1, 1), [[8.0]])


def test_a_map_of_another_shape_is_refused():
    check_depth_size(np.ones((48, 64)), 481, 640)
    with pytest.raises(MediaError, match=r"64 rows x 48 columns.*480 rows x 640 columns"):
        check_depth_size(np.ones((64, 48)), 480, 640)


def test_the_source_gives_depth_at_the_images_size(tmp_path):
    np.save(tmp_path / "depth.npy", DEPTH)
    source = ProvidedDepth(tmp_path / "depth.npy", metric=True)
    (found,) = source.depths_of([np.zeros((4, 6, 3), dtype=np.uint8)])
    assert found.depth.shape == found.valid.shape == (4, 6)
    assert found.metric
    assert found.intrinsics is None
    assert (found.valid == (found.depth > 0)).all()
    assert not found.valid.all()
    with pytest.raises(MediaError, match="shape"):
        source.depths_of([np.zeros((6, 4, 3), dtype=np.uint8)])


def test_the_source_gives_one_map_an_image(tmp_path):
    source = ProvidedDepth(tmp_path / "depth.npy")
    assert source.depths_of([]) == []
    np.save(tmp_path / "depth.npy", DEPTH)
    sizes = [(2, 3), (4, 6), (2, 3)]
    maps = source.depths_of([np.zeros((*size, 3), dtype=np.uint8) for size in sizes])
    assert [found.depth.shape for found in maps] == sizes
    np.testing.assert_array_equal(maps[2].depth, DEPTH)
