"""HTTP calls that are repeated until they are answered, and event streams as frames."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import httpx_sse
import msgspec

from gateway.client.backoff import Backoff
from gateway.client.errors import ConnectionLost, ProtocolError, Unavailable
from gateway.client.frames import Frame
from gateway.client.problems import read_refusal

Answer = TypeVar("Answer")

Body = bytes | Callable[[], AsyncIterator[bytes]] | None
"""What is sent: bytes, or what gives them anew, piece by piece, each time they are sent."""

CONNECT_S = 10.0
CALL_READ_S = 30.0
STORED_READ_S = 300.0
"""Until a large file that was sent is on the gateway's disk, or in its bucket."""
MAX_CONNECTIONS = 1_000


class Transport:
    """One gateway, its address and key, and the pool of connections to it."""

    def __init__(
        self, base_url: str, key: str | None, *, backoff: Backoff, repeat_s: float | None, silence_s: float
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"a gateway's address looks like http://127.0.0.1:8000, not {base_url!r}")
        self.backoff = backoff
        self._repeat_s = repeat_s
        self._silence_s = silence_s
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(CALL_READ_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=20),
            # A proxy named in the environment cannot reach this machine's own loopback for us.
            trust_env=not _is_loopback(url.host),
        )

    async def close(self) -> None:
        """Close every connection; streams that are still read end with an error."""
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: object = msgspec.UNSET,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        lease: str | None = None,
    ) -> Answer:
        """Make a call and return its decoded answer.

        It is repeated while the gateway is away or says 503; a POST carries an idempotency key, so
        a repeat changes nothing twice.

        Raises:
            ApiError: the gateway refused.
            ConnectionLost: it could not be reached for `repeat_s` seconds.
            ProtocolError: the answer is not of the expected shape.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex} if method == "POST" else {}
        headers |= lease_header(lease)
        content = None if body is msgspec.UNSET else msgspec.json.encode(body)
        response = await self.send(method, path, content=content, params=params, headers=headers)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"{method} {path} answered something unexpected: {error}") from error

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: Body = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat_s: float | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> httpx.Response:
        """Send the same bytes until they are answered, for at most `repeat_s` seconds.

        None repeats for ever; unset, the time that the client was built with counts.
        """
        loop = asyncio.get_running_loop()
        patience_s = self._repeat_s if isinstance(repeat_s, msgspec.UnsetType) else repeat_s
        deadline = None if patience_s is None else loop.time() + patience_s
        failures = 0
        while True:
            try:
                return await self._send_once(method, path, content, params, headers)
            except (Unavailable, ConnectionLost) as error:
                delay_s = self._delay_s(error, failures)
                if deadline is not None and loop.time() + delay_s > deadline:
                    raise
            failures += 1
            await asyncio.sleep(delay_s)

    async def _send_once(
        self,
        method: str,
        path: str,
        content: Body,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        all_headers = {**({"Content-Type": "application/json"} if content else {}), **(headers or {})}
        read_s = STORED_READ_S if callable(content) else CALL_READ_S
        try:
            response = await self._http.request(
                method,
                path,
                content=content() if callable(content) else content,
                params=params,
                headers=all_headers,
                timeout=httpx.Timeout(CALL_READ_S, connect=CONNECT_S, read=read_s),
            )
        except httpx.TransportError as error:
            raise ConnectionLost(f"cannot reach {self._http.base_url}: {describe(error)}") from error
        if response.status_code >= 400:
            raise read_refusal(response)
        return response

    def _delay_s(self, error: Unavailable | ConnectionLost, failures: int) -> float:
        asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
        return max(self.backoff.delay_s(failures), min(asked_s or 0.0, self.backoff.max_s))

    async def frames(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncGenerator[Frame, None]:
        """Open one stream and yield its frames until the connection ends.

        204, nothing will ever follow, is yielded as the frame `stream.end`.

        Raises:
            ApiError: the gateway refused.
            ConnectionLost: the connection could not be made, broke, or was silent for too long.
            ProtocolError: the answer is no event stream.
        """
        wanted = {"Accept": "text/event-stream", "Cache-Control": "no-store", **headers}
        timeout = httpx.Timeout(CALL_READ_S, connect=CONNECT_S, read=self._silence_s)
        try:
            async with self._http.stream("GET", path, params=params, headers=wanted, timeout=timeout) as response:
                if await _is_over(response):
                    yield Frame("stream.end", "", "{}")
                    return
                async with aclosing(httpx_sse.EventSource(response).aiter_sse()) as source:
                    async for sse in source:
                        yield Frame(sse.event, sse.id, sse.data, sse.retry)
        except httpx.TransportError as error:
            raise ConnectionLost(f"the stream from {self._http.base_url} broke: {describe(error)}") from error

    @asynccontextmanager
    async def content(self, path: str, *, headers: Mapping[str, str]) -> AsyncGenerator[httpx.Response, None]:
        """Open a response to be read piece by piece.

        Raises:
            ApiError: the gateway refused.
            ConnectionLost: the connection could not be made, or broke while it was read.
        """
        try:
            # As it is stored: what names its length must not be sent another way.
            async with self._http.stream("GET", path, headers={"Accept-Encoding": "identity", **headers}) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise read_refusal(response)
                yield response
        except httpx.TransportError as error:
            raise ConnectionLost(f"the answer of {self._http.base_url} broke: {describe(error)}") from error


def lease_header(lease: str | None) -> dict[str, str]:
    """Return the header by which a worker proves that it holds the run."""
    return {} if lease is None else {"Lease": lease}


async def _is_over(response: httpx.Response) -> bool:
    if response.status_code == 204:
        return True
    if response.status_code >= 400:
        await response.aread()
        raise read_refusal(response)
    content_type = response.headers.get("content-type", "")
    if response.status_code != 200 or not content_type.startswith("text/event-stream"):
        raise ProtocolError(f"expected an event stream, got {response.status_code} {content_type!r}")
    return False


def describe(error: Exception) -> str:
    """Return what an HTTP library's error says, or its name when it says nothing."""
    return str(error) or type(error).__name__


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
