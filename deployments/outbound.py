"""Requests that the service makes to addresses that somebody else named.

Owns that such a request reaches nothing that is private: the host is resolved once, every address
that it stands for is judged, and the connection goes to a judged address, so a name that says
something else a moment later gains nothing. No proxy, no redirect, no credentials in a URL.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass

import httpx

from deployments.public_addresses import Address, is_public
from worldstereo.errors import ParameterError

_LONGEST_URL = 2048
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")  # in ASCII, as it goes to the resolver


@dataclass(frozen=True)
class OutboundRules:
    """What may be asked.

    Attributes:
        allow_http: whether a URL may be http.
        allowed_hosts: names or addresses, lower case, that may be private.
    """

    allow_http: bool = False
    allowed_hosts: frozenset[str] = frozenset()


def check_url(url: str, rules: OutboundRules, where: str) -> httpx.URL:
    """The URL, if its form is allowed; a host that is an address is judged, a name is not yet.

    Args:
        url: as it was sent.
        rules: what is allowed.
        where: which parameter it is, for the error.

    Raises:
        ParameterError: it is not allowed.
    """
    try:
        parsed = httpx.URL(url)
        host, port = parsed.raw_host.decode(), parsed.port
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise _refused(where, url, f"a URL ({error})") from error
    schemes = ("https", "http") if rules.allow_http else ("https",)
    if len(url) > _LONGEST_URL or not url.isprintable():
        raise _refused(where, url, f"at most {_LONGEST_URL} printable characters")
    if parsed.scheme not in schemes or not host:
        raise _refused(where, url, f"a URL of {' or '.join(schemes)}")
    if port is not None and not 0 < port < 2**16:
        raise _refused(where, url, "a port of 1 to 65535")
    if parsed.userinfo or parsed.fragment:
        raise _refused(where, url, "a URL without user, password and fragment")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _NAME.fullmatch(host):
            raise _refused(where, url, "the name of a host") from None
        return parsed
    if not _may_connect(host, address, rules):
        raise _refused(where, url, "a public address")
    return parsed


async def judged_addresses(host: str, port: int, rules: OutboundRules) -> list[str]:
    """The addresses that a host stands for now, each of which may be connected to.

    Raises:
        ParameterError: any of them must not be.
        OSError: the name does not resolve.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not _may_connect(host, ipaddress.ip_address(address), rules):
            raise _refused("host", host, "a name of public addresses alone", f" at {address}")
    return addresses


def outbound_client(rules: OutboundRules, timeout_s: float) -> httpx.AsyncClient:
    """A client that connects to judged addresses alone.

    Its calls raise ``ParameterError``, or httpx's errors.
    """
    return httpx.AsyncClient(
        transport=JudgedTransport(rules, httpx.AsyncHTTPTransport(trust_env=False)),
        timeout=timeout_s,
        trust_env=False,
        follow_redirects=False,
    )


class JudgedTransport(httpx.AsyncBaseTransport):
    """Resolves a request's host, judges it, and sends the request to the address.

    The certificate is checked against the host's name, which is also sent to the server.
    """

    def __init__(self, rules: OutboundRules, inner: httpx.AsyncBaseTransport) -> None:
        self._rules = rules
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx has it."""
        url = check_url(str(request.url.copy_with(fragment=None)), self._rules, "url")
        port = url.port or {"https": 443, "http": 80}[url.scheme]
        try:
            addresses = await judged_addresses(url.host, port, self._rules)
        except OSError as error:
            raise httpx.ConnectError(f"{url.host}: {error}", request=request) from error
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        for address in addresses[:-1]:
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        request.url = url.copy_with(host=addresses[-1])
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


def _may_connect(host: str, address: Address, rules: OutboundRules) -> bool:
    return is_public(address) or host.lower().rstrip(".") in rules.allowed_hosts


def _refused(where: str, got: str, allowed: str, note: str = "") -> ParameterError:
    return ParameterError(
        "the service must not connect there",
        where=where,
        got=f"{got[:200]!r}{note}",
        allowed=allowed,
        fix="ask who runs the server, if it should",
    )
