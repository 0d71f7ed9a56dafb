"""Reads a scene from an address that a submission names: from allowed places alone.

Owns which addresses are read, and that a name never leads to a private one: names are resolved
here, every address is checked, and the connection goes to the very address that was checked, so a
name that answers differently the second time gains nothing. Redirects are followed by hand, each
through the same checks. What the bytes are is the submission's part.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import httpcore

from configs.settings import MIB, UriSettings
from deployments.errors import UploadTooLarge, UriError
from deployments.multipart import ReceivedFile
from deployments.public_addresses import is_public
from worldstereo.errors import MissingDependencyError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = MIB

Resolve = Callable[[str, int], list[str]]
Connect = Callable[..., httpcore.NetworkStream]


def resolve(host: str, port: int) -> list[str]:
    """The addresses that a name stands for.

    Raises:
        OSError: it stands for none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class UriReader:
    """Reads files from allowed addresses.

    Args:
        settings: which addresses, and how long.
        max_bytes: of one file.
        resolve: looks a name up.
        connect: opens a connection to an address; None: httpcore's.
        tls: None: the usual authorities vouch for a server.
    """

    def __init__(
        self,
        settings: UriSettings,
        max_bytes: int,
        *,
        resolve: Resolve = resolve,
        connect: Connect | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._backend = PublicAddressesOnly(resolve, connect or httpcore.SyncBackend().connect_tcp)
        self._tls = tls

    def read(self, uri: str, target: Path) -> ReceivedFile:
        """Fetch a file; blocks.

        Args:
            uri: https:// or s3://.
            target: file to write, which does not exist yet.

        Raises:
            UriError: the address is not allowed, or nothing usable came from it.
            UploadTooLarge: the file is larger than the limit; what came is left in ``target``.
            MissingDependencyError: s3:// without s3fs.
        """
        parts = self._allowed(uri)
        ends_at = time.monotonic() + self._settings.timeout_s
        sha256, written = hashlib.sha256(), 0
        with ExitStack() as stack:
            file = stack.enter_context(target.open("xb"))
            source = self._from_s3(uri) if parts.scheme == "s3" else self._from_https(uri)
            chunks = stack.enter_context(closing(source))
            for chunk in chunks:
                written += len(chunk)
                self._check_size(written)
                if time.monotonic() > ends_at:
                    raise UriError(
                        "the download takes too long",
                        where="uri",
                        allowed=f"at most {self._settings.timeout_s:g} s",
                    )
                file.write(chunk)
                sha256.update(chunk)
        name = PurePosixPath(unquote(parts.path)).name
        return ReceivedFile(name, target, sha256.hexdigest())

    def _allowed(self, uri: str) -> SplitResult:
        """The parts of an address that may be read."""
        if not self._settings.allowed:
            raise UriError(
                "this server reads no scenes from addresses",
                where="uri",
                fix="send the files themselves; or its operator names places in uris.allowed",
            )
        parts = _parts(uri)
        if not any(_below(parts, _parts(prefix)) for prefix in self._settings.allowed):
            raise UriError(
                "the server does not read from there",
                where="uri",
                got=repr(uri[:200]),
                allowed="addresses below those that its operator has named",
            )
        return parts

    def _check_size(self, written: int) -> None:
        if written > self._max_bytes:
            raise UploadTooLarge(
                "the file at the address is too large",
                where="uri",
                got=f"{written} bytes or more",
                allowed=f"at most {self._max_bytes} bytes",
            )

    def _from_https(self, uri: str) -> Generator[bytes, None, None]:
        timeout = dict.fromkeys(
            ("connect", "read", "write", "pool"), self._settings.connect_timeout_s
        )
        # A file's own bytes: a body that unfolds on the way would pass the limit unseen.
        headers: dict[bytes | str, bytes | str] = {
            "Accept-Encoding": "identity",
            "User-Agent": "worldstereo-cluster",
        }
        try:
            with httpcore.ConnectionPool(
                ssl_context=self._tls, network_backend=self._backend
            ) as pool:
                for _ in range(self._settings.max_redirects + 1):
                    with pool.stream(
                        "GET", uri, headers=headers, extensions={"timeout": timeout}
                    ) as response:
                        if response.status not in _REDIRECTS:
                            yield from self._body(response)
                            return
                        uri = urljoin(uri, _header(response, b"location"))
                    if self._allowed(uri).scheme != "https":
                        raise UriError("a redirect away from https", where="uri")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            # The reason may tell of the network that the server is in.
            raise UriError("nothing could be read from there", where="uri") from error
        raise UriError(
            "too many redirects", where="uri", allowed=f"at most {self._settings.max_redirects}"
        )

    def _body(self, response: httpcore.Response) -> Iterator[bytes]:
        if response.status != 200:
            raise UriError(
                "the file cannot be had from there", where="uri", got=f"HTTP {response.status}"
            )
        if _header(response, b"content-encoding") not in ("", "identity"):
            raise UriError("the file comes compressed in itself", where="uri")
        announced = _header(response, b"content-length")
        self._check_size(int(announced) if announced.isdecimal() else 0)
        yield from response.iter_stream()

    def _from_s3(self, uri: str) -> Generator[bytes, None, None]:
        try:
            import s3fs
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise MissingDependencyError(
                "s3:// needs a package that is not installed",
                where="uri",
                fix="pip install 'worldstereo-cluster[s3]'",
            ) from error
        try:
            # What was listed earlier may have changed since.
            files = s3fs.S3FileSystem(use_listings_cache=False)
            with files.open(uri, "rb") as file:
                self._check_size(file.size)
                while chunk := file.read(_CHUNK):
                    yield chunk
        except (OSError, BotoCoreError) as error:
            raise UriError("nothing could be read from there", where="uri") from error


class PublicAddressesOnly(httpcore.NetworkBackend):
    """Connects to a name's addresses after all of them were found to be public.

    Args:
        resolve: looks a name up.
        connect: opens a connection to an address.
    """

    def __init__(self, resolve: Resolve, connect: Connect) -> None:
        self._resolve = resolve
        self._connect = connect

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to one of the addresses of ``host``.

        Raises:
            UriError: one of them is not public.
            httpcore.ConnectError: there is none, or none answers.
        """
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:  # the latter: a name that none can be
            raise httpcore.ConnectError("the name is not known") from error
        if not addresses or not all(map(is_public, addresses)):
            raise UriError("the name does not lead to a public address", where="uri")
        options = {"local_address": local_address, "socket_options": socket_options}
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self._connect(address, port, timeout=timeout, **options)
        return self._connect(addresses[-1], port, timeout=timeout, **options)


def _parts(uri: str) -> SplitResult:
    """The parts of an address that every reader takes for the same ones."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise UriError("not an address", where="uri", got=repr(uri[:200])) from error
    segments = unquote(unquote(parts.path)).replace("\\", "/").split("/")
    odd = (
        not uri.isascii()
        or any(char in '\\<>"`{}|^' or char <= " " or char == "\x7f" for char in uri)
        or not uri.startswith(("https://", "s3://"))
        or not parts.hostname
        or "@" in parts.netloc
        or bool(parts.fragment)
        or port == 0
        or any(segment in (".", "..") for segment in segments)
        or (parts.scheme == "s3" and (bool(parts.query) or any(char in uri for char in "*?[]")))
        # fsspec takes it for a chain of file systems.
        or "::" in parts.path
    )
    if odd:
        raise UriError(
            "not an address that is read from",
            where="uri",
            got=repr(uri[:200]),
            allowed="https://HOST/PATH or s3://BUCKET/PATH, without user, .. or #",
        )
    return parts


def _below(parts: SplitResult, prefix: SplitResult) -> bool:
    def origin(of: SplitResult) -> tuple[str, str, int]:
        return of.scheme, (of.hostname or "").rstrip("."), of.port or 443

    return origin(parts) == origin(prefix) and parts.path.startswith(prefix.path)


def _header(response: httpcore.Response, name: bytes) -> str:
    for key, value in response.headers:
        if key.lower() == name:
            return bytes(value).decode("latin-1").strip()
    return ""
