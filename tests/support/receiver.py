"""A receiver of webhooks on a real port: it checks every signature, and answers as it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import uvicorn
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0cy1vZi13ZWJob29rcyE="


class Received(msgspec.Struct):
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        """Its id, by which receivers know a repeat."""
        return self.headers["webhook-id"]

    @property
    def content(self) -> dict[str, Any]:
        """Its body."""
        content: dict[str, Any] = msgspec.json.decode(self.body)
        return content

    @property
    def seq(self) -> int:
        """The seq of the event that it tells of."""
        seq: int = self.content["data"]["event"]["seq"]
        return seq

    def verify(self, secret: str = SECRET) -> dict[str, Any]:
        """Return the body if its signature is good, as the library of the rules says."""
        content: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return content


class Receiver:
    """What came, and what is answered: `answers` gives a response for each request, by its number from 0."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[int, Received], Response] = lambda _number, _got: Response(status_code=204)
        self.hold = asyncio.Event()
        self.hold.set()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it receives."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def seqs(self) -> list[int]:
        """The seqs of the events that came, in their order."""
        return [got.seq for got in self.received]

    @property
    def types(self) -> list[str]:
        """The types of the events that came, in their order."""
        return [got.content["type"] for got in self.received]

    async def take(self, request: Request) -> Response:
        """Take a request; while `hold` is not set it is not answered."""
        try:
            got = Received(request.url.path, dict(request.headers), await request.body())
        except ClientDisconnect:
            return Response(status_code=400)
        self.received.append(got)
        number = len(self.received) - 1
        await self.hold.wait()
        return self.answer(number, got)


@asynccontextmanager
async def run_receiver() -> AsyncIterator[Receiver]:
    """Serve a receiver on a free port of 127.0.0.1."""
    receiver = Receiver()
    app = Starlette(routes=[Route("/{path:path}", receiver.take, methods=["POST", "GET"])])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)
        receiver.port = sock.getsockname()[1]
        serving = asyncio.create_task(server._serve([sock]))
        try:
            yield receiver
        finally:
            receiver.hold.set()
            server.should_exit = True
            await serving
