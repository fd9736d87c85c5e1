"""The gateway's own path with nothing on it, and with one of its three duties: what each of them costs.

`bare` takes an append from the connection, numbers its events, and writes each to every reader's transport.
`bare-auth` knows the key of each request, `bare-checks` the type and the data of each event, `bare-store` keeps each
event in the embedded store, and answers once it is there. None of them has guards, tenants, cursors or history.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from ulid import ULID

from gateway.domain.access import RUNS_WRITE, require
from gateway.domain.events import NewEvent, check
from gateway.edge.auth import require_credential
from gateway.edge.express import Express
from gateway.edge.plain import Headers
from gateway.edge.server import HttpProtocol
from gateway.edge.stream_connection import StreamConnection
from gateway.service.access import Access
from gateway.store.access import AccessStore
from gateway.store.embedded import borrow_store
from gateway.store.link import Link, NodeLink
from loadtest.targets import KEY

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
OPEN = b'retry: 2000\n\nid: 1\ndata: {"type":"run.created"}\n\nid: 2\ndata: {"type":"run.queued"}\n\n'


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw


class _Append(msgspec.Struct):
    events: list[_Event]


class Bare:
    """Runs as nothing but readers and a number."""

    def __init__(self, link: Link | None, access: Access | None, *, checks: bool) -> None:
        self._link = link
        self._access = access
        self._checks = checks
        self._decode = msgspec.json.Decoder(_Append).decode
        self._heads: dict[str, int] = defaultdict(lambda: 2)
        self._readers: dict[str, list[StreamConnection]] = defaultdict(list)

    async def append(self, secret: str, run_id: str, raw: bytes, _: dict[str, Any]) -> bytes:
        """Number events, keep them where that is asked for, and write them to the readers."""
        if self._access is not None:
            require(await self._access.authenticate(secret, now_ms=time.time_ns() // 1_000_000), RUNS_WRITE)
        events = self._decode(raw).events
        if self._checks:
            for event in events:
                check(NewEvent(event.type, msgspec.json.decode(event.data)))
        first = self._heads[run_id] + 1
        self._heads[run_id] += len(events)
        lines = [
            b'{"seq":%d,"type":"%b","data":%b}' % (seq, event.type.encode(), bytes(event.data))
            for seq, event in enumerate(events, first)
        ]
        if self._link is not None:
            commands = [("XADD", run_id, f"{seq}-1", "e", line) for seq, line in enumerate(lines, first)]
            await self._link.call_many([*commands])
        self._push(run_id, b"".join([b"id: %d\ndata: %b\n\n" % pair for pair in enumerate(lines, first)]))
        return b'{"first_seq":%d,"last_seq":%d}' % (first, first + len(events) - 1)

    def _push(self, run_id: str, frames: bytes) -> None:
        chunk = b"%x\r\n%b\r\n" % (len(frames), frames)
        for reader in self._readers[run_id]:
            reader.write(chunk)

    async def create(self, _request: Request) -> Response:
        """Give a run's id."""
        return JSONResponse({"id": str(ULID())}, 201)

    async def ready(self, _request: Request) -> Response:
        """Say yes once the store answers."""
        return JSONResponse({"ready": self._link is None or self._link.is_up})

    async def stream(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Begin an answer and keep its connection."""
        await send(HEAD)
        await send({"type": "http.response.body", "body": OPEN, "more_body": True})
        connection: StreamConnection | None = scope["extensions"]["gateway.take_over"](scope)
        assert connection is not None, "a reader sends one request"
        run_id = scope["path"].split("/")[3]
        self._readers[run_id].append(connection)
        connection.watch(partial(self._readers[run_id].remove, connection))


def _read_secret(headers: Headers) -> str:
    return require_credential(headers, {}).secret


async def main(port: int, folder: Path, fsync: str, name: str) -> None:
    """Serve until the process is ended."""
    async with borrow_store(folder, fsync="always" if fsync == "always" else "everysec") as url:
        link = NodeLink(url, "bare")
        running = asyncio.create_task(link.run())
        access = Access(AccessStore(link), recheck_s=5, static_key=KEY) if name == "bare-auth" else None
        bare = Bare(link if name == "bare-store" else None, access, checks=name == "bare-checks")
        route = "/v1/runs/{run_id}/events"
        express = Express("/v1/runs/", "/events", route, _read_secret, bare.append)
        routes = [
            Route("/readyz", bare.ready),
            Route("/v1/runs", bare.create, methods=["POST"]),
            Route("/v1/runs/{run_id}/stream", _Stream(bare)),
        ]
        http: Any = partial(HttpProtocol, express=express)
        options: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "backlog": 4096}
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=port, http=http, **options)
        await uvicorn.Server(config).serve()
        running.cancel()


class _Stream:
    """An ASGI application, as a class: Starlette takes a function for an endpoint that returns a response."""

    def __init__(self, bare: Bare) -> None:
        self._bare = bare

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._bare.stream(scope, receive, send)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
