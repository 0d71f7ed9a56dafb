"""Receiving a request body: any split into chunks gives the same, limits hold while it comes."""

import hashlib
import tempfile
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.settings import UploadLimits
from deployments.errors import UploadError, UploadTooLarge, ValidationError
from deployments.multipart import Upload, UploadReceiver
from worldstereo.errors import WorldStereoError

ARCHIVE = bytes(range(256)) * 8
LIMITS = UploadLimits(max_upload_bytes=8000, max_parameters_bytes=50)


def body_of(files: list[tuple[str, object]]) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://server/v1/scenes", files=files)  # type: ignore[arg-type]
    return request.read(), request.headers["Content-Type"]


def received(body: bytes, content_type: str, folder: Path, cuts: tuple[int, ...] = ()) -> Upload:
    receiver = UploadReceiver(folder, content_type, LIMITS)
    try:
        for start, end in zip((0, *cuts), (*cuts, len(body)), strict=True):
            receiver.feed(body[start:end])
        return receiver.finish()
    finally:
        receiver.close()


FORM: list[tuple[str, object]] = [
    ("parameters", (None, b'{"seed": 3}')),
    ("scene", ("C:\\scenes\\kitchen.zip", ARCHIVE)),
    ("depth", ("depth.npy", b"\r\n--depth")),
]


@given(cuts=st.lists(st.integers(0, len(body_of(FORM)[0])), max_size=30).map(sorted))
@settings(max_examples=50, deadline=None)
def test_any_split_into_chunks_gives_the_same(cuts: list[int]) -> None:
    body, content_type = body_of(FORM)
    with tempfile.TemporaryDirectory() as folder:
        upload = received(body, content_type, Path(folder), tuple(cuts))
        assert upload.parameters == '{"seed": 3}'
        assert upload.scene.name == "kitchen.zip"
        assert upload.scene.path.read_bytes() == ARCHIVE
        assert upload.scene.sha256 == hashlib.sha256(ARCHIVE).hexdigest()
        assert upload.depth is not None
        assert upload.depth.path.read_bytes() == b"\r\n--depth"


WRONG: dict[str, tuple[list[tuple[str, object]], type[WorldStereoError]]] = {
    "no scene": ([("parameters", (None, b"{}"))], ValidationError),
    "unknown part": ([("scenes", ("a.zip", b"x"))], ValidationError),
    "twice": ([("scene", ("a.zip", b"x")), ("scene", ("b.zip", b"x"))], ValidationError),
    "long parameters": ([("parameters", (None, b" " * 60))], ValidationError),
    "binary parameters": (
        [("scene", ("a.zip", b"x")), ("parameters", (None, b"\xff\xfe"))],
        ValidationError,
    ),
    "too large": ([("scene", ("a.zip", b"x" * 9000))], UploadTooLarge),
}


@pytest.mark.parametrize(("files", "error"), WRONG.values(), ids=WRONG)
def test_a_wrong_form_is_refused(
    files: list[tuple[str, object]], error: type[WorldStereoError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        received(*body_of(files), tmp_path)


def test_a_body_that_ends_early_is_refused(tmp_path: Path) -> None:
    body, content_type = body_of(FORM)
    with pytest.raises(UploadError, match="ended too early"):
        received(body[:-10], content_type, tmp_path)


def test_a_broken_body_is_refused(tmp_path: Path) -> None:
    _, content_type = body_of(FORM)
    with pytest.raises(UploadError, match="broken multipart"):
        received(b"no boundary at all" * 10, content_type, tmp_path)


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/form-data", "multipart/form-data; x=y"]
)
def test_a_body_of_another_kind_is_refused(content_type: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="Content-Type"):
        UploadReceiver(tmp_path, content_type, LIMITS)


def test_nothing_larger_than_the_limit_is_written(tmp_path: Path) -> None:
    body, content_type = body_of([("scene", ("a.zip", b"x" * 9000))])
    receiver = UploadReceiver(tmp_path, content_type, LIMITS)
    for start in range(0, LIMITS.max_upload_bytes, 100):
        receiver.feed(body[start : start + 100])
    with pytest.raises(UploadTooLarge):
        receiver.feed(body[LIMITS.max_upload_bytes :])
    receiver.close()
    assert (tmp_path / "scene.upload").stat().st_size <= LIMITS.max_upload_bytes
