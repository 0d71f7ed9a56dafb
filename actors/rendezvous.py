"""Where the ranks of a worker group meet: a store in rank 0's process, on the node's own address.

Owns which address and interface torch.distributed uses, so that nothing of it listens elsewhere,
and the check after a failed clip that all ranks still stand at the same place. Who the ranks are
and when they meet is the group's part (worker_group.py). Imports torch only when it is called.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from worldstereo.errors import GenerationError, ParameterError
from worldstereo.parallel.layout import ParallelLayout

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from worldstereo.parallel.mesh import ParallelMesh

# Each library of torch.distributed chooses an interface by itself, unless it is told one: by its
# name, before which NCCL wants a sign lest it take all whose names begin so.
_INTERFACE_VARIABLES = {"GLOO_SOCKET_IFNAME": "{}", "NCCL_SOCKET_IFNAME": "={}"}

# Linux: the request for an interface's IPv4 address, and where in the answer it lies.
_SIOCGIFADDR = 0x8915
_ADDRESS = slice(20, 24)


@dataclass(frozen=True)
class MeetingPoint:
    """Where rank 0's store listens."""

    host: str
    port: int


def open_store(host: str, *, timeout_s: float) -> tuple[Store, MeetingPoint]:
    """The store that the ranks meet at, served by this process; rank 0 calls it.

    Args:
        host: IPv4 address of this node; the store listens there alone.
        timeout_s: longest wait for what another rank writes.
    """
    # The port is taken before it is told to anybody, so no other process can come between.
    listener = socket.create_server((host, 0))
    meeting = MeetingPoint(host, listener.getsockname()[1])
    return _store(meeting, timeout_s, is_master=True, master_listen_fd=listener.detach()), meeting


def join_store(meeting: MeetingPoint, *, timeout_s: float) -> Store:
    """The store of rank 0's process; the other ranks call it."""
    return _store(meeting, timeout_s, is_master=False)


def _store(meeting: MeetingPoint, timeout_s: float, **side: Any) -> Store:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    timeout = timedelta(seconds=timeout_s)
    store: Store = TCPStore(
        meeting.host, meeting.port, wait_for_workers=False, timeout=timeout, **side
    )
    return store


def join_mesh(
    layout: ParallelLayout, rank: int, store: Store, device: str, host: str, timeout_s: float
) -> ParallelMesh:
    """This process's place among the ranks; all must call it.

    Args:
        layout: the same on all ranks.
        rank: of this process.
        store: of ``open_store`` or ``join_store``.
        device: torch device of this rank.
        host: IPv4 address of this node.
        timeout_s: as ``ParallelMesh.join``.

    Raises:
        ParameterError: no network interface holds the address.
        torch.distributed.DistError: the others were not there in time.
    """
    stay_on_interface_of(host)

    from worldstereo.parallel.mesh import ParallelMesh

    return ParallelMesh.join(layout, rank=rank, store=store, device=device, timeout_s=timeout_s)


def meet(mesh: ParallelMesh) -> None:
    """Check that all ranks stand at the same place; each must call it.

    After a clip that failed a rank may have left an exchange that others still wait in. Then this
    hangs, or finds a wrong sum: whoever calls it sets a deadline, and ends the group.

    Raises:
        GenerationError: the ranks are out of step.
        RuntimeError: from torch.distributed, when a rank has gone.
    """
    import torch
    import torch.distributed as dist

    assert mesh.device_mesh is not None
    mesh.agree(lambda: None)
    groups = [dist.group.WORLD, *mesh.device_mesh.get_all_groups()]
    for group in groups:
        count = torch.ones(1, device=mesh.device)
        dist.all_reduce(count, group=group)
        if int(count) != dist.get_world_size(group):
            raise GenerationError(
                "the ranks are out of step",
                where=f"rank {mesh.rank}",
                got=f"a sum of {int(count)} over {dist.get_world_size(group)} ranks",
            )


def stay_on_interface_of(address: str) -> None:
    """Make Gloo and NCCL use the interface that holds this address, unless they are told one.

    Raises:
        ParameterError: no interface holds it.
    """
    missing = [name for name in _INTERFACE_VARIABLES if not os.environ.get(name)]
    if not missing:
        return
    interface = interface_of(address)
    if interface is None:
        raise ParameterError(
            "no network interface holds the address of this node",
            where="ranks of a worker group",
            got=address,
            fix=f"set {' and '.join(missing)} on the nodes",
        )
    for name in missing:
        os.environ[name] = _INTERFACE_VARIABLES[name].format(interface)


def interface_of(address: str) -> str | None:
    """Name of the network interface whose IPv4 address this is; None: there is none."""
    if not sys.platform.startswith("linux"):
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(answer[_ADDRESS]) == address:
                return name
    return None
