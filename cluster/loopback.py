"""Which TCP ports processes listen on, and whether any is reachable from outside.

Reads /proc, so it answers on Linux only; elsewhere Ray binds to loopback by itself.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"


@dataclass(frozen=True, order=True)
class Listener:
    """A TCP socket that accepts connections, and the process that holds it."""

    address: str
    port: int
    pid: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        address = ipaddress.ip_address(self.address)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return address.is_loopback


def listeners(pids: list[int]) -> list[Listener]:
    """The TCP sockets that these processes listen on; empty where there is no /proc."""
    if not sys.platform.startswith("linux"):
        return []
    sockets: dict[str, tuple[str, int]] = {}
    for table in ("tcp", "tcp6"):
        lines = Path("/proc/net", table).read_text().splitlines()[1:]
        for fields in (line.split() for line in lines):
            if fields[3] == _LISTEN:
                sockets[fields[9]] = _endpoint(fields[1])
    found = set()
    for pid in pids:
        for inode in _socket_inodes(pid):
            if inode in sockets:
                found.add(Listener(*sockets[inode], pid))
    return sorted(found)


def is_loopback_host(host: str) -> bool:
    """Whether every address that ``host`` stands for is a loopback address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return False
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)


def keep_replicas_on_loopback() -> None:
    """Set-up hook of a Ray worker process: Serve's replicas listen on 127.0.0.1 alone.

    A replica opens a gRPC port for other deployments, without any authentication and on every
    address; Ray has no setting for it. The hook runs before the replica's code is imported.
    """
    from ray._common import tls_utils

    original = tls_utils.add_port_to_grpc_server

    def on_loopback(server: object, address: str) -> int:
        host, _, port = address.rpartition(":")
        bound: int = original(server, f"127.0.0.1:{port}" if host == "[::]" else address)
        return bound

    tls_utils.add_port_to_grpc_server = on_loopback


def _socket_inodes(pid: int) -> list[str]:
    inodes = []
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # the process has gone, or belongs to somebody else
        return []
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:  # closed since the folder was listed
            continue
        if target.startswith("socket:["):
            inodes.append(target[len("socket:[") : -1])
    return inodes


def _endpoint(field: str) -> tuple[str, int]:
    address, port = field.split(":")
    # The kernel prints each 32-bit word of the address in host byte order.
    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
