"""Where ranks meet: addresses, interfaces and the store."""

import os
import socket

import pytest

from actors.rendezvous import interface_of, join_store, open_store, stay_on_interface_of
from cluster.loopback import listeners
from worldstereo.errors import ParameterError

NAMES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
NOBODYS = "192.0.2.77"  # kept for documentation, so no interface has it


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")


def test_an_interface_is_found_by_its_address() -> None:
    names = [name for _, name in socket.if_nameindex()]
    assert interface_of("127.0.0.1") in names
    assert interface_of(NOBODYS) is None


@pytest.mark.usefixtures("untold")
def test_the_libraries_are_told_the_interface_of_the_node() -> None:
    stay_on_interface_of("127.0.0.1")
    interface = interface_of("127.0.0.1")
    assert [os.environ[name] for name in NAMES] == [interface, f"={interface}"]


@pytest.mark.usefixtures("untold")
def test_what_the_node_was_set_up_with_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES[0], "ib0")
    stay_on_interface_of("127.0.0.1")
    assert os.environ[NAMES[0]] == "ib0"
    assert os.environ[NAMES[1]] == f"={interface_of('127.0.0.1')}"
    monkeypatch.setenv(NAMES[1], "ib0")
    stay_on_interface_of(NOBODYS)


@pytest.mark.usefixtures("untold")
def test_an_address_that_no_interface_has_is_refused() -> None:
    with pytest.raises(ParameterError, match=f"got {NOBODYS}; set GLOO_SOCKET_IFNAME and NCCL"):
        stay_on_interface_of(NOBODYS)


def test_the_store_listens_on_the_nodes_address_alone() -> None:
    before = set(listeners([os.getpid()]))
    store, meeting = open_store("127.0.0.1", timeout_s=10)
    (opened,) = set(listeners([os.getpid()])) - before
    assert (
        (opened.address, opened.port) == (meeting.host, meeting.port) == ("127.0.0.1", meeting.port)
    )
    other = join_store(meeting, timeout_s=10)
    other.set("word", "said")
    assert store.get("word") == b"said"
