"""Addresses that the server reads scenes from: what is allowed, what is refused, and when."""

import dataclasses
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from pydantic import ValidationError
from worldstereo_client.schemas import Scene

from configs.settings import UploadLimits, UriSettings
from deployments.api import Backend, create_api
from deployments.errors import UploadTooLarge, UriError
from deployments.public_addresses import is_public
from deployments.remote_upload import RemoteUploads
from deployments.uris import PublicAddressesOnly, UriReader
from tests.deployments.http_api import problem_in

HOST, OTHER = "scenes.example", "other.example"
PUBLIC = "93.184.215.14"
ALLOWED = f"https://{HOST}/ready/"


@dataclasses.dataclass
class Files:
    """A TLS server on loopback that the fake names lead to."""

    port: int
    tls: ssl.SSLContext
    content: dict[str, bytes] = dataclasses.field(default_factory=dict)
    redirects: dict[str, str] = dataclasses.field(default_factory=dict)
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    asked: list[str] = dataclasses.field(default_factory=list)
    endless: bool = False


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for both names, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(HOST), x509.DNSName(OTHER)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def files(certificate: Path) -> Iterator[Files]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(f"{self.headers['Host']}{self.path}")
            if self.path in served.redirects:
                self.send_response(302)
                self.send_header("Location", served.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = served.content.get(self.path)
            self.send_response(404 if body is None else 200)
            for name, value in served.headers.items():
                self.send_header(name, value)
            if not served.endless:
                self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            try:
                self.wfile.write(body or b"")
                while served.endless:
                    self.wfile.write(bytes(65536))
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    served = Files(server.server_port, ssl.create_default_context(cafile=str(certificate)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@dataclasses.dataclass
class Network:
    """Names, and the one public address, which is the local server in truth."""

    port: int
    names: dict[str, list[list[str]]]
    connected: list[str] = dataclasses.field(default_factory=list)

    def resolve(self, host: str, port: int) -> list[str]:
        answers = self.names.get(host)
        if answers is None:
            raise socket.gaierror("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, host: str, port: int, **options: Any) -> httpcore.NetworkStream:
        self.connected.append(host)
        assert ipaddress.ip_address(host).is_global
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", self.port, **options)


@pytest.fixture
def network(files: Files) -> Network:
    return Network(files.port, {HOST: [[PUBLIC]], OTHER: [[PUBLIC]]})


@pytest.fixture
def reader(files: Files, network: Network) -> UriReader:
    return reader_of(files, network)


def reader_of(
    files: Files, network: Network, max_bytes: int = 1_000_000, **settings: Any
) -> UriReader:
    given = {"allowed": (ALLOWED,), "connect_timeout_s": 5.0} | settings
    return UriReader(
        UriSettings(**given),
        max_bytes,
        resolve=network.resolve,
        connect=network.connect,
        tls=files.tls,
    )


def test_a_file_comes_from_an_allowed_place(
    reader: UriReader, files: Files, network: Network, tmp_path: Path
) -> None:
    files.content["/ready/my%20kitchen.zip?v=1"] = b"content"
    got = reader.read(f"{ALLOWED}my%20kitchen.zip?v=1", tmp_path / "file")
    assert got.path.read_bytes() == b"content"
    assert got.name == "my kitchen.zip"
    assert network.connected == [PUBLIC]
    assert files.asked == [f"{HOST}/ready/my%20kitchen.zip?v=1"]


@pytest.mark.parametrize(
    "uri",
    [
        f"http://{HOST}/ready/a.zip",
        f"https://{HOST}/a.zip",
        f"https://{HOST}/ready",
        f"https://{HOST}/readyx/a.zip",
        f"https://{HOST}/ready/../a.zip",
        f"https://{HOST}/ready/%2e%2e/a.zip",
        f"https://{HOST}/ready/%252e%252e/a.zip",
        f"https://{HOST}/ready/..%2Fa.zip",
        f"https://{HOST}/ready/..%5Ca.zip",
        f"https://{HOST}/ready\\..\\a.zip",
        f"https://{HOST}:444/ready/a.zip",
        f"https://{HOST}:0/ready/a.zip",
        f"https://{HOST}:99999/ready/a.zip",
        f"https://{HOST}.evil.example/ready/a.zip",
        f"https://{HOST}@evil.example/ready/a.zip",
        f"https://user:password@{HOST}/ready/a.zip",
        f"https://{HOST}/ready/a.zip#x",
        f"https://{HOST}/ready/a\r\nHost: evil.zip",
        f"https://{HOST}/ready/a b.zip",
        f"https://{HOST}/ready/ü.zip",
        "https://127.0.0.1/ready/a.zip",
        "https://[::1]/ready/a.zip",
        "https://169.254.169.254/latest/meta-data/",
        "https:///ready/a.zip",
        "https://[::/ready/a.zip",
        "file:///etc/passwd",
        "ftp://scenes.example/ready/a.zip",
        "s3://bucket/a.zip",
        "s3::https://scenes.example/ready/a.zip",
        "zip://a.png::https://scenes.example/ready/a.zip",
        "/etc/passwd",
        "a.zip",
    ],
)
def test_what_is_not_on_the_list_is_not_even_looked_up(
    uri: str, reader: UriReader, network: Network, tmp_path: Path
) -> None:
    network.names.clear()
    with pytest.raises(UriError, match="read"):
        reader.read(uri, tmp_path / "file")
    assert network.connected == []
    assert not (tmp_path / "file").exists()


PRIVATE = [
    *("127.0.0.1", "10.0.0.8", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
    *("100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fec0::1", "ff02::1"),
    *("::127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "no address"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_inside_is_refused(
    address: str, files: Files, network: Network, tmp_path: Path
) -> None:
    assert not is_public(address)
    # One private address among public ones is enough.
    network.names[HOST] = [[PUBLIC, address]]
    with pytest.raises(UriError, match="public address"):
        reader_of(files, network).read(f"{ALLOWED}a.zip", tmp_path / "file")
    assert network.connected == []


def test_a_name_that_changes_its_mind_gains_nothing(
    files: Files, network: Network, tmp_path: Path
) -> None:
    files.content["/ready/a.zip"] = b"content"
    network.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
    reader = reader_of(files, network)
    # The address that was checked is the one that is connected to: the name is asked once.
    reader.read(f"{ALLOWED}a.zip", tmp_path / "one")
    assert network.connected == [PUBLIC]
    with pytest.raises(UriError, match="public address"):
        reader.read(f"{ALLOWED}a.zip", tmp_path / "two")
    assert network.connected == [PUBLIC]


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    tried = []

    def connect(host: str, port: int, **options: Any) -> Any:
        tried.append(host)
        if host == "2606:4700::1":
            raise httpcore.ConnectError("no route")
        return "stream"

    backend = PublicAddressesOnly(lambda host, port: ["2606:4700::1", PUBLIC], connect)
    assert backend.connect_tcp(HOST, 443) == "stream"
    assert tried == ["2606:4700::1", PUBLIC]


def test_redirects_are_followed_to_allowed_places_alone(
    reader: UriReader, files: Files, network: Network, tmp_path: Path
) -> None:
    files.content["/ready/a.zip"] = b"content"
    files.redirects |= {
        "/ready/here": "a.zip",
        "/ready/other": f"https://{OTHER}/ready/a.zip",
        "/ready/inside": "https://169.254.169.254/ready/a.zip",
        "/ready/plain": f"http://{HOST}/ready/a.zip",
        "/ready/file": "file:///etc/passwd",
        "/ready/up": "../a.zip",
        "/ready/loop": "loop",
    }
    assert reader.read(f"{ALLOWED}here", tmp_path / "here").path.read_bytes() == b"content"
    for name in ("other", "inside", "plain", "file", "up"):
        with pytest.raises(UriError, match="read from"):
            reader.read(f"{ALLOWED}{name}", tmp_path / name)
    with pytest.raises(UriError, match="too many redirects"):
        reader.read(f"{ALLOWED}loop", tmp_path / "loop")
    assert all(asked.startswith(f"{HOST}/ready/") for asked in files.asked)


def test_s3_is_no_way_around_through_a_redirect(
    files: Files, network: Network, tmp_path: Path
) -> None:
    files.redirects["/ready/a"] = "s3://bucket/a.zip"
    reader = reader_of(files, network, allowed=(ALLOWED, "s3://bucket/"))
    with pytest.raises(UriError, match="away from https"):
        reader.read(f"{ALLOWED}a", tmp_path / "file")


@pytest.mark.parametrize("endless", [False, True])
def test_a_file_may_be_so_large(
    endless: bool, files: Files, network: Network, tmp_path: Path
) -> None:
    files.content["/ready/a.zip"] = bytes(2_000_000)
    files.endless = endless
    target = tmp_path / "file"
    with pytest.raises(UploadTooLarge, match="1000000 bytes"):
        reader_of(files, network).read(f"{ALLOWED}a.zip", target)
    assert target.stat().st_size <= 1_000_000


def test_a_download_may_take_so_long(files: Files, network: Network, tmp_path: Path) -> None:
    files.content["/ready/a.zip"] = b"x"
    files.endless = True
    reader = reader_of(files, network, max_bytes=2**40, timeout_s=0.2)
    with pytest.raises(UriError, match="too long"):
        reader.read(f"{ALLOWED}a.zip", tmp_path / "file")


def test_what_cannot_be_had_is_told(
    reader: UriReader, files: Files, network: Network, tmp_path: Path
) -> None:
    with pytest.raises(UriError, match="HTTP 404"):
        reader.read(f"{ALLOWED}none.zip", tmp_path / "a")
    files.content["/ready/a.zip"] = b"content"
    files.headers["Content-Encoding"] = "gzip"
    with pytest.raises(UriError, match="compressed"):
        reader.read(f"{ALLOWED}a.zip", tmp_path / "b")
    del network.names[HOST]
    with pytest.raises(UriError, match="nothing could be read") as caught:
        reader.read(f"{ALLOWED}a.zip", tmp_path / "c")
    assert PUBLIC not in str(caught.value)


def test_a_server_that_nobody_vouches_for_is_not_read_from(
    files: Files, network: Network, tmp_path: Path
) -> None:
    files.content["/ready/a.zip"] = b"content"
    files.tls = ssl.create_default_context()
    with pytest.raises(UriError, match="nothing could be read"):
        reader_of(files, network).read(f"{ALLOWED}a.zip", tmp_path / "file")
    assert files.asked == []


@pytest.mark.parametrize(
    "prefix", ["http://a.example/", "https://a.example", "https:///", "s3://", "file:///", "x"]
)
def test_a_prefix_says_what_it_allows(prefix: str) -> None:
    with pytest.raises(ValidationError):
        UriSettings(allowed=(prefix,))


@contextmanager
def api_with(backend: Backend, reader: UriReader) -> Iterator[FastAPI]:
    backend.submitter._remote = RemoteUploads(reader, UploadLimits())
    yield create_api(backend)


async def test_a_scene_is_submitted_by_its_address(
    backend: Backend, reader: UriReader, files: Files, kitchen_zip: bytes
) -> None:
    files.content["/ready/kitchen.zip"] = kitchen_zip
    files.content["/ready/text.zip"] = b"no archive"
    sent = {"uri": f"{ALLOWED}kitchen.zip", "parameters": {"seed": 5}}
    with api_with(backend, reader) as api:
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
            key = {"Idempotency-Key": "one"}
            answer = await http.post("/v1/scenes", json=sent, headers=key)
            scene = Scene.model_validate_json(answer.content)
            assert (answer.status_code, scene.name, scene.parameters.seed) == (202, "kitchen", 5)
            again = await http.post("/v1/scenes", json=sent, headers=key)
            assert again.json()["id"] == scene.id
            for uri, status, error in (
                (f"{ALLOWED}text.zip", 400, "UploadError"),
                (f"{ALLOWED}none.zip", 422, "UriError"),
                ("https://127.0.0.1/x", 422, "UriError"),
            ):
                refused = await http.post("/v1/scenes", json={"uri": uri})
                problem_in(refused, status, error)
            assert list((backend.folders.root / "uploads").iterdir()) == []


async def test_without_a_list_nothing_is_read(
    http: httpx.AsyncClient, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        pytest.fail("a name was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    refused = await http.post("/v1/scenes", json={"uri": f"{ALLOWED}a.zip"})
    problem = problem_in(refused, 422, "UriError")
    assert "uris.allowed" in (problem.fix or "")
    assert list((backend.folders.root / "uploads").iterdir()) == []


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], None]]:
    """An S3 server on loopback; puts a file into its bucket ``scenes``."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="scenes")
    yield lambda key, body: client.put_object(Bucket="scenes", Key=key, Body=body)
    client.close()
    server.stop()


def test_a_file_comes_from_an_allowed_bucket(
    bucket: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    bucket("ready/a.zip", b"content")
    bucket("secret/a.zip", b"secret")
    bucket("ready/big.zip", bytes(2000))
    reader = UriReader(UriSettings(allowed=("s3://scenes/ready/",)), 1000)
    got = reader.read("s3://scenes/ready/a.zip", tmp_path / "file")
    assert (got.name, got.path.read_bytes()) == ("a.zip", b"content")
    with pytest.raises(UploadTooLarge):
        reader.read("s3://scenes/ready/big.zip", tmp_path / "big")
    with pytest.raises(UriError, match="nothing could be read"):
        reader.read("s3://scenes/ready/none.zip", tmp_path / "none")
    for refused in ("secret/a.zip", "ready/../secret/a.zip", "ready/*", "ready/a.zip?versionId=1"):
        with pytest.raises(UriError, match="read from"):
            reader.read(f"s3://scenes/{refused}", tmp_path / "refused")
