"""What one writes in an afternoon: Starlette, sse-starlette, and a blocking XREAD for each reader.

It has no keys, no validation, no guards and no cursor that could be verified.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import redis.asyncio as redis
import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from ulid import ULID

from gateway.store.valkey import find_server


def build(socket: Path) -> Starlette:
    """Return the application."""
    writing = asyncio.Lock()
    store = redis.Redis.from_url(f"unix://{socket}", max_connections=20_000)

    async def create(_request: Request) -> Response:
        run_id = str(ULID())
        await store.xadd(run_id, {"e": '{"type":"run.created"}'}, id="1-0")
        await store.xadd(run_id, {"e": '{"type":"run.queued"}'}, id="2-0")
        return JSONResponse({"id": run_id}, 201)

    async def append(request: Request) -> Response:
        run_id = request.path_params["run_id"]
        body = json.loads(await request.body())
        async with writing:
            await add(run_id, body["events"])
        return JSONResponse({"ok": True})

    async def add(run_id: str, events: list[Any]) -> None:
        for event in events:
            seq = await store.incr(f"{run_id}:seq")
            await store.xadd(run_id, {"e": json.dumps({"seq": seq, **event})}, id=f"{seq + 2}-0")

    async def stream(request: Request) -> Response:
        return EventSourceResponse(_events(store, request.path_params["run_id"]), sep="\n")

    async def ready(_request: Request) -> Response:
        return JSONResponse({"ready": bool(await store.ping())})

    return Starlette(
        routes=[
            Route("/readyz", ready),
            Route("/v1/runs", create, methods=["POST"]),
            Route("/v1/runs/{run_id}/events", append, methods=["POST"]),
            Route("/v1/runs/{run_id}/stream", stream),
        ]
    )


async def _events(store: redis.Redis, run_id: str) -> AsyncIterator[dict[str, str]]:
    yield {"event": "stream.open", "data": "{}"}
    last = "0"
    while True:
        found: Any = await store.xread({run_id: last}, block=15_000, count=1000)
        for _name, entries in found:
            for entry_id, fields in entries:
                last = entry_id.decode()
                yield {"id": last, "data": fields[b"e"].decode()}


def main(port: str, folder: str, fsync: str) -> None:
    """Run a store and the application over it."""
    socket = Path(folder) / "naive.sock"
    binary = asyncio.run(find_server())
    options = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", "", "--maxclients", "20000"]
    store = subprocess.Popen([str(binary), *options, "--appendonly", "yes", "--appendfsync", fsync])
    try:
        uvicorn.run(build(socket), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
    finally:
        store.terminate()
        store.wait(10)
        socket.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
