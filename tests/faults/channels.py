"""How a writer's appends reach the gateway, and what it is told of each."""

from __future__ import annotations

import json
from typing import Any, Protocol

import httpx
import msgspec
from websockets import ConnectionClosed, InvalidHandshake, Subprotocol
from websockets.asyncio.client import ClientConnection, connect

from tests.faults.address import Address
from tests.support.writers import Answer, Outcome, log_event, post_events

CLOSE_S = 0.1


class Channel(Protocol):
    """Carries appends; each try of one has the same number and marks."""

    async def send(self, number: int, marks: tuple[str, ...]) -> Answer:
        """Try once to append an event for each mark."""
        ...

    async def close(self) -> None:
        """Give up what is open."""
        ...


class HttpChannel:
    """Requests of their own; repeats are recognised by `writer_seq`, by an `Idempotency-Key`, or not at all."""

    def __init__(
        self, address: Address, run_id: str, writer: str, *, timeout_s: float, numbered: bool, keyed: bool
    ) -> None:
        self._client: httpx.AsyncClient = address.client(timeout_s)
        self._path = f"/v1/runs/{run_id}/events"
        self._writer = writer
        self._numbered = numbered
        self._keyed = keyed

    async def send(self, number: int, marks: tuple[str, ...]) -> Answer:
        """Try once to append an event for each mark."""
        headers = {"content-type": "application/json"}
        body: dict[str, Any] = {"events": [log_event(mark) for mark in marks]}
        if self._numbered:
            body |= {"writer": self._writer, "writer_seq": number}
        if self._keyed:
            headers["idempotency-key"] = f"{self._writer}-{number}"
        return await post_events(self._client, self._path, msgspec.json.encode(body), headers)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class SocketChannel:
    """Commands over a WebSocket, which is opened again when it breaks; repeats are recognised by `writer_seq`."""

    def __init__(self, address: Address, run_id: str, writer: str, *, timeout_s: float) -> None:
        self._address = address
        self._run_id = run_id
        self._writer = writer
        self._timeout_s = timeout_s
        self._socket: ClientConnection | None = None
        self._tries = 0

    async def send(self, number: int, marks: tuple[str, ...]) -> Answer:
        """Try once to append an event for each mark."""
        self._tries += 1
        command = {
            "type": "append",
            "id": f"c{self._tries}",
            "run_id": self._run_id,
            "events": [log_event(mark) for mark in marks],
            "writer": self._writer,
            "writer_seq": number,
        }
        try:
            socket = self._socket = self._socket or await self._open()
            await socket.send(json.dumps(command))
            return read_answer(json.loads(await socket.recv()), str(command["id"]))
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError, TimeoutError):
            await self.close()
            return Answer(Outcome.UNKNOWN, {})

    async def _open(self) -> ClientConnection:
        return await connect(
            self._address.url.replace("http", "ws", 1) + "/v1/ws",
            additional_headers={"Authorization": f"Bearer {self._address.key}"},
            subprotocols=[Subprotocol("gateway.v1")],
            compression=None,
            open_timeout=self._timeout_s,
            ping_interval=self._timeout_s / 2,
            ping_timeout=self._timeout_s / 2,
            close_timeout=CLOSE_S,
            proxy=None,
        )

    async def close(self) -> None:
        """Drop the socket."""
        if self._socket is not None:
            self._socket.transport.abort()
            self._socket = None


def read_answer(frame: dict[str, Any], command_id: str) -> Answer:
    """Return what the answer to an append says."""
    if frame["type"] == "ack" and frame["id"] == command_id:
        return Answer(Outcome.ACKNOWLEDGED, frame["result"])
    problem = frame["problem"]
    if problem["status"] == 503:
        return Answer(Outcome(problem.get("outcome", "not_written")), problem)
    return Answer(Outcome.REFUSED, problem)
