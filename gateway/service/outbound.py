"""HTTP requests to strangers' URLs: only to addresses that were looked at, never redirected, bounded in every way."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterable
from typing import Final

import httpcore
import httpx
import msgspec

from gateway.domain.addresses import is_local_name, is_public, parse_address
from gateway.errors import InvalidBody

URL_CHARS: Final = 2_048
ANSWER_BYTES: Final = 64 * 1024
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
ADDRESSES_TRIED: Final = 3
IDLE_S: Final = 2.0
"""How long a connection is kept for the next request: less than receivers keep theirs."""


class UrlRules(msgspec.Struct, frozen=True):
    """Which URLs may be posted to besides `https://` ones of the public internet."""

    allow_http: bool = False
    allow_private: bool = False

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that are spoken."""
        return ("https", "http") if self.allow_http else ("https",)


class Posted(msgspec.Struct, frozen=True):
    """What came of a request: the answer's status, or why there is none."""

    duration_ms: int
    status: int | None = None
    error: str | None = None
    retry_after: str | None = None


class Fetched(msgspec.Struct, frozen=True):
    """What came of getting a URL: the answer's status and body, or why there is none."""

    status: int | None = None
    body: bytes | None = None
    error: str | None = None


class AddressRefused(httpcore.ConnectError):
    """A host has no address that may be connected to."""


def check_url(url: str, rules: UrlRules, path: str) -> str:
    """Return a URL that may be posted to; where its name leads is seen when that is done.

    Raises:
        InvalidBody: why not, at `path`.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidBody(f"{path}: not a URL ({error}).", path=path) from None
    host = parsed.raw_host.decode("ascii")
    if parsed.scheme not in rules.schemes:
        raise InvalidBody(f"{path}: the scheme must be {' or '.join(rules.schemes)}.", path=path)
    if parsed.userinfo:
        raise InvalidBody(f"{path}: credentials in a URL are not taken.", path=path)
    port_fits = parsed.port is None or 0 < parsed.port < 65_536
    if not _HOST.fullmatch(host) or not port_fits or parsed.fragment or len(url) > URL_CHARS:
        raise InvalidBody(
            f"{path}: expected a host, a port below 65,536, no fragment, at most {URL_CHARS} characters.", path=path
        )
    address = parse_address(host)
    if not rules.allow_private and (is_local_name(host) or (address is not None and not is_public(address))):
        raise InvalidBody(f"{path}: {host} is no address of the public internet.", path=path, host=host)
    return url


class Outbound:
    """Posts to strangers' URLs, and gets them.

    Args:
        timeout_s: Longest time from the look-up of the host to the end of the answer.
        connections: Most connections open at once.
    """

    def __init__(self, rules: UrlRules, *, timeout_s: float, connections: int) -> None:
        self._rules = rules
        self._timeout_s = timeout_s
        trust = httpcore.default_ssl_context()
        # Also what the operator's machine trusts, SSL_CERT_FILE included.
        trust.load_default_certs()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust,
            max_connections=connections,
            keepalive_expiry=IDLE_S,
            network_backend=_VettedNetwork(rules),
        )

    async def post(self, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> Posted:
        """Post once; every failure is a result."""
        began_s = time.monotonic()
        status, error, retry_after = None, None, None
        try:
            async with asyncio.timeout(self._timeout_s):
                status, retry_after = await self._post(url, headers, body)
        except _FAILURES as failure:
            error = _name_failure(failure)
        return Posted(round((time.monotonic() - began_s) * 1000), status, error, retry_after)

    async def fetch(self, url: str, *, limit_bytes: int) -> Fetched:
        """Get once; every failure is a result, and so is an answer over `limit_bytes`."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._pool.stream("GET", self._target(url), headers=[(b"accept", b"application/json")]) as response,
            ):
                received = bytearray()
                async for chunk in response.aiter_stream():
                    received += chunk
                    if len(received) > limit_bytes:
                        return Fetched(response.status, error="too_large")
                return Fetched(response.status, bytes(received))
        except _FAILURES as failure:
            return Fetched(error=_name_failure(failure))

    async def _post(self, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> tuple[int, str | None]:
        fields = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
        async with self._pool.stream("POST", self._target(url), headers=fields, content=body) as response:
            received_bytes = 0
            async for chunk in response.aiter_stream():
                received_bytes += len(chunk)
                if received_bytes > ANSWER_BYTES:
                    # Its status is all that counts.
                    break
            found = [value for name, value in response.headers if name.lower() == b"retry-after"]
            return response.status, found[0].decode("ascii", "replace") if found else None

    def _target(self, url: str) -> httpcore.URL:
        parsed = httpx.URL(url)
        if parsed.scheme not in self._rules.schemes:
            # It was taken when the rules were others.
            raise AddressRefused(f"{parsed.scheme} is not spoken")
        return httpcore.URL(
            scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path or b"/"
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


_FAILURES: Final = (
    OSError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


def _name_failure(failure: Exception) -> str:
    """Return the word for why there is no answer."""
    match failure:
        case TimeoutError():
            return "timeout"
        case AddressRefused():
            return "address_refused"
        case httpcore.ConnectError() | OSError():
            return "connect_failed"
        case httpcore.NetworkError() | httpcore.TimeoutException():
            return "connection_lost"
        case _:
            return "not_http"


class _VettedNetwork(httpcore.AsyncNetworkBackend):
    """Looks a host up, refuses addresses that are not public, and connects to one that was looked at.

    Nothing is looked up between the two, so that a name cannot lead elsewhere meanwhile.
    """

    def __init__(self, rules: UrlRules) -> None:
        self._rules = rules
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: httpcore.ConnectError = AddressRefused(f"{host} has no address that may be connected to")
        for address in (await self._addresses(host, port))[:ADDRESSES_TRIED]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from None
        texts = dict.fromkeys(str(place[0]) for *_, place in found)
        return [text for text in texts if self._rules.allow_private or self._is_public(text)]

    def _is_public(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and is_public(address)
