"""A client of `/v1/ws` for tests: sends commands, keeps every frame in its order."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.running import RunningGateway

PATIENCE_S = 10.0

Frame = dict[str, Any]


class SocketClient:
    """One connection; `answer` looks for a command's answer and leaves other frames to `next`."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._ids = count(1)
        self._kept: deque[Frame] = deque()

    async def send(self, kind: str, **members: Any) -> str:
        """Send a command and return its id."""
        command_id = str(members.pop("id", None) or f"c{next(self._ids)}")
        await self.connection.send(json.dumps({"type": kind, "id": command_id, **members}))
        return command_id

    async def _receive(self) -> Frame:
        async with asyncio.timeout(PATIENCE_S):
            text = await self.connection.recv()
        assert isinstance(text, str)
        frame: Frame = json.loads(text)
        return frame

    async def next(self) -> Frame:
        """Return the oldest frame that was not returned yet."""
        return self._kept.popleft() if self._kept else await self._receive()

    async def answer(self, command_id: str) -> Frame:
        """Return the answer to a command."""
        while True:
            for index, frame in enumerate(self._kept):
                if frame.get("id") == command_id:
                    del self._kept[index]
                    return frame
            self._kept.append(await self._receive())

    async def ask(self, kind: str, **members: Any) -> Frame:
        """Send a command and return its answer."""
        return await self.answer(await self.send(kind, **members))

    async def do(self, kind: str, **members: Any) -> Any:
        """Send a command that must succeed and return what it led to."""
        frame = await self.ask(kind, **members)
        assert frame["type"] == "ack", frame
        assert frame.keys() == {"type", "id", "result"}
        return frame["result"]

    async def refused(self, code: str, kind: str, **members: Any) -> Frame:
        """Send a command that must be refused with this code and return the problem."""
        frame = await self.ask(kind, **members)
        assert frame["type"] == "error", frame
        problem: Frame = frame["problem"]
        assert problem["code"] == code, problem
        assert problem["request_id"]
        return problem

    async def until(self, kind: str, **members: Any) -> list[Frame]:
        """Return the frames up to and including the first of this type and with these members."""
        frames: list[Frame] = []
        while not frames or not (frames[-1].items() >= {"type": kind, **members}.items()):
            frames.append(await self.next())
        return frames

    async def quiet(self) -> list[Frame]:
        """Return the frames that were on their way: those before the answer to a ping."""
        return (await self.until("pong", id=await self.send("ping")))[:-1]

    async def closed(self) -> tuple[int, str]:
        """Return the code and reason of the close, once it has come."""
        try:
            while True:
                self._kept.append(await self._receive())
        except ConnectionClosed as error:
            close = error.rcvd
        assert close is not None, "the connection was cut"
        return close.code, close.reason


@asynccontextmanager
async def open_socket(
    api: RunningGateway,
    *,
    key: str | None = None,
    ticket: str | None = None,
    offer: tuple[str, ...] = ("gateway.v1",),
    query: str | None = None,
    reads: bool = True,
) -> AsyncIterator[SocketClient]:
    """Open a WebSocket with the tenant's key, another key (none if empty), or a ticket.

    Args:
        reads: Whether frames are read before they are asked for; if not, little fits between client and gateway.
    """
    if query is None:
        query = "" if ticket is None else "?" + urlencode({"ticket": ticket})
    key = api.key if key is None and ticket is None else key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    sock = socket.socket()
    if not reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", api.port))
    async with connect(
        f"ws://127.0.0.1/v1/ws{query}",
        sock=sock,
        additional_headers=headers,
        subprotocols=[Subprotocol(name) for name in offer] or None,
        max_queue=16 if reads else 1,
    ) as connection:
        try:
            yield SocketClient(connection)
        finally:
            if not reads:
                # It would read nothing of the other side's close, either.
                connection.transport.abort()


def seqs(frames: list[Frame], run_id: str) -> list[int]:
    """Return the seqs of a run's events among these frames."""
    return [f["event"]["seq"] for f in frames if f["type"] == "event" and f["run_id"] == run_id]


async def make_ticket(api: RunningGateway, **body: Any) -> str:
    """Return a ticket of the tenant's key, for the whole tenant unless it says otherwise."""
    body = body if body.keys() & {"runs", "thread_id"} else {"tenant": True, **body}
    answer = await api.client.post("/v1/tickets", json=body)
    assert answer.status_code == 201, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket
