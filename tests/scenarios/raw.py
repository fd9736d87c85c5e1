"""A request whose bytes leave when a scenario says so."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

from tests.support.processes import GatewayProcess

ANSWER_S = 10.0


class SlowPost:
    """A POST over a connection of its own; its body is sent in parts."""

    def __init__(self, gateway: GatewayProcess, path: str, body: bytes) -> None:
        self._gateway = gateway
        self._path = path
        self._left = body
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        _, writer = self._streams = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        head = [
            f"POST {self._path} HTTP/1.1",
            "Host: gateway",
            f"Authorization: Bearer {self._gateway.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(self._left)}",
        ]
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()

    async def send(self, size: int | None = None) -> None:
        """Send so many bytes of the body, or all that are left."""
        assert self._streams is not None
        part, self._left = (self._left, b"") if size is None else (self._left[:size], self._left[size:])
        self._streams[1].write(part)
        await self._streams[1].drain()

    async def answer(self) -> tuple[int, Any]:
        """Return the status and the decoded body of the answer."""
        assert self._streams is not None
        reader = self._streams[0]
        async with asyncio.timeout(ANSWER_S):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            body = await reader.readexactly(int(fields[b"content-length"]))
        return int(head.split(b" ")[1]), json.loads(body)
