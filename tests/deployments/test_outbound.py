"""Where requests that somebody else asked for may go."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployments.outbound import (
    JudgedTransport,
    OutboundRules,
    check_url,
    outbound_client,
)
from deployments.public_addresses import is_public
from tests.receiver import receiving
from worldstereo.errors import ParameterError

STRICT = OutboundRules()
HERE = OutboundRules(allow_http=True, allowed_hosts=frozenset({"127.0.0.1", "hooks.internal"}))

PRIVATE = (
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd12::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
)


@pytest.mark.parametrize("address", PRIVATE)
def test_no_private_address_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ParameterError, match="must not connect"):
        check_url(f"https://{host}/hook", STRICT, "webhook_url")


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2002:101:101::"]
)
def test_public_ones_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com",
        "file:///etc/passwd",
        "//example.com",
        "example.com",
        "https://",
        "",
        "https://user:secret@example.com",
        "https://example.com/#part",
        "https://example.com/\nx",
        "https://exa mple.com",
        "https://example.com:99999",
        "https://example.com/" + "x" * 2048,
        "https://[::1",
    ],
)
def test_urls_of_another_form_are_refused(url: str) -> None:
    with pytest.raises(ParameterError):
        check_url(url, STRICT, "webhook_url")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "localhost", "hooks.internal"])
async def test_names_are_judged_when_they_are_connected_to(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(name: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", port))
        private = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        return [public, private]  # one of both is enough

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    check_url(f"https://{host}/hook", STRICT, "webhook_url")
    async with outbound_client(STRICT, 5) as client:
        with pytest.raises(ParameterError, match=r"must not connect there.*127\.0\.0\.1"):
            await client.post(f"https://{host}/hook")


async def test_the_connection_goes_to_the_judged_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that says another address the second time is asked but once."""
    asked: list[str] = []

    def resolve(name: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        asked.append(name)
        address = "1.1.1.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    sent: list[httpx.Request] = []

    class Inner(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return httpx.Response(204)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with httpx.AsyncClient(transport=JudgedTransport(STRICT, Inner())) as client:
        await client.post("https://hooks.example/told?a=b", content=b"x")
    assert asked == ["hooks.example"]
    assert str(sent[0].url) == "https://1.1.1.1/told?a=b"
    assert sent[0].headers["host"] == "hooks.example"
    assert sent[0].extensions["sni_hostname"] == "hooks.example"


async def test_allowed_hosts_may_be_private_and_redirects_are_not_followed() -> None:
    with receiving(lambda number: 307) as receiver:
        async with outbound_client(HERE, 5) as client:
            answer = await client.post(f"{receiver.url}/hook", content=b"x")
            assert answer.status_code == 307
            with pytest.raises(ParameterError):
                await client.post(receiver.url.replace("127.0.0.1", "127.0.0.2"), content=b"x")
        assert [message.path for message in receiver.received] == ["/hook"]


async def test_a_name_with_several_addresses_is_tried_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiving() as receiver:
        port = int(receiver.url.rpartition(":")[2])

        def resolve(name: str, wanted: int, *rest: Any, **options: Any) -> list[Any]:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in ("127.0.0.2", "127.0.0.1")  # nobody listens at the first
            ]

        loop = asyncio.get_running_loop()

        async def resolving(*arguments: Any, **options: Any) -> list[Any]:
            return resolve(*arguments)

        monkeypatch.setattr(loop, "getaddrinfo", resolving)
        async with outbound_client(HERE, 5) as client:
            answer = await client.post(f"http://hooks.internal:{port}/hook", content=b"x")
        assert answer.status_code == 204
        assert receiver.received[0].headers["Host"] == f"hooks.internal:{port}"


async def test_the_certificate_must_be_the_names_not_the_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path, "hooks.internal")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    asking = ssl.create_default_context(cafile=str(certificate))
    rules = OutboundRules(allowed_hosts=frozenset({"hooks.internal", "other.internal"}))

    async def resolving(name: str, port: int, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolving)
    with receiving(tls=serving) as receiver:
        port = receiver.url.rpartition(":")[2]
        transport = JudgedTransport(rules, httpx.AsyncHTTPTransport(verify=asking))
        async with httpx.AsyncClient(transport=transport) as client:
            answer = await client.post(f"https://hooks.internal:{port}/hook", content=b"x")
            assert answer.status_code == 204
            with pytest.raises(httpx.ConnectError, match=r"other\.internal"):
                await client.post(f"https://other.internal:{port}/hook", content=b"x")
    assert len(receiver.received) == 1


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a certificate of this name and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
