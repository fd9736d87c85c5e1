"""Addresses that a stranger's URL may lead to: the public internet, and nothing that only looks like it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address

_NAT64: Final = IPv6Network("64:ff9b::/96")
_UNICAST: Final = IPv6Network("2000::/3")
# What IANA has set apart, said here since Python's own lists differ from one version to the next.
_SET_APART: Final = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"))
)
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain")


def parse_address(host: str) -> Address | None:
    """Return the address that a URL's host spells, however resolvers read it (`2130706433`, `0x7f.1`, `::1`); None
    for a name."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return _parse_old_spelling(host)


def _parse_old_spelling(host: str) -> IPv4Address | None:
    """Read what `inet_aton` reads: one to four numbers in decimal, octal or hexadecimal, the last one long."""
    parts = host.removesuffix(".").split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *first, last = (_read_number(part) for part in parts)
    room = 256 ** (4 - len(first))
    if any(number is None or number > 255 for number in first) or last is None or last >= room:
        return None
    value = 0
    for number in first:
        value = value * 256 + (number or 0)
    return IPv4Address(value * room + last)


def _read_number(text: str) -> int | None:
    try:
        if text[:2] in ("0x", "0X"):
            return int(text[2:] or "0", 16)
        return int(text, 8 if text.startswith("0") and len(text) > 1 else 10)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet: not private, loopback, link-local, multicast or reserved.

    An IPv6 address that carries an IPv4 one is judged by that one.
    """
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is not None:
            return is_public(carried)
        if address not in _UNICAST:
            return False
    return address.is_global and not (
        any(address in network for network in _SET_APART)
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def address_class(host: str | None) -> str:
    """Return what kind of address a peer has: `loopback`, `private`, `public`; `unknown` for a socket file or a name.

    An IPv6 address that carries an IPv4 one is judged by that one.
    """
    address = None if host is None else parse_address(host)
    if address is None:
        return "unknown"
    carried = _carried(address) if isinstance(address, IPv6Address) else None
    if address.is_loopback or (carried is not None and carried.is_loopback):
        return "loopback"
    return "public" if is_public(address) else "private"


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64 or 1 < int(address) < 2**32:
        # The second is the deprecated IPv4-compatible form, `::10.0.0.1`.
        return IPv4Address(int(address) % 2**32)
    return address.ipv4_mapped or address.sixtofour


def is_local_name(host: str) -> bool:
    """Whether a name means this machine wherever it is looked up (RFC 6761)."""
    name = host.lower().removesuffix(".")
    return name in _LOCAL_NAMES or name.endswith(".localhost")
