"""The forms of a store's URL: one server, a cluster, or what sentinels say is the primary."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from urllib.parse import parse_qsl, quote, urlencode

import msgspec


class Kind(StrEnum):
    """What stands behind a URL."""

    SERVER = ""
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


_MANY = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>cluster|sentinel)://(?:(?P<user>[^@/?]*)@)?(?P<hosts>[^@/?]+)"
    r"(?:/(?P<service>[^/?]*)(?:/(?P<database>\d+))?)?(?:\?(?P<query>\S*))?"
)
_DEFAULT_PORTS = {Kind.CLUSTER: 6379, Kind.SENTINEL: 26379}
_OF_SENTINELS = frozenset({"sentinel_username", "sentinel_password"})


class StoreUrl(msgspec.Struct, frozen=True):
    """A store's URL, taken apart.

    Args:
        url: As it was given.
        hosts: `host:port` of the nodes or sentinels that were named; none for one server.
        service: What the sentinels call the primary.
        database: Its database there.
        user: `name:password`, as it stands in the URL.
        options: What stands behind the question mark, for nodes as for servers.
    """

    kind: Kind
    url: str
    scheme: str = ""
    hosts: tuple[str, ...] = ()
    service: str = ""
    database: str = ""
    user: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def node(self, address: str) -> str:
        """Return the URL of one server of those behind this one, with its user, TLS and options."""
        own = [(name, value) for name, value in self.options if name not in _OF_SENTINELS]
        return self._join(self.user, address, own)

    def sentinel(self, address: str) -> str:
        """Return the URL of one sentinel: TLS as for the store, and credentials of its own."""
        given = dict(self.options)
        user = quote(given.get("sentinel_username", ""), safe="")
        password = quote(given.get("sentinel_password", ""), safe="")
        own = [(name, value) for name, value in self.options if name not in _OF_SENTINELS and name != "db"]
        return self._join(f"{user}:{password}" if password else "", address, own, database="")

    def _join(self, user: str, address: str, options: list[tuple[str, str]], database: str | None = None) -> str:
        database = self.database if database is None else database
        place = f"{user}@{address}" if user else address
        return f"{self.scheme}://{place}/{database}" + (f"?{urlencode(options)}" if options else "")


@cache
def read_url(url: str) -> StoreUrl:
    """Take a store's URL apart; what names no cluster and no sentinels is that of one server."""
    found = _MANY.fullmatch(url)
    if found is None:
        return StoreUrl(Kind.SERVER, url)
    kind = Kind(found["kind"])
    hosts = [host.strip() for host in found["hosts"].split(",") if host.strip()]
    return StoreUrl(
        kind,
        url,
        scheme=found["scheme"],
        hosts=tuple(with_port(host, _DEFAULT_PORTS[kind]) for host in hosts),
        service=found["service"] or "",
        database=found["database"] or "",
        user=found["user"] or "",
        options=tuple(parse_qsl(found["query"] or "", keep_blank_values=True)),
    )


def with_port(host: str, port: int) -> str:
    """Return `host:port`, with the port that it names itself if it does."""
    bare = host.rpartition("]")[2] if host.startswith("[") else host
    return host if ":" in bare else f"{host}:{port}"


def join_address(host: str, port: int) -> str:
    """Return `host:port`; an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def host_of(address: str) -> str:
    """Return the host of `host:port`."""
    return address.rpartition(":")[0]
