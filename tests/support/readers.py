"""Readers that come back with their cursor until the run has ended, and accept nothing but the next event."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import httpx
import msgspec
from websockets import ConnectionClosed, InvalidHandshake, Subprotocol
from websockets.asyncio.client import connect

from gateway.client import Backoff, Client, Event, Gap, Reset
from tests.support.transcripts import Transcript

READ_BYTES = 65536
AGAIN_S = 0.01
RECEIVE_BYTES = 4096
CLOSE_S = 0.1


class Reader(Protocol):
    """Reads one run to its end, over as many connections as it takes."""

    transcript: Transcript
    attempts: int

    async def run(self) -> None:
        """Read until the run has ended."""
        ...


class SseParser:
    """Lines of an event stream to frames; strict in what the protocol promises."""

    def __init__(self) -> None:
        self._rest = b""
        self._id = self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[tuple[str, str, bytes]]:
        """Return the frames that `chunk` completes, as name, id and data."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        frames = []
        for line in lines:
            assert b"\r" not in line, line
            field, _, value = line.partition(b": ")
            if field == b"id":
                self._id = value
            elif field == b"event":
                self._name = value
            elif field == b"data":
                self._data.append(value)
            elif line == b"" and self._data:
                frames.append((self._name.decode(), self._id.decode(), b"\n".join(self._data)))
                self._id, self._name, self._data = b"", b"", []
        return frames


async def open_socket(host: str, port: int | None, *, small_buffer: bool) -> socket.socket:
    """Return a connected socket, on request one that takes little before the peer has to wait."""
    sock = socket.socket()
    sock.setblocking(False)
    if small_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


class SseReader:
    """Server-sent events over bare sockets: no library repairs or hides anything.

    `asleep` stops its reading from the socket while it is set; `cut_short` counts answers that did not end
    as HTTP says.
    """

    def __init__(
        self,
        url: str,
        key: str,
        run_id: str,
        *,
        silence_s: float = 10,
        small_buffer: bool = False,
        transcript: Transcript | None = None,
    ) -> None:
        self.transcript = transcript or Transcript()
        self.awake = asyncio.Event()
        self.awake.set()
        self.cut_short = 0
        self.attempts = 0
        self.local_port = 0
        self._host, self._port = httpx.URL(url).host, httpx.URL(url).port
        self._key = key
        self._path = f"/v1/runs/{run_id}/stream"
        self._silence_s = silence_s
        self._small_buffer = small_buffer

    async def run(self) -> None:
        """Read until the run has ended."""
        while not self.transcript.ended:
            self.attempts += 1
            try:
                await self._read_once()
            except (OSError, EOFError, TimeoutError):
                self.cut_short += 1
                await asyncio.sleep(random.uniform(0, AGAIN_S))
            else:
                assert self.transcript.ended, "the stream ended cleanly, but its run did not"

    async def _read_once(self) -> None:
        reader, writer = await self._connect()
        try:
            writer.write(self._request())
            async with asyncio.timeout(self._silence_s):
                head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status == 204:
                self.transcript.ended = True
                return
            if status == 503:
                raise EOFError("not now")
            assert status == 200, head
            parser = SseParser()
            async with aclosing(self._chunks(reader)) as chunks:
                async for chunk in chunks:
                    for frame in parser.feed(chunk):
                        self.transcript.take(*frame)
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = await open_socket(self._host, self._port, small_buffer=self._small_buffer)
        self.local_port = sock.getsockname()[1]
        return await asyncio.open_connection(sock=sock, limit=RECEIVE_BYTES if self._small_buffer else READ_BYTES)

    def _request(self) -> bytes:
        lines = [f"GET {self._path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {self._key}"]
        if self.transcript.cursor is not None:
            lines.append(f"Last-Event-ID: {self.transcript.cursor}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _chunks(self, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a chunked body until the last; a body that is cut raises."""
        while True:
            await self.awake.wait()
            async with asyncio.timeout(self._silence_s):
                size = int(await reader.readuntil(b"\r\n"), 16)
                chunk = await reader.readexactly(size + 2)
            if size == 0:
                return
            yield chunk[:-2]


class WebSocketReader:
    """The WebSocket, through the `websockets` library, which pings to notice a dead connection."""

    def __init__(
        self,
        url: str,
        key: str,
        run_id: str,
        *,
        silence_s: float = 10,
        small_buffer: bool = False,
        transcript: Transcript | None = None,
    ) -> None:
        self.transcript = transcript or Transcript()
        self.awake = asyncio.Event()
        self.awake.set()
        self.attempts = 0
        self.closings: list[int] = []
        self._url = url.replace("http:", "ws:") + "/v1/ws"
        self._key = key
        self._run_id = run_id
        self._silence_s = silence_s
        self._small_buffer = small_buffer

    async def run(self) -> None:
        """Read until the run has ended."""
        while not self.transcript.ended:
            self.attempts += 1
            try:
                await self._read_once()
            except ConnectionClosed as error:
                self.closings.append(error.rcvd.code if error.rcvd else 1006)
            except (OSError, EOFError, TimeoutError, InvalidHandshake):
                pass
            await asyncio.sleep(random.uniform(0, AGAIN_S))

    async def _read_once(self) -> None:
        host, port = httpx.URL(self._url).host, httpx.URL(self._url).port
        async with connect(
            self._url,
            sock=await open_socket(host, port, small_buffer=self._small_buffer),
            additional_headers={"Authorization": f"Bearer {self._key}"},
            subprotocols=[Subprotocol("gateway.v1")],
            compression=None,
            open_timeout=self._silence_s,
            ping_interval=self._silence_s / 2,
            ping_timeout=self._silence_s / 2,
            close_timeout=CLOSE_S,
            proxy=None,
        ) as socket:
            assert socket.subprotocol == "gateway.v1"
            place = {"after": self.transcript.cursor} if self.transcript.cursor else {}
            await socket.send(json.dumps({"type": "subscribe", "id": "s", "run_id": self._run_id, **place}))
            while not self.transcript.ended:
                await self.awake.wait()
                self._take(await socket.recv(decode=False))

    def _take(self, text: bytes) -> None:
        frame: dict[str, Any] = msgspec.json.decode(text)
        kind = frame.pop("type")
        if kind == "ack":
            assert frame["id"] == "s"
        elif kind == "event":
            assert frame["run_id"] == self._run_id
            self.transcript.take_event(frame["cursor"], frame["event"])
        elif kind == "error" and frame["problem"]["status"] == 503:
            raise EOFError("not now")
        else:
            self.transcript.take(kind, "", text)


class ClientReader:
    """The Python client's own reader."""

    def __init__(
        self, url: str, key: str, run_id: str, *, silence_s: float = 10, transcript: Transcript | None = None
    ) -> None:
        self.transcript = transcript or Transcript()
        self.attempts = 0
        self._client = Client(url, key=key, backoff=Backoff(initial_s=0.005, max_s=0.02), silence_s=silence_s)
        self._run_id = run_id

    async def run(self) -> None:
        """Read until the run has ended."""
        async with self._client, aclosing(self._client.runs.events(self._run_id)) as items:
            async for item in items:
                match item:
                    case Event():
                        self.transcript.take_event(item.cursor, {"seq": item.seq, "type": item.type, "data": item.data})
                    case Reset():
                        facts = {"reason": item.reason, "valid_through": item.valid_through, "head_seq": item.head_seq}
                        self.transcript.take("stream.reset", "", msgspec.json.encode(facts))
                    case Gap():
                        facts = {"requested": item.requested, "first_seq": item.first_seq}
                        self.transcript.take("stream.gap", "", msgspec.json.encode(facts))
        self.transcript.ended = True


async def read_up_to(reader: Reader, seq: int) -> None:
    """Have a reader read until it has event `seq`, forget what came beyond it, and leave."""
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reader.run())
        await reader.transcript.reaches(seq)
        reading.cancel()
    reader.transcript.read_no_further(seq)
