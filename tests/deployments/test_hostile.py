"""Hostile requests: each is refused with a problem body, leaves nothing, and costs little memory.

Each line of the tables is one request over the real application. Archives that are refused by
``unpack`` alone are in test_archives.py; they come over HTTP here too.
"""

import gzip
import json
import lzma
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from worldstereo_client.schemas import Problem

# Brings torch along, whose memory is no request's.
import worldstereo.builder.source  # noqa: F401
from configs.settings import UploadLimits
from deployments.api import Backend, create_api
from deployments.folders import SceneFolders
from deployments.http_errors import MEDIA_TYPE
from deployments.offers import Offers
from deployments.store import Store
from deployments.submission import Submitter
from deployments.tables import sqlite_url
from tests.deployments import archive_files as make
from tests.deployments import hostile_files as files
from tests.deployments.http_api import problem_in
from tests.deployments.test_archives import HOSTILE as HOSTILE_ARCHIVES
from tests.deployments.test_archives import LIMITS as ARCHIVE_LIMITS
from worldstereo.formats.atomic import atomic_write_bytes

MIB = 2**20
# What nothing may write.
EVIL = Path("/tmp/evil")
# What one refused request may add to the process at its peak. The largest honest image is 64
# million pixels, so a bomb that is decoded would show.
MOST_MEMORY = 120 * MIB
LIMITS = UploadLimits(
    max_upload_bytes=4 * MIB,
    max_file_bytes=MIB,
    max_extracted_bytes=3 * MIB,
    max_files=200,
    max_parameters_bytes=64 * 1024,
)
BUILD = {"build": {"prompt": "a room"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the one service that all requests go to; its data lies in ``data``."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    opened = Store(sqlite_url(folder / "data" / "store.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def folders(folder: Path) -> SceneFolders:
    return SceneFolders(folder / "data")


@pytest.fixture
def limits() -> UploadLimits:
    return LIMITS


@pytest.fixture
async def http(backend: Backend, limits: UploadLimits) -> AsyncIterator[httpx.AsyncClient]:
    """The API with small limits, and an estimator so that images are looked at."""
    offers = Offers(outputs=("colmap", "transforms"), depth_estimator="moge")
    submitter = Submitter(
        backend.store,
        backend.folders,
        backend.configs,
        limits,
        offers,
        max_queued_scenes=9,
        max_validations=1,
    )
    api = create_api(replace(backend, submitter=submitter, offers=offers))
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


@pytest.fixture(autouse=True)
async def nothing_is_left(http: httpx.AsyncClient, folder: Path) -> AsyncIterator[None]:
    """After each request: no file, no scene, no more memory, and the process answers."""
    before = new_peak()
    yield
    assert memory("VmHWM") - before < MOST_MEMORY
    assert left(folder) == set()
    assert (await http.get("/v1/scenes")).json()["scenes"] == []


def new_peak() -> int:
    """Bytes of this process; from now on its peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def left(folder: Path) -> set[Path]:
    """What a request has left, in the service's folders or beside them."""
    found = {path for path in folder.iterdir() if path.name != "data"}
    for name in ("uploads", "scenes"):
        found |= {path for path in (folder / "data" / name).glob("*") if path.name != "known"}
    return found | {path for path in [EVIL] if path.exists()}


def memory(field: str) -> int:
    """Bytes of this process, as the kernel counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field}")


async def post(
    http: httpx.AsyncClient, parts: dict[str, Any], parameters: object = None
) -> httpx.Response:
    sent: list[tuple[str, Any]] = []
    if parameters is not None:
        text = parameters if isinstance(parameters, bytes) else json.dumps(parameters).encode()
        sent.append(("parameters", (None, text)))
    for name, content in parts.items():
        file_name, data = content if isinstance(content, tuple) else (f"{name}.bin", content)
        sent.append((name, (file_name, data)))
    return await http.post("/v1/scenes", files=sent)


@pytest.mark.parametrize("limits", [ARCHIVE_LIMITS.model_copy(update={"max_files": 6})])
@pytest.mark.parametrize(("data", "error"), HOSTILE_ARCHIVES.values(), ids=HOSTILE_ARCHIVES)
async def test_what_unpacking_refuses(
    data: bytes, error: type[Exception], http: httpx.AsyncClient
) -> None:
    refused = await post(http, {"scene": data})
    problem_in(refused, 413 if error.__name__ == "UploadTooLarge" else 400, error.__name__)


ARCHIVES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "zip, all entries the same bytes": (lambda: files.zip_bomb_of_one(150), 400, "UploadError"),
    "zip, ratio": (lambda: make.zip_of({"image.png": bytes(100 * MIB)}), 413, "UploadTooLarge"),
    "zip of zips": (lambda: files.zip_of_zips(5), 422, "LayoutError"),
    "zip, NUL in a name": (files.zip_nul_name, 400, "UploadError"),
    "zip, escape codes": (lambda: make.zip_of({"\x1b[2J.png": b""}), 400, "UploadError"),
    "zip, text that turns": (lambda: make.zip_of({"\u202egnp.exe": b""}), 400, "UploadError"),
    "zip, names alike": (
        lambda: make.zip_of({"image.png": b"x", "IMAGE.PNG": b"y"}),
        400,
        "UploadError",
    ),
    "zip, names alike in Unicode": (
        lambda: make.zip_of({"\u00e9.png": b"x", "e\u0301.png": b"y"}),
        400,
        "UploadError",
    ),
    "zip, device of Windows": (lambda: make.zip_of({"a/NUL.png": b""}), 400, "UploadError"),
    "zip, share of Windows": (lambda: make.zip_of({"//host/share/a": b""}), 400, "UploadError"),
    "zip, dots at the end": (lambda: make.zip_of({"a. ./b": b""}), 400, "UploadError"),
    "zip, pipe": (lambda: files.zip_unix_kind(stat.S_IFIFO), 400, "UploadError"),
    "zip, block device": (lambda: files.zip_unix_kind(stat.S_IFBLK), 400, "UploadError"),
    "zip, socket": (lambda: files.zip_unix_kind(stat.S_IFSOCK), 400, "UploadError"),
    "tar, renamed upwards": (lambda: files.tar_pax_path("../../evil"), 400, "UploadError"),
    "tar, renamed to a root": (lambda: files.tar_pax_path("/tmp/evil"), 400, "UploadError"),
    "tar, long name": (lambda: files.tar_long_link("a/" * 200 + "../b"), 400, "UploadError"),
    "tar, huge size": (lambda: files.tar_of_size(b"77777777777"), 400, "UploadError"),
    "tar, size of 2^80": (
        lambda: files.tar_of_size(b"\x80\0" + b"\xff" * 10),
        400,
        "UploadError",
    ),
    "tar, negative size": (
        lambda: files.tar_of_size((-1024).to_bytes(12, signed=True)),
        400,
        "UploadError",
    ),
    "tar, negative size in text": (lambda: files.tar_of_size(b"-2000"), 400, "UploadError"),
    "tar.gz, ratio": (lambda: make.tar_of({"a": bytes(100 * MIB)}, "gz"), 413, "UploadTooLarge"),
    "gzip of gzip": (
        lambda: gzip.compress(gzip.compress(bytes(100 * MIB))),
        400,
        "UploadError",
    ),
    "tar.xz": (lambda: lzma.compress(make.tar_of({"a": b"x"})), 400, "UploadError"),
    "an image as archive": (files.image, 400, "UploadError"),
}


@pytest.mark.parametrize(("build", "status", "error"), ARCHIVES.values(), ids=ARCHIVES)
async def test_archives(
    build: Callable[[], bytes], status: int, error: str, http: httpx.AsyncClient
) -> None:
    problem_in(await post(http, {"scene": ("scene.zip", build())}), status, error)


IMAGES: dict[str, Callable[[], bytes]] = {
    "PNG of 400 million pixels": lambda: files.png(20_000, 20_000),
    "PNG of 2^62 pixels": lambda: files.png(2**31 - 1, 2**31 - 1),
    "PNG, no height": lambda: files.png(64, 0),
    "PNG, very long": lambda: files.png(1_000_000, 20),
    "PNG, hardly any data": lambda: files.png(2000, 2000),
    "PNG, comment that unfolds": files.png_text_bomb,
    "PNG, cut": lambda: files.image()[:-40],
    "PNG, 16 pixels high": lambda: files.image(size=(16, 4)),
    "JPEG of 4 billion pixels": lambda: files.jpeg(65_500, 65_500),
    "JPEG, cut": lambda: files.image("JPEG")[:-300],
    "WebP of 268 million pixels": lambda: files.webp(16_383, 16_383),
    "WebP, cut": lambda: files.image("WEBP")[:-20],
    "GIF": lambda: files.image("GIF"),
    "TIFF": lambda: files.image("TIFF"),
    "BMP": lambda: files.image("BMP"),
    "ICO": lambda: files.image("ICO"),
    "EPS, a program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc) run\n",
    "SVG that reads a file": lambda: b"<svg xmlns:x='x'><image href='file:///etc/passwd'/></svg>",
    "a magic alone": lambda: b"\x89PNG\r\n\x1a\n",
    "nothing": lambda: b"",
    "an archive as image": lambda: make.zip_of({"a": b"x"}),
}


@pytest.mark.parametrize("build", IMAGES.values(), ids=IMAGES)
async def test_images(build: Callable[[], bytes], http: httpx.AsyncClient) -> None:
    problem_in(await post(http, {"image": ("photo.png", build())}, BUILD), 422, "MediaError")


DEPTHS: dict[str, Callable[[], bytes]] = {
    "pickled objects": lambda: files.npy_of(np.array([files.Evil(EVIL)])),
    "npz of pickled objects": lambda: files.npz_of(depth=np.array([files.Evil(EVIL)])),
    "10^12 numbers": lambda: files.npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}"
    ),
    "a shape below zero": lambda: files.npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 64)}"
    ),
    "a header of a megabyte": lambda: files.npy("{'descr': '<f4', " + " " * MIB + "}"),
    "a header that nests": lambda: files.npy("(" * 9000 + ")" * 9000),
    "a header of code": lambda: files.npy("__import__('os').system('touch /tmp/evil')"),
    "not a number": lambda: files.npy_of(np.full((48, 64), np.nan, np.float32)),
    "infinite": lambda: files.npy_of(np.full((48, 64), np.inf, np.float32)),
    "text": lambda: b"depth",
}


@pytest.mark.parametrize("build", DEPTHS.values(), ids=DEPTHS)
async def test_depth_maps(build: Callable[[], bytes], http: httpx.AsyncClient) -> None:
    parts = {"image": ("a.png", files.image()), "depth": ("depth.npy", build())}
    problem_in(await post(http, parts, BUILD), 422, "MediaError")


def in_scene(kitchen: bytes, name: str, content: bytes) -> bytes:
    """The kitchen's archive with another file in place of one."""
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(kitchen)) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    assert name in entries, sorted(entries)
    return make.zip_of(entries | {name: content})


UP = "kitchen/renders/traj_up"
SCENES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "video of 65535x65535": (
        f"{UP}/render.mp4",
        lambda: files.video_of_size(65_535, 65_535),
        "MediaError",
    ),
    "video of 4 billion frames": (
        f"{UP}/render.mp4",
        lambda: files.video_of_frames(2**32 - 1),
        "MediaError",
    ),
    "video of days": (f"{UP}/render.mp4", lambda: files.video_of_seconds(10**7), "MediaError"),
    "video, cut": (f"{UP}/render.mp4", lambda: files.video()[:-200], "MediaError"),
    "a playlist that reads files": (
        f"{UP}/render.mp4",
        lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "MediaError",
    ),
    "a list for concatenation": (
        f"{UP}/render.mp4",
        lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
        "MediaError",
    ),
    "a picture as video": (f"{UP}/render.mp4", files.image, "MediaError"),
    "image bomb": ("kitchen/image.png", lambda: files.png(20_000, 20_000), "MediaError"),
    "JSON that nests": (
        "kitchen/prompt.json",
        lambda: b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "PromptError",
    ),
    "a number of 100,000 digits": (
        "kitchen/prompt.json",
        lambda: b'{"prompt": ' + b"9" * 100_000 + b"}",
        "PromptError",
    ),
    "cameras of NaN": (f"{UP}/camera.json", lambda: b'{"extrinsic": [NaN]}', "CameraError"),
    "cameras that nest": (f"{UP}/camera.json", lambda: b"[" * 100_000, "CameraError"),
    "cameras of infinity": (
        f"{UP}/camera.json",
        lambda: b'{"extrinsic": [1e999, -1e999], "intrinsic": [Infinity]}',
        "CameraError",
    ),
}


@pytest.mark.parametrize(("name", "build", "error"), SCENES.values(), ids=SCENES)
async def test_scenes(
    name: str,
    build: Callable[[], bytes],
    error: str,
    http: httpx.AsyncClient,
    kitchen_zip: bytes,
) -> None:
    archive = in_scene(kitchen_zip, name, build())
    problem_in(await post(http, {"scene": ("kitchen.zip", archive)}), 422, error)


NESTED = b'{"build": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
PARAMETERS: dict[str, bytes] = {
    "JSON that nests": NESTED,
    "objects that nest": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "NaN": b'{"guidance_scale": NaN}',
    "infinity": b'{"guidance_scale": Infinity}',
    "beyond a float": b'{"guidance_scale": 1e999}',
    "a seed of 5000 digits": b'{"seed": ' + b"9" * 5000 + b"}",
    "a seed below zero": b'{"seed": -1}',
    "an array": b"[]",
    "half a character": rb'{"name": "\ud83d"}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "a name that climbs": b'{"name": "../../evil"}',
    "a name with NUL": rb'{"name": "a\u0000b"}',
    "an unknown field": b'{"__class__": "os.system"}',
    "a path of a huge number": b'{"build": {"prompt": "a", "trajectories": [{"preset": "orbit", '
    b'"azimuth": ' + b"9" * 5000 + b"}]}}",
    "a path of NaN": b'{"build": {"prompt": "a", "trajectories": [{"preset": "orbit", '
    b'"azimuth": NaN}]}}',
    "a path of no name": b'{"build": {"prompt": "a", "trajectories": [{"preset": "../up"}]}}',
    "70,000 bytes": b'{"name": "' + b"a" * 70_000 + b'"}',
}


@pytest.mark.parametrize("text", PARAMETERS.values(), ids=PARAMETERS)
async def test_parameters(text: bytes, http: httpx.AsyncClient) -> None:
    refused = await post(http, {"image": ("a.png", files.image())}, text)
    problem = problem_in(refused, 422, refused.json()["error"])
    assert problem.error in ("ValidationError", "ParameterError")


BOUNDARY = "multipart/form-data; boundary=x"


def part(disposition: str, body: bytes = b"x", more: bytes = b"") -> bytes:
    head = f"--x\r\nContent-Disposition: {disposition}\r\n".encode()
    return head + more + b"\r\n" + body + b"\r\n"


BODIES: dict[str, tuple[dict[str, str], bytes, int]] = {
    "no type": ({}, b"x", 422),
    "text": ({"Content-Type": "text/plain"}, b"x", 422),
    "a form without files": (
        {"Content-Type": "application/x-www-form-urlencoded"},
        b"scene=x",
        422,
    ),
    "XML": (
        {"Content-Type": "application/xml"},
        b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:/'>]>",
        422,
    ),
    "no boundary": ({"Content-Type": "multipart/form-data"}, b"x", 422),
    "an empty boundary": ({"Content-Type": 'multipart/form-data; boundary=""'}, b"x", 422),
    "a boundary of 70,000": (
        {"Content-Type": "multipart/form-data; boundary=" + "x" * 70_000},
        b"x",
        422,
    ),
    "nothing": ({"Content-Type": BOUNDARY}, b"", 400),
    "no end": ({"Content-Type": BOUNDARY}, part('form-data; name="scene"; filename="a"'), 400),
    "another boundary": ({"Content-Type": BOUNDARY}, b"--y\r\n\r\nx\r\n--y--", 400),
    "5000 parts": ({"Content-Type": BOUNDARY}, part('form-data; name="parameters"') * 5000, 422),
    "5000 unknown parts": ({"Content-Type": BOUNDARY}, part('form-data; name="a"') * 5000, 422),
    "no name": ({"Content-Type": BOUNDARY}, part("form-data"), 422),
    "a name that climbs": ({"Content-Type": BOUNDARY}, part('form-data; name="../../evil"'), 422),
    "a header without end": (
        {"Content-Type": BOUNDARY},
        b"--x\r\nContent-Disposition: " + b"a" * 3 * MIB,
        400,
    ),
    "10,000 headers of a part": (
        {"Content-Type": BOUNDARY},
        part('form-data; name="scene"', more=b"X-A: b\r\n" * 10_000),
        400,
    ),
    "a file name that climbs": (
        {"Content-Type": BOUNDARY},
        part('form-data; name="scene"; filename="../../../../tmp/evil"') + b"--x--\r\n",
        400,
    ),
    "gzip": (
        {"Content-Type": BOUNDARY, "Content-Encoding": "gzip"},
        gzip.compress(bytes(50 * MIB)),
        422,
    ),
    "more than announced": ({"Content-Type": BOUNDARY, "Content-Length": "9" * 18}, b"x", 413),
    "JSON that nests": (
        {"Content-Type": "application/json"},
        b'{"uri": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        422,
    ),
    "JSON without end": ({"Content-Type": "application/json"}, b'{"uri": "' + b"a" * MIB, 413),
    "an address of this machine": (
        {"Content-Type": "application/json"},
        b'{"uri": "http://169.254.169.254/latest/meta-data/"}',
        422,
    ),
    "a file of this machine": (
        {"Content-Type": "application/json"},
        b'{"uri": "file:///etc/passwd"}',
        422,
    ),
    "a key of 300": (
        {"Content-Type": BOUNDARY, "Idempotency-Key": "k" * 300},
        b"x",
        422,
    ),
    "a key with a line break": (
        {"Content-Type": BOUNDARY, "Idempotency-Key": "a\r\nX-Evil: 1"},
        b"x",
        422,
    ),
}


@pytest.mark.parametrize(("headers", "body", "status"), BODIES.values(), ids=BODIES)
async def test_bodies(
    headers: dict[str, str], body: bytes, status: int, http: httpx.AsyncClient
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65_536):
            yield body[at : at + 65_536]

    refused = await http.post("/v1/scenes", content=stream(), headers=headers)
    problem_in(refused, status, refused.json()["error"])


@pytest.fixture
def known(backend: Backend) -> str:
    """A folder of results of a scene that the store knows nothing of."""
    output = backend.folders.scene("known").output
    atomic_write_bytes(output / "plan.json", bytes(100))
    atomic_write_bytes(backend.folders.scene("known").input / "secret.png", b"secret")
    return "known"


@pytest.mark.parametrize(
    "path",
    [
        "plan.json%00.png",
        "../input/secret.png",
        "..%2finput%2fsecret.png",
        "%2e%2e/input/secret.png",
        "%252e%252e%252finput%252fsecret.png",
        "..%5cinput%5csecret.png",
        "%c0%ae%c0%ae/input/secret.png",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "./plan.json/../../input/secret.png",
        "a/" * 3000,
        "%0d%0aX-Evil:%201",
    ],
)
async def test_names_of_files(
    path: str, http: httpx.AsyncClient, known: str, backend: Backend, monkeypatch: Any
) -> None:
    as_if_stored(backend, known, monkeypatch)
    refused = await http.get(f"/v1/scenes/{known}/artefacts/{path}")
    assert b"secret" not in refused.content.replace(b"secret.png", b"")
    assert "X-Evil" not in refused.headers
    assert refused.status_code == 404
    assert refused.headers["Content-Type"] == MEDIA_TYPE
    assert Problem.model_validate_json(refused.content).status == 404


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("bytes=abc", 422),
        ("bytes=5-2", 422),
        ("bytes=", 422),
        ("bytes=--5", 422),
        ("lines=0-5", 422),
        ("bytes=0x1-0x5", 422),
        ("bytes=" + "9" * 5000 + "-", 422),
        ("bytes=" + ",".join(f"{i}-{i}" for i in range(5000)), 422),
        ("bytes=100-", 416),
        ("bytes=-0", 416),
        ("bytes=0-1,1000-2000", 416),
    ],
)
async def test_ranges(
    header: str,
    status: int,
    http: httpx.AsyncClient,
    known: str,
    backend: Backend,
    monkeypatch: Any,
) -> None:
    as_if_stored(backend, known, monkeypatch)
    refused = await http.get(f"/v1/scenes/{known}/artefacts/plan.json", headers={"Range": header})
    error = "ValidationError" if status == 422 else "RangeNotSatisfiable"
    problem_in(refused, status, error)
    assert ("Content-Range" in refused.headers) == (status == 416)


def as_if_stored(backend: Backend, scene_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the API find a scene, while lists stay empty."""
    from worldstereo_client.schemas import SceneRequest, SceneStatus

    from deployments.records import SceneRecord

    record = SceneRecord(
        number=1,
        id=scene_id,
        name="known",
        status=SceneStatus.COMPLETED,
        parameters=SceneRequest(),
        created_at=0.0,
        started_at=None,
        finished_at=None,
        error=None,
        last_event=1,
        trajectories=(),
    )
    monkeypatch.setattr(backend.store, "scene", lambda _: record)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/scenes/none/events", {"Last-Event-ID": "-1"}, 422),
        ("/v1/scenes/none/events", {"Last-Event-ID": "9" * 100}, 422),
        ("/v1/scenes/none/events", {"Last-Event-ID": "\u00b2"}, 422),
        ("/v1/scenes?cursor=" + "9" * 100, {}, 422),
        ("/v1/scenes?limit=1e9", {}, 422),
        ("/v1/scenes?limit=%00", {}, 422),
        ("/v1/scenes?status=queued'--", {}, 422),
        ("/v1/scenes/%00", {}, 404),
        ("/v1/scenes/'; DROP TABLE scenes; --", {}, 404),
        ("/v1/scenes/" + "a" * 60_000, {}, 404),
        ("/v1/scenes/..%2f..%2fuploads", {}, 404),
        ("//evil.example/v1/scenes", {}, 404),
    ],
)
async def test_paths_and_headers(
    path: str, headers: dict[str, str], status: int, http: httpx.AsyncClient
) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    refused = await http.get(httpx.URL(f"http://server{path}"), headers=encoded)
    problem_in(refused, status, refused.json()["error"])
