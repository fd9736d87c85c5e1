"""A client of streams that trusts nothing: a raw socket, every byte kept, frames as an EventSource makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from gateway.domain.access import KeyRecord
from tests.support.running import RunningGateway

WAIT_S = 10.0


class Frame(NamedTuple):
    """What an EventSource dispatches: the event's name, its data, and the last id seen up to it."""

    name: str
    data: Any
    last_id: str
    own_id: bool


class Parser:
    """The event stream of the HTML standard, section 9.2.6, for lines that end in a line feed."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.retry_ms: int | None = None
        self._rest = b""
        self._last_id = ""
        self._reset()

    def _reset(self) -> None:
        self._name, self._own_id = "", False
        self._data: list[str] = []

    def feed(self, body: bytes) -> None:
        """Take bytes as they come."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            self._take(line.decode())

    def _take(self, line: str) -> None:
        if not line:
            if self._data:
                data = json.loads("\n".join(self._data))
                self.frames.append(Frame(self._name or "message", data, self._last_id, self._own_id))
            self._reset()
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id":
                self._last_id, self._own_id = value, True
            case "retry":
                self.retry_ms = int(value)


class Stream:
    """One answer on a connection of its own, read as far as a test asks for.

    `ended` is None while more may come, `clean` after the last chunk of the body, `cut` when the connection was lost
    before that.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ended: str | None = None
        self.parser = Parser()
        self._given = 0

    async def read_head(self) -> None:
        """Read the status line and the headers."""
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(head[0].split(" ")[1])
        for line in head[1:-2]:
            name, _, value = line.partition(": ")
            assert name.lower() not in self.headers, f"{name} is given twice"
            self.headers[name.lower()] = value

    async def read_more(self) -> None:
        """Read the next chunk, or the end."""
        try:
            async with asyncio.timeout(WAIT_S):
                if "content-length" in self.headers:
                    self._take(await self.reader.readexactly(int(self.headers["content-length"])))
                    self.ended = "clean"
                elif self.headers.get("transfer-encoding") != "chunked":
                    self.ended = "clean"
                else:
                    await self._read_chunk()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            self.ended = "cut"

    async def _read_chunk(self) -> None:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        if size == 0:
            self.ended = "clean"
        self._take(data[:-2])

    def _take(self, data: bytes) -> None:
        self.body += data
        if self.headers.get("content-type") == "text/event-stream":
            self.parser.feed(data)

    async def read_until(self, wanted: bytes) -> None:
        """Read until the body holds `wanted`."""
        looked = 0
        while self.body.find(wanted, looked) < 0:
            assert self.ended is None, f"{self.ended} before {wanted!r}: {self.body[-500:]!r}"
            looked = max(0, len(self.body) - len(wanted))
            await self.read_more()

    async def next(self) -> Frame:
        """Return the next frame that a page would get."""
        while self._given == len(self.parser.frames):
            assert self.ended is None, f"{self.ended} instead of another frame: {self.body[-200:]!r}"
            await self.read_more()
        self._given += 1
        return self.parser.frames[self._given - 1]

    async def take(self, count: int) -> list[Frame]:
        """Return the next `count` frames."""
        return [await self.next() for _ in range(count)]

    async def events(self, count: int) -> list[Any]:
        """Return the data of the next `count` frames, which are events."""
        frames = await self.take(count)
        assert {frame.name for frame in frames} <= {"message"}, frames
        return [frame.data for frame in frames]

    async def rest(self) -> list[Frame]:
        """Return all frames up to the end."""
        while self.ended is None:
            await self.read_more()
        frames = self.parser.frames[self._given :]
        self._given = len(self.parser.frames)
        return frames

    @property
    def problem(self) -> Any:
        """The problem document that was the answer."""
        return json.loads(self.body)


@asynccontextmanager
async def open_stream(
    running: RunningGateway,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    key: str | None = "",
    method: str = "GET",
    body: bytes = b"",
    ahead_bytes: int = 1 << 22,
) -> AsyncIterator[Stream]:
    """Send a request by hand and read the head of its answer.

    Args:
        key: Another key than the tenant's; None for none.
        ahead_bytes: About how much is taken from the network before the test asks for it.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=ahead_bytes)
    stream = Stream(reader, writer)
    try:
        await send_request(stream, running, path, headers=headers, key=key, method=method, body=body)
        yield stream
    finally:
        writer.transport.abort()


async def send_request(
    stream: Stream,
    running: RunningGateway,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    key: str | None = "",
    method: str = "GET",
    body: bytes = b"",
) -> None:
    """Send a request on a connection that stands, and read the head of its answer."""
    lines = {"Host": "gateway", **(headers or {})}
    if key is not None:
        lines["Authorization"] = f"Bearer {key or running.key}"
    if body:
        lines |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    stream.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    await stream.read_head()
    if "content-length" in stream.headers and method != "HEAD":
        await stream.read_more()


async def read_stream(running: RunningGateway, path: str, **request: Any) -> Stream:
    """Return an answer that ends, read to its end."""
    async with open_stream(running, path, **request) as stream:
        while stream.ended is None:
            await stream.read_more()
    return stream


async def frames_of(running: RunningGateway, path: str, **request: Any) -> list[Frame]:
    """Return all frames of a stream that ends in order."""
    stream = await read_stream(running, path, **request)
    assert stream.status == 200, (stream.status, stream.body)
    assert stream.ended == "clean"
    return stream.parser.frames


async def new_key(
    running: RunningGateway, *, scopes: Iterable[str] = ("runs:read",), agents: Iterable[str] | None = None
) -> tuple[str, KeyRecord]:
    """Return another key of the tenant, and its record."""
    return await running.gateway.access.create_key(
        tenant=running.tenant,
        name=None,
        principal=None,
        scopes=frozenset(scopes),
        agents=None if agents is None else frozenset(agents),
        now_ms=running.gateway.clock.now_ms(),
    )


async def new_ticket(running: RunningGateway, **body: Any) -> str:
    """Return a ticket made with the tenant's key."""
    answer = await running.client.post("/v1/tickets", json={"scopes": ["runs:read"], **body})
    assert answer.status_code == 201, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket


def seqs_of(frames: list[Frame]) -> list[int]:
    """Return the seqs of the events among some frames."""
    return [frame.data["seq"] for frame in frames if frame.name == "message"]


def names_of(frames: list[Frame]) -> list[str]:
    """Return the names of frames, `message` for events."""
    return [frame.name for frame in frames]
