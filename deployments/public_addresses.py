"""Which addresses are anybody's in the internet: where others may send the server to."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Public by number, but a service of the host that a machine of this cloud runs on.
_HOSTS_OWN = frozenset({ipaddress.ip_address("168.63.129.16")})
_UNICAST = ipaddress.IPv6Network("2000::/3")
# IPv4 addresses behind translators: RFC 6052, and its local-use prefix RFC 8215.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))


def is_public(address: Address | str) -> bool:
    """Whether an address is one of the internet's: not private, of this machine, or of a cloud.

    Addresses of version 6 that stand for one of version 4 are judged by that one. What is no
    address is not public.
    """
    try:
        # A zone after % is of this machine.
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if any(found in network for network in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner:
            return is_public(inner)
        if found not in _UNICAST:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found in _HOSTS_OWN)
